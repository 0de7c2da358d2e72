using DiskImage.Block;
using DiskImage.Formats.Parallels;
using DiskImage.Tests.Conformance;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Parallels;

/// <summary>Disks of both variants with clusters smaller than any program makes, so that few bytes have many of them.</summary>
internal static class ParallelsDisks
{
    public static async Task<MemoryNode> CreateAsync(long size, int clusterSize, bool isExtended = true, uint? dataOffset = null)
    {
        uint tracks = (uint)(clusterSize / 512);
        var header = new ParallelsHeader
        {
            IsExtended = isExtended,
            Tracks = tracks,
            Sectors = size / 512,
            Entries = (int)ParallelsHeader.UnitsOf(size, clusterSize),
        };
        header = header with { DataOffset = dataOffset ?? (uint)(header.LeastDataStart / 512) };
        var file = new MemoryNode();
        await file.ResizeAsync(header.DataStart);
        await file.WriteAsync(0, header.ToBytes());
        return file;
    }

    public static async Task<BlockNode> OpenAsync(BlockNode file, bool forRepair = false)
        => await ParallelsNode.OpenAsync(file, backing: null, forRepair, CancellationToken.None);

    public static async Task<CheckReport> CheckAsync(byte[] file)
    {
        await using BlockNode disk = await OpenAsync(new MemoryNode(file, readOnly: true));
        return await disk.As<ICheckable>()!.CheckAsync(null, CancellationToken.None);
    }
}

/// <summary>A disk of its own contents.</summary>
public abstract class ParallelsConformance(string options) : NodeConformance
{
    private protected override bool CanResize => true;

    private protected override bool CanPreallocate => false;

    private protected override async Task<BlockNode> MakeAsync(byte[] contents, bool writable)
    {
        await Images.CreateAsync(Folder["disk.hdd"], "parallels", $"size={contents.Length}{options}");
        await using (BlockNode node = await Images.OpenAsync(Folder["disk.hdd"], writable: true))
        {
            await Images.FillAsync(node, contents);
        }
        return await Images.OpenAsync(Folder["disk.hdd"], writable: writable);
    }
}

public sealed class ParallelsNodeTests() : ParallelsConformance("");

public sealed class ParallelsOddClusterNodeTests() : ParallelsConformance(",cluster_size=32256");

/// <summary>Small clusters, counted in sectors from an offset that is no multiple of them.</summary>
public sealed class ParallelsOriginalNodeTests : NodeConformance
{
    private protected override bool CanResize => true;

    private protected override bool CanPreallocate => false;

    private protected override async Task<BlockNode> MakeAsync(byte[] contents, bool writable)
    {
        MemoryNode file = await ParallelsDisks.CreateAsync(contents.Length, 3 * 512, isExtended: false, dataOffset: 0);
        await using (BlockNode node = await ParallelsDisks.OpenAsync(file))
        {
            await Images.FillAsync(node, contents);
        }
        return await ParallelsDisks.OpenAsync(new MemoryNode(file.ToArray(), !writable));
    }
}
