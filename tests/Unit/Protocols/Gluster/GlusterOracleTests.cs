using DiskImage.Block;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Protocols.Gluster;

/// <summary>Real volumes, with qemu-img's own GlusterFS driver as the other judge.</summary>
public sealed class GlusterOracleTests(GlusterFixture fixture) : IClassFixture<GlusterFixture>
{
    private const int Size = 12 << 20;

    private GlusterServer Server => fixture.Server!;

    [GlusterFact]
    public async Task What_we_write_QEMU_reads_and_the_other_way_round()
    {
        byte[] model = new byte[Size];
        new Random(1).NextBytes(model.AsSpan(1 << 20, 5 << 20));
        string url = GlusterServer.Url(GlusterServer.Distributed, "a.raw");
        await Images.CreateAsync(url, "raw", $"size={Size}");
        await using (BlockNode disk = await Images.OpenAsync(url, "raw", writable: true))
        {
            await disk.WriteAsync(0, model.AsMemory(0, 6 << 20));
            await disk.WriteZeroesAsync(2 << 20, 1 << 20);
            model.AsSpan(2 << 20, 1 << 20).Clear();
            await disk.DiscardAsync(4 << 20, 1 << 20);
            await disk.FlushAsync();
            await disk.ReadAsync(4 << 20, model.AsMemory(4 << 20, 1 << 20));
            Assert.False(model.AsSpan(4 << 20, 1 << 20).ContainsAnyExcept((byte)0)); // a hole
            BlockExtent end = await disk.GetExtentAsync(8 << 20, Size - (8 << 20));
            Assert.Equal((Size, true), (end.End, end.IsZero));
        }
        using var folder = new TestFolder();
        await File.WriteAllBytesAsync(folder["model"], model);
        await RequireAsync("qemu-img", "compare", "-f", "raw", "-F", "raw", folder["model"], url);
        string theirs = GlusterServer.Url(GlusterServer.Replicated, "theirs.qcow2");
        await RequireAsync("qemu-img", "convert", "-f", "raw", "-O", "qcow2", folder["model"], theirs);
        await using BlockNode other = await Images.OpenAsync(theirs);
        byte[] read = new byte[Size];
        await other.ReadAsync(0, read);
        Assert.True(model.AsSpan().SequenceEqual(read));
    }

    [GlusterFact]
    public async Task A_disk_is_made_in_its_place_grown_reserved_and_replaced()
    {
        string url = GlusterServer.Url(GlusterServer.Distributed, "b.qcow2");
        await Images.CreateAsync(url, "qcow2", "size=64M");
        DiskImageException there = await Assert.ThrowsAsync<DiskImageException>(
            async () => await Images.CreateAsync(url, "qcow2", "size=64M"));
        Assert.Equal(DiskImageErrorKind.AlreadyExists, there.Kind);
        await RequireAsync("qemu-img", "check", url);
        string raw = GlusterServer.Url(GlusterServer.Distributed, "c.raw");
        await Images.CreateAsync(raw, "raw", "size=1M");
        await using (BlockNode disk = await Images.OpenAsync(raw, "raw", writable: true))
        {
            await disk.ResizeAsync(3 << 20, PreallocationMode.Falloc);
            await disk.ResizeAsync(5 << 20, PreallocationMode.Full);
            await disk.ResizeAsync(4 << 20);
            byte[] read = new byte[4 << 20];
            await disk.ReadAsync(0, read);
            Assert.False(read.AsSpan().ContainsAnyExcept((byte)0));
        }
        await using BlockNode again = await Images.OpenAsync(raw, "raw");
        Assert.Equal(4 << 20, again.Length);
        Assert.True(again.AllocatedLength >= 3 << 20, $"{again.AllocatedLength}");
    }

    [GlusterFact]
    public async Task A_replicated_volume_goes_on_when_a_brick_dies()
    {
        string url = GlusterServer.Url(GlusterServer.Replicated, "r.raw");
        byte[] model = new byte[Size];
        await Images.CreateAsync(url, "raw", $"size={Size}");
        await using (BlockNode disk = await Images.OpenAsync(url, "raw", writable: true))
        {
            var random = new Random(3);
            for (int i = 0; i < 24; i++)
            {
                if (i == 12)
                {
                    Server.KillBrick();
                }
                random.NextBytes(model.AsSpan(i << 19, 1 << 19));
                await disk.WriteAsync(i << 19, model.AsMemory(i << 19, 1 << 19));
            }
            await disk.FlushAsync();
            byte[] read = new byte[Size];
            await disk.ReadAsync(0, read);
            Assert.True(model.AsSpan().SequenceEqual(read));
        }
        using var folder = new TestFolder();
        await File.WriteAllBytesAsync(folder["model"], model);
        await RequireAsync("qemu-img", "compare", "-f", "raw", "-F", "raw", folder["model"], url);
        await Server.ReviveAsync();
    }

    [GlusterFact]
    public async Task What_is_not_there_is_said_and_the_next_server_is_asked()
    {
        DiskImageException none = await Assert.ThrowsAsync<DiskImageException>(
            async () => await Images.OpenAsync(GlusterServer.Url(GlusterServer.Distributed, "none"), "raw"));
        Assert.Equal(DiskImageErrorKind.NotFound, none.Kind);
        DiskImageException volume = await Assert.ThrowsAsync<DiskImageException>(
            async () => await Images.OpenAsync(GlusterServer.Url("nosuch", "a"), "raw"));
        Assert.Equal(DiskImageErrorKind.Io, volume.Kind);
        await Images.CreateAsync(GlusterServer.Url(GlusterServer.Distributed, "f.raw"), "raw", "size=1M");
        await using BlockNode disk = await Images.OpenAsync(
            """
            json:{"driver":"gluster","volume":"dist","path":"f.raw","server":[
            {"type":"inet","host":"127.0.0.1","port":"1"},{"type":"inet","host":"127.0.0.1","port":"24007"}]}
            """.ReplaceLineEndings(""), "raw");
        Assert.Equal(1 << 20, disk.Length);
    }

    private static async Task RequireAsync(string program, params string[] arguments)
    {
        (int code, string output, string errors) = await Programs.TryAsync(program, arguments);
        Assert.True(code == 0, $"{program} {string.Join(' ', arguments)}: {output}{errors}");
    }
}
