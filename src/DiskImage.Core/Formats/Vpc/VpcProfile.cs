namespace DiskImage.Formats.Vpc;

/// <summary>What services that take a VHD ask of it beyond the format.</summary>
public static class VpcProfile
{
    private const long MiB = 1 << 20, AzureLargest = 32767L << 30;

    /// <summary>
    /// Why Azure would refuse a disk: it takes fixed disks of whole MiB, the footer right behind them. Empty if it would not. No I/O.
    /// Source: Microsoft Learn, "Prepare a Windows VHD or VHDX to upload to Azure".
    /// </summary>
    /// <param name="info">What the disk says about itself.</param>
    /// <param name="virtualSize">Its virtual size.</param>
    /// <param name="fileLength">The file's length in bytes.</param>
    public static IReadOnlyList<string> AzureObjections(VpcInfo info, long virtualSize, long fileLength)
    {
        ArgumentNullException.ThrowIfNull(info);
        var objections = new List<string>();
        if (info.DiskType != VpcDiskType.Fixed)
        {
            objections.Add($"the disk is {info.DiskType.ToString().ToLowerInvariant()}; Azure takes fixed ones");
        }
        if (info.CurrentSize % MiB != 0 || info.CurrentSize == 0)
        {
            objections.Add($"the size is {info.CurrentSize:#,0} bytes; Azure takes whole MiB ({MiB:#,0}), at least one");
        }
        if (info.CurrentSize > AzureLargest)
        {
            objections.Add($"the size is {info.CurrentSize:#,0} bytes; Azure takes up to {AzureLargest:#,0} (32,767 GiB)");
        }
        if (info.CurrentSize != virtualSize)
        {
            objections.Add($"the footer says {info.CurrentSize:#,0} bytes, which is what Azure goes by, but the disk has {virtualSize:#,0}: its geometry was taken for its size");
        }
        if (info.DiskType == VpcDiskType.Fixed && fileLength != info.CurrentSize + VpcFooter.Length)
        {
            objections.Add($"the file has {fileLength:#,0} bytes; the disk and its footer are {info.CurrentSize + VpcFooter.Length:#,0}");
        }
        return objections;
    }
}
