using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Qcow2;

/// <summary>
/// Repairs an image that nobody else uses. Guest data that can still be reached is never changed.
/// </summary>
/// <remarks>
/// <para>Steps: check; put right the table entries that cannot stand (out of place: their range reads as zeroes or becomes
/// unallocated); count again; set the refcounts to the counts, in place where the structure is sound, else in a new structure at
/// the end of the file; set the "refcount is exactly one" flags; clear the dirty and corrupt marks; check once more.</para>
/// <para>Order: from the first change to the last the image is marked dirty (version 3), so a repair that is interrupted is begun
/// again on the next open. Two tables or clusters that share a place are left to share it, with a refcount of two: the next
/// write gives each its own.</para>
/// </remarks>
internal sealed partial class Qcow2Repairer(BlockNode file, Qcow2Header header, IProgress<long>? bytes, CancellationToken cancellationToken)
{
    private readonly long _length = file.Length; // what lies past it was never written, even if the repair puts something there
    private readonly Dictionary<long, long> _mended = []; // offset of an L2 table → where it is now; whoever leads there shares it
    private Qcow2Header _header = header;

    private Qcow2Geometry Geometry => new(_header);

    public async ValueTask<CheckReport> RunAsync(RepairMode mode)
    {
        Qcow2Checker before = NewChecker();
        CheckReport found = await before.RunAsync().ConfigureAwait(false);
        if (found is { Corruptions: 0, Leaks: 0, CheckErrors: 0 })
        {
            return found;
        }
        if (mode == RepairMode.All)
        {
            await RepairAllAsync(before).ConfigureAwait(false);
        }
        else if (found.Leaks > 0 && before is { NeedsRebuild: false, HasUncounted: false })
        {
            await SetRefcountsAsync(before, leaksOnly: true).ConfigureAwait(false);
            await file.FlushAsync(cancellationToken).ConfigureAwait(false);
        }
        CheckReport left = await NewChecker().RunAsync().ConfigureAwait(false);
        return left with
        {
            CorruptionsFixed = Math.Max(0, found.Corruptions - left.Corruptions),
            LeaksFixed = Math.Max(0, found.Leaks - left.Leaks),
        };
    }

    private Qcow2Checker NewChecker() => new(file, _header, bytes, cancellationToken);

    private async ValueTask RepairAllAsync(Qcow2Checker before)
    {
        await MarkAsync(_header.Incompatible | Qcow2Incompatible.Dirty).ConfigureAwait(false);
        if (before.HasCutTable)
        {
            await file.ResizeAsync(FileEnd, PreallocationMode.Off, cancellationToken).ConfigureAwait(false); // the rest of it reads as nothing
        }
        await ClearUntrueRawBitAsync().ConfigureAwait(false);
        long l1Cluster = _header.L1TableOffset >> _header.ClusterBits;
        if (before.Overlaps.Any(c => c >= l1Cluster && c < l1Cluster + Geometry.Clusters(_header.L1Size * 8L)))
        {
            await MoveL1Async().ConfigureAwait(false);
        }
        Qcow2Header unmended = _header;
        HashSet<long> overlaps = before.Overlaps;
        IReadOnlyList<Qcow2Snapshot> snapshots = await MendSnapshotsAsync(overlaps).ConfigureAwait(false);
        if (!ReferenceEquals(unmended, _header)) // where a table moved, more of what it leads to is known now
        {
            Qcow2Checker moved = NewChecker();
            await moved.CountWithoutRefcountsAsync().ConfigureAwait(false);
            overlaps = moved.Overlaps;
        }
        await MendTablesAsync(_header.L1TableOffset, _header.L1Size, overlaps).ConfigureAwait(false);
        foreach (Qcow2Snapshot snapshot in snapshots)
        {
            await MendTablesAsync(snapshot.L1Offset, snapshot.L1Size, overlaps).ConfigureAwait(false);
        }
        await DropBrokenBitmapsAsync().ConfigureAwait(false);
        await file.FlushAsync(cancellationToken).ConfigureAwait(false);

        Qcow2Checker mended = NewChecker();
        _ = await mended.RunAsync().ConfigureAwait(false);
        if (mended.NeedsRebuild)
        {
            mended = NewChecker();
            await mended.CountWithoutRefcountsAsync().ConfigureAwait(false);
            int order = _header.Version < 3 ? _header.RefcountOrder : Qcow2RefcountBuilder.OrderFor(mended.References, _header.RefcountOrder);
            _header = await Qcow2RefcountBuilder.BuildAsync(file, _header, mended.References, order, cancellationToken).ConfigureAwait(false);
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
            await file.FlushAsync(cancellationToken).ConfigureAwait(false);
            _header = _header with { Extensions = [.. _header.Extensions.Where(e => e.Type != Qcow2Extension.InChange)] };
            await file.WriteAsync(0, _header.ToCluster(file.Name), cancellationToken).ConfigureAwait(false);
            await file.FlushAsync(cancellationToken).ConfigureAwait(false);
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
            await file.WriteAsync(Qcow2Header.AutoClearAt, field, cancellationToken).ConfigureAwait(false);
        }
    }

    private async ValueTask MarkAsync(Qcow2Incompatible features)
    {
        if (_header.Version >= 3 && features != _header.Incompatible)
        {
            await file.FlushAsync(cancellationToken).ConfigureAwait(false);
            byte[] field = new byte[8];
            BigEndian.U64(field, 0, (ulong)features);
            await file.WriteAsync(Qcow2Header.IncompatibleAt, field, cancellationToken).ConfigureAwait(false);
            await file.FlushAsync(cancellationToken).ConfigureAwait(false);
            _header = _header with { Incompatible = features };
        }
    }

    /// <summary>Drops L1 entries that lead nowhere, and mends the L2 tables of the others; those that lie on something else move.</summary>
    private async ValueTask MendTablesAsync(long l1Offset, int l1Size, HashSet<long> overlaps)
    {
        byte[] l1 = new byte[l1Size * 8], table = new byte[Geometry.ClusterSize];
        await file.ReadPaddedAsync(l1Offset, l1, cancellationToken).ConfigureAwait(false);
        for (int i = 0; i < l1Size; i++)
        {
            ulong raw = BigEndian.U64(l1, i * 8);
            long l2 = L2Entry.OffsetOf(raw), place = 0;
            if (raw == 0)
            {
                continue;
            }
            if (IsPlace(l2) && !_mended.TryGetValue(l2, out place))
            {
                await file.ReadPaddedAsync(l2, table, cancellationToken).ConfigureAwait(false);
                place = overlaps.Contains(l2 >> _header.ClusterBits) ? FileEnd : l2;
                if (MendL2(table) || place != l2)
                {
                    await file.WriteAsync(place, table, cancellationToken).ConfigureAwait(false);
                }
                _mended.Add(l2, place);
            }
            ulong mended = place != 0 && place == l2 ? raw & L2Entry.L1Bits : (ulong)place;
            if (mended != raw)
            {
                BigEndian.U64(l1, i * 8, mended);
                await file.WriteAsync(l1Offset + (i * 8L), l1.AsMemory(i * 8, 8), cancellationToken).ConfigureAwait(false);
            }
        }
    }

    private bool MendL2(Span<byte> table)
    {
        bool changed = false;
        bool extended = Geometry.HasSubclusters;
        for (int at = 0; at < table.Length; at += Geometry.L2EntryBytes)
        {
            var entry = new L2Entry(BigEndian.U64(table, at), extended ? BigEndian.U64(table, at + 8) : 0);
            L2Entry mended = Mend(entry);
            if (mended != entry)
            {
                changed = true;
                BigEndian.U64(table, at, mended.Raw);
                if (extended)
                {
                    BigEndian.U64(table, at + 8, mended.Bitmap);
                }
            }
        }
        return changed;
    }

    /// <summary>The entry that can stand: itself, or one that reads as zeroes (version 2: is unallocated).</summary>
    private L2Entry Mend(L2Entry entry)
    {
        bool external = _header.Has(Qcow2Incompatible.ExternalDataFile), extended = Geometry.HasSubclusters;
        entry = entry.WithoutReserved(extended);
        L2Entry nothing = _header.Version < 3 ? default : L2Entry.Zero(0, extended);
        if (entry.IsCompressed)
        {
            (long offset, _) = entry.CompressedRange(_header.ClusterBits);
            return external || offset < Geometry.ClusterSize || offset >= _length ? nothing : entry.CompressedWithin(_length, _header.ClusterBits).WithCopied(false);
        }
        if (_header.Version < 3 && (entry.Raw & 1) != 0)
        {
            return default;
        }
        if (external)
        {
            return entry;
        }
        if (entry.HostOffset != 0 && !IsPlace(entry.HostOffset))
        {
            return nothing;
        }
        if (entry.HostOffset == 0)
        {
            uint lost = extended ? (uint)entry.Bitmap : 0; // stored, but nowhere
            return new L2Entry(entry.Raw & 1, extended ? (entry.Bitmap | (ulong)lost << 32) & ~(ulong)lost : 0);
        }
        uint both = extended ? (uint)entry.Bitmap & (uint)(entry.Bitmap >> 32) : 0;
        return both == 0 ? entry : entry with { Bitmap = entry.Bitmap & ~(ulong)both };
    }

    private bool IsPlace(long offset) => Geometry.InCluster(offset) == 0 && offset >= Geometry.ClusterSize && offset < _length;

    /// <summary>Where the file may be extended by a cluster. A repair takes space there only: it cannot be in use.</summary>
    private long FileEnd => Geometry.Clusters(file.Length) << _header.ClusterBits;

    /// <summary>A bitmap directory that cannot be read is dropped: its bitmaps are lost already. One whose tables are broken or lie on something else, too.</summary>
    private async ValueTask DropBrokenBitmapsAsync()
    {
        Qcow2Checker checker = NewChecker();
        await checker.CountWithoutRefcountsAsync().ConfigureAwait(false);
        if (checker.HasBrokenBitmaps)
        {
            _header = _header with
            {
                Extensions = [.. _header.Extensions.Where(e => e.Type != Qcow2Extension.Bitmaps)],
                AutoClear = _header.AutoClear & ~Qcow2AutoClear.Bitmaps,
            };
            await file.WriteAsync(0, _header.ToCluster(file.Name), cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>Gives the L1 table a place of its own.</summary>
    private async ValueTask MoveL1Async()
    {
        _header = _header with { L1TableOffset = await CopyToEndAsync(_header.L1TableOffset, _header.L1Size * 8).ConfigureAwait(false) };
        await file.WriteAsync(Qcow2Header.L1SizeAt, _header.ToCluster(file.Name).AsMemory(Qcow2Header.L1SizeAt..Qcow2Header.RefcountTableAt), cancellationToken).ConfigureAwait(false);
    }

    private async ValueTask SetRefcountsAsync(Qcow2Checker counted, bool leaksOnly)
    {
        int perBlock = 1 << Geometry.RefcountsPerBlockBits, order = Geometry.RefcountOrder;
        byte[] block = new byte[Geometry.ClusterSize];
        for (int i = 0; i < counted.RefcountTable.Length; i++)
        {
            long offset = (long)counted.RefcountTable[i];
            if (offset == 0)
            {
                continue;
            }
            await file.ReadPaddedAsync(offset, block, cancellationToken).ConfigureAwait(false);
            bool changed = false;
            for (int k = 0; k < perBlock; k++)
            {
                ulong stored = RefcountBlock.Get(block, k, order), count = counted.References[((long)i << Geometry.RefcountsPerBlockBits) + k];
                if (stored != count && (stored > count || !leaksOnly))
                {
                    _ = RefcountBlock.Set(block, k, order, count);
                    changed = true;
                }
            }
            if (changed)
            {
                await file.WriteAsync(offset, block, cancellationToken).ConfigureAwait(false);
            }
        }
    }

    private async ValueTask SetCopiedFlagsAsync(SparseCounters references)
    {
        byte[] l1 = new byte[_header.L1Size * 8], table = new byte[Geometry.ClusterSize];
        await file.ReadPaddedAsync(_header.L1TableOffset, l1, cancellationToken).ConfigureAwait(false);
        bool l1Changed = false;
        var done = new HashSet<long>();
        for (int i = 0; i < _header.L1Size; i++)
        {
            var entry = new L2Entry(BigEndian.U64(l1, i * 8));
            if (entry.HostOffset == 0)
            {
                continue;
            }
            l1Changed |= SetFlag(l1, i * 8, entry, references);
            if (!done.Add(entry.HostOffset))
            {
                continue;
            }
            await file.ReadPaddedAsync(entry.HostOffset, table, cancellationToken).ConfigureAwait(false);
            bool changed = false;
            for (int at = 0; at < table.Length; at += Geometry.L2EntryBytes)
            {
                var data = new L2Entry(BigEndian.U64(table, at));
                if (!data.IsCompressed && data.HostOffset != 0 && !_header.Has(Qcow2Incompatible.ExternalDataFile))
                {
                    changed |= SetFlag(table, at, data, references);
                }
            }
            if (changed)
            {
                await file.WriteAsync(entry.HostOffset, table, cancellationToken).ConfigureAwait(false);
            }
        }
        if (l1Changed)
        {
            await file.WriteAsync(_header.L1TableOffset, l1, cancellationToken).ConfigureAwait(false);
        }
    }

    private bool SetFlag(byte[] bytes, int at, L2Entry entry, SparseCounters references)
    {
        bool copied = references[entry.HostOffset >> _header.ClusterBits] == 1;
        if (entry.IsCopied == copied)
        {
            return false;
        }
        BigEndian.U64(bytes, at, entry.WithCopied(copied).Raw);
        return true;
    }
}
