using DiskImage.Block;

namespace DiskImage.Formats;

/// <summary>
/// The coding units of a disk that were decoded last, up to a number of bytes, so that small reads do not decode a unit again and again.
/// </summary>
/// <remarks>
/// A unit that is asked for from several sides at once is decoded once. A failure is not kept. Whoever reads a unit as a whole decodes it
/// straight into its buffer and goes past the cache, unless the unit is in it.
/// </remarks>
/// <param name="maxBytes">Bytes kept at most; one unit is kept in any case.</param>
/// <param name="decode">Fills a buffer with a unit.</param>
internal sealed class DecodedUnits(long maxBytes, Func<long, Memory<byte>, CancellationToken, ValueTask> decode)
{
    private readonly Lock _sync = new(); // guards the rest
    private readonly Dictionary<long, LinkedListNode<Unit>> _units = [];
    private readonly LinkedList<Unit> _order = new(); // the one used last in front
    private long _bytes;

    /// <summary>Copies a part of a unit.</summary>
    /// <param name="unit">Which one.</param>
    /// <param name="length">Bytes of it.</param>
    /// <param name="within">Where the part begins.</param>
    /// <param name="buffer">The part.</param>
    /// <param name="cancellationToken">Stops the wait.</param>
    public async ValueTask ReadAsync(long unit, int length, int within, Memory<byte> buffer, CancellationToken cancellationToken)
    {
        if (buffer.Length == length && !Holds(unit))
        {
            await decode(unit, buffer, cancellationToken).ConfigureAwait(false);
            return;
        }
        LinkedListNode<Unit> entry = Take(unit, length);
        byte[] bytes;
        try
        {
            bytes = await entry.Value.Bytes.Value.WaitAsync(cancellationToken).ConfigureAwait(false);
        }
        catch (DiskImageException)
        {
            Drop(entry);
            throw;
        }
        bytes.AsMemory(within, buffer.Length).CopyTo(buffer);
    }

    private bool Holds(long unit)
    {
        lock (_sync)
        {
            return _units.ContainsKey(unit);
        }
    }

    private LinkedListNode<Unit> Take(long unit, int length)
    {
        lock (_sync)
        {
            if (_units.TryGetValue(unit, out LinkedListNode<Unit>? known))
            {
                _order.Remove(known);
                _order.AddFirst(known);
                return known;
            }
            while (_bytes > 0 && _bytes + length > maxBytes)
            {
                Remove(_order.Last!);
            }
            LinkedListNode<Unit> entry = _order.AddFirst(
                new Unit(unit, length, new Lazy<Task<byte[]>>(() => Task.Run(() => DecodeAsync(unit, length)))));
            _units.Add(unit, entry);
            _bytes += length;
            return entry;
        }
    }

    private void Drop(LinkedListNode<Unit> entry)
    {
        lock (_sync)
        {
            if (_units.TryGetValue(entry.Value.Index, out LinkedListNode<Unit>? known) && ReferenceEquals(known, entry))
            {
                Remove(entry);
            }
        }
    }

    private void Remove(LinkedListNode<Unit> entry)
    {
        _order.Remove(entry);
        _ = _units.Remove(entry.Value.Index);
        _bytes -= entry.Value.Length;
    }

    private async Task<byte[]> DecodeAsync(long unit, int length)
    {
        byte[] bytes = GC.AllocateUninitializedArray<byte>(length);
        await decode(unit, bytes, CancellationToken.None).ConfigureAwait(false);
        return bytes;
    }

    private sealed record Unit(long Index, int Length, Lazy<Task<byte[]>> Bytes);
}
