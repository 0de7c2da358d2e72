using System.Buffers;
using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Qcow2;

/// <summary>
/// Checks an image: counts every reference to every host cluster, then compares with the stored refcounts.
/// Spec: qcow2, "Host cluster management", "Cluster mapping", "Snapshots", "Bitmaps".
/// </summary>
/// <remarks>
/// <para>States. First the references: header, refcount structure, L1 and L2 tables of the disk and of each snapshot, their data,
/// snapshot table, bitmaps. Then the comparison: fewer references than stored is a leak, more is a corruption. Last, since it
/// needs the counts, the "refcount is exactly one" flags of the active tables.</para>
/// <para>It reads the file and no cache, trusts nothing it has not bounded, and changes nothing. What it counted is what a repair
/// would write.</para>
/// </remarks>
internal sealed partial class Qcow2Checker
{
    private const string ActiveL1 = "the active L1 table", L2Table = "an L2 table";

    private readonly BlockNode _file;
    private readonly Qcow2Header _header;
    private readonly Qcow2Geometry _geometry;
    private readonly IProgress<long>? _bytes;
    private readonly CancellationToken _cancellationToken;
    private readonly Dictionary<long, string> _tables = []; // cluster → which table lies there
    private readonly SparseCounters _isTable; // the same, quicker to ask
    private readonly long _fileClusters;
    private readonly bool _external;
    private long _allocated, _compressed, _fragmented, _nextContiguous = -1, _highest = -1;

    public Qcow2Checker(BlockNode file, Qcow2Header header, IProgress<long>? bytes, CancellationToken cancellationToken)
    {
        (_file, _header, _bytes, _cancellationToken) = (file, header, bytes, cancellationToken);
        _geometry = new Qcow2Geometry(header);
        _fileClusters = _geometry.Clusters(file.Length);
        _external = header.Has(Qcow2Incompatible.ExternalDataFile);
        References = new SparseCounters(file.Name);
        _isTable = new SparseCounters(file.Name);
    }

    /// <summary>How often each host cluster is referenced.</summary>
    public SparseCounters References { get; }

    public CheckFindings Findings { get; } = new();

    /// <summary>The refcount table, as far as it could be read.</summary>
    public ulong[] RefcountTable { get; private set; } = [];

    /// <summary>The snapshots, as far as they could be read.</summary>
    public IReadOnlyList<Qcow2Snapshot> Snapshots { get; private set; } = [];

    /// <summary>True if something was found that only building the refcounts anew puts right.</summary>
    public bool NeedsRebuild { get; private set; }

    /// <summary>True if a table could not be read, so that what it refers to was not counted: such space only looks like a leak.</summary>
    public bool HasUncounted { get; private set; }

    /// <summary>Clusters that hold a table and something else as well, so that one of them has to move.</summary>
    public HashSet<long> Overlaps { get; } = [];

    /// <summary>Counts the references of everything but the refcount structure, as a base for a new one.</summary>
    public async ValueTask CountWithoutRefcountsAsync()
    {
        _ = AddTable(0, _geometry.ClusterSize, "the header");
        await CountTablesAsync().ConfigureAwait(false);
    }

    public async ValueTask<CheckReport> RunAsync()
    {
        CheckHeader();
        AddTable(0, _geometry.ClusterSize, "the header");
        await CountRefcountStructureAsync().ConfigureAwait(false);
        await CountTablesAsync().ConfigureAwait(false);
        await CompareRefcountsAsync().ConfigureAwait(false);
        await CheckCopiedFlagsAsync().ConfigureAwait(false);
        return Report();
    }

    private async ValueTask CountTablesAsync()
    {
        await CountL1Async(_header.L1TableOffset, _header.L1Size, ActiveL1, isActive: true).ConfigureAwait(false);
        await CountSnapshotsAsync().ConfigureAwait(false);
        await CountBitmapsAsync().ConfigureAwait(false);
    }

    public CheckReport Report() => new()
    {
        Findings = Findings.List,
        Corruptions = Findings.Corruptions,
        Leaks = Findings.Leaks,
        CheckErrors = Findings.Errors,
        TotalClusters = _geometry.Clusters(_header.Size),
        AllocatedClusters = _allocated,
        CompressedClusters = _compressed,
        FragmentedClusters = _fragmented,
        ImageEndOffset = (_highest + 1) << _geometry.ClusterBits,
    };

    private void CheckHeader()
    {
        if (_header.Has(Qcow2Incompatible.Corrupt))
        {
            Findings.Corruption("MarkedCorrupt", "The image is marked corrupt: a program met a contradiction while writing.", "clear the mark when all else is repaired", host: Qcow2Header.IncompatibleAt);
        }
        if (_header.Has(Qcow2Incompatible.Dirty))
        {
            Findings.Error("Dirty", "The image was not closed properly or never completed: its refcounts may be behind its tables.", Qcow2Header.IncompatibleAt);
        }
        if (_header.Version >= 3 && _header.Extension(Qcow2Extension.FeatureNames) is { Length: var length } && length % 48 != 0)
        {
            Findings.Warning("FeatureNames", $"The feature name table is {length} bytes long; allowed: a multiple of 48.");
        }
    }

    private async ValueTask CountRefcountStructureAsync()
    {
        if (!AddTable(_header.RefcountTableOffset, (long)_header.RefcountTableClusters << _geometry.ClusterBits, "the refcount table") || _header.RefcountTableClusters == 0)
        {
            NeedsRebuild = true;
            return;
        }
        RefcountTable = await ReadTableAsync(_header.RefcountTableOffset, _header.RefcountTableClusters * (_geometry.ClusterSize / 8)).ConfigureAwait(false);
        for (int i = 0; i < RefcountTable.Length; i++)
        {
            if (RefcountTable[i] != 0 && !AddTable((long)RefcountTable[i], _geometry.ClusterSize, $"refcount block {i}"))
            {
                RefcountTable[i] = 0;
                NeedsRebuild = true;
            }
        }
    }

    private async ValueTask CountL1Async(long offset, int entries, string what, bool isActive)
    {
        if (entries == 0 || !AddTable(offset, entries * 8L, what))
        {
            return;
        }
        ulong[] l1 = await ReadTableAsync(offset, entries).ConfigureAwait(false);
        byte[] table = ArrayPool<byte>.Shared.Rent(_geometry.ClusterSize);
        try
        {
            for (int i = 0; i < l1.Length; i++)
            {
                _cancellationToken.ThrowIfCancellationRequested();
                long l2 = L2Entry.OffsetOf(l1[i]), guest = i * _geometry.L2Span;
                if (l2 == 0)
                {
                    if (l1[i] != 0)
                    {
                        ReservedBits("L1", l1[i], guest, offset + (i * 8L), _geometry.L2Span);
                    }
                    continue;
                }
                if ((l1[i] & ~L2Entry.L1Bits) != 0)
                {
                    ReservedBits("L1", l1[i], guest, offset + (i * 8L), _geometry.L2Span);
                }
                if (AddTable(l2, _geometry.ClusterSize, L2Table, guest, isShared: true))
                {
                    await _file.ReadPaddedAsync(l2, table.AsMemory(0, _geometry.ClusterSize), _cancellationToken).ConfigureAwait(false);
                    CountL2(table.AsSpan(0, _geometry.ClusterSize), l2, guest, isActive);
                }
                if (isActive)
                {
                    _bytes?.Report(Math.Min(guest + _geometry.L2Span, _header.Size));
                }
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(table);
        }
    }

    private void CountL2(ReadOnlySpan<byte> table, long tableOffset, long guest, bool isActive)
    {
        ulong end = (ulong)_fileClusters << _geometry.ClusterBits, inCluster = (ulong)_geometry.ClusterSize - 1;
        bool plain = !_geometry.HasSubclusters && !_external;
        for (int i = 0; i < _geometry.L2Entries; i++, guest += _geometry.ClusterSize)
        {
            int at = i * _geometry.L2EntryBytes;
            ulong raw = BigEndian.U64(table, at), host = raw & ~(1UL << 63);
            if (plain && (raw == 0 || (host - 1 < end - 1 && (host & inCluster) == 0 && _isTable[(long)host >> _geometry.ClusterBits] == 0)))
            {
                if (raw != 0) // the usual case: a whole cluster inside the file that is no table
                {
                    _ = References.Add((long)host >> _geometry.ClusterBits);
                    Tally(isActive, (long)host, isCompressed: false);
                }
                continue;
            }
            var entry = new L2Entry(raw, _geometry.HasSubclusters ? BigEndian.U64(table, at + 8) : 0);
            if (entry != default)
            {
                CountEntry(entry, guest, tableOffset + at, isActive);
            }
        }
    }

    private void CountEntry(L2Entry entry, long guest, long at, bool isActive)
    {
        if (entry.IsCompressed)
        {
            (long offset, int length) = entry.CompressedRange(_geometry.ClusterBits);
            if (_external)
            {
                Findings.Corruption("CompressedInDataFile", $"Guest offset {guest:#,0} is compressed, which an image with an external data file cannot have.", "make it read as zeroes", guest, _geometry.ClusterSize, at);
            }
            else
            {
                long inFile = Math.Min(length, Round.Up(_file.Length, _geometry.ClusterSize) - offset); // the last sector may be cut short
                if (inFile <= 0 || entry.IsCopied)
                {
                    Findings.Corruption("CompressedDescriptor", $"The compressed cluster for guest offset {guest:#,0} lies at offset {offset:#,0}, {length} bytes{(entry.IsCopied ? ", and bears the copied flag" : "")}; allowed: inside the file of {_file.Length:#,0} bytes, without the flag.", "make it read as zeroes", guest, _geometry.ClusterSize, at);
                }
                if (inFile > 0)
                {
                    AddData(offset, inFile, guest, at);
                }
            }
            Tally(isActive, -1, isCompressed: true);
            return;
        }
        if (entry != entry.WithoutReserved(_geometry.HasSubclusters))
        {
            ReservedBits("L2", entry.Raw, guest, at, _geometry.ClusterSize);
        }
        if (_geometry.HasSubclusters && ((uint)entry.Bitmap & (uint)(entry.Bitmap >> 32)) != 0)
        {
            Findings.Corruption("SubclusterBitmap", $"The entry for guest offset {guest:#,0} has subclusters that are both stored and zero (bitmap {entry.Bitmap:x16}).", "let them read as zeroes", guest, _geometry.ClusterSize, at);
        }
        if (_header.Version < 3 && (entry.Raw & 1) != 0)
        {
            Findings.Corruption("ZeroInVersion2", $"The entry for guest offset {guest:#,0} is a zero cluster, which version 2 does not have.", "make it unallocated", guest, _geometry.ClusterSize, at);
        }
        if (_geometry.HasSubclusters && entry.HostOffset == 0 && (uint)entry.Bitmap != 0 && !_external)
        {
            Findings.Corruption("SubclusterBitmap", $"The entry for guest offset {guest:#,0} has stored subclusters but no host cluster.", "make them read as zeroes", guest, _geometry.ClusterSize, at);
        }
        if (entry.HostOffset == 0 || _external)
        {
            return;
        }
        if (_geometry.InCluster(entry.HostOffset) != 0)
        {
            Findings.Corruption("Misaligned", $"The entry for guest offset {guest:#,0} points to host offset {entry.HostOffset:#,0}; allowed: multiples of {_geometry.ClusterSize:#,0}.", "make it read as zeroes", guest, _geometry.ClusterSize, at);
            return;
        }
        AddData(entry.HostOffset, _geometry.ClusterSize, guest, at);
        Tally(isActive, entry.HostOffset, isCompressed: false);
    }

    private void ReservedBits(string table, ulong entry, long guest, long at, long length)
        => Findings.Corruption("ReservedBits", $"The {table} entry for guest offset {guest:#,0} is {entry:x16}, with reserved bits set.", "clear them", guest, length, at);

    private void Tally(bool isActive, long host, bool isCompressed)
    {
        if (!isActive)
        {
            return;
        }
        _allocated++;
        if (isCompressed)
        {
            _compressed++;
            _fragmented++; // compressed clusters are fragmented by nature
            return;
        }
        _fragmented += _nextContiguous >= 0 && host != _nextContiguous ? 1 : 0;
        _nextContiguous = host + _geometry.ClusterSize;
    }

    private async ValueTask CountSnapshotsAsync()
    {
        if (_header.SnapshotCount == 0)
        {
            return;
        }
        try
        {
            Snapshots = await Qcow2Snapshot.ReadAllAsync(_file, _header, _cancellationToken).ConfigureAwait(false);
        }
        catch (DiskImageException e)
        {
            HasUncounted = true;
            Findings.Corruption("SnapshotTable", e.Message, host: e.Offset ?? _header.SnapshotsOffset);
            return;
        }
        _ = AddTable(_header.SnapshotsOffset, Qcow2Snapshot.TableLength(Snapshots), "the snapshot table");
        foreach (Qcow2Snapshot snapshot in Snapshots)
        {
            await CountL1Async(snapshot.L1Offset, snapshot.L1Size, $"the L1 table of snapshot '{snapshot.Name}'", isActive: false).ConfigureAwait(false);
        }
    }

    private async ValueTask CountBitmapsAsync()
    {
        Qcow2BitmapDirectory directory;
        try
        {
            directory = await Qcow2BitmapDirectory.ReadAsync(_file, _header, _cancellationToken).ConfigureAwait(false);
        }
        catch (DiskImageException e)
        {
            HasUncounted = true;
            Findings.Corruption("BitmapDirectory", e.Message, host: e.Offset);
            return;
        }
        if (directory.Entries.Count == 0)
        {
            return;
        }
        if ((_header.AutoClear & Qcow2AutoClear.Bitmaps) == Qcow2AutoClear.None)
        {
            Findings.Warning("BitmapsStale", "The image has bitmaps, but was written to by a program that does not know them: they are lost, and what they occupied is leaked or used otherwise.");
            return;
        }
        _ = AddTable(directory.Offset, directory.Length, "the bitmap directory");
        foreach (Qcow2BitmapEntry bitmap in directory.Entries)
        {
            if (!AddTable(bitmap.TableOffset, bitmap.TableSize * 8L, $"the table of bitmap '{bitmap.Name}'"))
            {
                continue;
            }
            foreach (ulong entry in await ReadTableAsync(bitmap.TableOffset, bitmap.TableSize).ConfigureAwait(false))
            {
                long offset = L2Entry.OffsetOf(entry);
                if ((entry & ~(0x00FF_FFFF_FFFF_FE00UL | 1)) != 0 || (offset != 0 && (entry & 1) != 0))
                {
                    Findings.Corruption("BitmapTable", $"Bitmap '{bitmap.Name}' has a table entry {entry:x16} with reserved bits set.", host: bitmap.TableOffset);
                }
                else if (offset != 0)
                {
                    _ = AddTable(offset, _geometry.ClusterSize, $"data of bitmap '{bitmap.Name}'");
                }
            }
        }
    }

    /// <summary>Counts a table's clusters; false, with a finding, if it is out of place.</summary>
    private bool AddTable(long offset, long length, string what, long? guest = null, bool isShared = false)
    {
        bool isAligned = _geometry.InCluster(offset) == 0 && offset >= 0;
        bool isInside = offset <= _file.Length && length <= (_fileClusters << _geometry.ClusterBits) - offset;
        HasUncounted |= !isAligned || !isInside;
        if (!isAligned)
        {
            Findings.Corruption("Misaligned", $"{Capital(what)} is at host offset {offset:#,0}; allowed: multiples of {_geometry.ClusterSize:#,0}.", guest is null ? null : "drop it: its range becomes unallocated", guest, guest is null ? null : _geometry.L2Span, offset);
            return false;
        }
        if (!isInside)
        {
            Findings.Corruption("OutOfFile", $"{Capital(what)} is at host offset {offset:#,0}, {length:#,0} bytes; the file ends at {_file.Length:#,0}.", guest is null ? null : "drop it: its range becomes unallocated", guest, guest is null ? null : _geometry.L2Span, offset);
            return false;
        }
        for (long cluster = offset >> _geometry.ClusterBits; cluster < _geometry.Clusters(offset + length); cluster++)
        {
            ulong count = References.Add(cluster);
            _ = _isTable.Add(cluster);
            string? there = _tables.TryAdd(cluster, what) ? (count > 1 ? "guest data" : null) : _tables[cluster];
            if (there is not null && !(isShared && ReferenceEquals(there, what)))
            {
                _ = Overlaps.Add(cluster);
                NeedsRebuild |= IsRefcount(what) || IsRefcount(there);
                Findings.Corruption("Overlap", $"{Capital(what)} at host offset {cluster << _geometry.ClusterBits:#,0} lies on {there}.", "move it to a place of its own", guest, host: cluster << _geometry.ClusterBits);
            }
        }
        return true;

        static string Capital(string text) => char.ToUpperInvariant(text[0]) + text[1..];
    }

    private void AddData(long offset, long length, long guest, long at)
    {
        if (length > (_fileClusters << _geometry.ClusterBits) - offset)
        {
            Findings.Corruption("OutOfFile", $"The data for guest offset {guest:#,0} is at host offset {offset:#,0}; the file ends at {_file.Length:#,0}.", "make it read as zeroes", guest, _geometry.ClusterSize, at);
            return;
        }
        for (long cluster = offset >> _geometry.ClusterBits; cluster < _geometry.Clusters(offset + length); cluster++)
        {
            _ = References.Add(cluster);
            if (_isTable[cluster] != 0 && _tables.TryGetValue(cluster, out string? table))
            {
                _ = Overlaps.Add(cluster);
                NeedsRebuild |= IsRefcount(table);
                Findings.Corruption("Overlap", $"The data for guest offset {guest:#,0} lies on {table} at host offset {cluster << _geometry.ClusterBits:#,0}.", "move the table to a place of its own", guest, _geometry.ClusterSize, at);
            }
        }
    }

    private static bool IsRefcount(string what) => what.Contains("refcount", StringComparison.Ordinal);

    private bool IsTable(long offset, string what) => ReferenceEquals(_tables.GetValueOrDefault(offset >> _geometry.ClusterBits), what);

    private async ValueTask<ulong[]> ReadTableAsync(long offset, int entries)
    {
        byte[] bytes = new byte[entries * 8];
        await _file.ReadPaddedAsync(offset, bytes, _cancellationToken).ConfigureAwait(false);
        var table = new ulong[entries];
        for (int i = 0; i < entries; i++)
        {
            table[i] = BigEndian.U64(bytes, i * 8);
        }
        return table;
    }
}
