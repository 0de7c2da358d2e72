using System.Management.Automation;
using System.Security.Cryptography;
using DiskImage.Block;
using DiskImage.Graph;
using DiskImage.Jobs;
using DiskImage.Operations;

namespace DiskImage.PowerShell;

/// <summary><c>Get-DiskImageHash</c>: the hash of what a disk reads as, which does not depend on the image's format.</summary>
[Cmdlet(VerbsCommon.Get, "DiskImageHash", DefaultParameterSetName = PathSet)]
[OutputType(typeof(DiskImageHash))]
public sealed class GetDiskImageHashCommand : ReadImageCmdlet
{
    /// <summary>The algorithm.</summary>
    [Parameter(Position = 1)]
    [ValidateSet("SHA1", "SHA256", "SHA384", "SHA512", "MD5")]
    public string Algorithm { get; set; } = "SHA256";

    /// <summary>
    /// A snapshot inside the image, by identifier or name: it is hashed instead of the present state. Taken from objects of snapshots.
    /// </summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    [Alias("Id")]
    [ArgumentCompleter(typeof(SnapshotNameCompleter))]
    [ValidateNotNullOrEmpty]
    public string? Snapshot { get; set; }

    /// <inheritdoc/>
    protected override async Task ProcessImageAsync(string path, CancellationToken cancellationToken)
    {
        OpenedImage image = await OpenAsync(path, cancellationToken).ConfigureAwait(false);
        await using (image.ConfigureAwait(false))
        {
            DiskState state = await DiskState.OpenAsync(image, Snapshot, cancellationToken).ConfigureAwait(false);
            await using (state.ConfigureAwait(false))
            {
                await HashAsync(image, state.Disk, cancellationToken).ConfigureAwait(false);
            }
        }
    }

    private async Task HashAsync(OpenedImage image, BlockNode disk, CancellationToken cancellationToken)
    {
        string name = Algorithm.ToUpperInvariant();
        byte[] hash = await ShowAsync(
            $"Hashing {Leaf(image.Path)}",
            progress => new HashJob(disk, new HashAlgorithmName(name)).RunAsync(progress, cancellationToken)).ConfigureAwait(false);
        await OutputAsync(new DiskImageHash(name, Convert.ToHexString(hash), image.Path, Snapshot)).ConfigureAwait(false);
    }
}
