using System.Buffers.Binary;
using System.Text;

namespace DiskImage.Tests.Formats.Vhdx;

/// <summary>
/// A reader of VHDX files written from [MS-VHDX] alone, sharing nothing with the library: a second opinion on what it writes. It
/// refuses whatever the specification says MUST NOT be, replays the log in memory, and reads the disk sector by sector.
/// </summary>
internal sealed class VhdxSpecReader
{
    private const int MiB = 1 << 20;
    private static readonly uint[] Table = MakeTable();

    private readonly byte[] _file;
    private readonly VhdxSpecReader? _parent;
    private readonly long _bat;
    private readonly int _ratio;

    public VhdxSpecReader(byte[] file, VhdxSpecReader? parent = null, bool requireClean = false, bool allowVersion095 = false)
    {
        (_file, _parent, AllowVersion095) = (file, parent, allowVersion095);
        Require(Ascii(0, 8) is "vhdxfile", "2.2.1 file type identifier");
        ReadHeaders();
        if (LogGuid != Guid.Empty)
        {
            Require(!requireClean, "a closed file has an empty log");
            _file = Replay();
        }
        (long offset, long length) bat = default, metadata = default;
        ReadRegions(ref bat, ref metadata);
        _bat = bat.offset;
        ReadMetadata(metadata);
        _ratio = (int)((1L << 23) * SectorSize / BlockSize);
        CheckBat(bat.length, metadata);
    }

    /// <summary>Whether block state 5 (PAYLOAD_BLOCK_UNMAPPED of version 0.95) is taken, as MS-VHDX 1.0 does not.</summary>
    public bool AllowVersion095 { get; }

    public Guid FileWriteGuid { get; private set; }
    public Guid DataWriteGuid { get; private set; }
    public Guid LogGuid { get; private set; }
    public long LogOffset { get; private set; }
    public long LogLength { get; private set; }
    public ulong HeaderSequence { get; private set; }
    public int ReplayedEntries { get; private set; }
    public int BlockSize { get; private set; }
    public bool LeaveAllocated { get; private set; }
    public bool HasParent { get; private set; }
    public long Size { get; private set; }
    public int SectorSize { get; private set; }
    public int PhysicalSectorSize { get; private set; }
    public Guid DiskId { get; private set; }
    public Dictionary<string, string> Locator { get; } = [];
    public Dictionary<int, int> States { get; } = [];
    public long Blocks => (Size + BlockSize - 1) / BlockSize;

    public static uint Crc(ReadOnlySpan<byte> bytes, int checksumAt)
    {
        uint crc = uint.MaxValue;
        for (int i = 0; i < bytes.Length; i++)
        {
            byte one = i >= checksumAt && i < checksumAt + 4 ? (byte)0 : bytes[i];
            crc = Table[(byte)(crc ^ one)] ^ (crc >> 8);
        }
        return ~crc;
    }

    /// <summary>The whole disk.</summary>
    public byte[] Contents()
    {
        byte[] disk = new byte[Size];
        for (long at = 0; at < Size; at += SectorSize)
        {
            ReadSector(at, disk.AsSpan((int)at, SectorSize));
        }
        return disk;
    }

    private void ReadSector(long at, Span<byte> sector)
    {
        long block = at / BlockSize, chunk = block / _ratio;
        ulong entry = U64(_bat + ((block + chunk) * 8));
        long host = (long)(entry >> 20) * MiB;
        int state = (int)(entry & 7);
        if (state is 1 or 2 or 3)
        {
            sector.Clear(); // zero, or what may read as zero
        }
        else if (state == 6 || (state == 7 && SectorIsHere(at, chunk)))
        {
            _file.AsSpan((int)(host + (at % BlockSize)), SectorSize).CopyTo(sector);
        }
        else if (HasParent && _parent is not null && at < _parent.Size)
        {
            _parent.ReadSector(at, sector);
        }
    }

    private bool SectorIsHere(long at, long chunk)
    {
        ulong entry = U64(_bat + (((chunk * (_ratio + 1L)) + _ratio) * 8));
        long bit = at / SectorSize % (1 << 23);
        return (_file[(long)(entry >> 20) * MiB + (bit / 8)] & (1 << (int)(bit % 8))) != 0;
    }

    private void ReadHeaders()
    {
        int current = -1;
        for (int i = 0; i < 2; i++)
        {
            int at = (64 << 10) << i;
            if (Ascii(at, 4) is "head" && U32(at + 4) == Crc(_file.AsSpan(at, 4096), 4) && (current < 0 || U64(at + 8) > HeaderSequence))
            {
                (current, HeaderSequence) = (at, U64(at + 8));
            }
        }
        Require(current > 0, "2.2.2 a header that is current");
        (FileWriteGuid, DataWriteGuid, LogGuid) = (Id(current + 16), Id(current + 32), Id(current + 48));
        Require(U16(current + 64) == 0 && U16(current + 66) == 1, "2.2.2 LogVersion and Version");
        (LogLength, LogOffset) = (U32(current + 68), (long)U64(current + 72));
        Require(LogLength > 0 && LogLength % MiB == 0 && LogOffset % MiB == 0 && LogOffset >= MiB
            && LogOffset + LogLength <= _file.Length, "2.2.2 place of the log");
        Require(_file.AsSpan(current + 80, 4016).IndexOfAnyExcept((byte)0) < 0, "2.2.2 reserved");
    }

    private byte[] Replay()
    {
        byte[] log = _file.AsSpan((int)LogOffset, (int)LogLength).ToArray();
        List<int> best = [];
        ulong bestSequence = 0;
        for (int tail = 0; tail < log.Length;)
        {
            var run = new List<int>();
            int at = tail;
            ulong sequence = 0;
            while (EntryIsValid(log, at, out int length)
                && (run.Count == 0 || BinaryPrimitives.ReadUInt64LittleEndian(log.AsSpan(at + 16)) == sequence + 1) && !run.Contains(at))
            {
                sequence = BinaryPrimitives.ReadUInt64LittleEndian(log.AsSpan(at + 16));
                run.Add(at);
                at = (at + length) % log.Length;
            }
            bool valid = run.Count > 0 && run.Contains((int)BinaryPrimitives.ReadUInt32LittleEndian(log.AsSpan(run[^1] + 12)));
            if (valid && sequence > bestSequence)
            {
                (best, bestSequence) = (run, sequence);
            }
            if (!valid)
            {
                tail += 4096;
            }
            else if (at <= tail)
            {
                break;
            }
            else
            {
                tail = at;
            }
        }
        Require(best.Count > 0, "2.3.3 a log that is not empty has a valid sequence");
        int head = best[^1], first = best.IndexOf((int)BinaryPrimitives.ReadUInt32LittleEndian(log.AsSpan(head + 12)));
        long flushed = BinaryPrimitives.ReadInt64LittleEndian(log.AsSpan(head + 48));
        long last = BinaryPrimitives.ReadInt64LittleEndian(log.AsSpan(head + 56));
        Require(flushed % MiB == 0 && last % MiB == 0, "2.3.1.1 file offsets in whole MiB");
        Require(_file.Length >= flushed, "2.3.3 the file is not shorter than FlushedFileOffset");
        byte[] file = new byte[Math.Max(_file.Length, last)];
        _file.CopyTo(file, 0);
        foreach (int entry in best.Skip(first))
        {
            ReplayedEntries++;
            ReplayEntry(log, entry, ref file);
        }
        return file;
    }

    private static void ReplayEntry(byte[] log, int entry, ref byte[] file)
    {
        int count = (int)BinaryPrimitives.ReadUInt32LittleEndian(log.AsSpan(entry + 24));
        int data = (64 + (count * 32) + 4095) / 4096 * 4096;
        for (int i = 0; i < count; i++)
        {
            byte[] descriptor = Ring(log, entry + 64 + (i * 32), 32);
            long offset = BinaryPrimitives.ReadInt64LittleEndian(descriptor.AsSpan(16));
            byte[] bytes;
            if (Encoding.ASCII.GetString(descriptor, 0, 4) is "zero")
            {
                bytes = new byte[BinaryPrimitives.ReadInt64LittleEndian(descriptor.AsSpan(8))];
            }
            else
            {
                bytes = Ring(log, entry + data, 4096);
                descriptor.AsSpan(8, 8).CopyTo(bytes);
                descriptor.AsSpan(4, 4).CopyTo(bytes.AsSpan(4092));
                data += 4096;
            }
            Require(offset >= 192 << 10, "2.3 the log does not update the file identifier or the headers");
            if (offset + bytes.Length > file.Length)
            {
                Array.Resize(ref file, (int)(offset + bytes.Length));
            }
            bytes.CopyTo(file, offset);
        }
    }

    private bool EntryIsValid(byte[] log, int at, out int length)
    {
        byte[] header = Ring(log, at, 64);
        length = (int)BinaryPrimitives.ReadUInt32LittleEndian(header.AsSpan(8));
        ulong sequence = BinaryPrimitives.ReadUInt64LittleEndian(header.AsSpan(16));
        if (Encoding.ASCII.GetString(header, 0, 4) is not "loge" || length <= 0 || length % 4096 != 0 || length > log.Length
            || sequence == 0
            || new Guid(header.AsSpan(32, 16)) != LogGuid)
        {
            return false;
        }
        byte[] entry = Ring(log, at, length);
        if (BinaryPrimitives.ReadUInt32LittleEndian(entry.AsSpan(4)) != Crc(entry, 4))
        {
            return false;
        }
        int count = (int)BinaryPrimitives.ReadUInt32LittleEndian(entry.AsSpan(24)), data = (64 + (count * 32) + 4095) / 4096 * 4096;
        for (int i = 0; i < count; i++)
        {
            Span<byte> descriptor = entry.AsSpan(64 + (i * 32), 32);
            Require(BinaryPrimitives.ReadUInt64LittleEndian(descriptor[24..]) == sequence, "2.3.1 sequence number of a descriptor");
            Require(BinaryPrimitives.ReadUInt64LittleEndian(descriptor[16..]) % 4096 == 0, "2.3.1 offset of a descriptor");
            if (Encoding.ASCII.GetString(descriptor[..4]) is "zero")
            {
                continue;
            }
            Require(Encoding.ASCII.GetString(descriptor[..4]) is "desc", "2.3.1.3 signature of a descriptor");
            Span<byte> sector = entry.AsSpan(data, 4096);
            Require(
                Encoding.ASCII.GetString(sector[..4]) is "data"
                    && BinaryPrimitives.ReadUInt32LittleEndian(sector[4..]) == (uint)(sequence >> 32)
                && BinaryPrimitives.ReadUInt32LittleEndian(sector[4092..]) == (uint)sequence,
                "2.3.1.4 data sector");
            data += 4096;
        }
        Require(data == length, "2.3.1 as many data sectors as data descriptors");
        return true;
    }

    private void ReadRegions(ref (long Offset, long Length) bat, ref (long Offset, long Length) metadata)
    {
        Require(_file.AsSpan(192 << 10, 64 << 10).SequenceEqual(_file.AsSpan(256 << 10, 64 << 10)), "2.2.3 both region tables are alike");
        int at = 192 << 10;
        Require(Ascii(at, 4) is "regi" && U32(at + 4) == Crc(_file.AsSpan(at, 64 << 10), 4), "2.2.3.1 region table");
        var taken = new List<(long Start, long End)> { (0, MiB), (LogOffset, LogOffset + LogLength) };
        for (int i = 0; i < U32(at + 8); i++)
        {
            int entry = at + 16 + (i * 32);
            (long offset, long length) region = ((long)U64(entry + 16), U32(entry + 24));
            Require(region.offset % MiB == 0 && region.length % MiB == 0 && region.length > 0, "2.2.3.2 alignment of a region");
            Require(!taken.Exists(t => t.Start < region.offset + region.length && region.offset < t.End), "2.2.3.2 regions do not overlap");
            taken.Add((region.offset, region.offset + region.length));
            if (Id(entry) == new Guid("2DC27766-F623-4200-9D64-115E9BFD4A08"))
            {
                bat = region;
            }
            else if (Id(entry) == new Guid("8B7CA206-4790-4B9A-B8FE-575F050F886E"))
            {
                metadata = region;
            }
            else
            {
                Require(U32(entry + 28) == 0, "2.2.3.2 a required region is known");
            }
        }
        Require(bat.Length > 0 && metadata.Length > 0, "2.2.3.2 known regions");
    }

    private void ReadMetadata((long Offset, long Length) region)
    {
        Require(Ascii(region.Offset, 8) is "metadata", "2.6.1.1 signature");
        var items = new Dictionary<Guid, (long At, int Length)>();
        var taken = new List<(long Start, long End)>();
        for (int i = 0; i < U16(region.Offset + 10); i++)
        {
            long entry = region.Offset + 32 + (i * 32);
            (long offset, int length) = (U32(entry + 16), (int)U32(entry + 20));
            Require(offset >= 64 << 10 && offset + length <= region.Length && length <= MiB, "2.6.1.2 place of an item");
            Require(!taken.Exists(t => t.Start < offset + length && offset < t.End), "2.6.1.2 items do not overlap");
            taken.Add((offset, offset + length));
            items.Add(Id(entry), (region.Offset + offset, length));
        }
        long At(string id, int length)
        {
            Require(items.TryGetValue(new Guid(id), out (long At, int Length) item)
                && (length < 0 || item.Length == length), $"2.6.2 item {id}");
            return item.At;
        }

        long parameters = At("CAA16737-FA36-4D43-B3B6-33F0AA44E76B", 8);
        (BlockSize, LeaveAllocated, HasParent) = ((int)U32(parameters), (U32(parameters + 4) & 1) != 0, (U32(parameters + 4) & 2) != 0);
        Require(U32(parameters + 4) < 4, "2.6.2.1 reserved");
        Require(BlockSize is >= MiB and <= 256 * MiB && (BlockSize & (BlockSize - 1)) == 0, "2.6.2.1 BlockSize");
        Size = (long)U64(At("2FA54224-CD1B-4876-B211-5DBED83BF4B8", 8));
        DiskId = Id(At("BECA12AB-B2E6-4523-93EF-C309E000C746", 16));
        SectorSize = (int)U32(At("8141BF1D-A96F-4709-BA47-F233A8FAAB5F", 4));
        PhysicalSectorSize = (int)U32(At("CDA348C7-445D-4471-9CC9-E9885251C556", 4));
        Require(SectorSize is 512 or 4096 && PhysicalSectorSize is 512 or 4096 && Size % SectorSize == 0
            && Size <= 64L << 40, "2.6.2 sizes");
        Require(
            items.ContainsKey(new Guid("A8D35F2D-B30B-454D-ABF7-D3D84834AB0C")) == HasParent,
            "2.6.2.6 a parent locator if there is a parent");
        if (HasParent)
        {
            ReadLocator(At("A8D35F2D-B30B-454D-ABF7-D3D84834AB0C", -1));
        }
    }

    private void ReadLocator(long at)
    {
        Require(Id(at) == new Guid("B04AEFB7-D19E-4A81-B789-25B8E9445913") && U16(at + 16) == 0, "2.6.2.6.3 type");
        for (int i = 0; i < U16(at + 18); i++)
        {
            long entry = at + 20 + (i * 12);
            Locator.Add(
                Encoding.Unicode.GetString(_file, (int)(at + U32(entry)), U16(entry + 8)),
                Encoding.Unicode.GetString(_file, (int)(at + U32(entry + 4)), U16(entry + 10)));
        }
        Require(Locator.Keys.Any(k => k is "relative_path" or "volume_path" or "absolute_win32_path"), "2.6.2.6.3 a path");
        Require(Locator.TryGetValue("parent_linkage", out string? linkage) && !linkage.Any(char.IsUpper)
            && linkage[0] == '{', "2.6.2.6.3 parent_linkage");
        Require(_parent is null || Guid.Parse(linkage!) == _parent.DataWriteGuid, "2.6.2.6.3 the parent's DataWriteGuid");
        Require(_parent is null || _parent.SectorSize == SectorSize, "2.6.2.4 the parent's sector size");
        Require(_parent is null || _parent.DiskId == DiskId, "2.6.1.2 the disk's identity is the parent's");
    }

    private void CheckBat(long batLength, (long Offset, long Length) metadata)
    {
        var taken = new SortedDictionary<long, long>
        {
            [0] = MiB, [LogOffset] = LogLength, [metadata.Offset] = metadata.Length, [_bat] = batLength,
        };
        long chunks = (Blocks + _ratio - 1) / _ratio;
        long entries = HasParent ? chunks * (_ratio + 1L) : Blocks + (Blocks == 0 ? 0 : (Blocks - 1) / _ratio);
        Require(entries * 8 <= batLength, "2.5 the BAT has room for every block");
        for (long i = 0; i < entries; i++)
        {
            ulong entry = U64(_bat + (i * 8));
            int state = (int)(entry & 7);
            long host = (long)(entry >> 20) * MiB, chunk = i / (_ratio + 1L), block = i - chunk;
            bool isBitmap = i % (_ratio + 1L) == _ratio;
            States[state] = States.GetValueOrDefault(state) + (isBitmap || block >= Blocks ? 0 : 1);
            Require((entry & 0xFFFF8) == 0, $"2.5.1 reserved bits of entry {i}");
            bool isOld = AllowVersion095 && state == 5 && !isBitmap;
            Require(
                isOld || (isBitmap ? state == 0 || (state == 6 && HasParent) : state is 0 or 1 or 2 or 3 or 6 || (state == 7 && HasParent)),
                $"2.5.1 state of entry {i}");
            Require(host == 0 || isOld || state is 6 or 7, $"2.5.1.1 entry {i}: no offset without a block");
            if (state is not (6 or 7))
            {
                Require(!(LeaveAllocated && !HasParent && !isBitmap && block < Blocks), $"a fixed disk has block {block}");
                continue;
            }
            Require(block < Blocks || isBitmap, $"entry {i} is inside the disk");
            long length = isBitmap ? MiB : BlockSize;
            Require(host >= MiB && host + length <= _file.Length, $"2.5.1 entry {i}: the block is in the file");
            Require(taken.TryAdd(host, length), $"2.5.1 entry {i}: offsets are unique");
            Require(state != 7
                || (U64(_bat + (((chunk * (_ratio + 1L)) + _ratio) * 8)) & 7) == 6, $"2.5.1.1 entry {i}: the sector bitmap is present");
        }
        long end = 0;
        foreach ((long start, long length) in taken)
        {
            Require(start >= end, $"2.5.1 nothing overlaps at {start}");
            end = start + length;
        }
    }

    private static byte[] Ring(byte[] log, int at, int length)
    {
        byte[] bytes = new byte[length];
        for (int i = 0; i < length; i++)
        {
            bytes[i] = log[(at + i) % log.Length];
        }
        return bytes;
    }

    private static uint[] MakeTable()
    {
        uint[] table = new uint[256];
        for (uint i = 0; i < 256; i++)
        {
            uint value = i;
            for (int bit = 0; bit < 8; bit++)
            {
                value = (value & 1) != 0 ? (value >> 1) ^ 0x82F63B78 : value >> 1;
            }
            table[i] = value;
        }
        return table;
    }

    private static void Require(bool condition, string what) => Assert.True(condition, $"MS-VHDX: {what}");

    private string Ascii(long at, int length) => Encoding.ASCII.GetString(_file, (int)at, length);

    private ushort U16(long at) => BinaryPrimitives.ReadUInt16LittleEndian(_file.AsSpan((int)at));

    private uint U32(long at) => BinaryPrimitives.ReadUInt32LittleEndian(_file.AsSpan((int)at));

    private ulong U64(long at) => BinaryPrimitives.ReadUInt64LittleEndian(_file.AsSpan((int)at));

    private Guid Id(long at) => new(_file.AsSpan((int)at, 16));
}
