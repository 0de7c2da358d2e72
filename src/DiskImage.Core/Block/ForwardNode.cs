namespace DiskImage.Block;

/// <summary>
/// A new node whose bytes go, once and in order, to somebody who cannot go back: a pipe, standard output, a stream. The last bytes that
/// were written are held, so a format may still change them, and may write a little ahead, as a footer is.
/// </summary>
/// <remarks>
/// <para>The idea: what is written lies in pages; when there are more of them than are to be held, the lowest is sent, zeroes before it
/// where nothing was written. So an order that is only nearly that of the offsets is as good as that order, a footer waits until its turn
/// comes, and memory is bounded. What lies before the first page that is not sent can be neither read nor changed.</para>
/// <para>Nothing is sent by closing: whoever made the node sends the rest when the image is complete, so that a failed one is short.</para>
/// </remarks>
internal sealed class ForwardNode : BlockNode
{
    private const int PageSize = 1 << 16;
    private const int PagesHeld = 256; // 16 MiB. Ours: a few requests of every worker

    private static readonly byte[] s_zeroes = new byte[1 << 20];

    private readonly Stream _sink;
    private readonly SemaphoreSlim _gate = new(1, 1); // guards the rest, and the order of what is sent
    private readonly SortedDictionary<long, byte[]> _pages = []; // by number
    private readonly Stack<byte[]> _spare = [];
    private long _sent; // bytes; whole pages until the rest is sent
    private long _length;

    /// <summary>Makes an empty node.</summary>
    /// <param name="sink">Where the bytes go. It stays open.</param>
    /// <param name="name">What it is called in messages.</param>
    public ForwardNode(Stream sink, string name) => (_sink, Name) = (sink, name);

    /// <inheritdoc/>
    public override string Name { get; }

    /// <inheritdoc/>
    public override long Length => Interlocked.Read(ref _length);

    /// <inheritdoc/>
    public override bool IsReadOnly => false;

    /// <inheritdoc/>
    public override bool GrowsOnWrite => true;

    /// <summary>Sends what is held, up to <see cref="Length"/>. To be called once, when nobody uses the node any more.</summary>
    /// <exception cref="DiskImageException">Io: nobody takes it.</exception>
    public async ValueTask SendRestAsync(CancellationToken cancellationToken)
    {
        await _gate.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            while (_pages.Count > 0)
            {
                await SendLowestAsync(cancellationToken).ConfigureAwait(false);
            }
            await SendZeroesAsync(_length, cancellationToken).ConfigureAwait(false);
            await TryAsync(() => new(_sink.FlushAsync(cancellationToken))).ConfigureAwait(false);
        }
        finally
        {
            _ = _gate.Release();
        }
    }

    /// <inheritdoc/>
    protected override async ValueTask ReadCoreAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
    {
        await _gate.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            RequireHeld(offset, "read");
            while (!buffer.IsEmpty)
            {
                (long number, int start, int count) = Place(offset, buffer.Length);
                if (_pages.TryGetValue(number, out byte[]? page))
                {
                    page.AsSpan(start, count).CopyTo(buffer.Span);
                }
                else
                {
                    buffer.Span[..count].Clear();
                }
                (offset, buffer) = (offset + count, buffer[count..]);
            }
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
            RequireHeld(offset, "changed");
            while (!buffer.IsEmpty)
            {
                (long number, int start, int count) = Place(offset, buffer.Length);
                buffer.Span[..count].CopyTo(Page(number).AsSpan(start));
                (offset, buffer) = (offset + count, buffer[count..]);
                _length = Math.Max(_length, offset);
                while (_pages.Count > PagesHeld)
                {
                    await SendLowestAsync(cancellationToken).ConfigureAwait(false);
                    RequireHeld(buffer.IsEmpty ? _sent : offset, "changed"); // if not, the rest of this request was behind all that is held
                }
            }
        }
        finally
        {
            _ = _gate.Release();
        }
    }

    /// <inheritdoc/>
    protected override async ValueTask WriteZeroesCoreAsync(
        long offset, long length, ZeroWriteMode mode, CancellationToken cancellationToken)
    {
        await _gate.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            RequireHeld(offset, "changed");
            foreach ((long number, byte[] page) in _pages)
            {
                long start = Math.Clamp(offset - (number * PageSize), 0, PageSize);
                long end = Math.Clamp(offset + length - (number * PageSize), 0, PageSize);
                page.AsSpan((int)start, (int)Math.Max(0, end - start)).Clear();
            }
            _length = Math.Max(_length, offset + length);
        }
        finally
        {
            _ = _gate.Release();
        }
    }

    /// <inheritdoc/>
    protected override async ValueTask ResizeCoreAsync(
        long length, PreallocationMode preallocation, IProgress<long>? claimed, CancellationToken cancellationToken)
    {
        await _gate.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            RequireHeld(length, "taken back");
            foreach (long number in _pages.Keys.Where(n => n * PageSize >= length).ToList())
            {
                _ = _pages.Remove(number, out byte[]? page);
                _spare.Push(page!);
            }
            if (_pages.TryGetValue(length / PageSize, out byte[]? last))
            {
                last.AsSpan((int)(length % PageSize)).Clear();
            }
            _length = length;
        }
        finally
        {
            _ = _gate.Release();
        }
    }

    private static (long Number, int Start, int Count) Place(long offset, int length)
    {
        int start = (int)(offset % PageSize);
        return (offset / PageSize, start, Math.Min(length, PageSize - start));
    }

    private byte[] Page(long number)
    {
        if (!_pages.TryGetValue(number, out byte[]? page))
        {
            page = _spare.TryPop(out byte[]? old) ? old : GC.AllocateUninitializedArray<byte>(PageSize);
            page.AsSpan().Clear();
            _pages.Add(number, page);
        }
        return page;
    }

    private void RequireHeld(long offset, string verb)
    {
        if (offset < _sent)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Unsupported,
                $"{Name}: what is at offset {offset:#,0} has been sent and cannot be {verb}: {_sent:#,0} "
                    + $"bytes are gone. Make the image as a file.",
                Name,
                offset);
        }
    }

    private async ValueTask SendLowestAsync(CancellationToken cancellationToken)
    {
        (long number, byte[] page) = _pages.First();
        long start = number * PageSize;
        await SendZeroesAsync(Math.Min(start, _length), cancellationToken).ConfigureAwait(false);
        int count = (int)Math.Clamp(_length - start, 0, PageSize);
        await SendAsync(page.AsMemory(0, count), cancellationToken).ConfigureAwait(false);
        _sent += count;
        _ = _pages.Remove(number);
        _spare.Push(page);
    }

    private async ValueTask SendZeroesAsync(long end, CancellationToken cancellationToken)
    {
        while (_sent < end)
        {
            int count = (int)Math.Min(s_zeroes.Length, end - _sent);
            await SendAsync(s_zeroes.AsMemory(0, count), cancellationToken).ConfigureAwait(false);
            _sent += count;
        }
    }

    private ValueTask SendAsync(ReadOnlyMemory<byte> bytes, CancellationToken cancellationToken)
        => TryAsync(() => _sink.WriteAsync(bytes, cancellationToken));

    /// <summary>Asks something of who takes it. One failure ends all.</summary>
    private async ValueTask TryAsync(Func<ValueTask> request)
    {
        try
        {
            await request().ConfigureAwait(false);
        }
        catch (Exception e) when (e is not (DiskImageException or OperationCanceledException))
        {
            var cause = new DiskImageException(
                DiskImageErrorKind.Io, $"{Name}: after {_sent:#,0} bytes nobody takes any more: {e.Message}", Name, _sent, cause: e);
            Break(cause);
            throw cause;
        }
    }
}
