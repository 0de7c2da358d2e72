using DiskImage.Block;
using DiskImage.Graph;
using DiskImage.Jobs;
using DiskImage.Protocols.Nbd;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Protocols.Nbd;

/// <summary>Our client with other people's servers.</summary>
public sealed class NbdOracleTests : IDisposable
{
    private readonly TestFolder _folder = new();

    private string Socket => _folder["s"];

    public void Dispose() => _folder.Dispose();

    private string Uri(string export = "", string more = "") => $"nbd+unix:///{export}?socket={Socket}{more}";

    private Task<NbdProcess> NbdkitAsync(params string[] arguments)
        => NbdProcess.StartAsync("nbdkit", Socket, ["--foreground", "--unix", Socket, .. arguments]);

    private Task<NbdProcess> QemuNbdAsync(params string[] arguments)
        => NbdProcess.StartAsync("qemu-nbd", Socket, ["--persistent", "--socket", Socket, "--aio=threads", .. arguments]);

    private static async Task<OpenedImage> OpenAsync(string locator, bool writable = false)
        => await Images.Opener.OpenAsync(new OpenRequest(locator) { Format = "raw", Writable = writable }, CancellationToken.None);

    private async Task<byte[]> MakeAsync(string name, int length = 3 << 20, int seed = 5)
    {
        byte[] contents = new byte[length];
        new Random(seed).NextBytes(contents.AsSpan(length / 3, length / 3));
        await Images.WriteSparseAsync(_folder[name], contents);
        return contents;
    }

    /// <summary>The extents cover the disk, and what they say is zero reads so.</summary>
    private static async Task<List<BlockExtent>> MapAsync(BlockNode disk, byte[] model)
    {
        var extents = new List<BlockExtent>();
        for (long at = 0; at < disk.Length; at = extents[^1].End)
        {
            extents.Add(await disk.GetExtentAsync(at, disk.Length - at));
            Assert.True(!extents[^1].IsZero || !model.AsSpan((int)at, (int)extents[^1].Length).ContainsAnyExcept((byte)0));
        }
        return extents;
    }

    [OracleTheory("nbdkit")]
    [InlineData("memory 3M")]
    [InlineData("--filter=nozero memory 3M zeromode=none")]
    [InlineData("--filter=nocache --filter=nofilter memory 3M")]
    [InlineData("--filter=noextents memory 3M")]
    [InlineData("--filter=blocksize-policy memory 3M blocksize-minimum=4096 blocksize-preferred=65536 blocksize-maximum=128K blocksize-error-policy=error")]
    [InlineData("--filter=delay memory 3M delay-read=1ms delay-write=1ms")]
    [InlineData("--filter=rate memory 3M rate=400M")]
    [InlineData("--mask-handshake=0 memory 3M")]
    [InlineData("--mask-handshake=1 memory 3M")]
    [InlineData("--no-sr memory 3M")]
    public async Task Nbdkit_keeps_what_is_written(string arguments)
    {
        string[] parts = [.. arguments.Split(' ').Where(a => a != "--filter=nofilter")];
        await using NbdProcess server = await NbdkitAsync(parts);
        await using OpenedImage image = await OpenAsync(Uri(), writable: true);
        byte[] model = new byte[3 << 20];
        Assert.Equal(model.Length, image.Node.Length);
        await RandomRequests.ExerciseAsync(image.Node, model, seed: arguments.Length);
        List<BlockExtent> extents = await MapAsync(image.Node, model);
        Assert.Equal(!arguments.Contains("noextents") && !arguments.Contains("no-sr")
            && !arguments.Contains("mask-handshake=0"), extents.Count > 1);
    }

    [OracleFact("nbdkit")]
    public async Task A_file_that_nbdkit_serves_is_written_and_the_server_ends_when_we_have_gone()
    {
        byte[] model = await MakeAsync("disk.raw");
        await using NbdProcess server = await NbdkitAsync("--filter=exitlast", "file", _folder["disk.raw"]);
        await using (OpenedImage image = await OpenAsync(Uri(), writable: true))
        {
            Assert.Equal(3, (await MapAsync(image.Node, model)).Count);
            await RandomRequests.ExerciseAsync(image.Node, model, seed: 11);
            await image.Node.DiscardAsync(0, 1 << 20);
            await image.Node.WriteAsync(0, model.AsMemory(0, 1 << 20));
        }
        Assert.Equal(0, await server.EndAsync());
        Assert.True((await File.ReadAllBytesAsync(_folder["disk.raw"])).AsSpan().SequenceEqual(model));
    }

    /// <summary>Read only: to a client of the oldest handshake this nbdkit answers every change with EINVAL, also QEMU's.</summary>
    [OracleFact("nbdkit")]
    public async Task An_oldstyle_server_is_read()
    {
        await using NbdProcess server = await NbdkitAsync("--oldstyle", "--read-only", "pattern", "1M");
        await using OpenedImage image = await OpenAsync(Uri());
        byte[] all = new byte[1 << 20];
        await image.Node.ReadAsync(0, all);
        Assert.All(
            Enumerable.Range(0, all.Length / 8),
            i => Assert.Equal(8 * i, System.Buffers.Binary.BinaryPrimitives.ReadInt64BigEndian(all.AsSpan(8 * i))));
    }

    [OracleFact("nbdkit")]
    public async Task Nbdkits_errors_are_ours_by_kind()
    {
        foreach ((string error, DiskImageErrorKind kind) in new[]
        {
            ("EPERM", DiskImageErrorKind.AccessDenied), ("EIO", DiskImageErrorKind.WriteFailed), ("ENOSPC", DiskImageErrorKind.NoSpace),
            ("EINVAL", DiskImageErrorKind.Io), ("ENOMEM", DiskImageErrorKind.Io),
        })
        {
            await using (NbdProcess server = await NbdkitAsync(
                "--filter=error", "memory", "1M", $"error={error}", "error-pwrite-rate=100%", "error-pread-rate=0", "error-zero-rate=0"))
            {
                await using OpenedImage image = await OpenAsync(Uri(), writable: true);
                var e = await Assert.ThrowsAsync<DiskImageException>(async () => await image.Node.WriteAsync(512, new byte[512]));
                Assert.True(kind == e.Kind, $"{error}: {e}");
                await image.Node.ReadAsync(0, new byte[4096]); // the connection is as good as before
            }
            File.Delete(Socket);
        }
    }

    [OracleFact("nbdkit")]
    public async Task Many_reads_are_under_way_at_once_on_several_connections()
    {
        await using NbdProcess server = await NbdkitAsync(
            "--filter=stats", "--filter=delay", "data", "data=1 @1048575 2", "delay-read=50ms", $"statsfile={_folder["stats"]}");
        await using OpenedImage image = await OpenAsync(Uri());
        long start = Environment.TickCount64;
        await Task.WhenAll(Enumerable.Range(0, 40).Select(i => image.Node.ReadAsync(i * 4096, new byte[4096]).AsTask()));
        Assert.True(Environment.TickCount64 - start < 40 * 50, "one after the other");
        byte[] last = new byte[1];
        await image.Node.ReadAsync(1048575, last);
        Assert.Equal(2, last[0]);
    }

    [OracleFact("qemu-nbd")]
    public async Task QemuNbd_keeps_what_is_written_and_compares_identical()
    {
        byte[] model = await MakeAsync("disk.raw");
        await Programs.QemuImgAsync("convert", "-f", "raw", "-O", "qcow2", _folder["disk.raw"], _folder["disk.qcow2"]);
        await using (NbdProcess server = await QemuNbdAsync("--format=qcow2", "--export-name=a b", "--shared=4", _folder["disk.qcow2"]))
        {
            await using OpenedImage image = await OpenAsync(Uri("a%20b"), writable: true);
            Assert.Equal(3, (await MapAsync(image.Node, model)).Count);
            await RandomRequests.ExerciseAsync(image.Node, model, seed: 3);
            await image.Node.DiscardAsync(0, 1 << 20);
            await image.Node.WriteAsync(0, model.AsMemory(0, 1 << 20));
        }
        await File.WriteAllBytesAsync(_folder["expected.raw"], model);
        await Programs.CompareAsync(_folder["disk.qcow2"], "qcow2", _folder["expected.raw"], "raw");
    }

    [OracleFact("qemu-nbd")]
    public async Task QemuNbds_bitmaps_show_as_what_is_no_data()
    {
        await MakeAsync("disk.raw");
        await Programs.QemuImgAsync("convert", "-f", "raw", "-O", "qcow2", _folder["disk.raw"], _folder["disk.qcow2"]);
        await Programs.QemuImgAsync("bitmap", "--add", "-f", "qcow2", _folder["disk.qcow2"], "day");
        await Programs.RunAsync("qemu-io", "-f", "qcow2", "-c", "write 128k 64k", _folder["disk.qcow2"]);
        await using NbdProcess server = await QemuNbdAsync("--format=qcow2", "--read-only", "--shared=2", "--bitmap=day", _folder["disk.qcow2"]);
        string locator = $$"""json:{"driver":"nbd","server.type":"unix","server.path":"{{Socket}}","x-dirty-bitmap":"qemu:dirty-bitmap:day"}""";
        await using OpenedImage image = await OpenAsync(locator);
        var dirty = new List<(long, long)>();
        for (long at = 0; at < image.Node.Length;)
        {
            BlockExtent extent = await image.Node.GetExtentAsync(at, image.Node.Length - at);
            if (!extent.IsData)
            {
                dirty.Add((extent.Offset, extent.Length));
            }
            at = extent.End;
        }
        Assert.Equal([(128 << 10, 64 << 10)], dirty);
        var e = await Assert.ThrowsAsync<DiskImageException>(() => OpenAsync(locator.Replace("map:day", "map:week")));
        Assert.Equal(DiskImageErrorKind.NotFound, e.Kind);
    }

    [OracleTheory("qemu-nbd")]
    [InlineData("raw", 2)]
    [InlineData("qcow2", 2)]
    public async Task An_image_is_converted_into_an_export_that_had_other_bytes(string format, int factor)
    {
        byte[] model = await MakeAsync("disk.raw", 2 << 20);
        byte[] other = new byte[factor * model.Length];
        new Random(9).NextBytes(other);
        await File.WriteAllBytesAsync(_folder["there.raw"], other);
        await using NbdProcess server = await QemuNbdAsync("--format=raw", "--shared=0", _folder["there.raw"]);
        await using OpenedImage source = await OpenAsync(_folder["disk.raw"]);
        object options = ((DiskImage.Drivers.ICreatable)Images.Registry.Format(format)).CreateOptions.Bind(
            [new("size", (long)model.Length)]);
        var creator = new ImageCreator(Images.Opener);
        var refused = await Assert.ThrowsAsync<DiskImageException>(async () => await creator.CreateAsync(
            Uri(), Images.Registry.Format(format), options, replace: true, null, CancellationToken.None));
        Assert.Equal(DiskImageErrorKind.AlreadyExists, refused.Kind);
        await using (NewImage made = await creator.CreateAsync(
            Uri(), Images.Registry.Format(format), options, DiskImage.Drivers.TargetMode.InPlace, null, CancellationToken.None))
        {
            await new ConvertJob(source.Node, made.Node, new ConvertOptions()).RunAsync(null, CancellationToken.None);
            await made.CompleteAsync(durable: true, CancellationToken.None);
        }
        if (format == "raw")
        {
            byte[] there = await File.ReadAllBytesAsync(_folder["there.raw"]);
            Assert.Equal(model, there[..model.Length]);
            Assert.Equal(other[model.Length..], there[model.Length..]); // what lies behind the image is no part of it
            return;
        }
        await Programs.QemuImgAsync("compare", "-f", "raw", "-F", format, _folder["disk.raw"], Uri());
    }

    [OracleFact("nbd-server")]
    public async Task NbdServer_keeps_what_is_written()
    {
        byte[] model = await MakeAsync("disk.raw", 2 << 20);
        int port = NbdProcess.FreePort();
        await File.WriteAllTextAsync(
            _folder["config"],
            $"""
            [generic]
            listenaddr = 127.0.0.1
            port = {port}
            allowlist = true
            [disk]
            exportname = {_folder["disk.raw"]}
            flush = true
            fua = true
            trim = false
            """);
        // where it does not fork it serves one client, and ends
        Task<NbdProcess> StartAsync() => NbdProcess.StartAsync(
            "nbd-server", port, "-d", "-C", _folder["config"], "-p", _folder["pid"]);
        foreach (string locator in new[] { $"nbd://127.0.0.1:{port}/disk", $"nbd:127.0.0.1:{port}:exportname=disk" })
        {
            await using NbdProcess server = await StartAsync();
            await using OpenedImage image = await OpenAsync(locator, writable: true);
            await RandomRequests.ExerciseAsync(image.Node, model, seed: locator.Length, operations: 40);
        }
        Assert.True((await File.ReadAllBytesAsync(_folder["disk.raw"])).AsSpan().SequenceEqual(model));
        await using NbdProcess last = await StartAsync();
        Assert.Equal(
            DiskImageErrorKind.NotFound,
            (await Assert.ThrowsAsync<DiskImageException>(() => OpenAsync($"nbd://127.0.0.1:{port}/none"))).Kind);
    }

    [OracleTheory("nbdkit")]
    [InlineData("memory 1M", true)]
    [InlineData("--read-only memory 1M", false)]
    public async Task A_server_that_gives_for_reading_only_is_not_opened_for_writing(string arguments, bool writes)
    {
        await using NbdProcess server = await NbdkitAsync(arguments.Split(' '));
        if (!writes)
        {
            var e = await Assert.ThrowsAsync<DiskImageException>(() => OpenAsync(Uri(), writable: true));
            Assert.Equal(DiskImageErrorKind.ReadOnly, e.Kind);
        }
        await using OpenedImage image = await OpenAsync($"nbd:unix:{Socket}", writes);
        await image.Node.ReadAsync(0, new byte[512]);
    }

    [OracleFact("nbdkit")]
    public async Task A_cancelled_request_ends_though_the_server_is_slow()
    {
        await using NbdProcess server = await NbdkitAsync("--filter=delay", "memory", "8M", "delay-read=3", "delay-write=3");
        await using OpenedImage image = await OpenAsync(Uri(), writable: true);
        using var stop = new CancellationTokenSource();
        byte[] buffer = new byte[1 << 20];
        Task read = image.Node.ReadAsync(0, buffer, stop.Token).AsTask(), write = image.Node.WriteAsync(0, buffer, stop.Token).AsTask();
        await stop.CancelAsync();
        long start = Environment.TickCount64;
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => read);
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => write);
        buffer.AsSpan().Fill(0xa5); // ours again
        await image.Node.ReadAsync(0, new byte[512]); // the answer of the first comes before it, and is dropped
        Assert.DoesNotContain(buffer, b => b != 0xa5);
        Assert.True(Environment.TickCount64 - start < 60_000);
    }

    [OracleFact("nbdkit")]
    public async Task A_write_that_is_to_be_durable_is_one_request_and_a_range_can_be_asked_for_ahead()
    {
        string log = _folder["log"];
        await using (NbdProcess server = await NbdkitAsync("--filter=log", "memory", "8M", $"logfile={log}"))
        {
            var opener = new ImageOpener(Images.Registry, OpenPolicy.Default with { Cache = CachePolicy.Of(CacheMode.Writethrough) });
            await using OpenedImage image = await opener.OpenAsync(new OpenRequest(Uri()) { Writable = true }, CancellationToken.None);
            await image.Node.WriteAsync(4096, new byte[] { 1, 2, 3, 4 }.Concat(new byte[508]).ToArray());
            Assert.True(await image.Node.PrefetchAsync(0, 1 << 20));
            await image.Node.WriteAsync(513, new byte[] { 5 }); // no whole sector: written, then flushed
        }
        string[] lines = await File.ReadAllLinesAsync(log);
        Assert.Single(lines, l => l.Contains(" Write ", StringComparison.Ordinal) && l.Contains("offset=0x1000", StringComparison.Ordinal)
            && l.Contains("fua=1", StringComparison.Ordinal));
        Assert.Contains(lines, l => l.Contains(" Cache ", StringComparison.Ordinal) && l.Contains("count=0x100000", StringComparison.Ordinal));
        Assert.Single(lines, l => l.Contains(" Flush ", StringComparison.Ordinal));
    }

    [OracleTheory("nbdkit")]
    [InlineData("", true)]
    [InlineData("fastzeromode=none", false)] // not offered
    [InlineData("fastzeromode=slow zeromode=emulate", false)] // offered, and refused when asked for
    public async Task Zeroes_are_fast_where_the_server_says_so_and_nothing_is_done_where_it_is_not(string zeroes, bool isFast)
    {
        string[] filters = zeroes.Length > 0 ? ["--filter=nozero"] : [];
        await using NbdProcess server = await NbdkitAsync([.. filters, "memory", "8M", .. zeroes.Split(' ', StringSplitOptions.RemoveEmptyEntries)]);
        await using OpenedImage image = await OpenAsync(Uri(), writable: true);
        byte[] bytes = new byte[8192], read = new byte[8192];
        Array.Fill(bytes, (byte)7);
        await image.Node.WriteAsync(0, bytes);
        Assert.Equal(isFast, await image.Node.As<IFastZero>()!.TryZeroFastAsync(4096, 4096, CancellationToken.None));
        await image.Node.ReadAsync(0, read);
        Assert.Equal([.. bytes[..4096], .. isFast ? new byte[4096] : bytes[4096..]], read);
        await image.Node.WriteZeroesAsync(4096, 4096); // in any case, by way of what there is
        await image.Node.ReadAsync(0, read);
        Assert.Equal([.. bytes[..4096], .. new byte[4096]], read);
    }

    [OracleFact("nbdkit")]
    public async Task So_many_requests_are_under_way_and_the_others_wait_for_one_of_them()
    {
        const int Asked = 3 * NbdConnections.MostRequests;
        await using NbdProcess server = await NbdkitAsync("--filter=delay", "memory", "8M", "delay-read=3600");
        var options = (NbdOptions)new NbdDriver().Bind(new NbdDriver().Parse(Uri()));
        await using NbdConnections connections = await NbdConnections.OpenAsync(
            new NbdPlace("an export", options.Address(), Tls: null), new NbdWishes(), options, CancellationToken.None);
        int made = 0;
        CancellationTokenSource[] stops = [.. Enumerable.Range(0, Asked).Select(_ => new CancellationTokenSource())];
        Task[] requests = [.. stops.Select(stop => connections.RunAsync(
            () =>
            {
                _ = Interlocked.Increment(ref made);
                return new NbdRequest { Command = NbdCommand.Read, Length = 512, Buffer = new byte[512] };
            },
            stop.Token).AsTask())];
        Assert.True(SpinWait.SpinUntil(() => Volatile.Read(ref made) >= NbdConnections.MostRequests, TimeSpan.FromSeconds(30)));
        await Task.Delay(200);
        Assert.Equal(NbdConnections.MostRequests, made);
        await stops[0].CancelAsync();
        Assert.True(SpinWait.SpinUntil(() => Volatile.Read(ref made) > NbdConnections.MostRequests, TimeSpan.FromSeconds(30)));
        await Task.Delay(200);
        Assert.Equal(NbdConnections.MostRequests + 1, made);
        Array.ForEach(stops, stop => stop.Cancel());
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => Task.WhenAll(requests));
        Array.ForEach(stops, stop => stop.Dispose());
    }

    [OracleFact("nbdkit")]
    public async Task Opening_waits_for_a_server_as_long_as_it_is_told_to()
    {
        var gone = await Assert.ThrowsAsync<DiskImageException>(() => OpenAsync(Uri()));
        Assert.Equal(DiskImageErrorKind.NotFound, gone.Kind);
        string locator = $$"""json:{"driver":"nbd","server.type":"unix","server.path":"{{Socket}}","open-timeout":30}""";
        Task<OpenedImage> opening = Task.Run(() => OpenAsync(locator));
        await Task.Delay(200);
        Assert.False(opening.IsCompleted);
        await using NbdProcess server = await NbdkitAsync("memory", "1M");
        await using OpenedImage image = await opening;
        Assert.Equal(1 << 20, image.Node.Length);
    }
}
