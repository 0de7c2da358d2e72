using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Qcow2;

/// <summary>L1 tables as wholes: counting what they lead to once more, letting go of it, setting the flags, switching.</summary>
internal sealed class Qcow2L1Tables(Qcow2Disk disk)
{
    private Qcow2Tables Tables => disk.Tables;

    private Qcow2Geometry Geometry => disk.Geometry;

    /// <summary>The active table's bytes.</summary>
    public byte[] CopyOfActive() => Tables.L1.Bytes.ToArray();

    /// <summary>
    /// Counts everything that an L1 table refers to once more, and clears the "refcount is exactly one" flags of all of it, in the tables
    /// and in <paramref name="l1"/>.
    /// </summary>
    public async ValueTask ShareAsync(MetadataSession.Held held, byte[] l1)
    {
        for (int i = 0; i < l1.Length / 8; i++)
        {
            HostOffset l2 = EntryOf(l1, i);
            if (l2.Value == 0)
            {
                continue;
            }
            Tables.RequireAligned(l2, Geometry.StartOf(i), "L1 entry");
            BigEndian.U64(l1, i * 8, (ulong)l2.Value);
            if (i < Tables.L1.Count && L2Entry.OffsetOf(Tables.L1[i]) == l2.Value && Tables.L1[i] != (ulong)l2.Value)
            {
                Tables.L1[i] = (ulong)l2.Value;
            }
            for (int first = 0; first < Geometry.L2Entries; first += Tables.EntriesPerPiece)
            {
                var used = new Qcow2Ranges(Geometry);
                CachedPiece piece = await PieceAsync(l2, first, i, CancellationToken.None).ConfigureAwait(false);
                Collect(piece, StartOf(i, first), used);
                ClearFlags(held, piece);
                foreach (FileRange range in used.All)
                {
                    await disk.Refcounts.AddAsync(held, new(range.Start), range.Length, +1).ConfigureAwait(false);
                }
            }
            await disk.Refcounts.AddAsync(held, l2, Geometry.ClusterSize, +1).ConfigureAwait(false);
        }
    }

    /// <summary>
    /// The ranges that an L1 table refers to, each as often as it does: what becomes unused once nothing leads to the table.
    /// </summary>
    /// <param name="l1">The table.</param>
    /// <param name="cancellationToken">Stops it.</param>
    /// <param name="onlyLooks">True to look whether all of them can be counted, and return none.</param>
    public async ValueTask<Qcow2Ranges> CollectAsync(byte[] l1, CancellationToken cancellationToken, bool onlyLooks = false)
    {
        var used = new Qcow2Ranges(Geometry);
        for (int i = 0; i < l1.Length / 8; i++)
        {
            HostOffset l2 = EntryOf(l1, i);
            if (l2.Value == 0)
            {
                continue;
            }
            Tables.RequireAligned(l2, Geometry.StartOf(i), "L1 entry");
            for (int first = 0; first < Geometry.L2Entries; first += Tables.EntriesPerPiece)
            {
                Collect(await PieceAsync(l2, first, i, cancellationToken).ConfigureAwait(false), StartOf(i, first), used);
            }
            used.Add(l2, Geometry.ClusterSize);
            if (onlyLooks)
            {
                used.Clear();
            }
        }
        return used;
    }

    /// <summary>Sets the "refcount is exactly one" flags of the active tables where counts went down to one.</summary>
    public async ValueTask RefreshFlagsAsync(MetadataSession.Held held)
    {
        for (int i = Tables.L1.NextUsed(0); i < Tables.L1.Count; i = Tables.L1.NextUsed(i + 1))
        {
            var l2 = new HostOffset(L2Entry.OffsetOf(Tables.L1[i]));
            if (l2.Value == 0 || await disk.Refcounts.GetAsync(l2, CancellationToken.None).ConfigureAwait(false) != 1)
            {
                continue; // a shared table's entries keep their flags clear: they are reached through the other table, too
            }
            if (Tables.L1[i] != L2Entry.Copied(l2))
            {
                Tables.L1[i] = L2Entry.Copied(l2);
            }
            for (int index = 0; index < Geometry.L2Entries; index++)
            {
                CachedPiece piece = await Tables.PieceOfAsync(l2, index).ConfigureAwait(false);
                L2Entry entry = Tables.EntryAt(piece, Tables.IndexInPiece(index));
                if (entry is { IsCompressed: false, HasPlace: true, IsCopied: false }
                    && await disk.Refcounts.GetAsync(entry.Place, CancellationToken.None).ConfigureAwait(false) == 1)
                {
                    Tables.Set(held, piece, Tables.IndexInPiece(index), entry.WithCopied(true));
                }
            }
        }
    }

    /// <summary>Writes an L1 table to a new place, 0 if it has no entries, and makes everything so far durable.</summary>
    /// <param name="held">The lock.</param>
    /// <param name="l1">The table.</param>
    /// <param name="isGrown">True for the active table, which grows.</param>
    public async ValueTask<HostOffset> WriteAsync(MetadataSession.Held held, byte[] l1, bool isGrown = false)
    {
        HostOffset place = default;
        if (l1.Length > 0)
        {
            place = await disk.Allocator.AllocateContiguousAsync(held, Geometry.Clusters(l1.Length)).ConfigureAwait(false);
            await disk.RequireNotMetadataAsync(held, place, l1.Length).ConfigureAwait(false);
            byte[] padded = new byte[Round.Up(l1.Length, Geometry.ClusterSize)];
            l1.CopyTo(padded, 0);
            if (isGrown)
            {
                await disk.TellAsync(DebugEvent.L1GrowWriteTable).ConfigureAwait(false);
            }
            await disk.File.WriteAsync(place.Value, padded).ConfigureAwait(false);
        }
        await disk.Session.Order.FlushAsync(CancellationToken.None).ConfigureAwait(false);
        return place;
    }

    /// <summary>Moves to an active L1 table of at least so many entries; more than the disk needs are allowed.</summary>
    public async ValueTask GrowAsync(MetadataSession.Held held, int entries, CancellationToken cancellationToken)
    {
        PointerTable active = Tables.L1;
        if (entries <= active.Count)
        {
            return;
        }
        await disk.FlushAsync(held, cancellationToken).ConfigureAwait(false);
        byte[] l1 = new byte[entries * 8];
        active.Bytes.CopyTo(l1);
        (HostOffset old, long oldLength) = (Tables.L1Place, active.Count * 8L);
        await disk.TellAsync(DebugEvent.L1GrowAllocTable).ConfigureAwait(false);
        HostOffset place = await WriteAsync(held, l1, isGrown: true).ConfigureAwait(false);
        await disk.TellAsync(DebugEvent.L1GrowActivateTable).ConfigureAwait(false);
        await SwitchAsync(held, place, l1, disk.Header.Size).ConfigureAwait(false);
        disk.Refcounts.FreeAfterFlush(held, old, oldLength); // a table of no entries has no place of its own
    }

    /// <summary>Makes another L1 table, already written, the active one, together with another size.</summary>
    public async ValueTask SwitchAsync(MetadataSession.Held held, HostOffset place, byte[] l1, long size)
    {
        await disk.UpdateHeaderAsync(
            held, disk.Header with { L1TableOffset = place.Value, L1Size = l1.Length / 8, Size = size }).ConfigureAwait(false);
        Tables.L1.Replace(place.Value, l1);
        disk.Guard.Protect(disk.Header, Tables.L1);
    }

    private static HostOffset EntryOf(byte[] l1, int index) => new(L2Entry.OffsetOf(BigEndian.U64(l1, index * 8)));

    private ValueTask<CachedPiece> PieceAsync(HostOffset l2, int first, int l1Index, CancellationToken cancellationToken)
        => Tables.PieceAsync(l2, (long)first * Geometry.L2EntryBytes, Geometry.StartOf(l1Index), cancellationToken);

    /// <summary>The offset of the disk that an entry of the L2 table of an L1 entry stands for.</summary>
    private GuestOffset StartOf(int l1Index, int index) => Geometry.StartOf(l1Index) + ((long)index << Geometry.ClusterBits);

    /// <summary>Adds the host ranges that the entries of a piece refer to.</summary>
    private void Collect(CachedPiece piece, GuestOffset guest, Qcow2Ranges used)
    {
        if (disk.IsExternal)
        {
            return; // what lies in an external data file has no refcounts
        }
        for (int index = 0; index < Tables.EntriesPerPiece; index++, guest += Geometry.ClusterSize)
        {
            L2Entry entry = Tables.EntryAt(piece, index);
            if (entry == default)
            {
                continue;
            }
            (HostOffset place, int length) = entry.IsCompressed
                ? entry.CompressedRange(Geometry.ClusterBits)
                : (entry.Place, Geometry.ClusterSize);
            RequireCountable(entry, guest, place);
            if (place.Value != 0)
            {
                used.Add(place, length);
            }
        }
    }

    /// <summary>Refuses an entry whose refcount cannot be right: a place that the file does not have, or two things at once.</summary>
    private void RequireCountable(L2Entry entry, GuestOffset guest, HostOffset place)
    {
        Tables.RequireSound(entry, guest);
        if (place.Value >= disk.File.Length && disk.RequiresAll)
        {
            throw Qcow2Disk.Missing("cluster", guest, disk.File, place);
        }
    }

    private void ClearFlags(MetadataSession.Held held, CachedPiece piece)
    {
        for (int index = 0; index < Tables.EntriesPerPiece && !disk.IsExternal; index++)
        {
            L2Entry entry = Tables.EntryAt(piece, index);
            if (entry is { IsCompressed: false, HasPlace: true, IsCopied: true })
            {
                Tables.Set(held, piece, index, entry.WithCopied(false));
            }
        }
    }
}
