using System.Buffers;
using System.Numerics;
using System.Text;
using DiskImage.Binary;
using DiskImage.Block;

namespace DiskImage.Formats.Vhdx;

/// <summary>
/// Writes new images. In this order from the start of the file: header section, log, metadata, BAT, and the payload blocks of a
/// fixed disk. Spec: MS-VHDX 2.1.
/// </summary>
internal static class VhdxCreator
{
    private const string Creator = "DiskImage";
    private const long GiB = 1L << 30, TiB = 1L << 40;
    private const int DifferencingBlockSize = 2 * VhdxLayout.MiB; // as Hyper-V makes them

    public static async ValueTask CreateAsync(
        BlockNode file, VhdxCreateOptions options, BlockNode? backing, CancellationToken cancellationToken)
    {
        VhdxNode? parent = ParentOf(file.Name, options, backing);
        VhdxMetadata metadata = Plan(file.Name, options, parent);
        var geometry = new VhdxGeometry(metadata.BlockSize, metadata.LogicalSectorSize, metadata.VirtualSize);
        byte[] items = VhdxMetadata.Build(await ItemsAsync(metadata, parent, cancellationToken).ConfigureAwait(false));

        var header = new VhdxHeader
        {
            SequenceNumber = 1,
            FileWriteGuid = NewIdentity.Of(
                "vhdx file", [.. Facts(metadata), options.LogSize, options.BlockStateZero, parent?.Header.DataWriteGuid]),
            DataWriteGuid = NewIdentity.Of("vhdx data", [.. Facts(metadata), parent?.Header.DataWriteGuid]),
            LogGuid = Guid.Empty,
            LogOffset = VhdxLayout.HeaderSection,
            LogLength = Round.Up(options.LogSize, VhdxLayout.MiB),
        };
        var metadataRegion = new VhdxRegion(
            VhdxRegion.Metadata, header.LogOffset + header.LogLength, Round.Up(items.Length, VhdxLayout.MiB), IsRequired: true);
        long batLength = Math.Max(VhdxLayout.MiB, Round.Up(geometry.EntriesWithBitmaps * VhdxGeometry.EntryBytes, VhdxLayout.MiB));
        var bat = new VhdxRegion(VhdxRegion.Bat, metadataRegion.End, batLength, IsRequired: true);
        VhdxRegionTable regions = VhdxRegionTable.Of(bat, metadataRegion);

        await file.ResizeAsync(0, cancellationToken: cancellationToken).ConfigureAwait(false);
        await file.ResizeAsync(
            bat.End + (metadata.IsFixed ? geometry.Blocks * geometry.BlockSize : 0),
            cancellationToken: cancellationToken).ConfigureAwait(false);
        await file.WriteAsync(0, FileIdentifier(), cancellationToken).ConfigureAwait(false);
        await file.WriteAsync(metadataRegion.Offset, items, cancellationToken).ConfigureAwait(false);
        if (metadata.IsFixed)
        {
            await PlaceBlocksAsync(file, bat, geometry, cancellationToken).ConfigureAwait(false);
        }
        else if (options.BlockStateZero && !metadata.HasParent)
        {
            await MarkZeroAsync(file, bat, geometry, cancellationToken).ConfigureAwait(false);
        }
        for (int i = 0; i < 2; i++)
        {
            await file.WriteAsync(VhdxRegionTable.PlaceOf(i), regions.Bytes, cancellationToken).ConfigureAwait(false);
            await file.WriteAsync(
                VhdxHeader.PlaceOf(i),
                (header with { SequenceNumber = header.SequenceNumber + (ulong)i }).ToBytes(),
                cancellationToken).ConfigureAwait(false);
        }
    }

    private static VhdxNode? ParentOf(string path, VhdxCreateOptions options, BlockNode? backing)
    {
        if (options.BackingFile is null)
        {
            return options.BackingFormat is not null ? throw Invalid(path, "backing_fmt is given without a backing_file")
                : options.Subformat == VhdxSubformat.Differencing ? throw Invalid(path, "subformat=differencing needs a backing_file")
                : null;
        }
        if (options.Subformat == VhdxSubformat.Fixed)
        {
            throw Invalid(path, "a disk with a backing file is a differencing disk, so subformat=fixed is not possible");
        }
        return VhdxParent.Of(backing)
            ?? throw Invalid(
                path,
                $"the backing file '{options.BackingFile}' is not an open VHDX image; the parent of a "
                    + $"VHDX is always a VHDX. Convert it first");
    }

    /// <summary>Checks the options against each other and decides what they leave open.</summary>
    public static VhdxMetadata Plan(string path, VhdxCreateOptions options, VhdxNode? parent)
    {
        int logical = (int)(options.LogicalSectorSize ?? parent?.Metadata.LogicalSectorSize ?? 512);
        int physical = (int)(options.PhysicalSectorSize ?? parent?.Metadata.PhysicalSectorSize ?? Math.Max(512, logical));
        if (logical is not (512 or 4096) || physical is not (512 or 4096))
        {
            throw Invalid(
                path, $"logical_sector_size={logical} and physical_sector_size={physical} are not possible; allowed: 512 and 4096");
        }
        if (parent is not null && logical != parent.Metadata.LogicalSectorSize)
        {
            throw Invalid(
                path,
                $"logical_sector_size={logical} is not possible: that of the parent is "
                    + $"{parent.Metadata.LogicalSectorSize}, and they must be the same");
        }
        long asked = options.Size ?? parent?.Length ?? throw Invalid(path, "a new image needs a size");
        if (asked > VhdxLayout.MaxVirtualSize)
        {
            throw Invalid(path, $"a size of {asked:#,0} bytes is too large; a VHDX has at most {VhdxLayout.MaxVirtualSize:#,0} (64T)");
        }
        long size = Round.Up(asked, logical);
        long blockSize = options.BlockSize > 0 ? options.BlockSize : parent is not null ? DifferencingBlockSize : AutomaticBlockSize(size);
        if (blockSize < VhdxLayout.MinBlockSize || !BitOperations.IsPow2(blockSize))
        {
            throw Invalid(path, $"block_size={blockSize} is not possible; allowed: a power of two from 1M to 256M, or 0");
        }
        if (options.VirtualDiskId is not null && parent is not null)
        {
            throw Invalid(
                path,
                $"{VhdxAmendOptions.VirtualDiskIdName}={options.VirtualDiskId} is not possible: a child "
                    + $"has the identity of its parent's disk");
        }
        var metadata = new VhdxMetadata
        {
            Items = [],
            BlockSize = (int)blockSize,
            LeaveBlocksAllocated = options.Subformat == VhdxSubformat.Fixed,
            HasParent = parent is not null,
            VirtualSize = size,
            VirtualDiskId = parent?.Metadata.VirtualDiskId ?? default,
            LogicalSectorSize = logical,
            PhysicalSectorSize = physical,
            Locator = parent is null
                ? null
                : VhdxParentLocator.For(ParentNames.Of(path, options.BackingFile!), parent.Header.DataWriteGuid),
        };
        return parent is not null ? metadata : metadata with
        {
            VirtualDiskId = options.VirtualDiskId is { } id
                ? IdentifierOption.Parse(path, VhdxAmendOptions.VirtualDiskIdName, id)
                : NewIdentity.Of("vhdx disk", Facts(metadata)),
        };
    }

    /// <summary>What a new disk is, for identifiers that follow from that.</summary>
    private static object?[] Facts(VhdxMetadata metadata)
        =>
        [
            metadata.VirtualSize, metadata.BlockSize, metadata.IsFixed, metadata.LogicalSectorSize, metadata.PhysicalSectorSize,
            metadata.VirtualDiskId,
        ];

    /// <summary>QEMU's choice.</summary>
    private static long AutomaticBlockSize(long size)
        => (size > 32 * TiB ? 64 : size > 100 * GiB ? 32 : size > GiB ? 16 : 8) * (long)VhdxLayout.MiB;

    /// <summary>
    /// The items of a new image; a child takes over those of its parent's disk that this program does not know.
    /// Spec: 2.6.1.2, IsVirtualDisk.
    /// </summary>
    private static async ValueTask<List<(Guid, VhdxItemFlags, byte[])>> ItemsAsync(
        VhdxMetadata metadata, VhdxNode? parent, CancellationToken cancellationToken)
    {
        const VhdxItemFlags File = VhdxItemFlags.IsRequired, Disk = VhdxItemFlags.IsRequired | VhdxItemFlags.IsVirtualDisk;
        byte[] size = new byte[8], logical = new byte[4], physical = new byte[4];
        LittleEndian.U64(size, 0, (ulong)metadata.VirtualSize);
        LittleEndian.U32(logical, 0, (uint)metadata.LogicalSectorSize);
        LittleEndian.U32(physical, 0, (uint)metadata.PhysicalSectorSize);
        var items = new List<(Guid, VhdxItemFlags, byte[])>
        {
            (VhdxItem.FileParameters, File, VhdxMetadata.ParametersBytes(
                metadata.BlockSize, metadata.LeaveBlocksAllocated, metadata.HasParent)),
            (VhdxItem.VirtualDiskSize, Disk, size),
            (VhdxItem.VirtualDiskId, Disk, metadata.VirtualDiskId.ToByteArray()),
            (VhdxItem.LogicalSectorSize, Disk, logical),
            (VhdxItem.PhysicalSectorSize, Disk, physical),
        };
        if (metadata.Locator is not null)
        {
            items.Add((VhdxItem.ParentLocator, File, metadata.Locator.ToBytes()));
        }
        if (parent is not null)
        {
            foreach (VhdxItem item in parent.Metadata.Items.Where(i => i.Flags.HasFlag(VhdxItemFlags.IsVirtualDisk) && !i.IsKnown))
            {
                items.Add((
                    item.Id,
                    item.Flags,
                    await VhdxMetadata.BytesAsync(parent.File, parent.Regions.Metadata, item, cancellationToken).ConfigureAwait(false)));
            }
        }
        return items;
    }

    private static byte[] FileIdentifier()
    {
        byte[] bytes = new byte[VhdxLayout.Sector];
        VhdxLayout.FileSignature.CopyTo(bytes);
        _ = Encoding.Unicode.GetBytes(Creator, bytes.AsSpan(VhdxLayout.FileSignature.Length));
        return bytes;
    }

    /// <summary>Writes the entries of a fixed disk: its blocks lie behind the BAT, in order. Those of bitmap blocks stay zero.</summary>
    private static async ValueTask PlaceBlocksAsync(
        BlockNode file, VhdxRegion bat, VhdxGeometry geometry, CancellationToken cancellationToken)
    {
        const int PartEntries = VhdxLayout.MiB / VhdxGeometry.EntryBytes;
        byte[] part = ArrayPool<byte>.Shared.Rent(VhdxLayout.MiB);
        try
        {
            long total = geometry.EntriesWithoutBitmaps, block = 0;
            for (long index = 0; index < total; index += PartEntries)
            {
                int count = (int)Math.Min(PartEntries, total - index);
                for (int i = 0; i < count; i++)
                {
                    BatEntry entry = geometry.IsBitmapIndex(index + i)
                        ? default
                        : new BatEntry(BlockState.FullyPresent, new(bat.End + (block++ * geometry.BlockSize)));
                    LittleEndian.U64(part, i * VhdxGeometry.EntryBytes, entry.Raw);
                }
                await file.WriteAsync(
                    bat.Offset + (index * VhdxGeometry.EntryBytes),
                    part.AsMemory(0, count * VhdxGeometry.EntryBytes),
                    cancellationToken).ConfigureAwait(false);
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(part);
        }
    }

    /// <summary>
    /// Writes the entries of a dynamic disk: every payload block is zero, those of bitmap blocks stay zero. The entries repeat from chunk
    /// to chunk, so some chunks' entries are made once and written over and over: the largest disk in the smallest
    /// blocks has 512 MiB of them.
    /// </summary>
    private static async ValueTask MarkZeroAsync(BlockNode file, VhdxRegion bat, VhdxGeometry geometry, CancellationToken cancellationToken)
    {
        const int AtOnce = 4 * VhdxLayout.MiB;
        long total = geometry.EntriesWithoutBitmaps * VhdxGeometry.EntryBytes;
        int chunk = (geometry.ChunkRatio + 1) * VhdxGeometry.EntryBytes;
        byte[] part = new byte[Math.Min(total, (long)Math.Max(1, AtOnce / chunk) * chunk)];
        for (int at = 0; at < part.Length; at += VhdxGeometry.EntryBytes)
        {
            LittleEndian.U64(part, at, geometry.IsBitmapIndex(at / VhdxGeometry.EntryBytes) ? 0 : new BatEntry(BlockState.Zero).Raw);
        }
        for (long at = 0; at < total; at += part.Length)
        {
            await file.WriteAsync(
                bat.Offset + at, part.AsMemory(0, (int)Math.Min(part.Length, total - at)), cancellationToken).ConfigureAwait(false);
        }
    }

    private static DiskImageException Invalid(string path, string what) => new(DiskImageErrorKind.InvalidOption, $"{path}: {what}.", path);
}
