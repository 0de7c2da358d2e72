using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Formats.Vpc;
using DiskImage.Options;

namespace DiskImage.Tests.Formats.Vpc;

/// <summary>Makes and opens VHDs on any node, without files and registry.</summary>
internal static class VpcDisks
{
    private static readonly VpcDriver Driver = new();

    public static async Task CreateAsync(BlockNode file, string options, BlockNode? parent = null)
        => await Driver.CreateAsync(
            new FormatCreateContext(file, Driver.CreateOptions.Bind(OptionSchema.Split(options)), parent), CancellationToken.None);

    public static async Task<BlockNode> OpenAsync(
        BlockNode file, Func<BlockNode>? parent = null, string options = "", bool forRepair = false)
        => await Driver.OpenAsync(
            new FormatOpenContext(
                file,
                Driver.OpenOptions.Bind(OptionSchema.Split(options)),
                parent is null ? null : (_, _, _) => new ValueTask<BlockNode>(parent()),
                (_, _, _) => throw new InvalidOperationException("a VHD has no data file"),
                forRepair),
            CancellationToken.None);

    public static async Task<byte[]> ReadAsync(BlockNode disk)
    {
        byte[] contents = new byte[disk.Length];
        await disk.ReadAsync(0, contents);
        return contents;
    }

    public static async Task<CheckReport> CheckAsync(BlockNode disk) => await ((ICheckable)disk).CheckAsync(null, CancellationToken.None);

    public static async Task<CheckReport> RepairAsync(BlockNode disk, RepairMode mode)
        => await ((IRepairable)disk).RepairAsync(mode, null, CancellationToken.None);
}
