using DiskImage.Block;
using DiskImage.Drivers;

namespace DiskImage.Formats.Vpc;

/// <summary>How large an image becomes: its structures, the blocks that hold data, one behind the other, and the footer.</summary>
internal static class VpcMeasurer
{
    /// <summary>Measures a disk with the contents of another, or an empty one of the options' size.</summary>
    /// <exception cref="DiskImageException">InvalidOption: what <see cref="VpcCreator.Plan"/> says; a backing file.</exception>
    public static async ValueTask<ImageMeasurement> MeasureAsync(
        VpcCreateOptions options, BlockNode? source, CancellationToken cancellationToken)
    {
        DataBlocks.RequireNoParent(options.BackingFile);
        (VpcFooter footer, VpcHeader? header) = VpcCreator.Plan(
            "Measuring", options with { Size = source?.Length ?? options.Size }, parent: null);
        if (header is null)
        {
            long all = footer.CurrentSize + VpcFooter.Length;
            return new ImageMeasurement(all, all);
        }
        var layout = new VpcLayout(footer, header, long.MaxValue);
        long blocks = source is null ? 0 : await DataBlocks.CountAsync(source, layout.BlockSize, cancellationToken).ConfigureAwait(false);
        return new ImageMeasurement(FileLength(layout, blocks), FileLength(layout, header.MaxTableEntries));
    }

    private static long FileLength(VpcLayout layout, long blocks)
        => (blocks == 0 ? layout.StructuresEnd
            : layout.PlaceAt(layout.StructuresEnd) + ((blocks - 1) * layout.Stride) + layout.Span) + VpcFooter.Length;
}
