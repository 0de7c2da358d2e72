using DiskImage.Block;
using DiskImage.Tests.Conformance;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Qed;

/// <summary>A QED disk of its own contents.</summary>
public abstract class QedConformance(string options) : NodeConformance
{
    private protected override bool CanResize => true;

    private protected override bool CanPreallocate => false;

    private protected override async Task<BlockNode> MakeAsync(byte[] contents, bool writable)
    {
        await Images.CreateAsync(Folder["disk.qed"], "qed", $"size={contents.Length}{options}");
        await using (BlockNode node = await Images.OpenAsync(Folder["disk.qed"], writable: true))
        {
            await Images.FillAsync(node, contents);
        }
        return await Images.OpenAsync(Folder["disk.qed"], writable: writable);
    }
}

public sealed class QedDefaultNodeTests() : QedConformance("");

public sealed class QedSmallNodeTests() : QedConformance(",cluster_size=4k,table_size=1");

public sealed class QedLargeNodeTests() : QedConformance(",cluster_size=1M,table_size=16");

/// <summary>Half of the disk shows through from below, and the backing image is shorter than the disk.</summary>
public sealed class QedOverBackingNodeTests : NodeConformance
{
    private protected override bool CanResize => true;

    private protected override bool CanPreallocate => false;

    private protected override async Task<BlockNode> MakeAsync(byte[] contents, bool writable)
    {
        const int BackingSize = Size - (400 << 10);
        byte[] below = contents[..BackingSize];
        new Random(8).NextBytes(below.AsSpan(0, Size / 2));
        await Images.WriteSparseAsync(Folder["base.raw"], below);
        await Images.CreateAsync(Folder["top.qed"], "qed", $"size={Size},backing_file=base.raw,backing_fmt=raw,cluster_size=8k");
        await using (BlockNode node = await Images.OpenAsync(Folder["top.qed"], writable: true))
        {
            await node.WriteAsync(0, contents.AsMemory(0, Size / 2));
            await node.WriteAsync(BackingSize, contents.AsMemory(BackingSize));
        }
        return await Images.OpenAsync(Folder["top.qed"], writable: writable);
    }
}
