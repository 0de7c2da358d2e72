using System.Buffers.Binary;
using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Qed;

/// <summary>An entry of an L1 table, little-endian; 0 for none.</summary>
internal readonly record struct QedEntry(ulong Value) : IBlockEntry<QedEntry>
{
    public static int Size => sizeof(ulong);

    public static byte Filler => 0;

    public static QedEntry Read(ReadOnlySpan<byte> bytes) => new(BinaryPrimitives.ReadUInt64LittleEndian(bytes));

    public void Write(Span<byte> bytes) => BinaryPrimitives.WriteUInt64LittleEndian(bytes, Value);
}

/// <summary>The two levels of tables: the L1 table in memory, pieces of L2 tables in a cache, written back in this order: L2, L1.</summary>
/// <remarks>The session's lock guards it.</remarks>
internal sealed class QedTables
{
    /// <summary>L2 entries that are no places: a cluster that is nowhere, one that reads as zeroes. Spec: QED, "Tables".</summary>
    public const ulong Nowhere = 0, Zero = 1;

    private const int MaxPiece = 64 << 10;
    private const int CacheBytes = 32 << 20; // as much as is kept of qcow2's L2 tables
    private const int MostL1Entries = 2 << 20; // kept in memory beyond those that the disk needs. Ours

    private readonly BlockNode _file;
    private readonly MetadataSession _session;
    private readonly MetadataCache _l2;

    public QedTables(BlockNode file, MetadataSession session, QedHeader header)
    {
        (_file, _session, Header) = (file, session, header);
        _l2 = new MetadataCache(session.Order, Math.Min(header.ClusterSize, MaxPiece), CacheBytes)
        {
            Events = (DebugEvent.L2Load, DebugEvent.L2Update),
        };
        L1 = new BlockTable<QedEntry>(session.Order);
    }

    /// <summary>The header as it is in the file.</summary>
    public QedHeader Header { get; private set; }

    /// <summary>The L1 table, as far as the disk can need it.</summary>
    public BlockTable<QedEntry> L1 { get; }

    /// <summary>Entries of a piece of an L2 table.</summary>
    public int PieceEntries => _l2.PieceSize / QedHeader.EntryBytes;

    /// <summary>Reads the L1 table: all of it, but of one that reaches past any disk only what this disk needs.</summary>
    public ValueTask LoadAsync(CancellationToken cancellationToken)
    {
        int needed = (int)Binary.Round.Units(Header.ImageSize, Header.Span); // bounded by the largest size: 2^21 at most
        return L1.LoadAsync(Header.L1Offset, Math.Max(needed, Math.Min(Header.TableEntries, MostL1Entries)), cancellationToken);
    }

    /// <summary>Forgets what is in memory and reads it anew. There must be no changes left to write.</summary>
    /// <param name="header">The header as it is in the file now.</param>
    /// <param name="cancellationToken">Stops it.</param>
    public ValueTask ReloadAsync(QedHeader header, CancellationToken cancellationToken)
    {
        Header = header;
        _l2.Clear();
        return LoadAsync(cancellationToken);
    }

    /// <summary>Writes another header and makes it durable.</summary>
    public async ValueTask SetHeaderAsync(MetadataSession.Held held, QedHeader header)
    {
        _ = held; // the proof is all that is wanted
        await _file.WriteAsync(0, header.ToBytes()).ConfigureAwait(false);
        await _file.FlushAsync().ConfigureAwait(false);
        Header = header;
    }

    /// <summary>The L1 entry for a cluster.</summary>
    public int L1Index(long cluster) => (int)(cluster / Header.TableEntries);

    /// <summary>The entry of a cluster in a piece that <see cref="PieceAsync"/> gave.</summary>
    public ulong EntryIn(CachedPiece piece, long cluster)
        => BinaryPrimitives.ReadUInt64LittleEndian(piece.Bytes.AsSpan((int)(cluster % PieceEntries) * QedHeader.EntryBytes));

    /// <summary>The piece of the L2 table with a cluster's entry; null if there is no table.</summary>
    /// <exception cref="DiskImageException">Corrupt: the L1 entry leads to no table.</exception>
    public async ValueTask<CachedPiece?> PieceAsync(long cluster, CancellationToken cancellationToken)
    {
        ulong table = L1[L1Index(cluster)].Value;
        if (table == 0)
        {
            return null;
        }
        if (!IsPlace(table, Header.TableBytes))
        {
            throw Corrupt(
                $"the L1 entry for guest offset {cluster * Header.ClusterSize:#,0} leads to offset {table:#,0}; allowed: "
                    + $"a multiple of {Header.ClusterSize:#,0}"
                    + $" behind the header, with the table's {Header.TableBytes:#,0} bytes in the file of {_file.Length:#,0}",
                (long)(table & long.MaxValue));
        }
        long within = cluster % Header.TableEntries * QedHeader.EntryBytes;
        return await _l2.GetAsync((long)table + (within - (within % _l2.PieceSize)), cancellationToken).ConfigureAwait(false);
    }

    /// <summary>The entry of a cluster; <see cref="Nowhere"/> if there is no table.</summary>
    public async ValueTask<ulong> GetAsync(long cluster, CancellationToken cancellationToken)
        => await PieceAsync(cluster, cancellationToken).ConfigureAwait(false) is { } piece ? EntryIn(piece, cluster) : Nowhere;

    /// <summary>Changes the entry of a cluster, whose table is there.</summary>
    public async ValueTask SetAsync(MetadataSession.Held held, long cluster, ulong entry)
    {
        _ = held;
        CachedPiece piece = (await PieceAsync(cluster, CancellationToken.None).ConfigureAwait(false))!;
        int at = (int)(cluster % PieceEntries) * QedHeader.EntryBytes;
        BinaryPrimitives.WriteUInt64LittleEndian(piece.Bytes.AsSpan(at), entry);
        _l2.Changed(piece, at, QedHeader.EntryBytes);
    }

    /// <summary>Makes sure that the table for a cluster is there.</summary>
    /// <param name="held">The lock.</param>
    /// <param name="cluster">The cluster.</param>
    /// <param name="zeroFrom">From here on the file reads as zeroes.</param>
    public async ValueTask RequireTableAsync(MetadataSession.Held held, long cluster, long zeroFrom)
    {
        int index = L1Index(cluster);
        if (L1[index].Value != 0)
        {
            return;
        }
        var space = (SpaceMap)_session.Space!;
        long place = space.Allocate(held, Header.TableBytes);
        try
        {
            _l2.Forget(place, Header.TableBytes);
            if (place < zeroFrom)
            {
                await _file.WriteZeroesAsync(place, Math.Min(Header.TableBytes, _file.Length - place)).ConfigureAwait(false);
            }
            if (_file.Length < place + Header.TableBytes)
            {
                await _file.ResizeAsync(place + Header.TableBytes).ConfigureAwait(false);
            }
        }
        catch
        {
            space.Free(held, place, Header.TableBytes);
            throw;
        }
        _session.Order.DataWritten(); // the zeroes come before the entry
        L1.Set(held, index, new((ulong)place));
    }

    /// <summary>Gives a table up whose clusters were given up.</summary>
    public void DropTable(MetadataSession.Held held, int index)
    {
        long place = (long)L1[index].Value;
        L1.Set(held, index, default);
        _l2.Forget(place, Header.TableBytes);
        _session.Space?.FreeAfterFlush(held, place, Header.TableBytes);
    }

    /// <summary>A table was copied to another place.</summary>
    public void MoveTable(MetadataSession.Held held, int index, long place)
    {
        _l2.Forget(place, Header.TableBytes);
        L1.Set(held, index, new((ulong)place));
    }

    /// <summary>True if an entry is the offset of something that lies in the file as a whole.</summary>
    public bool IsPlace(ulong entry, long length)
        => entry % (ulong)Header.ClusterSize == 0 && entry >= (ulong)Header.HeaderEnd && entry <= (ulong)Math.Max(0, _file.Length - length);

    private DiskImageException Corrupt(Wording what, long offset)
        => new(
            DiskImageErrorKind.Corrupt,
            $"{_file.Name}: {what}. Look at all of it with {new Remedy(RemedyKind.Check)}.",
            _file.Name,
            offset);
}
