using System.Security;
using System.Text;
using DiskImage.Block;
using DiskImage.Graph;
using DiskImage.Tests.Faults.Host;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Protocols.Http;

/// <summary>Objects of web servers that do all that they should not.</summary>
public sealed class HttpNodeTests
{
    private static readonly byte[] s_contents = Contents();

    private static byte[] Contents()
    {
        byte[] contents = new byte[3 << 20];
        new Random(6).NextBytes(contents);
        return contents;
    }

    private static async Task<OpenedImage> OpenAsync(
        string url, string options = "", params (string Name, string Value)[] secrets)
    {
        var given = new Dictionary<string, SecureString>(StringComparer.Ordinal);
        foreach ((string name, string value) in secrets)
        {
            given[name] = new System.Net.NetworkCredential("", value).SecurePassword;
        }
        string locator = $$"""json:{"driver":"http","url":"{{url}}"{{options}} }""";
        return await Images.Opener.OpenAsync(new OpenRequest(locator) { Secrets = given }, CancellationToken.None);
    }

    [Fact]
    public async Task What_is_read_here_and_there_and_in_order_is_what_is_there()
    {
        await using var peer = new ScriptedPeer((request, _) => ScriptedPeer.Part(request, s_contents, "\r\nETag: \"a\""));
        await using OpenedImage image = await Images.Opener.OpenAsync(
            new OpenRequest($"http://{peer.Host}/disk.raw") { Format = "raw" }, CancellationToken.None);
        Assert.Equal(s_contents.Length, image.Node.Length);
        var random = new Random(3);
        for (int i = 0; i < 100; i++)
        {
            int offset = random.Next(s_contents.Length - 1), length = random.Next(1, Math.Min(s_contents.Length - offset, 1_200_000));
            byte[] read = new byte[length];
            await image.Node.ReadAsync(offset, read);
            Assert.True(s_contents.AsSpan(offset, length).SequenceEqual(read));
        }
        int before = peer.Count;
        for (int offset = 0; offset < s_contents.Length; offset += 4096)
        {
            byte[] read = new byte[4096];
            await image.Node.ReadAsync(offset, read);
            Assert.True(s_contents.AsSpan(offset, read.Length).SequenceEqual(read));
        }
        Assert.True(peer.Count - before < 30, $"{peer.Count - before} requests for {s_contents.Length / 4096} reads");
        await Assert.ThrowsAsync<DiskImageException>(async () => await image.Node.WriteAsync(0, new byte[1]));
    }

    public static TheoryData<string, string, DiskImageErrorKind, string> Faults => new()
    {
        { "no ranges", "200 OK", DiskImageErrorKind.Unsupported, "no ranges" },
        { "no length", "206 Partial Content\r\nContent-Range: bytes 0-0/*", DiskImageErrorKind.Unsupported, "how long" },
        { "encoded", "206 Partial Content\r\nContent-Encoding: gzip\r\nContent-Range: bytes 0-0/9", DiskImageErrorKind.Unsupported, "gzip" },
        { "another range", "206 Partial Content\r\nContent-Range: bytes 5-5/9", DiskImageErrorKind.Io, "another range" },
        { "no range at all", "206 Partial Content", DiskImageErrorKind.Io, "does not say" },
        { "another unit", "206 Partial Content\r\nContent-Range: lines 0-0/9", DiskImageErrorKind.Io, "another range" },
        { "not there", "404 Not Found", DiskImageErrorKind.NotFound, "no such" },
        { "denied", "403 Forbidden", DiskImageErrorKind.AccessDenied, "denies" },
        { "who asks", "401 Unauthorized", DiskImageErrorKind.AccessDenied, "username" },
        { "a loop", "302 Found\r\nLocation: /again", DiskImageErrorKind.Refused, "without end" },
        { "to a file", "302 Found\r\nLocation: file:///etc/passwd", DiskImageErrorKind.Refused, "not followed" },
    };

    [Theory]
    [MemberData(nameof(Faults))]
    public async Task What_cannot_be_read_by_ranges_is_said_so(string what, string head, DiskImageErrorKind kind, string says)
    {
        await using var peer = new ScriptedPeer((_, _) => ScriptedPeer.Answer(head, "x"u8));
        var e = await Assert.ThrowsAsync<DiskImageException>(() => OpenAsync($"http://{peer.Host}/d?token=s3cret"));
        Assert.True(kind == e.Kind, $"{what}: {e}");
        Assert.Contains(says, e.Message, StringComparison.Ordinal);
        Assert.DoesNotContain("s3cret", e.ToString(), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("ETag: \"b\"")]
    [InlineData("ETag: \"a\"\r\nLast-Modified: Tue, 15 Nov 1994 12:45:26 GMT")]
    public async Task An_object_that_changes_is_noticed_in_its_parts(string later)
    {
        await using var peer = new ScriptedPeer(
            (request, i) => ScriptedPeer.Part(request, s_contents, i == 0 ? "\r\nETag: \"a\"" : $"\r\n{later}"));
        await using OpenedImage image = await OpenAsync($"http://{peer.Host}/");
        var e = await Assert.ThrowsAsync<DiskImageException>(async () => await image.Node.ReadAsync(0, new byte[10]));
        Assert.Contains("become another", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Every_request_asks_for_the_version_that_was_there_at_first()
    {
        await using var peer = new ScriptedPeer((request, i) => i == 0 || request.Headers["if-range"] != "\"a\""
            ? ScriptedPeer.Part(request, s_contents, "\r\nETag: \"a\"")
            : ScriptedPeer.Answer("200 OK", "another"u8));
        await using OpenedImage image = await OpenAsync($"http://{peer.Host}/");
        var e = await Assert.ThrowsAsync<DiskImageException>(async () => await image.Node.ReadAsync(0, new byte[10]));
        Assert.Contains("become another", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task An_answer_that_is_cut_anywhere_is_carried_on_where_it_ended()
    {
        byte[] contents = s_contents[..600];
        int cut = 0;
        bool isCut = false, goesOn = false;
        await using var peer = new ScriptedPeer((request, i) =>
        {
            goesOn |= request.Range.From > 0;
            byte[] answer = ScriptedPeer.Part(request, contents);
            isCut = !isCut;
            return i == 0 ? Uncut() : isCut ? answer[..Math.Min(cut, answer.Length - 1)] : answer;

            byte[] Uncut()
            {
                isCut = false;
                return answer;
            }
        });
        for (cut = 1; cut < 700; cut += 47)
        {
            await using OpenedImage image = await OpenAsync($"http://{peer.Host}/");
            isCut = false;
            byte[] read = new byte[contents.Length];
            await image.Node.ReadAsync(0, read);
            Assert.True(contents.AsSpan().SequenceEqual(read), $"cut after {cut}");
        }
        Assert.True(goesOn, "it was always asked for from the beginning");
    }

    [Theory]
    [InlineData("429 Too Many Requests\r\nRetry-After: 0")]
    [InlineData("429 Too Many Requests\r\nRetry-After: Tue, 15 Nov 1994 12:45:26 GMT")]
    [InlineData("503 Service Unavailable")]
    [InlineData("500 Internal Server Error")]
    public async Task What_passes_by_itself_is_waited_for_but_not_for_ever(string head)
    {
        int failures = 3;
        await using var peer = new ScriptedPeer((request, i) => i > 0 && failures-- > 0
            ? ScriptedPeer.Answer(head, [])
            : ScriptedPeer.Part(request, s_contents));
        await using OpenedImage image = await OpenAsync($"http://{peer.Host}/");
        byte[] read = new byte[10];
        await image.Node.ReadAsync(0, read);
        Assert.True(s_contents.AsSpan(0, 10).SequenceEqual(read));
        failures = int.MaxValue;
        var e = await Assert.ThrowsAsync<DiskImageException>(async () => await image.Node.ReadAsync(2 << 20, read));
        Assert.Contains(head[..3], e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_silent_server_is_given_up_and_a_wait_can_be_cancelled()
    {
        using var hang = new ManualResetEventSlim();
        await using var peer = new ScriptedPeer((request, i) =>
        {
            if (i > 0)
            {
                hang.Wait();
            }
            return ScriptedPeer.Part(request, s_contents);
        });
        await using OpenedImage image = await OpenAsync($"http://{peer.Host}/", ",\"timeout\":60");
        using var stop = new CancellationTokenSource();
        Task small = image.Node.ReadAsync(0, new byte[10], stop.Token).AsTask();
        Task large = image.Node.ReadAsync(0, new byte[2 << 20], stop.Token).AsTask();
        await stop.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => small.WaitAsync(TimeSpan.FromSeconds(30)));
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => large.WaitAsync(TimeSpan.FromSeconds(30)));
        hang.Set();
    }

    [Fact]
    public async Task A_server_that_was_silent_too_long_is_asked_again()
    {
        using var hang = new ManualResetEventSlim();
        await using var peer = new ScriptedPeer((request, i) =>
        {
            if (i == 1)
            {
                hang.Wait();
            }
            return ScriptedPeer.Part(request, s_contents);
        });
        await using OpenedImage image = await OpenAsync($"http://{peer.Host}/", ",\"timeout\":1");
        byte[] read = new byte[2 << 20];
        await image.Node.ReadAsync(0, read);
        hang.Set();
        Assert.True(s_contents.AsSpan(0, read.Length).SequenceEqual(read));
        Assert.Equal(3, peer.Count);
    }

    [Fact]
    public async Task Several_requests_are_under_way_at_once()
    {
        using var together = new CountdownEvent(3);
        await using var peer = new ScriptedPeer((request, i) =>
        {
            if (i > 0 && !together.IsSet)
            {
                _ = together.Signal();
                Assert.True(together.Wait(TimeSpan.FromSeconds(30)), "one after the other");
            }
            return ScriptedPeer.Part(request, s_contents);
        });
        await using OpenedImage image = await OpenAsync($"http://{peer.Host}/", ",\"timeout\":60");
        await Task.WhenAll(Enumerable.Range(0, 3).Select(i => image.Node.ReadAsync(i << 20, new byte[1 << 20]).AsTask()));
        Assert.True(together.IsSet);
    }

    [Fact]
    public async Task The_proxy_that_the_environment_names_is_asked_and_told_who_asks()
    {
        byte[] contents = s_contents[..5000];
        string hash = Convert.ToHexString(System.Security.Cryptography.SHA256.HashData(contents));
        string basic = $"Basic {Convert.ToBase64String("door:0pen"u8)}";
        var seen = new List<string>();
        bool opens = true;
        await using var proxy = new ScriptedPeer((request, _) =>
        {
            lock (seen)
            {
                seen.Add(request.Path);
            }
            return opens && request.Headers.GetValueOrDefault("proxy-authorization") == basic
                ? ScriptedPeer.Part(request, contents)
                : ScriptedPeer.Answer("407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"door\"", []);
        });
        string[] output = await HostFault.RunAsync(null, "proxied", $"http://{proxy.Host}", "", "http://disk.example/a");
        Assert.Equal(hash, output[0]);
        Assert.All(seen, p => Assert.Equal("http://disk.example/a", p));
        opens = false;
        output = await HostFault.RunAsync(null, "proxied", $"http://{proxy.Host}", "", "http://disk.example/a");
        Assert.Contains("AccessDenied", output[0], StringComparison.Ordinal);
        Assert.Contains("proxy-username", output[0], StringComparison.Ordinal);
        Assert.DoesNotContain("0pen", output[0], StringComparison.Ordinal);
        await using var direct = new ScriptedPeer((request, _) => ScriptedPeer.Part(request, contents));
        int before = proxy.Count;
        output = await HostFault.RunAsync(null, "proxied", $"http://{proxy.Host}", "127.0.0.1", $"http://{direct.Host}/a");
        Assert.Equal(hash, output[0]);
        Assert.Equal(before, proxy.Count);
    }

    [Fact]
    public async Task What_says_who_asks_goes_to_the_host_that_was_named_and_to_no_other()
    {
        var seen = new List<string>();
        await using var other = new ScriptedPeer((request, _) =>
        {
            lock (seen)
            {
                seen.AddRange(request.Headers.Select(h => $"{h.Key}={h.Value}"));
            }
            return ScriptedPeer.Part(request, s_contents);
        });
        string basic = $"Basic {Convert.ToBase64String(Encoding.UTF8.GetBytes("me:s3cret"))}";
        await using var peer = new ScriptedPeer((request, _) =>
            request.Headers.GetValueOrDefault("authorization") == basic && request.Headers.GetValueOrDefault("cookie") == "c=1"
                && request.Headers.GetValueOrDefault("X-Token") == "t0ken"
                ? ScriptedPeer.Answer($"307 Temporary Redirect\r\nLocation: http://{other.Host}/elsewhere", [])
                : ScriptedPeer.Answer("401 Unauthorized", []));
        await using OpenedImage image = await OpenAsync(
            $"http://{peer.Host}/",
            ",\"username\":\"me\",\"password-secret\":\"p\",\"cookie\":\"c=1\",\"header-secret\":\"h\"",
            ("p", "s3cret"),
            ("h", "X-Token: t0ken"));
        await image.Node.ReadAsync(0, new byte[10]);
        Assert.NotEmpty(seen);
        Assert.DoesNotContain(seen, h => h.Contains("Basic", StringComparison.Ordinal) || h.Contains("c=1", StringComparison.Ordinal)
            || h.Contains("t0ken", StringComparison.Ordinal));
        var e = await Assert.ThrowsAsync<DiskImageException>(
            () => OpenAsync($"http://me:wr0ng@{peer.Host}/", ",\"cookie\":\"c=1\""));
        Assert.Equal(DiskImageErrorKind.AccessDenied, e.Kind);
        Assert.DoesNotContain("wr0ng", e.ToString(), StringComparison.Ordinal);
        var missing = await Assert.ThrowsAsync<DiskImageException>(
            () => OpenAsync($"http://{peer.Host}/", ",\"password-secret\":\"none\""));
        Assert.Equal(DiskImageErrorKind.InvalidOption, missing.Kind);
    }

    [Theory]
    [InlineData("http://{0}/a", true)]
    [InlineData("http://{0}", true)]
    [InlineData("127.0.0.1", true)]
    [InlineData("", false)]
    [InlineData("http://{0}/b", false)]
    public async Task A_user_that_was_given_for_a_server_is_named_to_it(string secret, bool isFor)
    {
        string basic = $"Basic {Convert.ToBase64String("me:s3cret"u8)}";
        bool isNamed = false;
        await using var peer = new ScriptedPeer((request, _) =>
        {
            isNamed |= request.Headers.GetValueOrDefault("authorization") == basic;
            return ScriptedPeer.Part(request, s_contents);
        });
        secret = secret.Replace("{0}", peer.Host, StringComparison.Ordinal);
        await using OpenedImage image = await OpenAsync(
            $"http://{peer.Host}/a?x", "", (secret, "s3cret"), (DiskImage.Drivers.SecretNames.UserOf(secret), "me"));
        Assert.Equal(isFor, isNamed);
    }

    [Fact]
    public async Task An_empty_object_is_an_empty_disk_and_writing_is_refused()
    {
        await using var peer = new ScriptedPeer(
            (_, _) => ScriptedPeer.Answer("416 Range Not Satisfiable\r\nContent-Range: bytes */0", []));
        await using OpenedImage image = await OpenAsync($"http://{peer.Host}/");
        Assert.Equal(0, image.Node.Length);
        var e = await Assert.ThrowsAsync<DiskImageException>(async () => await Images.Opener.OpenAsync(
            new OpenRequest($"http://{peer.Host}/") { Format = "raw", Writable = true }, CancellationToken.None));
        Assert.Equal(DiskImageErrorKind.ReadOnly, e.Kind);
    }
}
