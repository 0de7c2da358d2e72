using DiskImage.Block;
using DiskImage.Filters.Compress;
using DiskImage.Tests.Conformance;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Filters;

/// <summary>A disk that is stored compressed from its first byte on.</summary>
public abstract class CompressConformance(string options) : NodeConformance
{
    private protected override bool CanResize => true;

    private protected override async Task<BlockNode> MakeAsync(byte[] contents, bool writable)
    {
        await Images.CreateAsync(Folder["disk.qcow2"], "qcow2", $"size={contents.Length}{options}");
        await using (BlockNode node = Over(await Images.OpenAsync(Folder["disk.qcow2"], writable: true)))
        {
            await Images.FillAsync(node, contents);
        }
        return Over(await Images.OpenAsync(Folder["disk.qcow2"], writable: writable));
    }

    private static CompressNode Over(BlockNode disk) => new(disk, disk.As<ICompressedWritable>()!);
}

public sealed class CompressNodeTests() : CompressConformance("");

public sealed class CompressSmallClusterNodeTests() : CompressConformance(",cluster_size=4k,compression_type=zstd");

public sealed class CompressModelTests : IDisposable
{
    private readonly TestFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [OracleTheory("qemu-img")]
    [InlineData("", 1)]
    [InlineData(",cluster_size=4k", 2)]
    [InlineData(",cluster_size=2M,compat=0.10", 3)]
    [InlineData(",backing_file=base.raw,backing_fmt=raw", 4)]
    public async Task The_disk_reads_as_its_twin(string options, int seed)
    {
        byte[] twin = new byte[(2 << 20) + 1536];
        if (options.Contains("base.raw", StringComparison.Ordinal))
        {
            await Images.MakeRawAsync(_folder["base.raw"], 1 << 20, seed);
            (await File.ReadAllBytesAsync(_folder["base.raw"])).CopyTo(twin, 0);
        }
        await Images.CreateAsync(_folder["disk.qcow2"], "qcow2", $"size={twin.Length}{options}");
        BlockNode disk = await Images.OpenAsync(_folder["disk.qcow2"], "qcow2", writable: true);
        await using (var node = new CompressNode(disk, disk.As<ICompressedWritable>()!))
        {
            await RandomRequests.ExerciseAsync(node, twin, seed);
            Array.Fill(twin, (byte)'a', 70_000, 300_000); // what is random does not become shorter
            await node.WriteAsync(70_000, twin.AsMemory(70_000, 300_000));
            Assert.True((await node.GetExtentAsync(200_000, 1)).IsCompressed);
        }
        await File.WriteAllBytesAsync(_folder["twin.raw"], twin);
        await Programs.CheckAsync(_folder["disk.qcow2"]);
        await Programs.CompareAsync(_folder["disk.qcow2"], "qcow2", _folder["twin.raw"], "raw");
    }
}
