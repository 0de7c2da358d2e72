using DiskImage.Binary;
using DiskImage.Block;

namespace DiskImage.Formats.Cloop;

/// <summary>The header of a cloop image. Layout: see SPEC.md. All numbers are big-endian.</summary>
internal sealed record CloopHeader(int BlockSize, long Blocks)
{
    /// <summary>Where the table of offsets begins.</summary>
    public const int TableAt = 136;

    /// <summary>Bytes of a block at most: QEMU's limit.</summary>
    public const int MaxBlockSize = 64 << 20;

    /// <summary>Bytes of the table at most: QEMU's limit.</summary>
    public const long MaxTableBytes = 512 << 20;

    private const int SectorSize = 512, BlockSizeAt = 128, BlocksAt = 132;

    /// <summary>Where the table ends and blocks begin.</summary>
    public long TableEnd => TableAt + ((Blocks + 1) * sizeof(ulong));

    /// <summary>Virtual size in bytes.</summary>
    public long DiskSize => Blocks * BlockSize;

    /// <summary>
    /// Bytes of a compressed block at most: deflate makes nothing larger than its stored form, with a little for each 64 KiB.
    /// </summary>
    public int MaxStored => (BlockSize * 2) + 1024;

    private static ReadOnlySpan<byte> Magic => "#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0"u8;

    /// <summary>True if a file's first bytes are those of the script that begins a cloop image.</summary>
    public static bool IsSigned(ReadOnlySpan<byte> file) => file.StartsWith(Magic);

    /// <summary>Reads the header and checks it against the file's length.</summary>
    /// <exception cref="DiskImageException">InvalidFormat or Corrupt.</exception>
    public static async ValueTask<CloopHeader> ReadAsync(BlockNode file, CancellationToken cancellationToken)
    {
        byte[] bytes = new byte[TableAt];
        await file.ReadPaddedAsync(0, bytes, cancellationToken).ConfigureAwait(false);
        if (!IsSigned(bytes))
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidFormat,
                $"{file.Name}: not a cloop image of version 2: the script at offset 0 is missing",
                file.Name,
                0);
        }
        uint blockSize = BigEndian.U32(bytes, BlockSizeAt), blocks = BigEndian.U32(bytes, BlocksAt);
        if (blockSize is 0 or > MaxBlockSize || blockSize % SectorSize != 0)
        {
            throw Corrupt(BlockSizeAt, $"blocks of {blockSize:#,0} bytes; allowed: a multiple of {SectorSize}, up to {MaxBlockSize:#,0}");
        }
        var header = new CloopHeader((int)blockSize, blocks);
        return header.TableEnd - TableAt <= MaxTableBytes && header.TableEnd <= file.Length
            ? header
            : throw Corrupt(
                BlocksAt,
                $"{blocks:#,0} blocks; allowed: as many as have their offsets in the file of {file.Length:#,0} bytes, up to "
                    + $"{(MaxTableBytes / sizeof(ulong)) - 1:#,0}");

        DiskImageException Corrupt(
            long offset,
            string what) => new(DiskImageErrorKind.Corrupt, $"{file.Name}: the header at offset {offset} says {what}", file.Name, offset);
    }
}

/// <summary>What a cloop header says beyond the facts that all formats share.</summary>
public readonly record struct CloopInfo()
{
    /// <summary>Bytes that are compressed together.</summary>
    public required int BlockSize { get; init; }

    /// <summary>Number of blocks.</summary>
    public required long Blocks { get; init; }

    /// <summary>Bytes of all blocks as they are stored.</summary>
    public required long StoredBytes { get; init; }

    /// <inheritdoc/>
    public override string ToString() => $"{Blocks:#,0} blocks of {BlockSize:#,0} bytes";
}
