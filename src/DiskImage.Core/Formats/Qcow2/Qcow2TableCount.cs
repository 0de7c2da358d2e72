using System.Buffers;
using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Qcow2;

/// <summary>Counts the references of L1 and L2 tables. Spec: qcow2, "Cluster mapping".</summary>
/// <remarks>
/// L1 tables come first. The L2 tables they lead to are read when all of them are known, each once however many lead to it: so the time
/// follows what the file holds, not what its tables claim.
/// </remarks>
internal sealed class Qcow2TableCount(Qcow2Census census, IProgress<long>? bytes)
{
    /// <summary>Bytes of compressed clusters that are noted at most: a check need not take as long as reading the disk. Ours.</summary>
    private const long MaxUnpacked = 64 << 20;

    private readonly List<L2Use> _uses = []; // in the order in which they were met: the active ones first
    private readonly Dictionary<long, int> _usesOf = []; // offset of an L2 table → index in _uses
    private readonly int _neededL1 = (int)census.Geometry.L1EntriesFor(census.Header.Size);
    private readonly int _clusterSize = census.Geometry.ClusterSize;
    private long _nextContiguous = -1;

    /// <summary>Clusters that L1 entries past the end of the disk lead to.</summary>
    public HashSet<long> Beyond { get; } = [];

    /// <summary>Compressed clusters, each place once, with the guest offset and the place of an entry that leads there.</summary>
    public Dictionary<L2Entry, (long Guest, long At)> Packed { get; } = [];

    /// <summary>Entries of the active tables that store something.</summary>
    public long Allocated { get; private set; }

    public long Compressed { get; private set; }

    public long Fragmented { get; private set; }

    private CheckFindings Findings => census.Findings;

    private Qcow2Geometry Geometry => census.Geometry;

    private BlockNode File => census.File;

    /// <summary>Counts an L1 table and the L2 tables it leads to.</summary>
    public async ValueTask CountL1Async(long offset, int entries, string what, bool isActive)
    {
        bool isTaken = !isActive && census.HoldsTable(offset, entries * 8L);
        if (entries == 0 || !census.AddTable(offset, entries * 8L, what, repair: isActive ? null : Qcow2SnapshotCheck.DropUnreadable))
        {
            return;
        }
        if (isTaken)
        {
            census.HasUncounted = true; // it is another table, not this one
            return;
        }
        census.RequireEntries(offset, (isActive ? Math.Min(entries, _neededL1) : entries) * 8L, what);
        ulong[] l1 = await census.ReadTableAsync(offset, entries).ConfigureAwait(false);
        for (int i = 0; i < l1.Length; i++)
        {
            census.CancellationToken.ThrowIfCancellationRequested();
            CountL1Entry(l1[i], i, offset + (i * 8L), isActive);
        }
    }

    /// <summary>Reads the L2 tables that were met, and counts what they lead to.</summary>
    public async ValueTask CountL2Async()
    {
        byte[] table = ArrayPool<byte>.Shared.Rent(Geometry.ClusterSize);
        try
        {
            foreach (L2Use use in _uses)
            {
                census.CancellationToken.ThrowIfCancellationRequested();
                long needed = Math.Clamp(
                    Geometry.Clusters(census.Header.Size - use.Guest) * Geometry.L2EntryBytes, 0, Geometry.ClusterSize);
                census.RequireEntries(use.Offset, needed, Qcow2Census.L2Table, use.Guest);
                await File.ReadPaddedAsync(
                    use.Offset, table.AsMemory(0, Geometry.ClusterSize), census.CancellationToken).ConfigureAwait(false);
                CountL2(table.AsSpan(0, Geometry.ClusterSize), use);
                if (use.IsActive)
                {
                    bytes?.Report(Math.Min(use.Guest + Geometry.L2Span, census.Header.Size));
                }
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(table);
        }
    }

    private void CountL1Entry(ulong entry, int index, long at, bool isActive)
    {
        long l2 = L2Entry.OffsetOf(entry), guest = index * Geometry.L2Span;
        if ((entry & ~(l2 == 0 ? 0 : L2Entry.L1Bits)) != 0)
        {
            census.ReservedBits("L1", entry, guest, at, Geometry.L2Span);
        }
        if (isActive && l2 != 0 && index >= _neededL1)
        {
            _ = Beyond.Add(l2 >> Geometry.ClusterBits);
        }
        if (l2 == 0 || !census.AddTable(l2, Geometry.ClusterSize, Qcow2Census.L2Table, guest, isShared: true))
        {
            return;
        }
        if (_usesOf.TryAdd(l2, _uses.Count))
        {
            _uses.Add(new(l2, guest, isActive));
        }
        else
        {
            _uses[_usesOf[l2]].Times++;
        }
    }

    private void CountL2(ReadOnlySpan<byte> table, L2Use use)
    {
        // A check of a million entries is this loop, so what it asks for stands in locals.
        SparseCounters references = census.References;
        int bits = Geometry.ClusterBits, clusterSize = Geometry.ClusterSize;
        int bytesOfEntry = Geometry.L2EntryBytes, entries = Geometry.L2Entries;
        ulong end = (ulong)census.FileClusters << bits, inCluster = (ulong)clusterSize - 1;
        bool hasSubclusters = Geometry.HasSubclusters, plain = !hasSubclusters && !census.IsExternal;
        long guest = use.Guest;
        for (int i = 0, at = 0; i < entries; i++, at += bytesOfEntry, guest += clusterSize)
        {
            ulong raw = BigEndian.U64(table, at), host = raw & ~(1UL << 63);
            if (plain && raw == 0)
            {
                continue;
            }
            if (plain && host - 1 < end - 1 && (host & inCluster) == 0)
            {
                // Whole clusters inside the file, one after the other. What is no table is counted together.
                int run = (int)Math.Min((ulong)L2Entry.RunIn(table, i, raw, clusterSize), (end - host) >> bits);
                if (use.Times == 1 && census.HoldsNoTable((long)host >> bits, run))
                {
                    references.AddRun((long)host >> bits, run);
                    Tally(use.IsActive, (long)host, run);
                    (i, at, guest) = (i + run - 1, at + ((run - 1) * bytesOfEntry), guest + ((run - 1L) * clusterSize));
                    continue;
                }
            }
            var entry = new L2Entry(raw, hasSubclusters ? BigEndian.U64(table, at + 8) : 0);
            if (entry != default)
            {
                CountEntry(entry, guest, use.Offset + at, use);
            }
        }
    }

    private void CountEntry(L2Entry entry, long guest, long at, L2Use use)
    {
        if (entry.IsCompressed)
        {
            CountCompressed(entry, guest, at, use);
            return;
        }
        if (entry != entry.WithoutReserved(Geometry.HasSubclusters))
        {
            census.ReservedBits("L2", entry.Raw, guest, at, Geometry.ClusterSize);
        }
        if (entry.Fault(Geometry.HasSubclusters, census.IsExternal) is { } fault)
        {
            Findings.Corruption(
                "SubclusterBitmap", $"The entry for guest offset {guest:#,0} {fault}.",
                "let them read as zeroes", guest, Geometry.ClusterSize, at);
        }
        if (census.Header.Version < 3 && (entry.Raw & 1) != 0)
        {
            Findings.Corruption(
                "ZeroInVersion2", $"The entry for guest offset {guest:#,0} is a zero cluster, which version 2 does not have.",
                "make it unallocated", guest, Geometry.ClusterSize, at);
        }
        bool isNowhere = !entry.HasPlace && !(census.IsExternal && entry.IsCopied); // offset 0 is a place in an external data file only
        if (isNowhere)
        {
            return;
        }
        if (census.IsExternal)
        {
            CheckInDataFile(entry, guest, at);
            return;
        }
        if (Geometry.InCluster(entry.Place) != 0)
        {
            Findings.Corruption(
                "Misaligned",
                $"The entry for guest offset {guest:#,0} points to host offset {entry.Place.Value:#,0}; allowed:"
                    + $" multiples of {Geometry.ClusterSize:#,0}.",
                "make it read as zeroes", guest, Geometry.ClusterSize, at);
            return;
        }
        census.AddData(entry.Place.Value, Geometry.ClusterSize, guest, at, use.Times);
        Tally(use.IsActive, entry.Place.Value, 1);
    }

    private void CountCompressed(L2Entry entry, long guest, long at, L2Use use)
    {
        if (entry.Bitmap != 0)
        {
            Findings.Corruption(
                "SubclusterBitmap", $"The compressed cluster for guest offset {guest:#,0} has the subcluster bitmap {entry.Bitmap:x16};"
                    + $" allowed: 0.",
                "clear it", guest, Geometry.ClusterSize, at);
        }
        if (census.IsExternal)
        {
            Findings.Corruption(
                "CompressedInDataFile", $"Guest offset {guest:#,0} is compressed, which an image with an external data file cannot have.",
                "make it read as zeroes", guest, Geometry.ClusterSize, at);
        }
        else
        {
            (HostOffset place, int length) = entry.CompressedRange(Geometry.ClusterBits);
            CheckDescriptor(entry, place.Value, length, guest, at);
            long inFile = Math.Min(length, Round.Up(File.Length, Geometry.ClusterSize) - place.Value); // the last sector may be cut short
            if (inFile > 0)
            {
                census.AddData(place.Value, inFile, guest, at, use.Times);
            }
            if (place.Value < File.Length && Packed.Count << Geometry.ClusterBits < MaxUnpacked)
            {
                _ = Packed.TryAdd(entry.WithCopied(false), (guest, at));
            }
        }
        TallyCompressed(use.IsActive);
    }

    private void CheckDescriptor(L2Entry entry, long offset, int length, long guest, long at)
    {
        if (offset >= File.Length || entry.IsCopied)
        {
            Findings.Corruption(
                "CompressedDescriptor",
                $"The compressed cluster for guest offset {guest:#,0} lies at offset {offset:#,0}, {length} bytes"
                    + $"{(entry.IsCopied ? ", and bears the copied flag" : "")}; allowed: inside the file of {File.Length:#,0} bytes,"
                    + $" without the flag.",
                "make it read as zeroes", guest, Geometry.ClusterSize, at);
        }
        else if (entry.CompressedWithin(File.Length, Geometry.ClusterBits) != entry)
        {
            Findings.Corruption(
                "CompressedDescriptor",
                $"The compressed cluster for guest offset {guest:#,0} lies at offset {offset:#,0}, {length} bytes, and the file ends at"
                    + $" {File.Length:#,0}; allowed: less than a cluster of {Geometry.ClusterSize:#,0} bytes past it.",
                "make its length end with the file", guest, Geometry.ClusterSize, at);
        }
    }

    /// <summary>
    /// A cluster in an external data file has the offset that the guest has. Spec: "Header", bit 2 of incompatible_features.
    /// </summary>
    private void CheckInDataFile(L2Entry entry, long guest, long at)
    {
        bool holdsData = Geometry.HasSubclusters ? (uint)entry.Bitmap != 0 : (entry.Raw & 1) == 0;
        if (entry.Place.Value != guest)
        {
            Findings.Corruption(
                "Misplaced",
                $"The entry for guest offset {guest:#,0} points to offset {entry.Place.Value:#,0} of the external data file; allowed:"
                    + $" the same offset.",
                "point it there", guest, Geometry.ClusterSize, at);
        }
        else if (holdsData && guest >= census.DataLength)
        {
            bool isRaw = (census.Header.AutoClear & Qcow2AutoClear.RawExternalData) != Qcow2AutoClear.None;
            Findings.Corruption(
                "OutOfFile", $"The data for guest offset {guest:#,0} is past the end of the external data file,"
                    + $" at {census.DataLength:#,0}.",
                isRaw ? null : "make it read as zeroes", guest, Geometry.ClusterSize, at);
        }
    }

    /// <summary>Counts clusters that follow each other in the file.</summary>
    private void Tally(bool isActive, long host, int count)
    {
        if (isActive)
        {
            Allocated += count;
            Fragmented += _nextContiguous >= 0 && host != _nextContiguous ? 1 : 0;
            _nextContiguous = host + ((long)count * _clusterSize);
        }
    }

    private void TallyCompressed(bool isActive)
    {
        int count = isActive ? 1 : 0;
        Allocated += count;
        Compressed += count;
        Fragmented += count; // compressed clusters are fragmented by nature
    }

    /// <summary>An L2 table, the guest offset of the first L1 entry that leads to it, and how many do.</summary>
    private sealed class L2Use(long offset, long guest, bool isActive)
    {
        public long Offset { get; } = offset;

        public long Guest { get; } = guest;

        public bool IsActive { get; } = isActive;

        public ulong Times { get; set; } = 1;
    }
}
