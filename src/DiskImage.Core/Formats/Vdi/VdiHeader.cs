using System.Text;
using DiskImage.Binary;
using DiskImage.Block;

namespace DiskImage.Formats.Vdi;

/// <summary>What kind of disk a VDI holds.</summary>
internal enum VdiImageType
{
    /// <summary>Blocks are added as they are written to.</summary>
    Dynamic = 1,

    /// <summary>Every block has its place from the start.</summary>
    Static = 2,

    /// <summary>Changes that can be undone. Not supported.</summary>
    Undo = 3,

    /// <summary>Blocks that are nowhere are the parent's.</summary>
    Differencing = 4,
}

/// <summary>The header, the first 512 bytes of the file, version 1.1. Layout: see SPEC.md. All numbers are little-endian.</summary>
internal sealed record VdiHeader
{
    public const int Length = 512;

    /// <summary>Bytes of a sector; structures begin at multiples of it.</summary>
    public const int SectorSize = 512;

    /// <summary>Entries of a block map at most: what an array of .NET holds, half of QEMU's limit.</summary>
    public const uint MaximumBlocks = 0x1FFF_FFF0;

    private const int SignatureAt = 0x40, VersionAt = 0x44, SizeAt = 0x48, TypeAt = 0x4C, FlagsAt = 0x50, CommentAt = 0x54;
    private const int CommentLength = 256, MapAt = 0x154, DataAt = 0x158, GeometryAt = 0x15C, SectorAt = 0x168, DiskSizeAt = 0x170;
    private const int BlockSizeAt = 0x178, ExtraAt = 0x17C, BlocksAt = 0x180, AllocatedAt = 0x184, ImageIdAt = 0x188, SnapshotIdAt = 0x198;
    private const int LinkIdAt = 0x1A8, ParentIdAt = 0x1B8;

    private const uint Signature = 0xBEDA_107F, Version10 = 0x0001_0000, Version11 = 0x0001_0001, SizeOfVersion11 = 0x180;

    private readonly byte[] _bytes; // whatever this program does not know stays as it is

    private VdiHeader(byte[] bytes) => _bytes = bytes;

    public VdiImageType Type { get; init; }

    public string Comment { get; init; } = "";

    /// <summary>Where the block map begins.</summary>
    public long MapOffset { get; init; }

    /// <summary>Where block 0 of the file begins.</summary>
    public long DataOffset { get; init; }

    /// <summary>Virtual size in bytes.</summary>
    public long DiskSize { get; init; }

    public int BlockSize { get; init; }

    /// <summary>Entries of the block map.</summary>
    public int Blocks { get; init; }

    /// <summary>Blocks that are in the file: the next one goes to this place.</summary>
    public int Allocated { get; init; }

    /// <summary>Cylinders, heads and sectors for the guest, as they were when the disk was made.</summary>
    public (uint Cylinders, uint Heads, uint Sectors) Geometry { get; init; }

    /// <summary>The disk's identity: what its children record.</summary>
    public Guid ImageId { get; init; }

    /// <summary>The identity of its contents: another one after each session that changed them.</summary>
    public Guid SnapshotId { get; init; }

    /// <summary>The identity of the parent; empty for none.</summary>
    public Guid LinkId { get; init; }

    /// <summary>The identity of the parent's contents, as this disk was made on it; empty where it does not matter.</summary>
    public Guid ParentId { get; init; }

    /// <summary>True if blocks that are nowhere are the parent's.</summary>
    public bool IsDifferencing => Type == VdiImageType.Differencing;

    /// <summary>Where the map ends, in whole sectors.</summary>
    public long MapEnd => Round.Up(MapOffset + ((long)Blocks * sizeof(uint)), SectorSize);

    /// <summary>True if a file's first bytes are a VDI's.</summary>
    public static bool IsSigned(ReadOnlySpan<byte> file)
        => file.Length >= SignatureAt + 4 && LittleEndian.U32(file, SignatureAt) == Signature;

    /// <summary>The header of a child of another disk.</summary>
    /// <exception cref="DiskImageException">InvalidOption: the disk would be its own parent.</exception>
    public VdiHeader On(string name, VdiHeader parent)
        => parent.ImageId == ImageId
            ? throw new DiskImageException(
                DiskImageErrorKind.InvalidOption, $"{name}: its parent has the same UUID, {ImageId:B}. Give one of them another.", name)
            : this with { Type = VdiImageType.Differencing, LinkId = parent.ImageId, ParentId = parent.SnapshotId };

    /// <summary>The header with another remark.</summary>
    /// <exception cref="DiskImageException">InvalidOption: it is too long.</exception>
    public VdiHeader WithComment(string name, string comment)
        => Encoding.UTF8.GetByteCount(comment) < CommentLength && !comment.Contains('\0', StringComparison.Ordinal)
            ? this with { Comment = comment }
            : throw new DiskImageException(
                DiskImageErrorKind.InvalidOption, $"{name}: a comment has at most {CommentLength - 1} bytes in UTF-8 and no NUL", name);

    /// <summary>A header of a new image.</summary>
    public static VdiHeader New(VdiImageType type, long diskSize, int blockSize, int blocks, long mapOffset, long dataOffset)
        => new(NewBytes())
    {
        Type = type,
        DiskSize = diskSize,
        BlockSize = blockSize,
        Blocks = blocks,
        Allocated = type == VdiImageType.Static ? blocks : 0,
        MapOffset = mapOffset,
        DataOffset = dataOffset,
        ImageId = NewIdentity.Of("vdi image", type, diskSize, blockSize),
        SnapshotId = NewIdentity.Of("vdi snapshot", type, diskSize, blockSize),
    };

    /// <summary>Reads the header and checks every field by itself and against the others and the file's length.</summary>
    /// <exception cref="DiskImageException">InvalidFormat, Corrupt or Unsupported.</exception>
    public static async ValueTask<VdiHeader> ReadAsync(BlockNode file, CancellationToken cancellationToken)
    {
        byte[] bytes = new byte[Length];
        await file.ReadPaddedAsync(0, bytes, cancellationToken).ConfigureAwait(false);
        return Parse(bytes, file.Name, file.Length);
    }

    /// <summary>The header in the first bytes of a file, which it keeps.</summary>
    /// <exception cref="DiskImageException">InvalidFormat, Corrupt or Unsupported.</exception>
    public static VdiHeader Parse(byte[] bytes, string name, long fileLength)
    {
        if (!IsSigned(bytes))
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidFormat,
                $"{name}: not a VDI image: the signature at offset {SignatureAt} is missing",
                name,
                SignatureAt);
        }
        uint version = LittleEndian.U32(bytes, VersionAt);
        if (version is not (Version10 or Version11))
        {
            throw Unsupported(VersionAt, $"the version {version >> 16}.{version & 0xFFFF}; supported: 1.0, 1.1");
        }
        uint type = LittleEndian.U32(bytes, TypeAt), blockSize = LittleEndian.U32(bytes, BlockSizeAt);
        uint blocks = LittleEndian.U32(bytes, BlocksAt);
        ulong size = LittleEndian.U64(bytes, DiskSizeAt);
        if (type is not ((uint)VdiImageType.Dynamic or (uint)VdiImageType.Static or (uint)VdiImageType.Differencing))
        {
            string kind = type == (uint)VdiImageType.Undo ? "undo (3), the changes to a disk that can be taken back" : $"{type}";
            throw Unsupported(TypeAt, $"the type {kind}; supported: dynamic (1), static (2), differencing (4)");
        }
        if (LittleEndian.U32(bytes, SectorAt) != SectorSize)
        {
            throw Unsupported(SectorAt, $"sectors of {LittleEndian.U32(bytes, SectorAt):#,0} bytes; supported: {SectorSize}");
        }
        if (LittleEndian.U32(bytes, ExtraAt) != 0)
        {
            throw Unsupported(ExtraAt, "further data in front of each block; supported: none");
        }
        if (blockSize is < 4096 or > 256 << 20 || !System.Numerics.BitOperations.IsPow2(blockSize))
        {
            throw Corrupt(BlockSizeAt, $"blocks of {blockSize:#,0} bytes; allowed: a power of two from 4,096 to 268,435,456");
        }
        if (blocks > MaximumBlocks || size > (ulong)blocks * blockSize)
        {
            throw Corrupt(
                BlocksAt,
                $"{blocks:#,0} blocks of {blockSize:#,0} bytes for a disk of {size:#,0} bytes; allowed: as many as "
                    + $"hold it, at most {MaximumBlocks:#,0}");
        }
        var header = new VdiHeader(bytes)
        {
            Type = (VdiImageType)type,
            Comment = Encoding.UTF8.GetString(bytes.AsSpan(CommentAt, CommentLength)).Split('\0')[0],
            Geometry = (
                LittleEndian.U32(bytes, GeometryAt), LittleEndian.U32(bytes, GeometryAt + 4), LittleEndian.U32(bytes, GeometryAt + 8)),
            MapOffset = LittleEndian.U32(bytes, MapAt),
            DataOffset = LittleEndian.U32(bytes, DataAt),
            DiskSize = (long)Round.Up((long)size, SectorSize),
            BlockSize = (int)blockSize,
            Blocks = (int)blocks,
            Allocated = (int)Math.Min(LittleEndian.U32(bytes, AllocatedAt), MaximumBlocks),
            ImageId = new Guid(bytes.AsSpan(ImageIdAt, 16)),
            SnapshotId = new Guid(bytes.AsSpan(SnapshotIdAt, 16)),
            LinkId = new Guid(bytes.AsSpan(LinkIdAt, 16)),
            ParentId = new Guid(bytes.AsSpan(ParentIdAt, 16)),
        };
        if (header.MapOffset % SectorSize != 0 || header.MapOffset < Length || header.DataOffset % SectorSize != 0
            || header.DataOffset < header.MapEnd)
        {
            throw Corrupt(
                MapAt,
                $"the block map at offset {header.MapOffset:#,0} and the data at {header.DataOffset:#,0}; allowed: whole sectors, the map "
                    + $"behind the header and before the data");
        }
        return header.MapOffset + ((long)blocks * sizeof(uint)) <= fileLength
            ? header
            : throw Corrupt(MapAt, $"a block map that ends at {header.MapEnd:#,0}, past the end of the file's {fileLength:#,0} bytes");

        DiskImageException Corrupt(
            long offset,
            string what) => new(DiskImageErrorKind.Corrupt,
            $"{name}: the header at offset {offset:#,0} says {what}",
            name,
            offset);
        DiskImageException Unsupported(
            long offset,
            string what) => new(DiskImageErrorKind.Unsupported,
            $"{name}: the header at offset {offset:#,0} says {what}",
            name,
            offset);
    }

    /// <summary>The header as it stands in the file: one sector, so that writing it is one step.</summary>
    public byte[] ToBytes()
    {
        byte[] bytes = [.. _bytes];
        LittleEndian.U32(bytes, TypeAt, (uint)Type);
        LittleEndian.U32(bytes, MapAt, (uint)MapOffset);
        LittleEndian.U32(bytes, DataAt, (uint)DataOffset);
        LittleEndian.U64(bytes, DiskSizeAt, (ulong)DiskSize);
        LittleEndian.U32(bytes, BlockSizeAt, (uint)BlockSize);
        LittleEndian.U32(bytes, BlocksAt, (uint)Blocks);
        LittleEndian.U32(bytes, AllocatedAt, (uint)Allocated);
        if (!Comment.Equals(Encoding.UTF8.GetString(bytes.AsSpan(CommentAt, CommentLength)).Split('\0')[0], StringComparison.Ordinal))
        {
            bytes.AsSpan(CommentAt, CommentLength).Clear();
            _ = Encoding.UTF8.GetBytes(Comment, bytes.AsSpan(CommentAt, CommentLength));
        }
        (int, Guid)[] ids = [(ImageIdAt, ImageId), (SnapshotIdAt, SnapshotId), (LinkIdAt, LinkId), (ParentIdAt, ParentId)];
        foreach ((int at, Guid id) in ids)
        {
            _ = id.TryWriteBytes(bytes.AsSpan(at));
        }
        return bytes;
    }

    private static byte[] NewBytes()
    {
        byte[] bytes = new byte[Length];
        "<<< DiskImage Virtual Disk Image >>>\n"u8.CopyTo(bytes);
        LittleEndian.U32(bytes, SignatureAt, Signature);
        LittleEndian.U32(bytes, VersionAt, Version11);
        LittleEndian.U32(bytes, SizeAt, SizeOfVersion11);
        LittleEndian.U32(bytes, FlagsAt, 0);
        LittleEndian.U32(bytes, SectorAt, SectorSize);
        return bytes;
    }
}
