using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Compression;
using DiskImage.Drivers;

namespace DiskImage.Formats.Vmdk;

/// <summary>How large a disk would become, all of its files together.</summary>
internal static class VmdkMeasurer
{
    /// <summary>
    /// Exact but for a stream, which is measured as if nothing got smaller; a grain counts if the source does not say that all of it is zero.
    /// </summary>
    public static async ValueTask<ImageMeasurement> MeasureAsync(VmdkCreateOptions options, BlockNode? source, CancellationToken cancellationToken)
    {
        const string Name = "Measuring";
        DataBlocks.RequireNoParent(options.BackingFile);
        _ = VmdkText.Hardware(options, Name);
        long length = VmdkCreator.LengthOf(options with { Size = source?.Length ?? options.Size }, null, Name);
        const int Grain = VmdkHeader.DefaultGrainSectors * VmdkHeader.SectorSize;
        long all = Round.Units(length, Grain), data = 0, tables = 0;
        if (source is not null)
        {
            (data, tables) = await DataBlocks.CountAsync(source, Grain, (long)Grain * VmdkHeader.DefaultTableEntries, cancellationToken).ConfigureAwait(false);
        }
        if (options.Subformat == VmdkSubformat.StreamOptimized)
        {
            return new(Stream(length, data, tables), Stream(length, all, Round.Units(all, VmdkHeader.DefaultTableEntries)));
        }
        bool isOne = options.Subformat == VmdkSubformat.MonolithicSparse;
        long text = isOne ? 0 : VmdkCreator.Describe(options, length, VmdkDescriptor.NoParent, "disk.vmdk").ToBytes().Length;
        if (!isOne && options.Subformat != VmdkSubformat.TwoGbMaxExtentSparse)
        {
            return new(text + length, text + length);
        }
        long structures = text + VmdkCreator.Split(length, options.Subformat).Sum(part => VmdkCreator.Plan(part, isOne, options.ZeroedGrain).Overhead * VmdkHeader.SectorSize);
        return new(structures + (data * Grain), structures + (all * Grain));
    }

    private static long Stream(long length, long grains, long tables)
    {
        VmdkHeader header = VmdkStreamWriter.Plan(length);
        const int Grain = VmdkHeader.DefaultGrainSectors * VmdkHeader.SectorSize, Table = VmdkHeader.DefaultTableEntries * sizeof(uint);
        long grain = Round.Up(VmdkSparseExtent.MarkerBytes + ZlibCompressor.StoredBytes(Grain), VmdkHeader.SectorSize);
        long directory = Round.Up(header.DirectoryEntries * (long)sizeof(uint), VmdkHeader.SectorSize);
        return (header.Overhead * VmdkHeader.SectorSize) + (grains * grain) + (tables * (VmdkHeader.SectorSize + Table)) + directory + (4 * VmdkHeader.SectorSize);
    }
}
