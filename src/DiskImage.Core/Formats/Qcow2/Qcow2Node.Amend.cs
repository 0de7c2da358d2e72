using DiskImage.Block;
using DiskImage.Metadata;

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
        if (options.Size is long size && size > Length)
        {
            await ResizeAsync(size, PreallocationMode.Off, cancellationToken).ConfigureAwait(false);
        }
        await AloneAsync(() => UnderGateAsync(async () =>
        {
            await FlushLockedAsync(cancellationToken).ConfigureAwait(false);
            await SettleBitmapsAsync().ConfigureAwait(false);
            if (compat == Qcow2Compat.V3 && _header.Version < 3)
            {
                await RewriteHeaderAsync(_header with { Version = 3, HeaderLength = Qcow2Header.LengthWithCompressionType }).ConfigureAwait(false);
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
        if (_header.Version >= 3 && _header.SnapshotCount > 0)
        {
            throw Refused("an image with snapshots is not made version 2: they may hold zero clusters and sizes that version 2 cannot say. Remove them first");
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

    /// <summary>Version 2 has no zero clusters: without a backing file they become unallocated, else real zeroes.</summary>
    private async ValueTask MakeVersion2Async(CancellationToken cancellationToken)
    {
        byte[] zeroes = new byte[_geometry.ClusterSize];
        for (int i = _l1.NextUsed(0); i < _l1.Count; i = _l1.NextUsed(i + 1))
        {
            long start = i * _geometry.L2Span, end = Math.Min(start + _geometry.L2Span, Length);
            for (long at = start; at < end; at += _geometry.ClusterSize)
            {
                cancellationToken.ThrowIfCancellationRequested();
                CachedPiece piece = (await L2PieceAsync(at, cancellationToken).ConfigureAwait(false))!;
                L2Entry entry = EntryAt(piece, PieceIndex(at));
                if (entry.KindOf(0, extended: false) != ClusterKind.Zero)
                {
                    continue;
                }
                L2Entry plain = default;
                if (_header.BackingFile is not null)
                {
                    long host = entry.HostOffset != 0 ? entry.HostOffset : (await AllocateDataAsync(1).ConfigureAwait(false)).Host;
                    await File.WriteAsync(host, zeroes, cancellationToken).ConfigureAwait(false);
                    plain = L2Entry.Normal(host, 0);
                }
                else
                {
                    FreeData(entry);
                }
                piece = (await L2PieceAsync(at, cancellationToken).ConfigureAwait(false))!;
                SetEntry(piece, PieceIndex(at), plain);
            }
        }
        await FlushLockedAsync(cancellationToken).ConfigureAwait(false);
        await RewriteHeaderAsync(_header with { Version = 2, HeaderLength = Qcow2Header.V2Length, Compatible = default, AutoClear = default, UnknownFields = [], Extensions = [.. _header.Extensions.Where(e => e.Type != Qcow2Extension.FeatureNames)] }).ConfigureAwait(false);
    }
}
