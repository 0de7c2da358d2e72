using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Qcow2;

/// <summary>Changing an image as a whole: its size, its backing file, emptying it. Each switch is one write of the header.</summary>
internal sealed partial class Qcow2Node : IRebasable, IEmptiable
{
    protected override ValueTask ResizeCoreAsync(long length, PreallocationMode preallocation, CancellationToken cancellationToken)
    {
        if (length % Sector != 0)
        {
            throw new DiskImageException(DiskImageErrorKind.OutOfRange, $"{Name}: a size of {length:#,0} bytes is not possible; allowed: multiples of {Sector}", Name);
        }
        if (_header.SnapshotCount > 0 && _header.Version < 3)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Unsupported, $"{Name}: a version 2 image with snapshots cannot be resized: they do not record their size. Make it version 3 first, or remove the snapshots.", Name);
        }
        long entries = _geometry.L1EntriesFor(length);
        if (entries * 8 > Qcow2Header.MaxL1Bytes)
        {
            throw new DiskImageException(
                DiskImageErrorKind.OutOfRange, $"{Name}: a size of {length:#,0} bytes is too large; allowed with clusters of {_geometry.ClusterSize:#,0}: at most {Qcow2Header.MaxL1Bytes / 8 * _geometry.L2Span:#,0}", Name);
        }
        return ResizeWithBitmapsAsync(length, () => length < Length ? ShrinkAsync(length, preallocation, cancellationToken) : GrowAsync(length, preallocation, cancellationToken));
    }

    public ValueTask MakeEmptyAsync(CancellationToken cancellationToken) => AloneAsync(async () =>
    {
        await UnderGateAsync(async () =>
        {
            await FlushLockedAsync(cancellationToken).ConfigureAwait(false);
            List<(long Offset, long Length)> unused = await CollectAsync(CopyOfL1(), cancellationToken).ConfigureAwait(false);
            for (int i = _l1.NextUsed(0); i < _l1.Count; i = _l1.NextUsed(i + 1))
            {
                _l1[i] = 0;
            }
            FreeAfterFlush(unused);
            await FlushLockedAsync(CancellationToken.None).ConfigureAwait(false);
            await TrimAsync(cancellationToken).ConfigureAwait(false);
        }).ConfigureAwait(false);
    });

    public ValueTask SetBackingAsync(string? backingFile, string? backingFormat, BlockNode? backing, CancellationToken cancellationToken) => UnderGateAsync(async () =>
    {
        if ((_header.AutoClear & Qcow2AutoClear.RawExternalData) != Qcow2AutoClear.None && backingFile is not null)
        {
            throw new DiskImageException(DiskImageErrorKind.Unsupported, $"{Name}: an image whose external data file is a raw image cannot have a backing file", Name);
        }
        Qcow2Extension[] others = [.. _header.Extensions.Where(e => e.Type != Qcow2Extension.BackingFormat)];
        Qcow2Header header = _header with
        {
            BackingFile = backingFile,
            Extensions = backingFile is null || backingFormat is null ? others : [Qcow2Extension.Text(Qcow2Extension.BackingFormat, backingFormat), .. others],
        };
        if (!header.Fits)
        {
            header = header with { Extensions = [.. header.Extensions.Where(e => e.Type != Qcow2Extension.FeatureNames)] }; // the one part that nobody needs
        }
        _ = header.ToCluster(Name); // refuses a name that does not fit before anything is written
        await FlushLockedAsync(cancellationToken).ConfigureAwait(false);
        await SwitchHeaderAsync(header).ConfigureAwait(false);
    });

    private async ValueTask GrowAsync(long length, PreallocationMode preallocation, CancellationToken cancellationToken)
    {
        long old = Length;
        if (preallocation != PreallocationMode.Off && _header.BackingFile is not null && !_geometry.HasSubclusters)
        {
            throw new DiskImageException(DiskImageErrorKind.InvalidOption, $"{Name}: preallocation would hide its backing file; only images with extended_l2=on can have both", Name);
        }
        await AloneAsync(() => UnderGateAsync(() => ExtendL1Async((int)_geometry.L1EntriesFor(length), cancellationToken))).ConfigureAwait(false);
        _grownTo = length; // what is new is prepared first: after a crash in between the image has its old size, or shows zeroes
        try
        {
            if (!ReferenceEquals(_dataNode, File) && _dataNode.Length < length)
            {
                await _dataNode.ResizeAsync(length, PreallocationMode.Off, cancellationToken).ConfigureAwait(false);
            }
            // A backing file longer than the old size must not show through in what is new, nor what another program left in the last cluster.
            long shown = _header.BackingFile is null ? old : Backing is null ? length : Math.Clamp(Backing.Length, old, length);
            shown = Math.Max(shown, Math.Min(length, Round.Up(old, _geometry.ClusterSize)));
            if (shown > old)
            {
                bool isUnseen = _header.BackingFile is not null && Backing is null; // then what reads as zeroes now need not when it is there
                ZeroWriteMode mode = isUnseen ? ZeroWriteMode.KeepAllocated : ZeroWriteMode.MayUnmap;
                await WriteZeroesAsync(old, shown - old, mode, cancellationToken).ConfigureAwait(false);
            }
            if (IsRawData && preallocation == PreallocationMode.Off)
            {
                await _dataNode.WriteZeroesAsync(old, length - old, ZeroWriteMode.MayUnmap, cancellationToken).ConfigureAwait(false);
                preallocation = PreallocationMode.Metadata; // its tables are complete
            }
            await AloneAsync(() => UnderGateAsync(async () =>
            {
                await FlushLockedAsync(cancellationToken).ConfigureAwait(false);
                await UpdateHeaderAsync(_header with { Size = length }).ConfigureAwait(false);
            })).ConfigureAwait(false);
        }
        finally
        {
            _grownTo = 0;
        }
        if (preallocation != PreallocationMode.Off)
        {
            await PreallocateAsync(Round.Up(old, _geometry.ClusterSize), length, preallocation, cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>Moves to an active L1 table of at least so many entries; more than the disk needs are allowed.</summary>
    private async ValueTask ExtendL1Async(int entries, CancellationToken cancellationToken)
    {
        if (entries <= _l1.Count)
        {
            return;
        }
        await FlushLockedAsync(cancellationToken).ConfigureAwait(false);
        byte[] l1 = new byte[entries * 8];
        _l1.Bytes.CopyTo(l1);
        (long oldOffset, long oldLength) = (_l1.HostOffset, _l1.Count * 8L);
        long place = await WriteL1Async(l1).ConfigureAwait(false);
        await SwitchL1Async(place, l1, _header.Size).ConfigureAwait(false);
        _refcounts.FreeAfterFlush(oldOffset, oldLength); // a table of no entries has no place of its own
    }

    private async ValueTask ShrinkAsync(long length, PreallocationMode preallocation, CancellationToken cancellationToken)
    {
        if (preallocation != PreallocationMode.Off)
        {
            throw new DiskImageException(DiskImageErrorKind.InvalidOption, $"{Name}: preallocation has no meaning when an image is made smaller", Name);
        }
        long lastCluster = Round.Up(length, _geometry.ClusterSize), tail = Math.Min(lastCluster, Length) - length;
        if (tail > 0)
        {
            await WriteZeroesAsync(length, tail, ZeroWriteMode.MayUnmap, cancellationToken).ConfigureAwait(false); // or growing again would bring it back
        }
        await AloneAsync(() => UnderGateAsync(async () =>
        {
            await FlushLockedAsync(cancellationToken).ConfigureAwait(false);
            byte[] whole = CopyOfL1();
            int keep = (int)_geometry.L1EntriesFor(length);
            whole.AsSpan(0, Math.Min(keep * 8, whole.Length)).Clear();
            List<(long Offset, long Length)> unused = await CollectAsync(whole, cancellationToken).ConfigureAwait(false);
            await UpdateHeaderAsync(_header with { Size = length }).ConfigureAwait(false); // from here on the rest is leaked, not lost
            for (int i = keep; i < _l1.Count; i++)
            {
                if (_l1[i] != 0)
                {
                    _l1[i] = 0;
                }
            }
            FreeAfterFlush(unused);
            if (lastCluster < keep * _geometry.L2Span && _l1[keep - 1] != 0)
            {
                await DropEntriesAsync(lastCluster, keep * _geometry.L2Span).ConfigureAwait(false);
            }
            await FlushLockedAsync(CancellationToken.None).ConfigureAwait(false);
            await TrimAsync(cancellationToken).ConfigureAwait(false);
        })).ConfigureAwait(false);
    }

    /// <summary>Makes the entries of a range inside one L2 table unallocated; the range may lie past the end of the disk.</summary>
    private async ValueTask DropEntriesAsync(long start, long end)
    {
        for (long at = start; at < end; at += _geometry.ClusterSize)
        {
            CachedPiece piece = await WritableL2PieceAsync(at).ConfigureAwait(false);
            int index = PieceIndex(at);
            L2Entry old = EntryAt(piece, index);
            if (old != default)
            {
                SetEntry(piece, index, default);
                FreeData(old);
            }
        }
    }

    /// <summary>Cuts the file behind the last cluster in use. Everything must be flushed.</summary>
    private async ValueTask TrimAsync(CancellationToken cancellationToken)
    {
        await _order.WriteBackAsync().ConfigureAwait(false);
        long end = await _refcounts.UsedEndAsync().ConfigureAwait(false);
        if (end < File.Length)
        {
            await File.ResizeAsync(end, PreallocationMode.Off, cancellationToken).ConfigureAwait(false);
        }
    }
}
