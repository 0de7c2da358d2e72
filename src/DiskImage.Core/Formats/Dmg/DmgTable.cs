using DiskImage.Binary;
using DiskImage.Block;

namespace DiskImage.Formats.Dmg;

/// <summary>How a chunk is stored.</summary>
internal enum DmgKind : uint
{
    /// <summary>Zeroes.</summary>
    Zero = 0,

    /// <summary>As it is.</summary>
    Raw = 1,

    /// <summary>Nothing in particular: space that no file uses. Reads as zeroes.</summary>
    Ignore = 2,

    Adc = 0x8000_0004,

    Zlib = 0x8000_0005,

    Bzip2 = 0x8000_0006,

    Lzfse = 0x8000_0007,

    Xz = 0x8000_0008,

    Remark = 0x7FFF_FFFE,

    End = 0xFFFF_FFFF,
}

/// <summary>A run of sectors that are stored in one piece.</summary>
/// <param name="Offset">Its first byte of the disk.</param>
/// <param name="Length">Bytes of the disk.</param>
/// <param name="Kind">How it is stored.</param>
/// <param name="Fork">Where it is in the data fork of all segments.</param>
/// <param name="Stored">Bytes there.</param>
internal readonly record struct DmgChunk(long Offset, long Length, DmgKind Kind, long Fork, long Stored)
{
    /// <summary>The byte of the disk behind it.</summary>
    public long End => Offset + Length;

    /// <summary>True if it has to be decoded.</summary>
    public bool IsEncoded => Kind is >= DmgKind.Adc and <= DmgKind.Xz;
}

/// <summary>The table of one partition. Layout: see SPEC.md.</summary>
/// <param name="Name">What it is called.</param>
/// <param name="Offset">Its first byte of the disk.</param>
/// <param name="Length">Its bytes.</param>
/// <param name="Checksum">Of its decoded sectors.</param>
/// <param name="Chunks">Its chunks, by their place on the disk.</param>
internal sealed record DmgTable(string Name, long Offset, long Length, DmgChecksum Checksum, DmgChunk[] Chunks)
{
    /// <summary>Bytes of a chunk that has to be decoded, and of what it is stored as, at most: QEMU's limits.</summary>
    public const int MaxEncoded = 64 << 20;

    private const int HeaderBytes = 204, ChunkBytes = 40, FirstAt = 8, SectorsAt = 16, DataAt = 24, ChecksumAt = 64, ChunksAt = 200;

    /// <summary>Reads a table and checks each chunk against the disk and the data fork.</summary>
    /// <param name="name">What the partition is called.</param>
    /// <param name="bytes">The table.</param>
    /// <param name="diskSize">Virtual size.</param>
    /// <param name="forkLength">Bytes of the data fork.</param>
    /// <param name="path">The image.</param>
    /// <exception cref="DiskImageException">Corrupt or Unsupported.</exception>
    public static DmgTable Parse(string name, ReadOnlySpan<byte> bytes, long diskSize, long forkLength, string path)
    {
        if (bytes.Length < HeaderBytes || !bytes.StartsWith("mish"u8))
        {
            throw Corrupt($"begins with no 'mish' or has only {bytes.Length:#,0} bytes; allowed: at least {HeaderBytes}");
        }
        uint count = BigEndian.U32(bytes, ChunksAt);
        if (count > (uint)((bytes.Length - HeaderBytes) / ChunkBytes))
        {
            throw Corrupt($"has {count:#,0} chunks; allowed: as many as are in its {bytes.Length:#,0} bytes");
        }
        ulong diskSectors = (ulong)diskSize / DmgTrailer.SectorSize, first = BigEndian.U64(bytes, FirstAt);
        ulong sectors = BigEndian.U64(bytes, SectorsAt), data = BigEndian.U64(bytes, DataAt);
        if (first > diskSectors || sectors > diskSectors - first || data > (ulong)forkLength)
        {
            throw Corrupt($"maps {sectors:#,0} sectors from {first:#,0} on, stored from {data:#,0} on; allowed: the disk's "
                + $"{diskSectors:#,0} sectors, in a data fork of {forkLength:#,0} bytes");
        }
        var chunks = new List<DmgChunk>();
        for (int i = 0; i < count; i++)
        {
            ReadOnlySpan<byte> entry = bytes.Slice(HeaderBytes + (i * ChunkBytes), ChunkBytes);
            var kind = (DmgKind)BigEndian.U32(entry, 0);
            if (kind == DmgKind.End)
            {
                break;
            }
            if (kind != DmgKind.Remark && BigEndian.U64(entry, 16) > 0)
            {
                chunks.Add(ChunkOf(entry, i, kind));
            }
        }
        chunks.Sort(static (a, b) => a.Offset.CompareTo(b.Offset));
        return new(
            name,
            (long)first * DmgTrailer.SectorSize,
            (long)sectors * DmgTrailer.SectorSize,
            DmgChecksum.Read(bytes, ChecksumAt),
            [.. chunks]);

        DmgChunk ChunkOf(ReadOnlySpan<byte> entry, int i, DmgKind kind)
        {
            ulong start = BigEndian.U64(entry, 8), length = BigEndian.U64(entry, 16), fork = BigEndian.U64(entry, 24);
            ulong stored = BigEndian.U64(entry, 32);
            if (kind is not (DmgKind.Zero or DmgKind.Raw or DmgKind.Ignore or DmgKind.Adc or DmgKind.Zlib or DmgKind.Bzip2
                or DmgKind.Lzfse or DmgKind.Xz))
            {
                throw new DiskImageException(
                    DiskImageErrorKind.Unsupported,
                    $"{path}: chunk {i:#,0} of the table '{name}' is of the kind 0x{(uint)kind:X8}; known: zero, "
                        + $"raw, ignore, ADC, zlib, bzip2, LZFSE, xz",
                    path);
            }
            if (start > sectors || length > sectors - start)
            {
                throw Corrupt($"has {length:#,0} sectors from {start:#,0} on in chunk {i:#,0}; allowed: its own {sectors:#,0} sectors");
            }
            var chunk = new DmgChunk((long)(first + start) * DmgTrailer.SectorSize, (long)length * DmgTrailer.SectorSize, kind, 0, 0);
            if (kind is DmgKind.Zero or DmgKind.Ignore)
            {
                return chunk;
            }
            ulong room = (ulong)forkLength - data;
            bool fits = fork <= room && stored <= room - fork;
            if (!fits || (chunk.IsEncoded ? chunk.Length > MaxEncoded || stored > MaxEncoded || stored == 0 : (ulong)chunk.Length > stored))
            {
                throw Corrupt(
                    $"has {chunk.Length:#,0} bytes stored as {stored:#,0} at offset {fork:#,0} of the data fork in chunk {i:#,0}; "
                        + $"allowed: inside its {forkLength:#,0} bytes"
                        + (chunk.IsEncoded ? $", up to {MaxEncoded:#,0} decoded and stored" : ", all of them"));
            }
            return chunk with { Fork = (long)(data + fork), Stored = (long)stored };
        }

        DiskImageException Corrupt(string what) => new(
            DiskImageErrorKind.Corrupt, $"{path}: the table of the partition '{name}' {what}", path);
    }
}
