using System.Buffers.Binary;
using DiskImage.Block;

namespace DiskImage.Protocols.Sheepdog;

/// <summary>
/// What a VDI's inode says of it, without the list of its objects. Source: sheepdog, include/sheepdog_proto.h, <c>struct sd_inode</c>.
/// </summary>
internal sealed record SheepInode
{
    /// <summary>Bytes before the list of objects.</summary>
    public const int Length = 4664;

    /// <summary>Where fields lie in it.</summary>
    public const int TagAt = 256, SnapshotTimeAt = 520, SizeAt = 536;

    /// <summary>Its number.</summary>
    public required uint Vdi { get; init; }

    /// <summary>Its name; empty once it is deleted.</summary>
    public required string Name { get; init; }

    /// <summary>The tag of a snapshot; of what is no snapshot yet it says nothing.</summary>
    public required string Tag { get; init; }

    /// <summary>Bytes of the disk.</summary>
    public required long Size { get; init; }

    /// <summary>When it became a snapshot: seconds since 1970 in the upper half, nanoseconds in the lower; 0 for what is none.</summary>
    public required ulong SnapshotTime { get; init; }

    /// <summary>Nanoseconds that the virtual machine had run.</summary>
    public required ulong ClockNanoseconds { get; init; }

    /// <summary>Bytes of the virtual machine's state.</summary>
    public required ulong VmStateSize { get; init; }

    /// <summary>How often objects are kept.</summary>
    public required SheepRedundancy Redundancy { get; init; }

    /// <summary>Bytes of an object, as a shift.</summary>
    public required int Shift { get; init; }

    /// <summary>The number of the snapshot that it is, or will be.</summary>
    public required uint SnapshotId { get; init; }

    /// <summary>It is a state that was kept, and its objects are not written to.</summary>
    public bool IsSnapshot => SnapshotTime != 0;

    /// <summary>Bytes of an object.</summary>
    public long ObjectSize => 1L << Shift;

    /// <summary>Bytes of the disk at most.</summary>
    public long MostSize => ObjectSize * SheepWire.MostObjects;

    /// <summary>Objects that the disk has.</summary>
    public int Objects => ObjectsOf(Size);

    /// <summary>Where in the inode an object's entry lies.</summary>
    public static int EntryAt(int index) => Length + (index * sizeof(uint));

    /// <summary>Objects of a disk of so many bytes.</summary>
    public int ObjectsOf(long size) => (int)((size + ObjectSize - 1) >> Shift);

    /// <summary>What it says for others, as a snapshot.</summary>
    public DiskSnapshot AsSnapshot() => new()
    {
        Id = SnapshotId.ToString(System.Globalization.CultureInfo.InvariantCulture),
        Name = Tag,
        VmStateSize = (long)Math.Min(VmStateSize, long.MaxValue),
        Date = DateTimeOffset.FromUnixTimeSeconds((long)(SnapshotTime >> 32))
            .AddTicks(Math.Min((long)(SnapshotTime & uint.MaxValue), 999_999_999) / TimeSpan.NanosecondsPerTick),
        VmClock = TimeSpan.FromTicks((long)(ClockNanoseconds / TimeSpan.NanosecondsPerTick)),
        VirtualSize = Size,
    };

    /// <summary>Reads one.</summary>
    /// <param name="bytes">Its first <see cref="Length"/> bytes.</param>
    /// <param name="vdi">The number that it was read by.</param>
    /// <param name="name">What the VDI is called in messages.</param>
    /// <exception cref="DiskImageException">Corrupt: it cannot be so. Unsupported: a volume of more than 2^20 objects.</exception>
    public static SheepInode Parse(ReadOnlySpan<byte> bytes, uint vdi, string name)
    {
        uint ownVdi = BinaryPrimitives.ReadUInt32LittleEndian(bytes[560..]);
        ulong size = BinaryPrimitives.ReadUInt64LittleEndian(bytes[SizeAt..]);
        byte shift = bytes[555];
        if (ownVdi != vdi)
        {
            throw Corrupt(560, $"it is that of VDI {ownVdi:x}, and VDI {vdi:x} was asked for");
        }
        if (bytes[553] != 0)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Unsupported,
                $"{name}: is a hyper volume (store policy {bytes[553]}), whose list of objects is a tree. Only ordinary volumes are "
                    + "supported, up to 2^20 objects.",
                name);
        }
        if (shift is < SheepWire.SmallestShift or > SheepWire.LargestShift)
        {
            throw Corrupt(
                555, $"its objects have 2^{shift} bytes. Allowed are 2^{SheepWire.SmallestShift} to 2^{SheepWire.LargestShift}");
        }
        if (size > (ulong)SheepWire.MostObjects << shift)
        {
            throw Corrupt(SizeAt, $"the disk has {size:#,0} bytes, more than 2^20 objects of 2^{shift} bytes hold");
        }
        return new SheepInode
        {
            Vdi = vdi,
            Name = SheepWire.Name(bytes[..SheepWire.NameLength]),
            Tag = SheepWire.Name(bytes.Slice(TagAt, SheepWire.NameLength)),
            Size = (long)size,
            SnapshotTime = BinaryPrimitives.ReadUInt64LittleEndian(bytes[SnapshotTimeAt..]),
            ClockNanoseconds = BinaryPrimitives.ReadUInt64LittleEndian(bytes[528..]),
            VmStateSize = BinaryPrimitives.ReadUInt64LittleEndian(bytes[544..]),
            Redundancy = new SheepRedundancy(bytes[554], bytes[552]),
            Shift = shift,
            SnapshotId = BinaryPrimitives.ReadUInt32LittleEndian(bytes[556..]),
        };

        DiskImageException Corrupt(long offset, Wording what)
            => new(DiskImageErrorKind.Corrupt, $"{name}: its inode cannot be: at byte {offset} {what}", name, offset);
    }
}
