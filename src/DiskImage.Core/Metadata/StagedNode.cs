using DiskImage.Block;

namespace DiskImage.Metadata;

/// <summary>
/// A file whose changes are held back: it reads as if they were made, and the node below, which it borrows, stays as it is until
/// <see cref="CommitAsync"/>. Closing it without that drops them.
/// </summary>
/// <remarks>
/// <para>For what must be looked at as a whole before it is done, such as a repair. The changes are kept as steps: what was written
/// between two flushes or changes of length. Committing repeats the steps in order, with the flushes, so whatever order against crashes
/// the changes were made in holds for the file, too. Inside a step the order is that of the offsets.</para>
/// <para>Kept are whole pages: the page that a write touches first in a step is copied and changed there, so a step takes as much room as
/// it touches pages, however often. Beyond a number of bytes the pages go to a temporary file. Discards are hints and are not taken.</para>
/// </remarks>
/// <param name="below">The file. Nobody else may change it meanwhile.</param>
/// <param name="inMemory">Bytes of pages that are kept in memory.</param>
internal sealed class StagedNode(BlockNode below, long inMemory = StagedNode.DefaultMemory) : BlockNode
{
    private const int PageBits = 12, PageBytes = 1 << PageBits;
    private const int JoinedBytes = 1 << 20; // neighbouring pages are committed in requests of at most this. Ours
    private const long DefaultMemory = 64 << 20; // ours

    private readonly SemaphoreSlim _gate = new(1, 1); // guards everything below
    private readonly SpillStore _store = new(below.Name, inMemory);
    private readonly Dictionary<long, long> _pages = []; // page → place of its present contents
    private readonly List<Step> _steps = [new()];
    private long _length = below.Length;
    private long _shown = below.Length; // the node below shows through up to here

    /// <inheritdoc/>
    public override string Name => below.Name;

    /// <inheritdoc/>
    public override long Length => Volatile.Read(ref _length);

    /// <inheritdoc/>
    public override bool IsReadOnly => false;

    /// <inheritdoc/>
    public override bool GrowsOnWrite => true;

    /// <inheritdoc/>
    public override long? AllocatedLength => below.AllocatedLength;

    /// <inheritdoc/>
    public override BlockLimits Limits => below.Limits;

    /// <summary>True if there is something to commit.</summary>
    public bool HasChanges => _pages.Count > 0 || _steps.Exists(s => s.Length is not null);

    /// <summary>True if a range reads as it does in the file below, for sure.</summary>
    public bool IsUntouched(long offset, long length)
    {
        if (length > _shown - offset)
        {
            return false;
        }
        for (long page = offset >> PageBits; page << PageBits < offset + length; page++)
        {
            if (_pages.ContainsKey(page))
            {
                return false;
            }
        }
        return true;
    }

    /// <summary>Makes the changes in the file below, durably. Never cancelled half way.</summary>
    public async ValueTask CommitAsync()
    {
        byte[] buffer = new byte[JoinedBytes];
        foreach (Step step in _steps)
        {
            await CommitPagesAsync(step, buffer).ConfigureAwait(false);
            if (step.Length is long length)
            {
                await below.ResizeAsync(length).ConfigureAwait(false);
            }
            if (step.IsFlushed)
            {
                await below.FlushAsync().ConfigureAwait(false);
            }
        }
        await below.FlushAsync().ConfigureAwait(false);
        _steps.Clear();
        _steps.Add(new());
        _pages.Clear();
        _shown = _length;
    }

    /// <inheritdoc/>
    protected override async ValueTask ReadCoreAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
    {
        await _gate.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            await ReadPagesAsync(offset, buffer, cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            _ = _gate.Release();
        }
    }

    /// <inheritdoc/>
    protected override async ValueTask WriteCoreAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
    {
        await _gate.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            while (!buffer.IsEmpty)
            {
                int within = (int)(offset & (PageBytes - 1)), count = Math.Min(buffer.Length, PageBytes - within);
                await ChangeAsync(offset >> PageBits, within, buffer[..count], cancellationToken).ConfigureAwait(false);
                (offset, buffer) = (offset + count, buffer[count..]);
                Volatile.Write(ref _length, Math.Max(_length, offset));
            }
        }
        finally
        {
            _ = _gate.Release();
        }
    }

    /// <inheritdoc/>
    protected override async ValueTask<BlockExtent> GetExtentCoreAsync(long offset, long length, CancellationToken cancellationToken)
    {
        await _gate.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            bool isKept = _pages.ContainsKey(offset >> PageBits);
            long end = RunEnd(offset, offset + length, isKept);
            if (isKept)
            {
                return new(offset, end - offset, BlockStatus.Allocated | BlockStatus.Data, this, offset);
            }
            if (offset >= _shown)
            {
                return new(offset, end - offset, BlockStatus.Allocated | BlockStatus.Zero, this, offset);
            }
            BlockExtent extent = await below.GetExtentAsync(
                offset, Math.Min(end, _shown) - offset, cancellationToken).ConfigureAwait(false);
            return extent with { Node = this, HostOffset = offset, Depth = 0 };
        }
        finally
        {
            _ = _gate.Release();
        }
    }

    /// <inheritdoc/>
    protected override async ValueTask FlushCoreAsync(CancellationToken cancellationToken)
    {
        await _gate.WaitAsync(cancellationToken).ConfigureAwait(false);
        if (_steps[^1].Pages.Count > 0)
        {
            _steps[^1].IsFlushed = true;
            _steps.Add(new());
        }
        else if (_steps.Count > 1)
        {
            _steps[^2].IsFlushed = true;
        }
        _ = _gate.Release();
    }

    /// <inheritdoc/>
    protected override async ValueTask ResizeCoreAsync(
        long length, PreallocationMode preallocation, IProgress<long>? claimed, CancellationToken cancellationToken)
    {
        await _gate.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            if (length < _length)
            {
                await CutAsync(length, cancellationToken).ConfigureAwait(false);
            }
            if (length != _length)
            {
                _steps[^1].Length = length;
                _steps.Add(new());
                Volatile.Write(ref _length, length);
            }
        }
        finally
        {
            _ = _gate.Release();
        }
    }

    /// <inheritdoc/>
    protected override ValueTask CloseCoreAsync()
    {
        _store.Dispose();
        _gate.Dispose();
        return default;
    }

    private async ValueTask CommitPagesAsync(Step step, byte[] buffer)
    {
        long start = 0;
        int length = 0;
        foreach ((long page, Change change) in step.Pages.OrderBy(p => p.Key))
        {
            long at = (page << PageBits) + change.Start;
            int count = change.End - change.Start;
            if (length > 0 && (at != start + length || length + count > buffer.Length))
            {
                await below.WriteAsync(start, buffer.AsMemory(0, length)).ConfigureAwait(false);
                length = 0;
            }
            start = length == 0 ? at : start;
            _store.Read(change.Place + change.Start, buffer.AsSpan(length, count));
            length += count;
        }
        await below.WriteAsync(start, buffer.AsMemory(0, length)).ConfigureAwait(false);
    }

    private async ValueTask ReadPagesAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
    {
        while (!buffer.IsEmpty)
        {
            int count;
            if (_pages.TryGetValue(offset >> PageBits, out long place))
            {
                int within = (int)(offset & (PageBytes - 1));
                count = Math.Min(buffer.Length, PageBytes - within);
                _store.Read(place + within, buffer.Span[..count]);
            }
            else
            {
                count = (int)(RunEnd(offset, offset + buffer.Length, isKept: false) - offset);
                int inside = (int)Math.Clamp(_shown - offset, 0, count);
                buffer.Span[inside..count].Clear();
                await below.ReadAsync(inside == 0 ? 0 : offset, buffer[..inside], cancellationToken).ConfigureAwait(false);
            }
            (offset, buffer) = (offset + count, buffer[count..]);
        }
    }

    /// <summary>Where the run of pages that are kept, or are not, ends.</summary>
    private long RunEnd(long offset, long end, bool isKept)
    {
        long page = (offset >> PageBits) + 1;
        while (page << PageBits < end && _pages.ContainsKey(page) == isKept)
        {
            page++;
        }
        return Math.Min(end, page << PageBits);
    }

    private async ValueTask ChangeAsync(long page, int within, ReadOnlyMemory<byte> bytes, CancellationToken cancellationToken)
    {
        Dictionary<long, Change> changes = _steps[^1].Pages;
        if (!changes.TryGetValue(page, out Change change))
        {
            change = new(await CopyPageAsync(page, PageBytes, cancellationToken).ConfigureAwait(false), within, within);
        }
        _store.Write(change.Place + within, bytes.Span);
        changes[page] = change with { Start = Math.Min(change.Start, within), End = Math.Max(change.End, within + bytes.Length) };
    }

    /// <summary>Gives a page a new place with the first <paramref name="count"/> bytes of what it holds now, zeroes behind them.</summary>
    private async ValueTask<long> CopyPageAsync(long page, int count, CancellationToken cancellationToken)
    {
        byte[] contents = new byte[PageBytes];
        await ReadPagesAsync(page << PageBits, contents.AsMemory(0, count), cancellationToken).ConfigureAwait(false);
        long place = _store.Append(PageBytes);
        _store.Write(place, contents);
        _pages[page] = place;
        return place;
    }

    private async ValueTask CutAsync(long length, CancellationToken cancellationToken)
    {
        long last = length >> PageBits;
        int inLast = (int)(length & (PageBytes - 1));
        foreach (long page in _pages.Keys.Where(p => p > last || (p == last && inLast == 0)).ToArray())
        {
            _ = _pages.Remove(page);
        }
        if (_pages.ContainsKey(last))
        {
            _ = await CopyPageAsync(last, inLast, cancellationToken).ConfigureAwait(false); // what is cut off does not come back
        }
        _shown = Math.Min(_shown, length);
    }

    /// <summary>What was changed between two flushes or changes of length.</summary>
    private sealed class Step
    {
        public Dictionary<long, Change> Pages { get; } = [];

        /// <summary>The file's length from here on; null if it was not changed on its own.</summary>
        public long? Length { get; set; }

        public bool IsFlushed { get; set; }
    }

    /// <summary>Where a page's contents are kept, and which bytes of it were written.</summary>
    private readonly record struct Change(long Place, int Start, int End);
}
