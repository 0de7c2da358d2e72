using DiskImage.Block;
using DiskImage.Tests.Conformance;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Vmdk;

/// <summary>A VMDK of its own contents.</summary>
public abstract class VmdkConformance(string options) : NodeConformance
{
    private protected override bool CanResize => true;

    private protected override bool CanPreallocate => options.Contains("Flat", StringComparison.Ordinal);

    private protected override async Task<BlockNode> MakeAsync(byte[] contents, bool writable)
    {
        await Images.CreateAsync(Folder["disk.vmdk"], "vmdk", $"size={contents.Length}{options}");
        await using (BlockNode node = await Images.OpenAsync(Folder["disk.vmdk"], writable: true))
        {
            await Images.FillAsync(node, contents);
        }
        return await Images.OpenAsync(Folder["disk.vmdk"], writable: writable);
    }
}

public sealed class VmdkSparseNodeTests() : VmdkConformance("");

public sealed class VmdkZeroedGrainNodeTests() : VmdkConformance(",zeroed_grain=on");

public sealed class VmdkFlatNodeTests() : VmdkConformance(",subformat=monolithicFlat");

public sealed class VmdkSplitSparseNodeTests() : VmdkConformance(",subformat=twoGbMaxExtentSparse");

public sealed class VmdkSplitFlatNodeTests() : VmdkConformance(",subformat=twoGbMaxExtentFlat");

/// <summary>Half of the disk shows through from below, and the parent is shorter than the disk.</summary>
public abstract class VmdkOverParent(string options, string parentOptions) : NodeConformance
{
    private protected override bool CanResize => true;

    private protected override bool CanPreallocate => false;

    private protected override async Task<BlockNode> MakeAsync(byte[] contents, bool writable)
    {
        const int ParentSize = Size - (400 << 10);
        byte[] below = contents[..ParentSize];
        new Random(8).NextBytes(below.AsSpan(0, Size / 2));
        await Images.CreateAsync(Folder["base.vmdk"], "vmdk", $"size={ParentSize}{parentOptions}");
        await using (BlockNode node = await Images.OpenAsync(Folder["base.vmdk"], writable: true))
        {
            await node.WriteAsync(0, below);
        }
        await Images.CreateAsync(Folder["top.vmdk"], "vmdk", $"size={Size},backing_file=base.vmdk{options}");
        await using (BlockNode node = await Images.OpenAsync(Folder["top.vmdk"], writable: true))
        {
            await node.WriteAsync(0, contents.AsMemory(0, Size / 2));
            await node.WriteAsync(ParentSize, contents.AsMemory(ParentSize));
        }
        return await Images.OpenAsync(Folder["top.vmdk"], writable: writable);
    }
}

public sealed class VmdkOverSparseNodeTests() : VmdkOverParent("", "");

public sealed class VmdkOverFlatNodeTests() : VmdkOverParent(",zeroed_grain", ",subformat=monolithicFlat");

public sealed class VmdkSplitOverSparseNodeTests() : VmdkOverParent(",subformat=twoGbMaxExtentSparse", "");

/// <summary>A stream, read at random.</summary>
public sealed class VmdkStreamNodeTests : NodeConformance
{
    private protected override bool CanWrite => false;

    private protected override async Task<BlockNode> MakeAsync(byte[] contents, bool writable)
    {
        await Images.WriteSparseAsync(Folder["disk.raw"], contents);
        await Images.ConvertAsync(Folder["disk.raw"], "raw", Folder["disk.vmdk"], "vmdk", "subformat=streamOptimized");
        return await Images.OpenAsync(Folder["disk.vmdk"], writable: writable);
    }
}
