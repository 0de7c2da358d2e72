using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Graph;
using DiskImage.Operations;

namespace DiskImage.PowerShell;

/// <summary>A cmdlet that checks images.</summary>
public abstract class CheckCmdlet : OpenImageCmdlet
{
    private const string DirtyKind = "Dirty"; // a format's own check may have found it already

    /// <inheritdoc/>
    private protected override bool WarnsOfImages => false;

    /// <summary>Checks an open image.</summary>
    /// <param name="image">The image.</param>
    /// <param name="also">What is known beside it.</param>
    /// <param name="cancellationToken">Stops the check.</param>
    private protected Task<DiskImageCheckResult> CheckAsync(
        OpenedImage image, IReadOnlyList<CheckFinding> also, CancellationToken cancellationToken)
    {
        ICheckable checkable = image.Require<ICheckable>("have no structures that could be checked");
        return ReportAsync(image, "Check", bytes => checkable.CheckAsync(bytes, cancellationToken), also);
    }

    /// <summary>
    /// Why an image does not open on what it stands on; nothing if it does. A backing image that is not at hand is nothing wrong with the
    /// image itself.
    /// </summary>
    /// <param name="image">The image, open for reading without what it stands on.</param>
    /// <param name="path">Where it is.</param>
    /// <param name="cancellationToken">Stops it.</param>
    private protected async Task<IReadOnlyList<CheckFinding>> ParentFaultsAsync(
        OpenedImage image, string path, CancellationToken cancellationToken)
    {
        if (image.Node.As<IDescribed>()?.Describe().BackingFile is null)
        {
            return [];
        }
        string kind = image.Format is ICreatable { RecordsBackingIdentity: true } ? "Parent" : "Backing";
        try
        {
            await (await OpenAsync(
                Request(path) with { ToDescribe = true }, cancellationToken).ConfigureAwait(false)).DisposeAsync().ConfigureAwait(false);
            return [];
        }
        catch (DiskImageException e)
        {
            return [new CheckFinding(kind, IsDefect(e.Kind) ? CheckSeverity.Corruption : CheckSeverity.Warning, RemedyWords.Say(e))];
        }
    }

    /// <summary>
    /// Why files with data of the image's own layer are not open. The structures can be checked without them, the data cannot be read.
    /// </summary>
    private protected static IEnumerable<CheckFinding> UnopenedFiles(OpenedImage image)
        => image.Node.Children.Values.OfType<UnopenedNode>().Select(n => new CheckFinding(
            "DataFile",
            n.Reason.Kind == DiskImageErrorKind.Refused ? CheckSeverity.Warning : CheckSeverity.Error,
            RemedyWords.Say(n.Reason)));

    /// <summary>Dirty bitmaps that were not saved properly: nothing is wrong with the contents, but nobody can rely on them.</summary>
    private protected static async ValueTask<IReadOnlyList<CheckFinding>> BrokenBitmapsAsync(
        OpenedImage image, CancellationToken cancellationToken)
    {
        try
        {
            IReadOnlyList<DiskBitmap> bitmaps = image.Node.As<IBitmapList>() is { } keeper
                ? await keeper.GetBitmapsAsync(cancellationToken).ConfigureAwait(false) : [];
            return [.. bitmaps.Where(b => b.IsInUse).Select(b => new CheckFinding(
                "BitmapInUse",
                CheckSeverity.Warning,
                $"Bitmap '{b.Name}' was not saved properly, so what it has recorded cannot be relied on. "
                    + $"Remove-DiskImageBitmap removes it."))];
        }
        catch (DiskImageException)
        {
            return []; // what is wrong with the directory is the check's to tell
        }
    }

    private protected static bool IsDefect(DiskImageErrorKind kind)
        => kind is DiskImageErrorKind.Corrupt or DiskImageErrorKind.InvalidFormat;

    /// <summary>Makes a result of what a check or repair reports.</summary>
    /// <param name="image">The image.</param>
    /// <param name="activity">What is done, in a word.</param>
    /// <param name="work">The check or repair.</param>
    /// <param name="also">What is known beside it.</param>
    private protected async Task<DiskImageCheckResult> ReportAsync(
        OpenedImage image, string activity, Func<IProgress<long>, ValueTask<CheckReport>> work, IReadOnlyList<CheckFinding> also)
    {
        long length = image.Node.Length;
        CheckReport report = await ShowAsync(
            $"{activity}ing {Leaf(image.Path)}",
            progress => work(new ByteProgress(activity, progress, length)).AsTask()).ConfigureAwait(false);
        if (image.Node.As<IDescribed>() is { } described && described.Describe().Dirty
            && !report.Findings.Any(f => f.Kind.Equals(DirtyKind, StringComparison.Ordinal)))
        {
            also = [.. also, new CheckFinding(DirtyKind, CheckSeverity.Error, "The image was not closed properly or never completed.")];
        }
        return DiskImageCheckResult.Of(image.Path, image.Format.Name, report, also);
    }
}
