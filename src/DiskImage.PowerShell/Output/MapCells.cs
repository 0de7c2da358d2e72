using System.Numerics;
using DiskImage.Block;

namespace DiskImage.PowerShell;

/// <summary>How a part of a disk is stored.</summary>
internal enum MapKind
{
    /// <summary>No layer says anything: it reads as zeroes.</summary>
    Absent,

    /// <summary>A layer says that it reads as zeroes.</summary>
    Zero,

    /// <summary>Bytes of a backing image.</summary>
    Below,

    /// <summary>Bytes that are stored compressed.</summary>
    Compressed,

    /// <summary>Bytes that are stored as they are.</summary>
    Data,

    /// <summary>Marked by whoever looks.</summary>
    Marked,
}

/// <summary>A run of a picture's disk, of one kind.</summary>
/// <param name="Kind">How it is stored.</param>
/// <param name="Depth">The layer that decides: 0 for the image itself.</param>
/// <param name="Offset">Its first byte in the disk.</param>
/// <param name="Length">Bytes.</param>
internal readonly record struct MapRun(MapKind Kind, int Depth, long Offset, long Length);

/// <summary>A part of a disk as one cell of a picture: so many bytes of each kind.</summary>
internal sealed class MapCell
{
    private readonly long[] _bytes = new long[(int)MapKind.Marked + 1];

    /// <summary>The least deep of the backing layers that have a share.</summary>
    public int Depth { get; private set; } = int.MaxValue;

    public long this[MapKind kind] => _bytes[(int)kind];

    /// <summary>
    /// What is shown: marked if any of it is, else what most of its stored bytes are, else zero or absent, whichever is more.
    /// </summary>
    public MapKind Shown
    {
        get
        {
            if (this[MapKind.Marked] > 0)
            {
                return MapKind.Marked;
            }
            MapKind[] candidates = this[MapKind.Data] + this[MapKind.Compressed] + this[MapKind.Below] > 0
                ? [MapKind.Data, MapKind.Compressed, MapKind.Below]
                : [MapKind.Zero, MapKind.Absent];
            return candidates.MaxBy(k => this[k]);
        }
    }

    public void Add(MapKind kind, int depth, long bytes)
    {
        _bytes[(int)kind] += bytes;
        Depth = kind == MapKind.Below ? Math.Min(Depth, depth) : Depth;
    }
}

/// <summary>A disk, or a range of it, in cells of equal length.</summary>
internal sealed class MapCells
{
    private const int Smallest = 512; // bytes of a cell
    private readonly MapCell[] _cells;

    /// <summary>Cells for a range, nothing in them yet.</summary>
    /// <param name="offset">The first byte.</param>
    /// <param name="length">Bytes.</param>
    /// <param name="most">Cells at most.</param>
    public MapCells(long offset, long length, int most)
    {
        (Offset, Length) = (offset, length);
        CellBytes = (long)BitOperations.RoundUpToPowerOf2((ulong)Math.Max(Smallest, UnitsOf(length, most)));
        _cells = [.. Enumerable.Range(0, (int)UnitsOf(length, CellBytes)).Select(_ => new MapCell())];

        static long UnitsOf(long bytes, long unit) => (bytes / unit) + (bytes % unit > 0 ? 1 : 0);
    }

    public long Offset { get; }

    public long Length { get; }

    /// <summary>Bytes of a cell, but for the last one; a power of two.</summary>
    public long CellBytes { get; }

    public IReadOnlyList<MapCell> Cells => _cells;

    /// <summary>Bytes of each kind, and of each backing layer.</summary>
    public Dictionary<(MapKind Kind, int Depth), long> Totals { get; } = [];

    /// <summary>The kind of an extent.</summary>
    public static MapRun RunOf(in BlockExtent extent) => new(
        extent.IsZero || !extent.IsData ? extent.IsAllocated ? MapKind.Zero : MapKind.Absent
            : extent.Depth > 0 ? MapKind.Below
            : extent.IsCompressed ? MapKind.Compressed
            : MapKind.Data,
        extent.Depth, extent.Offset, extent.Length);

    /// <summary>Where the cell ends that an offset is in.</summary>
    public long EndOfCell(long offset) => Math.Min(Offset + Length, Offset + ((((offset - Offset) / CellBytes) + 1) * CellBytes));

    /// <summary>Adds what of a run is in the range.</summary>
    public void Add(in MapRun run)
    {
        long start = Math.Max(run.Offset, Offset), end = Math.Min(run.Offset + run.Length, Offset + Length);
        if (start >= end)
        {
            return;
        }
        (MapKind Kind, int Depth) key = (run.Kind, run.Kind == MapKind.Below ? run.Depth : 0);
        Totals[key] = Totals.GetValueOrDefault(key) + (end - start);
        for (long at = start; at < end;)
        {
            long cell = (at - Offset) / CellBytes, next = Math.Min(end, Offset + ((cell + 1) * CellBytes));
            _cells[cell].Add(run.Kind, run.Depth, next - at);
            at = next;
        }
    }
}
