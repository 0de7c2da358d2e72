using System.Buffers;
using System.Runtime.InteropServices;
using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Vmdk;

/// <summary>
/// Where the grains of a sparse extent lie: any sector behind the header. Everything else, tables too, stays where it is.
/// </summary>
/// <remarks>
/// The file is read as it is, so nothing may be waiting to be written. A table that lies on one that was seen before is not looked into:
/// the work follows the file, not what its directory claims.
/// </remarks>
internal sealed class VmdkLayout(BlockNode file, VmdkGrainTables tables) : IBlockLayout
{
    private const int ReadBytes = 1 << 20;

    private IReadOnlyList<FileRange>? _structures;

    private VmdkHeader Header => tables.Header;

    public BlockNode File => file;

    /// <summary>In the order of places, without overlaps: neighbours are one.</summary>
    public IReadOnlyList<FileRange> Structures => _structures ??= FindStructures();

    public long Limit => file.Length;

    public long BlockBytes => Header.GrainBytes;

    public long Alignment => VmdkHeader.SectorSize;

    public long PlaceAt(long offset) => VmdkSpace.PlaceAt(offset, Header.GrainBytes);

    /// <summary>A table has another place, or there is a new one.</summary>
    public void Changed() => _structures = null;

    public ValueTask EachStoredAsync(Action<StoredBlock> each, CancellationToken cancellationToken)
        => WalkAsync((grain, entry) => each(new(entry.Place, Header.GrainBytes, grain)), cancellationToken);

    /// <summary>The first sectors of all grains that are stored, in the order of the file.</summary>
    public async ValueTask<uint[]> SectorsAsync(CancellationToken cancellationToken)
    {
        var sectors = new List<uint>();
        await WalkAsync((_, entry) => sectors.Add(entry.Value), cancellationToken).ConfigureAwait(false);
        CollectionsMarshal.AsSpan(sectors).Sort();
        return [.. sectors];
    }

    /// <summary>Gives every entry that says it is a place.</summary>
    public async ValueTask WalkAsync(Action<long, VmdkEntry> each, CancellationToken cancellationToken)
    {
        var seen = new HashSet<uint>(); // sectors that hold tables
        byte[] buffer = ArrayPool<byte>.Shared.Rent(ReadBytes);
        try
        {
            int first = -1, count = 0; // tables that lie one behind the other
            foreach ((int index, VmdkEntry table) in tables.Directory.Used())
            {
                if (!tables.IsTable(table) || tables.IsZeroed(table) || !IsNew(seen, table))
                {
                    continue;
                }
                if (count > 0
                    && (index != first + count || table.Place != tables.Directory[first].Place + ((long)count * tables.TableBytes)))
                {
                    await WalkTablesAsync(first, count, buffer, each, cancellationToken).ConfigureAwait(false);
                    count = 0;
                }
                first = count == 0 ? index : first;
                count++;
            }
            await WalkTablesAsync(first, count, buffer, each, cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }
    }

    public (long Offset, long Length) GuestRange(long index)
    {
        long offset = index * Header.GrainBytes;
        return (offset, Math.Clamp(Header.Length - offset, 0, Header.GrainBytes));
    }

    public string NameOf(long index) => $"grain {index:#,0}";

    public ValueTask RelinkAsync(MetadataSession.Held held, long index, long place) => tables.SetAsync(held, index, VmdkEntry.At(place));

    public ValueTask DropAsync(MetadataSession.Held held, long index) => tables.SetAsync(held, index, default);

    /// <summary>Programs want the file to have all that the header calls overhead.</summary>
    public ValueTask SetLimitAsync(MetadataSession.Held held, long limit) => file.ResizeAsync(Math.Max(limit, LeastEnd));

    /// <summary>Where the file may end at the earliest.</summary>
    public long LeastEnd => Math.Min(file.Length, Header.Overhead * VmdkHeader.SectorSize);

    /// <summary>Where the last of a directory and its tables is.</summary>
    public long LastOf(BlockTable<VmdkEntry> directory)
        => Math.Max(directory.HostOffset, TableSectors(directory) is [.., uint last] ? (long)last * VmdkHeader.SectorSize : 0);

    /// <summary>The places of a directory's tables, in the order of the file, each once.</summary>
    public uint[] TableSectors(BlockTable<VmdkEntry> directory)
    {
        var sectors = new List<uint>();
        foreach ((_, VmdkEntry table) in directory.Used())
        {
            if (tables.IsTable(table) && !tables.IsZeroed(table))
            {
                sectors.Add(table.Value);
            }
        }
        CollectionsMarshal.AsSpan(sectors).Sort();
        return [.. sectors];
    }

    /// <summary>The header, the descriptor and the directories.</summary>
    public IReadOnlyList<FileRange> FixedStructures()
    {
        long directory = Round.Up(Header.DirectoryEntries * (long)sizeof(uint), VmdkHeader.SectorSize);
        var ranges = new List<FileRange> { new(0, Header.Bytes, "the header") };
        if (Header.DescriptorSector > 0 && Header.DescriptorSectors > 0)
        {
            long start = Header.DescriptorSector * VmdkHeader.SectorSize;
            ranges.Add(new(start, start + VmdkDescriptorStore.RoomOf(Header), "the descriptor"));
        }
        ranges.Add(new(tables.Directory.HostOffset, tables.Directory.HostOffset + directory, "the grain directory"));
        if (tables.Redundant.Count > 0)
        {
            ranges.Add(new(tables.Redundant.HostOffset, tables.Redundant.HostOffset + directory, "the redundant grain directory"));
        }
        ranges.Sort(static (a, b) => a.Start.CompareTo(b.Start));
        return ranges;
    }

    private List<FileRange> FindStructures()
    {
        List<FileRange> all = [.. FixedStructures()];
        long bytes = Round.Up(tables.TableBytes, VmdkHeader.SectorSize);
        foreach (BlockTable<VmdkEntry> directory in new[] { tables.Directory, tables.Redundant })
        {
            long start = -1, end = -1;
            foreach (uint sector in TableSectors(directory))
            {
                long place = (long)sector * VmdkHeader.SectorSize;
                if (place > end)
                {
                    AddTables(start, end);
                    start = place;
                }
                end = Math.Max(end, place + bytes);
            }
            AddTables(start, end);
        }
        all.Sort(static (a, b) => a.Start.CompareTo(b.Start));
        var merged = new List<FileRange>();
        foreach (FileRange range in all)
        {
            if (merged.Count > 0 && range.Start <= merged[^1].End)
            {
                merged[^1] = new(merged[^1].Start, Math.Max(merged[^1].End, range.End), "the header and the tables");
            }
            else
            {
                merged.Add(range);
            }
        }
        return merged;

        void AddTables(long start, long end)
        {
            if (start >= 0)
            {
                all.Add(new(start, end, "a grain table"));
            }
        }
    }

    private bool IsNew(HashSet<uint> seen, VmdkEntry table)
    {
        uint count = (uint)Round.Units(tables.TableBytes, VmdkHeader.SectorSize);
        for (uint i = 0; i < count; i++)
        {
            if (seen.Contains(table.Value + i))
            {
                return false;
            }
        }
        for (uint i = 0; i < count; i++)
        {
            _ = seen.Add(table.Value + i);
        }
        return true;
    }

    private async ValueTask WalkTablesAsync(int first, int count, byte[] buffer, Action<long, VmdkEntry> each,
        CancellationToken cancellationToken)
    {
        if (count == 0)
        {
            return;
        }
        long place = tables.Directory[first].Place, length = (long)count * tables.TableBytes, grain = (long)first * Header.TableEntries;
        for (long done = 0; done < length;)
        {
            cancellationToken.ThrowIfCancellationRequested();
            BlockExtent extent = await file.GetExtentAsync(place + done, length - done, cancellationToken).ConfigureAwait(false);
            long run = extent.Length < sizeof(uint) ? sizeof(uint) : Round.Down(extent.Length, sizeof(uint));
            if (!extent.IsZero || extent.Length < sizeof(uint))
            {
                run = Math.Min(run, ReadBytes);
                await file.ReadAsync(place + done, buffer.AsMemory(0, (int)run), cancellationToken).ConfigureAwait(false);
                Entries(buffer.AsSpan(0, (int)run), grain + (done / sizeof(uint)), each);
            }
            done += run;
        }
    }

    private void Entries(ReadOnlySpan<byte> bytes, long grain, Action<long, VmdkEntry> each)
    {
        ReadOnlySpan<uint> entries = MemoryMarshal.Cast<byte, uint>(bytes);
        for (int i = 0; i < entries.Length; i++)
        {
            if (entries[i] != 0 && VmdkEntry.Read(bytes[(i * sizeof(uint))..]) is var entry && !tables.IsZeroed(entry))
            {
                each(grain + i, entry);
            }
        }
    }
}
