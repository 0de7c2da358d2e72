using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Qcow2;

/// <summary>What a check has counted so far: who refers to which cluster of the file, which tables lie where, and what is wrong.</summary>
/// <remarks>It reads the file and no cache, trusts nothing it has not bounded, and changes nothing.</remarks>
internal sealed class Qcow2Census
{
    public const string HeaderName = "the header", GuestData = "guest data", ActiveL1 = "the active L1 table", L2Table = "an L2 table";
    public const string RefcountTable = "the refcount table", RefcountBlock = "a refcount block", BitmapDirectory = "the bitmap directory";

    private readonly Dictionary<long, string> _tables = []; // cluster → which table lies there
    private readonly SparseCounters _isTable; // the same, quicker to ask

    public Qcow2Census(BlockNode file, Qcow2Header header, BlockNode? dataFile, CancellationToken cancellationToken)
    {
        (File, Header, DataLength, CancellationToken) = (file, header, dataFile?.Length, cancellationToken);
        Geometry = new Qcow2Geometry(header);
        IsExternal = header.Has(Qcow2Incompatible.ExternalDataFile);
        FileClusters = Geometry.Clusters(file.Length);
        References = new SparseCounters(file.Name);
        _isTable = new SparseCounters(file.Name);
    }

    public BlockNode File { get; }

    public Qcow2Header Header { get; }

    public Qcow2Geometry Geometry { get; }

    public CancellationToken CancellationToken { get; }

    /// <summary>The length of the external data file, if the image has one and it is at hand.</summary>
    public long? DataLength { get; }

    public bool IsExternal { get; }

    public long FileClusters { get; }

    /// <summary>How often each host cluster is referenced.</summary>
    public SparseCounters References { get; }

    public CheckFindings Findings { get; } = new();

    /// <summary>Clusters that hold a table and something else as well, so that one of them has to move.</summary>
    public HashSet<long> Overlaps { get; } = [];

    /// <summary>The tables that something else lies on.</summary>
    public HashSet<string> Met { get; } = new(StringComparer.Ordinal);

    /// <summary>The first structure that was found to share its place with the active L1 table.</summary>
    public string? RootMeets { get; private set; }

    /// <summary>True if something was found that only building the refcounts anew puts right.</summary>
    public bool NeedsRebuild { get; set; }

    /// <summary>True if a table could not be read, so that what it refers to was not counted: such space only looks like a leak.</summary>
    public bool HasUncounted { get; set; }

    /// <summary>The file ends inside a table, before entries that the disk needs.</summary>
    public bool HasCutTable { get; private set; }

    /// <summary>Counts a table's clusters; false, with a finding, if it is out of place.</summary>
    public bool AddTable(long offset, long length, string what, long? guest = null, bool isShared = false, string? repair = null)
    {
        repair = guest is null ? repair : "drop it: its range becomes unallocated";
        bool isAligned = Geometry.InCluster(offset) == 0 && offset >= 0;
        bool isInside = offset <= File.Length && length <= (FileClusters << Geometry.ClusterBits) - offset;
        HasUncounted |= !isAligned || !isInside;
        if (!isAligned)
        {
            Findings.Corruption(
                "Misaligned", $"{Capital(what)} is at host offset {offset:#,0}; allowed: multiples of {Geometry.ClusterSize:#,0}.",
                repair, guest, guest is null ? null : Geometry.L2Span, offset);
            return false;
        }
        if (!isInside)
        {
            Findings.Corruption(
                "OutOfFile", $"{Capital(what)} is at host offset {offset:#,0}, {length:#,0} bytes; the file ends at {File.Length:#,0}.",
                repair, guest, guest is null ? null : Geometry.L2Span, offset);
            return false;
        }
        for (long cluster = offset >> Geometry.ClusterBits; cluster < Geometry.Clusters(offset + length); cluster++)
        {
            ulong count = References.Add(cluster);
            _ = _isTable.Add(cluster);
            string? there = _tables.TryAdd(cluster, what) ? (count > 1 ? GuestData : null) : _tables[cluster];
            if (there is not null && !(isShared && ReferenceEquals(there, what)))
            {
                Meet(cluster, there);
                NeedsRebuild |= IsRefcount(what);
                RootMeets ??= ReferenceEquals(there, ActiveL1) ? what : ReferenceEquals(what, ActiveL1) ? there : null;
                long at = cluster << Geometry.ClusterBits;
                Findings.Corruption(
                    "Overlap", $"{Capital(what)} at host offset {at:#,0} lies on {there}.",
                    "move it to a place of its own", guest, host: at);
            }
        }
        return true;

        static string Capital(string text) => char.ToUpperInvariant(text[0]) + text[1..];
    }

    /// <summary>
    /// Counts the clusters of guest data that an entry at a place of the file leads to, as often as something leads to the entry.
    /// </summary>
    public void AddData(long offset, long length, long guest, long at, ulong times)
    {
        if (length > (FileClusters << Geometry.ClusterBits) - offset)
        {
            Findings.Corruption(
                "OutOfFile", $"The data for guest offset {guest:#,0} is at host offset {offset:#,0}; the file ends at {File.Length:#,0}.",
                "make it read as zeroes", guest, Geometry.ClusterSize, at);
            return;
        }
        for (long cluster = offset >> Geometry.ClusterBits; cluster < Geometry.Clusters(offset + length); cluster++)
        {
            _ = References.Add(cluster, times);
            if (_isTable[cluster] != 0 && _tables.TryGetValue(cluster, out string? table))
            {
                Meet(cluster, table);
                Findings.Corruption(
                    "Overlap",
                    $"The data for guest offset {guest:#,0} lies on {table} at host offset {cluster << Geometry.ClusterBits:#,0}.",
                    "move the table to a place of its own", guest, Geometry.ClusterSize, at);
            }
        }
    }

    /// <summary>Reports a table that the file ends in, before the entries that the disk needs.</summary>
    public void RequireEntries(long offset, long length, string what, long? guest = null)
    {
        if (offset + length > File.Length)
        {
            HasCutTable = true;
            Findings.Corruption(
                "OutOfFile", $"The file of {File.Length:#,0} bytes ends inside {what} at host offset {offset:#,0},"
                    + $" which needs {length:#,0}.",
                "let what is missing be unallocated", guest, host: offset);
        }
    }

    /// <summary>An entry has bits set that the specification reserves.</summary>
    public void ReservedBits(string table, ulong entry, long guest, long at, long length)
        => Findings.Corruption(
            "ReservedBits", $"The {table} entry for guest offset {guest:#,0} is {entry:x16}, with reserved bits set.",
            "clear them", guest, length, at);

    /// <summary>True if some table lies in a cluster.</summary>
    public bool HoldsTable(long cluster) => _isTable[cluster] != 0;

    /// <summary>True if no table lies in any of several clusters.</summary>
    public bool HoldsNoTable(long first, int count) => _isTable.AreAll(first, count, 0);

    /// <summary>True if some table lies in a range already.</summary>
    public bool HoldsTable(long offset, long length)
    {
        for (long cluster = offset >> Geometry.ClusterBits; cluster < Math.Min(FileClusters, Geometry.Clusters(offset + length)); cluster++)
        {
            if (HoldsTable(cluster))
            {
                return true;
            }
        }
        return false;
    }

    /// <summary>True if a certain table lies at an offset.</summary>
    public bool IsTable(long offset, string what) => ReferenceEquals(_tables.GetValueOrDefault(offset >> Geometry.ClusterBits), what);

    /// <summary>True if a table of so many entries lies in the file.</summary>
    public bool Fits(long offset, int entries) => entries * 8L <= (FileClusters << Geometry.ClusterBits) - offset;

    public async ValueTask<ulong[]> ReadTableAsync(long offset, int entries)
    {
        byte[] bytes = new byte[entries * 8];
        await File.ReadPaddedAsync(offset, bytes, CancellationToken).ConfigureAwait(false);
        var table = new ulong[entries];
        for (int i = 0; i < entries; i++)
        {
            table[i] = BigEndian.U64(bytes, i * 8);
        }
        return table;
    }

    private void Meet(long cluster, string there)
    {
        _ = Overlaps.Add(cluster);
        _ = Met.Add(there);
        NeedsRebuild |= IsRefcount(there);
    }

    private static bool IsRefcount(string what) => ReferenceEquals(what, RefcountTable) || ReferenceEquals(what, RefcountBlock);
}
