using System.Numerics;
using DiskImage.Binary;
using DiskImage.Metadata;

namespace DiskImage.Formats.Vhdx;

/// <summary>
/// How a disk is cut up: payload blocks, chunks of as many blocks as one sector bitmap block describes, and the index of each in
/// the BAT, where the entry of a chunk's bitmap block follows those of its payload blocks. Spec: MS-VHDX 2.4, 2.5.
/// </summary>
internal sealed class VhdxGeometry
{
    public const int EntryBytes = 8;

    private readonly int _blockBits, _ratioBits;

    public VhdxGeometry(int blockSize, int sectorSize, long virtualSize)
    {
        (BlockSize, SectorSize, VirtualSize) = (blockSize, sectorSize, virtualSize);
        _blockBits = BitOperations.Log2((uint)blockSize);
        ChunkRatio = (int)((long)VhdxLayout.SectorsPerChunk * sectorSize / blockSize);
        _ratioBits = BitOperations.Log2((uint)ChunkRatio);
        Blocks = Round.Units(virtualSize, blockSize);
        Chunks = Round.Units(Blocks, ChunkRatio);
    }

    public int BlockSize { get; }

    /// <summary>Bytes of a logical sector, which one bit of the sector bitmap stands for.</summary>
    public int SectorSize { get; }

    public long VirtualSize { get; }

    /// <summary>Payload blocks per sector bitmap block.</summary>
    public int ChunkRatio { get; }

    /// <summary>Payload blocks of the disk.</summary>
    public long Blocks { get; }

    public long Chunks { get; }

    /// <summary>BAT entries up to the last payload block. Spec: 2.5, for fixed and dynamic disks.</summary>
    public long EntriesWithoutBitmaps => Blocks == 0 ? 0 : PayloadIndex(Blocks - 1) + 1;

    /// <summary>BAT entries with those of every chunk's bitmap block.</summary>
    public long EntriesWithBitmaps => Chunks * (ChunkRatio + 1L);

    public long BlockOf(GuestOffset guest) => guest.Value >> _blockBits;

    public long StartOf(long block) => block << _blockBits;

    public int InBlock(GuestOffset guest) => (int)(guest.Value & (BlockSize - 1));

    /// <summary>Bytes of a block that belong to the disk: fewer in the last one.</summary>
    public int BytesOf(long block) => (int)Math.Min(BlockSize, VirtualSize - StartOf(block));

    public long ChunkOf(long block) => block >> _ratioBits;

    /// <summary>BAT index of a payload block.</summary>
    public long PayloadIndex(long block) => block + (block >> _ratioBits);

    /// <summary>BAT index of a chunk's sector bitmap block.</summary>
    public long BitmapIndex(long chunk) => (chunk * (ChunkRatio + 1L)) + ChunkRatio;

    /// <summary>True if a BAT index is that of a sector bitmap block.</summary>
    public bool IsBitmapIndex(long index) => index % (ChunkRatio + 1L) == ChunkRatio;

    /// <summary>The payload block of a BAT index that is not that of a bitmap block.</summary>
    public long BlockAt(long index) => index - (index / (ChunkRatio + 1L));

    /// <summary>True if the entry at a BAT index means a block of the disk. Others are stale, whatever they say.</summary>
    public bool IsInUse(long index, bool hasParent)
        => IsBitmapIndex(index)
            ? index / (ChunkRatio + 1L) < Chunks && (hasParent || index < EntriesWithoutBitmaps)
            : BlockAt(index) < Blocks;

    /// <summary>Bit of a sector in its chunk's bitmap block.</summary>
    public int BitOf(GuestOffset guest) => (int)(guest.Value / SectorSize) & (VhdxLayout.SectorsPerChunk - 1);

    public VhdxGeometry WithSize(long virtualSize) => new(BlockSize, SectorSize, virtualSize);
}
