using System.Management.Automation;
using DiskImage.Block;
using DiskImage.Graph;
using DiskImage.Jobs;

namespace DiskImage.PowerShell;

/// <summary><c>Test-DiskImage</c>: checks an image's structures and changes nothing.</summary>
[Cmdlet(VerbsDiagnostic.Test, "DiskImage", DefaultParameterSetName = PathSet)]
[OutputType(typeof(DiskImageCheckResult), typeof(bool))]
public sealed class TestDiskImageCommand : OpenImageCmdlet
{
    private const string DirtyKind = "Dirty"; // a format's own check may have found it already

    /// <summary>Returns only whether the image is consistent.</summary>
    [Parameter]
    public SwitchParameter Quiet { get; set; }

    /// <inheritdoc/>
    protected override async Task ProcessImageAsync(string path, CancellationToken cancellationToken)
    {
        bool unfinished = path.EndsWith(ImageCreator.IncompleteSuffix, StringComparison.OrdinalIgnoreCase);
        var also = new List<CheckFinding>();
        if (unfinished)
        {
            also.Add(new CheckFinding(
                "Incomplete",
                CheckSeverity.Corruption,
                $"The name ends with {ImageCreator.IncompleteSuffix}: the image is still being made, or was left by a program that did not finish it."));
        }
        DiskImageCheckResult result;
        try
        {
            result = await CheckAsync(path, also, cancellationToken).ConfigureAwait(false);
        }
        catch (DiskImageException e) when (IsDefect(e.Kind) || (unfinished && e.Kind == DiskImageErrorKind.Unsupported))
        {
            // An image that is too damaged to be opened is not an obstacle to the check but its result.
            if (IsDefect(e.Kind))
            {
                also.Add(new CheckFinding("Unreadable", CheckSeverity.Corruption, e.Message, HostOffset: e.Offset));
            }
            result = DiskImageCheckResult.Of(path, Format, new CheckReport { Findings = [] }, also);
        }
        await OutputAsync(Quiet ? result.IsConsistent : result).ConfigureAwait(false);
    }

    private static bool IsDefect(DiskImageErrorKind kind) => kind is DiskImageErrorKind.Corrupt or DiskImageErrorKind.InvalidFormat;

    private async Task<DiskImageCheckResult> CheckAsync(string path, List<CheckFinding> also, CancellationToken cancellationToken)
    {
        OpenedImage image = await OpenAsync(path, cancellationToken, withBacking: false).ConfigureAwait(false);
        await using (image.ConfigureAwait(false))
        {
            if (image.Node is not ICheckable checkable)
            {
                throw new DiskImageException(
                    DiskImageErrorKind.Unsupported, $"{image.Path}: images of format '{image.Format.Name}' have no structures that could be checked", image.Path);
            }
            long length = image.Node.Length;
            CheckReport report = await ShowAsync(
                $"Checking {Leaf(image.Path)}",
                progress => checkable.CheckAsync(new BytesOf(progress, length), cancellationToken).AsTask()).ConfigureAwait(false);
            if (image.Node is IDescribed described && described.Describe().Dirty && !report.Findings.Any(f => f.Kind.Equals(DirtyKind, StringComparison.Ordinal)))
            {
                also.Add(new CheckFinding(DirtyKind, CheckSeverity.Error, "The image was not closed properly or never completed."));
            }
            return DiskImageCheckResult.Of(image.Path, image.Format.Name, report, also);
        }
    }

    /// <summary>Makes a job's progress of a count of bytes.</summary>
    private sealed class BytesOf(IProgress<JobProgress> progress, long total) : IProgress<long>
    {
        public void Report(long value) => progress.Report(new JobProgress("Check", value, total));
    }
}
