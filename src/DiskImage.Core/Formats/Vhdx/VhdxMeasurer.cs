using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Drivers;

namespace DiskImage.Formats.Vhdx;

/// <summary>How large an image becomes: its structures, and the blocks that hold data.</summary>
internal static class VhdxMeasurer
{
    public static async ValueTask<ImageMeasurement> MeasureAsync(VhdxMetadata plan, long logSize, BlockNode? source, CancellationToken cancellationToken)
    {
        var geometry = new VhdxGeometry(plan.BlockSize, plan.LogicalSectorSize, plan.VirtualSize);
        long bat = Math.Max(VhdxLayout.MiB, Round.Up(geometry.EntriesWithBitmaps * VhdxGeometry.EntryBytes, VhdxLayout.MiB));
        long structures = VhdxLayout.HeaderSection + Round.Up(logSize, VhdxLayout.MiB) + VhdxLayout.MiB + bat;
        long full = structures + (geometry.Blocks * geometry.BlockSize);
        if (plan.IsFixed || source is null)
        {
            return new(plan.IsFixed ? full : structures, full);
        }
        long blocks = 0;
        for (long offset = 0; offset < source.Length;)
        {
            cancellationToken.ThrowIfCancellationRequested();
            BlockExtent extent = await source.GetExtentAsync(offset, source.Length - offset, cancellationToken).ConfigureAwait(false);
            long end = extent.End;
            if (!extent.IsZero)
            {
                end = Round.Up(end, geometry.BlockSize);
                blocks += geometry.BlockOf(end - 1) - geometry.BlockOf(offset) + 1;
            }
            offset = end;
        }
        return new(structures + (blocks * geometry.BlockSize), full);
    }
}
