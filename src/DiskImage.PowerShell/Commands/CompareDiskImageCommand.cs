using System.Management.Automation;
using DiskImage.Block;
using DiskImage.Graph;
using DiskImage.Jobs;
using DiskImage.Operations;

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

    /// <summary>A snapshot inside the image, by identifier or name: it is compared instead of the present state.</summary>
    [Parameter]
    [ArgumentCompleter(typeof(SnapshotNameCompleter))]
    [ValidateNotNullOrEmpty]
    public string? Snapshot { get; set; }

    /// <summary>A snapshot inside the image to compare with.</summary>
    [Parameter]
    [ArgumentCompleter(typeof(DifferenceSnapshotNameCompleter))]
    [ValidateNotNullOrEmpty]
    public string? DifferenceSnapshot { get; set; }

    /// <summary>The sizes must be the same too, and the same ranges must be stored.</summary>
    [Parameter]
    public SwitchParameter Strict { get; set; }

    /// <summary>Lists every range that differs instead of stopping at the first.</summary>
    [Parameter]
    public SwitchParameter All { get; set; }

    /// <summary>With <see cref="All"/>: blocks of so many bytes differ as a whole. Every byte by itself if absent.</summary>
    [Parameter]
    [ByteSize]
    [ValidateRange(1, long.MaxValue)]
    public long? BlockSize { get; set; }

    /// <inheritdoc/>
    protected override async Task ProcessImageAsync(string path, CancellationToken cancellationToken)
    {
        if (BlockSize is not null && !All)
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"{path}: -{nameof(BlockSize)} says how ranges are listed, so it needs -{nameof(All)}.",
                path);
        }
        string other = await AskAsync(() => SessionPath.Literal(SessionState.Path, DifferencePath)).ConfigureAwait(false);
        OpenedImage left = await OpenAsync(path, cancellationToken).ConfigureAwait(false);
        await using (left.ConfigureAwait(false))
        {
            DiskState leftState = await DiskState.OpenAsync(left, Snapshot, cancellationToken).ConfigureAwait(false);
            await using (leftState.ConfigureAwait(false))
            {
                // What is wrong with the other image is told of it, not of this one.
                OpenedImage? right = null;
                Introduce(other);
                var request = new OpenRequest(other) { Format = DifferenceFormat, Role = ImageRole.Difference };
                await RunItemAsync(
                    other, async () => right = await OpenAsync(request, cancellationToken).ConfigureAwait(false)).ConfigureAwait(false);
                if (right is not null)
                {
                    await CompareAsync(left, leftState.Disk, right, cancellationToken).ConfigureAwait(false);
                }
            }
        }
    }

    private async Task CompareAsync(OpenedImage left, BlockNode leftDisk, OpenedImage right, CancellationToken cancellationToken)
    {
        await using (right.ConfigureAwait(false))
        {
            DiskState? rightState = null;
            await RunItemAsync(
                right.Path,
                async () => rightState = await DiskState.OpenAsync(
                    right, DifferenceSnapshot, cancellationToken).ConfigureAwait(false)).ConfigureAwait(false);
            if (rightState is null)
            {
                return;
            }
            await using (rightState.ConfigureAwait(false))
            {
                await CompareAsync(left, right, new CompareJob(leftDisk, rightState.Disk, Strict), cancellationToken).ConfigureAwait(false);
            }
        }
    }

    private async Task CompareAsync(OpenedImage left, OpenedImage right, CompareJob job, CancellationToken cancellationToken)
    {
        if (All)
        {
            _ = await ShowAsync(
                $"Comparing {Leaf(left.Path)} with {Leaf(right.Path)}",
                async progress =>
                {
                    await OutputAllAsync(
                        job.DifferencesAsync(BlockSize ?? 1, progress, cancellationToken),
                        found => new DiskImageDifference(left.Path, right.Path, found.Offset, found.Length, found.Kind.ToString()),
                        cancellationToken).ConfigureAwait(false);
                    return true;
                }).ConfigureAwait(false);
            return;
        }
        CompareResult result = await ShowAsync(
            $"Comparing {Leaf(left.Path)} with {Leaf(right.Path)}",
            progress => job.RunAsync(progress, cancellationToken)).ConfigureAwait(false);
        await OutputAsync(new DiskImageComparison(
            left.Path,
            right.Path,
            result.Identical,
            result.FirstDifference,
            result.SizesDiffer,
            result.Difference?.ToString(),
            Snapshot,
            DifferenceSnapshot)).ConfigureAwait(false);
    }
}
