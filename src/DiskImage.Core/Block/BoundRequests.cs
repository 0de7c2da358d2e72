using System.Runtime.InteropServices;

namespace DiskImage.Block;

/// <summary>
/// Carries out requests of any shape on a node that takes only some (<see cref="BlockBinding"/>).
/// </summary>
/// <remarks>
/// A request that fits goes through as it is, cut to the largest transfer. One that does not is read or written by way of an aligned
/// buffer of at most <see cref="BounceLength"/>. A write that covers a unit in part reads the unit first; the range lock keeps every other
/// write off that unit meanwhile (whole writes hold it shared, so they do not wait for each other). A node that grows has the length after
/// a write that the write says: what only fills the last unit is cut off again. A change of length waits for every write, or that cut would
/// undo it.
/// </remarks>
internal sealed class BoundRequests(BlockNode node, BlockBinding binding, BoundRequests.Requests requests)
{
    private const int BounceLength = 1 << 20; // ours

    private readonly IDebugEvents? _debug = node as IDebugEvents;
    private readonly RangeLock _ranges = new();
    private readonly int _unit = Math.Max(1, binding.RequestAlignment);
    private readonly int _maximum = binding.LargestTransfer;

    /// <summary>Reads a range inside the node.</summary>
    public async ValueTask ReadAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
    {
        while (!buffer.IsEmpty)
        {
            int count;
            if (IsAligned(offset) && buffer.Length >= _unit && IsMemoryAligned(buffer))
            {
                count = WholeUnits(Math.Min(buffer.Length, _maximum));
                await requests.Read(offset, buffer[..count], cancellationToken).ConfigureAwait(false);
            }
            else
            {
                (long start, int length, count) = Bounce(offset, buffer.Length);
                using var bounce = new AlignedBuffer(length, Math.Max(1, binding.MemoryAlignment));
                await requests.Read(start, bounce.Memory, cancellationToken).ConfigureAwait(false);
                bounce.Memory.Slice((int)(offset - start), count).CopyTo(buffer);
            }
            (buffer, offset) = (buffer[count..], offset + count);
        }
    }

    /// <summary>Writes a range.</summary>
    public async ValueTask WriteAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
    {
        while (!buffer.IsEmpty)
        {
            if (IsAligned(offset) && buffer.Length >= _unit && IsMemoryAligned(buffer))
            {
                int whole = WholeUnits(Math.Min(buffer.Length, _maximum));
                await UnderRangeAsync(
                    offset, whole, exclusive: false, () => requests.Write(offset, buffer[..whole], cancellationToken), cancellationToken)
                    .ConfigureAwait(false);
                (buffer, offset) = (buffer[whole..], offset + whole);
                continue;
            }
            (long start, int length, int count) = Bounce(offset, buffer.Length);
            ReadOnlyMemory<byte> part = buffer[..count];
            long at = offset;
            bool isPartial = at != start || count != length, mayPad = node.GrowsOnWrite && at + count < start + length;
            // What reaches past the end of a node that grows is cut off again: nobody may make it longer meanwhile.
            await UnderRangeAsync(
                start,
                mayPad ? long.MaxValue - start : length,
                isPartial,
                () => WriteBouncedAsync(start, length, at, part, cancellationToken),
                cancellationToken)
                .ConfigureAwait(false);
            (buffer, offset) = (buffer[count..], offset + count);
        }
    }

    /// <summary>Zeroes a range: whole units by the node, the rest by writing.</summary>
    public async ValueTask WriteZeroesAsync(long offset, long length, ZeroWriteMode mode, CancellationToken cancellationToken)
    {
        long end = offset + length, firstWhole = Up(offset), lastWhole = Down(end);
        if (firstWhole >= lastWhole)
        {
            await WriteAsync(offset, new byte[length], cancellationToken).ConfigureAwait(false); // less than two units
            return;
        }
        await WriteAsync(offset, new byte[firstWhole - offset], cancellationToken).ConfigureAwait(false);
        for (long at = firstWhole; at < lastWhole;)
        {
            long start = at, count = Math.Min(lastWhole - at, MaximumZeroes);
            await UnderRangeAsync(
                start, count, exclusive: false, () => requests.WriteZeroes(start, count, mode, cancellationToken), cancellationToken)
                .ConfigureAwait(false);
            at += count;
        }
        await WriteAsync(lastWhole, new byte[end - lastWhole], cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Discards the whole units of a range.</summary>
    public async ValueTask DiscardAsync(long offset, long length, CancellationToken cancellationToken)
    {
        for (long at = Up(offset), end = Down(offset + length); at < end;)
        {
            long start = at, count = Math.Min(end - at, MaximumZeroes);
            await UnderRangeAsync(
                start,
                count,
                exclusive: false,
                () => requests.Discard(start, count, cancellationToken),
                cancellationToken).ConfigureAwait(false);
            at += count;
        }
    }

    /// <summary>
    /// Changes the length; of a node that grows alone, since a write that is cutting off what it only filled up would cut off what this
    /// adds. Others see to themselves, and may write to themselves meanwhile.
    /// </summary>
    public ValueTask ResizeAsync(
        long length, PreallocationMode preallocation, IProgress<long>? claimed, CancellationToken cancellationToken)
        => node.GrowsOnWrite
            ? UnderRangeAsync(
                0,
                long.MaxValue,
                exclusive: true,
                () => requests.Resize(length, preallocation, claimed, cancellationToken),
                cancellationToken)
            : requests.Resize(length, preallocation, claimed, cancellationToken);

    private long MaximumZeroes => binding.MaximumZeroes == 0 ? long.MaxValue : Math.Max(_unit, Down(binding.MaximumZeroes));

    private async ValueTask WriteBouncedAsync(
        long start, int length, long offset, ReadOnlyMemory<byte> part, CancellationToken cancellationToken)
    {
        using var bounce = new AlignedBuffer(length, Math.Max(1, binding.MemoryAlignment));
        int before = (int)(offset - start), after = before + part.Length;
        if (before > 0)
        {
            await _debug.TellAsync(DebugEvent.PwritevRmwHead).ConfigureAwait(false);
            await ReadOldAsync(start, bounce.Memory[.._unit], cancellationToken).ConfigureAwait(false);
            await _debug.TellAsync(DebugEvent.PwritevRmwAfterHead).ConfigureAwait(false);
        }
        if (after < length && (before == 0 || length > _unit))
        {
            await _debug.TellAsync(DebugEvent.PwritevRmwTail).ConfigureAwait(false);
            await ReadOldAsync(start + length - _unit, bounce.Memory[^_unit..], cancellationToken).ConfigureAwait(false);
            await _debug.TellAsync(DebugEvent.PwritevRmwAfterTail).ConfigureAwait(false);
        }
        part.CopyTo(bounce.Memory[before..]);
        long end = Math.Max(node.Length, offset + part.Length);
        await requests.Write(start, bounce.Memory, cancellationToken).ConfigureAwait(false);
        if (node.Length > end && start + length > end)
        {
            await requests.Resize(end, PreallocationMode.Off, null, CancellationToken.None).ConfigureAwait(false);
        }
    }

    /// <summary>A unit as it is; one that is past the end, in nodes that grow, is zeroes.</summary>
    private ValueTask ReadOldAsync(long offset, Memory<byte> unit, CancellationToken cancellationToken)
    {
        if (offset < node.Length)
        {
            return requests.Read(offset, unit, cancellationToken);
        }
        unit.Span.Clear();
        return default;
    }

    private async ValueTask UnderRangeAsync(
        long offset, long length, bool exclusive, Func<ValueTask> work, CancellationToken cancellationToken)
    {
        if (_unit == 1)
        {
            await work().ConfigureAwait(false);
            return;
        }
        RangeLock.Hold hold = await _ranges.AcquireAsync(offset, offset + length, exclusive, cancellationToken).ConfigureAwait(false);
        try
        {
            await work().ConfigureAwait(false);
        }
        finally
        {
            _ranges.Release(hold);
        }
    }

    /// <summary>The aligned range around the beginning of a request, and how many bytes of the request it covers.</summary>
    private (long Start, int Length, int Count) Bounce(long offset, int length)
    {
        long start = Down(offset);
        int room = Math.Max(_unit, Math.Min(_maximum, BounceLength / _unit * _unit));
        int bounced = (int)Math.Min(room, Up(offset + length) - start);
        return (start, bounced, (int)Math.Min(length, start + bounced - offset));
    }

    private bool IsAligned(long offset) => (offset & (_unit - 1)) == 0;

    private unsafe bool IsMemoryAligned(ReadOnlyMemory<byte> buffer)
    {
        if (binding.MemoryAlignment <= 1)
        {
            return true;
        }
        fixed (byte* address = &MemoryMarshal.GetReference(buffer.Span))
        {
            // The collector may move an array later on, by a multiple of eight at least: only memory that is pinned can be relied on.
            return ((nuint)address & (nuint)(binding.MemoryAlignment - 1)) == 0 && (binding.MemoryAlignment <= 8 || IsPinned(buffer));
        }
    }

    private static bool IsPinned(ReadOnlyMemory<byte> buffer) => MemoryMarshal.TryGetMemoryManager<byte, AlignedBuffer>(buffer, out _);

    private int WholeUnits(int length) => length / _unit * _unit;

    private long Up(long offset) => (offset + _unit - 1) & -(long)_unit;

    private long Down(long offset) => offset & -(long)_unit;

    /// <summary>The node's own members, which take only what the binding allows.</summary>
    internal readonly record struct Requests(
        Func<long, Memory<byte>, CancellationToken, ValueTask> Read,
        Func<long, ReadOnlyMemory<byte>, CancellationToken, ValueTask> Write,
        Func<long, long, ZeroWriteMode, CancellationToken, ValueTask> WriteZeroes,
        Func<long, long, CancellationToken, ValueTask> Discard,
        Func<long, PreallocationMode, IProgress<long>?, CancellationToken, ValueTask> Resize);
}
