using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Qcow2;

/// <summary>Changing the size, and claiming space ahead of its use.</summary>
/// <remarks>
/// Growing. The host space that is to be claimed is claimed first, so that a full disk is found before anything changes; then the L1 table;
/// then what lies past the old end is made to read as zeroes and gets its places; the size in the header comes last. Until then the image has
/// its old size, also after a crash, and a failure cuts everything behind it off again. Shrinking: the size first, then what lies past it goes.
/// </remarks>
internal sealed partial class Qcow2Node
{
    private const int ZeroBytes = 1 << 20; // written at once where every byte is to be written. Ours

    protected override ValueTask ResizeCoreAsync(long length, PreallocationMode preallocation, IProgress<long>? claimed, CancellationToken cancellationToken)
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
        return ResizeWithBitmapsAsync(length, () => length < Length ? ShrinkAsync(length, preallocation, cancellationToken) : GrowAsync(length, preallocation, claimed, cancellationToken));
    }

    /// <summary>
    /// Reserves a host cluster for every guest cluster of a range in which nothing was ever written, and claims host space for it as the mode
    /// says. With subclusters a backing file goes on to show through; without, the range reads as zeroes.
    /// </summary>
    /// <param name="offset">Where the range begins.</param>
    /// <param name="end">Where it ends.</param>
    /// <param name="mode">How space is claimed; not off.</param>
    /// <param name="keepsData">True if a raw data file has contents already, which stay.</param>
    /// <param name="claimed">Told how many bytes are claimed.</param>
    /// <param name="cancellationToken">Stops it.</param>
    public async ValueTask PreallocateAsync(
        long offset, long end, PreallocationMode mode, bool keepsData, IProgress<long>? claimed, CancellationToken cancellationToken)
    {
        long fresh = _dataNode.Length;
        if (ReferenceEquals(_dataNode, File) && offset < end)
        {
            await File.ResizeAsync(Round.Up(fresh, _geometry.ClusterSize) + HostBytesFor(offset, end), HostMode(mode), claimed, cancellationToken).ConfigureAwait(false);
        }
        await PreallocateAsync(offset, end, mode, keepsData ? 0 : fresh, cancellationToken).ConfigureAwait(false);
        if (ReferenceEquals(_dataNode, File))
        {
            await AloneAsync(() => UnderGateAsync(() => TrimAsync(cancellationToken))).ConfigureAwait(false);
        }
    }

    /// <summary>How the host claims space: places without contents are holes.</summary>
    private static PreallocationMode HostMode(PreallocationMode mode) => mode == PreallocationMode.Metadata ? PreallocationMode.Off : mode;

    /// <summary>Most bytes that places for a range take, with their L2 tables and refcount blocks.</summary>
    private long HostBytesFor(long offset, long end)
    {
        long clusters = _geometry.Clusters(end) - (offset >> _geometry.ClusterBits);
        clusters += _geometry.L1EntriesFor(end) - _geometry.L1Index(offset);
        clusters += (clusters >> _geometry.RefcountsPerBlockBits) + 2;
        return clusters << _geometry.ClusterBits;
    }

    /// <summary>Gives a range its places; space of the data's file behind <paramref name="fresh"/> is claimed, and reads as zeroes, already.</summary>
    private ValueTask PreallocateAsync(long offset, long end, PreallocationMode mode, long fresh, CancellationToken cancellationToken) => AloneAsync(async () =>
    {
        while (offset < end)
        {
            cancellationToken.ThrowIfCancellationRequested();
            WriteMapping mapping = await EnsureMappedAsync(offset, end - offset, cancellationToken).ConfigureAwait(false);
            if (mapping.IsNew)
            {
                try
                {
                    await ClaimAsync(mapping, mode, fresh, cancellationToken).ConfigureAwait(false);
                }
                catch
                {
                    await AbandonMappingAsync(mapping).ConfigureAwait(false);
                    throw;
                }
                await PointToAsync(mapping, holdsData: IsRawData || !_geometry.HasSubclusters).ConfigureAwait(false);
            }
            offset += mapping.Length;
        }
    });

    private async ValueTask ClaimAsync(WriteMapping mapping, PreallocationMode mode, long fresh, CancellationToken cancellationToken)
    {
        long start = mapping.HostStart, end = start + (mapping.CopyEnd - mapping.CopyStart), used = Math.Min(end, Math.Min(fresh, _dataNode.Length));
        byte[] zeroes = used > start && mode == PreallocationMode.Full ? new byte[Math.Min(used - start, ZeroBytes)] : [];
        for (long at = start; at < used && zeroes.Length > 0; at += zeroes.Length)
        {
            await _dataNode.WriteAsync(at, zeroes.AsMemory(0, (int)Math.Min(zeroes.Length, used - at)), cancellationToken).ConfigureAwait(false);
        }
        if (used > start && zeroes.Length == 0)
        {
            ZeroWriteMode how = mode == PreallocationMode.Metadata ? ZeroWriteMode.MayUnmap : ZeroWriteMode.KeepAllocated;
            await _dataNode.WriteZeroesAsync(start, used - start, how, cancellationToken).ConfigureAwait(false);
        }
        if (end > _dataNode.Length && !IsRawData) // a raw data file is as long as the disk
        {
            await _dataNode.ResizeAsync(end, HostMode(mode), cancellationToken).ConfigureAwait(false);
        }
    }

    private async ValueTask GrowAsync(long length, PreallocationMode preallocation, IProgress<long>? claimed, CancellationToken cancellationToken)
    {
        long old = Length, dataLength = _dataNode.Length;
        bool isExternal = !ReferenceEquals(_dataNode, File);
        if (length == old)
        {
            return;
        }
        await AloneAsync(() => UnderGateAsync(() => ExtendL1Async((int)_geometry.L1EntriesFor(length), cancellationToken))).ConfigureAwait(false);
        _grownTo = length;
        try
        {
            if (isExternal && dataLength < length)
            {
                await _dataNode.ResizeAsync(length, HostMode(preallocation), claimed, cancellationToken).ConfigureAwait(false);
            }
            await HideOldBytesAsync(old, length, cancellationToken).ConfigureAwait(false);
            if (IsRawData && preallocation == PreallocationMode.Off)
            {
                preallocation = PreallocationMode.Metadata; // its tables are complete
            }
            if (preallocation != PreallocationMode.Off)
            {
                await StoreLastClusterAsync(old, length, cancellationToken).ConfigureAwait(false);
                await PreallocateNewAsync(Round.Up(old, _geometry.ClusterSize), length, preallocation, dataLength, claimed, cancellationToken).ConfigureAwait(false);
            }
            await AloneAsync(() => UnderGateAsync(async () =>
            {
                await FlushLockedAsync(cancellationToken).ConfigureAwait(false);
                await UpdateHeaderAsync(_header with { Size = length }).ConfigureAwait(false);
            })).ConfigureAwait(false);
        }
        catch
        {
            await UndoGrowthAsync(old, isExternal ? dataLength : long.MaxValue).ConfigureAwait(false);
            throw;
        }
        finally
        {
            _grownTo = 0;
        }
    }

    private ValueTask PreallocateNewAsync(
        long offset, long end, PreallocationMode mode, long dataLength, IProgress<long>? claimed, CancellationToken cancellationToken)
        => ReferenceEquals(_dataNode, File)
            ? PreallocateAsync(offset, end, mode, keepsData: false, claimed, cancellationToken)
            : PreallocateAsync(offset, end, mode, fresh: dataLength, cancellationToken);

    /// <summary>
    /// Makes what a disk gains read as zeroes: neither a backing file that is longer than it was may show through, nor what another program left
    /// behind its end, in the last cluster or in tables.
    /// </summary>
    private async ValueTask HideOldBytesAsync(long old, long length, CancellationToken cancellationToken)
    {
        long shown = _header.BackingFile is null ? old : Backing is null ? length : Math.Clamp(Backing.Length, old, length);
        shown = Math.Max(shown, Math.Min(length, Round.Up(old, _geometry.ClusterSize)));
        if (shown > old)
        {
            bool isUnseen = _header.BackingFile is not null && Backing is null; // then what reads as zeroes now need not when it is there
            ZeroWriteMode mode = isUnseen ? ZeroWriteMode.KeepAllocated : ZeroWriteMode.MayUnmap;
            await WriteZeroesAsync(old, shown - old, mode, cancellationToken).ConfigureAwait(false);
        }
        await AloneAsync(() => DropEntriesAsync(Round.Up(shown, _geometry.ClusterSize), length)).ConfigureAwait(false);
    }

    /// <summary>Has the cluster that the old end lies in stored, so that it, too, has a place.</summary>
    private async ValueTask StoreLastClusterAsync(long old, long length, CancellationToken cancellationToken)
    {
        int gained = (int)(Math.Min(length, Round.Up(old, _geometry.ClusterSize)) - old);
        if (gained > 0)
        {
            await WriteAsync(old, new byte[gained], cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>What a growth has done before it failed is cut off again, as far as the file lets us.</summary>
    private async ValueTask UndoGrowthAsync(long old, long dataLength)
    {
        try
        {
            _grownTo = 0;
            await AloneAsync(() => UnderGateAsync(() => CutAsync(old, CancellationToken.None))).ConfigureAwait(false);
            if (_dataNode.Length > dataLength)
            {
                await _dataNode.ResizeAsync(dataLength).ConfigureAwait(false);
            }
        }
        catch (DiskImageException)
        {
            // The size in the header is the old one; what lies past it is unused at worst.
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
        long tail = Math.Min(Round.Up(length, _geometry.ClusterSize), Length) - length;
        if (tail > 0)
        {
            await WriteZeroesAsync(length, tail, ZeroWriteMode.MayUnmap, cancellationToken).ConfigureAwait(false); // or growing again would bring it back
        }
        await AloneAsync(() => UnderGateAsync(() => CutAsync(length, cancellationToken))).ConfigureAwait(false);
    }

    /// <summary>Gives the disk a size, not above its own, and lets go of everything past it.</summary>
    private async ValueTask CutAsync(long length, CancellationToken cancellationToken)
    {
        await FlushLockedAsync(cancellationToken).ConfigureAwait(false);
        long lastCluster = Round.Up(length, _geometry.ClusterSize);
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
            await DropEntriesLockedAsync(lastCluster, keep * _geometry.L2Span).ConfigureAwait(false);
        }
        await FlushLockedAsync(CancellationToken.None).ConfigureAwait(false);
        await TrimAsync(cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Makes what entries there are in a range unallocated; it may lie past the end of the disk, where a table has room for more.</summary>
    private async ValueTask DropEntriesAsync(long start, long end)
    {
        while (start < end)
        {
            start += await ChangeEntriesAsync(start, end - start, createTables: false, static (_, _, _) => default(L2Entry), CancellationToken.None).ConfigureAwait(false);
        }
    }

    /// <summary>Makes the entries of a range inside one L2 table unallocated; the range may lie past the end of the disk.</summary>
    private async ValueTask DropEntriesLockedAsync(long start, long end)
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
}
