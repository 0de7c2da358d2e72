using System.Buffers;
using DiskImage.Metadata;

namespace DiskImage.Formats.Qcow2;

/// <summary>Moving what lies last in the file into the gaps before it: refcount blocks, L2 tables, and data, plain and compressed.</summary>
/// <remarks>Limits are in clusters from the start of the file: what lies there or behind moves below, as far as there is room.</remarks>
internal sealed partial class Qcow2Node
{
    /// <summary>Moves things down, round by round, as long as that makes the part of the file in use shorter.</summary>
    private async ValueTask PackAsync(CancellationToken cancellationToken)
    {
        long end = long.MaxValue;
        for (int round = 0; round < MaxRounds; round++)
        {
            await FlushLockedAsync(cancellationToken).ConfigureAwait(false);
            await TrimRefcountsAsync().ConfigureAwait(false);
            long now = await _refcounts.UsedEndAsync().ConfigureAwait(false) >> _geometry.ClusterBits;
            if (now >= end)
            {
                return;
            }
            end = now;
            long packed = _refcounts.PackedEnd(await _refcounts.UsedClustersAsync().ConfigureAwait(false)), limit = packed;
            IReadOnlyList<Structure> structures = await StructuresAsync(cancellationToken).ConfigureAwait(false);
            foreach (Structure structure in structures.OrderByDescending(s => s.Offset))
            {
                limit -= EndOf(structure) > limit ? _geometry.Clusters(structure.Length) : 0; // a place in a row is kept free for those that lie last
            }
            if (limit >= end)
            {
                return;
            }
            await _refcounts.MoveBlocksAsync(limit, _refcounts.BlocksFor(packed)).ConfigureAwait(false);
            await FlushLockedAsync(cancellationToken).ConfigureAwait(false);
            await MoveL2TablesAsync(limit, cancellationToken).ConfigureAwait(false);
            if (!IsExternal)
            {
                await MoveDataAsync(limit, end, cancellationToken).ConfigureAwait(false);
            }
            await MoveStructuresAsync(limit, structures, cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>Refcount blocks without anything to count go, and the end of the refcount table with them.</summary>
    private async ValueTask TrimRefcountsAsync()
    {
        await _refcounts.DropEmptyBlocksAsync().ConfigureAwait(false);
        await FlushLockedAsync(CancellationToken.None).ConfigureAwait(false);
        if (_refcounts.ShortenTable())
        {
            await UpdateHeaderAsync(_header).ConfigureAwait(false);
            await FlushLockedAsync(CancellationToken.None).ConfigureAwait(false);
        }
    }

    private async ValueTask MoveL2TablesAsync(long limit, CancellationToken cancellationToken)
    {
        var places = new Dictionary<long, (long Place, ulong References)>();
        do
        {
            places.Clear();
            try
            {
                await foreach ((long table, ulong references) in L2TablesAsync(cancellationToken).ConfigureAwait(false))
                {
                    if (table >> _geometry.ClusterBits < limit)
                    {
                        continue;
                    }
                    (long place, int count) = await _refcounts.AllocateBelowAsync(1, limit).ConfigureAwait(false);
                    if (count == 0 || places.Count == MaxBatch)
                    {
                        await TakeBackAsync(place, (long)count << _geometry.ClusterBits, 1).ConfigureAwait(false);
                        break;
                    }
                    places.Add(table, (place, 1));
                    await TakeMoreAsync(place, _geometry.ClusterSize, references - 1).ConfigureAwait(false);
                    places[table] = (place, references);
                    _l2.Forget(place, _geometry.ClusterSize);
                    await FillL2Async(place, table, guest: Math.Max(0, Length - 1)).ConfigureAwait(false);
                    _guard.AddTable(place);
                }
                await _order.FlushAsync(cancellationToken).ConfigureAwait(false);
            }
            catch
            {
                foreach ((long place, ulong references) in places.Values)
                {
                    _l2.Forget(place, _geometry.ClusterSize);
                    await TakeBackAsync(place, _geometry.ClusterSize, references).ConfigureAwait(false);
                }
                throw;
            }
            await ReplaceTablesAsync(table => places.TryGetValue(table, out (long Place, ulong) to) ? to.Place : table).ConfigureAwait(false);
            foreach ((long table, (_, ulong references)) in places)
            {
                Repeat(references, () => _refcounts.FreeAfterFlush(table, _geometry.ClusterSize));
            }
            await FlushLockedAsync(CancellationToken.None).ConfigureAwait(false);
        }
        while (places.Count > 0);
    }

    /// <summary>Moves guest data, so many clusters at a time as one walk over the tables can find the references of.</summary>
    private async ValueTask MoveDataAsync(long limit, long end, CancellationToken cancellationToken)
    {
        for (long first = limit; first < end;)
        {
            long next = await _refcounts.EndOfBatchAsync(first, end, MaxBatch).ConfigureAwait(false);
            (List<DataReference> plain, List<DataReference> compressed) = await ReferencesAsync(first, next, cancellationToken).ConfigureAwait(false);
            await MovePlainAsync(plain, limit, cancellationToken).ConfigureAwait(false);
            await MoveCompressedAsync(compressed, limit, cancellationToken).ConfigureAwait(false);
            await FlushLockedAsync(cancellationToken).ConfigureAwait(false);
            first = next;
        }
    }

    /// <summary>Every entry of every L2 table that leads to data ending in the clusters [first, end), in the order of the data.</summary>
    private async ValueTask<(List<DataReference> Plain, List<DataReference> Compressed)> ReferencesAsync(long first, long end, CancellationToken cancellationToken)
    {
        var plain = new List<DataReference>();
        var compressed = new List<DataReference>();
        await foreach ((long table, ulong references) in L2TablesAsync(cancellationToken).ConfigureAwait(false))
        {
            CachedPiece? piece = null;
            for (int index = 0; index < _geometry.L2Entries; index++)
            {
                int inPiece = IndexInPiece(index);
                piece = piece is null || inPiece == 0 ? await L2PieceOfAsync(table, index).ConfigureAwait(false) : piece;
                L2Entry entry = EntryAt(piece, inPiece);
                (long host, int length) = entry.IsCompressed ? entry.CompressedRange(_geometry.ClusterBits) : (entry.HostOffset, 1);
                long last = (host + length - 1) >> _geometry.ClusterBits;
                if (host != 0 && last >= first && last < end)
                {
                    (entry.IsCompressed ? compressed : plain).Add(new(host, entry.Raw, table, index, references));
                }
            }
        }
        plain.Sort(DataReference.InFileOrder);
        compressed.Sort(DataReference.InFileOrder);
        return (plain, compressed);
    }

    private async ValueTask MovePlainAsync(List<DataReference> references, long limit, CancellationToken cancellationToken)
    {
        byte[] buffer = ArrayPool<byte>.Shared.Rent(ClustersPerRequest << _geometry.ClusterBits);
        try
        {
            for (int i = 0; i < references.Count;)
            {
                cancellationToken.ThrowIfCancellationRequested();
                (int next, int clusters, ulong count) = await RunAsync(references, i).ConfigureAwait(false);
                long from = references[i].Host;
                while (clusters > 0)
                {
                    (long place, int got) = await _refcounts.AllocateBelowAsync(clusters, limit).ConfigureAwait(false);
                    if (got == 0)
                    {
                        return;
                    }
                    int length = got << _geometry.ClusterBits;
                    await CopyTakenAsync(from, place, count, buffer.AsMemory(0, length), cancellationToken).ConfigureAwait(false);
                    for (; i < next && references[i].Host < from + length; i++)
                    {
                        long moved = place + (references[i].Host - from);
                        await SwitchEntryAsync(references[i], entry => entry.WithHost(moved)).ConfigureAwait(false);
                    }
                    long old = from;
                    Repeat(count, () => _refcounts.FreeAfterFlush(old, length));
                    (from, clusters) = (from + length, clusters - got);
                }
                i = next;
                await FlushIfMuchWaitsAsync(cancellationToken).ConfigureAwait(false);
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }
    }

    /// <summary>
    /// From one reference on: clusters in a row with the same refcount, as many as one request takes. None if there are others who refer
    /// to it than were found, which no sound image has; then it stays.
    /// </summary>
    private async ValueTask<(int Next, int Clusters, ulong References)> RunAsync(List<DataReference> references, int start)
    {
        int next = start, clusters = 0;
        ulong common = 0;
        while (next < references.Count && clusters < ClustersPerRequest)
        {
            long host = references[next].Host;
            int after = next;
            ulong found = 0;
            for (; after < references.Count && references[after].Host == host; after++)
            {
                found += references[after].References;
            }
            if (found != await _refcounts.GetAsync(host >> _geometry.ClusterBits, CancellationToken.None).ConfigureAwait(false))
            {
                return clusters == 0 ? (after, 0, 0) : (next, clusters, common);
            }
            if (clusters > 0 && (found != common || host != references[start].Host + ((long)clusters << _geometry.ClusterBits)))
            {
                break;
            }
            (next, common) = (after, found);
            clusters++;
        }
        return (next, clusters, common);
    }

    /// <summary>Copies clusters to a place that was taken once, and counts it as often as it will be referred to. If that fails it is given back.</summary>
    private async ValueTask CopyTakenAsync(long from, long place, ulong references, Memory<byte> buffer, CancellationToken cancellationToken)
    {
        ulong taken = 1;
        try
        {
            await RequireNotMetadataAsync(place, buffer.Length).ConfigureAwait(false);
            await File.ReadPaddedAsync(from, buffer, cancellationToken).ConfigureAwait(false);
            await File.WriteAsync(place, buffer, cancellationToken).ConfigureAwait(false);
            await TakeMoreAsync(place, buffer.Length, references - 1).ConfigureAwait(false);
            taken = references;
            _order.DataWritten();
        }
        catch
        {
            await TakeBackAsync(place, buffer.Length, taken).ConfigureAwait(false);
            throw;
        }
    }

    /// <summary>Moves compressed data, piece by piece, packed anew.</summary>
    private async ValueTask MoveCompressedAsync(List<DataReference> references, long limit, CancellationToken cancellationToken)
    {
        byte[] packed = ArrayPool<byte>.Shared.Rent(2 << _geometry.ClusterBits), plain = ArrayPool<byte>.Shared.Rent(_geometry.ClusterSize);
        try
        {
            for (int i = 0; i < references.Count;)
            {
                cancellationToken.ThrowIfCancellationRequested();
                int next = i;
                ulong count = 0;
                for (; next < references.Count && references[next].Raw == references[i].Raw; next++)
                {
                    count += references[next].References;
                }
                long follower = next < references.Count ? references[next].Host : long.MaxValue;
                ReadOnlyMemory<byte> data = await ReadPackedAsync(new L2Entry(references[i].Raw), follower, packed, plain, cancellationToken).ConfigureAwait(false);
                if (!data.IsEmpty)
                {
                    long place = await StorePackedAsync(data, count, limit, cancellationToken).ConfigureAwait(false);
                    if (place == 0)
                    {
                        return;
                    }
                    var moved = L2Entry.Compressed(place, data.Length, _geometry.ClusterBits);
                    for (; i < next; i++)
                    {
                        await SwitchEntryAsync(references[i], _ => moved).ConfigureAwait(false);
                        L2Entry old = new(references[i].Raw);
                        Repeat(references[i].References, () => FreeData(old));
                    }
                }
                i = next;
                await FlushIfMuchWaitsAsync(cancellationToken).ConfigureAwait(false);
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(packed);
            ArrayPool<byte>.Shared.Return(plain);
        }
    }

    /// <summary>
    /// Reads the data of a compressed cluster without the rest of its last sector, as far as what follows in the file tells where it
    /// ends. Empty if it does not decompress, or is as large as a cluster: then it stays.
    /// </summary>
    private async ValueTask<ReadOnlyMemory<byte>> ReadPackedAsync(L2Entry entry, long follower, byte[] packed, byte[] plain, CancellationToken cancellationToken)
    {
        (long host, int length) = entry.CompressedRange(_geometry.ClusterBits);
        length = (int)Math.Min(length, File.Length - host);
        if (length <= 0 || length > packed.Length)
        {
            return default;
        }
        await File.ReadAsync(host, packed.AsMemory(0, length), cancellationToken).ConfigureAwait(false);
        foreach (long end in (long[])[Math.Min(length, follower - host), Math.Min(length, _geometry.ClusterSize - 1)])
        {
            if (end < _geometry.ClusterSize && _decompressor.TryDecompress(packed.AsSpan(0, (int)end), plain.AsSpan(0, _geometry.ClusterSize)))
            {
                return packed.AsMemory(0, (int)end);
            }
        }
        return default;
    }

    /// <summary>Stores compressed data for so many references below a limit; 0 if there is no room.</summary>
    private async ValueTask<long> StorePackedAsync(ReadOnlyMemory<byte> data, ulong references, long limit, CancellationToken cancellationToken)
    {
        long place = await _refcounts.AllocateBytesAsync(data.Length).ConfigureAwait(false), end = place + data.Length;
        ulong taken = 1;
        try
        {
            bool fits = _geometry.Clusters(end) <= limit;
            for (long cluster = place >> _geometry.ClusterBits; cluster < _geometry.Clusters(end); cluster++)
            {
                fits &= await _refcounts.GetAsync(cluster, CancellationToken.None).ConfigureAwait(false) - 1 <= _geometry.MaxRefcount - references;
            }
            if (!fits)
            {
                await TakeBackAsync(place, data.Length, 1).ConfigureAwait(false);
                return 0;
            }
            await RequireNotMetadataAsync(place, data.Length).ConfigureAwait(false);
            await WritePackedAsync(place, data, cancellationToken).ConfigureAwait(false);
            await TakeMoreAsync(place, data.Length, references - 1).ConfigureAwait(false);
            taken = references;
            _order.DataWritten();
            return place;
        }
        catch
        {
            await TakeBackAsync(place, data.Length, taken).ConfigureAwait(false);
            throw;
        }
    }

    private async ValueTask SwitchEntryAsync(DataReference reference, Func<L2Entry, L2Entry> change)
    {
        CachedPiece piece = await L2PieceOfAsync(reference.Table, reference.Index).ConfigureAwait(false);
        int index = IndexInPiece(reference.Index);
        SetEntry(piece, index, change(EntryAt(piece, index)));
    }

    private async ValueTask FlushIfMuchWaitsAsync(CancellationToken cancellationToken)
    {
        if (_refcounts.PendingFree > MaxWaiting)
        {
            await FlushLockedAsync(cancellationToken).ConfigureAwait(false);
        }
    }

    private async ValueTask TakeMoreAsync(long place, long length, ulong times)
    {
        for (ulong i = 0; i < times; i++)
        {
            await _refcounts.AddAsync(place, length, +1).ConfigureAwait(false);
        }
    }

    private async ValueTask TakeBackAsync(long place, long length, ulong times)
    {
        for (ulong i = 0; i < times && length > 0; i++)
        {
            await _refcounts.AddAsync(place, length, -1).ConfigureAwait(false);
        }
    }

    /// <summary>An L2 entry that leads to data.</summary>
    /// <param name="Host">Where the data begins.</param>
    /// <param name="Raw">The entry, without its subclusters.</param>
    /// <param name="Table">The host offset of its table.</param>
    /// <param name="Index">Its index there.</param>
    /// <param name="References">How many L1 entries lead to the table: so often the data is referred to.</param>
    private readonly record struct DataReference(long Host, ulong Raw, long Table, int Index, ulong References)
    {
        public static int InFileOrder(DataReference left, DataReference right) => (left.Host, left.Raw).CompareTo((right.Host, right.Raw));
    }
}
