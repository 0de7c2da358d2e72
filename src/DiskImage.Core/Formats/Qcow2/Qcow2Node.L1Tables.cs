using DiskImage.Binary;
using DiskImage.Metadata;

namespace DiskImage.Formats.Qcow2;

/// <summary>L1 tables as wholes: counting what they lead to once more, letting go of it, setting the flags, switching.</summary>
internal sealed partial class Qcow2Node
{
    private byte[] CopyOfL1() => _l1.Bytes.ToArray();

    /// <summary>
    /// Counts everything that an L1 table refers to once more, and clears the "refcount is exactly one" flags of all of it, in the tables
    /// and in <paramref name="l1"/>.
    /// </summary>
    private async ValueTask ShareAsync(byte[] l1)
    {
        for (int i = 0; i < l1.Length / 8; i++)
        {
            long l2 = L2Entry.OffsetOf(BigEndian.U64(l1, i * 8)), guest = i * _geometry.L2Span;
            if (l2 == 0)
            {
                continue;
            }
            RequireAligned(l2, guest, "L1 entry");
            BigEndian.U64(l1, i * 8, (ulong)l2);
            if (i < _l1.Count && L2Entry.OffsetOf(_l1[i]) == l2 && _l1[i] != (ulong)l2)
            {
                _l1[i] = (ulong)l2;
            }
            for (long at = 0; at < _geometry.ClusterSize; at += _l2.PieceSize)
            {
                var used = new List<(long Offset, long Length)>();
                CachedPiece piece = await L2PieceAsync(l2, at, guest, CancellationToken.None).ConfigureAwait(false);
                CollectEntries(piece, guest + (at / _geometry.L2EntryBytes << _geometry.ClusterBits), used);
                ClearFlags(piece);
                foreach ((long offset, long length) in used)
                {
                    await _refcounts.AddAsync(offset, length, +1).ConfigureAwait(false);
                }
            }
            await _refcounts.AddAsync(l2, _geometry.ClusterSize, +1).ConfigureAwait(false);
        }
    }

    /// <summary>The ranges that an L1 table refers to, each as often as it does: what becomes unused once nothing leads to the table.</summary>
    /// <param name="l1">The table.</param>
    /// <param name="cancellationToken">Stops it.</param>
    /// <param name="onlyLooks">True to look whether all of them can be counted, and return none.</param>
    private async ValueTask<List<(long Offset, long Length)>> CollectAsync(byte[] l1, CancellationToken cancellationToken, bool onlyLooks = false)
    {
        var used = new List<(long Offset, long Length)>();
        for (int i = 0; i < l1.Length / 8; i++)
        {
            long l2 = L2Entry.OffsetOf(BigEndian.U64(l1, i * 8)), guest = i * _geometry.L2Span;
            if (l2 == 0)
            {
                continue;
            }
            RequireAligned(l2, guest, "L1 entry");
            for (long at = 0; at < _geometry.ClusterSize; at += _l2.PieceSize)
            {
                CachedPiece piece = await L2PieceAsync(l2, at, guest, cancellationToken).ConfigureAwait(false);
                CollectEntries(piece, guest + (at / _geometry.L2EntryBytes << _geometry.ClusterBits), used);
            }
            used.Add((l2, _geometry.ClusterSize));
            if (onlyLooks)
            {
                used.Clear();
            }
        }
        return used;
    }

    private void FreeAfterFlush(List<(long Offset, long Length)> ranges) => ranges.ForEach(r => _refcounts.FreeAfterFlush(r.Offset, r.Length));

    /// <summary>Adds the host ranges that the entries of a piece refer to; neighbouring clusters make one.</summary>
    private void CollectEntries(CachedPiece piece, long guest, List<(long Offset, long Length)> used)
    {
        if (!ReferenceEquals(_dataNode, File))
        {
            return; // what lies in an external data file has no refcounts
        }
        for (int index = 0; index < _l2.PieceSize / _geometry.L2EntryBytes; index++, guest += _geometry.ClusterSize)
        {
            L2Entry entry = EntryAt(piece, index);
            if (entry == default)
            {
                continue;
            }
            (long offset, long length) = entry.IsCompressed ? entry.CompressedRange(_geometry.ClusterBits) : (entry.HostOffset, _geometry.ClusterSize);
            RequireCountable(entry, guest, offset);
            if (offset == 0)
            {
                continue;
            }
            bool isNext = !entry.IsCompressed && used.Count > 0 && used[^1] is var last && last.Offset + last.Length == offset && _geometry.InCluster(last.Offset) == 0;
            if (isNext)
            {
                used[^1] = (used[^1].Offset, used[^1].Length + length);
            }
            else
            {
                used.Add((offset, length));
            }
        }
    }

    /// <summary>Refuses an entry whose refcount cannot be right: a place that the file does not have, or two things at once.</summary>
    private void RequireCountable(L2Entry entry, long guest, long offset)
    {
        RequireSound(entry, guest);
        if (offset >= File.Length && _requiresAll)
        {
            throw Missing("cluster", guest, File, offset);
        }
    }

    private void ClearFlags(CachedPiece piece)
    {
        for (int index = 0; index < _l2.PieceSize / _geometry.L2EntryBytes && ReferenceEquals(_dataNode, File); index++)
        {
            L2Entry entry = EntryAt(piece, index);
            if (!entry.IsCompressed && entry.HostOffset != 0 && entry.IsCopied)
            {
                SetEntry(piece, index, entry.WithCopied(false));
            }
        }
    }

    /// <summary>Sets the "refcount is exactly one" flags of the active tables where counts went down to one.</summary>
    private async ValueTask RefreshFlagsAsync()
    {
        for (int i = _l1.NextUsed(0); i < _l1.Count; i = _l1.NextUsed(i + 1))
        {
            long l2 = L2Entry.OffsetOf(_l1[i]);
            if (l2 == 0 || await _refcounts.GetAsync(l2 >> _geometry.ClusterBits, CancellationToken.None).ConfigureAwait(false) != 1)
            {
                continue; // a shared table's entries keep their flags clear: they are reached through the other table, too
            }
            if (_l1[i] != L2Entry.Copied(l2))
            {
                _l1[i] = L2Entry.Copied(l2);
            }
            for (long at = 0; at < _geometry.ClusterSize; at += _l2.PieceSize)
            {
                for (int index = 0; index < _l2.PieceSize / _geometry.L2EntryBytes; index++)
                {
                    CachedPiece piece = await _l2.GetAsync(l2 + at, CancellationToken.None).ConfigureAwait(false);
                    L2Entry entry = EntryAt(piece, index);
                    if (!entry.IsCompressed && entry.HostOffset != 0 && !entry.IsCopied
                        && await _refcounts.GetAsync(entry.HostOffset >> _geometry.ClusterBits, CancellationToken.None).ConfigureAwait(false) == 1)
                    {
                        SetEntry(piece, index, entry.WithCopied(true));
                    }
                }
            }
        }
    }

    /// <summary>Writes an L1 table to a new place, 0 if it has no entries, and makes everything so far durable.</summary>
    private async ValueTask<long> WriteL1Async(byte[] l1)
    {
        long place = 0;
        if (l1.Length > 0)
        {
            place = await _refcounts.AllocateContiguousAsync(_geometry.Clusters(l1.Length)).ConfigureAwait(false);
            await RequireNotMetadataAsync(place, l1.Length).ConfigureAwait(false);
            byte[] padded = new byte[Round.Up(l1.Length, _geometry.ClusterSize)];
            l1.CopyTo(padded, 0);
            await File.WriteAsync(place, padded).ConfigureAwait(false);
        }
        await _order.FlushAsync(CancellationToken.None).ConfigureAwait(false);
        return place;
    }

    /// <summary>Makes another L1 table, already written, the active one, together with another size.</summary>
    private async ValueTask SwitchL1Async(long place, byte[] l1, long size)
    {
        await UpdateHeaderAsync(_header with { L1TableOffset = place, L1Size = l1.Length / 8, Size = size }).ConfigureAwait(false);
        _l1.Replace(place, l1);
        _guard.Protect(_header, _l1);
    }
}
