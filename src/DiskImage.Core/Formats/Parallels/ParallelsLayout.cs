using System.Buffers.Binary;
using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Parallels;

/// <summary>An entry of the BAT: 0 for a cluster that is nowhere.</summary>
internal readonly record struct BatEntry(uint Value) : IBlockEntry<BatEntry>
{
    public static int Size => sizeof(uint);

    public static byte Filler => 0;

    public static BatEntry Read(ReadOnlySpan<byte> bytes) => new(BinaryPrimitives.ReadUInt32LittleEndian(bytes));

    public void Write(Span<byte> bytes) => BinaryPrimitives.WriteUInt32LittleEndian(bytes, Value);
}

/// <summary>Where the clusters lie: at whole clusters from the data's beginning on, which an entry says from the file's
/// beginning.</summary>
internal sealed class ParallelsLayout(BlockNode file, ParallelsHeader header, BlockTable<BatEntry> bat) : TableLayout<BatEntry>(file, bat)
{
    /// <summary>The header as it is in the file.</summary>
    public ParallelsHeader Header { get; set; } = header;

    /// <summary>The format extension; null for none, and for one that cannot be read.</summary>
    public ParallelsExtension? Extension { get; set; }

    public override IReadOnlyList<FileRange> Structures
    {
        get
        {
            FileRange[] fixedOnes =
            [
                new(0, ParallelsHeader.Length, "the header"),
                new(ParallelsHeader.Length, Header.TableEnd, "the BAT"),
                new(Header.TableEnd, Header.DataStart, "the space before the data"),
            ];
            return Extension is null ? fixedOnes : [.. fixedOnes, .. Extension.Clusters];
        }
    }

    /// <summary>Where the disk ends within its last cluster, that need not be in the file as a whole.</summary>
    public override long Limit
    {
        get
        {
            long length = File.Length, rest = DiskSize % BlockBytes;
            if (rest == 0 || !IsStored(Table[(int)(DiskSize / BlockBytes)]))
            {
                return length;
            }
            long place = PlaceOf(Table[(int)(DiskSize / BlockBytes)]);
            return place + rest <= length ? Math.Max(length, place + BlockBytes) : length;
        }
    }

    public override long BlockBytes => Header.ClusterSize;

    public override long DiskSize => Header.DiskSize;

    public override long FirstPlace => Header.DataStart;

    public override long LastPlace => (long)uint.MaxValue * Header.EntryUnit;

    protected override string BlockName => "cluster";

    public override bool IsStored(BatEntry entry) => entry.Value != 0;

    public override long PlaceOf(BatEntry entry) => (long)entry.Value * Header.EntryUnit;

    public override BatEntry EntryOf(long place) => new((uint)(place / Header.EntryUnit));

    public override long PlaceAt(long offset)
    {
        long start = Header.DataStart;
        return offset <= start ? start : start + (ParallelsHeader.UnitsOf(offset - start, BlockBytes) * BlockBytes);
    }
}
