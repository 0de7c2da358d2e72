using System.Buffers.Binary;
using System.Text;

namespace DiskImage.Tests.Formats.Qcow2;

/// <summary>
/// A reader of qcow2 images written from the published specification alone, sharing nothing with the library: a second opinion on
/// what it writes. It follows every reference, notes in <see cref="Faults"/> whatever the specification does not allow, and never
/// throws because of a damaged table, so that it can also say what of a damaged image can still be reached.
/// </summary>
internal sealed class Qcow2SpecReader
{
    public const ulong OffsetBits = 0x00FF_FFFF_FFFF_FE00, CopiedBit = 1UL << 63, CompressedBit = 1UL << 62;

    private const int MaxEntries = 1 << 22; // of an L1 table: more than that is damage

    private readonly byte[] _file;
    private readonly long _refcountTable, _refcountTableBytes;
    private readonly Dictionary<long, ulong> _references = []; // host cluster → how often it is referred to
    private readonly Dictionary<long, string> _tables = []; // host cluster → the structure that lies there
    private readonly List<string> _faults = [];

    /// <summary>Reads an image and the external data file, if it has one.</summary>
    public Qcow2SpecReader(byte[] file, byte[]? data = null)
    {
        (_file, Data) = (file, data);
        Assert.True(U32(0) == 0x514649FB, "magic");
        Version = (int)U32(4);
        Assert.True(Version is 2 or 3, "version");
        ClusterBits = (int)U32(20);
        Assert.InRange(ClusterBits, 9, 21);
        Size = (long)U64(24);
        bool v3 = Version == 3;
        (ulong incompatible, ulong autoClear) = v3 ? (U64(72), U64(88)) : (0, 0);
        int refcountOrder = v3 ? (int)U32(96) : 4, headerLength = v3 ? (int)U32(100) : 72;
        Require(refcountOrder <= 6, "refcount_order");
        Require(headerLength % 8 == 0 && headerLength >= (v3 ? 104 : 72), "header_length");
        Require((incompatible & ~0x1FUL) == 0, "incompatible features");
        Require((incompatible & 3) == 0, "neither dirty nor corrupt");
        Require(!v3 || (U64(80) & ~1UL) == 0, "compatible features");
        Require((autoClear & ~3UL) == 0, "autoclear features");
        Require(U32(32) == 0, "crypt_method");
        RefcountBits = 1 << refcountOrder;
        LazyRefcounts = v3 && (U64(80) & 1) != 0;
        ExtendedL2 = (incompatible & 16) != 0;
        CompressionType = headerLength > 104 ? Byte(104) : 0;
        Require((CompressionType != 0) == ((incompatible & 8) != 0), "the compression type bit is set for types other than 0 only");
        DataFileIsRaw = (autoClear & 2) != 0;
        Require(!ExtendedL2 || ClusterBits >= 14, "extended L2 entries need clusters of 16k");
        ReadExtensions(headerLength, out (long Offset, long Length, int Count) directory);
        bool external = (incompatible & 4) != 0;
        Require(external == (DataFile is not null), "an external data file is named if there is one");
        Require(external || !DataFileIsRaw, "raw external data needs an external data file");
        HasDataFile = external;

        AddTable(0, 1, "the header");
        (_refcountTable, _refcountTableBytes) = ((long)U64(48), (long)U32(56) << ClusterBits);
        AddTable(_refcountTable, _refcountTableBytes, "the refcount table");
        for (long at = 0; at < _refcountTableBytes && _refcountTable + at < _file.LongLength; at += 8)
        {
            ulong entry = U64(_refcountTable + at);
            Require((entry & 0x1FF) == 0, $"reserved bits of refcount table entry {at / 8}");
            if (entry != 0)
            {
                AddTable((long)entry, ClusterSize, $"refcount block {at / 8}");
            }
        }
        Active = AddView((long)U64(40), U32(36), Size, isActive: true, "the active L1 table");
        Snapshots = ReadSnapshots();
        Bitmaps = [.. Qcow2SpecBitmap.ReadAll(this, directory, isValid: (autoClear & 1) != 0)];
        CompareRefcounts();
        Active.CheckCopiedFlags();
    }

    public int Version { get; }
    public int ClusterBits { get; }
    public int ClusterSize => 1 << ClusterBits;

    /// <summary>Bytes that are mapped together: a subcluster, or a cluster where there are none.</summary>
    public int UnitSize => ExtendedL2 ? ClusterSize / 32 : ClusterSize;
    public long Size { get; }
    public int RefcountBits { get; }
    public bool LazyRefcounts { get; }
    public bool ExtendedL2 { get; }
    public int CompressionType { get; }
    public bool HasDataFile { get; }
    public bool DataFileIsRaw { get; }
    public byte[]? Data { get; }
    public string? DataFile { get; private set; }
    public string? BackingFile { get; private set; }
    public string? BackingFormat { get; private set; }
    public Qcow2SpecView Active { get; }
    public IReadOnlyList<(string Id, string Name, Qcow2SpecView View)> Snapshots { get; }
    public IReadOnlyList<Qcow2SpecBitmap> Bitmaps { get; }

    /// <summary>What is not as the specification has it, refcounts that are not the number of references among it.</summary>
    public IReadOnlyList<string> Faults => _faults;

    public long FileLength => _file.LongLength;

    /// <summary>The host clusters that hold structures of the image, and which.</summary>
    public IEnumerable<(long Cluster, string What)> Tables => _tables.Select(t => (t.Key, t.Value));

    /// <summary>Nothing may contradict the specification, and every refcount must be right.</summary>
    public void RequireSound(string what) => Assert.True(_faults.Count == 0, $"{what}: {string.Join('\n', _faults.Take(8))}");

    /// <summary>How often anything in the image refers to a host cluster.</summary>
    public ulong References(long cluster) => _references.GetValueOrDefault(cluster);

    /// <summary>The stored refcount of a host cluster. Spec: "Host cluster management".</summary>
    public ulong StoredRefcount(long cluster)
    {
        long perBlock = ClusterSize * 8L / RefcountBits, at = cluster / perBlock * 8;
        long block = at < _refcountTableBytes ? (long)(U64(_refcountTable + at) & ~0x1FFUL) : 0;
        return block == 0 ? 0 : RefcountIn(block, cluster % perBlock);
    }

    /// <summary>True if a structure of the image lies in this host cluster.</summary>
    public bool IsTable(long cluster) => _tables.ContainsKey(cluster);

    public byte Byte(long at) => at >= 0 && at < _file.LongLength ? _file[at] : (byte)0;

    public ushort U16(long at) => (ushort)((Byte(at) << 8) | Byte(at + 1));

    public uint U32(long at) => ((uint)U16(at) << 16) | U16(at + 2);

    public ulong U64(long at)
        => at >= 0 && at <= _file.LongLength - 8
            ? BinaryPrimitives.ReadUInt64BigEndian(_file.AsSpan((int)at))
            : ((ulong)U32(at) << 32) | U32(at + 4);

    /// <summary>Bytes of the file; zeroes past its end.</summary>
    public byte[] Bytes(long at, int count)
    {
        byte[] bytes = new byte[count];
        if (at >= 0 && at < _file.LongLength)
        {
            _file.AsSpan((int)at, (int)Math.Min(count, _file.LongLength - at)).CopyTo(bytes);
        }
        return bytes;
    }

    public void Require(bool condition, string what)
    {
        if (!condition)
        {
            _faults.Add(what);
        }
    }

    /// <summary>Counts a reference to a structure, whose clusters nothing else may use.</summary>
    /// <returns>True if it lies where a structure can lie.</returns>
    public bool AddTable(long offset, long length, string what)
    {
        bool stands = offset % ClusterSize == 0 && offset >= 0 && offset < FileLength && (offset > 0 || what is "the header")
            && length >= 0 && length <= Math.Max(0, RoundUp(FileLength) - offset);
        Require(stands, $"{what} at {offset}, {length} bytes");
        for (long cluster = offset >> ClusterBits; stands && cluster << ClusterBits < offset + length; cluster++)
        {
            AddReference(cluster);
            if (!_tables.TryAdd(cluster, what) && !(what is "an L2 table" && _tables[cluster] == what))
            {
                _faults.Add($"{what} lies on {_tables[cluster]} at {cluster << ClusterBits}");
            }
        }
        return stands;
    }

    /// <summary>Counts a reference to the host clusters of a range of guest data.</summary>
    public void AddData(long offset, long length, long guest)
    {
        Require(offset >= ClusterSize && offset < FileLength
            && length <= RoundUp(FileLength) - offset, $"the data of guest offset {guest} at {offset}, {length} bytes");
        for (long cluster = offset >> ClusterBits; cluster << ClusterBits < offset + length; cluster++)
        {
            AddReference(cluster);
        }
    }

    private long RoundUp(long offset) => (offset + ClusterSize - 1) >> ClusterBits << ClusterBits;

    private void AddReference(long cluster) => _references[cluster] = _references.GetValueOrDefault(cluster) + 1;

    private ulong RefcountIn(long block, long index)
    {
        long bit = index * RefcountBits;
        if (RefcountBits < 8)
        {
            return (ulong)(Byte(block + (bit / 8)) >> (int)(bit % 8)) & ((1UL << RefcountBits) - 1);
        }
        ulong value = 0;
        for (int i = 0; i < RefcountBits / 8; i++)
        {
            value = (value << 8) | Byte(block + (bit / 8) + i);
        }
        return value;
    }

    /// <summary>Spec: "Header extensions", and the backing file's name, which follows them.</summary>
    private void ReadExtensions(int at, out (long Offset, long Length, int Count) directory)
    {
        directory = default;
        var seen = new HashSet<uint>();
        long nameAt = (long)U64(8), end = nameAt == 0 ? ClusterSize : nameAt;
        while (at + 8 <= end && U32(at) is var type && type != 0)
        {
            int length = (int)U32(at + 4);
            Require(length >= 0 && length <= end - at - 8 && seen.Add(type), $"header extension {type:x} of {length} bytes");
            if (length < 0 || length > end - at - 8)
            {
                return;
            }
            switch (type)
            {
                case 0xE2792ACA:
                    BackingFormat = Text(at + 8, length);
                    break;
                case 0x44415441:
                    DataFile = Text(at + 8, length);
                    break;
                case 0x6803F857:
                    Require(length % 48 == 0, "length of the feature name table");
                    break;
                case 0x23852875:
                    Require(length == 24 && U32(at + 12) == 0 && U32(at + 8) > 0, "bitmaps extension");
                    directory = ((long)U64(at + 24), (long)U64(at + 16), (int)U32(at + 8));
                    break;
                default:
                    _faults.Add($"header extension of unknown type {type:x}");
                    break;
            }
            at += 8 + ((length + 7) / 8 * 8);
        }
        if (nameAt != 0)
        {
            int length = (int)U32(16);
            Require(length is > 0 and <= 1023 && nameAt >= at && nameAt + length <= ClusterSize, "place of the backing file's name");
            BackingFile = Text(nameAt, Math.Clamp(length, 0, 1023));
        }
    }

    private string Text(long at, int length) => Encoding.UTF8.GetString(Bytes(at, length));

    private Qcow2SpecView AddView(long l1, uint entries, long size, bool isActive, string what)
    {
        bool stands = entries == 0 || (entries <= MaxEntries && AddTable(l1, entries * 8L, what));
        var view = new Qcow2SpecView(this, l1, stands ? (int)entries : 0, size);
        long covered = (long)entries * ClusterSize / (ExtendedL2 ? 16 : 8);
        Require(covered >= (size + ClusterSize - 1) >> ClusterBits, $"{what} covers the disk");
        view.CountReferences(isActive);
        return view;
    }

    /// <summary>Spec: "Snapshots".</summary>
    private List<(string Id, string Name, Qcow2SpecView View)> ReadSnapshots()
    {
        uint count = U32(60);
        long start = (long)U64(64), at = start;
        var ids = new HashSet<string>(StringComparer.Ordinal);
        var found = new List<(string Id, string Name, Qcow2SpecView View)>();
        for (uint i = 0; i < count && at < FileLength; i++)
        {
            (long l1, uint entries, int idLength, int nameLength, long extra) = (
                (long)U64(at), U32(at + 8), U16(at + 12), U16(at + 14), U32(at + 36));
            Require(Version < 3 || extra >= 16, $"snapshot {i} records its disk size");
            long size = extra >= 16 ? (long)U64(at + 48) : Size;
            (string id, string name) = (Text(at + 40 + extra, idLength), Text(at + 40 + extra + idLength, nameLength));
            Require(id.Length > 0 && ids.Add(id), $"snapshot {i} has an id of its own");
            found.Add((id, name, AddView(l1, entries, size, isActive: false, $"the L1 table of snapshot {id}")));
            at += (40 + extra + idLength + nameLength + 7) / 8 * 8;
        }
        Require(found.Count == count, "the snapshot table lies in the file");
        if (count > 0)
        {
            _ = AddTable(start, at - start, "the snapshot table");
        }
        return found;
    }

    private void CompareRefcounts()
    {
        foreach ((long cluster, ulong references) in _references)
        {
            ulong stored = StoredRefcount(cluster);
            Require(stored == references, $"host cluster {cluster} has refcount {stored}, {references} references");
            Require(references == 1 || !_tables.TryGetValue(cluster, out string? table)
                || table is "an L2 table", $"host cluster {cluster} is shared with {_tables.GetValueOrDefault(cluster)}");
        }
        long perBlock = ClusterSize * 8L / RefcountBits;
        for (long at = 0; at < _refcountTableBytes && _refcountTable + at < _file.LongLength; at += 8)
        {
            long block = (long)(U64(_refcountTable + at) & ~0x1FFUL);
            int used = block == 0 ? 0 : Bytes(block, ClusterSize).AsSpan().LastIndexOfAnyExcept((byte)0) + 1;
            long first = at / 8 * perBlock;
            for (long index = 0; index * RefcountBits / 8 < used; index++)
            {
                Require(RefcountIn(block, index) == 0
                    || _references.ContainsKey(first
                        + index), $"host cluster {first + index} has refcount {RefcountIn(block, index)}, no references");
            }
        }
    }
}
