using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Jobs;
using DiskImage.Options;

namespace DiskImage.Tests.Support;

/// <summary>qcow2 images in memory.</summary>
internal static class MemoryDisk
{
    private static readonly FormatDriver s_qcow2 = Images.Registry.Format("qcow2");

    /// <summary>Writes a new image.</summary>
    public static ValueTask CreateAsync(BlockNode file, string options)
        => ((ICreatable)s_qcow2).CreateAsync(
            new FormatCreateContext(file, ((ICreatable)s_qcow2).CreateOptions.Bind(OptionSchema.Split(options))), CancellationToken.None);

    /// <summary>A new image's bytes.</summary>
    public static async Task<byte[]> NewAsync(string options)
    {
        var file = new MemoryNode();
        await CreateAsync(file, options);
        return file.ToArray();
    }

    /// <summary>Opens an image; a backing image, if it names one and one is given, is <paramref name="backing"/>.</summary>
    public static ValueTask<BlockNode> OpenAsync(BlockNode file, byte[]? backing = null, string options = "", bool forRepair = false)
        => s_qcow2.OpenAsync(
            new FormatOpenContext(
                file,
                s_qcow2.OpenOptions.Bind(OptionSchema.Split(options)),
                (_, _, _) => new(new MemoryNode(backing ?? [], readOnly: true)),
                (name, _, _) => throw new DiskImageException(DiskImageErrorKind.Refused, name),
                forRepair),
            CancellationToken.None);

    /// <summary>A compressed image of some contents.</summary>
    public static async Task<byte[]> CompressedAsync(byte[] contents, string options)
    {
        var file = new MemoryNode();
        await CreateAsync(file, $"size={contents.Length}{options}");
        await using BlockNode disk = await OpenAsync(file);
        await new ConvertJob(
            new MemoryNode(contents, readOnly: true), disk, new ConvertOptions { Compress = true }).RunAsync(null, CancellationToken.None);
        await disk.FlushAsync();
        return file.ToArray();
    }

    /// <summary>Our own check must find leaks at most.</summary>
    public static async Task<CheckReport> LeaksAtMostAsync(byte[] image, string what)
    {
        await using BlockNode disk = await OpenAsync(new MemoryNode(image, readOnly: true));
        CheckReport report = await ((ICheckable)disk).CheckAsync(null, CancellationToken.None);
        Assert.True(
            report is { Corruptions: 0, CheckErrors: 0 },
            $"{what}: {string.Join('\n', report.Findings.Where(f => f.Severity != CheckSeverity.Leak).Take(5).Select(f => f.Message))}");
        return report;
    }

    /// <summary>qemu-img must find leaks at most.</summary>
    public static async Task QemuLeaksAtMostAsync(string path, string what)
    {
        (int code, string output, string errors) = await Programs.TryAsync("qemu-img", "check", "-f", "qcow2", path);
        Assert.True(code is 0 or 3, $"{what}: {code}\n{output}\n{errors}");
    }
}
