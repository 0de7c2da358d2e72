using System.Management.Automation;
using DiskImage.Block;

namespace DiskImage.PowerShell;

/// <summary><c>Remove-DiskImageSnapshot</c>: gives up states that were kept. The present state stays as it is.</summary>
[Cmdlet(
    VerbsCommon.Remove,
    "DiskImageSnapshot",
    DefaultParameterSetName = PathSet,
    SupportsShouldProcess = true,
    ConfirmImpact = ConfirmImpact.High)]
[OutputType(typeof(void))]
public sealed class RemoveDiskImageSnapshotCommand : SnapshotCmdlet
{
    /// <summary>
    /// Names or identifiers; wildcards in names are expanded. Of several snapshots with one name the first goes, as in QEMU.
    /// </summary>
    [Parameter(Mandatory = true, Position = 1, ValueFromPipelineByPropertyName = true)]
    [ArgumentCompleter(typeof(SnapshotNameCompleter))]
    [SupportsWildcards]
    [ValidateNotNullOrEmpty]
    public string[] Name { get; set; } = [];

    /// <summary>The identifier, to tell snapshots of one name apart.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    [ValidateNotNullOrEmpty]
    public string? Id { get; set; }

    /// <inheritdoc/>
    protected override async Task ProcessImageAsync(string path, CancellationToken cancellationToken)
    {
        string[] wanted = Name;
        (string name, string files, IReadOnlyList<DiskSnapshot> snapshots) = await ListAsync(path, cancellationToken).ConfigureAwait(false);
        var agreed = new List<DiskSnapshot>();
        foreach (DiskSnapshot snapshot in Select(name, snapshots, wanted, Id, firstOfName: true))
        {
            if (await ConfirmAsync(files, $"Remove snapshot '{snapshot.Name}' ({snapshot.Id})").ConfigureAwait(false))
            {
                agreed.Add(snapshot);
            }
        }
        if (agreed.Count == 0)
        {
            return;
        }
        _ = await ChangeAsync(
            path,
            async image =>
            {
                foreach (DiskSnapshot snapshot in agreed)
                {
                    _ = await Snapshots(image).DeleteSnapshotAsync(snapshot.Id, snapshot.Name, cancellationToken).ConfigureAwait(false);
                }
                return agreed.Count;
            },
            cancellationToken).ConfigureAwait(false);
    }
}
