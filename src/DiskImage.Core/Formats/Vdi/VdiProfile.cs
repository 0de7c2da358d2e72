namespace DiskImage.Formats.Vdi;

/// <summary>What VirtualBox asks of a VDI beyond the format.</summary>
public static class VdiProfile
{
    private const long Largest = 2L << 40; // what its dialogs and VBoxManage offer

    /// <summary>Why VirtualBox would refuse a disk: it knows media by their UUIDs. Empty if it would not. No I/O.</summary>
    /// <param name="info">What the disk says about itself.</param>
    /// <param name="virtualSize">Its virtual size.</param>
    public static IReadOnlyList<string> VirtualBoxObjections(VdiInfo info, long virtualSize)
    {
        var objections = new List<string>();
        if (info.ImageId == Guid.Empty)
        {
            objections.Add("the disk has no UUID, by which VirtualBox knows it");
        }
        if (info.ParentId is { } parent && (parent == Guid.Empty || parent == info.ImageId))
        {
            objections.Add("the disk is differencing and does not say on which other it stands");
        }
        return [.. objections, .. VirtualBoxObjectionsToSize(virtualSize)];
    }

    /// <summary>Why VirtualBox would refuse any disk of a size.</summary>
    public static IReadOnlyList<string> VirtualBoxObjectionsToSize(long size)
        => size == 0 ? ["the disk is empty"]
            : size > Largest ? [$"the size is {size:#,0} bytes; VirtualBox makes up to {Largest:#,0} (2 TiB)"]
            : [];
}
