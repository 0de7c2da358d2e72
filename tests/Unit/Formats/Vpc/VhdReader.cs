using System.Buffers.Binary;
using System.Text;

namespace DiskImage.Tests.Formats.Vpc;

/// <summary>
/// A second reader of VHD files, written from the specification and independent of the library: every checksum, offset and bitmap is
/// verified on the way. Whole files in memory, so for small ones only.
/// </summary>
internal sealed class VhdReader
{
    private readonly byte[] _file;
    private readonly int _footer;

    private VhdReader(byte[] file)
    {
        _file = file;
        _footer = file.Length - 512;
        Assert.True(_footer >= 0, "room for a footer");
        Assert.Equal("conectix", Text(_footer, 8));
        Assert.Equal(Sum(_footer, 512, 64), U32(_footer + 64));
        Assert.Equal(0x00010000u, U32(_footer + 12));
        Assert.Equal(2u, U32(_footer + 8) & 2);
        Assert.All(file[(_footer + 85)..(_footer + 512)], b => Assert.Equal(0, b));
        Type = (int)U32(_footer + 60);
        Size = (long)U64(_footer + 48);
        Creator = Text(_footer + 28, 4);
        Geometry = (U16(_footer + 56), file[_footer + 58], file[_footer + 59]);
        Time = U32(_footer + 24);
        UniqueId = file[(_footer + 68)..(_footer + 84)];
    }

    public int Type { get; }

    public long Size { get; }

    public string Creator { get; }

    public (int Cylinders, int Heads, int Sectors) Geometry { get; }

    public byte[] UniqueId { get; }

    public uint Time { get; }

    public byte[] ParentId { get; private set; } = [];

    public uint ParentTime { get; private set; }

    public string ParentName { get; private set; } = "";

    public Dictionary<string, string> Locators { get; } = [];

    /// <summary>Blocks in the file.</summary>
    public int Allocated { get; private set; }

    /// <summary>Bytes that no structure takes, between the first and the footer.</summary>
    public long Unused { get; private set; }

    /// <summary>Reads a disk, and its parent where a sector is not its own. Returns what it is and its contents.</summary>
    public static (VhdReader Disk, byte[] Contents) Read(string path, byte[]? parent = null)
    {
        var reader = new VhdReader(File.ReadAllBytes(path));
        return (reader, reader.Type == 2 ? reader.Fixed() : reader.Dynamic(parent));
    }

    private byte[] Fixed()
    {
        Assert.Equal(ulong.MaxValue, U64(_footer + 16));
        Assert.Equal(_footer, Size);
        return _file[..(int)Size];
    }

    private byte[] Dynamic(byte[]? parent)
    {
        Assert.InRange(Type, 3, 4);
        Assert.Equal(_file[_footer..], _file[..512]);
        int header = (int)U64(_footer + 16);
        Assert.Equal("cxsparse", Text(header, 8));
        Assert.Equal(ulong.MaxValue, U64(header + 8));
        Assert.Equal(0x00010000u, U32(header + 24));
        Assert.Equal(Sum(header, 1024, 36), U32(header + 36));
        int table = (int)U64(header + 16), entries = (int)U32(header + 28);
        long blockSize = U32(header + 32);
        Assert.Equal((Size + blockSize - 1) / blockSize, entries);
        Assert.Equal(0, table % 512);
        var used = new List<(
            long Start,
            long End)> { (0, 512), (header, header + 1024), (table, (table + (entries * 4) + 511) / 512 * 512), (_footer, _footer + 512) };
        ReadParent(header, used);
        int bitmap = (int)(((blockSize / 512) + 4095) / 4096) * 512;
        byte[] disk = new byte[Size];
        if (Type == 4)
        {
            Assert.NotNull(parent);
            parent.AsSpan(0, (int)Math.Min(parent.Length, Size)).CopyTo(disk);
        }
        for (int i = 0; i < entries; i++)
        {
            uint entry = U32(table + (i * 4));
            if (entry == uint.MaxValue)
            {
                continue;
            }
            Allocated++;
            long at = entry * 512L;
            used.Add((at, at + bitmap + blockSize));
            for (int sector = 0; sector < blockSize / 512; sector++)
            {
                long guest = (i * blockSize) + (sector * 512L);
                bool isSet = (_file[at + (sector / 8)] & (0x80 >> (sector % 8))) != 0;
                int host = (int)(at + bitmap + (sector * 512L));
                if (isSet && guest < Size)
                {
                    _file.AsSpan(host, 512).CopyTo(disk.AsSpan((int)guest));
                }
                else if (!isSet && Type == 3)
                {
                    Assert.True(
                        !_file.AsSpan(host, 512).ContainsAnyExcept((byte)0),
                        $"sector {sector} of block {i} has no bit but data, which QEMU would show");
                }
            }
        }
        used.Sort();
        long end = 0;
        foreach ((long start, long stop) in used)
        {
            Assert.True(start >= end, $"overlap at {start}");
            Unused += start - end;
            end = stop;
        }
        return disk;
    }

    private void ReadParent(int header, List<(long Start, long End)> used)
    {
        ParentId = _file[(header + 40)..(header + 56)];
        ParentTime = U32(header + 56);
        ParentName = Encoding.BigEndianUnicode.GetString(_file, header + 64, 512).TrimEnd('\0');
        for (int i = 0; i < 8; i++)
        {
            int at = header + 576 + (i * 24);
            if (U32(at) == 0)
            {
                Assert.All(_file[at..(at + 24)], b => Assert.Equal(0, b));
                continue;
            }
            (uint space, uint length, long offset) = (U32(at + 4), U32(at + 8), (long)U64(at + 16));
            Assert.Equal(0u, space % 512);
            Assert.InRange(length, 1u, space);
            Assert.Equal(0u, U32(at + 12));
            Assert.Equal(0, offset % 512);
            used.Add((offset, offset + space));
            Locators.Add(Text(at, 4), Encoding.Unicode.GetString(_file, (int)offset, (int)length));
        }
        Assert.Equal(Type == 4, ParentId.Any(b => b != 0));
    }

    private string Text(int at, int length) => Encoding.Latin1.GetString(_file, at, length);

    private ushort U16(int at) => BinaryPrimitives.ReadUInt16BigEndian(_file.AsSpan(at));

    private uint U32(int at) => BinaryPrimitives.ReadUInt32BigEndian(_file.AsSpan(at));

    private ulong U64(int at) => BinaryPrimitives.ReadUInt64BigEndian(_file.AsSpan(at));

    private uint Sum(int at, int length, int checksumAt)
    {
        uint sum = 0;
        for (int i = 0; i < length; i++)
        {
            sum += i - checksumAt is >= 0 and < 4 ? 0u : _file[at + i];
        }
        return ~sum;
    }
}
