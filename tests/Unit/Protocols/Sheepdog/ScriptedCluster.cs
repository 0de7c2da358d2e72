using System.Buffers.Binary;
using System.Text;

namespace DiskImage.Tests.Protocols.Sheepdog;

/// <summary>
/// A Sheepdog cluster in memory: objects, inodes, states of VDIs, and what requests do to them. Written from include/sheepdog_proto.h and
/// from what sheep does, without the product's code. One request at a time.
/// </summary>
internal sealed class ScriptedCluster
{
    public const int Entries = 4664, Header = 48;

    private const uint Success = 0, NoObject = 2, Exists = 4, Invalid = 5, Locked = 7, NoVdi = 8, NoTag = 0xE, ReadOnly = 0x1A;

    private readonly HashSet<uint> _locked = [];
    private readonly HashSet<ulong> _givenUp = [];
    private readonly byte[] _taken = new byte[(1 << 24) / 8];
    private uint _clock = 1_700_000_000;

    /// <summary>All objects, by number.</summary>
    public SortedDictionary<ulong, Sparse> Objects { get; } = [];

    /// <summary>What has happened, as text: operations in order.</summary>
    public List<string> Log { get; } = [];

    /// <summary>Bytes of an object of a new VDI, as a shift.</summary>
    public byte Shift { get; set; } = 20;

    /// <summary>Objects that nobody leads to are removed only when <see cref="Reclaim"/> is called.</summary>
    public bool ReclaimsLater { get; set; }

    /// <summary>Never are they removed.</summary>
    public bool KeepsAll { get; set; }

    /// <summary>It holds writes back until a flush, as far as that can be seen.</summary>
    public bool HasCache { get; set; }

    /// <summary>The answer to a request with which it fails; null for those that do not.</summary>
    public Func<byte, ulong, uint?> Fail { get; set; } = (_, _) => null;

    /// <summary>The number of data objects that nobody leads to.</summary>
    public int Lost => Objects.Keys.Count(o => o >> 60 == 0 && !IsLedTo(o));

    public static ulong InodeOf(uint vdi) => (1UL << 63) | ((ulong)vdi << 32);

    /// <summary>The number of the VDI that a name leads to; 0 for none.</summary>
    public uint Working(string name) => Family(name).Where(v => !IsSnapshot(v)).DefaultIfEmpty().Max();

    public uint[] Snapshots(string name) => [.. Family(name).Where(IsSnapshot)];

    /// <summary>Removes objects that were given up, unless somebody leads to them again.</summary>
    public void Reclaim()
    {
        foreach (ulong lost in _givenUp.Where(o => !IsLedTo(o) || ReclaimsLater))
        {
            _ = Objects.Remove(lost);
        }
        _givenUp.Clear();
    }

    /// <summary>What a snapshot by somebody else does.</summary>
    public void SnapshotByOther(string name)
    {
        uint vdi = Working(name);
        _ = New(name, BinaryPrimitives.ReadInt64LittleEndian(Inode(vdi).Read(536, 8)), vdi, keepsPresent: true, default, 0);
    }

    /// <summary>Answers one request: its header and what follows.</summary>
    public byte[] Answer(ReadOnlySpan<byte> request)
    {
        byte operation = request[1];
        ulong first = BinaryPrimitives.ReadUInt64LittleEndian(request[16..]);
        uint length = BinaryPrimitives.ReadUInt32LittleEndian(request[12..]);
        ReadOnlySpan<byte> payload = request[Header..], fields = request[16..Header];
        byte[] answer = [], rest = new byte[28];
        Log.Add($"{operation:x2} {first:x16} +{BinaryPrimitives.ReadInt32LittleEndian(fields[24..])} {length}");
        uint result = Fail(operation, first) ?? operation switch
        {
            0x01 => Create(fields, payload, request[2]),
            0x02 => Read(fields, (int)length, out answer),
            0x03 => Write(fields, payload),
            0x11 => New(fields, payload, rest),
            0x12 or 0x14 or 0x17 => Find(operation, fields, payload, rest),
            0x13 => Release(fields),
            0x15 => length == _taken.Length ? Given(_taken, out answer) : Invalid,
            0x16 => HasCache ? Success : Invalid,
            _ => Invalid,
        };
        answer = result == Success ? answer : [];
        byte[] whole = new byte[Header + answer.Length];
        request[..16].CopyTo(whole);
        BinaryPrimitives.WriteInt32LittleEndian(whole.AsSpan(12), answer.Length);
        BinaryPrimitives.WriteUInt32LittleEndian(whole.AsSpan(16), result);
        rest.CopyTo(whole.AsSpan(20));
        answer.CopyTo(whole, Header);
        return whole;
    }

    private static uint Given(byte[] bytes, out byte[] answer)
    {
        answer = bytes;
        return Success;
    }

    private static string Text(ReadOnlySpan<byte> field) => Encoding.UTF8.GetString(field[..field.IndexOf((byte)0)]);

    private static int Hash(string name)
    {
        ulong hash = 0xcbf29ce484222325;
        foreach (byte b in Encoding.UTF8.GetBytes(name))
        {
            hash = (hash ^ b) * 0x100000001b3;
        }
        return (int)(hash & 0xFFFFFF);
    }

    private Sparse Inode(uint vdi) => Objects[InodeOf(vdi)];

    private bool IsSnapshot(uint vdi) => BinaryPrimitives.ReadUInt64LittleEndian(Inode(vdi).Read(520, 8)) != 0;

    private uint SnapshotId(uint vdi) => BinaryPrimitives.ReadUInt32LittleEndian(Inode(vdi).Read(556, 4));

    private bool IsTaken(int vdi) => (_taken[vdi / 8] >> (vdi % 8) & 1) != 0;

    private List<uint> Family(string name)
    {
        var family = new List<uint>();
        for (int vdi = Hash(name); IsTaken(vdi); vdi = (vdi + 1) & 0xFFFFFF)
        {
            if (Text(Inode((uint)vdi).Read(0, 256)) == name)
            {
                family.Add((uint)vdi);
            }
        }
        return family;
    }

    private bool IsLedTo(ulong data)
    {
        byte[] owner = BitConverter.GetBytes((uint)(data >> 32));
        int at = Entries + (int)((data & 0xFFFFFFFF) * 4);
        return Objects.Any(o => o.Key >> 63 == 1 && o.Value.Read(at, 4).AsSpan().SequenceEqual(owner));
    }

    private uint Create(ReadOnlySpan<byte> fields, ReadOnlySpan<byte> payload, byte flags)
    {
        ulong id = BinaryPrimitives.ReadUInt64LittleEndian(fields), from = BinaryPrimitives.ReadUInt64LittleEndian(fields[8..]);
        if (id >> 60 == 0 && IsSnapshot((uint)(id >> 32)))
        {
            return ReadOnly;
        }
        Sparse? model = null;
        if ((flags & 2) != 0 && !Objects.TryGetValue(from, out model))
        {
            return NoObject;
        }
        Sparse made = model?.Copy() ?? new Sparse();
        made.Write(BinaryPrimitives.ReadInt32LittleEndian(fields[24..]), payload);
        Objects[id] = made;
        return Success;
    }

    private uint Read(ReadOnlySpan<byte> fields, int length, out byte[] answer)
    {
        answer = [];
        if (!Objects.TryGetValue(BinaryPrimitives.ReadUInt64LittleEndian(fields), out Sparse? there))
        {
            return NoObject;
        }
        answer = there.Read(BinaryPrimitives.ReadInt32LittleEndian(fields[24..]), length);
        return Success;
    }

    private uint Write(ReadOnlySpan<byte> fields, ReadOnlySpan<byte> payload)
    {
        ulong id = BinaryPrimitives.ReadUInt64LittleEndian(fields);
        if (!Objects.TryGetValue(id, out Sparse? there))
        {
            return NoObject;
        }
        if (id >> 60 == 0 && IsSnapshot((uint)(id >> 32)))
        {
            return ReadOnly;
        }
        int at = BinaryPrimitives.ReadInt32LittleEndian(fields[24..]);
        byte[] before = there.Read(at, payload.Length);
        there.Write(at, payload);
        for (int i = 0; id >> 63 == 1 && at >= Entries && !KeepsAll && i < payload.Length; i += 4)
        {
            uint owner = BinaryPrimitives.ReadUInt32LittleEndian(before.AsSpan(i));
            ulong data = ((ulong)owner << 32) | (uint)((at - Entries + i) / 4);
            if (owner != 0 && owner != BinaryPrimitives.ReadUInt32LittleEndian(payload[i..]) && !IsLedTo(data))
            {
                _ = _givenUp.Add(data);
            }
        }
        if (!ReclaimsLater)
        {
            Reclaim();
        }
        return Success;
    }

    private uint Find(byte operation, ReadOnlySpan<byte> fields, ReadOnlySpan<byte> names, Span<byte> answer)
    {
        if (names.Length != 512)
        {
            return Invalid;
        }
        string name = Text(names), tag = Text(names[256..]);
        uint snapshot = BinaryPrimitives.ReadUInt32LittleEndian(fields[16..]);
        List<uint> family = Family(name);
        uint found = tag.Length == 0 && snapshot == 0
            ? family.Where(v => !IsSnapshot(v)).DefaultIfEmpty().Max()
            : family.Where(v => IsSnapshot(v) && ((tag.Length > 0 && Text(Inode(v).Read(256, 256)) == tag)
                || SnapshotId(v) == snapshot)).DefaultIfEmpty().Max();
        if (found == 0)
        {
            return tag.Length > 0 || snapshot > 0 ? (family.Count > 0 ? NoTag : NoVdi) : NoVdi;
        }
        BinaryPrimitives.WriteUInt32LittleEndian(answer[4..], found);
        if (operation == 0x17)
        {
            Sparse inode = Inode(found);
            if (inode.Read(Entries, 1 << 22).AsSpan().ContainsAnyExcept((byte)0))
            {
                return Success; // sheep says so, and does nothing
            }
            inode.Write(0, new byte[256]);
            inode.Write(536, new byte[8]);
        }
        return operation == 0x12 && !_locked.Add(found) ? Locked : Success;
    }

    private uint Release(ReadOnlySpan<byte> fields)
    {
        _ = _locked.Remove(BinaryPrimitives.ReadUInt32LittleEndian(fields[8..]));
        return Success;
    }

    private uint New(ReadOnlySpan<byte> fields, ReadOnlySpan<byte> names, Span<byte> answer)
    {
        if (names.Length != 256)
        {
            return Invalid;
        }
        bool keepsPresent = BinaryPrimitives.ReadUInt32LittleEndian(fields[16..]) != 0;
        string name = Text(names);
        if (!keepsPresent && Working(name) != 0)
        {
            return Exists;
        }
        uint made = New(
            name,
            BinaryPrimitives.ReadInt64LittleEndian(fields),
            BinaryPrimitives.ReadUInt32LittleEndian(fields[8..]),
            keepsPresent,
            (fields[12], fields[13]),
            fields[15]);
        BinaryPrimitives.WriteUInt32LittleEndian(answer[4..], made);
        return Success;
    }

    private uint New(string name, long size, uint from, bool keepsPresent, (byte Copies, byte Policy) redundancy, byte shift)
    {
        uint present = Working(name);
        uint id = Family(name).Select(SnapshotId).DefaultIfEmpty().Max() + 1;
        if (keepsPresent)
        {
            byte[] time = new byte[8];
            BinaryPrimitives.WriteUInt64LittleEndian(time, ((ulong)_clock++ << 32) | 5);
            Inode(present).Write(520, time);
        }
        int vdi = Hash(name);
        while (IsTaken(vdi))
        {
            vdi = (vdi + 1) & 0xFFFFFF;
        }
        _taken[vdi / 8] |= (byte)(1 << (vdi % 8));
        Sparse inode = new();
        if (from != 0)
        {
            inode.Write(Entries, Inode(from).Read(Entries, 1 << 22));
        }
        byte[] header = new byte[Entries];
        _ = Encoding.UTF8.GetBytes(name, header);
        BinaryPrimitives.WriteInt64LittleEndian(header.AsSpan(536), size);
        (header[552], header[554], header[555]) = (
            redundancy.Policy, redundancy.Copies == 0 ? (byte)1 : redundancy.Copies, shift == 0 ? Shift : shift);
        BinaryPrimitives.WriteUInt32LittleEndian(header.AsSpan(556), id);
        BinaryPrimitives.WriteUInt32LittleEndian(header.AsSpan(560), (uint)vdi);
        BinaryPrimitives.WriteUInt32LittleEndian(header.AsSpan(564), from);
        inode.Write(0, header);
        Objects[InodeOf((uint)vdi)] = inode;
        return (uint)vdi;
    }

    /// <summary>Bytes of which most are zeroes.</summary>
    internal sealed class Sparse
    {
        private const int Page = 1 << 16;

        private readonly Dictionary<int, byte[]> _pages = [];

        public byte[] Read(int at, int length)
        {
            byte[] bytes = new byte[length];
            for (int done = 0; done < length;)
            {
                int within = (at + done) % Page, count = Math.Min(Page - within, length - done);
                if (_pages.TryGetValue((at + done) / Page, out byte[]? page))
                {
                    page.AsSpan(within, count).CopyTo(bytes.AsSpan(done));
                }
                done += count;
            }
            return bytes;
        }

        public void Write(int at, ReadOnlySpan<byte> bytes)
        {
            for (int done = 0; done < bytes.Length;)
            {
                int within = (at + done) % Page, count = Math.Min(Page - within, bytes.Length - done);
                ReadOnlySpan<byte> part = bytes.Slice(done, count);
                if (_pages.TryGetValue((at + done) / Page, out byte[]? page) || part.ContainsAnyExcept((byte)0))
                {
                    page ??= _pages[(at + done) / Page] = new byte[Page];
                    part.CopyTo(page.AsSpan(within));
                }
                done += count;
            }
        }

        public Sparse Copy()
        {
            var copy = new Sparse();
            foreach ((int at, byte[] page) in _pages)
            {
                copy._pages[at] = [.. page];
            }
            return copy;
        }
    }
}
