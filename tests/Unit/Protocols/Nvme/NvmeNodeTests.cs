using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Protocols.Nvme;
using DiskImage.Tests.Conformance;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Protocols.Nvme;

/// <summary>A namespace with blocks of 512 bytes keeps the contract of nodes.</summary>
public sealed class NvmeNodeTests : NodeConformance
{
    private protected override async Task<BlockNode> MakeAsync(byte[] contents, bool writable)
    {
        var fake = new FakeNvme { IsDelayed = true };
        fake.Namespaces[1] = new FakeNamespace([.. contents], 9);
        return await NvmeTalk.OpenAsync(fake, writable: writable);
    }
}

/// <summary>What tests of controllers do.</summary>
internal static class NvmeTalk
{
    public static NvmeTiming Quick { get; } = new(
        TimeSpan.FromSeconds(20), TimeSpan.FromMilliseconds(20), TimeSpan.FromMilliseconds(500), TimeSpan.FromSeconds(5));

    /// <summary>For controllers that do not answer.</summary>
    public static NvmeTiming Impatient { get; } = new(
        TimeSpan.FromMilliseconds(300), TimeSpan.FromMilliseconds(10), TimeSpan.FromMilliseconds(100), TimeSpan.FromMilliseconds(100));

    public static FakeNvme Controller(int shift = 9, int blocks = 4096, int namespaces = 1)
    {
        var fake = new FakeNvme();
        for (uint number = 1; number <= namespaces; number++)
        {
            fake.Namespaces[number] = new FakeNamespace(new byte[(long)blocks << shift], shift);
        }
        return fake;
    }

    public static async Task<BlockNode> OpenAsync(
        FakeNvme fake, uint number = 1, bool writable = true, NvmeControllers? controllers = null, NvmeTiming? timing = null)
    {
        var driver = new NvmeDriver(controllers ?? new NvmeControllers(fake, timing ?? Quick));
        var context = new ProtocolOpenContext(driver.Bind(driver.Parse($"nvme://{FakeNvme.Address}/{number}")))
        {
            Access = Access.To(writable, besideWriters: false),
        };
        return await driver.OpenAsync(context, CancellationToken.None);
    }

    /// <summary>What opening it fails with.</summary>
    public static async Task<DiskImageException> RefusedAsync(FakeNvme fake, uint number = 1, bool writable = true, NvmeTiming? timing = null)
        => await Assert.ThrowsAsync<DiskImageException>(() => OpenAsync(fake, number, writable, timing: timing));
}

/// <summary>What is sent to a controller that does as it should.</summary>
public sealed class NvmeTests
{
    [Theory]
    [InlineData(9, 0, 64, true, false)]
    [InlineData(12, 0, 64, true, true)]
    [InlineData(9, 1, 2, false, false)]
    [InlineData(12, 3, 3, false, true)]
    [InlineData(10, 5, 5, true, true)]
    public async Task Bytes_come_and_go_whatever_the_controller_is_like(int shift, byte transfer, int entries, bool interrupts, bool delayed)
    {
        FakeNvme fake = NvmeTalk.Controller(shift, blocks: (4 << 20) >> shift);
        (fake.Entries, fake.HasInterrupts, fake.IsDelayed, fake.Stride) = ((uint)entries, interrupts, delayed, (uint)(entries % 2));
        fake.Says = data => data[77] = transfer;
        byte[] model = new byte[4 << 20];
        await using (BlockNode node = await NvmeTalk.OpenAsync(fake))
        {
            Assert.Equal(model.Length, node.Length);
            // each worker has a part of its own, so that what it reads back is known
            await Parallel.ForEachAsync(Enumerable.Range(0, 8), async (worker, token) =>
            {
                var random = new Random(worker);
                int start = worker << 19;
                for (int i = 0; i < 25; i++)
                {
                    int length = random.Next(1, random.Next(2) == 0 ? 3000 : 200_000), offset = start + random.Next((1 << 19) - length);
                    switch (random.Next(4))
                    {
                        case 0:
                            await node.WriteZeroesAsync(offset, length, cancellationToken: token);
                            model.AsSpan(offset, length).Clear();
                            break;
                        case 1:
                            byte[] read = new byte[length];
                            await node.ReadAsync(offset, read, token);
                            Assert.True(model.AsSpan(offset, length).SequenceEqual(read), $"{length} bytes at {offset}");
                            break;
                        default:
                            random.NextBytes(model.AsSpan(offset, length));
                            await node.WriteAsync(offset, model.AsMemory(offset, length), token);
                            break;
                    }
                }
            });
            await node.FlushAsync();
            Assert.Equal(model, fake.Namespaces[1].Bytes);
        }
        Assert.Empty(fake.Wrongs);
        Assert.Equal(1, fake.Opened);
        Assert.True(fake.Wraps > 1);
        int most = transfer == 0 ? 512 << 10 : 4096 << transfer;
        Assert.All(fake.Commands.Where(c => c.Opcode is 1 or 2 && c.Queue == 1), c => Assert.InRange(c.Blocks << shift, 1, most));
        Assert.Equal(["enabled", "queue deleted 0", "queue deleted 4", "shut down", "disabled", "closed"], fake.Events, StringComparer.Ordinal);
    }

    [Fact]
    public async Task A_controller_that_somebody_left_running_is_reset_first()
    {
        FakeNvme fake = NvmeTalk.Controller();
        fake.IsBorn = true;
        await (await NvmeTalk.OpenAsync(fake)).DisposeAsync();
        Assert.Equal(["disabled", "enabled"], fake.Events.Take(2), StringComparer.Ordinal);
        Assert.Empty(fake.Wrongs);
    }

    [Fact]
    public async Task Namespaces_of_a_controller_share_it_and_the_last_one_closes_it()
    {
        FakeNvme fake = NvmeTalk.Controller(namespaces: 2);
        var controllers = new NvmeControllers(fake, NvmeTalk.Quick);
        BlockNode one = await NvmeTalk.OpenAsync(fake, 1, controllers: controllers);
        await using (BlockNode two = await NvmeTalk.OpenAsync(fake, 2, controllers: controllers))
        {
            await one.WriteAsync(512, new byte[] { 1 });
            await two.WriteAsync(512, new byte[] { 2 });
            Assert.NotEqual(one.Identity, two.Identity);
            await one.DisposeAsync();
            await one.DisposeAsync();
            Assert.DoesNotContain("closed", fake.Events, StringComparer.Ordinal);
            byte[] read = new byte[1];
            await two.ReadAsync(512, read);
            Assert.Equal(2, read[0]);
        }
        Assert.Equal("closed", fake.Events[^1]);
        Assert.Equal((1, 1, 2), (fake.Opened, fake.Namespaces[1].Bytes[512], fake.Namespaces[2].Bytes[512]));
        await (await NvmeTalk.OpenAsync(fake, 2, controllers: controllers)).DisposeAsync();
        Assert.Equal(2, fake.Opened);
        Assert.Empty(fake.Wrongs);
    }

    [Fact]
    public async Task Zeroes_discards_and_flushes_are_sent_as_the_controller_has_them()
    {
        FakeNvme fake = NvmeTalk.Controller();
        await using (BlockNode node = await NvmeTalk.OpenAsync(fake))
        {
            await node.WriteAsync(0, Enumerable.Repeat((byte)7, 1 << 20).ToArray());
            await node.WriteZeroesAsync(512, 1024, ZeroWriteMode.KeepAllocated);
            Assert.Equal(1u, Last(8).Words[12]);
            await node.WriteZeroesAsync(512, 1024);
            Assert.Equal(1u | (1 << 25), Last(8).Words[12]);
            Assert.True(await ((IFastZero)node).TryZeroFastAsync(2048, 4096, default));
            await node.DiscardAsync(8192, 65536 + 100);
            Assert.Equal((0u, 4u), (Last(9).Words[10], Last(9).Words[11]));
            await node.WriteDurablyAsync(1 << 20, new byte[512]);
            Assert.Equal(1u << 30, Last(1).Words[12]);
            await node.FlushAsync();
            Assert.Equal(1u, Last(0).Namespace);
        }
        byte[] expected = [.. Enumerable.Repeat((byte)7, 1 << 20), .. new byte[1 << 20]];
        expected.AsSpan(512, 1024).Clear();
        expected.AsSpan(2048, 4096).Clear();
        expected.AsSpan(8192, 65536).Clear();
        Assert.Equal(expected, fake.Namespaces[1].Bytes);

        FakeCommand Last(byte opcode) => fake.Commands.Last(c => c.Queue == 1 && c.Opcode == opcode);
    }

    [Fact]
    public async Task What_a_controller_does_not_have_is_not_asked_for()
    {
        FakeNvme fake = NvmeTalk.Controller();
        fake.Says = data => (data[520], data[525]) = (0, 0);
        await using BlockNode node = await NvmeTalk.OpenAsync(fake);
        await node.WriteAsync(0, new byte[] { 1, 2, 3 });
        await node.WriteZeroesAsync(0, 2);
        await node.WriteZeroesAsync(1 << 20, 1 << 20);
        await node.DiscardAsync(0, 4096);
        await node.FlushAsync();
        Assert.False(await ((IFastZero)node).TryZeroFastAsync(0, 512, default));
        Assert.DoesNotContain(fake.Commands, c => c.Queue == 1 && c.Opcode is not (1 or 2));
        Assert.Equal([0, 0, 3], fake.Namespaces[1].Bytes[..3]);
    }

    [Fact]
    public async Task What_a_controller_says_it_has_and_refuses_is_done_another_way()
    {
        FakeNvme fake = NvmeTalk.Controller();
        fake.StatusOf = c => c is { Queue: 1, Opcode: 8 } ? 0x4002 : c is { Queue: 1, Opcode: 9 } ? 0x4001 : 0;
        Array.Fill(fake.Namespaces[1].Bytes, (byte)9);
        await using BlockNode node = await NvmeTalk.OpenAsync(fake);
        for (int i = 0; i < 2; i++)
        {
            await node.WriteZeroesAsync(0, 1 << 20);
            await node.DiscardAsync(1 << 20, 4096);
        }
        Assert.Equal((1, 1), (fake.Commands.Count(c => c is { Queue: 1, Opcode: 8 }), fake.Commands.Count(c => c is { Queue: 1, Opcode: 9 })));
        Assert.True(fake.Namespaces[1].Bytes.AsSpan(0, 1 << 20).IndexOfAnyExcept((byte)0) < 0);
        Assert.Equal(9, fake.Namespaces[1].Bytes[1 << 20]);
    }

    [Fact]
    public async Task A_new_image_is_written_into_a_namespace()
    {
        FakeNvme fake = NvmeTalk.Controller();
        Array.Fill(fake.Namespaces[1].Bytes, (byte)5);
        var driver = new NvmeDriver(new NvmeControllers(fake, NvmeTalk.Quick));
        string url = $"nvme://{FakeNvme.Address}/1";
        StoragePlace place = await driver.LookAsync(url, TargetMode.New, CancellationToken.None);
        Assert.Equal(TargetMode.InPlace, place.Mode);
        await using PendingNode made = await driver.BeginAsync(place, new StorageTraits(), CancellationToken.None);
        await made.Node.ResizeAsync(1 << 20);
        await made.Node.WriteAsync(1000, new byte[] { 8, 8 });
        await made.Node.FlushAsync();
        await using (BlockNode again = await made.OpenAsync(writable: false, CancellationToken.None))
        {
            byte[] read = new byte[4];
            await again.ReadAsync(999, read);
            Assert.Equal([0, 8, 8, 0], read);
        }
        Assert.DoesNotContain((byte)5, fake.Namespaces[1].Bytes[..(1 << 20)]);
        Assert.DoesNotContain(fake.Namespaces[1].Bytes[(1 << 20)..], b => b != 5); // what lies behind the image is no part of it
        Assert.Empty(fake.Wrongs);
    }

    [Fact]
    public async Task Without_permission_a_namespace_is_only_read()
    {
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(
            () => Images.OpenAsync("nvme://ffff:ff:1f.7/1", "raw", writable: true));
        Assert.Equal(DiskImageErrorKind.ReadOnly, error.Kind);
        Assert.Contains(error.Wording.Remedies, r => r.Kind == RemedyKind.AllowDeviceWrite);
    }

    [Theory]
    [InlineData("nvme://0000:44:00.0/1", "nvme://0000:44:00.0/1")]
    [InlineData("nvme://0000:AB:1F.7/4294967294", "nvme://0000:ab:1f.7/4294967294")]
    [InlineData("NVME://10000:00:00.0/01", "nvme://10000:00:00.0/1")]
    public void A_text_leads_to_one_name(string text, string name)
    {
        var driver = new NvmeDriver(NvmeControllers.Current);
        Assert.Equal(name, driver.NameOf(driver.Bind(driver.Parse(text))));
    }

    [Theory]
    [InlineData("nvme://")]
    [InlineData("nvme://0000:44:00.0")]
    [InlineData("nvme://0000:44:00.0/")]
    [InlineData("nvme://0000:44:00.0/0")]
    [InlineData("nvme://0000:44:00.0/-1")]
    [InlineData("nvme://0000:44:00.0/4294967295")]
    [InlineData("nvme://0000:44:00.0/1/2")]
    [InlineData("nvme://44:00.0/1")]
    [InlineData("nvme://0000:44:20.0/1")]
    [InlineData("nvme://0000:44:00.8/1")]
    [InlineData("nvme://../../x/1")]
    [InlineData("nvme://0000:44:00.0\n/1")]
    public void What_is_no_namespace_is_refused(string text)
    {
        var driver = new NvmeDriver(NvmeControllers.Current);
        Assert.Equal(DiskImageErrorKind.InvalidOption, Assert.Throws<DiskImageException>(() => driver.Bind(driver.Parse(text))).Kind);
    }

    [Fact]
    public void The_options_are_those_of_QEMU()
    {
        var driver = new NvmeDriver(NvmeControllers.Current);
        Assert.Equal("nvme://0000:44:00.0/2", driver.NameOf(driver.Bind([new("device", "0000:44:00.0"), new("namespace", "2")])));
        Assert.Throws<DiskImageException>(() => driver.Bind([new("device", "0000:44:00.0")]));
        Assert.Throws<DiskImageException>(() => driver.Bind([new("namespace", "2")]));
    }
}
