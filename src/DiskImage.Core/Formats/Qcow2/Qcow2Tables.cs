using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Qcow2;

/// <summary>The active tables: guest offset → L1 entry → piece of an L2 table → entry. Spec: qcow2, "Cluster mapping".</summary>
/// <remarks>The session's lock guards it.</remarks>
internal sealed class Qcow2Tables
{
    private const int MaxPieceBytes = 64 << 10; // of an L2 table, per cache entry. Ours
    private const int MaxSharedTables = 32 << 10; // L1 entries that lead to a table of another: a repair may leave some. Ours

    private readonly Qcow2Disk _disk;

    /// <summary>Declares the stores of both, behind those of the refcounts.</summary>
    public Qcow2Tables(Qcow2Disk disk, long cacheBytes)
    {
        _disk = disk;
        L2 = new MetadataCache(disk.Session.Order, Math.Min(disk.Geometry.ClusterSize, MaxPieceBytes), cacheBytes)
        {
            Events = (DebugEvent.L2Load, DebugEvent.L2Update),
        };
        L1 = new PointerTable(disk.Session.Order) { Events = (DebugEvent.None, DebugEvent.L1Update) };
    }

    /// <summary>The pieces of L2 tables that were used last.</summary>
    public MetadataCache L2 { get; }

    /// <summary>The active L1 table.</summary>
    public PointerTable L1 { get; }

    public HostOffset L1Place => new(L1.HostOffset);

    /// <summary>Entries in a piece of an L2 table.</summary>
    public int EntriesPerPiece => L2.PieceSize / Geometry.L2EntryBytes;

    private Qcow2Geometry Geometry => _disk.Geometry;

    private BlockNode File => _disk.File;

    /// <summary>Refuses an L1 table that cannot be one: it is not in the file, or leads to more tables than the file can hold.</summary>
    public void RequireRoot()
    {
        long needed = Geometry.L1EntriesFor(_disk.Header.Size), most = Geometry.Clusters(File.Length) + MaxSharedTables;
        if (needed > 0 && (L1.HostOffset == 0 || L1.HostOffset >= File.Length))
        {
            throw _disk.Corrupt(
                $"the L1 table is at host offset {L1.HostOffset:#,0}; allowed:"
                    + $" a place behind the header and inside the file of {File.Length:#,0} bytes",
                L1.HostOffset);
        }
        long used = 0;
        for (int i = L1.NextUsed(0); i < L1.Count && used <= most; i = L1.NextUsed(i + 1))
        {
            used++;
        }
        if (used > most)
        {
            throw _disk.Corrupt(
                $"the L1 table has more than {most:#,0} entries;"
                    + $" a file of {File.Length:#,0} bytes cannot hold so many L2 tables", L1.HostOffset);
        }
    }

    /// <summary>The L1 entry of an offset, which the file must have.</summary>
    public ulong L1Entry(GuestOffset guest)
    {
        int index = Geometry.L1Index(guest);
        ulong entry = L1[index];
        return entry != 0 || index < L1.Stored || !_disk.RequiresAll ? entry : throw Qcow2Disk.Missing("L1 table", guest, File, L1Place);
    }

    /// <summary>Where a run of ranges without an L2 table ends, or what the file has of the L1 table.</summary>
    public GuestOffset EndOfUnmapped(int l1Index)
    {
        int next = L1.NextUsed(l1Index);
        return Geometry.StartOf(l1Index < L1.Stored ? Math.Min(next, L1.Stored) : next);
    }

    /// <summary>The piece of the L2 table that maps an offset; null if the table is missing.</summary>
    public ValueTask<CachedPiece?> PieceAsync(GuestOffset guest, CancellationToken cancellationToken)
    {
        var table = new HostOffset(L2Entry.OffsetOf(L1Entry(guest)));
        if (table.Value == 0)
        {
            return default;
        }
        RequireAligned(table, guest, "L1 entry");
        return PieceAsync(table, PieceStart(guest), guest, cancellationToken)!;
    }

    /// <summary>A piece of an L2 table; what the disk needs of it must be in the file.</summary>
    /// <param name="table">Where the table is.</param>
    /// <param name="start">Where in it the piece begins.</param>
    /// <param name="guest">Any offset that the table maps.</param>
    /// <param name="cancellationToken">Stops the wait.</param>
    public ValueTask<CachedPiece> PieceAsync(HostOffset table, long start, GuestOffset guest, CancellationToken cancellationToken)
    {
        long place = table.Value + start;
        if (place + L2.PieceSize > File.Length && _disk.RequiresAll && !L2.Holds(place))
        {
            long first = (guest.Value & -Geometry.L2Span) + (start / Geometry.L2EntryBytes << Geometry.ClusterBits);
            long needed = Math.Clamp(Geometry.Clusters(_disk.Length - first) * Geometry.L2EntryBytes, 0, L2.PieceSize);
            if (place + needed > File.Length)
            {
                throw Qcow2Disk.Missing("L2 table", guest, File, table);
            }
        }
        return L2.GetAsync(place, cancellationToken);
    }

    /// <summary>The piece of an L2 table that holds an entry, wherever its table stands.</summary>
    public ValueTask<CachedPiece> PieceOfAsync(HostOffset table, int index)
        => L2.GetAsync(table.Value + Round.Down((long)index * Geometry.L2EntryBytes, L2.PieceSize), CancellationToken.None);

    /// <summary>The piece of the L2 table that maps an offset, in a table that is this disk's own: made or unshared if need be.</summary>
    public async ValueTask<CachedPiece> WritablePieceAsync(MetadataSession.Held held, GuestOffset guest)
    {
        ulong entry = L1Entry(guest);
        var old = new HostOffset(L2Entry.OffsetOf(entry));
        if (old.Value == 0 || (entry & L2Entry.Copied(default)) == 0)
        {
            RequireAligned(old, guest, "L1 entry");
            (HostOffset table, _) = await _disk.Allocator.AllocateAsync(held, 1).ConfigureAwait(false);
            try
            {
                await _disk.RequireNotMetadataAsync(held, table, Geometry.ClusterSize).ConfigureAwait(false);
                if (old.Value != 0)
                {
                    await _disk.TellAsync(DebugEvent.L2AllocCowRead).ConfigureAwait(false);
                }
                await FillAsync(held, table, old, guest).ConfigureAwait(false);
                await _disk.TellAsync(DebugEvent.L2AllocWrite).ConfigureAwait(false);
            }
            catch
            {
                await _disk.Refcounts.AddAsync(held, table, Geometry.ClusterSize, -1).ConfigureAwait(false);
                throw;
            }
            L1[Geometry.L1Index(guest)] = L2Entry.Copied(table);
            _disk.Guard.AddTable(table);
            if (old.Value != 0)
            {
                _disk.Refcounts.FreeAfterFlush(held, old, Geometry.ClusterSize);
            }
        }
        return (await PieceAsync(guest, CancellationToken.None).ConfigureAwait(false))!;
    }

    /// <summary>Makes a new L2 table: a copy of another, which maps an offset, or of nothing if that is at 0.</summary>
    public async ValueTask FillAsync(MetadataSession.Held held, HostOffset table, HostOffset from, GuestOffset guest)
    {
        _disk.Session.Require(held);
        L2.Forget(table.Value, Geometry.ClusterSize);
        try
        {
            for (long at = 0; at < Geometry.ClusterSize; at += L2.PieceSize)
            {
                // In this order: reading a piece may write back all that are changed, and a new one must not go with them before it is
                // filled.
                CachedPiece? source = from.Value == 0
                    ? null
                    : await PieceAsync(from, at, guest, CancellationToken.None).ConfigureAwait(false);
                CachedPiece target = await L2.GetNewAsync(table.Value + at).ConfigureAwait(false);
                source?.Bytes.CopyTo(target.Bytes, 0);
            }
        }
        catch
        {
            L2.Forget(table.Value, Geometry.ClusterSize);
            throw;
        }
    }

    /// <summary>Index of an offset's entry in its piece.</summary>
    public int IndexOf(GuestOffset guest) => IndexInPiece(Geometry.L2Index(guest));

    /// <summary>Index in its piece of an entry of a table.</summary>
    public int IndexInPiece(int index) => index & (EntriesPerPiece - 1);

    public L2Entry EntryAt(CachedPiece piece, int index)
    {
        L2Entry entry = _disk.Geometry.HasSubclusters
            ? new(BigEndian.U64(piece.Bytes, index * 16), BigEndian.U64(piece.Bytes, (index * 16) + 8))
            : new(BigEndian.U64(piece.Bytes, index * 8));
        bool isNowhere = entry is { HasPlace: false, IsCompressed: false, IsCopied: true } && !_disk.IsExternal;
        return isNowhere ? entry.WithCopied(false) : entry; // offset 0 is a place in an external data file only
    }

    public void Set(MetadataSession.Held held, CachedPiece piece, int index, L2Entry entry)
    {
        _disk.Session.Require(held);
        BigEndian.U64(piece.Bytes, index * Geometry.L2EntryBytes, entry.Raw);
        if (Geometry.HasSubclusters)
        {
            BigEndian.U64(piece.Bytes, (index * 16) + 8, entry.Bitmap);
        }
        L2.Changed(piece, index * Geometry.L2EntryBytes, Geometry.L2EntryBytes);
    }

    /// <summary>
    /// Refuses an entry by which nothing can be read or written: misplaced, or with subclusters that contradict each other.
    /// </summary>
    public void RequireSound(L2Entry entry, GuestOffset guest)
    {
        if (entry.Fault(Geometry.HasSubclusters, _disk.IsExternal) is { } fault)
        {
            throw _disk.Corrupt($"the L2 entry for guest offset {guest.Value:#,0} {fault}", entry.Place.Value);
        }
        if (entry.IsCompressed || !entry.HasPlace)
        {
            return;
        }
        RequireAligned(entry.Place, guest, "L2 entry");
        if (_disk.IsExternal && entry.Place.Value != Geometry.ClusterStart(guest).Value)
        {
            throw _disk.Corrupt(
                $"the L2 entry for guest offset {guest.Value:#,0} points to offset {entry.Place.Value:#,0} of the external data file;"
                    + $" allowed: {Geometry.ClusterStart(guest).Value:#,0}, where the guest has it",
                entry.Place.Value);
        }
    }

    public void RequireAligned(HostOffset place, GuestOffset guest, string what)
    {
        if (Geometry.InCluster(place) != 0)
        {
            throw _disk.Corrupt(
                $"the {what} for guest offset {guest.Value:#,0} points to host offset {place.Value:#,0}; allowed:"
                    + $" multiples of {Geometry.ClusterSize:#,0}", place.Value);
        }
    }

    /// <summary>An entry was replaced: its host space goes once that is durable.</summary>
    public void FreeData(MetadataSession.Held held, L2Entry old, ulong times = 1)
    {
        if (old.IsCompressed)
        {
            (HostOffset place, int length) = old.CompressedRange(Geometry.ClusterBits);
            _disk.Refcounts.FreeAfterFlush(held, place, length, times);
        }
        else if (old.HasPlace && !_disk.IsExternal)
        {
            _disk.Refcounts.FreeAfterFlush(held, old.Place, Geometry.ClusterSize, times);
        }
    }

    /// <summary>Byte offset, in its L2 table, of the piece that maps an offset.</summary>
    private long PieceStart(GuestOffset guest) => Round.Down((long)Geometry.L2Index(guest) * Geometry.L2EntryBytes, L2.PieceSize);
}
