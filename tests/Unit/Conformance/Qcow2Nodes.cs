using DiskImage.Block;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Conformance;

/// <summary>A qcow2 disk of its own contents.</summary>
public abstract class Qcow2Conformance(string options, string open = "") : NodeConformance
{
    private protected override bool CanResize => true;

    private protected override async Task<BlockNode> MakeAsync(byte[] contents, bool writable)
    {
        await Images.CreateAsync(Folder["disk.qcow2"], "qcow2", $"size={contents.Length}{(options.Length == 0 ? "" : "," + options)}");
        await using (BlockNode node = await Images.OpenAsync(Folder["disk.qcow2"], writable: true))
        {
            await Images.FillAsync(node, contents);
        }
        return await Images.OpenAsync(Folder["disk.qcow2"], writable: writable, options: open);
    }
}

public sealed class Qcow2NodeTests() : Qcow2Conformance("");

public sealed class Qcow2TinyClusterNodeTests()
    : Qcow2Conformance("cluster_size=512,refcount_bits=1", "l2-cache-size=0,refcount-cache-size=0");

public sealed class Qcow2HugeClusterNodeTests() : Qcow2Conformance("cluster_size=2M,refcount_bits=64");

public sealed class Qcow2Version2NodeTests() : Qcow2Conformance("compat=0.10", "discard=ignore");

public sealed class Qcow2PreallocatedNodeTests() : Qcow2Conformance("preallocation=metadata,cluster_size=4k");

/// <summary>Half of the disk shows through from below, and the backing image is shorter than the disk.</summary>
public abstract class Qcow2OverBackingConformance(string options) : NodeConformance
{
    private protected override bool CanResize => true;

    private protected override async Task<BlockNode> MakeAsync(byte[] contents, bool writable)
    {
        const int BackingSize = Size - (400 << 10);
        byte[] below = contents[..BackingSize];
        new Random(8).NextBytes(below.AsSpan(0, Size / 2));
        await Images.WriteSparseAsync(Folder["base.raw"], below);
        await Images.CreateAsync(Folder["top.qcow2"], "qcow2", $"size={Size},backing_file=base.raw,backing_fmt=raw{options}");
        await using (BlockNode node = await Images.OpenAsync(Folder["top.qcow2"], writable: true))
        {
            await node.WriteAsync(0, contents.AsMemory(0, Size / 2));
            await node.WriteAsync(BackingSize, contents.AsMemory(BackingSize));
        }
        return await Images.OpenAsync(Folder["top.qcow2"], writable: writable);
    }
}

public sealed class Qcow2OverBackingNodeTests() : Qcow2OverBackingConformance("");

public sealed class Qcow2Version2OverBackingNodeTests() : Qcow2OverBackingConformance(",compat=0.10,cluster_size=1k");

/// <summary>Compressed by us, so that it needs no other program.</summary>
public sealed class Qcow2CompressedNodeTests : NodeConformance
{
    private protected override bool CanResize => true;

    private protected override async Task<BlockNode> MakeAsync(byte[] contents, bool writable)
    {
        await Images.WriteSparseAsync(Folder["disk.raw"], contents);
        await Images.ConvertAsync(Folder["disk.raw"], "raw", Folder["disk.qcow2"], "qcow2", "", new() { Compress = true });
        return await Images.OpenAsync(Folder["disk.qcow2"], writable: writable);
    }
}
