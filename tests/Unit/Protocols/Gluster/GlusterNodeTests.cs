using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Protocols.Gluster;
using DiskImage.Tests.Conformance;

namespace DiskImage.Tests.Protocols.Gluster;

/// <summary>A file of a volume keeps the contract of nodes, over a library in memory.</summary>
public sealed class GlusterNodeTests : NodeConformance
{
    private protected override bool CanResize => true;

    private protected override async Task<BlockNode> MakeAsync(byte[] contents, bool writable)
    {
        var library = new FakeGluster();
        library.Files["/a"] = new FakeGluster.Entry { Bytes = [.. contents] };
        return await GlusterTalk.OpenAsync(library, "gluster://host/vol/a", writable);
    }
}

/// <summary>What tests of volumes do.</summary>
internal static class GlusterTalk
{
    public static async Task<BlockNode> OpenAsync(
        IGlusterLibrary? library, string url, bool writable, Action<Wording>? warn = null, CancellationToken cancellationToken = default)
    {
        var driver = new GlusterDriver(library);
        var context = new ProtocolOpenContext(driver.Bind(driver.Parse(url)))
        {
            Access = Access.To(writable, besideWriters: false), Warn = warn ?? (_ => { }),
        };
        return await driver.OpenAsync(context, cancellationToken);
    }

    public static string NameOf(params (string Name, object Value)[] options)
    {
        var driver = new GlusterDriver();
        return driver.NameOf(driver.Bind(options.Select(o => KeyValuePair.Create(o.Name, (object?)o.Value))));
    }
}

/// <summary>The texts and options that lead to a file, what a library may refuse, and how new files take their place.</summary>
public sealed class GlusterTests
{
    private const string Url = "gluster://host/vol/images/a";

    private readonly FakeGluster _library = new();

    [Theory]
    [InlineData("gluster://host/vol/a", "gluster://host/vol/a")]
    [InlineData("gluster+tcp://host:24007/vol/dir/a%20b", "gluster://host:24007/vol/dir/a%20b")]
    [InlineData("gluster:///vol/a", "gluster://localhost/vol/a")]
    [InlineData("gluster://[fd00::1]:5/vol/a", "gluster://[fd00::1]:5/vol/a")]
    [InlineData("gluster://[fd00::1]/vol//a", "gluster://[fd00::1]/vol/a")]
    [InlineData("gluster+unix:///vol/a?socket=/run/g.sock", "gluster+unix:///vol/a?socket=/run/g.sock")]
    [InlineData("gluster+rdma://host/vol/a", "gluster://host/vol/a")]
    public void A_text_leads_to_one_name(string text, string name)
    {
        var driver = new GlusterDriver();
        Assert.Equal(name, driver.NameOf(driver.Bind(driver.Parse(text))));
        Assert.Equal(name, driver.NameOf(driver.Bind(driver.Parse(name))));
    }

    [Theory]
    [InlineData("gluster://host")]
    [InlineData("gluster://host/vol")]
    [InlineData("gluster://host/vol/")]
    [InlineData("gluster://host:x/vol/a")]
    [InlineData("gluster://host:99999/vol/a")]
    [InlineData("gluster://host/vol/a?socket=/x")]
    [InlineData("gluster+unix:///vol/a")]
    [InlineData("gluster+unix://host/vol/a?socket=/x")]
    [InlineData("gluster+unix:///vol/a?sock=/x")]
    public void What_is_no_file_of_a_volume_is_refused(string text)
    {
        var driver = new GlusterDriver();
        DiskImageException error = Assert.Throws<DiskImageException>(() => driver.Bind(driver.Parse(text)));
        Assert.Equal(DiskImageErrorKind.InvalidOption, error.Kind);
    }

    [Fact]
    public async Task Servers_are_asked_in_their_order_and_RDMA_becomes_TCP_with_a_warning()
    {
        _library.Files["/a"] = new FakeGluster.Entry { Bytes = new byte[10] };
        var driver = new GlusterDriver(_library);
        object options = driver.Bind(
        [
            new("server.1.type", "tcp"), new("server.1.host", "two"), new("server.1.port", "24008"),
            new("server.0.type", "unix"), new("server.0.path", "/run/g"), new("server.10.host", "three"), new("volume", "vol"),
            new("path", "a"), new("debug", "9"), new("logfile", "/tmp/g.log"),
        ]);
        await (await driver.OpenAsync(new ProtocolOpenContext(options), CancellationToken.None)).DisposeAsync();
        Assert.Equal(
            ["new vol", "server unix /run/g 0", "server tcp two 24008", "server tcp three 0", "log /tmp/g.log 9", "connect"],
            _library.Log.Take(6), StringComparer.Ordinal);
        var warnings = new List<string>();
        await (await GlusterTalk.OpenAsync(
            _library, "gluster+rdma://host/vol/a", writable: false, w => warnings.Add(w.ToString()))).DisposeAsync();
        Assert.Contains("server tcp host 0", _library.Log, StringComparer.Ordinal);
        Assert.Contains("TCP", Assert.Single(warnings), StringComparison.Ordinal);
        foreach ((string name, object value) in new (string, object)[]
            { ("server.0.type", "x"), ("server.100.host", "h"), ("server.0.what", "h"), ("server.0.port", "70000"), ("debug", 10L) })
        {
            Assert.Equal(DiskImageErrorKind.InvalidOption, Assert.Throws<DiskImageException>(
                () => GlusterTalk.NameOf(("volume", "v"), ("path", "p"), ("server.0.host", "h"), (name, value))).Kind);
        }
    }

    [Fact]
    public async Task A_volume_that_cannot_be_reached_says_how_to_find_out_why()
    {
        _library.Fail = call => call == "connect" ? 107 : 0;
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(
            async () => await GlusterTalk.OpenAsync(_library, Url, writable: false));
        Assert.Equal(DiskImageErrorKind.Io, error.Kind);
        Assert.Contains("glusterd", error.Message, StringComparison.Ordinal);
        Assert.True(SpinWait.SpinUntil(() => Count("end") == 1, TimeSpan.FromSeconds(20)));
    }

    [Theory]
    [InlineData(2, DiskImageErrorKind.NotFound)]
    [InlineData(13, DiskImageErrorKind.AccessDenied)]
    [InlineData(30, DiskImageErrorKind.ReadOnly)]
    [InlineData(107, DiskImageErrorKind.Io)]
    public async Task What_the_library_says_has_its_kind(int error, DiskImageErrorKind kind)
    {
        _library.Files["/images/a"] = new FakeGluster.Entry { Bytes = new byte[10] };
        _library.Fail = call => call == "open" ? error : 0;
        Assert.Equal(kind, (await Assert.ThrowsAsync<DiskImageException>(
            async () => await GlusterTalk.OpenAsync(_library, Url, writable: true))).Kind);
        _library.Files["/images/a"].Mode = 0x41ED;
        Assert.Equal(DiskImageErrorKind.InvalidOption, (await Assert.ThrowsAsync<DiskImageException>(
            async () => await GlusterTalk.OpenAsync(_library, Url, writable: true))).Kind);
        Assert.Equal(0, _library.Opened);
    }

    [Fact]
    public async Task A_failed_flush_ends_writing_and_a_short_write_goes_on()
    {
        _library.Files["/images/a"] = new FakeGluster.Entry { Bytes = new byte[10_000] };
        _library.MostWritten = 1000;
        await using BlockNode node = await GlusterTalk.OpenAsync(_library, Url, writable: true);
        byte[] bytes = new byte[9000];
        new Random(1).NextBytes(bytes);
        await node.WriteAsync(500, bytes);
        Assert.Equal(bytes, _library.Files["/images/a"].Bytes[500..9500]);
        _library.Fail = call => call == "write" ? 28 : 0;
        Assert.Equal(DiskImageErrorKind.NoSpace, (await Assert.ThrowsAsync<DiskImageException>(
            async () => await node.WriteAsync(0, new byte[1]))).Kind);
        _library.Fail = call => call == "flush" ? 5 : 0;
        _ = await Assert.ThrowsAsync<DiskImageException>(async () => await node.FlushAsync());
        _library.Fail = _ => 0;
        Assert.Equal(DiskImageErrorKind.WriteFailed, (await Assert.ThrowsAsync<DiskImageException>(
            async () => await node.WriteAsync(0, new byte[1]))).Kind);
        await node.ReadAsync(0, new byte[10]);
    }

    [Fact]
    public async Task What_a_volume_does_not_know_is_done_otherwise_and_asked_once()
    {
        _library.Files["/images/a"] = new FakeGluster.Entry { Bytes = [.. Enumerable.Repeat((byte)7, 100_000)] };
        _library.Fail = call => call is "discard" or "zero" or "seek" ? 95 : 0;
        await using BlockNode node = await GlusterTalk.OpenAsync(_library, Url, writable: true);
        for (int i = 0; i < 3; i++)
        {
            await node.WriteZeroesAsync(1000 * i, 1000);
            await node.DiscardAsync(5000, 100);
            Assert.True((await node.GetExtentAsync(0, node.Length)) is { IsData: true, Length: 100_000 });
        }
        Assert.Equal([.. new byte[3000], .. Enumerable.Repeat((byte)7, 97_000)], _library.Files["/images/a"].Bytes);
        Assert.Equal((1, 1, 1), (Count("discard"), Count("zero"), Count("seek")));
    }

    [Fact]
    public async Task Calls_that_hang_let_a_reader_give_up_and_keep_the_connection_until_they_end()
    {
        _library.Files["/images/a"] = new FakeGluster.Entry { Bytes = [.. Enumerable.Repeat((byte)7, 100_000)] };
        using var gate = new ManualResetEventSlim();
        BlockNode node = await GlusterTalk.OpenAsync(_library, Url, writable: false);
        _library.Meanwhile = call =>
        {
            if (call == "read")
            {
                gate.Wait();
            }
        };
        byte[] buffer = new byte[1000];
        using var stop = new CancellationTokenSource(100);
        Task[] reads = [.. Enumerable.Range(0, 20).Select(_ => node.ReadAsync(0, buffer, stop.Token).AsTask())];
        foreach (Task read in reads)
        {
            _ = await Assert.ThrowsAnyAsync<OperationCanceledException>(() => read);
        }
        gate.Set();
        await node.DisposeAsync();
        Assert.True(SpinWait.SpinUntil(() => Count("end") == 1, TimeSpan.FromSeconds(20)));
        Assert.False(buffer.AsSpan().ContainsAnyExcept((byte)0));
        Assert.Equal(20, Count("read"));
        Assert.Equal("end", _library.Log[^1]);
    }

    [Theory]
    [InlineData(TargetMode.New, false)]
    [InlineData(TargetMode.Replace, false)]
    [InlineData(TargetMode.Replace, true)]
    [InlineData(TargetMode.InPlace, true)]
    public async Task A_new_file_takes_its_place_when_it_is_complete(TargetMode mode, bool isThere)
    {
        if (isThere)
        {
            _library.Files["/images/a"] = new FakeGluster.Entry { Bytes = [1, 2, 3], Mode = 0x81A0, Owner = 7, Group = 8 };
        }
        var driver = new GlusterDriver(_library);
        StoragePlace place = await driver.LookAsync(Url, mode, CancellationToken.None);
        await using (PendingNode made = await driver.BeginAsync(place, new StorageTraits(true, false), CancellationToken.None))
        {
            Assert.Equal(0, made.Node.Length);
            Assert.Equal(isThere, _library.Files.ContainsKey("/images/a"));
            await made.Node.WriteAsync(0, new byte[] { 9, 9 });
            await made.Node.DisposeAsync();
            await using (BlockNode again = await made.OpenAsync(writable: false, CancellationToken.None))
            {
                Assert.Equal(2, again.Length);
            }
            await made.PublishAsync(durable: true, revocable: false, CancellationToken.None);
        }
        Assert.Equal("/images/a", Assert.Single(_library.Files.Keys));
        Assert.Equal([9, 9], _library.Files["/images/a"].Bytes);
        Assert.Equal(isThere ? (7u, 0x81A0u) : (0u, 0x8180u), (_library.Files["/images/a"].Owner, _library.Files["/images/a"].Mode));
        Assert.Equal(0, _library.Opened);
        Assert.Equal(DiskImageErrorKind.AlreadyExists, (await Assert.ThrowsAsync<DiskImageException>(
            async () => await driver.LookAsync(Url, TargetMode.New, CancellationToken.None))).Kind);
        await driver.RemoveAsync(Url, driver.IdentityOf(driver.Bind(driver.Parse(Url)))!.Value);
        Assert.Empty(_library.Files);
    }

    [Fact]
    public async Task What_appeared_meanwhile_is_kept_and_what_is_taken_back_is_gone()
    {
        var driver = new GlusterDriver(_library);
        StoragePlace place = await driver.LookAsync(Url, TargetMode.New, CancellationToken.None);
        await using (PendingNode made = await driver.BeginAsync(place, new StorageTraits(true, false), CancellationToken.None))
        {
            await made.Node.DisposeAsync();
            _library.Files["/images/a"] = new FakeGluster.Entry { Bytes = [5], Inode = 5 };
            Assert.Equal(DiskImageErrorKind.AlreadyExists, (await Assert.ThrowsAsync<DiskImageException>(
                async () => await made.PublishAsync(durable: false, revocable: false, CancellationToken.None))).Kind);
        }
        Assert.Equal([5], Assert.Single(_library.Files.Values).Bytes);
        place = await driver.LookAsync(Url, TargetMode.Replace, CancellationToken.None);
        await using (PendingNode made = await driver.BeginAsync(place, new StorageTraits(true, false), CancellationToken.None))
        {
            await made.Node.DisposeAsync();
            await made.PublishAsync(durable: false, revocable: true, CancellationToken.None);
            Assert.Empty(_library.Files["/images/a"].Bytes);
            made.Withdraw();
        }
        Assert.Equal([5], Assert.Single(_library.Files.Values).Bytes);
    }

    private int Count(string call) => _library.Log.Count(l => l.Split(' ')[0] == call);
}
