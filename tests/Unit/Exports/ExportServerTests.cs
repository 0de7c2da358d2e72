using System.Net.Sockets;
using System.Text.Json;
using DiskImage.Block;
using DiskImage.Exports;
using DiskImage.Graph;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Exports;

/// <summary>Our server, judged by other people's clients.</summary>
public sealed class ExportServerTests : IDisposable
{
    private readonly TestFolder _folder = new();

    private string Uri(string export = "") => $"nbd+unix:///{export}?socket={_folder["s"]}";

    public void Dispose() => _folder.Dispose();

    private async Task<ExportServer> ServeAsync(params ExportDisk[] disks)
        => await ExportServer.StartAsync(new UnixDomainSocketEndPoint(_folder["s"]), disks, null, CancellationToken.None);

    private async Task<byte[]> MakeAsync(string name, int length = 4 << 20, int seed = 5)
    {
        byte[] contents = new byte[length];
        new Random(seed).NextBytes(contents.AsSpan(length / 4, length / 4));
        await Images.WriteSparseAsync(_folder[name], contents);
        return contents;
    }

    private async Task<OpenedImage> OpenAsync(string name, string format, bool writable = false)
        => await Images.Opener.OpenAsync(
            new OpenRequest(_folder[name]) { Format = format, Writable = writable }, CancellationToken.None);

    [OracleFact("nbdinfo")]
    public async Task Nbdinfo_lists_the_exports_and_all_there_is_to_know()
    {
        await MakeAsync("a.raw");
        await using OpenedImage image = await OpenAsync("a.raw", "raw");
        await using ExportServer server = await ServeAsync(
            new ExportDisk("first", image.Node) { Description = "the first one", IsReadOnly = true },
            new ExportDisk("zweiter ü", new MemoryNode(new byte[512])));
        using var list = JsonDocument.Parse(await Programs.RunAsync("nbdinfo", "--list", "--json", Uri()));
        Assert.Equal("newstyle-fixed", list.RootElement.GetProperty("protocol").GetString());
        JsonElement[] exports = [.. list.RootElement.GetProperty("exports").EnumerateArray()];
        Assert.Equal(["first", "zweiter ü"], exports.Select(e => e.GetProperty("export-name").GetString()), StringComparer.Ordinal);
        Assert.Equal("the first one", exports[0].GetProperty("description").GetString());
        Assert.Equal([4 << 20, 512], exports.Select(e => e.GetProperty("export-size").GetInt32()));
        Assert.Equal([true, false], exports.Select(e => e.GetProperty("is_read_only").GetBoolean()));
        Assert.All(exports, e => Assert.True(e.GetProperty("can_multi_conn").GetBoolean()));
        Assert.All(exports, e => Assert.True(e.GetProperty("can_fua").GetBoolean()));
        Assert.Equal(
            ["base:allocation", "qemu:allocation-depth"],
            exports[0].GetProperty("contexts").EnumerateArray().Select(c => c.GetString()),
            StringComparer.Ordinal);
        Assert.Equal(32 << 20, exports[0].GetProperty("block_size_maximum").GetInt32());
    }

    [OracleTheory("nbdcopy")]
    [InlineData("raw")]
    [InlineData("qcow2")]
    [InlineData("vhdx")]
    public async Task Nbdcopy_copies_in_both_directions(string format)
    {
        byte[] contents = await MakeAsync("a.raw", 8 << 20);
        await Images.ConvertAsync(_folder["a.raw"], "raw", _folder["a.disk"], format, "");
        await Images.CreateAsync(_folder["b.disk"], format, $"size={contents.Length}");
        await using OpenedImage from = await OpenAsync("a.disk", format);
        await using OpenedImage to = await OpenAsync("b.disk", format, writable: true);
        await using (ExportServer server = await ServeAsync(new ExportDisk("a", from.Node), new ExportDisk("b", to.Node)))
        {
            await Programs.RunAsync("nbdcopy", Uri("a"), _folder["copy.raw"]);
            await Programs.RunAsync("nbdcopy", "--flush", Uri("a"), Uri("b"));
            await Programs.RunAsync("nbdcopy", "--flush", "--destination-is-zero", "--allocated", _folder["copy.raw"], Uri("b"));
            Assert.Equal(0, server.Disks.Sum(d => d.Errors));
            Assert.True(server.Disks[1].BytesWritten >= contents.Length / 4);
        }
        Assert.True((await File.ReadAllBytesAsync(_folder["copy.raw"])).AsSpan().SequenceEqual(contents));
        byte[] copied = new byte[contents.Length];
        await to.Node.ReadAsync(0, copied);
        Assert.True(copied.AsSpan().SequenceEqual(contents));
    }

    [OracleFact]
    public async Task QemuImg_compares_maps_and_converts()
    {
        await MakeAsync("a.raw");
        await Programs.QemuImgAsync("convert", "-f", "raw", "-O", "qcow2", _folder["a.raw"], _folder["a.qcow2"]);
        await Programs.QemuImgAsync(
            "create", "-f", "qcow2", "-b", _folder["a.qcow2"], "-F", "qcow2", _folder["top.qcow2"]);
        await Programs.RunAsync("qemu-io", "-f", "qcow2", "-c", "write -P 7 3M 128k", "-c", "write -z 1M 64k", _folder["top.qcow2"]);
        string expected = await Programs.QemuImgAsync("map", "--output=json", _folder["top.qcow2"]);
        await Images.CreateAsync(_folder["b.qcow2"], "qcow2", $"size={4 << 20}");
        await using OpenedImage image = await OpenAsync("top.qcow2", "qcow2");
        await using OpenedImage to = await OpenAsync("b.qcow2", "qcow2", writable: true);
        await using (ExportServer server = await ServeAsync(new ExportDisk("top", image.Node), new ExportDisk("b", to.Node)))
        {
            string[] fields = ["start", "length", "zero", "data"];
            Assert.Equal(
                Rows(expected, fields), Rows(await Programs.QemuImgAsync("map", "--output=json", "-f", "raw", Uri("top")), fields));
            await Programs.QemuImgAsync("compare", "-f", "raw", "-F", "qcow2", "-U", Uri("top"), _folder["top.qcow2"]);
            await Programs.QemuImgAsync("convert", "-n", "-f", "raw", "-O", "raw", Uri("top"), Uri("b"));
            // depth shows as QEMU has it: 0 for what nobody decides, 1 for the top, 2 below it
            string depths = await Programs.QemuImgAsync(
                "map", "--output=json", "--image-opts",
                $"driver=nbd,export=top,server.type=unix,server.path={_folder["s"]},x-dirty-bitmap=qemu:allocation-depth");
            Assert.NotEmpty(Rows(depths, fields));
        }
        using JsonDocument? map = Programs.Find("nbdinfo") is null ? null : await DepthsAsync(image.Node);
        if (map is not null)
        {
            Assert.Equal(
                [1, 2], map.RootElement.EnumerateArray().Select(e => e.GetProperty("type").GetInt32()).Where(t => t > 0).Distinct().Order());
        }
        await to.Node.FlushAsync();
        await Programs.QemuImgAsync("compare", "-U", "-f", "qcow2", "-F", "qcow2", _folder["top.qcow2"], _folder["b.qcow2"]);
    }

    [OracleFact]
    public async Task QemuImg_reads_bitmaps_and_copies_only_what_is_dirty()
    {
        await Programs.QemuImgAsync("create", "-f", "qcow2", _folder["a.qcow2"], "4M");
        await Programs.QemuImgAsync("bitmap", "--add", "-f", "qcow2", _folder["a.qcow2"], "day");
        await Programs.RunAsync("qemu-io", "-f", "qcow2", "-c", "write 64k 64k", "-c", "write 1M 192k", _folder["a.qcow2"]);
        await using OpenedImage image = await OpenAsync("a.qcow2", "qcow2");
        await using ExportServer server = await ServeAsync(new ExportDisk("a", image.Node) { IsReadOnly = true, Bitmaps = ["day"] });
        string map = await Programs.QemuImgAsync(
            "map", "--output=json", "--image-opts",
            $"driver=nbd,export=a,server.type=unix,server.path={_folder["s"]},x-dirty-bitmap=qemu:dirty-bitmap:day");
        Assert.Equal(
            ["65536 65536 false", "1048576 196608 false"],
            Rows(map, ["start", "length", "data"]).Where(r => r.EndsWith("false", StringComparison.Ordinal)),
            StringComparer.Ordinal);
        var missing = await Assert.ThrowsAsync<DiskImageException>(
            () => ServeAsync(new ExportDisk("a", image.Node) { Bitmaps = ["week"] }));
        Assert.Equal(DiskImageErrorKind.NotFound, missing.Kind);
        var changing = await Assert.ThrowsAsync<DiskImageException>(
            () => ServeAsync(new ExportDisk("a", image.Node) { Bitmaps = ["day"] }));
        Assert.Equal(DiskImageErrorKind.InvalidOption, changing.Kind);
    }

    [OracleFact("qemu-io")]
    public async Task QemuIo_writes_zeroes_discards_and_flushes()
    {
        await Programs.QemuImgAsync("create", "-f", "qcow2", _folder["a.qcow2"], "8M");
        await using (OpenedImage image = await OpenAsync("a.qcow2", "qcow2", writable: true))
        {
            await using ExportServer server = await ServeAsync(new ExportDisk("a", image.Node));
            string output = await Programs.RunAsync(
                "qemu-io", "-f", "raw", "-c", "write -P 1 0 3M", "-c", "write -f -P 2 1M 10k", "-c", "write -z -u 2M 512k",
                "-c", "write -z 64k 64k", "-c", "discard 0 64k", "-c", "flush", "-c", "aio_write -P 9 4M 2M", "-c", "aio_read -P 2 1M 10k",
                "-c", "aio_flush", "-c", "read -P 9 4M 2M", "-c", "read -P 0 2M 512k", Uri("a"));
            Assert.DoesNotContain("failed", output, StringComparison.OrdinalIgnoreCase);
            Assert.Equal(0, server.Disks[0].Errors);
        }
        await Programs.CheckAsync(_folder["a.qcow2"]);
        await Programs.RunAsync(
            "qemu-io", "-f", "qcow2", "-c", "read -P 1 128k 64k", "-c", "read -P 0 64k 64k", "-c", "read -P 2 1M 10k", _folder["a.qcow2"]);
    }

    [OracleFact("nbdsh", "/usr/lib/python3/dist-packages/nbd.py")]
    public async Task Libnbd_sees_every_command_and_every_error()
    {
        await using ExportServer server = await ServeAsync(
            new ExportDisk("w", new MemoryNode(new byte[1 << 20])), new ExportDisk("r", new MemoryNode(new byte[1 << 20], readOnly: true)));
        string script = $"""
            import nbd, errno
            def fails(code, call):
                try:
                    call()
                except nbd.Error as e:
                    assert e.errnum == code, (e.errnum, code)
                    return
                assert False, "it did not fail"
            h = nbd.NBD()
            h.add_meta_context("base:allocation")
            h.add_meta_context("qemu:allocation-depth")
            h.connect_uri("{Uri("w")}")
            h.set_strict_mode(0)
            assert h.get_size() == 1 << 20
            assert h.can_trim() and h.can_zero() and h.can_flush() and h.can_fua() and h.can_cache() and h.can_df()
            h.pwrite(b"x" * 5000, 100, nbd.CMD_FLAG_FUA)
            assert h.pread(5002, 99, nbd.CMD_FLAG_DF) == b"\0" + b"x" * 5000 + b"\0"
            h.zero(1000, 200, nbd.CMD_FLAG_NO_HOLE)
            assert h.pread(1000, 200) == b"\0" * 1000
            h.trim(4096, 8192); h.cache(4096, 0); h.flush()
            seen = []
            h.block_status(1 << 20, 0, lambda context, offset, entries, error: seen.append((context, sum(entries[::2]))))
            assert sorted(seen) == [("base:allocation", 1 << 20), ("qemu:allocation-depth", 1 << 20)], seen
            fails(errno.EINVAL, lambda: h.pread(512, 1 << 20))
            fails(errno.ENOSPC, lambda: h.pwrite(b"x", 1 << 20))
            fails(errno.EOPNOTSUPP, lambda: h.zero(512, 0, nbd.CMD_FLAG_FAST_ZERO))
            fails(errno.EINVAL, lambda: h.block_status(0, 0, lambda *a: 0))
            fails(errno.EINVAL, lambda: h.trim(512, 0, nbd.CMD_FLAG_DF))
            assert h.pread(1, 100) == b"x"
            h.shutdown()
            r = nbd.NBD()
            r.connect_uri("{Uri("r")}")
            r.set_strict_mode(0)
            assert r.is_read_only()
            fails(errno.EPERM, lambda: r.pwrite(b"x", 0))
            assert r.pread(1, 0) == b"\0"
            o = nbd.NBD()
            o.set_handshake_flags(0)
            o.set_request_structured_replies(False)
            o.connect_uri("{Uri("w")}")
            assert o.pread(2, 99) == b"\0x"
            """;
        await Programs.RunAsync("/usr/bin/python3", "-c", script);
    }

    [OracleFact("qemu-io")]
    public async Task A_disk_that_was_found_to_be_raw_never_looks_like_anything_else()
    {
        await MakeAsync("a.raw", 1 << 20);
        await using OpenedImage image = await OpenAsync("a.raw", "raw", writable: true);
        await using ExportServer server = await ServeAsync(
            new ExportDisk("probed", image.Node) { ProbedBy = Images.Registry }, new ExportDisk("named", image.Node));
        async Task<string> IoAsync(string export, params string[] commands)
        {
            (_, string output, string errors) = await Programs.TryAsync(
                "qemu-io", ["-f", "raw", .. commands.SelectMany(c => new[] { "-c", c }), Uri(export)]);
            return output + errors;
        }
        await Images.CreateAsync(_folder["seed.qcow2"], "qcow2", "size=1M");
        byte[] header = (await File.ReadAllBytesAsync(_folder["seed.qcow2"]))[..512];
        await using (FileStream pattern = File.Create(_folder["pattern"]))
        {
            await pattern.WriteAsync(header);
        }
        string write = $"write -s {_folder["pattern"]} 0 512";
        Assert.Contains("not permitted", await IoAsync("probed", write), StringComparison.OrdinalIgnoreCase);
        Assert.DoesNotContain("failed", await IoAsync("probed", "write -P 1 0 512", "read -P 1 0 512"), StringComparison.Ordinal);
        Assert.DoesNotContain("failed", await IoAsync("named", write), StringComparison.Ordinal);
        byte[] first = new byte[512];
        await image.Node.ReadAsync(0, first);
        Assert.Equal(header, first);
    }

    [Fact]
    public async Task Zeroes_complete_no_header_of_a_disk_that_was_found_to_be_raw()
    {
        byte[] nearly = new byte[1 << 20];
        new byte[] { (byte)'Q', (byte)'F', (byte)'I', 0xfb, 1, 0, 0, 3 }.CopyTo(nearly, 0); // of version 3, but for its first byte
        nearly[3000] = 9;
        var memory = new MemoryNode(nearly);
        await using var guarded = new GuardedRawNode(memory, Images.Registry);
        var e = await Assert.ThrowsAsync<DiskImageException>(async () => await guarded.WriteZeroesAsync(4, 1));
        Assert.Equal(DiskImageErrorKind.Refused, e.Kind);
        await guarded.DiscardAsync(0, nearly.Length);
        Assert.Equal(1, memory.ToArray()[4]);
        await guarded.WriteZeroesAsync(0, nearly.Length);
        Assert.DoesNotContain(memory.ToArray(), b => b != 0);
        Assert.Null(guarded.As<IFastZero>());
    }

    [OracleFact("nbdsh", "/usr/lib/python3/dist-packages/nbd.py")]
    public async Task Zeroes_are_told_and_not_sent_and_a_file_is_zeroed_fast()
    {
        byte[] contents = await MakeAsync("a.raw"); // data from 1 to 2 MiB
        await using OpenedImage image = await OpenAsync("a.raw", "raw", writable: true);
        await using ExportServer server = await ServeAsync(new ExportDisk("a", image.Node));
        string script = $"""
            import nbd, sys
            def read(h, length, offset, flags=0):
                seen = []
                data = h.pread_structured(length, offset, lambda part, at, kind, error: seen.append((kind, at, len(part))), flags)
                return bytes(data), seen
            M = 1 << 20
            h = nbd.NBD()
            h.connect_uri("{Uri("a")}")
            whole = open("{_folder["a.raw"]}", "rb").read()
            data, seen = read(h, 4 * M, 0)
            assert data == whole
            assert seen == [(nbd.READ_HOLE, 0, M), (nbd.READ_DATA, M, M), (nbd.READ_HOLE, 2 * M, 2 * M)], seen
            data, seen = read(h, 4 * M, 0, nbd.CMD_FLAG_DF)
            assert data == whole and seen == [(nbd.READ_DATA, 0, 4 * M)], seen
            data, seen = read(h, 100000, M + 5)
            assert data == whole[M + 5:M + 100005] and seen == [(nbd.READ_DATA, M + 5, 100000)], seen
            data, seen = read(h, 65536, M - 32768)
            assert data == whole[M - 32768:M + 32768] and [s[0] for s in seen] == [nbd.READ_HOLE, nbd.READ_DATA], seen
            assert h.can_fast_zero()
            h.zero(65536, M, nbd.CMD_FLAG_FAST_ZERO)
            h.pwrite(b"x" * 4096, 3 * M)
            data, seen = read(h, 65536, M)
            assert data == b"\0" * 65536
            data, seen = read(h, 8192, 3 * M)
            assert data == b"x" * 4096 + b"\0" * 4096, seen
            """;
        await Programs.RunAsync("/usr/bin/python3", "-c", script);
        byte[] read = new byte[65536];
        await image.Node.ReadAsync(1 << 20, read);
        Assert.DoesNotContain(read, b => b != 0);
        Assert.Equal(0, server.Disks[0].Errors);
        Assert.Equal(contents.Length, image.Node.Length);
    }

    [Fact]
    public async Task A_part_of_a_disk_is_served_as_a_disk()
    {
        byte[] contents = new byte[1 << 20];
        new Random(3).NextBytes(contents);
        var disk = new ExportDisk("part", new MemoryNode(contents));
        disk.Narrow(1000, 5000);
        Assert.Throws<DiskImageException>(() => new ExportDisk("x", new MemoryNode(contents)).Narrow(1 << 20, 1));
        await using ExportServer server = await ServeAsync(disk);
        await using OpenedImage image = await Images.Opener.OpenAsync(
            new OpenRequest(Uri("part")) { Format = "raw" }, CancellationToken.None);
        byte[] read = new byte[5000];
        await image.Node.ReadAsync(0, read);
        Assert.True(contents.AsSpan(1000, 5000).SequenceEqual(read));
    }

    [Fact]
    public async Task Only_so_many_clients_as_it_may_have_and_the_next_when_one_has_gone()
    {
        await using ExportServer server = await ServeAsync(new ExportDisk("a", new MemoryNode(new byte[1 << 20])) { Share = 1 });
        var request = new OpenRequest(Uri("a")) { Format = "raw" };
        await using (OpenedImage first = await Images.Opener.OpenAsync(request, CancellationToken.None))
        {
            var e = await Assert.ThrowsAsync<DiskImageException>(
                async () => await Images.Opener.OpenAsync(request, CancellationToken.None));
            Assert.Equal(DiskImageErrorKind.AccessDenied, e.Kind);
            Assert.Equal(1, server.Disks[0].Clients);
        }
        for (int i = 0; server.Disks[0].Clients > 0 && i < 1000; i++)
        {
            await Task.Delay(10);
        }
        await using OpenedImage second = await Images.Opener.OpenAsync(request, CancellationToken.None);
        await second.Node.ReadAsync(0, new byte[1]);
    }

    [Fact]
    public async Task A_client_that_stops_in_the_middle_is_cut_off_and_what_another_flushed_stays()
    {
        var node = new MemoryNode(new byte[1 << 20]);
        var times = new ExportTimes(TimeSpan.FromMilliseconds(300), TimeSpan.FromMilliseconds(300));
        await using ExportServer server = await ExportServer.StartAsync(
            new UnixDomainSocketEndPoint(_folder["s"]), [new ExportDisk("a", node)], null, times, CancellationToken.None);
        using Socket silent = await ConnectAsync();
        Assert.Equal(0, await EndAsync(silent)); // it never answered the greeting
        using Socket half = await ConnectAsync();
        byte[] hello = [0, 0, 0, 3, .. "IHAVEOPT"u8, 0, 0, 0, 1, 0, 0, 0, 1, (byte)'a'];
        await half.SendAsync(hello);
        await half.SendAsync(new byte[] { 0x25, 0x60, 0x95, 0x13, 0 }); // a request begins
        Assert.Equal(0, await EndAsync(half));
        await using OpenedImage image = await Images.Opener.OpenAsync(
            new OpenRequest(Uri("a")) { Format = "raw", Writable = true }, CancellationToken.None);
        await image.Node.WriteAsync(0, new byte[] { 7 });
        await image.Node.FlushAsync();
        Assert.Equal(7, node.ToArray()[0]);
    }

    [Fact]
    public async Task A_client_that_takes_no_answers_holds_a_bounded_amount_and_is_cut_off()
    {
        var times = new ExportTimes(TimeSpan.FromSeconds(30), TimeSpan.FromMilliseconds(500));
        await using ExportServer server = await ExportServer.StartAsync(
            new UnixDomainSocketEndPoint(_folder["s"]), [new ExportDisk("a", new MemoryNode(new byte[32 << 20]))], null, times,
            CancellationToken.None);
        using Socket greedy = await ConnectAsync();
        await greedy.SendAsync(new byte[] { 0, 0, 0, 3 });
        await greedy.SendAsync((byte[])[.. "IHAVEOPT"u8, 0, 0, 0, 1, 0, 0, 0, 1, (byte)'a']);
        byte[] read = [0x25, 0x60, 0x95, 0x13, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0]; // 32 MiB
        for (int i = 0; i < 200; i++)
        {
            if (await Task.WhenAny(greedy.SendAsync(read), Task.Delay(2000)) is not Task<int> { IsCompletedSuccessfully: true })
            {
                break;
            }
        }
        for (int i = 0; server.Disks[0].Clients > 0 && i < 1000; i++)
        {
            await Task.Delay(10);
        }
        Assert.Equal(0, server.Disks[0].Clients);
        Assert.True(server.Disks[0].Requests < 10);
    }

    [Fact]
    public async Task A_client_that_reads_no_answer_before_it_has_said_all_is_served()
    {
        const int Reads = 24, Read = 256 << 10, Written = 4 << 20; // within what a client may have under way
        var node = new MemoryNode(new byte[8 << 20]);
        await using ExportServer server = await ServeAsync(new ExportDisk("a", node));
        using Socket client = await ConnectAsync();
        byte[] read = [0x25, 0x60, 0x95, 0x13, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0];
        byte[] write = [0x25, 0x60, 0x95, 0x13, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 64, 0, 0, 0, 64, 0, 0];
        byte[] said =
        [
            0, 0, 0, 3, .. "IHAVEOPT"u8, 0, 0, 0, 1, 0, 0, 0, 1, (byte)'a', .. Enumerable.Repeat(read, Reads).SelectMany(r => r),
            .. write, .. Enumerable.Repeat((byte)9, Written),
        ];
        for (int sent = 0; sent < said.Length;)
        {
            sent += await client.SendAsync(said.AsMemory(sent)).AsTask().WaitAsync(TimeSpan.FromSeconds(30));
        }
        const int Greeting = 18 + 10;
        byte[] heard = new byte[Greeting + (Reads * (Read + 16)) + 16];
        for (int count = 0; count < heard.Length;)
        {
            count += await client.ReceiveAsync(heard.AsMemory(count)).AsTask().WaitAsync(TimeSpan.FromSeconds(30));
        }
        Assert.DoesNotContain(node.ToArray()[Written..], b => b != 9);
        Assert.Equal(0, server.Disks[0].Errors);
    }

    [Fact]
    public async Task A_socket_that_is_in_use_is_left_alone_and_a_stale_one_taken()
    {
        await using (ExportServer server = await ServeAsync(new ExportDisk("a", new MemoryNode(new byte[512]))))
        {
            var taken = await Assert.ThrowsAsync<DiskImageException>(() => ServeAsync(new ExportDisk("a", new MemoryNode(new byte[512]))));
            Assert.Equal(DiskImageErrorKind.AlreadyExists, taken.Kind);
        }
        Assert.False(File.Exists(_folder["s"]));
        using (var stale = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified))
        {
            stale.Bind(new UnixDomainSocketEndPoint(_folder["s"]));
        }
        if (File.Exists(_folder["s"])) // the runtime removes it on some systems
        {
            await using ExportServer again = await ServeAsync(new ExportDisk("a", new MemoryNode(new byte[512])));
        }
        await File.WriteAllTextAsync(_folder["s"], "kept");
        await Assert.ThrowsAsync<DiskImageException>(() => ServeAsync(new ExportDisk("a", new MemoryNode(new byte[512]))));
        Assert.Equal("kept", await File.ReadAllTextAsync(_folder["s"]));
    }

    private async Task<JsonDocument> DepthsAsync(BlockNode node)
    {
        await using ExportServer server = await ServeAsync(new ExportDisk("top", node));
        return JsonDocument.Parse(await Programs.RunAsync("nbdinfo", "--json", "--map=qemu:allocation-depth", Uri("top")));
    }

    private async Task<Socket> ConnectAsync()
    {
        var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        await socket.ConnectAsync(new UnixDomainSocketEndPoint(_folder["s"]));
        return socket;
    }

    /// <summary>Reads until nothing comes any more.</summary>
    private static async Task<int> EndAsync(Socket socket)
    {
        byte[] buffer = new byte[1000];
        try
        {
            int count;
            while ((count = await socket.ReceiveAsync(buffer).WaitAsync(TimeSpan.FromSeconds(60))) > 0)
            {
                // the greeting, and the export
            }
            return count;
        }
        catch (SocketException)
        {
            return 0;
        }
    }

    private static List<string> Rows(string json, string[] fields)
    {
        using var document = JsonDocument.Parse(json);
        var rows = new List<(long Start, long Length, string Facts)>();
        foreach (JsonElement e in document.RootElement.EnumerateArray())
        {
            string rest = string.Join(' ', fields[2..].Select(f => e.GetProperty(f).GetRawText()));
            (long start, long length) = (e.GetProperty("start").GetInt64(), e.GetProperty("length").GetInt64());
            if (rows.Count > 0 && rows[^1].Facts == rest)
            {
                rows[^1] = rows[^1] with { Length = rows[^1].Length + length };
            }
            else
            {
                rows.Add((start, length, rest));
            }
        }
        return [.. rows.Select(r => $"{r.Start} {r.Length} {r.Facts}")];
    }
}
