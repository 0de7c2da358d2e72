using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Qcow2;

/// <summary>
/// Repairs an image that nobody else uses. Whatever can be read before reads the same afterwards, in the disk and in the snapshots that are
/// kept; a repair that would end otherwise is not made.
/// </summary>
/// <remarks>
/// <para>Steps: check; put right the table entries that cannot stand (out of place: what is lost reads as zeroes, an L1 entry becomes
/// unallocated); count again; set the refcounts to the counts, in place where the structure is sound, else in a new structure at
/// the end of the file; set the "refcount is exactly one" flags; clear the dirty and corrupt marks; check once more.</para>
/// <para>All of this is done in a <see cref="StagedNode"/>. Then the contents are compared (<see cref="Qcow2ContentsComparison"/>), and only then is
/// it written, in the same order: from the first change to the last the image is marked dirty (version 3), so a repair that is interrupted
/// is begun again on the next open.</para>
/// <para>Of two tables or clusters of the disk that share a place one gets a copy, since nobody can tell whose it is; beyond as many bytes as the
/// file has they go on sharing it, with a refcount of two, and the next write gives each its own. While the active L1 table itself is in doubt
/// nothing is changed, and nothing is given back while a table that decides what is used is not sound.</para>
/// </remarks>
internal sealed partial class Qcow2Repairer
{
    private readonly BlockNode _original;
    private readonly StagedNode _file;
    private readonly IProgress<long>? _bytes;
    private readonly CancellationToken _cancellationToken;
    private readonly BlockNode? _dataFile;
    private readonly long _length; // what lies past it was never written, even if the repair puts something there
    private readonly Dictionary<long, long> _mended = []; // offset of an L2 table → where it is now; whoever leads there shares it
    private readonly List<(Qcow2Snapshot Was, Qcow2Snapshot Now)> _kept = [];
    private readonly Qcow2Header _found;
    private HashSet<L2Entry> _broken = []; // compressed clusters that do not decompress
    private Qcow2Header _header;
    private Qcow2Geometry _geometry;
    private readonly SparseCounters _taken; // clusters that an entry of the disk leads to already
    private long _added; // bytes that copies and clusters of zeroes take
    private long _zeroes; // version 2: a cluster of zeroes, which may be pointed to
    private ulong _zeroUses;

    private Qcow2Repairer(BlockNode file, StagedNode staged, Qcow2Header header, IProgress<long>? bytes, BlockNode? dataFile, CancellationToken cancellationToken)
    {
        (_original, _file, _header, _found, _bytes, _dataFile, _cancellationToken) = (file, staged, header, header, bytes, dataFile, cancellationToken);
        _geometry = new Qcow2Geometry(header);
        _length = file.Length;
        _taken = new SparseCounters(file.Name);
    }

    /// <summary>Repairs an image and checks it again.</summary>
    /// <param name="file">The image's file.</param>
    /// <param name="header">Its header.</param>
    /// <param name="dataFile">Its external data file, if it has one.</param>
    /// <param name="mode">What may be repaired.</param>
    /// <param name="bytes">Told how many bytes of the virtual disk are looked at.</param>
    /// <param name="cancellationToken">Stops it before anything is written.</param>
    public static async ValueTask<CheckReport> RunAsync(
        BlockNode file, Qcow2Header header, BlockNode? dataFile, RepairMode mode, IProgress<long>? bytes, CancellationToken cancellationToken)
    {
        var staged = new StagedNode(file);
        await using (staged.ConfigureAwait(false))
        {
            return await new Qcow2Repairer(file, staged, header, bytes, dataFile, cancellationToken).RunAsync(mode).ConfigureAwait(false);
        }
    }

    private async ValueTask<CheckReport> RunAsync(RepairMode mode)
    {
        var before = new Qcow2Checker(_original, _header, _bytes, _cancellationToken, _dataFile);
        CheckReport found = await before.RunAsync().ConfigureAwait(false);
        bool isNeeded = mode == RepairMode.All ? found is not { Corruptions: 0, Leaks: 0, CheckErrors: 0 } : found.Leaks > 0 && before.LeaksAreCertain;
        if (!isNeeded || before.RootFault is not null)
        {
            return found;
        }
        if (mode == RepairMode.All)
        {
            await RepairAllAsync(before).ConfigureAwait(false);
        }
        else
        {
            await SetRefcountsAsync(before, leaksOnly: true).ConfigureAwait(false);
        }
        await _file.FlushAsync(_cancellationToken).ConfigureAwait(false);
        CheckReport left = await NewChecker().RunAsync().ConfigureAwait(false);
        var comparison = new Qcow2ContentsComparison(_original, _found, _file, _header, _dataFile, _cancellationToken);
        if (await comparison.FindLossAsync(_kept).ConfigureAwait(false) is { } loss)
        {
            return StagedRepair.Withdrawn(found, $"{loss} would not read as it does now");
        }
        if (left is { Corruptions: 0, CheckErrors: 0 } && await WhyUnusableAsync().ConfigureAwait(false) is { } fault)
        {
            return StagedRepair.Withdrawn(found, $"the image could not be opened for writing afterwards: {fault}");
        }
        await _file.CommitAsync().ConfigureAwait(false);
        return left.RepairedFrom(found);
    }

    private async ValueTask<Wording?> WhyUnusableAsync()
    {
        var trial = new StagedNode(_file);
        await using (trial.ConfigureAwait(false))
        {
            try
            {
                Qcow2Header header = await Qcow2Header.ReadAsync(trial, forRepair: false, _cancellationToken).ConfigureAwait(false);
                BlockNode? dataFile = _dataFile is null ? null : new BorrowedNode(_dataFile, isReadOnly: true);
                Qcow2Node disk = await Qcow2Node.OpenAsync(new BorrowedNode(trial, isReadOnly: false), dataFile, null, header, new Qcow2OpenOptions(), forRepair: false, _cancellationToken).ConfigureAwait(false);
                await disk.DisposeAsync().ConfigureAwait(false);
                return null;
            }
            catch (DiskImageException e) when (e.Kind is DiskImageErrorKind.Corrupt or DiskImageErrorKind.InvalidFormat)
            {
                return e.Wording;
            }
        }
    }

    private Qcow2Checker NewChecker() => new(_file, _header, _bytes, _cancellationToken, _dataFile);

    private async ValueTask RepairAllAsync(Qcow2Checker before)
    {
        await MarkAsync(_header.Incompatible | Qcow2Incompatible.Dirty).ConfigureAwait(false);
        if (before.HasCutTable)
        {
            await _file.ResizeAsync(FileEnd, PreallocationMode.Off, _cancellationToken).ConfigureAwait(false); // the rest of it reads as nothing
        }
        await ClearUntrueRawBitAsync().ConfigureAwait(false);
        _broken = before.BrokenClusters;
        HashSet<long> overlaps = before.Overlaps;
        Qcow2Header unmended = _header;
        if (before.L1Entries < _header.L1Size || before.HasHeaderFault)
        {
            await MendHeaderAsync(before.L1Entries).ConfigureAwait(false);
            overlaps = await OverlapsAsync().ConfigureAwait(false);
        }
        if (ClustersOf(_header.L1TableOffset, _header.L1Size * 8L).Any(overlaps.Contains))
        {
            await MoveL1Async().ConfigureAwait(false);
        }
        IReadOnlyList<Qcow2Snapshot> snapshots = await MendSnapshotsAsync(overlaps).ConfigureAwait(false);
        if (!ReferenceEquals(unmended, _header)) // where a table moved, more of what it leads to is known now
        {
            overlaps = await OverlapsAsync().ConfigureAwait(false);
        }
        await MendTablesAsync(_header.L1TableOffset, _header.L1Size, overlaps, isActive: true).ConfigureAwait(false);
        foreach (Qcow2Snapshot snapshot in snapshots)
        {
            await MendTablesAsync(snapshot.L1Offset, snapshot.L1Size, overlaps, isActive: false).ConfigureAwait(false);
        }
        await DropBrokenBitmapsAsync().ConfigureAwait(false);
        await _file.FlushAsync(_cancellationToken).ConfigureAwait(false);

        Qcow2Checker mended = NewChecker();
        _ = await mended.RunAsync().ConfigureAwait(false);
        if (mended.NeedsRebuild)
        {
            mended = NewChecker();
            await mended.CountWithoutRefcountsAsync().ConfigureAwait(false);
            int order = _header.Version < 3 ? _header.RefcountOrder : Qcow2RefcountBuilder.OrderFor(mended.References, _header.RefcountOrder);
            _header = await Qcow2RefcountBuilder.BuildAsync(_file, _header, mended.References, order, _cancellationToken).ConfigureAwait(false);
            _geometry = new Qcow2Geometry(_header);
        }
        else
        {
            await SetRefcountsAsync(mended, leaksOnly: false).ConfigureAwait(false);
        }
        await SetCopiedFlagsAsync(mended.References).ConfigureAwait(false);
        await MarkAsync(_header.Incompatible & ~(Qcow2Incompatible.Dirty | Qcow2Incompatible.Corrupt)).ConfigureAwait(false);
        await ClearInChangeAsync().ConfigureAwait(false);
    }

    /// <summary>Takes out the mark of a version 2 image; that of version 3 is a bit.</summary>
    private async ValueTask ClearInChangeAsync()
    {
        if (_header.Version < 3 && _header.IsInChange)
        {
            await _file.FlushAsync(_cancellationToken).ConfigureAwait(false);
            _header = _header with { Extensions = [.. _header.Extensions.Where(e => e.Type != Qcow2Extension.InChange)] };
            await _file.WriteAsync(0, _header.ToCluster(_file.Name), _cancellationToken).ConfigureAwait(false);
            await _file.FlushAsync(_cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>Clears the bit that says that the data file is raw where there is none, or where a backing file shows through as well.</summary>
    private async ValueTask ClearUntrueRawBitAsync()
    {
        bool isTrue = _header.Has(Qcow2Incompatible.ExternalDataFile) && _header.BackingFile is null;
        if (!isTrue && (_header.AutoClear & Qcow2AutoClear.RawExternalData) != Qcow2AutoClear.None)
        {
            _header = _header with { AutoClear = _header.AutoClear & ~Qcow2AutoClear.RawExternalData };
            byte[] field = new byte[8];
            BigEndian.U64(field, 0, (ulong)_header.AutoClear);
            await _file.WriteAsync(Qcow2Header.AutoClearAt, field, _cancellationToken).ConfigureAwait(false);
        }
    }

    private async ValueTask<HashSet<long>> OverlapsAsync()
    {
        Qcow2Checker checker = NewChecker();
        await checker.CountWithoutRefcountsAsync().ConfigureAwait(false);
        return checker.Overlaps;
    }

    /// <summary>Writes the fields of the header as they are understood, with an L1 table of as many entries as can stand.</summary>
    private async ValueTask MendHeaderAsync(int l1Entries)
    {
        _header = _header with { L1Size = l1Entries };
        await _file.WriteAsync(Qcow2Header.L1SizeAt, _header.ToCluster(_file.Name).AsMemory(Qcow2Header.L1SizeAt..Qcow2Header.IncompatibleAt), _cancellationToken).ConfigureAwait(false);
    }

    private async ValueTask MarkAsync(Qcow2Incompatible features)
    {
        if (_header.Version >= 3 && features != _header.Incompatible)
        {
            await _file.FlushAsync(_cancellationToken).ConfigureAwait(false);
            byte[] field = new byte[8];
            BigEndian.U64(field, 0, (ulong)features);
            await _file.WriteAsync(Qcow2Header.IncompatibleAt, field, _cancellationToken).ConfigureAwait(false);
            await _file.FlushAsync(_cancellationToken).ConfigureAwait(false);
            _header = _header with { Incompatible = features };
        }
    }

    private bool IsPlace(long offset) => _geometry.InCluster(offset) == 0 && offset >= _geometry.ClusterSize && offset < _length;

    /// <summary>Where the file may be extended by a cluster. A repair takes space there only: it cannot be in use.</summary>
    private long FileEnd => _geometry.Clusters(_file.Length) << _header.ClusterBits;

    /// <summary>Drops the bitmaps whose tables are broken or lie on something else; all of them where their directory cannot be read.</summary>
    private async ValueTask DropBrokenBitmapsAsync()
    {
        if (_header.Extension(Qcow2Extension.Bitmaps) is null)
        {
            return;
        }
        Qcow2Checker checker = NewChecker();
        await checker.CountWithoutRefcountsAsync().ConfigureAwait(false);
        if (checker.BrokenBitmaps.Count == 0 && !checker.HasBrokenBitmapDirectory)
        {
            return;
        }
        byte[] directory = [];
        int count = 0;
        try
        {
            Qcow2BitmapDirectory found = await Qcow2BitmapDirectory.ReadAsync(_file, _header, _cancellationToken).ConfigureAwait(false);
            Qcow2BitmapEntry[] kept = [.. found.Entries.Where((_, number) => !checker.BrokenBitmaps.Contains(number))];
            (directory, count) = (Qcow2BitmapDirectory.ToBytes(kept), kept.Length);
        }
        catch (DiskImageException e) when (e.Kind == DiskImageErrorKind.Corrupt)
        {
            // Where one entry cannot be told from the next, none is kept.
        }
        long place = FileEnd;
        if (count > 0)
        {
            await _file.WriteAsync(place, directory, _cancellationToken).ConfigureAwait(false);
            await _file.FlushAsync(_cancellationToken).ConfigureAwait(false);
        }
        Qcow2Extension[] now = count == 0 ? [] : [Qcow2BitmapDirectory.ToExtension(count, place, directory.Length)];
        _header = _header with
        {
            Extensions = [.. _header.Extensions.Where(e => e.Type != Qcow2Extension.Bitmaps), .. now],
            AutoClear = count == 0 ? _header.AutoClear & ~Qcow2AutoClear.Bitmaps : _header.AutoClear,
        };
        await _file.WriteAsync(0, _header.ToCluster(_file.Name), _cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Gives the L1 table a place of its own.</summary>
    private async ValueTask MoveL1Async()
    {
        _header = _header with { L1TableOffset = await CopyToEndAsync(_header.L1TableOffset, _header.L1Size * 8).ConfigureAwait(false) };
        await _file.WriteAsync(Qcow2Header.L1SizeAt, _header.ToCluster(_file.Name).AsMemory(Qcow2Header.L1SizeAt..Qcow2Header.RefcountTableAt), _cancellationToken).ConfigureAwait(false);
    }

    private async ValueTask SetRefcountsAsync(Qcow2Checker counted, bool leaksOnly)
    {
        int perBlock = 1 << _geometry.RefcountsPerBlockBits, order = _geometry.RefcountOrder;
        byte[] block = new byte[_geometry.ClusterSize];
        for (int i = 0; i < counted.RefcountTable.Length; i++)
        {
            long offset = (long)counted.RefcountTable[i];
            if (offset == 0)
            {
                continue;
            }
            await _file.ReadPaddedAsync(offset, block, _cancellationToken).ConfigureAwait(false);
            bool changed = false;
            for (int k = 0; k < perBlock; k++)
            {
                ulong stored = RefcountBlock.Get(block, k, order);
                ulong count = Math.Min(counted.References[((long)i << _geometry.RefcountsPerBlockBits) + k], _geometry.MaxRefcount); // version 2 has no wider ones
                if (stored != count && (stored > count || !leaksOnly))
                {
                    _ = RefcountBlock.Set(block, k, order, count);
                    changed = true;
                }
            }
            if (changed)
            {
                await _file.WriteAsync(offset, block, _cancellationToken).ConfigureAwait(false);
            }
        }
    }

    private async ValueTask SetCopiedFlagsAsync(SparseCounters references)
    {
        byte[] l1 = new byte[_header.L1Size * 8], table = new byte[_geometry.ClusterSize];
        await _file.ReadPaddedAsync(_header.L1TableOffset, l1, _cancellationToken).ConfigureAwait(false);
        bool l1Changed = false;
        var done = new HashSet<long>();
        for (int i = 0; i < _header.L1Size; i++)
        {
            var entry = new L2Entry(BigEndian.U64(l1, i * 8));
            if (!entry.HasPlace)
            {
                continue;
            }
            l1Changed |= SetFlag(l1, i * 8, entry, references[entry.Place.Value >> _header.ClusterBits] == 1);
            if (!done.Add(entry.Place.Value))
            {
                continue;
            }
            await _file.ReadPaddedAsync(entry.Place.Value, table, _cancellationToken).ConfigureAwait(false);
            bool changed = false;
            for (int at = 0; at < table.Length; at += _geometry.L2EntryBytes)
            {
                var data = new L2Entry(BigEndian.U64(table, at));
                if (!data.IsCompressed && data.HasPlace) // an external data file's offset 0 bears the flag, or is none
                {
                    bool isExternal = _header.Has(Qcow2Incompatible.ExternalDataFile); // what lies there has no refcounts
                    changed |= SetFlag(table, at, data, isExternal || references[data.Place.Value >> _header.ClusterBits] == 1);
                }
            }
            if (changed)
            {
                await _file.WriteAsync(entry.Place.Value, table, _cancellationToken).ConfigureAwait(false);
            }
        }
        if (l1Changed)
        {
            await _file.WriteAsync(_header.L1TableOffset, l1, _cancellationToken).ConfigureAwait(false);
        }
    }

    private static bool SetFlag(byte[] bytes, int at, L2Entry entry, bool copied)
    {
        if (entry.IsCopied == copied)
        {
            return false;
        }
        BigEndian.U64(bytes, at, entry.WithCopied(copied).Raw);
        return true;
    }
}
