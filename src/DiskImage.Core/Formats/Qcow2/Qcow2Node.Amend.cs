using DiskImage.Binary;
using DiskImage.Block;

namespace DiskImage.Formats.Qcow2;

/// <summary>Changing create options of an existing image. Every option is checked before the first change is made.</summary>
internal sealed partial class Qcow2Node
{
    public async ValueTask AmendAsync(Qcow2AmendOptions options, CancellationToken cancellationToken)
    {
        Qcow2Compat compat = options.Compat ?? (Qcow2Compat)_header.Version;
        int refcountOrder = options.RefcountBits is int bits ? Qcow2Geometry.Log2(bits) : _header.RefcountOrder;
        bool lazy = options.LazyRefcounts ?? (compat == Qcow2Compat.V3 && (_header.Compatible & Qcow2Compatible.LazyRefcounts) != Qcow2Compatible.None);
        CheckAmend(options, compat, refcountOrder, lazy);
        if (compat == Qcow2Compat.V2 && _header.Version >= 3)
        {
            await RequireFitsVersion2Async(Math.Max(Length, options.Size ?? 0), cancellationToken).ConfigureAwait(false);
        }
        if (options.Size is long size && size > Length)
        {
            await ResizeAsync(size, PreallocationMode.Off, cancellationToken).ConfigureAwait(false);
        }
        await AloneAsync(() => UnderGateAsync(async () =>
        {
            await SettleRefcountsAsync(cancellationToken).ConfigureAwait(false);
            await SettleBitmapsAsync().ConfigureAwait(false);
            if (compat == Qcow2Compat.V3 && _header.Version < 3)
            {
                await LengthenSnapshotEntriesAsync(cancellationToken).ConfigureAwait(false);
                await SwitchHeaderAsync(_header with { Version = 3, HeaderLength = Qcow2Header.LengthWithCompressionType }).ConfigureAwait(false);
            }
            if (refcountOrder != _header.RefcountOrder)
            {
                await ChangeRefcountWidthAsync(refcountOrder, cancellationToken).ConfigureAwait(false);
            }
            Qcow2Compatible compatible = lazy ? _header.Compatible | Qcow2Compatible.LazyRefcounts : _header.Compatible & ~Qcow2Compatible.LazyRefcounts;
            Qcow2AutoClear autoClear = options.DataFileRaw == false ? _header.AutoClear & ~Qcow2AutoClear.RawExternalData : _header.AutoClear;
            if (compatible != _header.Compatible || autoClear != _header.AutoClear)
            {
                await UpdateHeaderAsync(_header with { Compatible = compatible, AutoClear = autoClear }).ConfigureAwait(false);
            }
            if (compat == Qcow2Compat.V2 && _header.Version >= 3)
            {
                await MakeVersion2Async(cancellationToken).ConfigureAwait(false);
            }
        })).ConfigureAwait(false);
    }

    private void CheckAmend(Qcow2AmendOptions options, Qcow2Compat compat, int refcountOrder, bool lazy)
    {
        if (options.Size is long size && size < Length)
        {
            throw Refused($"size={size} is smaller than the present {Length:#,0} bytes; an image is made smaller with Resize-DiskImage -Shrink");
        }
        if (options.DataFileRaw == true && !IsRawData)
        {
            throw Refused("data_file_raw can be turned off, not on: the data file may not read like the disk");
        }
        if (compat == Qcow2Compat.V3)
        {
            return;
        }
        if (refcountOrder != 4)
        {
            throw Refused($"compat=0.10 needs refcount_bits=16, not {1 << refcountOrder}");
        }
        if (lazy)
        {
            throw Refused("compat=0.10 needs lazy_refcounts=off");
        }
        Qcow2Incompatible features = _header.Incompatible & ~Qcow2Incompatible.Dirty;
        if (features != Qcow2Incompatible.None)
        {
            throw Refused($"compat=0.10 does not have what the image uses: {features}");
        }
        if (_header.Extension(Qcow2Extension.Bitmaps) is not null)
        {
            throw Refused("compat=0.10 does not have bitmaps; remove them first");
        }
        DiskImageException Refused(string why) => new(DiskImageErrorKind.InvalidOption, $"{Name}: {why}.", Name);
    }

    /// <summary>Builds the refcounts anew in another width and switches to them; the old structure becomes free.</summary>
    private async ValueTask ChangeRefcountWidthAsync(int refcountOrder, CancellationToken cancellationToken)
    {
        var counted = new Qcow2Checker(File, _header, null, cancellationToken);
        await counted.CountWithoutRefcountsAsync().ConfigureAwait(false);
        if (counted.Findings.Corruptions > 0)
        {
            throw Corrupt($"it has {counted.Findings.Corruptions} corruptions, so its refcounts are not converted", 0);
        }
        if (Qcow2RefcountBuilder.OrderFor(counted.References, refcountOrder) > refcountOrder)
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption, $"{Name}: refcount_bits={1 << refcountOrder} does not hold the refcounts there are; remove snapshots first or choose more bits.", Name);
        }
        _ = await Qcow2RefcountBuilder.BuildAsync(File, _header, counted.References, refcountOrder, cancellationToken).ConfigureAwait(false);
        _geometry = new Qcow2Geometry(_header.ClusterBits, refcountOrder, _geometry.HasSubclusters);
        _refcounts.Restart(_geometry);
        await ReloadAsync(forWriting: true, cancellationToken).ConfigureAwait(false);
    }

    private async ValueTask RequireFitsVersion2Async(long size, CancellationToken cancellationToken)
    {
        CheckReport report = await CheckAsync(null, cancellationToken).ConfigureAwait(false);
        if (report.Corruptions > 0)
        {
            throw Corrupt($"it has {report.Corruptions} corruptions, so it stays version 3", 0);
        }
        foreach (Qcow2Snapshot snapshot in await Qcow2Snapshot.ReadAllAsync(File, _header, cancellationToken).ConfigureAwait(false))
        {
            if (snapshot.VmStateSize != 0 || (snapshot.VirtualSize ?? size) != size)
            {
                throw new DiskImageException(
                    DiskImageErrorKind.InvalidOption,
                    $"{Name}: compat=0.10 cannot say that snapshot '{snapshot.Name}' has {(snapshot.VmStateSize != 0 ? $"a machine state of {snapshot.VmStateSize:#,0} bytes" : $"{snapshot.VirtualSize:#,0} bytes and the disk {size:#,0}")}. Remove the snapshot first.", Name);
            }
        }
    }

    /// <summary>Has every snapshot record the size of its disk, which version 3 demands and old programs left out.</summary>
    private async ValueTask LengthenSnapshotEntriesAsync(CancellationToken cancellationToken)
    {
        IReadOnlyList<Qcow2Snapshot> snapshots = await Qcow2Snapshot.ReadAllAsync(File, _header, cancellationToken).ConfigureAwait(false);
        if (snapshots.Any(s => !s.FitsVersion3))
        {
            await ChangeWholeAsync(() => SwitchSnapshotsAsync([.. snapshots.Select(s => s.ForVersion3(_header.Size))], _header)).ConfigureAwait(false);
        }
    }

    /// <summary>
    /// Version 2 has no zero clusters: without a backing file they become unallocated, else real zeroes at the end of the file. The
    /// tables of snapshots change with the active ones, in place; meanwhile the image is marked dirty.
    /// </summary>
    private async ValueTask MakeVersion2Async(CancellationToken cancellationToken)
    {
        await UpdateHeaderAsync(_header with { Incompatible = _header.Incompatible | Qcow2Incompatible.Dirty }).ConfigureAwait(false);
        try
        {
            await ExpandZeroesAsync(cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            // Counts what was added, also if only some of it was, and clears the mark; there was no corruption before.
            _ = await Qcow2Repairer.RunAsync(File, _header, DataFile, RepairMode.All, null, CancellationToken.None).ConfigureAwait(false);
            await ReloadAsync(forWriting: true, CancellationToken.None).ConfigureAwait(false);
        }
        await SwitchHeaderAsync(_header with { Version = 2, HeaderLength = Qcow2Header.V2Length, Compatible = default, AutoClear = default, UnknownFields = [], Extensions = [.. _header.Extensions.Where(e => e.Type != Qcow2Extension.FeatureNames)] }).ConfigureAwait(false);
    }

    /// <summary>Replaces the zero clusters of every L2 table.</summary>
    private async ValueTask ExpandZeroesAsync(CancellationToken cancellationToken)
    {
        IReadOnlyList<Qcow2Snapshot> snapshots = await Qcow2Snapshot.ReadAllAsync(File, _header, cancellationToken).ConfigureAwait(false);
        var done = new HashSet<long>();
        byte[] table = new byte[_geometry.ClusterSize];
        foreach ((long offset, int entries) in snapshots.Select(s => (s.L1Offset, s.L1Size)).Prepend((_l1.HostOffset, _l1.Count)))
        {
            byte[] l1 = new byte[entries * 8];
            await File.ReadPaddedAsync(offset, l1, cancellationToken).ConfigureAwait(false);
            for (int i = 0; i < entries; i++)
            {
                cancellationToken.ThrowIfCancellationRequested();
                long l2 = L2Entry.OffsetOf(BigEndian.U64(l1, i * 8));
                if (l2 != 0 && done.Add(l2))
                {
                    RequireAligned(l2, i * _geometry.L2Span, "L1 entry");
                    await File.ReadPaddedAsync(l2, table, cancellationToken).ConfigureAwait(false);
                    if (await ExpandZeroesAsync(table, cancellationToken).ConfigureAwait(false))
                    {
                        await File.WriteAsync(l2, table, cancellationToken).ConfigureAwait(false);
                    }
                }
            }
        }
    }

    /// <summary>Replaces the zero clusters of an L2 table; true if there were any.</summary>
    private async ValueTask<bool> ExpandZeroesAsync(byte[] table, CancellationToken cancellationToken)
    {
        bool changed = false;
        long end = Round.Up(File.Length, _geometry.ClusterSize);
        for (int at = 0; at < table.Length; at += 8)
        {
            var entry = new L2Entry(BigEndian.U64(table, at));
            if (entry.KindOf(0, extended: false) == ClusterKind.Zero)
            {
                BigEndian.U64(table, at, _header.BackingFile is null ? 0 : L2Entry.Normal(end, 0).Raw);
                end += _header.BackingFile is null ? 0 : _geometry.ClusterSize;
                changed = true;
            }
        }
        if (end > File.Length)
        {
            await File.ResizeAsync(end, PreallocationMode.Off, cancellationToken).ConfigureAwait(false);
        }
        return changed;
    }
}
