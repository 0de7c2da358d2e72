using DiskImage.Block;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Conformance;

/// <summary>A VHDX disk of its own contents.</summary>
public abstract class VhdxConformance(string options, string open = "") : NodeConformance
{
    private protected override bool CanResize => true;

    private protected override async Task<BlockNode> MakeAsync(byte[] contents, bool writable)
    {
        await Images.CreateAsync(Folder["disk.vhdx"], "vhdx", $"size={contents.Length}{(options.Length == 0 ? "" : "," + options)}");
        await using (BlockNode node = await Images.OpenAsync(Folder["disk.vhdx"], writable: true))
        {
            await Images.FillAsync(node, contents);
        }
        return await Images.OpenAsync(Folder["disk.vhdx"], writable: writable, options: open);
    }
}

public sealed class VhdxNodeTests() : VhdxConformance("");

public sealed class VhdxSmallBlockNodeTests()
    : VhdxConformance("block_size=1M,block_state_zero=off", "metadata-cache-size=0,discard=ignore");

public sealed class VhdxFixedNodeTests() : VhdxConformance("subformat=fixed,block_size=1M");

/// <summary>Half of the disk shows through from below, and the parent is shorter than the disk.</summary>
public abstract class VhdxOverParentConformance(string options) : NodeConformance
{
    private protected override bool CanResize => true;

    private protected override async Task<BlockNode> MakeAsync(byte[] contents, bool writable)
    {
        const int ParentSize = Size - (400 << 10);
        byte[] below = contents[..ParentSize];
        new Random(8).NextBytes(below.AsSpan(0, Size / 2));
        await Images.CreateAsync(Folder["base.vhdx"], "vhdx", $"size={ParentSize},block_size=1M");
        await using (BlockNode node = await Images.OpenAsync(Folder["base.vhdx"], writable: true))
        {
            await Images.FillAsync(node, below);
        }
        await Images.CreateAsync(Folder["top.vhdx"], "vhdx", $"size={Size},backing_file=base.vhdx,backing_fmt=vhdx{options}");
        await using (BlockNode node = await Images.OpenAsync(Folder["top.vhdx"], writable: true))
        {
            await node.WriteAsync(0, contents.AsMemory(0, Size / 2));
            await node.WriteAsync(ParentSize, contents.AsMemory(ParentSize));
        }
        return await Images.OpenAsync(Folder["top.vhdx"], writable: writable);
    }
}

public sealed class VhdxOverParentNodeTests() : VhdxOverParentConformance("");

public sealed class VhdxSmallBlocksOverParentNodeTests() : VhdxOverParentConformance(",block_size=1M");
