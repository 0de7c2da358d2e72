using System.Text;
using DiskImage.Binary;
using DiskImage.Block;

namespace DiskImage.Formats.Vpc;

/// <summary>The dynamic disk header. Spec: "Dynamic Disk Header Format". What is not known is kept.</summary>
internal sealed record VpcHeader
{
    /// <summary>Bytes of a header.</summary>
    public const int Length = 1024;

    /// <summary>Parent locator entries of a header.</summary>
    public const int LocatorCount = 8;

    /// <summary>
    /// Entries of a block allocation table at most: 64 MiB of it are kept in memory. Ours; 2040 GiB in blocks of 2 MiB need a sixteenth.
    /// </summary>
    public const int MaxEntries = 1 << 24;

    private const int ChecksumAt = 36, NameAt = 64, NameBytes = 512, LocatorsAt = 576;
    private const uint Version1 = 0x0001_0000;

    private static readonly byte[] Cookie = "cxsparse"u8.ToArray();

    /// <summary>Where the block allocation table is.</summary>
    public long TableOffset { get; init; }

    /// <summary>Entries that the table has room for.</summary>
    public uint MaxTableEntries { get; init; }

    /// <summary>Bytes of a block without its bitmap: a power of two.</summary>
    public long BlockSize { get; init; }

    public Guid ParentUniqueId { get; init; }

    /// <summary>When the parent was last changed, in seconds since 2000-01-01 UTC.</summary>
    public uint ParentTimeStamp { get; init; }

    /// <summary>The parent's file name: at most 256 UTF-16 units.</summary>
    public string ParentName { get; init; } = "";

    /// <summary>Always eight.</summary>
    public IReadOnlyList<VpcLocator> Locators { get; init; } = new VpcLocator[LocatorCount];

    /// <summary>The checksum in the file is the right one.</summary>
    public bool IsChecksumRight { get; init; } = true;

    /// <summary>True if no field that is not looked at elsewhere contradicts the specification.</summary>
    public bool IsPlausible => Original is null || (BigEndian.U64(Original, 8) == ulong.MaxValue && BigEndian.U32(Original, 24) == Version1
        && (ParentUniqueId == Guid.Empty || ParentName.Length > 0 || Locators.Any(l => l.IsUsed)));

    private byte[]? Original { get; init; }

    /// <summary>Reads the header of a dynamic disk. A wrong checksum is only noted: every field is checked for itself.</summary>
    /// <exception cref="DiskImageException">InvalidFormat, Unsupported or Corrupt.</exception>
    public static async ValueTask<VpcHeader> ReadAsync(BlockNode file, VpcFooter footer, CancellationToken cancellationToken)
    {
        if (footer.DataOffset > (ulong)Math.Max(0, file.Length - Length) || file.Length < Length)
        {
            throw Bad(
                file,
                $"the footer's data offset {footer.DataOffset:#,0} leads past the end of the file ({file.Length:#,0} "
                    + $"bytes), so there is no dynamic header",
                file.Length);
        }
        long at = (long)footer.DataOffset;
        byte[] bytes = new byte[Length];
        await file.ReadAsync(at, bytes, cancellationToken).ConfigureAwait(false);
        if (!bytes.AsSpan().StartsWith(Cookie))
        {
            throw Bad(file, $"the dynamic header at offset {at:#,0} does not begin with 'cxsparse'", at);
        }
        uint version = BigEndian.U32(bytes, 24);
        if (version >> 16 != 1)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Unsupported,
                $"{file.Name}: the dynamic header's version is {version >> 16}.{version & 0xFFFF}; known: 1.0",
                file.Name,
                at + 24);
        }
        uint blockSize = BigEndian.U32(bytes, 32);
        if (blockSize < VpcGeometry.SectorSize || !System.Numerics.BitOperations.IsPow2(blockSize))
        {
            throw Bad(file, $"the block size is {blockSize:#,0}; allowed: powers of two from 512", at + 32);
        }
        ulong table = BigEndian.U64(bytes, 16);
        uint entries = BigEndian.U32(bytes, 28);
        if (table > (ulong)file.Length || (entries * 4L) > file.Length - (long)table)
        {
            throw Bad(
                file,
                $"the block allocation table at offset {table:#,0} with {entries:#,0} entries reaches past the end "
                    + $"of the file ({file.Length:#,0} bytes)",
                at + 16);
        }
        var locators = new VpcLocator[LocatorCount];
        for (int i = 0; i < LocatorCount; i++)
        {
            locators[i] = VpcLocator.Parse(bytes.AsSpan(LocatorsAt + (i * VpcLocator.Length), VpcLocator.Length));
        }
        string name = Encoding.BigEndianUnicode.GetString(bytes, NameAt, NameBytes);
        int end = name.IndexOf('\0', StringComparison.Ordinal);
        return new VpcHeader
        {
            TableOffset = (long)table,
            MaxTableEntries = entries,
            BlockSize = blockSize,
            ParentUniqueId = new Guid(bytes.AsSpan(40, 16), bigEndian: true),
            ParentTimeStamp = BigEndian.U32(bytes, 56),
            ParentName = end < 0 ? name : name[..end],
            Locators = locators,
            IsChecksumRight = BigEndian.U32(bytes, ChecksumAt) == VpcFooter.Checksum(bytes, ChecksumAt),
            Original = bytes,
        };
    }

    /// <summary>Blocks of a disk of a size.</summary>
    public long Blocks(long size) => Round.Units(size, BlockSize);

    /// <summary>Refuses a table that is too small for the disk, or too large for this program.</summary>
    public void RequireTable(long size, string path)
    {
        long blocks = Blocks(size);
        if (blocks > MaxTableEntries)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Corrupt,
                $"{path}: the block allocation table has {MaxTableEntries:#,0} entries, but {size:#,0} bytes in blocks of {BlockSize:#,0} "
                    + $"need {blocks:#,0}. If the footer's other size is meant, give the open option {VpcOpenOptions.SizeOption}",
                path,
                TableOffset);
        }
        RequireFew(blocks, BlockSize, path);
    }

    /// <summary>Refuses more blocks than this program handles.</summary>
    public static void RequireFew(long blocks, long blockSize, string path)
    {
        if (blocks > MaxEntries)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Unsupported,
                $"{path}: {blocks:#,0} blocks of {blockSize:#,0} bytes; this program handles up to "
                    + $"{MaxEntries:#,0}. Larger blocks need fewer.",
                path);
        }
    }

    public byte[] ToBytes()
    {
        byte[] bytes = (byte[]?)Original?.Clone() ?? new byte[Length];
        Cookie.CopyTo(bytes, 0);
        if (Original is null)
        {
            BigEndian.U64(bytes, 8, ulong.MaxValue); // no further structure
            BigEndian.U32(bytes, 24, Version1);
        }
        BigEndian.U64(bytes, 16, (ulong)TableOffset);
        BigEndian.U32(bytes, 28, MaxTableEntries);
        BigEndian.U32(bytes, 32, (uint)BlockSize);
        _ = ParentUniqueId.TryWriteBytes(bytes.AsSpan(40, 16), bigEndian: true, out _);
        BigEndian.U32(bytes, 56, ParentTimeStamp);
        bytes.AsSpan(NameAt, NameBytes).Clear();
        _ = Encoding.BigEndianUnicode.GetBytes(
            ParentName.AsSpan(0, Math.Min(ParentName.Length, NameBytes / 2)), bytes.AsSpan(NameAt, NameBytes));
        for (int i = 0; i < LocatorCount; i++)
        {
            Locators[i].Write(bytes.AsSpan(LocatorsAt + (i * VpcLocator.Length), VpcLocator.Length));
        }
        BigEndian.U32(bytes, ChecksumAt, VpcFooter.Checksum(bytes, ChecksumAt));
        return bytes;
    }

    private static DiskImageException Bad(BlockNode file, string what, long offset)
        => new(DiskImageErrorKind.Corrupt, $"{file.Name}: {what}", file.Name, offset);
}
