using DiskImage.Block;
using DiskImage.Tests.Conformance;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Vpc;

/// <summary>A VHD of its own contents.</summary>
public abstract class VpcConformance(string options) : NodeConformance
{
    private protected override bool CanResize => true;

    private protected override async Task<BlockNode> MakeAsync(byte[] contents, bool writable)
    {
        await Images.CreateAsync(Folder["disk.vhd"], "vpc", $"size={contents.Length},force_size,{options}");
        await using (BlockNode node = await Images.OpenAsync(Folder["disk.vhd"], writable: true))
        {
            await Images.FillAsync(node, contents);
        }
        return await Images.OpenAsync(Folder["disk.vhd"], writable: writable);
    }
}

public sealed class VpcFixedNodeTests() : VpcConformance("subformat=fixed");

public sealed class VpcDynamicNodeTests() : VpcConformance("subformat=dynamic");

public sealed class VpcTinyBlockNodeTests() : VpcConformance("block_size=4k");

public sealed class VpcHugeBlockNodeTests() : VpcConformance("block_size=16M");

/// <summary>Half of the disk shows through from a parent.</summary>
public sealed class VpcDifferencingNodeTests : NodeConformance
{
    private protected override bool CanResize => true;

    private protected override async Task<BlockNode> MakeAsync(byte[] contents, bool writable)
    {
        byte[] below = (byte[])contents.Clone();
        new Random(8).NextBytes(below.AsSpan(0, Size / 2));
        await Images.CreateAsync(Folder["base.vhd"], "vpc", $"size={Size},force_size");
        await using (BlockNode node = await Images.OpenAsync(Folder["base.vhd"], writable: true))
        {
            await Images.FillAsync(node, below);
        }
        await Images.CreateAsync(Folder["top.vhd"], "vpc", $"backing_file=base.vhd,block_size=64k");
        await using (BlockNode node = await Images.OpenAsync(Folder["top.vhd"], writable: true))
        {
            await node.WriteAsync(0, contents.AsMemory(0, Size / 2));
        }
        return await Images.OpenAsync(Folder["top.vhd"], writable: writable);
    }
}
