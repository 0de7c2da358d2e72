using System.Buffers.Binary;
using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Vmdk;

/// <summary>An entry of a grain directory or a grain table: a sector; 0 for none.</summary>
internal readonly record struct VmdkEntry(uint Value) : IBlockEntry<VmdkEntry>
{
    public static int Size => sizeof(uint);

    public static byte Filler => 0;

    /// <summary>The offset in the file.</summary>
    public long Place => (long)Value * VmdkHeader.SectorSize;

    public static VmdkEntry At(long place) => new((uint)(place / VmdkHeader.SectorSize));

    public static VmdkEntry Read(ReadOnlySpan<byte> bytes) => new(BinaryPrimitives.ReadUInt32LittleEndian(bytes));

    public void Write(Span<byte> bytes) => BinaryPrimitives.WriteUInt32LittleEndian(bytes, Value);
}

/// <summary>
/// The grain directory and the grain tables of a sparse extent with entries of 32 bits, and their redundant copies, which follow each
/// change.
/// Spec: Virtual Disk Format 5.0, "Hosted Sparse Extent Metadata".
/// </summary>
/// <remarks>
/// <para>
/// The directories are in memory, of the tables what was used last. Written back in this order: tables, redundant directory, directory.
/// </para>
/// <para>
/// What the first copy does not tell, since it leads out of the file, the redundant one does, to read; to write both must be sound.
/// </para>
/// <para>The session's lock guards it.</para>
/// </remarks>
internal sealed class VmdkGrainTables
{
    /// <summary>The entry of a grain or a table that is zero, where the extent has such entries.</summary>
    public const uint Zeroed = 1;

    private const int CacheBytes = 32 << 20; // as much as is kept of qcow2's L2 tables

    private readonly BlockNode _file;
    private readonly MetadataCache _tables;

    public VmdkGrainTables(BlockNode file, MetadataSession session, VmdkHeader header)
    {
        (_file, Header) = (file, header);
        _tables = new MetadataCache(session.Order, TableBytes, CacheBytes)
        {
            Events = (DebugEvent.L2Load, DebugEvent.L2Update),
        };
        Redundant = new BlockTable<VmdkEntry>(session.Order);
        Directory = new BlockTable<VmdkEntry>(session.Order);
    }

    /// <summary>The header as it is in the file.</summary>
    public VmdkHeader Header { get; private set; }

    /// <summary>The grain directory.</summary>
    public BlockTable<VmdkEntry> Directory { get; }

    /// <summary>Its redundant copy; empty if there is none, or none that can be read.</summary>
    public BlockTable<VmdkEntry> Redundant { get; }

    /// <summary>True if the first directory is not in the file as a whole, so that the other stands for it.</summary>
    public bool IsDirectoryLost { get; private set; }

    /// <summary>Bytes of a grain table.</summary>
    public int TableBytes => Header.TableEntries * sizeof(uint);

    /// <summary>Grain tables.</summary>
    public int Count => Header.DirectoryEntries;

    /// <summary>Takes another header, which is in the file.</summary>
    public void Take(VmdkHeader header) => Header = header;

    /// <summary>Reads the directories.</summary>
    /// <exception cref="DiskImageException">Corrupt: neither can be read.</exception>
    public async ValueTask LoadAsync(CancellationToken cancellationToken)
    {
        _tables.Clear();
        bool hasFirst = IsInFile(Header.DirectorySector), hasSecond = Header.HasRedundant && IsInFile(Header.RedundantSector);
        if (!hasFirst && !hasSecond)
        {
            throw Corrupt(
                $"the grain directory is said to be at sector {Header.DirectorySector:#,0}; allowed: behind the header, with its"
                    + $" {Count:#,0} entries in the file of {_file.Length:#,0} bytes",
                56);
        }
        IsDirectoryLost = !hasFirst;
        await LoadAsync(Directory, hasFirst ? Header.DirectorySector : Header.RedundantSector, cancellationToken).ConfigureAwait(false);
        if (hasFirst && hasSecond)
        {
            await LoadAsync(Redundant, Header.RedundantSector, cancellationToken).ConfigureAwait(false);
        }
        else
        {
            Redundant.Replace(0, []);
        }
    }

    /// <summary>The table for a grain.</summary>
    public int IndexOf(long grain) => (int)(grain / Header.TableEntries);

    /// <summary>True if a place can be that of a grain table.</summary>
    public bool IsTable(VmdkEntry entry) => entry.Value > 0 && entry.Place <= _file.Length - TableBytes;

    /// <summary>True if an entry can be that of a grain.</summary>
    public bool IsGrain(VmdkEntry entry) => entry.Value > 0 && entry.Place < _file.Length;

    /// <summary>True if an entry says that a grain, or all of a table, is zero.</summary>
    public bool IsZeroed(VmdkEntry entry) => entry.Value == Zeroed && Header.HasZeroedGrains;

    /// <summary>The bytes of the table for a grain; null if there is none.</summary>
    /// <exception cref="DiskImageException">Corrupt: the directory's entry leads to no table, and the redundant one neither.</exception>
    public async ValueTask<CachedPiece?> TableAsync(long grain, CancellationToken cancellationToken)
    {
        int index = IndexOf(grain);
        VmdkEntry table = Directory[index];
        if (table.Value == 0 || IsZeroed(table))
        {
            return null;
        }
        if (!IsTable(table))
        {
            VmdkEntry other = index < Redundant.Count ? Redundant[index] : default;
            table = IsTable(other) ? other : throw Corrupt(
                $"the grain directory's entry {index:#,0} (guest offset {index * Header.Span:#,0}) leads to sector"
                    + $" {table.Value:#,0}, where no grain table of {TableBytes:#,0} bytes"
                    + $" is in the file of {_file.Length:#,0} bytes",
                Directory.HostOffset + (index * (long)sizeof(uint)));
        }
        return await _tables.GetAsync(table.Place, cancellationToken).ConfigureAwait(false);
    }

    /// <summary>The entry of a grain in a table that <see cref="TableAsync"/> gave.</summary>
    public VmdkEntry EntryIn(CachedPiece? table, long grain)
        => table is not null ? VmdkEntry.Read(table.Bytes.AsSpan((int)(grain % Header.TableEntries) * sizeof(uint)))
            : Directory[IndexOf(grain)]; // 0, or 1 for a table of zeroed grains

    /// <summary>The entry of a grain.</summary>
    public async ValueTask<VmdkEntry> GetAsync(long grain, CancellationToken cancellationToken)
        => EntryIn(await TableAsync(grain, cancellationToken).ConfigureAwait(false), grain);

    /// <summary>Changes the entry of a grain, whose table is there, in both copies.</summary>
    public async ValueTask SetAsync(MetadataSession.Held held, long grain, VmdkEntry entry)
    {
        _ = held; // the proof is all that is wanted
        int index = IndexOf(grain), at = (int)(grain % Header.TableEntries) * sizeof(uint);
        VmdkEntry first = Directory[index], second = index < Redundant.Count ? Redundant[index] : default;
        foreach (VmdkEntry table in new[] { first, second })
        {
            if (IsTable(table) && !IsZeroed(table))
            {
                CachedPiece piece = await _tables.GetAsync(table.Place, CancellationToken.None).ConfigureAwait(false);
                entry.Write(piece.Bytes.AsSpan(at));
                _tables.Changed(piece, at, sizeof(uint));
            }
        }
    }

    /// <summary>Makes sure that the table for a grain is there, in both copies.</summary>
    public async ValueTask RequireTableAsync(MetadataSession.Held held, long grain, VmdkSpace space)
    {
        int index = IndexOf(grain);
        VmdkEntry old = Directory[index];
        if (old.Value != 0 && !IsZeroed(old))
        {
            return;
        }
        foreach (BlockTable<VmdkEntry> directory in new[] { Directory, Redundant })
        {
            if (index < directory.Count)
            {
                long place = space.AllocateSectors(held, TableBytes);
                if (_file.Length < place + TableBytes)
                {
                    await _file.ResizeAsync(place + TableBytes).ConfigureAwait(false);
                }
                CachedPiece piece = await _tables.GetNewAsync(place).ConfigureAwait(false);
                for (int i = 0; i < Header.TableEntries && old.Value != 0; i++)
                {
                    old.Write(piece.Bytes.AsSpan(i * sizeof(uint)));
                }
                directory.Set(held, index, VmdkEntry.At(place));
            }
        }
    }

    /// <summary>Forgets what is in memory of a range of the file that holds no table any more, or another one.</summary>
    public void Forget(long place, long length) => _tables.Forget(place, length);

    /// <summary>The error for something wrong in the tables.</summary>
    public DiskImageException Corrupt(string what, long offset)
        => new(DiskImageErrorKind.Corrupt, $"{_file.Name}: {what}. Look at all of it with {new Remedy(RemedyKind.Check)}.", _file.Name,
            offset);

    private bool IsInFile(ulong sector)
        => sector > 0 && sector <= VmdkHeader.MaxSectors
            && ((long)sector * VmdkHeader.SectorSize) + (Count * (long)sizeof(uint)) <= _file.Length;

    private ValueTask LoadAsync(BlockTable<VmdkEntry> directory, ulong sector, CancellationToken cancellationToken)
        => directory.LoadAsync((long)sector * VmdkHeader.SectorSize, Count, cancellationToken);
}
