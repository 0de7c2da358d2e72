using System.Buffers;
using DiskImage.Metadata;

namespace DiskImage.Formats.Qcow2;

/// <summary>Moves what lies last in the file into the gaps before it: refcount blocks, L2 tables, and data, plain and compressed.</summary>
/// <remarks>Limits are in clusters from the start of the file: what lies there or behind moves below, as far as there is room.</remarks>
internal sealed class Qcow2Packer(Qcow2Disk disk, MetadataSession.Held held)
{
    private const int MaxRounds = 16; // two or three are the rule. Ours

    private readonly Qcow2TableWalk _walk = new(disk, held);
    private readonly Qcow2RefcountPacker _refcountPacker = new(disk, held);

    private Qcow2Tables Tables => disk.Tables;

    private Qcow2Refcounts Refcounts => disk.Refcounts;

    private Qcow2Allocator Allocator => disk.Allocator;

    private Qcow2Geometry Geometry => disk.Geometry;

    private int ClustersPerRequest => Math.Max(1, Qcow2Compactor.RequestBytes >> Geometry.ClusterBits);

    /// <summary>Moves things down, round by round, as long as that makes the part of the file in use shorter.</summary>
    public async ValueTask RunAsync(CancellationToken cancellationToken)
    {
        long end = long.MaxValue;
        for (int round = 0; round < MaxRounds; round++)
        {
            await disk.FlushAsync(held, cancellationToken).ConfigureAwait(false);
            await _refcountPacker.TrimAsync().ConfigureAwait(false);
            long now = Geometry.ClusterOf(await Refcounts.UsedEndAsync().ConfigureAwait(false));
            if (now >= end)
            {
                return;
            }
            end = now;
            long packed = _refcountPacker.PackedEnd(await _refcountPacker.UsedClustersAsync().ConfigureAwait(false)), limit = packed;
            var structures = await Qcow2Structures.FindAsync(disk, held, cancellationToken).ConfigureAwait(false);
            limit -= structures.ClustersBehind(limit); // a place in a row is kept free for those that lie last
            if (limit >= end)
            {
                return;
            }
            await _refcountPacker.MoveBlocksAsync(limit, _refcountPacker.BlocksFor(packed)).ConfigureAwait(false);
            await disk.FlushAsync(held, cancellationToken).ConfigureAwait(false);
            await MoveTablesAsync(limit, cancellationToken).ConfigureAwait(false);
            if (!disk.IsExternal)
            {
                await MoveDataAsync(limit, end, cancellationToken).ConfigureAwait(false);
            }
            await structures.MoveAsync(limit, cancellationToken).ConfigureAwait(false);
        }
    }

    private async ValueTask MoveTablesAsync(long limit, CancellationToken cancellationToken)
    {
        var places = new Dictionary<HostOffset, (HostOffset Place, ulong References)>();
        do
        {
            places.Clear();
            try
            {
                await CopyTablesAsync(places, limit, cancellationToken).ConfigureAwait(false);
                await disk.Session.Order.FlushAsync(cancellationToken).ConfigureAwait(false);
            }
            catch
            {
                foreach ((HostOffset place, ulong references) in places.Values)
                {
                    Tables.L2.Forget(place.Value, Geometry.ClusterSize);
                    await Refcounts.FreeAsync(held, place, Geometry.ClusterSize, references).ConfigureAwait(false);
                }
                throw;
            }
            await _walk.ReplaceAsync(
                table => places.TryGetValue(table, out (HostOffset Place, ulong) to) ? to.Place : table).ConfigureAwait(false);
            foreach ((HostOffset table, (_, ulong references)) in places)
            {
                Refcounts.FreeAfterFlush(held, table, Geometry.ClusterSize, references);
            }
            await disk.FlushAsync(held, CancellationToken.None).ConfigureAwait(false);
        }
        while (places.Count > 0);
    }

    /// <summary>Copies L2 tables that lie behind the limit below it, as many as are kept in memory together, and notes where to.</summary>
    private async ValueTask CopyTablesAsync(
        Dictionary<HostOffset, (HostOffset Place, ulong References)> places, long limit, CancellationToken cancellationToken)
    {
        await foreach ((HostOffset table, ulong references) in _walk.TablesAsync(cancellationToken).ConfigureAwait(false))
        {
            if (Geometry.ClusterOf(table) < limit)
            {
                continue;
            }
            (HostOffset place, int count) = await Allocator.AllocateBelowAsync(held, 1, limit).ConfigureAwait(false);
            if (count == 0 || places.Count == _walk.MaxBatch)
            {
                await Refcounts.FreeAsync(held, place, (long)count << Geometry.ClusterBits, times: 1).ConfigureAwait(false);
                break;
            }
            places.Add(table, (place, 1));
            await Refcounts.AddAsync(held, place, Geometry.ClusterSize, references - 1).ConfigureAwait(false);
            places[table] = (place, references);
            await Tables.FillAsync(held, place, table, guest: new(Math.Max(0, disk.Length - 1))).ConfigureAwait(false);
            disk.Guard.AddTable(place);
        }
    }

    /// <summary>Moves guest data, so many clusters at a time as one walk over the tables can find the references of.</summary>
    private async ValueTask MoveDataAsync(long limit, long end, CancellationToken cancellationToken)
    {
        for (long first = limit; first < end;)
        {
            long next = await _refcountPacker.EndOfBatchAsync(first, end, _walk.MaxBatch).ConfigureAwait(false);
            (List<DataReference> plain, List<DataReference> compressed) = await ReferencesAsync(
                first, next, cancellationToken).ConfigureAwait(false);
            await MovePlainAsync(plain, limit, cancellationToken).ConfigureAwait(false);
            await MoveCompressedAsync(compressed, limit, cancellationToken).ConfigureAwait(false);
            await disk.FlushAsync(held, cancellationToken).ConfigureAwait(false);
            first = next;
        }
    }

    /// <summary>Every entry of every L2 table that leads to data ending in the clusters [first, end), in the order of the data.</summary>
    private async ValueTask<(List<DataReference> Plain, List<DataReference> Compressed)> ReferencesAsync(
        long first, long end, CancellationToken cancellationToken)
    {
        var plain = new List<DataReference>();
        var compressed = new List<DataReference>();
        await foreach ((HostOffset table, ulong references) in _walk.TablesAsync(cancellationToken).ConfigureAwait(false))
        {
            CachedPiece? piece = null;
            for (int index = 0; index < Geometry.L2Entries; index++)
            {
                int inPiece = Tables.IndexInPiece(index);
                piece = piece is null || inPiece == 0 ? await Tables.PieceOfAsync(table, index).ConfigureAwait(false) : piece;
                L2Entry entry = Tables.EntryAt(piece, inPiece);
                (HostOffset place, int length) = entry.IsCompressed ? entry.CompressedRange(Geometry.ClusterBits) : (entry.Place, 1);
                long last = Geometry.ClusterOf(place + (length - 1));
                if (place.Value != 0 && last >= first && last < end)
                {
                    (entry.IsCompressed ? compressed : plain).Add(new(place, entry.Raw, table, index, references));
                }
            }
        }
        plain.Sort(DataReference.InFileOrder);
        compressed.Sort(DataReference.InFileOrder);
        return (plain, compressed);
    }

    private async ValueTask MovePlainAsync(List<DataReference> references, long limit, CancellationToken cancellationToken)
    {
        byte[] buffer = ArrayPool<byte>.Shared.Rent(ClustersPerRequest << Geometry.ClusterBits);
        try
        {
            for (int i = 0; i < references.Count;)
            {
                cancellationToken.ThrowIfCancellationRequested();
                (int next, int clusters, ulong count) = await RunAsync(references, i).ConfigureAwait(false);
                HostOffset from = references[i].Place;
                while (clusters > 0)
                {
                    (HostOffset place, int got) = await Allocator.AllocateBelowAsync(held, clusters, limit).ConfigureAwait(false);
                    if (got == 0)
                    {
                        return;
                    }
                    int length = got << Geometry.ClusterBits;
                    await CopyTakenAsync(from, place, count, buffer.AsMemory(0, length), cancellationToken).ConfigureAwait(false);
                    for (; i < next && references[i].Place.Value < from.Value + length; i++)
                    {
                        HostOffset moved = place + (references[i].Place.Value - from.Value);
                        await SwitchEntryAsync(references[i], entry => entry.WithPlace(moved)).ConfigureAwait(false);
                    }
                    Refcounts.FreeAfterFlush(held, from, length, count);
                    (from, clusters) = (from + length, clusters - got);
                }
                i = next;
                await Qcow2Compactor.FlushIfMuchWaitsAsync(disk, held, cancellationToken).ConfigureAwait(false);
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
            HostOffset place = references[next].Place;
            int after = next;
            ulong found = 0;
            for (; after < references.Count && references[after].Place == place; after++)
            {
                found += references[after].References;
            }
            if (found != await Refcounts.GetAsync(place, CancellationToken.None).ConfigureAwait(false))
            {
                return clusters == 0 ? (after, 0, 0) : (next, clusters, common);
            }
            if (clusters > 0 && (found != common || place != references[start].Place + ((long)clusters << Geometry.ClusterBits)))
            {
                break;
            }
            (next, common) = (after, found);
            clusters++;
        }
        return (next, clusters, common);
    }

    /// <summary>
    /// Copies clusters to a place that was taken once, and counts it as often as it will be referred to. If that fails it is given back.
    /// </summary>
    private async ValueTask CopyTakenAsync(
        HostOffset from, HostOffset place, ulong references, Memory<byte> buffer, CancellationToken cancellationToken)
    {
        ulong taken = 1;
        try
        {
            await disk.RequireNotMetadataAsync(held, place, buffer.Length).ConfigureAwait(false);
            await disk.File.ReadPaddedAsync(from.Value, buffer, cancellationToken).ConfigureAwait(false);
            if (disk.Encryption?.Cipher is { IsByPlace: true } cipher)
            {
                cipher.Decrypt(buffer.Span, from.Value);
                cipher.Encrypt(buffer.Span, place.Value);
            }
            await disk.File.WriteAsync(place.Value, buffer, cancellationToken).ConfigureAwait(false);
            await Refcounts.AddAsync(held, place, buffer.Length, references - 1).ConfigureAwait(false);
            taken = references;
            disk.Session.Order.DataWritten();
        }
        catch
        {
            await Refcounts.FreeAsync(held, place, buffer.Length, taken).ConfigureAwait(false);
            throw;
        }
    }

    /// <summary>Moves compressed data, piece by piece, packed anew.</summary>
    private async ValueTask MoveCompressedAsync(List<DataReference> references, long limit, CancellationToken cancellationToken)
    {
        byte[] packed = ArrayPool<byte>.Shared.Rent(2 << Geometry.ClusterBits), plain = ArrayPool<byte>.Shared.Rent(Geometry.ClusterSize);
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
                var old = new L2Entry(references[i].Raw);
                HostOffset? follower = next < references.Count ? references[next].Place : null;
                ReadOnlyMemory<byte> data = await ReadPackedAsync(old, follower, packed, plain, cancellationToken).ConfigureAwait(false);
                if (!data.IsEmpty)
                {
                    if (await StorePackedAsync(data, count, limit, cancellationToken).ConfigureAwait(false) is not { } place)
                    {
                        return;
                    }
                    var moved = L2Entry.Compressed(place, data.Length, Geometry.ClusterBits);
                    for (; i < next; i++)
                    {
                        await SwitchEntryAsync(references[i], _ => moved).ConfigureAwait(false);
                        Tables.FreeData(held, old, references[i].References);
                    }
                }
                i = next;
                await Qcow2Compactor.FlushIfMuchWaitsAsync(disk, held, cancellationToken).ConfigureAwait(false);
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
    private async ValueTask<ReadOnlyMemory<byte>> ReadPackedAsync(
        L2Entry entry, HostOffset? follower, byte[] packed, byte[] plain, CancellationToken cancellationToken)
    {
        (HostOffset place, int length) = entry.CompressedRange(Geometry.ClusterBits);
        length = (int)Math.Min(length, disk.File.Length - place.Value);
        if (length <= 0 || length > packed.Length)
        {
            return default;
        }
        await disk.File.ReadAsync(place.Value, packed.AsMemory(0, length), cancellationToken).ConfigureAwait(false);
        long upTo = follower is { } next ? next.Value - place.Value : long.MaxValue;
        foreach (long end in (long[])[Math.Min(length, upTo), Math.Min(length, Geometry.ClusterSize - 1)])
        {
            if (end < Geometry.ClusterSize
                && disk.Compressed.Decompressor.TryDecompress(packed.AsSpan(0, (int)end), plain.AsSpan(0, Geometry.ClusterSize)))
            {
                return packed.AsMemory(0, (int)end);
            }
        }
        return default;
    }

    /// <summary>Stores compressed data for so many references below a limit; null if there is no room.</summary>
    private async ValueTask<HostOffset?> StorePackedAsync(
        ReadOnlyMemory<byte> data, ulong references, long limit, CancellationToken cancellationToken)
    {
        HostOffset place = await Allocator.AllocateBytesAsync(held, data.Length).ConfigureAwait(false);
        ulong taken = 1;
        try
        {
            long end = Geometry.Clusters((place + data.Length).Value);
            bool fits = end <= limit;
            for (long cluster = Geometry.ClusterOf(place); cluster < end; cluster++)
            {
                ulong count = await Refcounts.GetAsync(cluster, CancellationToken.None).ConfigureAwait(false);
                fits &= count - 1 <= Geometry.MaxRefcount - references;
            }
            if (!fits)
            {
                await Refcounts.FreeAsync(held, place, data.Length, times: 1).ConfigureAwait(false);
                return null;
            }
            await disk.RequireNotMetadataAsync(held, place, data.Length).ConfigureAwait(false);
            await disk.Compressed.WritePackedAsync(place, data, cancellationToken).ConfigureAwait(false);
            await Refcounts.AddAsync(held, place, data.Length, references - 1).ConfigureAwait(false);
            taken = references;
            disk.Session.Order.DataWritten();
            return place;
        }
        catch
        {
            await Refcounts.FreeAsync(held, place, data.Length, taken).ConfigureAwait(false);
            throw;
        }
    }

    private async ValueTask SwitchEntryAsync(DataReference reference, Func<L2Entry, L2Entry> change)
    {
        CachedPiece piece = await Tables.PieceOfAsync(reference.Table, reference.Index).ConfigureAwait(false);
        int index = Tables.IndexInPiece(reference.Index);
        Tables.Set(held, piece, index, change(Tables.EntryAt(piece, index)));
    }

    /// <summary>An L2 entry that leads to data.</summary>
    /// <param name="Place">Where the data begins.</param>
    /// <param name="Raw">The entry, without its subclusters.</param>
    /// <param name="Table">The host offset of its table.</param>
    /// <param name="Index">Its index there.</param>
    /// <param name="References">How many L1 entries lead to the table: so often the data is referred to.</param>
    private readonly record struct DataReference(HostOffset Place, ulong Raw, HostOffset Table, int Index, ulong References)
    {
        public static int InFileOrder(DataReference left, DataReference right)
            => (left.Place.Value, left.Raw).CompareTo((right.Place.Value, right.Raw));
    }
}
