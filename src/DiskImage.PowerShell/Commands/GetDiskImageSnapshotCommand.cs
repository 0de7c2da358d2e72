using System.Management.Automation;
using DiskImage.Block;

namespace DiskImage.PowerShell;

/// <summary><c>Get-DiskImageSnapshot</c>: the snapshots inside images.</summary>
[Cmdlet(VerbsCommon.Get, "DiskImageSnapshot", DefaultParameterSetName = PathSet)]
[OutputType(typeof(DiskImageSnapshot))]
public sealed class GetDiskImageSnapshotCommand : SnapshotCmdlet
{
    /// <summary>Names or identifiers; wildcards are expanded. All if absent.</summary>
    [Parameter(Position = 1)]
    [ArgumentCompleter(typeof(SnapshotNameCompleter))]
    [SupportsWildcards]
    [ValidateNotNullOrEmpty]
    public string[] Name { get; set; } = ["*"];

    /// <summary>Reads images that another program has open for writing. What is read may then not fit together.</summary>
    [Parameter]
    public SwitchParameter ForceShare { get; set; }

    /// <inheritdoc/>
    private protected override bool ReadsAlongWriters => ForceShare;

    /// <inheritdoc/>
    protected override async Task ProcessImageAsync(string path, CancellationToken cancellationToken)
    {
        // The image is closed before its snapshots go down the pipeline, so that what follows can change it.
        (string image, _, IReadOnlyList<DiskSnapshot> snapshots) = await ListAsync(path, cancellationToken).ConfigureAwait(false);
        foreach (DiskSnapshot snapshot in Select(image, snapshots, Name))
        {
            await OutputAsync(DiskImageSnapshot.Of(image, snapshot)).ConfigureAwait(false);
        }
    }
}
