using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Vmdk;

/// <summary>Where new grains go: into gaps, the lowest first, else to the end of the file.</summary>
/// <remarks>
/// Grains begin at any sector of a file of up to 2 TiB, so what is free is kept as gaps, made from the sorted places of the grains: 4 bytes
/// a grain while it is made, 32 bytes a gap afterwards.
/// </remarks>
internal sealed class VmdkSpace : FileSpace
{
    private readonly BlockNode _file;
    private readonly long _grain;
    private readonly PriorityQueue<FileRange, long> _gaps = new(); // each begins where a grain lies well, and holds one

    /// <summary>Takes the grains that are stored.</summary>
    /// <param name="file">The file.</param>
    /// <param name="grainBytes">Bytes of a grain.</param>
    /// <param name="structures">Everything else that lies in the file, in order.</param>
    /// <param name="sectors">The grains' first sectors, in order.</param>
    public VmdkSpace(BlockNode file, long grainBytes, IReadOnlyList<FileRange> structures, ReadOnlySpan<uint> sectors)
    {
        (_file, _grain) = (file, grainBytes);
        int next = 0;
        long at = 0;
        foreach (uint sector in sectors)
        {
            long place = (long)sector * VmdkHeader.SectorSize;
            for (; next < structures.Count && structures[next].Start < place; next++)
            {
                Add(at, structures[next].Start);
                at = Math.Max(at, structures[next].End);
            }
            Add(at, place);
            at = Math.Max(at, place + grainBytes);
        }
        for (; next < structures.Count; next++)
        {
            Add(at, structures[next].Start);
            at = Math.Max(at, structures[next].End);
        }
        End = at;
        ZeroFrom = Round.Up(file.Length, VmdkHeader.SectorSize);
    }

    /// <summary>Where what is used ends.</summary>
    public long End { get; private set; }

    /// <summary>From here on the file reads as zeroes.</summary>
    public long ZeroFrom { get; private set; }

    /// <summary>Something was given up and not used again.</summary>
    public bool HasGaps => _gaps.Count > 0;

    /// <summary>The first good place at or after an offset.</summary>
    public static long PlaceAt(long offset, long grainBytes) => Round.Up(offset, grainBytes);

    /// <summary>A place for as many grains, one behind the other, as there is room for: at least 1.</summary>
    public (long Place, long Grains) Allocate(MetadataSession.Held held, long most)
    {
        _ = held; // the proof is all that is wanted
        long count = most;
        if (_gaps.TryDequeue(out FileRange gap, out long place))
        {
            count = Math.Min(most, (gap.End - place) / _grain);
            Add(place + (count * _grain), gap.End);
        }
        else
        {
            place = PlaceAt(End, _grain);
            End = Reach(place + (count * _grain));
        }
        return (place, count);
    }

    /// <summary>Sectors for a table, at the end.</summary>
    public long AllocateSectors(MetadataSession.Held held, long bytes)
    {
        _ = held;
        long place = Round.Up(End, VmdkHeader.SectorSize);
        End = Reach(place + Round.Up(bytes, VmdkHeader.SectorSize));
        return place;
    }

    public override ValueTask FreeAsync(MetadataSession.Held held, long offset, long length)
    {
        Free(held, offset, length);
        return default;
    }

    /// <summary>Gives space back that nothing in the file, as it is on the disk, refers to.</summary>
    public void Free(MetadataSession.Held held, long offset, long length)
    {
        _ = held;
        ZeroFrom = Math.Max(ZeroFrom, offset + length); // something may have been written there
        if (offset + length == End)
        {
            End = offset;
            return;
        }
        for (long place = offset; place + _grain <= offset + length; place += _grain)
        {
            _gaps.Enqueue(new(place, place + _grain), place); // where a grain was, one fits
        }
    }

    private void Add(long start, long end)
    {
        long place = PlaceAt(start, _grain);
        if (end - place >= _grain)
        {
            _gaps.Enqueue(new(place, end), place);
        }
    }

    private long Reach(long end)
        => end / VmdkHeader.SectorSize <= uint.MaxValue ? end : throw new DiskImageException(
            DiskImageErrorKind.NoSpace, $"{_file.Name}: a sparse extent's file of {end:#,0} bytes is out of reach for its grain"
                + " tables, which reach 2 TiB", _file.Name, end);
}
