using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Formats.Vhdx;
using DiskImage.Options;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Vhdx;

/// <summary>VHDX disks in memory.</summary>
internal static class VhdxDisks
{
    public static VhdxDriver Driver { get; } = new();

    /// <summary>A new image as bytes.</summary>
    public static async Task<byte[]> CreateAsync(string options, VhdxNode? parent = null)
    {
        var file = new MemoryNode();
        object record = Driver.CreateOptions.Bind(OptionSchema.Split(options));
        await Driver.CreateAsync(new FormatCreateContext(file, record, parent), CancellationToken.None);
        return file.ToArray();
    }

    /// <summary>Opens an image on a file, over a parent that is open already.</summary>
    public static async Task<VhdxNode> OpenAsync(BlockNode file, BlockNode? parent = null, string options = "", bool forRepair = false)
        => (VhdxNode)await Driver.OpenAsync(
            new FormatOpenContext(
                file, Driver.OpenOptions.Bind(OptionSchema.Split(options)), parent is null ? null : (_, _, _) => new(parent),
                (_, _, _) => throw new NotSupportedException(), forRepair),
            CancellationToken.None);

    public static Task<VhdxNode> OpenAsync(byte[] file, BlockNode? parent = null, string options = "")
        => OpenAsync(new MemoryNode((byte[])file.Clone(), readOnly: true), parent, options);

    /// <summary>Writes to an image; its bytes after it is closed.</summary>
    public static async Task<byte[]> ChangeAsync(byte[] image, Func<VhdxNode, Task> change, byte[]? parent = null)
    {
        var file = new MemoryNode((byte[])image.Clone());
        await using (VhdxNode node = await OpenAsync(file, parent is null ? null : await OpenAsync(parent)))
        {
            await change(node);
        }
        return file.ToArray();
    }

    public static async Task<byte[]> ReadAllAsync(BlockNode node)
    {
        byte[] bytes = new byte[node.Length];
        await node.ReadAsync(0, bytes);
        return bytes;
    }

    public static byte[] Noise(int length, int seed)
    {
        byte[] bytes = new byte[length];
        new Random(seed).NextBytes(bytes);
        return bytes;
    }
}
