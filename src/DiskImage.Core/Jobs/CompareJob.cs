using System.Runtime.CompilerServices;
using DiskImage.Block;

namespace DiskImage.Jobs;

/// <summary>In what two disks differ.</summary>
public enum DifferenceKind
{
    /// <summary>They read differently.</summary>
    Content,

    /// <summary>
    /// They read the same there, but one stores what the other does not, or does not know to be zero. In strict mode only.
    /// </summary>
    Allocation,

    /// <summary>Their virtual sizes, whatever they read as. In strict mode only.</summary>
    Size,
}

/// <summary>What a comparison found.</summary>
/// <param name="Identical">The disks read the same; in strict mode also their sizes and what they store.</param>
/// <param name="FirstDifference">The first byte that differs, or in strict mode the first range whose status differs.</param>
/// <param name="SizesDiffer">The virtual sizes differ.</param>
/// <param name="Difference">In what they differ at <paramref name="FirstDifference"/>; null if they are identical.</param>
public sealed record CompareResult(bool Identical, long? FirstDifference, bool SizesDiffer, DifferenceKind? Difference);

/// <summary>A range in which two disks differ.</summary>
/// <param name="Offset">Its first byte.</param>
/// <param name="Length">Bytes.</param>
/// <param name="Kind">In what they differ there.</param>
public sealed record DiskDifference(long Offset, long Length, DifferenceKind Kind)
{
    /// <summary>The first byte behind it.</summary>
    public long End => Offset + Length;
}

/// <summary>
/// Compares what two disks read as. Where one is longer, the rest of it must read as zeroes. Ranges that are zero in both are not
/// read.
/// </summary>
public sealed class CompareJob(BlockNode left, BlockNode right, bool strict) : BlockJob<CompareResult>
{
    private const int Chunk = 1 << 20;
    private const BlockStatus Compared = BlockStatus.Zero | BlockStatus.Data; // in strict mode

    private readonly long _common = Math.Min(left.Length, right.Length);
    private readonly long _total = Math.Max(left.Length, right.Length);
    private readonly Lock _found = new(); // guards _kind, and _first while it is changed
    private DifferenceKind _kind;
    private long _first = long.MaxValue, _done, _next;

    /// <inheritdoc/>
    public override async Task<CompareResult> RunAsync(IProgress<JobProgress>? progress, CancellationToken cancellationToken)
    {
        bool sizesDiffer = left.Length != right.Length;
        if (strict && sizesDiffer)
        {
            return new CompareResult(Identical: false, _common, sizesDiffer, DifferenceKind.Size);
        }
        await ParallelWork.RunAsync(
            ParallelWork.WorkersFor(left, right), token => WorkAsync(progress, token), cancellationToken).ConfigureAwait(false);
        bool same = _first == long.MaxValue;
        return new CompareResult(same, same ? null : _first, sizesDiffer, same ? null : _kind);
    }

    /// <summary>
    /// Every range that differs, in order, as long as it goes on. In strict mode also those that read the same but are not stored alike, as
    /// far as both disks go, and what only the longer one has, as one range.
    /// </summary>
    /// <param name="granularity">
    /// Blocks of so many bytes, from the beginning of the disks on, differ as a whole, the last one as far as the longer disk goes; 1 to
    /// tell every byte apart.
    /// </param>
    /// <param name="progress">Told how far it is.</param>
    /// <param name="cancellationToken">Stops it.</param>
    public async IAsyncEnumerable<DiskDifference> DifferencesAsync(
        long granularity, IProgress<JobProgress>? progress, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(granularity);
        IAsyncEnumerable<DiskDifference> content = ContentAsync(strict ? _common : _total, granularity, progress, cancellationToken);
        await foreach (DiskDifference found in (strict
            ? MergedAsync(content, AllocationAsync(granularity, cancellationToken), cancellationToken)
            : content).ConfigureAwait(false))
        {
            yield return found;
        }
        if (strict && _common < _total)
        {
            yield return new DiskDifference(_common, _total - _common, DifferenceKind.Size);
        }
    }

    /// <summary>Ranges that read differently, up to an end.</summary>
    private async IAsyncEnumerable<DiskDifference> ContentAsync(
        long end, long granularity, IProgress<JobProgress>? progress, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        using var buffers = new Buffers();
        var run = new Run(DifferenceKind.Content, granularity, end);
        for (long offset = 0, next; offset < end; offset = next)
        {
            int length = (int)Math.Min(Chunk, end - offset);
            next = offset + length;
            progress?.Report(new JobProgress("Compare", offset, end));
            if (run.End >= next) // a long block differs already
            {
                continue;
            }
            long zero = await ZeroInBothAsync(offset, cancellationToken).ConfigureAwait(false);
            if (zero >= length)
            {
                next = offset + Math.Max(length, zero / Chunk * Chunk);
                continue;
            }
            await LoadAsync(buffers, offset, length, cancellationToken).ConfigureAwait(false);
            for (int at = 0; at < length;)
            {
                at += buffers.Left.AsSpan(at, length - at).CommonPrefixLength(buffers.Right.AsSpan(at, length - at));
                if (at == length)
                {
                    break;
                }
                int first = at;
                while (at < length && buffers.Left[at] != buffers.Right[at])
                {
                    at++;
                }
                if (run.Add(offset + first, offset + at) is { } whole)
                {
                    yield return whole;
                }
                at = (int)Math.Min(run.End - offset, length);
            }
        }
        if (run.Last is { } last)
        {
            yield return last;
        }
    }

    /// <summary>Ranges that are not stored alike, as far as both disks go.</summary>
    private async IAsyncEnumerable<DiskDifference> AllocationAsync(
        long granularity, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        var run = new Run(DifferenceKind.Allocation, granularity, _common);
        for (long offset = 0; offset < _common;)
        {
            BlockExtent a = await left.GetExtentAsync(offset, _common - offset, cancellationToken).ConfigureAwait(false);
            BlockExtent b = await right.GetExtentAsync(offset, _common - offset, cancellationToken).ConfigureAwait(false);
            long end = offset + Math.Min(a.Length, b.Length);
            if ((a.Status & Compared) != (b.Status & Compared) && run.Add(offset, end) is { } whole)
            {
                yield return whole;
            }
            offset = end;
        }
        if (run.Last is { } last)
        {
            yield return last;
        }
    }

    /// <summary>Both in order; where they overlap it is the content that differs.</summary>
    private static async IAsyncEnumerable<DiskDifference> MergedAsync(
        IAsyncEnumerable<DiskDifference> content,
        IAsyncEnumerable<DiskDifference> allocation,
        [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        IAsyncEnumerator<DiskDifference> contents = content.GetAsyncEnumerator(cancellationToken);
        await using (contents.ConfigureAwait(false))
        {
            bool isThere = await contents.MoveNextAsync().ConfigureAwait(false);
            long told = 0; // up to here
            await foreach (DiskDifference stored in allocation.ConfigureAwait(false))
            {
                told = Math.Max(told, stored.Offset);
                for (; isThere && contents.Current.Offset < stored.End; isThere = await contents.MoveNextAsync().ConfigureAwait(false))
                {
                    if (contents.Current.Offset > told)
                    {
                        yield return stored with { Offset = told, Length = contents.Current.Offset - told };
                    }
                    yield return contents.Current;
                    told = Math.Max(told, contents.Current.End);
                }
                if (told < stored.End)
                {
                    yield return stored with { Offset = told, Length = stored.End - told };
                    told = stored.End;
                }
            }
            for (; isThere; isThere = await contents.MoveNextAsync().ConfigureAwait(false))
            {
                yield return contents.Current;
            }
        }
    }

    private async Task WorkAsync(IProgress<JobProgress>? progress, CancellationToken cancellationToken)
    {
        using var buffers = new Buffers();
        while (true)
        {
            long offset = await ClaimAsync(cancellationToken).ConfigureAwait(false);
            if (offset >= Math.Min(_total, Interlocked.Read(ref _first)))
            {
                return;
            }
            int length = (int)Math.Min(Chunk, _total - offset);
            if (strict && await FirstStatusDifferenceAsync(offset, length, cancellationToken).ConfigureAwait(false) is long stored)
            {
                Find(stored, DifferenceKind.Allocation);
            }
            if (await ZeroInBothAsync(offset, cancellationToken).ConfigureAwait(false) < length)
            {
                await LoadAsync(buffers, offset, length, cancellationToken).ConfigureAwait(false);
                int same = buffers.Left.AsSpan(0, length).CommonPrefixLength(buffers.Right.AsSpan(0, length));
                if (same < length)
                {
                    Find(offset + same, DifferenceKind.Content);
                }
            }
            progress?.Report(new JobProgress("Compare", Interlocked.Add(ref _done, length), _total));
        }
    }

    /// <summary>The next chunk to compare. Long runs that are zero in both disks are passed over here.</summary>
    private async ValueTask<long> ClaimAsync(CancellationToken cancellationToken)
    {
        while (true)
        {
            long offset = Interlocked.Read(ref _next);
            if (offset >= _total)
            {
                return offset;
            }
            long zero = strict
                ? await ZeroAlikeAsync(offset, cancellationToken).ConfigureAwait(false)
                : await ZeroInBothAsync(offset, cancellationToken).ConfigureAwait(false);
            long next = offset + Math.Max(Chunk, zero / Chunk * Chunk);
            if (Interlocked.CompareExchange(ref _next, next, offset) == offset)
            {
                if (zero < Chunk)
                {
                    return offset;
                }
                _ = Interlocked.Add(ref _done, Math.Min(next, _total) - offset);
            }
        }
    }

    private async ValueTask<long> ZeroInBothAsync(long offset, CancellationToken cancellationToken)
    {
        long a = await ZeroRunAsync(left, offset, cancellationToken).ConfigureAwait(false);
        return a < Chunk ? a : Math.Min(a, await ZeroRunAsync(right, offset, cancellationToken).ConfigureAwait(false));
    }

    /// <summary>Bytes from an offset on that are zeroes in both disks and stored alike; for disks of the same length.</summary>
    private async ValueTask<long> ZeroAlikeAsync(long offset, CancellationToken cancellationToken)
    {
        BlockExtent a = await left.GetExtentAsync(offset, _total - offset, cancellationToken).ConfigureAwait(false);
        BlockExtent b = await right.GetExtentAsync(offset, _total - offset, cancellationToken).ConfigureAwait(false);
        return a.IsZero && b.IsZero && (a.Status & Compared) == (b.Status & Compared) ? Math.Min(a.Length, b.Length) : 0;
    }

    private async ValueTask<long> ZeroRunAsync(BlockNode node, long offset, CancellationToken cancellationToken)
    {
        if (offset >= node.Length)
        {
            return _total - offset;
        }
        BlockExtent extent = await node.GetExtentAsync(offset, node.Length - offset, cancellationToken).ConfigureAwait(false);
        return !extent.IsZero ? 0 : extent.End >= node.Length ? _total - offset : extent.Length;
    }

    private async ValueTask LoadAsync(Buffers buffers, long offset, int length, CancellationToken cancellationToken)
    {
        await left.ReadPaddedAsync(offset, buffers.Left.AsMemory(0, length), cancellationToken).ConfigureAwait(false);
        await right.ReadPaddedAsync(offset, buffers.Right.AsMemory(0, length), cancellationToken).ConfigureAwait(false);
    }

    private async ValueTask<long?> FirstStatusDifferenceAsync(long offset, long length, CancellationToken cancellationToken)
    {
        for (long end = offset + length; offset < end;)
        {
            BlockExtent a = await left.GetExtentAsync(offset, end - offset, cancellationToken).ConfigureAwait(false);
            BlockExtent b = await right.GetExtentAsync(offset, end - offset, cancellationToken).ConfigureAwait(false);
            if ((a.Status & Compared) != (b.Status & Compared))
            {
                return offset;
            }
            offset += Math.Min(a.Length, b.Length);
        }
        return null;
    }

    /// <summary>Keeps the first difference; of two at one place the one in content.</summary>
    private void Find(long offset, DifferenceKind kind)
    {
        lock (_found)
        {
            if (offset < _first || (offset == _first && kind == DifferenceKind.Content))
            {
                _ = Interlocked.Exchange(ref _first, offset); // read without the lock
                _kind = kind;
            }
        }
    }

    /// <summary>Ranges that come in order, made whole blocks, and those that neighbour each other one.</summary>
    /// <param name="kind">In what they differ.</param>
    /// <param name="granularity">Bytes of a block.</param>
    /// <param name="limit">Where the last block ends at the latest.</param>
    private sealed class Run(DifferenceKind kind, long granularity, long limit)
    {
        private long _start;

        /// <summary>Where the range at hand ends.</summary>
        public long End { get; private set; }

        /// <summary>The range at hand; null if there is none.</summary>
        public DiskDifference? Last => End > _start ? new DiskDifference(_start, End - _start, kind) : null;

        /// <summary>Adds a range; returns the one before it if that is complete.</summary>
        public DiskDifference? Add(long from, long to)
        {
            long start = from / granularity * granularity;
            long last = (to - 1) / granularity * granularity; // the block that the range ends in
            long end = last + Math.Min(granularity, limit - last);
            if (End > _start && End >= start)
            {
                End = Math.Max(End, end);
                return null;
            }
            DiskDifference? whole = Last;
            (_start, End) = (start, end);
            return whole;
        }
    }

    private sealed class Buffers : IDisposable
    {
        public byte[] Left { get; } = System.Buffers.ArrayPool<byte>.Shared.Rent(Chunk);

        public byte[] Right { get; } = System.Buffers.ArrayPool<byte>.Shared.Rent(Chunk);

        public void Dispose()
        {
            System.Buffers.ArrayPool<byte>.Shared.Return(Left);
            System.Buffers.ArrayPool<byte>.Shared.Return(Right);
        }
    }
}
