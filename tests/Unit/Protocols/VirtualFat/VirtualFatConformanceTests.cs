using DiskImage.Block;
using DiskImage.Tests.Conformance;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Protocols.VirtualFat;

/// <summary>What every node promises, over the clusters of the only file of a folder.</summary>
public class WritableFatNodeTests : NodeConformance
{
    private protected override async Task<BlockNode> MakeAsync(byte[] contents, bool writable)
    {
        string tree = Directory.CreateDirectory(Folder[$"tree-{Guid.NewGuid():N}"]).FullName;
        await File.WriteAllBytesAsync(Path.Combine(tree, "FILE"), contents);
        string locator = $"json:{{\"file\":{FatTools.Json(tree, ("rw", CanWrite), ("size", "16M"))["json:".Length..]}}}";
        return await Images.OpenAsync(locator, "raw", writable, $"offset={await DataAtAsync(locator)},size={contents.Length}");
    }

    /// <summary>Where the first cluster is: what fatgen103 calls FirstDataSector.</summary>
    private static async Task<long> DataAtAsync(string locator)
    {
        Surroundings around = Images.Around.Value;
        Images.Around.Value = Surroundings.None;
        await using BlockNode node = await Images.OpenAsync(locator, "raw");
        Images.Around.Value = around;
        byte[] boot = new byte[512];
        await node.ReadAsync(FatTools.VolumeAt, boot);
        int sectors = BitConverter.ToUInt16(boot, 14) + (boot[16] * BitConverter.ToUInt16(boot, 22));
        return FatTools.VolumeAt + (sectors * 512) + (BitConverter.ToUInt16(boot, 17) * 32);
    }
}

/// <summary>The same for a folder that is only read.</summary>
public sealed class VirtualFatNodeTests : WritableFatNodeTests
{
    private protected override bool CanWrite => false;
}
