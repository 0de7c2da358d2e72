using DiskImage.Block;

namespace DiskImage.Protocols.Http;

/// <summary>An object of a web server.</summary>
/// <remarks>
/// Reads of a megabyte and more go straight into their buffers, many at once. Smaller ones are answered from windows that are read ahead: a
/// read that goes on where one ended doubles the next window, any other halves it, so tables that are read here and there cost little and
/// a disk that is read in small steps comes in large ones.
/// </remarks>
/// <param name="name">Its URL, without secrets.</param>
/// <param name="identity">Which object it is.</param>
/// <param name="source">Gets ranges; the node's own.</param>
/// <param name="readAhead">Bytes of a window at first.</param>
internal sealed class HttpNode(string name, NodeIdentity? identity, HttpSource source, int readAhead) : BlockNode
{
    private const int Direct = 1 << 20; // reads from here on pass the windows by
    private const int Smallest = 64 << 10, Largest = 4 << 20; // of windows. Ours
    private const int MostWindows = 8;

    private readonly Lock _lock = new(); // guards the windows and their size
    private readonly LinkedList<Window> _windows = new(); // the one used last first
    private readonly CancellationTokenSource _closing = new();
    private int _size = readAhead;
    private long _next = -1; // where the last read ended

    public override string Name => name;

    public override long Length => source.Length;

    public override bool IsReadOnly => true;

    public override NodeIdentity? Identity => identity;

    public override DateTimeOffset? LastWriteTime => source.LastModified;

    public override BlockLimits Limits => new(InFlight: 8);

    protected override async ValueTask ReadCoreAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
    {
        if (buffer.Length >= Direct)
        {
            await source.ReadAsync(offset, buffer, cancellationToken).ConfigureAwait(false);
            return;
        }
        while (!buffer.IsEmpty)
        {
            Window window = Find(offset, buffer.Length);
            byte[] bytes = await window.Bytes.WaitAsync(cancellationToken).ConfigureAwait(false);
            int at = (int)(offset - window.Offset), count = Math.Min(buffer.Length, bytes.Length - at);
            bytes.AsMemory(at, count).CopyTo(buffer);
            (offset, buffer) = (offset + count, buffer[count..]);
        }
    }

    protected override ValueTask WriteCoreAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
        => throw new InvalidOperationException(); // it is read-only

    protected override async ValueTask CloseCoreAsync()
    {
        await _closing.CancelAsync().ConfigureAwait(false);
        await Task.WhenAll(_windows.Select(Task (w) => w.Bytes)).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        source.Dispose();
        _closing.Dispose();
    }

    /// <summary>The window that has an offset, on its way if need be.</summary>
    private Window Find(long offset, int length)
    {
        lock (_lock)
        {
            bool isNext = offset == _next;
            _next = offset + length;
            LinkedListNode<Window>? after;
            for (LinkedListNode<Window>? node = _windows.First; node is not null; node = after)
            {
                after = node.Next;
                Window window = node.Value;
                if (window.Bytes.IsFaulted || window.Bytes.IsCanceled)
                {
                    _windows.Remove(node); // tried again
                }
                else if (window.Offset <= offset && offset < window.End)
                {
                    _windows.Remove(node);
                    _windows.AddFirst(node);
                    return window;
                }
            }
            _size = Math.Clamp(isNext ? _size * 2 : _size / 2, Math.Max(Smallest, length), Math.Max(Largest, length));
            long end = Math.Min(Length, offset + _size);
            var next = new Window(offset, end, Task.Run(() => LoadAsync(offset, (int)(end - offset))));
            _ = _windows.AddFirst(next);
            if (_windows.Count > MostWindows)
            {
                _windows.RemoveLast();
            }
            return next;
        }
    }

    private async Task<byte[]> LoadAsync(long offset, int length)
    {
        byte[] bytes = new byte[length];
        await source.ReadAsync(offset, bytes, _closing.Token).ConfigureAwait(false);
        return bytes;
    }

    private sealed record Window(long Offset, long End, Task<byte[]> Bytes);
}
