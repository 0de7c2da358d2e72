using DiskImage.Binary;
using DiskImage.Metadata;

namespace DiskImage.Formats.Vpc;

/// <summary>Where everything but the blocks lies in a dynamic disk's file, and how much a block takes.</summary>
internal sealed class VpcLayout
{
    /// <summary>
    /// Data of new blocks begins at multiples of this, as Windows does it: pages and holes of host and guest then agree. Ours.
    /// </summary>
    private const int DataAlignment = 4096;

    private readonly List<FileRange> _structures = [];

    public VpcLayout(VpcFooter footer, VpcHeader header, long fileLength, VpcBatmap? batmap = null)
    {
        BlockSize = header.BlockSize;
        BitmapBytes = (int)Round.Up(Round.Units(BlockSize / VpcGeometry.SectorSize, 8), VpcGeometry.SectorSize);
        IsAligned = BlockSize >= 16 * DataAlignment; // else the padding would be a good part of the file
        _structures.Add(new(0, VpcFooter.Length, "the footer's copy"));
        _structures.Add(new((long)footer.DataOffset, (long)footer.DataOffset + VpcHeader.Length, "the dynamic header"));
        _structures.Add(new(header.TableOffset, TableEnd(header.TableOffset, header.MaxTableEntries), "the block allocation table"));
        foreach (VpcLocator locator in header.Locators)
        {
            if (locator.HasData(fileLength))
            {
                _structures.Add(new(locator.Extent.Start, locator.Extent.End, "a parent locator"));
            }
        }
        _structures.AddRange(batmap?.Regions ?? []);
        _structures.Sort(static (a, b) => a.Start.CompareTo(b.Start));
    }

    public long BlockSize { get; }

    /// <summary>Bytes of a block's sector bitmap: a bit per sector, rounded up to whole sectors.</summary>
    public int BitmapBytes { get; }

    /// <summary>Bytes of a block with its bitmap.</summary>
    public long Span => BitmapBytes + BlockSize;

    /// <summary>Bytes from one new block to the next.</summary>
    public long Stride => IsAligned ? Round.Up(Span, DataAlignment) : Span;

    public bool IsAligned { get; }

    /// <summary>In the order of their offsets.</summary>
    public IReadOnlyList<FileRange> Structures => _structures;

    /// <summary>Where the last structure ends.</summary>
    public long StructuresEnd => Round.Up(_structures.Max(s => s.End), VpcGeometry.SectorSize);

    /// <summary>Where a table of a number of entries ends: it takes whole sectors.</summary>
    public static long TableEnd(long offset, long entries) => Round.Up(offset + (entries * 4), VpcGeometry.SectorSize);

    /// <summary>Where the block of an entry begins, with its bitmap; for an entry that is in use.</summary>
    public static HostOffset PlaceOf(BigBlockEntry entry) => new((long)entry.Value * VpcGeometry.SectorSize);

    /// <summary>The entry of a block that begins at an offset.</summary>
    public static BigBlockEntry EntryOf(HostOffset place) => new((uint)(place.Value / VpcGeometry.SectorSize));

    /// <summary>The first good place for a block at or after an offset.</summary>
    public long PlaceAt(long offset)
        => IsAligned ? Round.Up(offset + BitmapBytes, DataAlignment) - BitmapBytes : Round.Up(offset, VpcGeometry.SectorSize);

    /// <summary>The structure that a range would overwrite; null if none.</summary>
    public string? Overlap(long start, long end)
    {
        foreach (FileRange structure in _structures)
        {
            if (structure.Meets(start, end))
            {
                return structure.What;
            }
        }
        return null;
    }
}
