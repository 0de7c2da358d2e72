using System.Text;

namespace DiskImage.Tests.Formats.Qcow2;

/// <summary>A persistent dirty bitmap as the specification has it. Spec: "Bitmaps".</summary>
internal sealed record Qcow2SpecBitmap(
    string Name, int GranularityBits, bool IsInUse, bool IsAuto, IReadOnlyList<(long Offset, long Length)> Dirty)
{
    /// <summary>The directory's entries in order; none that count while the autoclear bit is clear.</summary>
    public static List<Qcow2SpecBitmap> ReadAll(Qcow2SpecReader image, (long Offset, long Length, int Count) directory, bool isValid)
    {
        var bitmaps = new List<Qcow2SpecBitmap>();
        image.Require(directory.Count > 0 || !isValid, "the bitmaps bit needs bitmaps");
        if (directory.Count == 0 || !isValid || !image.AddTable(directory.Offset, directory.Length, "the bitmap directory"))
        {
            return bitmaps;
        }
        var names = new HashSet<string>(StringComparer.Ordinal);
        long at = directory.Offset, end = directory.Offset + directory.Length;
        for (int i = 0; i < directory.Count && at + 24 <= end; i++)
        {
            (long table, uint entries, uint flags) = ((long)image.U64(at), image.U32(at + 8), image.U32(at + 12));
            (int type, int granularity, int nameLength, uint extra) = (
                image.Byte(at + 16), image.Byte(at + 17), image.U16(at + 18), image.U32(at + 20));
            string name = Encoding.UTF8.GetString(image.Bytes(at + 24 + extra, nameLength));
            image.Require(type == 1 && granularity < 64 && (flags & ~7u) == 0
                && extra == 0, $"bitmap {i}: type {type}, granularity {granularity}, flags {flags:x}, extra {extra}");
            image.Require(nameLength is > 0 and <= 1023 && names.Add(name), $"bitmap {i}: its name '{name}'");
            bitmaps.Add(new(
                name, granularity, (flags & 1) != 0, (flags & 2) != 0, ReadBits(image, name, table, entries, Math.Min(granularity, 40))));
            at += (24 + extra + nameLength + 7) / 8 * 8;
        }
        image.Require(bitmaps.Count == directory.Count && at == end, "the bitmap directory is as long as its entries");
        return bitmaps;
    }

    /// <summary>Spec: "Bitmap table", "Bitmap data". A table entry without data means all clear, or all set.</summary>
    private static List<(long Offset, long Length)> ReadBits(Qcow2SpecReader image, string name, long table, uint entries, int granularity)
    {
        var dirty = new List<(long Offset, long Length)>();
        long bits = (image.Size + (1L << granularity) - 1) >> granularity, perCluster = image.ClusterSize * 8L;
        image.Require(entries >= (bits + perCluster - 1) / perCluster, $"bitmap '{name}' has a table of {entries} entries for {bits} bits");
        if (entries == 0 || !image.AddTable(table, entries * 8L, $"the table of bitmap '{name}'"))
        {
            return dirty;
        }
        for (long first = 0; first / perCluster < entries; first += perCluster)
        {
            ulong entry = image.U64(table + (first / perCluster * 8));
            long data = (long)(entry & Qcow2SpecReader.OffsetBits);
            image.Require((entry & ~(Qcow2SpecReader.OffsetBits | 1)) == 0
                && (data == 0 || (entry & 1) == 0), $"entry {entry:x} of the table of bitmap '{name}'");
            byte[] bytes = data != 0 && image.AddTable(data, image.ClusterSize, $"the bits of bitmap '{name}'")
                ? image.Bytes(data, image.ClusterSize) : [];
            for (long bit = first; bit < Math.Min(bits, first + perCluster); bit++)
            {
                bool isSet = bytes.Length == 0 ? (entry & 1) != 0 : (bytes[(bit - first) / 8] >> (int)((bit - first) % 8) & 1) != 0;
                long offset = bit << granularity, length = Math.Min(1L << granularity, image.Size - offset);
                if (isSet && dirty.Count > 0 && dirty[^1].Offset + dirty[^1].Length == offset)
                {
                    dirty[^1] = (dirty[^1].Offset, dirty[^1].Length + length);
                }
                else if (isSet)
                {
                    dirty.Add((offset, length));
                }
            }
        }
        return dirty;
    }
}
