using DiskImage.Block;
using DiskImage.Protocols.Nvme;

namespace DiskImage.Tests.Protocols.Nvme;

/// <summary>Controllers that fail, that lie, and that say nothing any more.</summary>
public sealed class NvmeFaultTests
{
    [Theory]
    [InlineData(2, 0x4281, DiskImageErrorKind.Io, "unrecovered read error")]
    [InlineData(2, 0x4286, DiskImageErrorKind.AccessDenied, "access denied")]
    [InlineData(1, 0x4280, DiskImageErrorKind.WriteFailed, "write fault")]
    [InlineData(1, 0x4081, DiskImageErrorKind.NoSpace, "capacity exceeded")]
    [InlineData(1, 0x4020, DiskImageErrorKind.ReadOnly, "write-protected")]
    [InlineData(1, 0x4182, DiskImageErrorKind.ReadOnly, "read only")]
    [InlineData(1, 0x4083, DiskImageErrorKind.Locked, "reservation")]
    [InlineData(1, 0x47C1, DiskImageErrorKind.WriteFailed, "vendor specific status 0xc1")]
    [InlineData(2, 0x4302, DiskImageErrorKind.Io, "path related")]
    [InlineData(8, 0x4080, DiskImageErrorKind.WriteFailed, "out of range")]
    [InlineData(9, 0x4006, DiskImageErrorKind.WriteFailed, "internal error")]
    public async Task A_command_that_fails_says_where_and_why(byte opcode, int status, DiskImageErrorKind kind, string words)
    {
        FakeNvme fake = NvmeTalk.Controller();
        fake.StatusOf = c => c.Queue == 1 && c.Opcode == opcode ? status : 0;
        await using BlockNode node = await NvmeTalk.OpenAsync(fake);
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(async () => await (opcode switch
        {
            1 => node.WriteAsync(4096, new byte[512]),
            2 => node.ReadAsync(4096, new byte[512]),
            8 => node.WriteZeroesAsync(4096, 512),
            _ => node.DiscardAsync(4096, 512),
        }));
        Assert.Equal(kind, error.Kind);
        Assert.Contains(words, error.Message, StringComparison.Ordinal);
        Assert.Contains("(LBA 8)", error.Message, StringComparison.Ordinal);
        Assert.Equal(4096, error.Offset);
        Assert.Equal(1, fake.Commands.Count(c => c.Queue == 1 && c.Opcode == opcode));
        fake.StatusOf = _ => 0;
        await node.ReadAsync(4096, new byte[512]); // one command failed, not the controller
    }

    [Fact]
    public async Task What_may_go_well_next_time_is_tried_once_more()
    {
        FakeNvme fake = NvmeTalk.Controller();
        int fails = 1;
        fake.StatusOf = c => c is { Queue: 1, Opcode: 2 } && fails-- > 0 ? 0x0082 : 0;
        await using BlockNode node = await NvmeTalk.OpenAsync(fake);
        await node.ReadAsync(0, new byte[512]);
        Assert.Equal(2, fake.Commands.Count(c => c is { Queue: 1, Opcode: 2 }));
        fails = 9;
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(async () => await node.ReadAsync(0, new byte[512]));
        Assert.Contains("namespace not ready", error.Message, StringComparison.Ordinal);
        Assert.Equal(4, fake.Commands.Count(c => c is { Queue: 1, Opcode: 2 }));
    }

    [Fact]
    public async Task A_flush_that_fails_ends_writing_and_not_reading()
    {
        FakeNvme fake = NvmeTalk.Controller();
        await using BlockNode node = await NvmeTalk.OpenAsync(fake);
        await node.WriteAsync(0, new byte[512]);
        fake.StatusOf = c => c is { Queue: 1, Opcode: 0 } ? 0x4280 : 0;
        Assert.Contains("write fault", (await Assert.ThrowsAsync<DiskImageException>(async () => await node.FlushAsync())).Message,
            StringComparison.Ordinal);
        fake.StatusOf = _ => 0;
        await Assert.ThrowsAsync<DiskImageException>(async () => await node.WriteAsync(0, new byte[512]));
        await Assert.ThrowsAsync<DiskImageException>(async () => await node.FlushAsync());
        await node.ReadAsync(0, new byte[512]);
    }

    [Theory]
    [InlineData("silent", "did not answer command 0x02")]
    [InlineData("fatal", "CSTS.CFS")]
    [InlineData("gone", "all its registers read as ones")]
    [InlineData("unknown", "not under way")]
    [InlineData("turn", "not under way")]
    [InlineData("twice", "not under way")]
    [InlineData("queue", "keep to the rules")]
    [InlineData("head", "keep to the rules")]
    public async Task A_controller_that_does_not_do_as_it_must_is_given_up_for_good(string what, string words)
    {
        FakeNvme fake = NvmeTalk.Controller();
        var controllers = new NvmeControllers(fake, NvmeTalk.Impatient);
        BlockNode node = await NvmeTalk.OpenAsync(fake, controllers: controllers);
        static bool IsRead(FakeCommand c) => c is { Queue: 1, Opcode: 2 };
        switch (what)
        {
            case "silent":
                fake.IsSilent = IsRead;
                break;
            case "fatal":
                fake.IsFatal = IsRead;
                break;
            case "gone":
                fake.IsSilent = IsRead;
                fake.IsGone = true;
                break;
            default:
                fake.Post = (c, e) => !IsRead(c) ? [e] : what switch
                {
                    "unknown" => [(e.About, e.Last | 0xFF)],
                    "turn" => [(e.About, e.Last ^ 0x8000)],
                    "twice" => [e, e],
                    "queue" => [(e.About ^ 0x70000, e.Last)],
                    _ => [(e.About | 0xFF00, e.Last)],
                };
                break;
        }
        // with an answer that comes twice, the first is a good one
        var errors = new List<DiskImageException>();
        for (int i = 0; i < 3; i++)
        {
            try
            {
                await Task.WhenAll(Enumerable.Range(0, 20).Select(async k => await node.ReadAsync(k * 512, new byte[512])))
                    .WaitAsync(TimeSpan.FromSeconds(60));
            }
            catch (DiskImageException e)
            {
                errors.Add(e);
            }
        }
        Assert.True(errors.Count >= 2);
        Assert.All(errors, e => Assert.Contains(words, e.Message, StringComparison.Ordinal));
        DiskImageException later = await Assert.ThrowsAsync<DiskImageException>(async () => await node.WriteAsync(0, new byte[512]));
        Assert.Contains(words, later.Message, StringComparison.Ordinal);
        Assert.Contains(words, (await Assert.ThrowsAsync<DiskImageException>(
            () => NvmeTalk.OpenAsync(fake, controllers: controllers))).Message, StringComparison.Ordinal);
        await node.DisposeAsync().AsTask().WaitAsync(TimeSpan.FromSeconds(60));
        Assert.Equal("closed", fake.Events[^1]);
        // what is reset is as good as new
        (fake.IsGone, fake.IsSilent, fake.IsFatal, fake.Post) = (false, _ => false, _ => false, (_, e) => [e]);
        await using BlockNode again = await NvmeTalk.OpenAsync(fake, controllers: controllers);
        await again.ReadAsync(0, new byte[512]);
    }

    [Theory]
    [InlineData("gone", DiskImageErrorKind.Io, "read as ones")]
    [InlineData("never ready", DiskImageErrorKind.Io, "does not become ready within 0.2 s")]
    [InlineData("never stops", DiskImageErrorKind.Io, "does not stop within")]
    [InlineData("entries", DiskImageErrorKind.Corrupt, "one entry")]
    [InlineData("stride", DiskImageErrorKind.Corrupt, "doorbells are 131,072 bytes apart")]
    [InlineData("commands", DiskImageErrorKind.Unsupported, "NVM command set")]
    [InlineData("pages", DiskImageErrorKind.Unsupported, "pages of 2^16 bytes")]
    [InlineData("queue entries", DiskImageErrorKind.Unsupported, "entries of 128 and 16 bytes")]
    [InlineData("shift 0", DiskImageErrorKind.Unsupported, "2^0 bytes")]
    [InlineData("shift 63", DiskImageErrorKind.Unsupported, "2^63 bytes")]
    [InlineData("shift 16", DiskImageErrorKind.Unsupported, "2^16 bytes")]
    [InlineData("metadata", DiskImageErrorKind.Unsupported, "8 bytes of metadata")]
    [InlineData("protection", DiskImageErrorKind.Unsupported, "protection information of type 1")]
    [InlineData("blocks", DiskImageErrorKind.Corrupt, "18,446,744,073,709,551,615 blocks")]
    [InlineData("format", DiskImageErrorKind.Corrupt, "format 15 of formats 0 to 0")]
    [InlineData("no blocks", DiskImageErrorKind.NotFound, "no active namespace 1. It has: 1")]
    [InlineData("identify", DiskImageErrorKind.Io, "internal error")]
    [InlineData("queues", DiskImageErrorKind.Io, "invalid size of a queue")]
    public async Task What_cannot_be_driven_is_refused_by_name(string what, DiskImageErrorKind kind, string words)
    {
        FakeNvme fake = NvmeTalk.Controller();
        FakeNamespace space = fake.Namespaces[1];
        switch (what)
        {
            case "gone": fake.IsGone = true; break;
            case "never ready": fake.NeverReady = true; break;
            case "never stops": (fake.IsBorn, fake.NeverStops) = (true, true); break;
            case "entries": fake.Entries = 1; break;
            case "stride": fake.Stride = 15; break;
            case "commands": fake.CapabilitiesHigh = 1 << 12; break;
            case "pages": fake.CapabilitiesHigh |= 4 << 16; break;
            case "queue entries": fake.Says = d => d[512] = 0x77; break;
            case "shift 0": space.Says = d => d[130] = 0; break;
            case "shift 63": space.Says = d => d[130] = 63; break;
            case "shift 16": space.Says = d => d[130] = 16; break;
            case "metadata": space.Says = d => d[128] = 8; break;
            case "protection": space.Says = d => d[29] = 1; break;
            case "blocks": space.Says = d => d.AsSpan(0, 8).Fill(0xFF); break;
            case "format": space.Says = d => d[26] = 15; break;
            case "no blocks": space.Says = d => d.AsSpan(0, 8).Clear(); break;
            case "identify": fake.StatusOf = c => c is { Queue: 0, Opcode: 6 } ? 0x4006 : 0; break;
            default: fake.StatusOf = c => c is { Queue: 0, Opcode: 1 } ? 0x4102 : 0; break;
        }
        DiskImageException error = await NvmeTalk.RefusedAsync(fake, timing: NvmeTalk.Impatient).WaitAsync(TimeSpan.FromSeconds(60));
        Assert.Equal(kind, error.Kind);
        Assert.Contains(words, error.Message, StringComparison.Ordinal);
        Assert.Equal("closed", fake.Events[^1]);
    }

    [Fact]
    public async Task A_namespace_that_is_not_there_is_told_with_those_that_are()
    {
        FakeNvme fake = NvmeTalk.Controller(namespaces: 3);
        fake.Namespaces.Remove(2);
        DiskImageException error = await NvmeTalk.RefusedAsync(fake, 2);
        Assert.Equal(DiskImageErrorKind.NotFound, error.Kind);
        Assert.Contains("It has: 1, 3.", error.Message, StringComparison.Ordinal);
        for (uint number = 4; number < 1000; number++)
        {
            fake.Namespaces[number] = fake.Namespaces[1];
        }
        Assert.True((await NvmeTalk.RefusedAsync(fake, 2)).Message.Length < 300);
    }

    [Fact]
    public async Task A_namespace_that_is_write_protected_is_only_read()
    {
        FakeNvme fake = NvmeTalk.Controller();
        fake.Namespaces[1].Says = d => d[99] = 1;
        Assert.Equal(DiskImageErrorKind.ReadOnly, (await NvmeTalk.RefusedAsync(fake)).Kind);
        await using BlockNode node = await NvmeTalk.OpenAsync(fake, writable: false);
        await node.ReadAsync(0, new byte[512]);
    }

    [Fact]
    public async Task A_read_that_is_given_up_leaves_its_memory_to_the_controller_and_a_write_is_waited_for()
    {
        FakeNvme fake = NvmeTalk.Controller();
        var held = new List<FakeCommand>();
        fake.IsSilent = c =>
        {
            if (c.Queue == 1)
            {
                held.Add(c);
            }
            return c.Queue == 1;
        };
        var controllers = new NvmeControllers(fake, NvmeTalk.Impatient);
        BlockNode node = await NvmeTalk.OpenAsync(fake, controllers: controllers);
        using var stop = new CancellationTokenSource();
        Task read = node.ReadAsync(0, new byte[512], stop.Token).AsTask();
        Task write = node.WriteAsync(0, new byte[512], stop.Token).AsTask();
        await stop.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => read.WaitAsync(TimeSpan.FromSeconds(60)));
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(() => write.WaitAsync(TimeSpan.FromSeconds(60)));
        Assert.Contains("did not answer", error.Message, StringComparison.Ordinal);
        Assert.Equal(2, held.Count);
        // what was written may be lost, and closing says so
        await Assert.ThrowsAsync<DiskImageException>(async () => await node.DisposeAsync());
        Assert.Equal("closed", fake.Events[^1]);
        // reads that are given up and answered later leave room for others
        (fake.IsSilent, fake.IsDelayed) = (_ => false, true);
        await using BlockNode again = await NvmeTalk.OpenAsync(fake, controllers: controllers);
        for (int i = 0; i < 100; i++)
        {
            using var soon = new CancellationTokenSource(TimeSpan.FromMilliseconds(i % 3));
            try
            {
                await again.ReadAsync(512, new byte[512], soon.Token);
            }
            catch (OperationCanceledException)
            {
                continue;
            }
        }
        fake.Namespaces[1].Bytes[512] = 77;
        byte[] got = new byte[1];
        await again.ReadAsync(512, got);
        Assert.Equal(77, got[0]);
        Assert.Empty(fake.Wrongs);
    }

    [Fact]
    public async Task A_controller_that_is_given_up_as_soon_as_it_is_ready_can_be_opened_again()
    {
        int refused = 0;
        for (int i = 0; i < 300; i++)
        {
            FakeNvme fake = NvmeTalk.Controller();
            fake.Post = (c, e) => c is { Queue: 0, Opcode: 1 } ? [e, e] : [e]; // one answer too many to the last command of its start
            var controllers = new NvmeControllers(fake, NvmeTalk.Impatient);
            try
            {
                BlockNode node = await NvmeTalk.OpenAsync(fake, controllers: controllers);
                await node.DisposeAsync();
            }
            catch (DiskImageException)
            {
                refused++;
            }
            Assert.Equal("closed", fake.Events[^1]);
            fake.Post = (_, e) => [e];
            await using BlockNode again = await NvmeTalk.OpenAsync(fake, controllers: controllers);
            await again.ReadAsync(0, new byte[512]);
        }
        Assert.NotEqual(0, refused);
    }

    /// <summary>A sample; as many controllers as DISKIMAGE_NVME_MUTATIONS says.</summary>
    [Fact]
    public async Task Whatever_a_controller_says_nothing_but_an_error_comes_of_it()
    {
        int opened = 0, count = Environment.GetEnvironmentVariable("DISKIMAGE_NVME_MUTATIONS") is { Length: > 0 } text
            ? int.Parse(text, System.Globalization.CultureInfo.InvariantCulture)
            : 120;
        await Parallel.ForAsync(0, count, new ParallelOptions { MaxDegreeOfParallelism = 64 }, async (seed, _) =>
        {
            if (await OpensAsync(new Random(seed)))
            {
                Interlocked.Increment(ref opened);
            }
        });
        Assert.InRange(opened, count / 12, count - 1);
    }

    private static async Task<bool> OpensAsync(Random random)
    {
        FakeNvme fake = NvmeTalk.Controller(random.Next(2) == 0 ? 9 : 12);
        fake.Timeout = 1;
        void Hurt(byte[] data)
        {
            for (int i = random.Next(6); i > 0; i--)
            {
                data[random.Next(3) switch { 0 => random.Next(200), 1 => random.Next(500, 540), _ => random.Next(4096) }] = (byte)random.Next(256);
            }
        }
        fake.Says = Hurt;
        fake.Namespaces[1].Says = Hurt;
        fake.Post = (_, e) => random.Next(40) switch
        {
            0 => [(e.About ^ (1u << random.Next(32)), e.Last)],
            1 => [(e.About, e.Last ^ (1u << random.Next(32)))],
            2 => [e, e],
            3 => [],
            _ => [e],
        };
        bool isOpened = false;
        try
        {
            await Task.Run(async () =>
            {
                await using BlockNode node = await NvmeTalk.OpenAsync(fake, timing: NvmeTalk.Impatient with
                {
                    Command = TimeSpan.FromMilliseconds(60), ReadyUnit = TimeSpan.FromMilliseconds(20),
                });
                isOpened = true;
                byte[] data = new byte[20_000];
                for (int i = 0; i < 20; i++)
                {
                    await node.WriteAsync(i * 1000, data);
                    await node.ReadAsync(i * 500, data);
                    await node.WriteZeroesAsync(i * 512, 4096);
                }
                await node.FlushAsync();
            }).WaitAsync(TimeSpan.FromSeconds(60));
        }
        catch (DiskImageException)
        {
            // as it should
        }
        Assert.Equal("closed", fake.Events[^1]);
        return isOpened;
    }
}
