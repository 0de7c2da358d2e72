using System.Management.Automation;
using DiskImage.Graph;
using DiskImage.Jobs;

namespace DiskImage.PowerShell;

/// <summary><c>Compare-DiskImage</c>: whether two disks read the same, whatever their formats.</summary>
[Cmdlet(VerbsData.Compare, "DiskImage", DefaultParameterSetName = PathSet)]
[OutputType(typeof(DiskImageComparison), typeof(DiskImageDifference))]
public sealed class CompareDiskImageCommand : ReadImageCmdlet
{
    /// <summary>The image to compare with.</summary>
    [Parameter(Mandatory = true, Position = 1, ValueFromPipelineByPropertyName = true)]
    [ValidateNotNullOrEmpty]
    public string DifferencePath { get; set; } = "";

    /// <summary>Its format; probed if absent.</summary>
    [Parameter]
    [ArgumentCompleter(typeof(FormatNameCompleter))]
    [ValidateNotNullOrEmpty]
    public string? DifferenceFormat { get; set; }

    /// <summary>The sizes must be the same too, and the same ranges must be stored.</summary>
    [Parameter]
    public SwitchParameter Strict { get; set; }

    /// <summary>Lists every range that differs instead of stopping at the first.</summary>
    [Parameter]
    public SwitchParameter All { get; set; }

    /// <inheritdoc/>
    protected override async Task ProcessImageAsync(string path, CancellationToken cancellationToken)
    {
        string other = await AskAsync(() => SessionPath.Literal(SessionState.Path, DifferencePath)).ConfigureAwait(false);
        OpenedImage left = await OpenAsync(path, cancellationToken).ConfigureAwait(false);
        await using (left.ConfigureAwait(false))
        {
            OpenedImage? right = null;
            var request = new OpenRequest(other) { Format = DifferenceFormat, FormatParameter = nameof(DifferenceFormat) };
            await RunItemAsync(other, async () => right = await OpenAsync(request, cancellationToken).ConfigureAwait(false)).ConfigureAwait(false);
            if (right is null)
            {
                return;
            }
            await using (right.ConfigureAwait(false))
            {
                await CompareAsync(left, right, new CompareJob(left.Node, right.Node, Strict), cancellationToken).ConfigureAwait(false);
            }
        }
    }

    private async Task CompareAsync(OpenedImage left, OpenedImage right, CompareJob job, CancellationToken cancellationToken)
    {
        if (All)
        {
            await foreach ((long offset, long length) in job.DifferencesAsync(cancellationToken).ConfigureAwait(false))
            {
                await OutputAsync(new DiskImageDifference(left.Path, right.Path, offset, length)).ConfigureAwait(false);
            }
            return;
        }
        CompareResult result = await ShowAsync(
            $"Comparing {Leaf(left.Path)} with {Leaf(right.Path)}", progress => job.RunAsync(progress, cancellationToken)).ConfigureAwait(false);
        await OutputAsync(new DiskImageComparison(left.Path, right.Path, result.Identical, result.FirstDifference, result.SizesDiffer)).ConfigureAwait(false);
    }
}
