using System.Management.Automation;
using DiskImage.Block;

namespace DiskImage.PowerShell;

/// <summary><c>New-DiskImageSnapshot</c>: keeps a disk's present state inside its image.</summary>
[Cmdlet(VerbsCommon.New, "DiskImageSnapshot", DefaultParameterSetName = PathSet, SupportsShouldProcess = true)]
[OutputType(typeof(DiskImageSnapshot))]
public sealed class NewDiskImageSnapshotCommand : SnapshotCmdlet
{
    /// <summary>The snapshot's name.</summary>
    [Parameter(Mandatory = true, Position = 1)]
    [ValidateNotNullOrEmpty]
    public string Name { get; set; } = "";

    /// <inheritdoc/>
    protected override async Task ProcessImageAsync(string path, CancellationToken cancellationToken)
    {
        (string name, string files, IReadOnlyList<DiskSnapshot> present) = await ListAsync(path, cancellationToken).ConfigureAwait(false);
        if (!await ConfirmAsync(files, $"Take snapshot '{Name}'").ConfigureAwait(false))
        {
            return;
        }
        if (present.Any(s => s.Name.Equals(Name, StringComparison.Ordinal)))
        {
            await VerboseAsync($"{name}: has a snapshot '{Name}' already; they are told apart by their identifiers").ConfigureAwait(false);
        }
        DiskSnapshot taken = await ChangeAsync(
            path,
            image => Snapshots(image).CreateSnapshotAsync(Name, DateTimeOffset.UtcNow, cancellationToken),
            cancellationToken).ConfigureAwait(false);
        await OutputAsync(DiskImageSnapshot.Of(name, taken)).ConfigureAwait(false);
    }
}
