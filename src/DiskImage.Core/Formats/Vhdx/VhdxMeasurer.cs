using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Drivers;

namespace DiskImage.Formats.Vhdx;

/// <summary>How large an image becomes: its structures, and the blocks that hold data.</summary>
internal static class VhdxMeasurer
{
    public static async ValueTask<ImageMeasurement> MeasureAsync(
        VhdxMetadata plan, long logSize, BlockNode? source, CancellationToken cancellationToken)
    {
        var geometry = new VhdxGeometry(plan.BlockSize, plan.LogicalSectorSize, plan.VirtualSize);
        long bat = Math.Max(VhdxLayout.MiB, Round.Up(geometry.EntriesWithBitmaps * VhdxGeometry.EntryBytes, VhdxLayout.MiB));
        long structures = VhdxLayout.HeaderSection + Round.Up(logSize, VhdxLayout.MiB) + VhdxLayout.MiB + bat;
        long full = structures + (geometry.Blocks * geometry.BlockSize);
        if (plan.IsFixed || source is null)
        {
            return new(plan.IsFixed ? full : structures, full);
        }
        long blocks = await DataBlocks.CountAsync(source, geometry.BlockSize, cancellationToken).ConfigureAwait(false);
        return new(structures + (blocks * geometry.BlockSize), full);
    }
}
