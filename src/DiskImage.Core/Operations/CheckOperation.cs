using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Graph;
using DiskImage.Jobs;

namespace DiskImage.Operations;

/// <summary>Checks an image's structures, and what it needs beside them; changes nothing.</summary>
/// <param name="front">Who asks.</param>
/// <param name="request">How the image is opened.</param>
public sealed class CheckOperation(IFrontEnd front, OpenRequest request)
{
    private const string DirtyKind = "Dirty"; // a format's own check may have found it already

    /// <summary>
    /// Checks it. An image that is too damaged to be opened is not an obstacle to the check but its result, and so is one that was never
    /// completed.
    /// </summary>
    /// <param name="mayLackCheck">An image whose format has no structures that could be checked is no error.</param>
    /// <param name="looked">Gets the open image after its check; null for nothing.</param>
    /// <param name="cancellationToken">Stops it.</param>
    /// <exception cref="DiskImageException">It cannot be opened for another reason than its damage, or not be checked.</exception>
    public async Task<CheckOutcome> RunAsync(bool mayLackCheck, Action<OpenedImage>? looked, CancellationToken cancellationToken)
    {
        bool isUnfinished = request.Locator.EndsWith(ImageCreator.IncompleteSuffix, StringComparison.OrdinalIgnoreCase);
        CheckFinding[] also = !isUnfinished ? [] :
        [
            new CheckFinding(
                "Incomplete",
                CheckSeverity.Corruption,
                $"The name ends with {ImageCreator.IncompleteSuffix}: the image is still being made, or was left "
                    + $"by a program that did not finish it."),
        ];
        try
        {
            return await CheckAsync(also, mayLackCheck, looked, cancellationToken).ConfigureAwait(false);
        }
        catch (DiskImageException e) when (IsDefect(e.Kind) || (isUnfinished && e.Kind == DiskImageErrorKind.Unsupported))
        {
            if (IsDefect(e.Kind))
            {
                also = [.. also, Finding("Unreadable", CheckSeverity.Corruption, e.Wording) with { HostOffset = e.Offset }];
            }
            return new CheckOutcome(request.Locator, request.Format, new CheckReport { Findings = [] }, also);
        }
    }

    /// <summary>
    /// Why an image does not open on what it stands on; nothing if it does. A backing image that is not at hand is nothing wrong with the
    /// image itself.
    /// </summary>
    /// <param name="image">The image, open for reading without what it stands on.</param>
    /// <param name="cancellationToken">Stops it.</param>
    internal async Task<IReadOnlyList<CheckFinding>> ParentFaultsAsync(OpenedImage image, CancellationToken cancellationToken)
    {
        if (image.Node.As<IDescribed>()?.Describe().BackingFile is null)
        {
            return [];
        }
        string kind = image.Format is ICreatable { RecordsBackingIdentity: true } ? "Parent" : "Backing";
        OpenRequest whole = request with { WithBacking = true, ToDescribe = true, ForRepair = false, Writable = false };
        try
        {
            await (await front.OpenAsync(whole, cancellationToken).ConfigureAwait(false)).DisposeAsync().ConfigureAwait(false);
            return [];
        }
        catch (DiskImageException e)
        {
            return [Finding(kind, IsDefect(e.Kind) ? CheckSeverity.Corruption : CheckSeverity.Warning, e.Wording)];
        }
    }

    /// <summary>Runs a check or repair of an open image, and adds what its marks say.</summary>
    /// <param name="image">The image.</param>
    /// <param name="activity">What is done, in a word.</param>
    /// <param name="work">The check or repair.</param>
    /// <param name="also">What is known beside it.</param>
    internal async Task<CheckOutcome> ReportAsync(
        OpenedImage image, string activity, Func<IProgress<long>, ValueTask<CheckReport>> work, IReadOnlyList<CheckFinding> also)
    {
        long length = image.Node.Length;
        CheckReport report = await front.ShowAsync(
            $"{activity}ing {ByteText.Leaf(image.Path)}",
            progress => work(new ByteProgress(activity, progress, length)).AsTask()).ConfigureAwait(false);
        if (image.Node.As<IDescribed>() is { } described && described.Describe().Dirty
            && !report.Findings.Any(f => f.Kind.Equals(DirtyKind, StringComparison.Ordinal)))
        {
            also = [.. also, new CheckFinding(DirtyKind, CheckSeverity.Error, "The image was not closed properly or never completed.")];
        }
        return new CheckOutcome(image.Path, image.Format.Name, report, also);
    }

    /// <summary>Checks an open image.</summary>
    internal Task<CheckOutcome> CheckAsync(OpenedImage image, IReadOnlyList<CheckFinding> also, CancellationToken cancellationToken)
    {
        ICheckable checkable = image.Require<ICheckable>("have no structures that could be checked");
        return ReportAsync(image, "Check", bytes => checkable.CheckAsync(bytes, cancellationToken), also);
    }

    private async Task<CheckOutcome> CheckAsync(
        IReadOnlyList<CheckFinding> also, bool mayLackCheck, Action<OpenedImage>? looked, CancellationToken cancellationToken)
    {
        OpenedImage image = await front.OpenAsync(
            request with { WithBacking = false, ToDescribe = true }, cancellationToken).ConfigureAwait(false);
        await using (image.ConfigureAwait(false))
        {
            also =
            [
                .. also,
                .. await ParentFaultsAsync(image, cancellationToken).ConfigureAwait(false),
                .. UnopenedFiles(image),
                .. await BrokenBitmapsAsync(image, cancellationToken).ConfigureAwait(false),
            ];
            CheckOutcome outcome = mayLackCheck && image.Node.As<ICheckable>() is null
                ? new CheckOutcome(image.Path, image.Format.Name, new CheckReport { Findings = [] }, also)
                : await CheckAsync(image, also, cancellationToken).ConfigureAwait(false);
            looked?.Invoke(image);
            return outcome;
        }
    }

    /// <summary>
    /// Why files with data of the image's own layer are not open. The structures can be checked without them, the data cannot be read.
    /// </summary>
    private static IEnumerable<CheckFinding> UnopenedFiles(OpenedImage image)
        => image.Node.Children.Values.OfType<UnopenedNode>().Select(n => Finding(
            "DataFile",
            n.Reason.Kind == DiskImageErrorKind.Refused ? CheckSeverity.Warning : CheckSeverity.Error,
            n.Reason.Wording));

    /// <summary>Dirty bitmaps that were not saved properly: nothing is wrong with the contents, but nobody can rely on them.</summary>
    private static async ValueTask<IReadOnlyList<CheckFinding>> BrokenBitmapsAsync(OpenedImage image, CancellationToken cancellationToken)
    {
        try
        {
            IReadOnlyList<DiskBitmap> bitmaps = image.Node.As<IBitmapList>() is { } keeper
                ? await keeper.GetBitmapsAsync(cancellationToken).ConfigureAwait(false) : [];
            return [.. bitmaps.Where(b => b.IsInUse).Select(b => Finding(
                "BitmapInUse",
                CheckSeverity.Warning,
                $"Bitmap '{b.Name}' was not saved properly, so what it has recorded cannot be relied on. {Removal} removes it."))];
        }
        catch (DiskImageException)
        {
            return []; // what is wrong with the directory is the check's to tell
        }
    }

    private static Remedy Removal { get; } = new(RemedyKind.RemoveBitmap);

    private static CheckFinding Finding(string kind, CheckSeverity severity, Wording text)
        => new(kind, severity, text.ToString()) { Wording = text };

    private static bool IsDefect(DiskImageErrorKind kind) => kind is DiskImageErrorKind.Corrupt or DiskImageErrorKind.InvalidFormat;
}
