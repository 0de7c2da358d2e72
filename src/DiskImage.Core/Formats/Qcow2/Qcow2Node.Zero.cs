using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Qcow2;

/// <summary>Zeroing and discarding without writing data, and the last check before a write.</summary>
internal sealed partial class Qcow2Node
{
    protected override async ValueTask<long> ZeroUnitsAsync(long offset, long length, ZeroWriteMode mode, CancellationToken cancellationToken)
    {
        bool canSayZero = _header.Version >= 3;
        if (IsRawData)
        {
            long inside = Math.Min(length, _dataNode.Length - offset);
            await _dataNode.WriteZeroesAsync(offset, inside, mode, cancellationToken).ConfigureAwait(false);
            return inside;
        }
        bool mustDecide = _header.BackingFile is not null || mode == ZeroWriteMode.KeepAllocated; // also over a backing file to come
        if (!canSayZero && mustDecide)
        {
            return 0; // version 2 has no zero clusters, and an unallocated one shows the backing file
        }
        return await ChangeEntriesAsync(offset, length, createTables: mustDecide, (entry, first, end) =>
        {
            bool whole = first == 0 && end == _geometry.SubclustersPerCluster;
            if (!mustDecide && entry == default)
            {
                return entry;
            }
            if (!canSayZero)
            {
                return default(L2Entry);
            }
            if (!whole)
            {
                return entry.IsCompressed ? null : entry with { Bitmap = entry.BitmapWithZeroes(first, end) };
            }
            bool keep = IsOurs(entry) && (mode == ZeroWriteMode.KeepAllocated || !ReferenceEquals(_dataNode, File));
            return L2Entry.Zero(keep ? entry.HostOffset : 0, _geometry.HasSubclusters);
        }, cancellationToken).ConfigureAwait(false);
    }

    protected override async ValueTask DiscardUnitsAsync(long offset, long length, CancellationToken cancellationToken)
    {
        if (IsRawData)
        {
            return; // the tables of a raw data file stay complete
        }
        bool hasBacking = _header.BackingFile is not null;
        if (_header.Version < 3 && hasBacking)
        {
            return; // an unallocated cluster would show the backing file's old data
        }
        for (long end = offset + length; offset < end;)
        {
            long done = await ChangeEntriesAsync(offset, end - offset, createTables: false, (entry, first, last) =>
            {
                bool whole = first == 0 && last == _geometry.SubclustersPerCluster;
                if (entry == default || (!whole && entry.IsCompressed))
                {
                    return entry;
                }
                if (!whole)
                {
                    return entry with { Bitmap = entry.BitmapWithZeroes(first, last) };
                }
                return _header.Version >= 3 ? L2Entry.Zero(0, _geometry.HasSubclusters) : default(L2Entry);
            }, cancellationToken).ConfigureAwait(false);
            offset += Math.Max(done, _geometry.SubclusterSize);
        }
    }

    /// <summary>
    /// Replaces the entries of a range, as far as one piece of an L2 table goes. <paramref name="change"/> gets an entry and the
    /// subclusters [first, end) concerned, and returns the new entry, or null to stop before it.
    /// </summary>
    /// <returns>Bytes done from <paramref name="offset"/> on.</returns>
    private async ValueTask<long> ChangeEntriesAsync(
        long offset, long length, bool createTables, Func<L2Entry, int, int, L2Entry?> change, CancellationToken cancellationToken)
    {
        await _gate.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            long end = offset + length;
            int l1Index = _geometry.L1Index(offset);
            if (!createTables && L1Entry(offset) == 0)
            {
                return Math.Min(end, EndOfUnmapped(l1Index)) - offset;
            }
            CachedPiece piece = await WritableL2PieceAsync(offset).ConfigureAwait(false);
            long at = offset;
            for (int index = PieceIndex(offset); at < end && index < _l2.PieceSize / _geometry.L2EntryBytes; index++)
            {
                long cluster = _geometry.ClusterStart(at), next = Math.Min(end, cluster + _geometry.ClusterSize);
                int first = (int)(at - cluster) / _geometry.SubclusterSize;
                int last = next == Length ? _geometry.SubclustersPerCluster : (int)(next - cluster) / _geometry.SubclusterSize;
                L2Entry old = EntryAt(piece, index);
                RequireSound(old, at);
                if (change(old, first, last) is not { } entry)
                {
                    break;
                }
                if (entry != old)
                {
                    SetEntry(piece, index, entry);
                    if (old.IsCompressed || old.HostOffset != entry.HostOffset)
                    {
                        FreeData(old);
                    }
                }
                at = next;
            }
            return at - offset;
        }
        finally
        {
            _ = _gate.Release();
        }
    }

    /// <summary>Refuses a write that would land on the image's own structures, and marks the image corrupt, as QEMU does.</summary>
    private async ValueTask RequireNotMetadataAsync(long hostOffset, long length)
    {
        if (!ReferenceEquals(_dataNode, File) || _guard.Overlap(hostOffset, length) is null)
        {
            return;
        }
        if (_header.Version >= 3)
        {
            await UpdateHeaderAsync(_header with { Incompatible = _header.Incompatible | Qcow2Incompatible.Corrupt }).ConfigureAwait(false);
        }
        _guard.Require(hostOffset, length);
    }
}
