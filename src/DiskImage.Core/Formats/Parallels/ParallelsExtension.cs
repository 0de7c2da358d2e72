using System.Buffers;
using System.Numerics;
using System.Security.Cryptography;
using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Parallels;

/// <summary>A dirty bitmap of the format extension.</summary>
/// <param name="Told">What is told of it.</param>
/// <param name="Entries">Of each cluster of the bitmap: 0 all clear, 1 all set, or its sector in the file.</param>
internal sealed record ParallelsBitmap(DiskBitmap Told, ulong[] Entries);

/// <summary>
/// The format extension: one cluster of sections, of which dirty bitmaps are understood. It is read and never written: what it says of the
/// disk's changes is wrong as soon as somebody writes who does not record them, so it goes before the first change. Spec: "Format
/// Extension".
/// </summary>
internal sealed class ParallelsExtension
{
    private const ulong Magic = 0xAB23_4CEF_23DC_EA87, BitmapMagic = 0x2038_5FAE_252C_B34A;
    private const int HeaderBytes = 24, SectionBytes = 24, BitmapBytes = 32, SumAt = 8, SumBytes = 16, PieceBytes = 1 << 20;
    private const ulong NecessaryFlag = 1, TransitFlag = 2;
    private const int MaximumSections = 4096, MaximumData = 16 << 20; // ours

    private readonly List<FileRange> _clusters = [];
    private readonly List<ParallelsBitmap> _bitmaps = [];

    private ParallelsExtension()
    {
    }

    /// <summary>The clusters it takes, in the order of places.</summary>
    public IReadOnlyList<FileRange> Clusters => _clusters;

    /// <summary>The dirty bitmaps, in the order of the file.</summary>
    public IReadOnlyList<ParallelsBitmap> Bitmaps => _bitmaps;

    /// <summary>A section that this program does not know and that must not be dropped; null if there is none.</summary>
    public ulong? Foreign { get; private set; }

    /// <summary>Reads the extension that the header names.</summary>
    /// <exception cref="DiskImageException">Corrupt: it is not what it must be.</exception>
    public static async ValueTask<ParallelsExtension> ReadAsync(BlockNode file, ParallelsHeader header, CancellationToken cancellationToken)
    {
        var extension = new ParallelsExtension();
        long place = extension.Claim(file, header, header.ExtensionOffset, "the format extension");
        byte[] start = new byte[HeaderBytes];
        await file.ReadAsync(place, start.AsMemory(0, Math.Min(HeaderBytes, header.ClusterSize)), cancellationToken).ConfigureAwait(false);
        if (LittleEndian.U64(start, 0) != Magic)
        {
            throw Wrong(file, place, "has no signature");
        }
        byte[] sum = await SumAsync(file, place + HeaderBytes, header.ClusterSize - HeaderBytes, cancellationToken).ConfigureAwait(false);
        if (!sum.AsSpan().SequenceEqual(start.AsSpan(SumAt, SumBytes)))
        {
            throw Wrong(file, place, "does not have the checksum that it says");
        }
        await extension.ReadSectionsAsync(file, header, place, cancellationToken).ConfigureAwait(false);
        extension._clusters.Sort((a, b) => a.Start.CompareTo(b.Start));
        for (int i = 1; i < extension._clusters.Count; i++)
        {
            if (extension._clusters[i].Start < extension._clusters[i - 1].End)
            {
                throw Wrong(file, extension._clusters[i].Start, "uses a cluster twice");
            }
        }
        return extension;
    }

    private static DiskImageException Wrong(BlockNode file, long offset, string what)
        => new(DiskImageErrorKind.Corrupt, $"{file.Name}: the format extension at offset {offset:#,0} {what}", file.Name, offset);

    private static async ValueTask<byte[]> SumAsync(BlockNode file, long offset, long length, CancellationToken cancellationToken)
    {
#pragma warning disable CA5351 // the format's checksum, against damage only
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.MD5);
#pragma warning restore CA5351
        byte[] buffer = ArrayPool<byte>.Shared.Rent(PieceBytes);
        try
        {
            while (length > 0)
            {
                int count = (int)Math.Min(PieceBytes, length);
                await file.ReadAsync(offset, buffer.AsMemory(0, count), cancellationToken).ConfigureAwait(false);
                hash.AppendData(buffer.AsSpan(0, count));
                (offset, length) = (offset + count, length - count);
            }
            return hash.GetHashAndReset();
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }
    }

    /// <summary>The place of a cluster of the extension, in sectors in the file, which must meet what holds for all clusters.</summary>
    private long Claim(BlockNode file, ParallelsHeader header, ulong sector, string what)
    {
        long place = (long)Math.Min(sector, (ulong)(long.MaxValue / ParallelsHeader.SectorSize / 2)) * ParallelsHeader.SectorSize;
        if (place < header.DataStart || (place - header.DataStart) % header.ClusterSize != 0 || place > file.Length - header.ClusterSize)
        {
            throw Wrong(
                file,
                place,
                $"cannot be there ({what}); allowed: a whole cluster of the data from {header.DataStart:#,0} on, inside the file");
        }
        _clusters.Add(new(place, place + header.ClusterSize, what));
        return place;
    }

    private async ValueTask ReadSectionsAsync(BlockNode file, ParallelsHeader header, long place, CancellationToken cancellationToken)
    {
        long end = place + header.ClusterSize, at = place + HeaderBytes;
        byte[] section = new byte[SectionBytes];
        for (int count = 0; ; count++)
        {
            if (end - at < SectionBytes || count == MaximumSections)
            {
                throw Wrong(file, at, "has no end");
            }
            await file.ReadAsync(at, section, cancellationToken).ConfigureAwait(false);
            ulong magic = LittleEndian.U64(section, 0), flags = LittleEndian.U64(section, 8);
            uint length = LittleEndian.U32(section, 16);
            if (magic == 0)
            {
                return;
            }
            at += SectionBytes;
            if (length > end - at)
            {
                throw Wrong(file, at, $"has a section of {length:#,0} bytes where {end - at:#,0} are left");
            }
            if (magic == BitmapMagic)
            {
                await ReadBitmapAsync(file, header, at, length, cancellationToken).ConfigureAwait(false);
            }
            else if ((flags & (NecessaryFlag | TransitFlag)) != 0)
            {
                Foreign ??= magic;
            }
            at += Round.Up((long)length, sizeof(ulong));
        }
    }

    private async ValueTask ReadBitmapAsync(
        BlockNode file, ParallelsHeader header, long at, uint length, CancellationToken cancellationToken)
    {
        if (length is < BitmapBytes or > MaximumData)
        {
            throw Wrong(file, at, $"has a dirty bitmap of {length:#,0} bytes; allowed: {BitmapBytes} to {MaximumData:#,0}");
        }
        byte[] data = new byte[length];
        await file.ReadAsync(at, data, cancellationToken).ConfigureAwait(false);
        ulong sectors = LittleEndian.U64(data, 0);
        uint granularity = LittleEndian.U32(data, 24), entries = LittleEndian.U32(data, 28);
        if (sectors != (ulong)header.Sectors || !BitOperations.IsPow2(granularity))
        {
            throw Wrong(
                file,
                at,
                $"has a dirty bitmap of {sectors:#,0} sectors with {granularity:#,0} to a bit; allowed: the disk's "
                    + $"{header.Sectors:#,0}, a power of two");
        }
        long bits = ParallelsHeader.UnitsOf(header.Sectors, granularity), bytes = ParallelsHeader.UnitsOf(bits, 8);
        if (entries != ParallelsHeader.UnitsOf(bytes, header.ClusterSize) || BitmapBytes + ((long)entries * sizeof(ulong)) > length)
        {
            throw Wrong(file, at, $"has a dirty bitmap of {entries:#,0} clusters; its {bits:#,0} bits need another number");
        }
        ulong[] places = new ulong[entries];
        for (int i = 0; i < entries; i++)
        {
            places[i] = LittleEndian.U64(data, BitmapBytes + (i * sizeof(ulong)));
            if (places[i] > 1)
            {
                _ = Claim(file, header, places[i], "a dirty bitmap");
            }
        }
        long unit = (long)granularity * ParallelsHeader.SectorSize;
        bool isSaved = header.InUse == ParallelsHeader.KeptMark;
        string id = new Guid(data.AsSpan(8, 16)).ToString("B");
        var bitmap = new ParallelsBitmap(new(id, unit, IsEnabled: true, IsInUse: !isSaved, DirtyBytes: null), places);
        long set = 0;
        if (isSaved)
        {
            await WalkAsync(file, header, bitmap, (start, end) => set += end - start, cancellationToken).ConfigureAwait(false);
        }
        _bitmaps.Add(bitmap with { Told = bitmap.Told with { DirtyBytes = isSaved ? set : null } });
    }

    /// <summary>The ranges of the disk that a bitmap says were written, in order, neighbours joined.</summary>
    public static async ValueTask<IReadOnlyList<(long Offset, long Length)>> RangesAsync(
        BlockNode file, ParallelsHeader header, ParallelsBitmap bitmap, CancellationToken cancellationToken)
    {
        var runs = new RunList();
        await WalkAsync(file, header, bitmap, runs.Add, cancellationToken).ConfigureAwait(false);
        return [.. runs.Runs.Select(r => (r.Start, r.End - r.Start))];
    }

    /// <summary>Gives the runs of set bits, in bytes of the disk. The last bit may reach past the disk's end.</summary>
    private static async ValueTask WalkAsync(
        BlockNode file, ParallelsHeader header, ParallelsBitmap bitmap, Action<long, long> each, CancellationToken cancellationToken)
    {
        long unit = bitmap.Told.Granularity, span = 8L * header.ClusterSize * unit;
        void Give(long start, long end) => each(start, Math.Min(end, header.DiskSize));
        for (int i = 0; i < bitmap.Entries.Length; i++)
        {
            long start = i * span;
            if (bitmap.Entries[i] == 1)
            {
                Give(start, start + span);
            }
            else if (bitmap.Entries[i] != 0)
            {
                long bits = Math.Min(8L * header.ClusterSize, ParallelsHeader.UnitsOf(header.DiskSize - start, unit));
                await WalkClusterAsync(
                    file,
                    (long)bitmap.Entries[i] * ParallelsHeader.SectorSize,
                    bits,
                    (first, end) => Give(start + (first * unit), start + (end * unit)),
                    cancellationToken)
                    .ConfigureAwait(false);
            }
        }
    }

    private static async ValueTask WalkClusterAsync(
        BlockNode file, long place, long bits, Action<long, long> each, CancellationToken cancellationToken)
    {
        byte[] buffer = ArrayPool<byte>.Shared.Rent(PieceBytes);
        try
        {
            for (long done = 0; done < bits; done += PieceBytes * 8L)
            {
                long count = Math.Min(bits - done, PieceBytes * 8L);
                await file.ReadAsync(place + (done / 8), buffer.AsMemory(0, (int)ParallelsHeader.UnitsOf(count, 8)), cancellationToken)
                    .ConfigureAwait(false);
                for (long bit = 0; bit < count;)
                {
                    byte eight = buffer[bit / 8];
                    if ((bit & 7) == 0 && (eight is 0 or 0xFF))
                    {
                        if (eight != 0)
                        {
                            each(done + bit, done + Math.Min(bit + 8, count));
                        }
                        bit += 8;
                        continue;
                    }
                    if ((eight & (1 << (int)(bit & 7))) != 0)
                    {
                        each(done + bit, done + bit + 1);
                    }
                    bit++;
                }
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }
    }
}
