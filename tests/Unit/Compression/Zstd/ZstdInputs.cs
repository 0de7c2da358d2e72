using System.Text;

namespace DiskImage.Tests.Compression.Zstd;

/// <summary>Blocks of many kinds and sizes; the same for the same seed.</summary>
internal static class ZstdInputs
{
    public static readonly string[] Kinds = ["zero", "random", "text", "period", "skewed", "copies", "mixed", "disk"];

    /// <summary>Sizes on both sides of the borders of the format: literal headers, streams, blocks, windows.</summary>
    public static readonly int[] Sizes =
    [
        0, 1, 2, 3, 5, 6, 7, 8, 15, 31, 32, 33, 63, 64, 255, 256, 257, 1000, 1023, 1024, 1025, 4095, 4096, 16383, 16384, 65536,
        65791, 65792, 131072, 131073, 262149, (1 << 20) + 3,
    ];

    public static byte[] Make(string kind, int size, int seed)
    {
        var random = new Random((seed * 31) + size);
        byte[] data = new byte[size];
        switch (kind)
        {
            case "zero":
                break;
            case "random":
                random.NextBytes(data);
                break;
            case "text":
                FillText(random, data);
                break;
            case "period":
                int period = 1 + random.Next(40);
                random.NextBytes(data.AsSpan(0, Math.Min(period, size)));
                for (int i = period; i < size; i++)
                {
                    data[i] = data[i - period];
                }
                break;
            case "skewed":
                int symbols = 2 + random.Next(254);
                for (int i = 0; i < size; i++)
                {
                    data[i] = (byte)(symbols * Math.Pow(random.NextDouble(), 4));
                }
                break;
            case "copies":
                FillCopies(random, data);
                break;
            case "disk":
                FillRecords(random, data);
                break;
            default:
                for (int at = 0; at < size;)
                {
                    int count = Math.Min(size - at, 1 + random.Next(1 + (size / 5)));
                    Make(Kinds[random.Next(6)], count, random.Next()).CopyTo(data, at);
                    at += count;
                }
                break;
        }
        return data;
    }

    private static void FillText(Random random, byte[] data)
    {
        string[] words = [.. Enumerable.Range(0, 500).Select(_ => new string(
            [.. Enumerable.Range(0, 1 + random.Next(10)).Select(_ => (char)('a' + (int)(26 * Math.Pow(random.NextDouble(), 2))))]))];
        var text = new StringBuilder();
        while (text.Length < data.Length)
        {
            text.Append(words[(int)(words.Length * Math.Pow(random.NextDouble(), 2))]).Append(random.Next(12) == 0 ? ".\n" : " ");
        }
        Encoding.ASCII.GetBytes(text.ToString(), 0, data.Length, data, 0);
    }

    /// <summary>Short runs of new bytes between copies from every distance.</summary>
    private static void FillCopies(Random random, byte[] data)
    {
        for (int at = 0; at < data.Length;)
        {
            int fresh = Math.Min(data.Length - at, 1 + random.Next(20));
            random.NextBytes(data.AsSpan(at, fresh));
            at += fresh;
            int distance = 1 + (int)((at - 1) * Math.Pow(random.NextDouble(), 6));
            for (int left = Math.Min(data.Length - at, 3 + (int)(2000 * Math.Pow(random.NextDouble(), 8))); left > 0; left--, at++)
            {
                data[at] = data[at - distance];
            }
        }
    }

    /// <summary>Tables of numbers that grow, with zeroes between: what metadata on a disk looks like.</summary>
    private static void FillRecords(Random random, byte[] data)
    {
        uint number = (uint)random.Next();
        for (int at = 0; at + 16 <= data.Length; at += 16)
        {
            number += (uint)random.Next(5);
            BitConverter.TryWriteBytes(data.AsSpan(at), number);
            data[at + 6] = (byte)random.Next(3);
            if (random.Next(30) == 0)
            {
                at += 16 * random.Next(200);
            }
        }
    }
}
