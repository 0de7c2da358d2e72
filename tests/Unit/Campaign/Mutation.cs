using System.Buffers.Binary;
using DiskImage.Binary;

namespace DiskImage.Tests.Campaign;

/// <summary>Damages an image: mostly where its structures lie, with the values that structures have.</summary>
internal static class Mutation
{
    private static readonly ulong[] s_values =
    [
        0, 1, 2, 7, 8, 9, 511, 512, 513, 4095, 4096, 65535, 65536, 1 << 20, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 0x1_0000_0000, 1UL << 40,
        (1UL << 55) - 512, 1UL << 55, 1UL << 56,
        1UL << 62, 1UL << 63, long.MaxValue, ulong.MaxValue,
    ];

    /// <summary>A damaged copy; the same for the same seed.</summary>
    public static byte[] Damage(byte[] image, int seed, string format)
    {
        var random = new Random(seed);
        byte[] damaged = (byte[])image.Clone();
        int[] places = Places(image);
        for (int count = random.Next(4) == 0 ? random.Next(2, 6) : 1; count > 0; count--)
        {
            int at = places[random.Next(places.Length)];
            switch (random.Next(8))
            {
                case 0 or 1:
                    damaged[at + random.Next(8)] ^= (byte)(1 << random.Next(8));
                    break;
                case 2:
                    damaged[at + random.Next(8)] = (byte)random.Next(256);
                    break;
                case 3:
                    Put(damaged, at, s_values[random.Next(s_values.Length)], random);
                    break;
                case 4: // an entry like another
                    damaged.AsSpan(places[random.Next(places.Length)], 8).CopyTo(damaged.AsSpan(at));
                    break;
                case 5: // a place in the file, on a cluster or beside one
                    Put(
                        damaged,
                        at,
                        ((ulong)random.Next(damaged.Length + 8192) & ~511UL) | ((ulong)random.Next(4) << 62) | (random.Next(4) == 0
                            ? 1UL
                            : 0),
                        random);
                    break;
                case 6:
                    damaged.AsSpan(
                        at & ~511,
                        Math.Min(random.Next(3) == 0 ? 4096 : 512, damaged.Length - (at & ~511))).Fill((byte)(random.Next(2) * 255));
                    break;
                default:
                    if (random.Next(3) == 0)
                    {
                        Array.Resize(
                            ref damaged,
                            Math.Max(1024, random.Next(2) == 0 ? damaged.Length - random.Next(1, 9000) : random.Next(damaged.Length)));
                        places = [.. places.Where(p => p + 8 <= damaged.Length)];
                        if (places.Length == 0)
                        {
                            return damaged;
                        }
                    }
                    else
                    {
                        BinaryPrimitives.WriteUInt32BigEndian(damaged.AsSpan(at), (uint)s_values[random.Next(s_values.Length)]);
                    }
                    break;
            }
        }
        if (random.Next(2) == 0)
        {
            WriteChecksums(damaged, format);
        }
        return damaged;
    }

    /// <summary>Makes the checksums right over whatever the structures say now, so that the damage gets past them.</summary>
    private static void WriteChecksums(byte[] image, string format)
    {
        switch (format)
        {
            case "vpc":
                foreach ((int at, int length, int field) in new[] { (0, 512, 64), (512, 1024, 36), (image.Length - 512, 512, 64) })
                {
                    uint sum = 0;
                    image.AsSpan(at + field, 4).Clear();
                    foreach (byte b in image.AsSpan(at, length))
                    {
                        sum += b;
                    }
                    BinaryPrimitives.WriteUInt32BigEndian(image.AsSpan(at + field), ~sum);
                }
                break;
            case "vhdx":
                foreach ((int at, int length) in new[]
                {
                    (64 << 10, 4 << 10), (128 << 10, 4 << 10), (192 << 10, 64 << 10), (256 << 10, 64 << 10),
                })
                {
                    if (at + length <= image.Length)
                    {
                        image.AsSpan(at + 4, 4).Clear();
                        BinaryPrimitives.WriteUInt32LittleEndian(image.AsSpan(at + 4), Crc32C.Of(image.AsSpan(at, length)));
                    }
                }
                break;
        }
    }

    private static void Put(byte[] bytes, int at, ulong value, Random random)
    {
        if (random.Next(4) == 0)
        {
            BinaryPrimitives.WriteUInt64LittleEndian(bytes.AsSpan(at), value);
        }
        else
        {
            BinaryPrimitives.WriteUInt64BigEndian(bytes.AsSpan(at), value);
        }
    }

    /// <summary>
    /// Offsets worth damaging: every eight bytes that are not zero where most of a sector is, as headers and tables are,
    /// and a few of all others.
    /// </summary>
    private static int[] Places(byte[] image)
    {
        var places = new List<int>();
        for (int sector = 0; sector + 512 <= image.Length; sector += 512)
        {
            ReadOnlySpan<byte> bytes = image.AsSpan(sector, 512);
            int zeroes = bytes.Count((byte)0);
            bool isTable = zeroes is > 128 and < 512;
            for (int at = 0; at < 512; at += 8)
            {
                if (isTable && bytes.Slice(at, 8).ContainsAnyExcept((byte)0))
                {
                    places.Add(sector + at);
                    places.Add(Math.Min(sector + at + 8, image.Length - 8) & ~7);
                }
            }
            if (!isTable && sector % 8192 == 0)
            {
                places.Add(sector);
            }
        }
        for (int at = 0; at < 128; at += 4) // headers of 32-bit fields
        {
            places.Add(at);
        }
        return [.. places];
    }
}
