using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Qcow2;

/// <summary>
/// Checks an image: counts every reference to every host cluster, then compares with the stored refcounts.
/// Spec: qcow2, "Host cluster management", "Cluster mapping", "Snapshots", "Bitmaps".
/// </summary>
/// <remarks>
/// <para>States. First the tables: header, refcount structure, L1 tables of the disk and of each snapshot, snapshot table, bitmaps.
/// Then the L2 tables they lead to, each read once however many lead to it, and the data. Then the comparison: fewer references
/// than stored is a leak, more is a corruption. Last, since it needs the counts, the "refcount is exactly one" flags of the active
/// tables. So the time follows what the file holds, not what its tables claim.</para>
/// <para>It reads the file and no cache, trusts nothing it has not bounded, and changes nothing. What it counted is what a repair
/// would write.</para>
/// </remarks>
internal sealed partial class Qcow2Checker
{
    private const string Header = "the header", GuestData = "guest data", ActiveL1 = "the active L1 table", L2Table = "an L2 table", RebuildRefcounts = "build the refcounts anew";
    private const string RefcountTableName = "the refcount table", RefcountBlocks = "a refcount block", BitmapDirectory = "the bitmap directory";

    private readonly BlockNode _file;
    private readonly Qcow2Header _header;
    private readonly Qcow2Geometry _geometry;
    private readonly IProgress<long>? _bytes;
    private readonly CancellationToken _cancellationToken;
    private readonly Dictionary<long, string> _tables = []; // cluster → which table lies there
    private readonly SparseCounters _isTable; // the same, quicker to ask
    private readonly long _fileClusters;
    private readonly bool _external;
    private readonly long? _dataLength; // of the external data file
    private long _allocated, _compressed, _fragmented, _nextContiguous = -1, _highest = -1;

    /// <summary>A check of a file.</summary>
    /// <param name="file">The image's file.</param>
    /// <param name="header">Its header.</param>
    /// <param name="bytes">Told how many bytes of the virtual disk are looked at.</param>
    /// <param name="cancellationToken">Stops the check.</param>
    /// <param name="dataFile">The external data file, if the image has one and it is at hand.</param>
    public Qcow2Checker(BlockNode file, Qcow2Header header, IProgress<long>? bytes, CancellationToken cancellationToken, BlockNode? dataFile = null)
    {
        (_file, _header, _bytes, _cancellationToken, _dataLength) = (file, header, bytes, cancellationToken, dataFile?.Length);
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

    /// <summary>True if something was found that only building the refcounts anew puts right.</summary>
    public bool NeedsRebuild { get; private set; }

    /// <summary>True if a table could not be read, so that what it refers to was not counted: such space only looks like a leak.</summary>
    public bool HasUncounted { get; private set; }

    /// <summary>
    /// Why the active L1 table cannot be what the image was last written with; null if nothing speaks against it. While that is so, what
    /// nothing refers to may be the disk's data.
    /// </summary>
    public string? RootFault { get; private set; }

    /// <summary>Entries of the active L1 table that can stand: fewer than the header says where the others are no entries.</summary>
    public int L1Entries { get; private set; }

    /// <summary>A field of the header has a value that does not let the image be opened, and is understood otherwise here.</summary>
    public bool HasHeaderFault { get; private set; }

    /// <summary>True if every cluster whose refcount is too high is known to be used less: nothing contradicts what was counted.</summary>
    public bool LeaksAreCertain => RootFault is null && !HasUncounted && !NeedsRebuild && !_hasTooLow && Overlaps.Count == 0 && L1Entries == _header.L1Size;

    /// <summary>The bitmap directory cannot be read, or lies on something else.</summary>
    public bool HasBrokenBitmapDirectory { get; private set; }

    /// <summary>The file ends inside a table, before entries that the disk needs.</summary>
    public bool HasCutTable { get; private set; }

    /// <summary>Clusters that hold a table and something else as well, so that one of them has to move.</summary>
    public HashSet<long> Overlaps { get; } = [];

    /// <summary>Counts the references of everything but the refcount structure, as a base for a new one.</summary>
    public async ValueTask CountWithoutRefcountsAsync()
    {
        _ = AddTable(0, _geometry.ClusterSize, Header);
        await CountTablesAsync().ConfigureAwait(false);
    }

    public async ValueTask<CheckReport> RunAsync()
    {
        await CheckHeaderAsync().ConfigureAwait(false);
        AddTable(0, _geometry.ClusterSize, Header);
        await CountRefcountStructureAsync().ConfigureAwait(false);
        await CountTablesAsync().ConfigureAwait(false);
        await CompareRefcountsAsync().ConfigureAwait(false);
        await CheckCopiedFlagsAsync().ConfigureAwait(false);
        JudgeRoot();
        return Report();
    }

    private async ValueTask CountTablesAsync()
    {
        await CountActiveL1Async().ConfigureAwait(false);
        await CountSnapshotsAsync().ConfigureAwait(false);
        await CountBitmapsAsync().ConfigureAwait(false);
        await CountL2Async().ConfigureAwait(false);
        await CheckPackedAsync().ConfigureAwait(false);
        TrimOverlappedL1();
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

    private async ValueTask CheckHeaderAsync()
    {
        byte[] fields = new byte[Qcow2Header.IncompatibleAt];
        await _file.ReadPaddedAsync(0, fields, _cancellationToken).ConfigureAwait(false);
        Field(Qcow2Header.RefcountTableAt, "refcount_table_offset", BigEndian.U64(fields, Qcow2Header.RefcountTableAt), long.MaxValue);
        Field(Qcow2Header.SnapshotsAt, "nb_snapshots", BigEndian.U32(fields, Qcow2Header.SnapshotsAt), Qcow2Header.MaxSnapshots);
        Field(Qcow2Header.SnapshotsOffsetAt, "snapshots_offset", BigEndian.U64(fields, Qcow2Header.SnapshotsOffsetAt), long.MaxValue);
        if (_header.Has(Qcow2Incompatible.Corrupt))
        {
            Findings.Corruption("MarkedCorrupt", "The image is marked corrupt: a program met a contradiction while writing.", "clear the mark when all else is repaired", host: Qcow2Header.IncompatibleAt);
        }
        if (_header.IsInChange)
        {
            Findings.Error("Dirty", "The image was not closed properly or never completed: its refcounts may be behind its tables.", "count the references anew and clear the mark", Qcow2Header.IncompatibleAt);
        }
        bool saysRaw = (_header.AutoClear & Qcow2AutoClear.RawExternalData) != Qcow2AutoClear.None;
        if (saysRaw && !_external)
        {
            Findings.Corruption("DataFileRaw", "The image says that its data file can be read as a raw image, but it has no data file.", "clear the bit that says so", host: Qcow2Header.AutoClearAt);
        }
        if (saysRaw && _external && _header.BackingFile is not null)
        {
            Findings.Warning("DataFileRaw", "The image says that its data file can be read as a raw image, but its backing file shows through as well. The next program that writes to it takes the bit away.");
        }
        if (_header.Version >= 3 && _header.Extension(Qcow2Extension.FeatureNames) is { Length: var length } && length % 48 != 0)
        {
            Findings.Warning("FeatureNames", $"The feature name table is {length} bytes long; allowed: a multiple of 48.");
        }

        void Field(int at, string name, ulong value, long most)
        {
            if (value > (ulong)most)
            {
                HasHeaderFault = true;
                Findings.Corruption("HeaderField", $"The header field {name} is {value}; allowed: at most {most}.", "set it to what the image has", host: at);
            }
        }
    }

    private async ValueTask CountRefcountStructureAsync()
    {
        if (!AddTable(_header.RefcountTableOffset, (long)_header.RefcountTableClusters << _geometry.ClusterBits, RefcountTableName, repair: RebuildRefcounts) || _header.RefcountTableClusters == 0)
        {
            NeedsRebuild = true;
            return;
        }
        RefcountTable = await ReadTableAsync(_header.RefcountTableOffset, _header.RefcountTableClusters * (_geometry.ClusterSize / 8)).ConfigureAwait(false);
        for (int i = 0; i < RefcountTable.Length; i++)
        {
            if (RefcountTable[i] == 0)
            {
                continue;
            }
            bool isTaken = RefcountTable[i] <= long.MaxValue && HoldsTable((long)RefcountTable[i], _geometry.ClusterSize); // then it counts something else
            if (!AddTable((long)RefcountTable[i], _geometry.ClusterSize, RefcountBlocks, repair: RebuildRefcounts) || isTaken)
            {
                RefcountTable[i] = 0;
                NeedsRebuild = true;
            }
        }
    }

    /// <summary>Counts a table's clusters; false, with a finding, if it is out of place.</summary>
    private bool AddTable(long offset, long length, string what, long? guest = null, bool isShared = false, string? repair = null)
    {
        repair = guest is null ? repair : "drop it: its range becomes unallocated";
        bool isAligned = _geometry.InCluster(offset) == 0 && offset >= 0;
        bool isInside = offset <= _file.Length && length <= (_fileClusters << _geometry.ClusterBits) - offset;
        HasUncounted |= !isAligned || !isInside;
        if (!isAligned)
        {
            Findings.Corruption("Misaligned", $"{Capital(what)} is at host offset {offset:#,0}; allowed: multiples of {_geometry.ClusterSize:#,0}.", repair, guest, guest is null ? null : _geometry.L2Span, offset);
            return false;
        }
        if (!isInside)
        {
            Findings.Corruption("OutOfFile", $"{Capital(what)} is at host offset {offset:#,0}, {length:#,0} bytes; the file ends at {_file.Length:#,0}.", repair, guest, guest is null ? null : _geometry.L2Span, offset);
            return false;
        }
        for (long cluster = offset >> _geometry.ClusterBits; cluster < _geometry.Clusters(offset + length); cluster++)
        {
            ulong count = References.Add(cluster);
            _ = _isTable.Add(cluster);
            string? there = _tables.TryAdd(cluster, what) ? (count > 1 ? GuestData : null) : _tables[cluster];
            if (there is not null && !(isShared && ReferenceEquals(there, what)))
            {
                _ = Overlaps.Add(cluster);
                NeedsRebuild |= IsRefcount(what) || IsRefcount(there);
                BreakBitmap(there);
                _rootMeets ??= ReferenceEquals(there, ActiveL1) ? what : ReferenceEquals(what, ActiveL1) ? there : null;
                Findings.Corruption("Overlap", $"{Capital(what)} at host offset {cluster << _geometry.ClusterBits:#,0} lies on {there}.", "move it to a place of its own", guest, host: cluster << _geometry.ClusterBits);
            }
        }
        return true;

        static string Capital(string text) => char.ToUpperInvariant(text[0]) + text[1..];
    }

    private void AddData(long offset, long length, long guest, long at, ulong times)
    {
        if (length > (_fileClusters << _geometry.ClusterBits) - offset)
        {
            Findings.Corruption("OutOfFile", $"The data for guest offset {guest:#,0} is at host offset {offset:#,0}; the file ends at {_file.Length:#,0}.", "make it read as zeroes", guest, _geometry.ClusterSize, at);
            return;
        }
        for (long cluster = offset >> _geometry.ClusterBits; cluster < _geometry.Clusters(offset + length); cluster++)
        {
            _ = References.Add(cluster, times);
            if (_isTable[cluster] != 0 && _tables.TryGetValue(cluster, out string? table))
            {
                _ = Overlaps.Add(cluster);
                NeedsRebuild |= IsRefcount(table);
                BreakBitmap(table);
                Findings.Corruption("Overlap", $"The data for guest offset {guest:#,0} lies on {table} at host offset {cluster << _geometry.ClusterBits:#,0}.", "move the table to a place of its own", guest, _geometry.ClusterSize, at);
            }
        }
    }

    /// <summary>Reports a table that the file ends in, before the entries that the disk needs.</summary>
    private void RequireEntries(long offset, long length, string what, long? guest = null)
    {
        if (offset + length > _file.Length)
        {
            HasCutTable = true;
            Findings.Corruption("OutOfFile", $"The file of {_file.Length:#,0} bytes ends inside {what} at host offset {offset:#,0}, which needs {length:#,0}.", "let what is missing be unallocated", guest, host: offset);
        }
    }

    /// <summary>True if some table lies in a range already.</summary>
    private bool HoldsTable(long offset, long length)
    {
        for (long cluster = offset >> _geometry.ClusterBits; cluster < Math.Min(_fileClusters, _geometry.Clusters(offset + length)); cluster++)
        {
            if (_isTable[cluster] != 0)
            {
                return true;
            }
        }
        return false;
    }

    private static bool IsRefcount(string what) => ReferenceEquals(what, RefcountTableName) || ReferenceEquals(what, RefcountBlocks);

    private static bool IsBitmap(string what) => what.Contains("bitmap", StringComparison.Ordinal);

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
