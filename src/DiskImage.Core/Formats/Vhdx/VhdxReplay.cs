using DiskImage.Binary;
using DiskImage.Block;

namespace DiskImage.Formats.Vhdx;

/// <summary>Carries out what a log says, in the file. Spec: MS-VHDX 2.3.3.</summary>
internal static class VhdxReplay
{
    /// <summary>
    /// Brings every update to its place, and the file to its length. Flushed when it returns; the headers still name the log.
    /// </summary>
    public static async ValueTask ApplyAsync(BlockNode file, VhdxLogSequence log, CancellationToken cancellationToken)
    {
        byte[] sector = new byte[VhdxLayout.Sector];
        foreach (VhdxLoggedUpdate update in log.Updates)
        {
            if (update.DataAt < 0)
            {
                await file.WriteZeroesAsync(
                    update.FileOffset, update.Length, ZeroWriteMode.MayUnmap, cancellationToken).ConfigureAwait(false);
                continue;
            }
            await ReadDataAsync(file, update, sector, cancellationToken).ConfigureAwait(false);
            await file.WriteAsync(update.FileOffset, sector, cancellationToken).ConfigureAwait(false);
        }
        if (file.Length < log.LastFileOffset)
        {
            await file.ResizeAsync(log.LastFileOffset, PreallocationMode.Off, cancellationToken).ConfigureAwait(false);
        }
        await file.FlushAsync(cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Reads the sector that an update writes.</summary>
    public static async ValueTask ReadDataAsync(
        BlockNode file, VhdxLoggedUpdate update, Memory<byte> sector, CancellationToken cancellationToken)
    {
        await file.ReadAsync(update.DataAt, sector, cancellationToken).ConfigureAwait(false);
        LittleEndian.U64(sector.Span, 0, update.Leading);
        LittleEndian.U32(sector.Span, VhdxLayout.Sector - sizeof(uint), update.Trailing);
    }
}

/// <summary>
/// A file as it will be once its log is replayed, without changing it: for disks that are opened read-only.
/// </summary>
/// <remarks>
/// The updates are turned into sorted runs that do not overlap, the newest on top. Data is left in the log and read when it is
/// wanted, so memory is bounded by the number of updates.
/// </remarks>
internal sealed class VhdxReplayedNode : FilterNode
{
    private readonly List<(long Start, long End, VhdxLoggedUpdate Update)> _runs;
    private readonly long _length;

    public VhdxReplayedNode(BlockNode file, VhdxLogSequence log)
        : base(file)
    {
        _runs = Flatten(log.Updates);
        _length = Math.Max(Math.Max(file.Length, log.LastFileOffset), _runs.Count == 0 ? 0 : _runs[^1].End);
    }

    public override long Length => _length;

    public override bool IsReadOnly => true;

    public override bool GrowsOnWrite => false;

    protected override async ValueTask ReadCoreAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
    {
        byte[]? sector = null;
        for (int i = FirstEndingAfter(offset); !buffer.IsEmpty; i++)
        {
            long start = i < _runs.Count ? _runs[i].Start : long.MaxValue;
            if (start > offset)
            {
                int below = (int)Math.Min(buffer.Length, start - offset);
                await Below.ReadPaddedAsync(offset, buffer[..below], cancellationToken).ConfigureAwait(false);
                (offset, buffer) = (offset + below, buffer[below..]);
                if (buffer.IsEmpty)
                {
                    return;
                }
            }
            (_, long end, VhdxLoggedUpdate update) = _runs[i];
            int count = (int)Math.Min(buffer.Length, end - offset);
            if (update.DataAt < 0)
            {
                buffer.Span[..count].Clear();
            }
            else
            {
                sector ??= new byte[VhdxLayout.Sector];
                await VhdxReplay.ReadDataAsync(Below, update, sector, cancellationToken).ConfigureAwait(false);
                sector.AsSpan((int)(offset - update.FileOffset), count).CopyTo(buffer.Span);
            }
            (offset, buffer) = (offset + count, buffer[count..]);
        }
    }

    protected override async ValueTask<BlockExtent> GetExtentCoreAsync(long offset, long length, CancellationToken cancellationToken)
    {
        int i = FirstEndingAfter(offset);
        if (i < _runs.Count && _runs[i].Start <= offset)
        {
            BlockStatus what = _runs[i].Update.DataAt < 0 ? BlockStatus.Zero : BlockStatus.Data;
            return new(offset, _runs[i].End - offset, BlockStatus.Allocated | what, this, offset);
        }
        long end = Math.Min(offset + length, i < _runs.Count ? _runs[i].Start : _length);
        if (offset >= Below.Length)
        {
            return new(offset, end - offset, BlockStatus.Allocated | BlockStatus.Zero, this, offset);
        }
        return await Below.GetExtentAsync(offset, Math.Min(end, Below.Length) - offset, cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Index of the first run that ends after an offset.</summary>
    private int FirstEndingAfter(long offset)
    {
        int low = 0, high = _runs.Count;
        while (low < high)
        {
            int middle = (low + high) / 2;
            (low, high) = _runs[middle].End > offset ? (low, middle) : (middle + 1, high);
        }
        return low;
    }

    /// <summary>Sweeps over the updates' starts and ends; of those that cover a place, the newest has it.</summary>
    private static List<(long Start, long End, VhdxLoggedUpdate Update)> Flatten(IReadOnlyList<VhdxLoggedUpdate> updates)
    {
        int[] byStart = [.. Enumerable.Range(0, updates.Count).Where(i => updates[i].Length > 0).OrderBy(i => updates[i].FileOffset)];
        var covering = new PriorityQueue<int, int>(); // newest first
        var runs = new List<(long Start, long End, VhdxLoggedUpdate Update)>();
        int next = 0;
        for (long at = 0; next < byStart.Length || covering.Count > 0;)
        {
            while (covering.TryPeek(out int top, out _) && EndOf(updates[top]) <= at)
            {
                _ = covering.Dequeue();
            }
            if (covering.Count == 0 && next == byStart.Length)
            {
                break;
            }
            at = covering.Count == 0 ? updates[byStart[next]].FileOffset : at;
            while (next < byStart.Length && updates[byStart[next]].FileOffset <= at)
            {
                covering.Enqueue(byStart[next], -byStart[next]);
                next++;
            }
            VhdxLoggedUpdate newest = updates[covering.Peek()];
            long end = EndOf(newest);
            if (end > at && next < byStart.Length)
            {
                end = Math.Min(end, updates[byStart[next]].FileOffset);
            }
            if (end > at)
            {
                Append(runs, at, end, newest);
                at = end;
            }
        }
        return runs;
    }

    private static void Append(List<(long Start, long End, VhdxLoggedUpdate Update)> runs, long start, long end, VhdxLoggedUpdate update)
    {
        if (runs.Count > 0 && runs[^1].End == start && runs[^1].Update == update)
        {
            runs[^1] = (runs[^1].Start, end, update);
            return;
        }
        runs.Add((start, end, update));
    }

    private static long EndOf(in VhdxLoggedUpdate update) => update.FileOffset + update.Length;
}
