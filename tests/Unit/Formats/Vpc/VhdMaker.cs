using System.Buffers.Binary;
using System.Text;

namespace DiskImage.Tests.Formats.Vpc;

/// <summary>Writes VHD structures field by field, as other programs do, so that any of them can be wrong.</summary>
internal static class VhdMaker
{
    public static byte[] Footer(
        string creator, long size, (ushort C, byte H, byte S) geometry, int type, ulong dataOffset = 512, byte id = 0x11, uint time = 1)
    {
        byte[] bytes = new byte[512];
        Encoding.ASCII.GetBytes("conectix").CopyTo(bytes, 0);
        BinaryPrimitives.WriteUInt32BigEndian(bytes.AsSpan(8), 2);
        BinaryPrimitives.WriteUInt32BigEndian(bytes.AsSpan(12), 0x10000);
        BinaryPrimitives.WriteUInt64BigEndian(bytes.AsSpan(16), type == 2 ? ulong.MaxValue : dataOffset);
        BinaryPrimitives.WriteUInt32BigEndian(bytes.AsSpan(24), time);
        Encoding.Latin1.GetBytes(creator).CopyTo(bytes, 28);
        BinaryPrimitives.WriteUInt32BigEndian(bytes.AsSpan(32), 0x50003);
        Encoding.ASCII.GetBytes("Wi2k").CopyTo(bytes, 36);
        BinaryPrimitives.WriteInt64BigEndian(bytes.AsSpan(40), size);
        BinaryPrimitives.WriteInt64BigEndian(bytes.AsSpan(48), size);
        BinaryPrimitives.WriteUInt16BigEndian(bytes.AsSpan(56), geometry.C);
        (bytes[58], bytes[59]) = (geometry.H, geometry.S);
        BinaryPrimitives.WriteInt32BigEndian(bytes.AsSpan(60), type);
        bytes.AsSpan(68, 16).Fill(id);
        Seal(bytes, 64);
        return bytes;
    }

    public static byte[] Header(
        long table,
        int entries,
        uint blockSize,
        byte parentId = 0,
        uint parentTime = 0,
        string parentName = "",
        params (string Platform, byte[] Text, long Offset)[] locators)
    {
        byte[] bytes = new byte[1024];
        Encoding.ASCII.GetBytes("cxsparse").CopyTo(bytes, 0);
        BinaryPrimitives.WriteUInt64BigEndian(bytes.AsSpan(8), ulong.MaxValue);
        BinaryPrimitives.WriteInt64BigEndian(bytes.AsSpan(16), table);
        BinaryPrimitives.WriteUInt32BigEndian(bytes.AsSpan(24), 0x10000);
        BinaryPrimitives.WriteInt32BigEndian(bytes.AsSpan(28), entries);
        BinaryPrimitives.WriteUInt32BigEndian(bytes.AsSpan(32), blockSize);
        bytes.AsSpan(40, 16).Fill(parentId);
        BinaryPrimitives.WriteUInt32BigEndian(bytes.AsSpan(56), parentTime);
        Encoding.BigEndianUnicode.GetBytes(parentName).CopyTo(bytes, 64);
        for (int i = 0; i < locators.Length; i++)
        {
            Span<byte> entry = bytes.AsSpan(576 + (i * 24), 24);
            Encoding.ASCII.GetBytes(locators[i].Platform).CopyTo(entry);
            BinaryPrimitives.WriteInt32BigEndian(entry[4..], 512);
            BinaryPrimitives.WriteInt32BigEndian(entry[8..], locators[i].Text.Length);
            BinaryPrimitives.WriteInt64BigEndian(entry[16..], locators[i].Offset);
        }
        Seal(bytes, 36);
        return bytes;
    }

    /// <summary>A dynamic or differencing disk; each block is its number, its bitmap and its data.</summary>
    public static byte[] Dynamic(
        byte[] footer, byte[] header, uint blockSize, int entries, params (int Block, byte[] Bitmap, byte[] Data)[] blocks)
    {
        using var file = new MemoryStream();
        file.Write(footer);
        file.Write(header);
        byte[] table = new byte[((entries * 4) + 511) / 512 * 512];
        table.AsSpan().Fill(0xFF);
        long at = 1536 + table.Length + (8 * 512); // room for locators
        int bitmap = (int)((blockSize / 512) + 4095) / 4096 * 512;
        foreach ((int block, _, _) in blocks)
        {
            BinaryPrimitives.WriteUInt32BigEndian(table.AsSpan(block * 4), (uint)(at / 512));
            at += bitmap + blockSize;
        }
        file.Write(table);
        foreach ((string _, byte[] text, long offset) in LocatorsOf(header))
        {
            file.Position = offset;
            file.Write(text);
        }
        file.Position = 1536 + table.Length + (8 * 512);
        foreach ((_, byte[] bits, byte[] data) in blocks)
        {
            long start = file.Position;
            file.Write(bits);
            file.Position = start + bitmap;
            file.Write(data);
            file.SetLength(Math.Max(file.Length, start + bitmap + blockSize));
            file.Position = start + bitmap + blockSize;
        }
        file.SetLength(file.Position);
        file.Write(footer);
        return file.ToArray();
    }

    public static void Seal(byte[] bytes, int checksumAt)
    {
        bytes.AsSpan(checksumAt, 4).Clear();
        BinaryPrimitives.WriteUInt32BigEndian(bytes.AsSpan(checksumAt), ~(uint)bytes.Sum(b => b));
    }

    [ThreadStatic]
    private static (string, byte[], long)[]? _locators;

    /// <summary>Locator data that the next <see cref="Dynamic"/> puts into the file.</summary>
    public static void WithLocators(params (string Platform, byte[] Text, long Offset)[] locators) => _locators = locators;

    private static (string Platform, byte[] Text, long Offset)[] LocatorsOf(byte[] header)
    {
        _ = header;
        (string, byte[], long)[] locators = _locators ?? [];
        _locators = null;
        return locators;
    }
}
