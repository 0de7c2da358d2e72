using DiskImage.Block;
using DiskImage.Drivers;

namespace DiskImage.Formats.Vhdx;

/// <summary>Finds a differencing disk's parent and makes sure that it is the right one. Spec: MS-VHDX 2.6.2.6.3.</summary>
internal static class VhdxParent
{
    /// <summary>Opens the first parent that is there and has the recorded identity, trying the locator's paths in order.</summary>
    /// <exception cref="DiskImageException">
    /// Unsupported: the locator is of another type; NotFound: none of the paths leads anywhere; Corrupt: the parent has another
    /// identity or sector size; whatever opening it throws.
    /// </exception>
    public static async ValueTask<BlockNode> OpenAsync(
        BlockNode file,
        VhdxParentLocator locator,
        int sectorSize,
        ReferenceOpener open,
        IReadOnlyList<string> folders,
        bool ignoreIdMismatch,
        CancellationToken cancellationToken)
    {
        if (locator.Type != VhdxParentLocator.VhdxType)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Unsupported,
                $"{file.Name}: its parent locator is of type {locator.Type}; this program knows {VhdxParentLocator.VhdxType}, a VHDX file",
                file.Name);
        }
        var found = await new ParentSearch(file.Name, VhdxDriver.FormatName, open, folders)
            .OpenAsync(
                locator.Candidates,
                parent => Mismatch(file, parent, locator, sectorSize, ignoreIdMismatch),
                cancellationToken).ConfigureAwait(false);
        return found?.Parent ?? throw VhdxLayout.Corrupt(file.Name, "it is a differencing disk, and its parent locator holds no path");
    }

    /// <summary>The VHDX disk that a node is or passes through; null if it is none.</summary>
    public static VhdxNode? Of(BlockNode? node)
    {
        while (node is FilterNode)
        {
            node = node.Child("file");
        }
        return node as VhdxNode;
    }

    private static DiskImageException? Mismatch(
        BlockNode file, BlockNode parent, VhdxParentLocator locator, int sectorSize, bool ignoreIdMismatch)
    {
        if (Of(parent) is not { } disk)
        {
            return ParentMismatch.Format(file.Name, parent.Name, VhdxDriver.FormatName);
        }
        if (disk.Metadata.LogicalSectorSize != sectorSize)
        {
            return VhdxLayout.Corrupt(
                file.Name,
                $"its logical sectors have {sectorSize} bytes and those of its parent {parent.Name} "
                    + $"{disk.Metadata.LogicalSectorSize}; they must be the same");
        }
        return ignoreIdMismatch || locator.Accepts(disk.Header.DataWriteGuid) ? null : ParentMismatch.Identity(
            file.Name,
            parent.Name,
            "DataWriteGuid",
            locator.Linkage,
            disk.Header.DataWriteGuid,
            "it is another disk, or was written to after this disk was made on it");
    }
}
