using System.Management.Automation;
using DiskImage.Block;

namespace DiskImage.PowerShell;

/// <summary><c>Restore-DiskImageSnapshot</c>: takes a disk back to a state that was kept.</summary>
[Cmdlet(
    VerbsData.Restore,
    "DiskImageSnapshot",
    DefaultParameterSetName = PathSet,
    SupportsShouldProcess = true,
    ConfirmImpact = ConfirmImpact.High)]
[OutputType(typeof(DiskImageInfo))]
public sealed class RestoreDiskImageSnapshotCommand : SnapshotCmdlet
{
    /// <summary>The snapshot's identifier or name.</summary>
    [Parameter(Mandatory = true, Position = 1, ValueFromPipelineByPropertyName = true)]
    [ArgumentCompleter(typeof(SnapshotNameCompleter))]
    [ValidateNotNullOrEmpty]
    public string Name { get; set; } = "";

    /// <summary>The identifier, to tell snapshots of one name apart.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    [ValidateNotNullOrEmpty]
    public string? Id { get; set; }

    /// <summary>Returns the image as it is then.</summary>
    [Parameter]
    public SwitchParameter PassThru { get; set; }

    /// <inheritdoc/>
    protected override async Task ProcessImageAsync(string path, CancellationToken cancellationToken)
    {
        string wanted = Name;
        (string name, string files, IReadOnlyList<DiskSnapshot> snapshots) = await ListAsync(path, cancellationToken).ConfigureAwait(false);
        // By identifier first, as QEMU does; unless the identifier is given beside the name.
        DiskSnapshot snapshot = Id is null && snapshots.FirstOrDefault(s => s.Id.Equals(wanted, StringComparison.Ordinal)) is { } byId
            ? byId
            : Select(name, snapshots, [WildcardPattern.Escape(wanted)], Id)[0];
        if (!await ConfirmAsync(
            files,
            $"Go back to snapshot '{snapshot.Name}' ({snapshot.Id}) of {snapshot.Date.ToLocalTime():yyyy-MM-dd HH:mm:ss} and lose what "
                + $"was written since").ConfigureAwait(false))
        {
            return;
        }
        _ = await ChangeAsync(
            path, image => Snapshots(image).RestoreSnapshotAsync(snapshot.Id, cancellationToken), cancellationToken).ConfigureAwait(false);
        if (PassThru)
        {
            await DescribeAsync(path, cancellationToken).ConfigureAwait(false);
        }
    }
}
