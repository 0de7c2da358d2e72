using System.Buffers;
using DiskImage.Binary;
using DiskImage.Block;

namespace DiskImage.Formats.Vhdx;

/// <summary>
/// Writes the log of one session: metadata goes there first, then to its place. Spec: MS-VHDX 2.3.
/// </summary>
/// <remarks>
/// <para>Order, per entry: flush the file (guest data that the metadata will point to, and the former entry's updates, are then
/// durable); write the entry; flush; apply. So only the newest entry is ever needed, and each names itself as its tail.</para>
/// <para>Nothing is flushed after the apply: the next entry, or the end of the session, does. An entry takes half of the ring at
/// most, so writing one never touches the one before it: a torn entry leaves its predecessor whole, whose replay repeats what
/// is in place already.</para>
/// <para>Not thread-safe: the image's metadata lock guards it.</para>
/// </remarks>
internal sealed class VhdxLog
{
    private const int MaxEntry = VhdxLayout.MiB; // bounds memory; ours

    private readonly BlockNode _file;
    private readonly long _offset, _length;
    private readonly int _maxEntry;
    private long _head;
    private ulong _sequence;
    private VhdxLogUpdate[] _unapplied = [];

    public VhdxLog(BlockNode file, VhdxHeader header)
    {
        (_file, _offset, _length) = (file, header.LogOffset, header.LogLength);
        Id = NewIdentity.Of("vhdx log", header.FileWriteGuid);
        _maxEntry = (int)Math.Min(MaxEntry, header.LogLength / 2);
        MostSectors = VhdxLogEntry.MostUpdates(_maxEntry);
    }

    /// <summary>What the session's entries are marked with.</summary>
    public Guid Id { get; }

    /// <summary>Sectors that one entry can update, and that so change together or not at all.</summary>
    public int MostSectors { get; }

    /// <summary>The first entry, which says nothing: from then on the header may name the log.</summary>
    public ValueTask BeginAsync() => AppendAsync([], Round.Down(_file.Length, VhdxLayout.MiB), Round.Up(_file.Length, VhdxLayout.MiB));

    /// <summary>
    /// Makes updates durable in the given order: as many at a time as fit into an entry change together. What was written to the
    /// file before is durable before any of them.
    /// </summary>
    public async ValueTask WriteAsync(IReadOnlyList<VhdxLogUpdate> updates)
    {
        for (int done = 0; done < updates.Count;)
        {
            VhdxLogUpdate[] part = [.. updates.Skip(done).Take(MostSectors)];
            await FlushAsync().ConfigureAwait(false);
            await AppendAsync(part, Round.Down(_file.Length, VhdxLayout.MiB), Round.Up(_file.Length, VhdxLayout.MiB)).ConfigureAwait(false);
            try
            {
                await ApplyAsync(part).ConfigureAwait(false);
            }
            catch
            {
                _unapplied = [.. part.Select(u => u with { Data = u.Data.ToArray() })]; // the caller's buffers will change
                throw;
            }
            done += part.Length;
        }
    }

    /// <summary>Everything written to the file is durable when this returns.</summary>
    public async ValueTask FlushAsync()
    {
        await ApplyAsync(_unapplied).ConfigureAwait(false); // what a failure left undone
        _unapplied = [];
        await _file.FlushAsync().ConfigureAwait(false);
    }

    /// <summary>
    /// Says in the log that the file will have this length, so that a shorter file is not taken for a damaged one. Spec: 2.3.1.1.
    /// </summary>
    public async ValueTask AnnounceLengthAsync(long length)
    {
        await FlushAsync().ConfigureAwait(false);
        await AppendAsync([], length, length).ConfigureAwait(false);
    }

    private async ValueTask AppendAsync(VhdxLogUpdate[] updates, long flushedFileOffset, long lastFileOffset)
    {
        int length = VhdxLogEntry.LengthOf(updates);
        byte[] rented = ArrayPool<byte>.Shared.Rent(length);
        try
        {
            Memory<byte> entry = rented.AsMemory(0, length);
            var header = new VhdxLogEntryHeader(
                (uint)length, (uint)_head, _sequence + 1, (uint)updates.Length, Id, (ulong)flushedFileOffset, (ulong)lastFileOffset);
            VhdxLogEntry.Build(entry.Span, header, updates);
            int first = (int)Math.Min(length, _length - _head);
            await _file.WriteAsync(_offset + _head, entry[..first]).ConfigureAwait(false);
            if (first < length)
            {
                await _file.WriteAsync(_offset, entry[first..]).ConfigureAwait(false);
            }
            await _file.FlushAsync().ConfigureAwait(false);
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(rented);
        }
        _head = (_head + length) % _length;
        _sequence++;
    }

    private async ValueTask ApplyAsync(VhdxLogUpdate[] updates)
    {
        foreach (VhdxLogUpdate update in updates)
        {
            if (update.IsZero)
            {
                await _file.WriteZeroesAsync(update.FileOffset, update.Length).ConfigureAwait(false);
            }
            else
            {
                await _file.WriteAsync(update.FileOffset, update.Data).ConfigureAwait(false);
            }
        }
    }
}
