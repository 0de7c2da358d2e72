using System.Management.Automation;
using System.Security.Cryptography;
using DiskImage.Graph;
using DiskImage.Jobs;

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

    /// <inheritdoc/>
    protected override async Task ProcessImageAsync(string path, CancellationToken cancellationToken)
    {
        OpenedImage image = await OpenAsync(path, cancellationToken).ConfigureAwait(false);
        await using (image.ConfigureAwait(false))
        {
            string name = Algorithm.ToUpperInvariant();
            byte[] hash = await ShowAsync(
                $"Hashing {Leaf(image.Path)}",
                progress => new HashJob(image.Node, new HashAlgorithmName(name)).RunAsync(progress, cancellationToken)).ConfigureAwait(false);
            await OutputAsync(new DiskImageHash(name, Convert.ToHexString(hash), image.Path)).ConfigureAwait(false);
        }
    }
}
