using DiskImage.Binary;
using DiskImage.Block;

namespace DiskImage.Formats.Vhdx;

/// <summary>Flags of a metadata item. Spec: MS-VHDX 2.6.1.2.</summary>
[Flags]
internal enum VhdxItemFlags : uint
{
    None = 0,

    /// <summary>Put there by a user of the disk, not by the format.</summary>
    IsUser = 1,

    /// <summary>Belongs to the virtual disk, so a differencing disk takes it over from its parent.</summary>
    IsVirtualDisk = 2,

    /// <summary>Whoever does not know the item must not use the file.</summary>
    IsRequired = 4,
}

/// <summary>One entry of the metadata table.</summary>
/// <param name="Id">Which item.</param>
/// <param name="Offset">Where it lies in the metadata region; 0 if it is empty.</param>
/// <param name="Length">Bytes.</param>
/// <param name="Flags">Who must care.</param>
internal readonly record struct VhdxItem(Guid Id, long Offset, int Length, VhdxItemFlags Flags)
{
    public static readonly Guid FileParameters = new("CAA16737-FA36-4D43-B3B6-33F0AA44E76B");
    public static readonly Guid VirtualDiskSize = new("2FA54224-CD1B-4876-B211-5DBED83BF4B8");
    public static readonly Guid VirtualDiskId = new("BECA12AB-B2E6-4523-93EF-C309E000C746");
    public static readonly Guid LogicalSectorSize = new("8141BF1D-A96F-4709-BA47-F233A8FAAB5F");
    public static readonly Guid PhysicalSectorSize = new("CDA348C7-445D-4471-9CC9-E9885251C556");
    public static readonly Guid ParentLocator = new("A8D35F2D-B30B-454D-ABF7-D3D84834AB0C");

    private static readonly Dictionary<Guid, string> Names = new()
    {
        [FileParameters] = "File Parameters",
        [VirtualDiskSize] = "Virtual Disk Size",
        [VirtualDiskId] = "Virtual Disk ID",
        [LogicalSectorSize] = "Logical Sector Size",
        [PhysicalSectorSize] = "Physical Sector Size",
        [ParentLocator] = "Parent Locator",
    };

    public bool IsKnown => !Flags.HasFlag(VhdxItemFlags.IsUser) && Names.ContainsKey(Id);

    /// <summary>What it is, for messages.</summary>
    public string Name => IsKnown ? $"the metadata item {Names[Id]}" : $"metadata item {Id}";
}

/// <summary>The metadata region: a table, and the items that matter here, read. Spec: MS-VHDX 2.6.</summary>
internal sealed record VhdxMetadata
{
    public const int TableSize = 64 << 10;
    public const ulong Signature = 0x617461646174656D; // "metadata"
    public const int MaxEntries = 2047, MaxUserEntries = 1024, MaxItemLength = VhdxLayout.MiB;
    public const int CountAt = 10, EntriesAt = 32, EntryBytes = 32;
    private const uint LeaveAllocatedFlag = 1, HasParentFlag = 2;

    public required IReadOnlyList<VhdxItem> Items { get; init; }

    public required int BlockSize { get; init; }

    /// <summary>The disk is fixed: blocks are never given back. Without meaning in a differencing disk.</summary>
    public required bool LeaveBlocksAllocated { get; init; }

    public required bool HasParent { get; init; }

    public required long VirtualSize { get; init; }

    public required Guid VirtualDiskId { get; init; }

    public required int LogicalSectorSize { get; init; }

    public required int PhysicalSectorSize { get; init; }

    /// <summary>Where the parent is; null if the disk has none.</summary>
    public VhdxParentLocator? Locator { get; init; }

    public bool IsFixed => LeaveBlocksAllocated && !HasParent;

    /// <summary>The entry of a system item, or null.</summary>
    public VhdxItem? Find(Guid id)
    {
        foreach (VhdxItem item in Items)
        {
            if (item.Id == id && !item.Flags.HasFlag(VhdxItemFlags.IsUser))
            {
                return item;
            }
        }
        return null;
    }

    /// <summary>Reads and checks the region.</summary>
    /// <exception cref="DiskImageException">Corrupt; Unsupported if a required item is unknown.</exception>
    public static async ValueTask<VhdxMetadata> ReadAsync(BlockNode file, VhdxRegion region, CancellationToken cancellationToken)
    {
        byte[] table = new byte[TableSize];
        await file.ReadPaddedAsync(region.Offset, table, cancellationToken).ConfigureAwait(false);
        IReadOnlyList<VhdxItem> items = ParseTable(table, file.Name, region);
        byte[] parameters = await SystemAsync(VhdxItem.FileParameters, 8).ConfigureAwait(false);
        uint blockSize = LittleEndian.U32(parameters, 0), flags = LittleEndian.U32(parameters, 4);
        ulong virtualSize = LittleEndian.U64(await SystemAsync(VhdxItem.VirtualDiskSize, 8).ConfigureAwait(false), 0);
        byte[] id = await SystemAsync(VhdxItem.VirtualDiskId, 16).ConfigureAwait(false);
        uint logical = LittleEndian.U32(await SystemAsync(VhdxItem.LogicalSectorSize, 4).ConfigureAwait(false), 0);
        uint physical = LittleEndian.U32(await SystemAsync(VhdxItem.PhysicalSectorSize, 4).ConfigureAwait(false), 0);
        if (blockSize is < VhdxLayout.MinBlockSize or > VhdxLayout.MaxBlockSize || !System.Numerics.BitOperations.IsPow2(blockSize))
        {
            throw Wrong($"BlockSize is {blockSize:#,0}; allowed: a power of two from 1 to 256 MiB");
        }
        if (logical is not (512 or 4096) || physical is not (512 or 4096))
        {
            throw Wrong($"the logical and physical sector sizes are {logical} and {physical}; allowed: 512 and 4096");
        }
        if (virtualSize > (ulong)VhdxLayout.MaxVirtualSize || virtualSize % logical != 0)
        {
            throw Wrong($"VirtualDiskSize is {virtualSize:#,0}; allowed: whole sectors of {logical} bytes, at "
                + $"most {VhdxLayout.MaxVirtualSize:#,0}");
        }
        bool hasParent = (flags & HasParentFlag) != 0;
        VhdxParentLocator? locator = null;
        if (hasParent)
        {
            VhdxItem entry = Entry(VhdxItem.ParentLocator);
            locator = VhdxParentLocator.Parse(
                await BytesAsync(file, region, entry, cancellationToken).ConfigureAwait(false), file.Name, region.Offset + entry.Offset);
        }
        return new VhdxMetadata
        {
            Items = items,
            BlockSize = (int)blockSize,
            LeaveBlocksAllocated = (flags & LeaveAllocatedFlag) != 0,
            HasParent = hasParent,
            VirtualSize = (long)virtualSize,
            VirtualDiskId = LittleEndian.Guid(id, 0),
            LogicalSectorSize = (int)logical,
            PhysicalSectorSize = (int)physical,
            Locator = locator,
        };

        VhdxItem Entry(Guid itemId)
        {
            foreach (VhdxItem item in items)
            {
                if (item.Id == itemId && !item.Flags.HasFlag(VhdxItemFlags.IsUser))
                {
                    return item;
                }
            }
            throw Wrong($"{new VhdxItem(itemId, 0, 0, VhdxItemFlags.None).Name} is missing");
        }

        async ValueTask<byte[]> SystemAsync(Guid itemId, int length)
        {
            VhdxItem item = Entry(itemId);
            return item.Length == length
                ? await BytesAsync(file, region, item, cancellationToken).ConfigureAwait(false)
                : throw Wrong($"{item.Name} has {item.Length} bytes; allowed: {length}");
        }

        DiskImageException Wrong(string what) => VhdxLayout.Corrupt(file.Name, what, region.Offset);
    }

    /// <summary>The bytes of an item that <see cref="ReadAsync"/> let pass.</summary>
    public static async ValueTask<byte[]> BytesAsync(BlockNode file, VhdxRegion region, VhdxItem item, CancellationToken cancellationToken)
    {
        byte[] bytes = new byte[item.Length];
        if (item.Length > 0)
        {
            long at = region.Offset + item.Offset;
            if (at > file.Length - item.Length)
            {
                throw VhdxLayout.Corrupt(
                    file.Name, $"{item.Name} lies at offset {at:#,0}, past the end of the file's {file.Length:#,0} bytes", at);
            }
            await file.ReadAsync(at, bytes, cancellationToken).ConfigureAwait(false);
        }
        return bytes;
    }

    public static byte[] ParametersBytes(int blockSize, bool leaveAllocated, bool hasParent)
    {
        byte[] bytes = new byte[8];
        LittleEndian.U32(bytes, 0, (uint)blockSize);
        LittleEndian.U32(bytes, 4, (leaveAllocated ? LeaveAllocatedFlag : 0) | (hasParent ? HasParentFlag : 0));
        return bytes;
    }

    /// <summary>A whole region from items in this order: the table, then the items, each at a multiple of 8.</summary>
    public static byte[] Build(IReadOnlyList<(Guid Id, VhdxItemFlags Flags, byte[] Bytes)> items)
    {
        byte[] region = new byte[Round.Up(TableSize + items.Sum(i => Round.Up(i.Bytes.Length, 8)), VhdxLayout.Sector)];
        LittleEndian.U64(region, 0, Signature);
        LittleEndian.U16(region, CountAt, (ushort)items.Count);
        int at = TableSize;
        for (int i = 0; i < items.Count; i++)
        {
            (Guid id, VhdxItemFlags flags, byte[] bytes) = items[i];
            PutEntry(region, i, new VhdxItem(id, bytes.Length == 0 ? 0 : at, bytes.Length, flags));
            bytes.CopyTo(region, at);
            at += (int)Round.Up(bytes.Length, 8);
        }
        return region;
    }

    public static void PutEntry(Span<byte> table, int index, VhdxItem item)
    {
        Span<byte> entry = table.Slice(EntriesAt + (index * EntryBytes), EntryBytes);
        LittleEndian.Guid(entry, 0, item.Id);
        LittleEndian.U32(entry, 16, (uint)item.Offset);
        LittleEndian.U32(entry, 20, (uint)item.Length);
        LittleEndian.U32(entry, 24, (uint)item.Flags);
        LittleEndian.U32(entry, 28, 0);
    }

    private static VhdxItem[] ParseTable(byte[] table, string path, VhdxRegion region)
    {
        if (LittleEndian.U64(table, 0) != Signature)
        {
            throw Wrong($"the metadata table's signature is 0x{LittleEndian.U64(table, 0):X16}; allowed: 0x{Signature:X16} (\"metadata\")");
        }
        int count = LittleEndian.U16(table, CountAt);
        if (count > MaxEntries)
        {
            throw Wrong($"the metadata table has {count} entries; allowed: at most {MaxEntries}");
        }
        var items = new VhdxItem[count];
        var seen = new HashSet<(Guid, bool)>();
        for (int i = 0; i < count; i++)
        {
            ReadOnlySpan<byte> entry = table.AsSpan(EntriesAt + (i * EntryBytes), EntryBytes);
            uint length = LittleEndian.U32(entry, 20);
            var item = new VhdxItem(
                LittleEndian.Guid(entry, 0),
                LittleEndian.U32(entry, 16),
                (int)Math.Min(length, int.MaxValue),
                (VhdxItemFlags)LittleEndian.U32(entry, 24));
            if (length > MaxItemLength || (length > 0 && (item.Offset < TableSize || item.Offset > region.Length - length)))
            {
                throw Wrong(
                    $"{item.Name} has {length:#,0} bytes at offset {item.Offset:#,0} of the region; allowed: at most {MaxItemLength:#,0} "
                        + $"bytes, after the first {TableSize:#,0}, inside the region's {region.Length:#,0}");
            }
            if (!seen.Add((item.Id, item.Flags.HasFlag(VhdxItemFlags.IsUser))))
            {
                throw Wrong($"{item.Name} stands in the metadata table twice");
            }
            if (item.Flags.HasFlag(VhdxItemFlags.IsRequired) && !item.IsKnown)
            {
                throw new DiskImageException(
                    DiskImageErrorKind.Unsupported,
                    $"{path}: {item.Name} is marked required and is unknown to this program, so the image cannot be used",
                    path,
                    region.Offset);
            }
            items[i] = item;
        }
        if (items.Count(i => i.Flags.HasFlag(VhdxItemFlags.IsUser)) is var users and > MaxUserEntries)
        {
            throw Wrong($"the metadata table has {users} user items; allowed: at most {MaxUserEntries}");
        }
        long end = 0;
        foreach (VhdxItem item in items.Where(i => i.Length > 0).OrderBy(i => i.Offset))
        {
            if (item.Offset < end)
            {
                throw Wrong($"{item.Name} at offset {item.Offset:#,0} of the region overlaps the item before it, which ends at {end:#,0}");
            }
            end = item.Offset + item.Length;
        }
        return items;

        DiskImageException Wrong(string what) => VhdxLayout.Corrupt(path, what, region.Offset);
    }
}
