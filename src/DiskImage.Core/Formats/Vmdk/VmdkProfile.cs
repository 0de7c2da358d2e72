namespace DiskImage.Formats.Vmdk;

/// <summary>What VMware's programs ask of a VMDK beyond the format.</summary>
public static class VmdkProfile
{
    private const long MiB = 1 << 20;

    /// <summary>The virtual hardware version that is asked for: that of ESXi 6.5, which every later one takes.</summary>
    public const int HardwareVersion = 13;

    /// <summary>
    /// Why ESXi, vCenter and OVF tools would refuse to import a disk: they take streamOptimized ones of a SCSI adapter. Empty if they would not.
    /// Source: Virtual Disk Format 5.0, "Stream-Optimized Compressed Sparse Extents"; DMTF DSP0243 (OVF), 5.2.
    /// </summary>
    public static IReadOnlyList<string> EsxiObjections(VmdkInfo info, long virtualSize)
    {
        var objections = new List<string>();
        RequireType(objections, info, "streamOptimized", "ESXi imports streamOptimized ones");
        RequireScsi(objections, info);
        if (info.SparseVersion is not (null or 1 or 3))
        {
            objections.Add($"the sparse extent has version {info.SparseVersion}; ESXi takes 1 and 3");
        }
        if (info.ParentCid is not null)
        {
            objections.Add("the disk stands on a parent; ESXi imports disks that stand alone");
        }
        objections.AddRange(EsxiObjectionsToSize(virtualSize));
        return objections;
    }

    /// <summary>Why they would refuse a disk of a size: they take whole MiB.</summary>
    public static IReadOnlyList<string> EsxiObjectionsToSize(long size)
        => size == 0 ? ["the disk is empty"]
            : size % MiB != 0 ? [$"the size is {size:#,0} bytes; ESXi takes whole MiB ({MiB:#,0})"]
            : size > 62L << 40 ? [$"the size is {size:#,0} bytes; ESXi takes up to {62L << 40:#,0} (62 TiB)"]
            : [];

    /// <summary>Why VMware Workstation, Player and Fusion would refuse a disk. Empty if they would not.</summary>
    public static IReadOnlyList<string> WorkstationObjections(VmdkInfo info, long virtualSize)
    {
        var objections = new List<string>();
        if (info.CreateType is null)
        {
            objections.Add("there is no descriptor");
        }
        else if (info.CreateType.StartsWith("vmfs", StringComparison.OrdinalIgnoreCase) || info.CreateType.Equals("seSparse", StringComparison.OrdinalIgnoreCase))
        {
            objections.Add($"the disk is {info.CreateType}, which is ESXi's; Workstation takes monolithicSparse, monolithicFlat and their split kinds");
        }
        else if (info.CreateType.Equals("streamOptimized", StringComparison.OrdinalIgnoreCase))
        {
            objections.Add("the disk is streamOptimized; Workstation imports such a disk, and runs monolithicSparse ones");
        }
        if (virtualSize == 0)
        {
            objections.Add("the disk is empty");
        }
        return objections;
    }

    /// <summary>Why a VMFS datastore would refuse a disk: it keeps flat ones with a descriptor of their own. Empty if it would not.</summary>
    public static IReadOnlyList<string> VmfsObjections(VmdkInfo info, long virtualSize)
    {
        var objections = new List<string>();
        RequireType(objections, info, "vmfs", "a VMFS datastore has vmfs ones");
        RequireScsi(objections, info);
        objections.AddRange(EsxiObjectionsToSize(virtualSize));
        return objections;
    }

    private static void RequireType(List<string> objections, VmdkInfo info, string type, string who)
    {
        if (info.CreateType?.Equals(type, StringComparison.OrdinalIgnoreCase) != true)
        {
            objections.Add($"the disk is {info.CreateType ?? "without a descriptor"}; {who}");
        }
    }

    private static void RequireScsi(List<string> objections, VmdkInfo info)
    {
        if (info.AdapterType is not { } adapter || adapter.Equals("ide", StringComparison.OrdinalIgnoreCase))
        {
            objections.Add($"the adapter is {info.AdapterType ?? "not named"}; ESXi takes lsilogic and buslogic");
        }
    }
}
