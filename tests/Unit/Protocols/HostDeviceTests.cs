using DiskImage.Block;
using DiskImage.Graph;
using DiskImage.Jobs;
using DiskImage.Protocols.HostDevice;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Protocols;

/// <summary>Disks of the machine, by way of loop devices.</summary>
public sealed class HostDeviceTests : IDisposable
{
    private const int Size = 8 << 20;

    private static readonly OpenPolicy s_allowed = OpenPolicy.Default with { AllowDeviceWrite = true };

    private readonly TestFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [LoopTheory]
    [InlineData(512, CacheMode.Writeback)]
    [InlineData(4096, CacheMode.Writeback)]
    [InlineData(512, CacheMode.None)]
    [InlineData(4096, CacheMode.DirectSync)]
    public async Task A_disk_is_read_and_written_at_any_offset(int sector, CacheMode cache)
    {
        byte[] contents = await MakeFileAsync();
        using LoopDevice loop = await LoopDevice.OfAsync(_folder["disk"], sector);
        await using (BlockNode disk = await Images.OpenAsync(
            loop.Path, "raw", writable: true, policy: s_allowed with { Cache = CachePolicy.Of(cache) }))
        {
            Assert.Equal(Size, disk.Length);
            BlockNode device = disk.SelfAndBelow().Single(n => n is HostDeviceNode);
            Assert.Equal($"device:7:{int.Parse(loop.Path["/dev/loop".Length..]):x}", device.Identity!.Value.Text);
            var random = new Random(sector);
            for (int i = 0; i < 60; i++)
            {
                int offset = random.Next(Size - 200_000), length = random.Next(1, 200_000);
                switch (i % 4)
                {
                    case 0:
                        await disk.WriteZeroesAsync(offset, length);
                        contents.AsSpan(offset, length).Clear();
                        break;
                    case 1:
                        byte[] read = new byte[length];
                        await disk.ReadAsync(offset, read);
                        Assert.True(contents.AsSpan(offset, length).SequenceEqual(read), $"{length} bytes at {offset}");
                        break;
                    default:
                        random.NextBytes(contents.AsSpan(offset, length));
                        await disk.WriteAsync(offset, contents.AsMemory(offset, length));
                        break;
                }
            }
            await disk.FlushAsync();
            // what is behind the last whole sector of a discard stays
            await disk.DiscardAsync(1 << 20, 1 << 20);
            await disk.ReadAsync(1 << 20, contents.AsMemory(1 << 20, 1 << 20));
            Assert.Equal(DiskImageErrorKind.OutOfRange, (await Assert.ThrowsAsync<DiskImageException>(
                async () => await disk.WriteAsync(Size - 1, new byte[2]))).Kind);
        }
        Assert.Equal(contents, await File.ReadAllBytesAsync(_folder["disk"]));
        if (Programs.Find("qemu-img") is not null)
        {
            await Programs.CompareAsync(_folder["disk"], "raw", loop.Path, "raw");
        }
    }

    [LoopTheory]
    [InlineData(512)]
    public async Task Without_permission_a_disk_is_only_read(int sector)
    {
        byte[] contents = await MakeFileAsync();
        using LoopDevice loop = await LoopDevice.OfAsync(_folder["disk"], sector);
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(() => Images.OpenAsync(loop.Path, "raw", writable: true));
        Assert.Equal(DiskImageErrorKind.ReadOnly, error.Kind);
        Assert.Contains(error.Wording.Remedies, r => r.Kind == RemedyKind.AllowDeviceWrite);
        error = await Assert.ThrowsAsync<DiskImageException>(() => Images.BeginAsync(loop.Path, "raw", $"size={Size}"));
        Assert.Equal(DiskImageErrorKind.ReadOnly, error.Kind);
        await using BlockNode disk = await Images.OpenAsync($"json:{{\"driver\":\"host_device\",\"filename\":\"{loop.Path}\"}}");
        byte[] read = new byte[Size];
        await disk.ReadAsync(0, read);
        Assert.Equal(contents, read);
    }

    [LoopTheory]
    [InlineData(512)]
    [InlineData(4096)]
    public async Task A_new_image_goes_onto_a_disk_if_it_fits_and_leaves_what_is_behind(int sector)
    {
        byte[] before = await MakeFileAsync();
        using LoopDevice loop = await LoopDevice.OfAsync(_folder["disk"], sector);
        DiskImageException tooSmall = await Assert.ThrowsAsync<DiskImageException>(
            () => Images.BeginAsync(loop.Path, "raw", $"size={Size + 512}", s_allowed));
        Assert.Equal(DiskImageErrorKind.NoSpace, tooSmall.Kind);
        Assert.Equal(before, await File.ReadAllBytesAsync(_folder["disk"]));
        const int Part = Size / 2;
        byte[] contents = new byte[Part];
        new Random(3).NextBytes(contents.AsSpan(0, Part / 3));
        await using (NewImage image = await Images.BeginAsync(loop.Path, "raw", $"size={Part}", s_allowed))
        {
            Assert.Equal(Size - Part, image.Behind);
            await new ConvertJob(new MemoryNode(contents), image.Node, new ConvertOptions()).RunAsync(null, CancellationToken.None);
            await image.CompleteAsync(
                durable: true,
                async made =>
                {
                    Assert.Equal(Part, made.Length);
                    byte[] read = new byte[Part];
                    await made.ReadAsync(0, read);
                    Assert.Equal(contents, read);
                },
                CancellationToken.None);
        }
        byte[] expected = [.. contents, .. before[Part..]];
        Assert.Equal(expected, await File.ReadAllBytesAsync(_folder["disk"]));
        await using (NewImage image = await Images.BeginAsync(loop.Path, "qcow2", "size=1G", s_allowed))
        {
            await image.Node.WriteAsync(12345, contents.AsMemory(0, 70_000));
            await image.CompleteAsync(durable: true, CancellationToken.None);
        }
        await using BlockNode qcow2 = await Images.OpenAsync(loop.Path);
        Assert.Equal(1L << 30, qcow2.Length);
        if (Programs.Find("qemu-img") is not null)
        {
            await Programs.CheckAsync(loop.Path);
        }
    }

    [LoopTheory]
    [InlineData(512)]
    public async Task A_mounted_disk_is_not_written_to_and_its_mount_point_is_named(int sector)
    {
        if (Programs.Find("mkfs.ext4") is null || !Directory.Exists("/sys/fs/ext4"))
        {
            return;
        }
        await MakeFileAsync();
        string mount = _folder["a mount"];
        Directory.CreateDirectory(mount);
        using LoopDevice loop = await LoopDevice.OfAsync(_folder["disk"], sector);
        _ = await Programs.RunAsync("mkfs.ext4", "-q", loop.Path);
        _ = await Programs.RunAsync("mount", loop.Path, mount);
        try
        {
            DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(
                () => Images.OpenAsync(loop.Path, "raw", writable: true, policy: s_allowed));
            Assert.Equal(DiskImageErrorKind.Locked, error.Kind);
            Assert.Contains($"mounted at {mount}", error.Message, StringComparison.Ordinal);
            error = await Assert.ThrowsAsync<DiskImageException>(() => Images.BeginAsync(loop.Path, "raw", $"size={Size}", s_allowed));
            Assert.Equal(DiskImageErrorKind.Locked, error.Kind);
            DiskDevice listed = DiskDevice.All().Single(d => d.Path == loop.Path);
            Assert.Equal((Size, $"mounted at {mount}"), (listed.Length, Assert.Single(listed.Uses)));
            await (await Images.OpenAsync(loop.Path, "raw")).DisposeAsync(); // reading is no harm
        }
        finally
        {
            _ = await Programs.RunAsync("umount", mount);
        }
        await (await Images.OpenAsync(loop.Path, "raw", writable: true, policy: s_allowed)).DisposeAsync();
    }

    [LoopTheory]
    [InlineData(512)]
    public async Task QEMU_and_we_exclude_each_other_from_a_disk(int sector)
    {
        if (Programs.Find("qemu-io") is null)
        {
            return;
        }
        await MakeFileAsync();
        using LoopDevice loop = await LoopDevice.OfAsync(_folder["disk"], sector);
        await using (BlockNode disk = await Images.OpenAsync(loop.Path, "raw", writable: true, policy: s_allowed))
        {
            (int code, _, string errors) = await Programs.TryAsync("qemu-io", "-f", "raw", "-c", "write 0 512", loop.Path);
            Assert.NotEqual(0, code);
            Assert.Contains("lock", errors, StringComparison.Ordinal);
        }
        _ = await Programs.RunAsync("qemu-io", "-f", "raw", "-c", "write 0 4096", loop.Path);
    }

    private async Task<byte[]> MakeFileAsync()
    {
        byte[] contents = new byte[Size];
        new Random(7).NextBytes(contents);
        await File.WriteAllBytesAsync(_folder["disk"], contents);
        return contents;
    }
}
