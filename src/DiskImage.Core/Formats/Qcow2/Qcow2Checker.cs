using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Qcow2;

/// <summary>
/// Checks an image: counts every reference to every host cluster, then compares with the stored refcounts.
/// Spec: qcow2, "Host cluster management", "Cluster mapping", "Snapshots", "Bitmaps".
/// </summary>
/// <remarks>
/// States. First the tables: header, refcount structure, L1 tables of the disk and of each snapshot, snapshot table, bitmaps.
/// Then the L2 tables they lead to, each read once however many lead to it, and the data. Then the comparison: fewer references
/// than stored is a leak, more is a corruption. Last, since it needs the counts, the "refcount is exactly one" flags of the active
/// tables. What it counted (<see cref="Qcow2Census"/>) is what a repair would write.
/// </remarks>
internal sealed class Qcow2Checker
{
    private readonly Qcow2Census _census;
    private readonly Qcow2TableCount _tables;
    private readonly Qcow2RootCheck _root;
    private readonly Qcow2SnapshotCheck _snapshots;
    private readonly Qcow2BitmapCheck _bitmaps;
    private readonly Qcow2PackedCheck _packed;
    private readonly Qcow2RefcountCheck _refcounts;

    /// <summary>A check of a file.</summary>
    /// <param name="file">The image's file.</param>
    /// <param name="header">Its header.</param>
    /// <param name="bytes">Told how many bytes of the virtual disk are looked at.</param>
    /// <param name="cancellationToken">Stops the check.</param>
    /// <param name="dataFile">The external data file, if the image has one and it is at hand.</param>
    public Qcow2Checker(
        BlockNode file, Qcow2Header header, IProgress<long>? bytes, CancellationToken cancellationToken, BlockNode? dataFile = null)
    {
        _census = new Qcow2Census(file, header, dataFile, cancellationToken);
        _tables = new Qcow2TableCount(_census, bytes);
        _root = new Qcow2RootCheck(_census, _tables);
        _snapshots = new Qcow2SnapshotCheck(_census, _tables);
        _bitmaps = new Qcow2BitmapCheck(_census);
        _packed = new Qcow2PackedCheck(_census);
        _refcounts = new Qcow2RefcountCheck(_census);
    }

    /// <inheritdoc cref="Qcow2Census.References"/>
    public SparseCounters References => _census.References;

    public CheckFindings Findings => _census.Findings;

    /// <inheritdoc cref="Qcow2Census.Overlaps"/>
    public HashSet<long> Overlaps => _census.Overlaps;

    /// <inheritdoc cref="Qcow2Census.NeedsRebuild"/>
    public bool NeedsRebuild => _census.NeedsRebuild;

    /// <inheritdoc cref="Qcow2Census.HasCutTable"/>
    public bool HasCutTable => _census.HasCutTable;

    /// <inheritdoc cref="Qcow2RefcountCheck.Table"/>
    public ulong[] RefcountTable => _refcounts.Table;

    /// <inheritdoc cref="Qcow2RootCheck.Fault"/>
    public string? RootFault => _root.Fault;

    /// <inheritdoc cref="Qcow2RootCheck.Entries"/>
    public int L1Entries => _root.Entries;

    /// <inheritdoc cref="Qcow2PackedCheck.Broken"/>
    public HashSet<L2Entry> BrokenClusters => _packed.Broken;

    /// <inheritdoc cref="Qcow2BitmapCheck.Broken"/>
    public IReadOnlySet<int> BrokenBitmaps => _bitmaps.Broken;

    /// <inheritdoc cref="Qcow2BitmapCheck.HasBrokenDirectory"/>
    public bool HasBrokenBitmapDirectory => _bitmaps.HasBrokenDirectory;

    /// <summary>A field of the header has a value that does not let the image be opened, and is understood otherwise here.</summary>
    public bool HasHeaderFault { get; private set; }

    /// <summary>Where the end marker of the header's extensions stands, if it claims bytes that are not there.</summary>
    public int? BadEndMarker { get; private set; }

    /// <summary>True if every cluster whose refcount is too high is known to be used less: nothing contradicts what was counted.</summary>
    public bool LeaksAreCertain
        => RootFault is null && !_census.HasUncounted && !NeedsRebuild && !_refcounts.HasTooLow && Overlaps.Count == 0
            && L1Entries == Header.L1Size;

    private Qcow2Header Header => _census.Header;

    /// <summary>Counts the references of everything but the refcount structure, as a base for a new one.</summary>
    public async ValueTask CountWithoutRefcountsAsync()
    {
        _ = _census.AddTable(0, _census.Geometry.ClusterSize, Qcow2Census.HeaderName);
        await CountTablesAsync().ConfigureAwait(false);
    }

    public async ValueTask<CheckReport> RunAsync()
    {
        await CheckHeaderAsync().ConfigureAwait(false);
        _ = _census.AddTable(0, _census.Geometry.ClusterSize, Qcow2Census.HeaderName);
        await _refcounts.CountAsync().ConfigureAwait(false);
        await CountTablesAsync().ConfigureAwait(false);
        await _refcounts.CompareAsync().ConfigureAwait(false);
        await new Qcow2FlagCheck(_census).RunAsync(L1Entries).ConfigureAwait(false);
        _root.Judge(_refcounts);
        return new()
        {
            Findings = Findings.List,
            Corruptions = Findings.Corruptions,
            Leaks = Findings.Leaks,
            CheckErrors = Findings.Errors,
            TotalClusters = _census.Geometry.Clusters(Header.Size),
            AllocatedClusters = _tables.Allocated,
            CompressedClusters = _tables.Compressed,
            FragmentedClusters = _tables.Fragmented,
            ImageEndOffset = (_refcounts.Highest + 1) << _census.Geometry.ClusterBits,
        };
    }

    private async ValueTask CountTablesAsync()
    {
        await _root.CountAsync().ConfigureAwait(false);
        if (Qcow2Encryption.PlaceOf(Header) is { } keys)
        {
            _ = _census.AddTable(keys.Offset, keys.Length, "the encryption header");
        }
        await _snapshots.CountAsync().ConfigureAwait(false);
        await _bitmaps.CountAsync().ConfigureAwait(false);
        await _tables.CountL2Async().ConfigureAwait(false);
        await _packed.RunAsync(_tables.Packed).ConfigureAwait(false);
        _root.TrimOverlapped();
    }

    private async ValueTask CheckHeaderAsync()
    {
        byte[] fields = new byte[Qcow2Header.IncompatibleAt];
        await _census.File.ReadPaddedAsync(0, fields, _census.CancellationToken).ConfigureAwait(false);
        Field(Qcow2Header.RefcountTableAt, "refcount_table_offset", BigEndian.U64(fields, Qcow2Header.RefcountTableAt), long.MaxValue);
        Field(Qcow2Header.SnapshotsAt, "nb_snapshots", BigEndian.U32(fields, Qcow2Header.SnapshotsAt), Qcow2Header.MaxSnapshots);
        Field(Qcow2Header.SnapshotsOffsetAt, "snapshots_offset", BigEndian.U64(fields, Qcow2Header.SnapshotsOffsetAt), long.MaxValue);
        if (Header.Has(Qcow2Incompatible.Corrupt))
        {
            Findings.Corruption(
                "MarkedCorrupt", "The image is marked corrupt: a program met a contradiction while writing.",
                "clear the mark when all else is repaired", host: Qcow2Header.IncompatibleAt);
        }
        if (Header.IsInChange)
        {
            Findings.Error(
                "Dirty", "The image was not closed properly or never completed: its refcounts may be behind its tables.",
                "count the references anew and clear the mark", Qcow2Header.IncompatibleAt);
        }
        CheckRawBit();
        await CheckEndMarkerAsync().ConfigureAwait(false);
        if (Header.Version >= 3 && Header.Extension(Qcow2Extension.FeatureNames) is { Length: var length } && length % 48 != 0)
        {
            Findings.Warning("FeatureNames", $"The feature name table is {length} bytes long; allowed: a multiple of 48.");
        }

        void Field(int at, string name, ulong value, long most)
        {
            if (value > (ulong)most)
            {
                HasHeaderFault = true;
                Findings.Corruption(
                    "HeaderField", $"The header field {name} is {value}; allowed: at most {most}.",
                    "set it to what the image has", host: at);
            }
        }
    }

    private async ValueTask CheckEndMarkerAsync()
    {
        byte[] cluster = new byte[_census.Geometry.ClusterSize];
        await _census.File.ReadPaddedAsync(0, cluster, _census.CancellationToken).ConfigureAwait(false);
        int end = Header.BackingFileOffset == 0 ? cluster.Length : (int)Header.BackingFileOffset;
        if (Qcow2Extension.EndFault(cluster, Header.HeaderLength, end) is (int at, uint length))
        {
            BadEndMarker = at;
            Findings.Corruption(
                "HeaderExtension", $"The mark behind the last header extension says that {length:#,0} bytes follow; allowed: 0.",
                "set it to 0", host: at);
        }
    }

    private void CheckRawBit()
    {
        if ((Header.AutoClear & Qcow2AutoClear.RawExternalData) == Qcow2AutoClear.None)
        {
            return;
        }
        if (!_census.IsExternal)
        {
            Findings.Corruption(
                "DataFileRaw", "The image says that its data file can be read as a raw image, but it has no data file.",
                "clear the bit that says so", host: Qcow2Header.AutoClearAt);
        }
        else if (Header.BackingFile is not null)
        {
            Findings.Warning(
                "DataFileRaw",
                "The image says that its data file can be read as a raw image, but its backing file shows through as well."
                    + " The next program that writes to it takes the bit away.");
        }
    }
}
