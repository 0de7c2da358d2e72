using DiskImage.Block;

namespace DiskImage.Drivers;

/// <summary>
/// A place of fixed length that a new image is written into: an export, a device. What is there is gone with the first change; there is no
/// way back to it, and what is left of an image that did not become complete stays.
/// </summary>
/// <param name="place">The place.</param>
/// <param name="there">What is there, open for writing.</param>
/// <param name="open">Opens it again, for writing or for reading.</param>
internal sealed class OccupiedPlace(
    StoragePlace place, BlockNode there, Func<bool, CancellationToken, ValueTask<BlockNode>> open) : PendingNode(place)
{
    private readonly CoveredNode _node = new(there);

    /// <summary>Opens a place to be written into.</summary>
    /// <param name="place">The place.</param>
    /// <param name="open">Opens what is there, for writing or for reading.</param>
    /// <param name="cancellationToken">Stops it.</param>
    public static async ValueTask<PendingNode> BeginAsync(
        StoragePlace place, Func<bool, CancellationToken, ValueTask<BlockNode>> open, CancellationToken cancellationToken)
        => new OccupiedPlace(place, await open(true, cancellationToken).ConfigureAwait(false), open);

    public override BlockNode Node => _node;

    public override long Behind => there.Length - _node.Length;

    /// <summary>As far as it was taken: what lies behind is no part of what was made.</summary>
    public override async ValueTask<BlockNode> OpenAsync(bool writable, CancellationToken cancellationToken)
        => new FrontNode(await open(writable, cancellationToken).ConfigureAwait(false), _node.Length);

    public override ValueTask PublishAsync(bool durable, bool revocable, CancellationToken cancellationToken)
        => default; // it has its name

    public override void Withdraw()
    {
    }

    public override async ValueTask DisposeAsync()
    {
        try
        {
            await _node.DisposeAsync().ConfigureAwait(false);
        }
        catch (DiskImageException)
        {
            // The failure that led here is on its way already.
        }
    }

    /// <summary>
    /// Shows what is there as an empty node that may grow as far as the place goes, and of what was there nothing but zeroes. What is not
    /// written to is zeroed at last: at a flush, and before it is closed.
    /// </summary>
    /// <remarks>So a copy of a whole disk writes each byte once, whether the place can be zeroed quickly or not.</remarks>
    internal sealed class CoveredNode(BlockNode there) : FilterNode(there)
    {
        private const int MostRuns = 1 << 16; // of old bytes that are remembered. Ours

        private readonly SemaphoreSlim _gate = new(1, 1); // held while runs of old bytes change
        private readonly SortedList<long, long> _old = []; // runs of what was there, start and end, inside the length
        private long _length;

        public override long Length => Interlocked.Read(ref _length);

        public override bool GrowsOnWrite => true;

        protected override async ValueTask ReadCoreAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
        {
            await Below.ReadAsync(offset, buffer, cancellationToken).ConfigureAwait(false);
            await _gate.WaitAsync(cancellationToken).ConfigureAwait(false);
            try
            {
                foreach ((long start, long end) in Within(offset, offset + buffer.Length))
                {
                    buffer.Span[(int)(start - offset)..(int)(end - offset)].Clear();
                }
            }
            finally
            {
                _ = _gate.Release();
            }
        }

        protected override async ValueTask WriteCoreAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
        {
            await TakeAsync(offset, buffer.Length, cancellationToken).ConfigureAwait(false);
            await Below.WriteAsync(offset, buffer, cancellationToken).ConfigureAwait(false);
        }

        protected override async ValueTask WriteZeroesCoreAsync(
            long offset, long length, ZeroWriteMode mode, CancellationToken cancellationToken)
        {
            await TakeAsync(offset, length, cancellationToken).ConfigureAwait(false);
            await Below.WriteZeroesAsync(offset, length, mode, cancellationToken).ConfigureAwait(false);
        }

        protected override async ValueTask<BlockExtent> GetExtentCoreAsync(long offset, long length, CancellationToken cancellationToken)
        {
            await _gate.WaitAsync(cancellationToken).ConfigureAwait(false);
            try
            {
                if (Within(offset, offset + length).FirstOrDefault() is { End: > 0 } old)
                {
                    if (old.Start == offset)
                    {
                        return new BlockExtent(offset, old.End - old.Start, BlockStatus.Allocated | BlockStatus.Zero, this, null);
                    }
                    length = old.Start - offset;
                }
            }
            finally
            {
                _ = _gate.Release();
            }
            return await Below.GetExtentAsync(offset, length, cancellationToken).ConfigureAwait(false);
        }

        protected override async ValueTask FlushCoreAsync(CancellationToken cancellationToken)
        {
            await ClearAsync(cancellationToken).ConfigureAwait(false);
            await Below.FlushAsync(cancellationToken).ConfigureAwait(false);
        }

        protected override async ValueTask ResizeCoreAsync(
            long length, PreallocationMode preallocation, IProgress<long>? claimed, CancellationToken cancellationToken)
        {
            RequireRoom(length);
            await _gate.WaitAsync(cancellationToken).ConfigureAwait(false);
            try
            {
                await SetLengthAsync(length, quickly: true, cancellationToken).ConfigureAwait(false);
            }
            finally
            {
                _ = _gate.Release();
            }
        }

        protected override async ValueTask CloseCoreAsync()
        {
            try
            {
                await ClearAsync(CancellationToken.None).ConfigureAwait(false);
            }
            finally
            {
                await base.CloseCoreAsync().ConfigureAwait(false);
                _gate.Dispose();
            }
        }

        /// <summary>A range is about to be written: what was there is no concern any more.</summary>
        private async ValueTask TakeAsync(long offset, long length, CancellationToken cancellationToken)
        {
            RequireRoom(offset + length);
            await _gate.WaitAsync(cancellationToken).ConfigureAwait(false);
            try
            {
                if (offset + length > _length)
                {
                    await SetLengthAsync(offset + length, quickly: false, cancellationToken).ConfigureAwait(false);
                }
                Remove(offset, offset + length);
                if (_old.Count > MostRuns)
                {
                    await ZeroOldAsync(cancellationToken).ConfigureAwait(false);
                }
            }
            finally
            {
                _ = _gate.Release();
            }
        }

        /// <summary>What comes in is zeroed at once, if that is quick; what lies behind the length is never touched.</summary>
        private async ValueTask SetLengthAsync(long length, bool quickly, CancellationToken cancellationToken)
        {
            long before = _length;
            Remove(Math.Min(before, length), Math.Max(before, length));
            bool isZeroed = quickly && length > before && Below.As<IFastZero>() is { } fast
                && await fast.TryZeroFastAsync(before, length - before, cancellationToken).ConfigureAwait(false);
            if (length > before && !isZeroed)
            {
                _old.Add(before, length);
            }
            _ = Interlocked.Exchange(ref _length, length);
        }

        private async ValueTask ClearAsync(CancellationToken cancellationToken)
        {
            await _gate.WaitAsync(cancellationToken).ConfigureAwait(false);
            try
            {
                await ZeroOldAsync(cancellationToken).ConfigureAwait(false);
            }
            finally
            {
                _ = _gate.Release();
            }
        }

        private async ValueTask ZeroOldAsync(CancellationToken cancellationToken)
        {
            while (_old.Count > 0)
            {
                (long start, long end) = (_old.GetKeyAtIndex(_old.Count - 1), _old.GetValueAtIndex(_old.Count - 1));
                await Below.WriteZeroesAsync(start, end - start, ZeroWriteMode.MayUnmap, cancellationToken).ConfigureAwait(false);
                _old.RemoveAt(_old.Count - 1);
            }
        }

        private void RequireRoom(long length)
        {
            if (length > Below.Length)
            {
                throw new DiskImageException(
                    DiskImageErrorKind.NoSpace,
                    $"{Name}: has {Below.Length:#,0} bytes and cannot become longer; the new image needs {length:#,0}",
                    Name);
            }
        }

        /// <summary>The runs of old bytes in a range, cut to it.</summary>
        private IEnumerable<(long Start, long End)> Within(long offset, long end)
        {
            for (int i = First(offset); i < _old.Count && _old.GetKeyAtIndex(i) < end; i++)
            {
                yield return (Math.Max(offset, _old.GetKeyAtIndex(i)), Math.Min(end, _old.GetValueAtIndex(i)));
            }
        }

        private void Remove(long offset, long end)
        {
            int i = First(offset);
            while (i < _old.Count && _old.GetKeyAtIndex(i) < end)
            {
                (long start, long until) = (_old.GetKeyAtIndex(i), _old.GetValueAtIndex(i));
                _old.RemoveAt(i);
                if (start < offset)
                {
                    _old.Add(start, offset);
                    i++;
                }
                if (until > end)
                {
                    _old.Add(end, until);
                    break;
                }
            }
        }

        /// <summary>The first run that ends behind an offset.</summary>
        private int First(long offset)
        {
            int low = 0, high = _old.Count;
            while (low < high)
            {
                int middle = (low + high) / 2;
                (low, high) = _old.GetValueAtIndex(middle) <= offset ? (middle + 1, high) : (low, middle);
            }
            return low;
        }
    }

    /// <summary>The first bytes of a node.</summary>
    private sealed class FrontNode(BlockNode all, long length) : FilterNode(all)
    {
        public override long Length => length;

        public override bool GrowsOnWrite => false;
    }
}
