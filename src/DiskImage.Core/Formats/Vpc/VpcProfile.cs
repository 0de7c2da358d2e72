namespace DiskImage.Formats.Vpc;

/// <summary>What services that take a VHD ask of it beyond the format.</summary>
public static class VpcProfile
{
    private const long MiB = 1 << 20, AzureSmallest = 20 * MiB, AzureLargest = 32767L << 30;

    /// <summary>
    /// Why Azure would refuse a disk: it takes fixed disks of whole MiB, the footer right behind them. Empty if it would not. No I/O.
    /// Source: Microsoft Learn, "Prepare a Windows VHD or VHDX to upload to Azure".
    /// </summary>
    /// <param name="info">What the disk says about itself.</param>
    /// <param name="virtualSize">Its virtual size.</param>
    /// <param name="fileLength">The file's length in bytes.</param>
    public static IReadOnlyList<string> AzureObjections(VpcInfo info, long virtualSize, long fileLength)
    {
        var objections = new List<string>();
        if (!info.DiskType.Equals(nameof(VpcDiskType.Fixed), StringComparison.Ordinal))
        {
            objections.Add($"the disk is {info.DiskType.ToLowerInvariant()}; Azure takes fixed ones");
        }
        objections.AddRange(AzureObjectionsToSize(info.CurrentSize));
        if (info.CurrentSize != virtualSize)
        {
            objections.Add($"the footer says {info.CurrentSize:#,0} bytes, which is what Azure goes by, but the disk has "
                + $"{virtualSize:#,0}: its geometry was taken for its size");
        }
        if (info.DiskType.Equals(nameof(VpcDiskType.Fixed), StringComparison.Ordinal) && fileLength != info.CurrentSize + VpcFooter.Length)
        {
            objections.Add($"the file has {fileLength:#,0} bytes; the disk and its footer are {info.CurrentSize + VpcFooter.Length:#,0}");
        }
        return objections;
    }

    /// <summary>
    /// Why Azure would refuse a disk of a size: it takes whole MiB from 20 MiB to 32,767 GiB. Source: Azure REST API, Disks, CreationData,
    /// uploadSizeBytes (20,972,032 to 35,183,298,347,520 bytes, the footer among them); Add-AzVhd (N × MiB + 512 bytes).
    /// </summary>
    public static IReadOnlyList<string> AzureObjectionsToSize(long size)
    {
        var objections = new List<string>();
        if (size % MiB != 0)
        {
            objections.Add($"the size is {size:#,0} bytes; Azure takes whole MiB ({MiB:#,0})");
        }
        if (size < AzureSmallest)
        {
            objections.Add(size == 0
                ? "the disk is empty; Azure takes 20 MiB at least"
                : $"the size is {size:#,0} bytes; Azure takes {AzureSmallest:#,0} (20 MiB) at least");
        }
        if (size > AzureLargest)
        {
            objections.Add($"the size is {size:#,0} bytes; Azure takes up to {AzureLargest:#,0} (32,767 GiB)");
        }
        return objections;
    }
}
