using System.Buffers.Binary;
using System.IO.Compression;
using System.Text;
using DiskImage.Binary;
using DiskImage.Formats.Dmg;

namespace DiskImage.Tests.Formats.Dmg;

/// <summary>A chunk to be written: what it decodes to, how it is stored, and as what.</summary>
internal sealed record DmgPart(DmgKind Kind, byte[] Contents, byte[] Stored)
{
    /// <summary>A chunk of a kind that the tests can make themselves.</summary>
    public static DmgPart Of(DmgKind kind, byte[] contents) => new(kind, contents, kind switch
    {
        DmgKind.Zero or DmgKind.Ignore => [],
        DmgKind.Raw => contents,
        DmgKind.Adc => Adc(contents),
        DmgKind.Zlib => Zlib(contents),
        DmgKind.Lzfse => Compression.Apple.AppleDecoderTests.Raw(contents),
        _ => throw new ArgumentOutOfRangeException(nameof(kind), kind, null),
    });

    private static byte[] Zlib(byte[] contents)
    {
        using var packed = new MemoryStream();
        using (var zlib = new ZLibStream(packed, CompressionLevel.Optimal, leaveOpen: true))
        {
            zlib.Write(contents);
        }
        return packed.ToArray();
    }

    /// <summary>Literals, and matches of both forms where the last byte, or those 2,000 before, are repeated.</summary>
    private static byte[] Adc(byte[] contents)
    {
        var packed = new List<byte>();
        for (int at = 0; at < contents.Length;)
        {
            int near = Run(1), far = Run(2000);
            if (near >= 3)
            {
                near = Math.Min(near, 18);
                packed.AddRange([(byte)((near - 3) << 2), 0]);
                at += near;
            }
            else if (far >= 4)
            {
                far = Math.Min(far, 67);
                packed.AddRange([(byte)(0x40 | (far - 4)), 1999 >> 8, 1999 & 0xFF]);
                at += far;
            }
            else
            {
                int count = Math.Min(7, contents.Length - at);
                packed.Add((byte)(0x80 | (count - 1)));
                packed.AddRange(contents[at..(at + count)]);
                at += count;
            }

            int Run(int distance)
            {
                int length = 0;
                while (at >= distance && at + length < contents.Length && length < 67
                    && contents[at + length] == contents[at + length - distance])
                {
                    length++;
                }
                return length;
            }
        }
        return [.. packed];
    }
}

/// <summary>Makes Apple disk images by the published layout.</summary>
internal sealed class DmgMaker
{
    private readonly List<byte> _data = [];
    private readonly List<(string Name, byte[] Table, uint Crc)> _tables = [];
    private long _sectors;

    /// <summary>Bytes in front of the data fork.</summary>
    public int Front { get; init; }

    /// <summary>The tables stand in a resource fork, not in a property list.</summary>
    public bool UsesResourceFork { get; init; }

    /// <summary>Text that stands in the property list before the tables.</summary>
    public string Extra { get; init; } = "";

    /// <summary>The checksums cover "ignore" chunks as zeroes; 7-Zip thinks that they do not.</summary>
    public bool SumsIgnored { get; init; }

    /// <summary>Sectors that no table covers.</summary>
    public DmgMaker Gap(int sectors)
    {
        _sectors += sectors;
        return this;
    }

    /// <summary>A partition of these chunks.</summary>
    public DmgMaker Add(string name, params DmgPart[] parts)
    {
        byte[] table = new byte[204 + ((parts.Length + 2) * 40)];
        "mish"u8.CopyTo(table);
        BinaryPrimitives.WriteInt32BigEndian(table.AsSpan(4), 1);
        BinaryPrimitives.WriteInt64BigEndian(table.AsSpan(8), _sectors);
        long start = _data.Count;
        BinaryPrimitives.WriteInt64BigEndian(table.AsSpan(24), start);
        uint crc = 0;
        long sector = 0;
        Chunk(0, DmgKind.Remark, 0, 0);
        for (int i = 0; i < parts.Length; i++)
        {
            DmgPart part = parts[i];
            crc = part.Kind == DmgKind.Ignore && !SumsIgnored ? crc : Crc32.Append(crc, part.Contents);
            Chunk(i + 1, part.Kind, part.Contents.Length / 512, part.Stored.Length);
            _data.AddRange(part.Stored);
            sector += part.Contents.Length / 512;
        }
        Chunk(parts.Length + 1, DmgKind.End, 0, 0);
        BinaryPrimitives.WriteInt64BigEndian(table.AsSpan(16), sector);
        BinaryPrimitives.WriteInt32BigEndian(table.AsSpan(64), 2);
        BinaryPrimitives.WriteInt32BigEndian(table.AsSpan(68), 32);
        BinaryPrimitives.WriteUInt32BigEndian(table.AsSpan(72), crc);
        BinaryPrimitives.WriteInt32BigEndian(table.AsSpan(200), parts.Length + 2);
        _tables.Add((name, table, crc));
        _sectors += sector;
        return this;

        void Chunk(int index, DmgKind kind, long sectors, long stored)
        {
            Span<byte> chunk = table.AsSpan(204 + (index * 40));
            BinaryPrimitives.WriteUInt32BigEndian(chunk, (uint)kind);
            BinaryPrimitives.WriteInt64BigEndian(chunk[8..], sector);
            BinaryPrimitives.WriteInt64BigEndian(chunk[16..], sectors);
            BinaryPrimitives.WriteInt64BigEndian(chunk[24..], _data.Count - start);
            BinaryPrimitives.WriteInt64BigEndian(chunk[32..], stored);
        }
    }

    /// <summary>The image in one file.</summary>
    public byte[] Make(bool trailerFirst = false)
    {
        byte[] data = [.. _data], list = UsesResourceFork ? ResourceFork() : Encoding.UTF8.GetBytes(PropertyList());
        int front = Front + (trailerFirst ? 512 : 0);
        byte[] trailer = Trailer(front, data, 0, 1, 1, (front + data.Length, list.Length));
        return trailerFirst ? [.. trailer, .. new byte[Front], .. data, .. list] : [.. new byte[front], .. data, .. list, .. trailer];
    }

    /// <summary>The image in several files; the list is in the first one.</summary>
    public byte[][] MakeSegments(int count)
    {
        byte[] data = [.. _data], list = Encoding.UTF8.GetBytes(PropertyList());
        int part = (data.Length + count - 1) / count;
        return
        [
            .. Enumerable.Range(0, count).Select(i =>
            {
                byte[] own = data[(i * part)..Math.Min(data.Length, (i + 1) * part)], tail = i == 0 ? list : [];
                return (byte[])[.. own, .. tail, .. Trailer(0, own, i * part, i + 1, count, (own.Length, tail.Length))];
            }),
        ];
    }

    public string PropertyList()
    {
        var text = new StringBuilder("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!DOCTYPE plist PUBLIC \"-//Apple Computer//DTD PLIST "
            + "1.0//EN\" \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n");
        text.Append(
            "<plist version=\"1.0\">\n<dict>\n").Append(Extra).Append("<key>resource-fork</key>\n<dict>\n<key>blkx</key>\n<array>\n");
        for (int i = 0; i < _tables.Count; i++)
        {
            text.Append("<dict><key>Attributes</key><string>0x0050</string><key>CFName</key><string>").Append(_tables[i].Name).Append(
                "</string><key>Data</key><data>\n\t")
                .Append(Convert.ToBase64String(_tables[i].Table, Base64FormattingOptions.InsertLineBreaks)).Append(
                    "\n</data><key>ID</key><string>").Append(i - 1)
                .Append("</string><key>Name</key><string>").Append(_tables[i].Name).Append("</string></dict>\n");
        }
        return text.Append("</array>\n<key>plst</key><array><dict><key>ID</key><string>0</string></dict></array>\n</dict>\n</dict>\n</plist>\n").ToString();
    }

    private byte[] ResourceFork()
    {
        using var data = new MemoryStream();
        using var references = new MemoryStream();
        using var names = new MemoryStream();
        foreach ((string name, byte[] table, _) in _tables)
        {
            references.Write([
                0, 1, (byte)(names.Length >> 8), (byte)names.Length, 0, (byte)(data.Length >> 16), (byte)(data.Length >> 8),
                (byte)data.Length, 0, 0, 0, 0,
            ]);
            names.WriteByte((byte)name.Length);
            names.Write(Encoding.Latin1.GetBytes(name));
            byte[] length = new byte[4];
            BinaryPrimitives.WriteInt32BigEndian(length, table.Length);
            data.Write([.. length, .. table]);
        }
        int typesAt = 28, count = _tables.Count - 1, referencesAt = 2 + 16, namesAt = typesAt + referencesAt + (int)references.Length;
        byte[] map =
        [
            .. new byte[24], 0, (byte)typesAt, (byte)(namesAt >> 8), (byte)namesAt,
            0, 1, .. "plst"u8, 0, 0, 0, (byte)referencesAt, .. "blkx"u8, (byte)(count >> 8), (byte)count, 0, (byte)referencesAt,
            .. references.ToArray(), .. names.ToArray(),
        ];
        byte[] fork = [.. new byte[256], .. data.ToArray(), .. map];
        BinaryPrimitives.WriteInt32BigEndian(fork, 256);
        BinaryPrimitives.WriteInt32BigEndian(fork.AsSpan(4), 256 + (int)data.Length);
        BinaryPrimitives.WriteInt32BigEndian(fork.AsSpan(8), (int)data.Length);
        BinaryPrimitives.WriteInt32BigEndian(fork.AsSpan(12), map.Length);
        return fork;
    }

    private byte[] Trailer(long dataOffset, byte[] data, long running, int segment, int segments, (long Offset, long Length) list)
    {
        byte[] trailer = new byte[512];
        "koly"u8.CopyTo(trailer);
        BinaryPrimitives.WriteInt32BigEndian(trailer.AsSpan(4), 4);
        BinaryPrimitives.WriteInt32BigEndian(trailer.AsSpan(8), 512);
        BinaryPrimitives.WriteInt32BigEndian(trailer.AsSpan(12), 1);
        BinaryPrimitives.WriteInt64BigEndian(trailer.AsSpan(16), running);
        BinaryPrimitives.WriteInt64BigEndian(trailer.AsSpan(24), dataOffset);
        BinaryPrimitives.WriteInt64BigEndian(trailer.AsSpan(32), data.Length);
        int listAt = UsesResourceFork ? 40 : 216;
        BinaryPrimitives.WriteInt64BigEndian(trailer.AsSpan(listAt), list.Length == 0 ? 0 : list.Offset);
        BinaryPrimitives.WriteInt64BigEndian(trailer.AsSpan(listAt + 8), list.Length);
        BinaryPrimitives.WriteInt32BigEndian(trailer.AsSpan(56), segment);
        BinaryPrimitives.WriteInt32BigEndian(trailer.AsSpan(60), segments);
        trailer.AsSpan(64, 16).Fill(0x5A);
        BinaryPrimitives.WriteInt32BigEndian(trailer.AsSpan(80), 2);
        BinaryPrimitives.WriteInt32BigEndian(trailer.AsSpan(84), 32);
        BinaryPrimitives.WriteUInt32BigEndian(trailer.AsSpan(88), Crc32.Append(0, data));
        uint crc = 0;
        byte[] value = new byte[4];
        foreach ((_, _, uint table) in _tables)
        {
            BinaryPrimitives.WriteUInt32BigEndian(value, table);
            crc = Crc32.Append(crc, value);
        }
        BinaryPrimitives.WriteInt32BigEndian(trailer.AsSpan(352), 2);
        BinaryPrimitives.WriteInt32BigEndian(trailer.AsSpan(356), 32);
        BinaryPrimitives.WriteUInt32BigEndian(trailer.AsSpan(360), crc);
        BinaryPrimitives.WriteInt32BigEndian(trailer.AsSpan(488), 1);
        BinaryPrimitives.WriteInt64BigEndian(trailer.AsSpan(492), _sectors);
        return trailer;
    }
}
