using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Formats.Vdi;
using DiskImage.Tests.Conformance;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Vdi;

/// <summary>Disks with blocks smaller than any program makes, so that few bytes have many of them.</summary>
internal static class VdiDisks
{
    public static async Task<MemoryNode> CreateAsync(long size, int blockSize, long dataOffset = 0)
    {
        int blocks = (int)Round.Units(size, blockSize);
        long mapEnd = Round.Up(512 + (blocks * 4L), 512);
        VdiHeader header = VdiHeader.New(VdiImageType.Dynamic, size, blockSize, blocks, 512, dataOffset == 0 ? mapEnd : dataOffset);
        var file = new MemoryNode();
        await file.WriteAsync(0, header.ToBytes());
        byte[] map = new byte[mapEnd - 512];
        map.AsSpan().Fill(0xFF);
        await file.WriteAsync(512, map);
        await file.ResizeAsync(header.DataOffset);
        return file;
    }

    public static async Task<BlockNode> OpenAsync(BlockNode file, bool forRepair = false)
        => await VdiNode.OpenAsync(file, await VdiHeader.ReadAsync(file, CancellationToken.None), forRepair, CancellationToken.None);

    public static async Task<CheckReport> CheckAsync(byte[] file)
    {
        await using BlockNode disk = await OpenAsync(new MemoryNode(file, readOnly: true));
        return await disk.As<ICheckable>()!.CheckAsync(null, CancellationToken.None);
    }
}

/// <summary>A VDI of its own contents.</summary>
public abstract class VdiConformance(string options) : NodeConformance
{
    private protected override bool CanResize => true;

    private protected override bool CanPreallocate => false;

    private protected override async Task<BlockNode> MakeAsync(byte[] contents, bool writable)
    {
        await Images.CreateAsync(Folder["disk.vdi"], "vdi", $"size={contents.Length}{options}");
        await using (BlockNode node = await Images.OpenAsync(Folder["disk.vdi"], writable: true))
        {
            await Images.FillAsync(node, contents);
        }
        return await Images.OpenAsync(Folder["disk.vdi"], writable: writable);
    }
}

public sealed class VdiDynamicNodeTests() : VdiConformance("");

public sealed class VdiStaticNodeTests() : VdiConformance(",static");

public sealed class VdiSmallBlockNodeTests : NodeConformance
{
    private protected override bool CanResize => true;

    private protected override bool CanPreallocate => false;

    private protected override async Task<BlockNode> MakeAsync(byte[] contents, bool writable)
    {
        MemoryNode file = await VdiDisks.CreateAsync(contents.Length, 4096);
        await using (BlockNode node = await VdiDisks.OpenAsync(file))
        {
            await Images.FillAsync(node, contents);
        }
        return await VdiDisks.OpenAsync(new MemoryNode(file.ToArray(), !writable));
    }
}
