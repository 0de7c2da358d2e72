using DiskImage.Block;
using DiskImage.Graph;
using DiskImage.Jobs;

namespace DiskImage.Operations;

/// <summary>Which of the source's bitmaps a conversion copies.</summary>
public enum BitmapChoice
{
    /// <summary>None.</summary>
    None,

    /// <summary>All; one that was not saved properly ends it before anything is written.</summary>
    All,

    /// <summary>All that were saved properly.</summary>
    Sound,
}

/// <summary>What a conversion is to do.</summary>
public sealed record ConvertRequest
{
    /// <summary>The source is a snapshot inside the image, not the present state.</summary>
    public bool IsSnapshot { get; init; }

    /// <summary>Runs of zeroes of at least this many bytes are not stored; 0 stores everything.</summary>
    public long SparseSize { get; init; } = 4096;

    /// <summary>Stores data compressed.</summary>
    public bool Compress { get; init; }

    /// <summary>Compressed data is stored as soon as it is ready, not in its order.</summary>
    public bool AnyOrder { get; init; }

    /// <summary>Data are taken over without being moved, where their file system can have it.</summary>
    public bool Shares { get; init; } = true;

    /// <summary>It is refused that data are moved.</summary>
    public bool OnlyShares { get; init; }

    /// <summary>Which bitmaps are copied.</summary>
    public BitmapChoice Bitmaps { get; init; }

    /// <summary>Compares the new image with the source before it gets its name.</summary>
    public bool Verify { get; init; }

    /// <summary>The new image survives a power cut when it is there.</summary>
    public bool Durable { get; init; }

    /// <summary>Workers; 0 for as many as suit the machine.</summary>
    public int Workers { get; init; }
}

/// <summary>
/// Makes a new image read as another does: says what is lost, copies the disk and its bitmaps, compares, and gives it its name.
/// </summary>
/// <param name="front">Who asks.</param>
/// <param name="from">What is read.</param>
/// <param name="request">What is wanted.</param>
public sealed class ConvertOperation(IFrontEnd front, ConvertSource from, ConvertRequest request)
{
    private IReadOnlyList<DiskBitmap>? _bitmaps; // null if none are wanted

    private OpenedImage Source => from.First;

    private BlockNode Disk => from.Disk;

    /// <summary>Refuses what cannot be done, before anything is made.</summary>
    /// <exception cref="DiskImageException">InvalidOption; Unsupported: the source keeps no bitmaps; what they say.</exception>
    public async Task PrepareAsync(CancellationToken cancellationToken)
    {
        if (request.Bitmaps == BitmapChoice.None)
        {
            return;
        }
        if (request.IsSnapshot)
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"{Source.Path}: bitmaps record changes of the present state, so they are not copied "
                    + $"with {new Remedy(RemedyKind.Snapshot)}.",
                Source.Path);
        }
        if (from.Images.Count > 1)
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"{Source.Path}: bitmaps say what changed in one disk, so they are not copied ({new Remedy(RemedyKind.Bitmaps)}) "
                    + $"where several are joined.",
                Source.Path);
        }
        IBitmapList holder = Source.Require<IBitmapList>("keep no dirty bitmaps");
        _bitmaps = await BitmapCopy.SelectAsync(
            Source.Node, request.Bitmaps == BitmapChoice.Sound, cancellationToken).ConfigureAwait(false);
        foreach (DiskBitmap broken in (await holder.GetBitmapsAsync(cancellationToken).ConfigureAwait(false)).Where(b => b.IsInUse))
        {
            await front.WarnAsync($"{Source.Path}: bitmap '{broken.Name}' was not saved properly and is left out.").ConfigureAwait(false);
        }
    }

    /// <summary>Fills a new image and completes it.</summary>
    public async Task<ConvertResult> RunAsync(NewImage image, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(image);
        foreach (Wording loss in await ConversionFacts.LossesAsync(
            Source.Node, Disk, image.Node, _bitmaps is not null, cancellationToken).ConfigureAwait(false))
        {
            await front.WarnAsync($"{image.Path}: {loss}.").ConfigureAwait(false);
        }
        if (_bitmaps is not null)
        {
            await BitmapCopy.RequireHoldsAsync(image.Node, _bitmaps, cancellationToken).ConfigureAwait(false);
        }
        ConvertResult result = await CopyAsync(image, cancellationToken).ConfigureAwait(false);
        if (_bitmaps is not null)
        {
            _ = await front.ShowAsync(
                $"Copying bitmaps of {ByteText.Leaf(Source.Node.Name)}",
                progress => new BitmapCopy(Source.Node, image.Node, _bitmaps).RunAsync(progress, cancellationToken)).ConfigureAwait(false);
        }
        if (image.Behind is > 0 and var behind)
        {
            await front.WarnAsync(
                $"{image.Path}: is longer than the image: the last {ByteText.WithBytes(behind)} stay as they were.").ConfigureAwait(false);
        }
        await image.CompleteAsync(request.Durable, request.Verify
            ? made => VerifyAsync(
                made, "It is removed; the source may be changing, or the storage may be faulty.", cancellationToken)
            : null, cancellationToken).ConfigureAwait(false);
        return result;
    }

    /// <summary>
    /// Writes over a disk that is there already, compares it and flushes it, if that is wanted. What it has behind the source's end stays.
    /// </summary>
    /// <param name="target">The disk, open for writing.</param>
    /// <param name="readsZero">It is known to read as zeroes.</param>
    /// <param name="cancellationToken">Stops it; the disk is then partly written.</param>
    /// <exception cref="DiskImageException">OutOfRange: it is shorter than what is read. What reading and writing say.</exception>
    public async Task<ConvertResult> OverwriteAsync(BlockNode target, bool readsZero, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(target);
        if (target.Length > Disk.Length)
        {
            await front.WarnAsync(
                $"{target.Name}: is longer than what is written: its last {ByteText.WithBytes(target.Length - Disk.Length)} "
                    + $"stay as they were.").ConfigureAwait(false);
        }
        if (_bitmaps is not null)
        {
            await BitmapCopy.RequireHoldsAsync(target, _bitmaps, cancellationToken).ConfigureAwait(false);
        }
        var how = new ConvertOptions // nothing is left to a backing image: the disk may hold something over it
        {
            Workers = request.Workers,
            SparseSize = request.SparseSize,
            Compress = request.Compress,
            AnyOrder = request.AnyOrder,
            Shares = request.Shares,
            TargetReadsZero = readsZero,
        };
        ConvertResult result = await front.ShowAsync(
            $"Converting {ByteText.Leaf(Disk.Name)} to {ByteText.Leaf(target.Name)}",
            progress => new ConvertJob(Disk, target, how).RunAsync(progress, cancellationToken)).ConfigureAwait(false);
        if (_bitmaps is not null)
        {
            _ = await new BitmapCopy(Source.Node, target, _bitmaps).RunAsync(progress: null, cancellationToken).ConfigureAwait(false);
        }
        if (request.Verify)
        {
            await VerifyAsync(target, "The source may be changing, or the storage may be faulty.", cancellationToken).ConfigureAwait(false);
        }
        if (request.Durable)
        {
            await target.FlushAsync(cancellationToken).ConfigureAwait(false);
        }
        return result;
    }

    private async Task<ConvertResult> CopyAsync(NewImage image, CancellationToken cancellationToken)
    {
        BlockNode? backing = image.Node.BackingNode();
        bool same = backing is not null && await HasSameBackingAsync(backing, cancellationToken).ConfigureAwait(false);
        var how = new ConvertOptions
        {
            Workers = request.Workers,
            SparseSize = request.SparseSize,
            Compress = request.Compress,
            AnyOrder = request.AnyOrder,
            InOrder = image.IsSent,
            Shares = request.Shares,
            TargetReadsZero = backing is null && image.Node.As<INoiseWhenNew>() is not { IsNoiseWhenNew: true },
            Layers = same ? 1 : 0,
        };
        ConvertResult result = await front.ShowAsync(
            $"Converting {ByteText.Leaf(Disk.Name)} to {ByteText.Leaf(image.Path)}",
            progress => new ConvertJob(Disk, image.Node, how).RunAsync(progress, cancellationToken)).ConfigureAwait(false);
        await front.ExplainAsync(
            $"{image.Path}: {ByteText.Of(result.BytesCopied)} copied, {ByteText.Of(result.BytesZero)} zeroes, "
            + $"{ByteText.Of(result.BytesSkipped)} left to the backing image, in "
            + $"{result.Elapsed.TotalSeconds:0.0} s; of what was copied, {ByteText.Of(result.BytesShared)} share the source's storage and "
            + $"{ByteText.Of(result.BytesMoved)} were moved by the host").ConfigureAwait(false);
        if (request.OnlyShares && result.BytesShared < result.BytesCopied)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Unsupported,
                $"{image.Path}: only {result.BytesShared:#,0} of {result.BytesCopied:#,0} bytes of data could share the storage of "
                    + $"{Disk.Name}. That takes one file system that can (xfs, btrfs …), and data that both keep uncompressed, "
                    + $"unencrypted and at multiples of its blocks. The new image is removed.",
                image.Path);
        }
        return result;
    }

    /// <summary>
    /// True if the source may leave to the new backing image what it leaves to its own: they are the same file, or read the same.
    /// </summary>
    private async Task<bool> HasSameBackingAsync(BlockNode backing, CancellationToken cancellationToken)
    {
        if (Disk.BackingNode() is not { } own)
        {
            await front.ExplainAsync($"{Disk.Name}: has no backing image, so all of it is copied").ConfigureAwait(false);
            return false;
        }
        if (own.HolderIdentity() is { } file && file == backing.HolderIdentity()
            && FormatOf(own).Equals(FormatOf(backing), StringComparison.Ordinal))
        {
            return true;
        }
        CompareResult comparison = await front.ShowAsync(
            $"Comparing {ByteText.Leaf(own.Name)} with {ByteText.Leaf(backing.Name)}",
            progress => new CompareJob(own, backing, strict: false).RunAsync(progress, cancellationToken)).ConfigureAwait(false);
        await front.ExplainAsync(comparison.Identical
            ? $"{backing.Name}: reads the same as {own.Name}, so what the source has from there is left out"
            : $"{backing.Name}: differs from {own.Name}, so all of the source is copied").ConfigureAwait(false);
        return comparison.Identical;
    }

    private static string FormatOf(BlockNode image) => image.As<IDescribed>()?.Describe().Format ?? "";

    /// <summary>Compares as much of what was written as was read.</summary>
    private async ValueTask VerifyAsync(BlockNode made, string then, CancellationToken cancellationToken)
    {
        CompareResult comparison = await front.ShowAsync(
            $"Verifying {ByteText.Leaf(made.Name)}",
            progress => new CompareJob(Disk, made, strict: false).RunAsync(progress, cancellationToken)).ConfigureAwait(false);
        if (comparison.FirstDifference < Disk.Length)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Corrupt,
                $"{made.Name}: differs from {Disk.Name} at offset {comparison.FirstDifference:#,0}. {then}",
                made.Name,
                comparison.FirstDifference);
        }
        await front.ExplainAsync($"{made.Name}: reads the same as {Disk.Name}").ConfigureAwait(false);
    }
}
