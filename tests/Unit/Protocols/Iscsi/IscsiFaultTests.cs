using DiskImage.Block;
using DiskImage.Protocols.Iscsi;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Protocols.Iscsi;

/// <summary>What targets may do wrong, and what they may rightly do that is rare.</summary>
public sealed class IscsiFaultTests
{
    private static readonly byte[] s_attention = [0x70, 0, 6, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x29, 0x00, 0, 0, 0, 0];

    private static byte[] Contents(int length = 256 << 10, int seed = 3)
    {
        byte[] contents = new byte[length];
        new Random(seed).NextBytes(contents.AsSpan(length / 4, length / 2));
        return contents;
    }

    private static async Task<BlockNode> OpenAsync(ScriptedTarget target, string more = "", bool writable = true)
        => await Images.OpenAsync(
            $$"""json:{"driver":"iscsi","portal":"{{target.Portal}}","target":"{{ScriptedTarget.Name}}","lun":1{{more}}}""", "raw", writable);

    private static async Task<DiskImageException> FailsAsync(ScriptedTarget target, Func<BlockNode, Task> work, string more = NoReturn)
    {
        await using BlockNode disk = await OpenAsync(target, more);
        return await Assert.ThrowsAsync<DiskImageException>(() => work(disk));
    }

    private const string NoReturn = ",\"reconnect-delay\":0";

    private static async Task ReadAllAsync(BlockNode disk, byte[] expected)
    {
        byte[] read = new byte[expected.Length];
        await disk.ReadAsync(0, read);
        Assert.True(expected.AsSpan().SequenceEqual(read));
    }

    [Fact]
    public async Task A_login_that_is_cut_anywhere_is_one_error()
    {
        await using var target = new ScriptedTarget(Contents());
        for (int cut = 0; cut < 700; cut++)
        {
            target.Cuts.Enqueue(cut);
            DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(async () => await OpenAsync(target));
            Assert.Equal(DiskImageErrorKind.Io, error.Kind);
        }
        await using BlockNode whole = await OpenAsync(target);
        await ReadAllAsync(whole, target.Disk);
    }

    [Fact]
    public async Task A_session_that_is_cut_anywhere_is_taken_up_again()
    {
        byte[] model = Contents(64 << 10);
        await using var target = new ScriptedTarget([.. model]);
        long login = await LengthOfAsync(target);
        var random = new Random(7);
        for (int i = 0; i < 80; i++)
        {
            target.Cuts.Enqueue(login + (i < 50 ? i : random.Next(48 << 10)));
            target.Cuts.Enqueue(login + random.Next(20 << 10));
            await using BlockNode disk = await OpenAsync(target);
            random.NextBytes(model.AsSpan(1000, 40_000));
            await disk.WriteAsync(1000, model.AsMemory(1000, 40_000));
            await ReadAllAsync(disk, model);
            await disk.FlushAsync();
        }
        Assert.True(model.AsSpan().SequenceEqual(target.Disk));
    }

    /// <summary>Bytes that a target has sent when a unit is open.</summary>
    private static async Task<long> LengthOfAsync(ScriptedTarget target)
    {
        long sent = 0;
        target.Damage = b =>
        {
            sent += b.Length;
            return b;
        };
        BlockNode disk = await OpenAsync(target);
        long login = sent;
        await disk.DisposeAsync();
        target.Damage = b => b;
        return login;
    }

    [Fact]
    public async Task A_lost_connection_is_an_error_for_good_where_nobody_waits_for_it()
    {
        await using var target = new ScriptedTarget(Contents());
        target.Cuts.Enqueue(await LengthOfAsync(target) + 100);
        await using BlockNode disk = await OpenAsync(target, NoReturn);
        DiskImageException first = await Assert.ThrowsAsync<DiskImageException>(() => ReadAllAsync(disk, target.Disk));
        DiskImageException second = await Assert.ThrowsAsync<DiskImageException>(() => ReadAllAsync(disk, target.Disk));
        Assert.Contains("connection to the target is lost", first.Message, StringComparison.Ordinal);
        Assert.Equal(first.Message, second.Message);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task What_was_damaged_on_the_way_is_asked_for_again(bool always)
    {
        await using var target = new ScriptedTarget(Contents());
        (target.Keys["HeaderDigest"], target.Keys["DataDigest"]) = ("CRC32C", "CRC32C");
        const string Digests = ",\"header-digest\":\"crc32c\",\"data-digest\":\"crc32c\"";
        await using BlockNode disk = await OpenAsync(target, Digests);
        await ReadAllAsync(disk, target.Disk);
        int left = always ? int.MaxValue : 3, turn = 0;
        target.Damage = bytes =>
        {
            if (bytes.Length > 4000 && left-- > 0)
            {
                bytes[turn++ % 2 == 0 ? 30 : 2000] ^= 4; // of the header, of the data
            }
            return bytes;
        };
        if (!always)
        {
            await ReadAllAsync(disk, target.Disk);
            return;
        }
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(() => ReadAllAsync(disk, target.Disk));
        Assert.Contains("digest", error.Message, StringComparison.Ordinal);
    }

    private static readonly Dictionary<string, Action<ScriptedTarget.Pdu>> s_wrongRequests = new(StringComparer.Ordinal)
    {
        ["beyond"] = p => p[44] = 1 << 20,
        ["twice"] = p => p[40] = 0,
        ["later"] = p => p[40] += 512,
        ["nothing"] = p => p[44] = 0,
        ["number"] = p => p[36] += 1,
        ["tag"] = p => p[16] += 77,
        ["offset"] = p => p[40] = 0xFFFFFF00,
        ["data"] = p => p.Data = [1, 2, 3, 4],
    };

    public static TheoryData<string> WrongRequests => [.. s_wrongRequests.Keys];

    [Theory]
    [MemberData(nameof(WrongRequests))]
    public async Task Data_are_sent_only_as_they_may_be_asked_for(string what)
    {
        await using var target = new ScriptedTarget(Contents());
        target.Tamper = p =>
        {
            if (p.Opcode == 0x31)
            {
                s_wrongRequests[what](p);
            }
            return [p];
        };
        DiskImageException error = await FailsAsync(target, async disk => await disk.WriteAsync(0, new byte[200_000]));
        Assert.True(error.Kind == DiskImageErrorKind.Io && error.Message.Contains("does not keep to the iSCSI protocol"), what + error.Message);
    }

    private static readonly Dictionary<string, Action<ScriptedTarget.Pdu>> s_wrongAnswers = new(StringComparer.Ordinal)
    {
        ["tag"] = p => p[16] += 1,
        ["offset"] = p => p[40] += 4,
        ["huge offset"] = p => p[40] = 0x7FFFFFF0,
        ["kind"] = p => p.Header[0] = 0x3B,
        ["longer"] = p => p.Data = new byte[300_000],
        ["a bit longer"] = p => p.Data = new byte[60_000],
        ["reject"] = p => (p.Header[0], p.Header[2]) = (0x3F, 4),
        ["target failure"] = p => (p.Header[0], p.Header[2], p.Data) = (0x21, 1, []),
        ["gone"] = p => (p.Header[0], p.Header[36], p.Data) = (0x32, 2, []),
        ["text"] = p => (p.Header[0], p.Data) = (0x24, []),
        ["goodbye"] = p => (p.Header[0], p.Data) = (0x26, []),
        ["good too soon"] = p => (p.Header[0], p.Header[1], p.Data) = (0x21, 0x80, []),
        ["fewer"] = p => (p.Header[0], p.Header[1], p[44], p.Data) = (0x21, 0x82, 512, []),
    };

    public static TheoryData<string> WrongAnswers => [.. s_wrongAnswers.Keys];

    [Theory]
    [MemberData(nameof(WrongAnswers))]
    public async Task Answers_are_taken_only_as_they_may_come(string what)
    {
        await using var target = new ScriptedTarget(Contents());
        target.Tamper = p =>
        {
            if (p.Opcode == 0x25 && p.Data.Length == 4096)
            {
                s_wrongAnswers[what](p);
            }
            return [p];
        };
        byte[] around = new byte[40_000];
        DiskImageException error = await FailsAsync(
            target, async disk => await disk.ReadAsync(0, around.AsMemory(4096, 20_480)));
        Assert.True(error.Kind == DiskImageErrorKind.Io, what + error.Message);
        Assert.False(around.AsSpan(0, 4096).ContainsAnyExcept((byte)0));
        Assert.False(around.AsSpan(4096 + 20_480).ContainsAnyExcept((byte)0));
    }

    [Fact]
    public async Task A_unit_attention_is_heeded_by_asking_again()
    {
        await using var target = new ScriptedTarget(Contents());
        var seen = new Dictionary<byte, int>();
        target.Fail = cdb => (seen[cdb[0]] = seen.GetValueOrDefault(cdb[0]) + 1) <= 2 ? s_attention : null;
        await using BlockNode disk = await OpenAsync(target);
        await disk.WriteAsync(0, Contents(seed: 4));
        await disk.FlushAsync();
        await ReadAllAsync(disk, Contents(seed: 4));
        target.Fail = _ => s_attention;
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(() => ReadAllAsync(disk, target.Disk));
        Assert.Contains(
            "UNIT ATTENTION, power on, reset, or bus device reset occurred (key 6h, ASC/ASCQ 29h/00h)", error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(DiskImageErrorKind.Io, "MEDIUM ERROR, unrecovered read error (key 3h, ASC/ASCQ 11h/00h)", 0x72, 3, 0x11, 0)]
    [InlineData(DiskImageErrorKind.NoSpace, "DATA PROTECT, space allocation failed write protect (key 7h, ASC/ASCQ 27h/07h)", 0x72, 7, 0x27, 7)]
    [InlineData(DiskImageErrorKind.ReadOnly, "DATA PROTECT, write protected", 0x73, 7, 0x27, 0)]
    [InlineData(DiskImageErrorKind.Locked, "RESERVATION CONFLICT", 0x18)]
    [InlineData(DiskImageErrorKind.Io, "key 4h, ASC/ASCQ FEh/01h", 0x72, 4, 0xFE, 1)]
    public async Task What_a_target_says_is_said(DiskImageErrorKind kind, string says, params int[] sense)
    {
        await using var target = new ScriptedTarget(Contents());
        await using BlockNode disk = await OpenAsync(target);
        target.Fail = cdb => cdb[0] is 0x88 ? Array.ConvertAll(sense, s => (byte)s) : null;
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(async () => await disk.ReadAsync(1024, new byte[512]));
        Assert.Equal(kind, error.Kind);
        Assert.Contains(says, error.Message, StringComparison.Ordinal);
        Assert.Contains("512 bytes at offset 1,024", error.Message, StringComparison.Ordinal);
        target.Fail = _ => null;
        await ReadAllAsync(disk, target.Disk);
    }

    [Fact]
    public async Task A_flush_that_fails_ends_writing()
    {
        await using var target = new ScriptedTarget(Contents());
        await using BlockNode disk = await OpenAsync(target);
        target.Fail = cdb => cdb[0] == 0x35 ? [0x72, 3, 0x0C, 0] : null;
        await Assert.ThrowsAsync<DiskImageException>(async () => await disk.FlushAsync());
        target.Fail = _ => null;
        await Assert.ThrowsAsync<DiskImageException>(async () => await disk.FlushAsync());
        await Assert.ThrowsAsync<DiskImageException>(async () => await disk.WriteAsync(0, new byte[512]));
        await ReadAllAsync(disk, target.Disk);
    }

    [Fact]
    public async Task A_login_goes_where_it_is_sent_and_not_round_in_circles()
    {
        await using var there = new ScriptedTarget(Contents(seed: 9));
        await using var here = new ScriptedTarget(Contents()) { Redirect = () => $"{there.Portal},1" };
        await using (BlockNode disk = await OpenAsync(here))
        {
            await ReadAllAsync(disk, there.Disk);
        }
        there.Redirect = () => here.Portal;
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(async () => await OpenAsync(here));
        Assert.Contains("more than 8 times", error.Message, StringComparison.Ordinal);
        here.Redirect = () => "no address at all!";
        await Assert.ThrowsAsync<DiskImageException>(async () => await OpenAsync(here));
    }

    private static readonly Dictionary<string, Func<ScriptedTarget.Pdu, ScriptedTarget.Pdu>> s_wrongLogins = new(StringComparer.Ordinal)
    {
        ["stays for ever"] = p => Changed(p, flags: (byte)(p.Header[1] & 0x0C)),
        ["more for ever"] = p => Changed(p, flags: (byte)((p.Header[1] & 0x0C) | 0x40)),
        ["too much text"] = p => Changed(p, p.Header[1], new byte[8193]),
        ["goes too far"] = p => Changed(p, flags: 0x83),
        ["no key"] = p => Changed(p, p.Header[1], "nothing"u8.ToArray()),
        ["twice"] = p => Changed(p, p.Header[1], "AuthMethod=None\0AuthMethod=None\0"u8.ToArray()),
        ["refuses"] = p => Changed(p, p.Header[1], status: 0x0300),
        ["sends nowhere"] = p => Changed(p, p.Header[1], [], status: 0x0101),
        ["asks for Kerberos"] = p => Changed(p, 0, "AuthMethod=KRB5\0"u8.ToArray()),
        ["number"] = p => Changed(p, p.Header[1], "MaxBurstLength=99999999999\0"u8.ToArray()),
        ["digest"] = p => Changed(p, p.Header[1], "HeaderDigest=MD5\0"u8.ToArray()),
        ["word"] = p => Changed(p, p.Header[1], "InitialR2T=Perhaps\0"u8.ToArray()),
    };

    public static TheoryData<string> WrongLogins => [.. s_wrongLogins.Keys];

    private static ScriptedTarget.Pdu Changed(ScriptedTarget.Pdu pdu, byte flags, byte[]? text = null, int status = 0)
    {
        pdu.Header[1] = flags;
        (pdu.Header[36], pdu.Header[37]) = ((byte)(status >> 8), (byte)status);
        pdu.Data = text ?? pdu.Data;
        return pdu;
    }

    [Theory]
    [MemberData(nameof(WrongLogins))]
    public async Task A_login_comes_to_an_end(string what)
    {
        await using var target = new ScriptedTarget(Contents());
        target.Tamper = p => [p.Opcode == 0x23 ? s_wrongLogins[what](p) : p];
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(async () => await OpenAsync(target));
        Assert.True(error.Message.Contains(target.Portal, StringComparison.Ordinal), what + error.Message);
    }

    [Fact]
    public async Task Pings_are_answered_and_goodbyes_that_are_asked_for_said()
    {
        await using var target = new ScriptedTarget(Contents());
        int turn = 0;
        target.Tamper = p => p.Opcode == 0x21 && turn++ % 3 == 0
            ?
            [
                new ScriptedTarget.Pdu(0x20) { [16] = uint.MaxValue, [20] = 5, [24] = p[24], [28] = p[28], [32] = p[32], Data = [1, 2, 3] },
                p,
            ]
            : [p];
        await using BlockNode disk = await OpenAsync(target);
        await ReadAllAsync(disk, target.Disk);
        int logins = target.Logins;
        bool isAsked = false;
        target.Tamper = p =>
        {
            if (isAsked || p.Opcode != 0x21)
            {
                return [p];
            }
            isAsked = true;
            var ask = new ScriptedTarget.Pdu(0x32) { [24] = p[24], [28] = p[28], [32] = p[32] };
            ask.Header[36] = 1;
            return [ask, p];
        };
        await ReadAllAsync(disk, target.Disk);
        await Task.WhenAll(Enumerable.Range(0, 8).Select(_ => ReadAllAsync(disk, target.Disk)));
        Assert.Equal(logins + 1, target.Logins);
    }

    [Theory]
    [InlineData("Yes", "Yes", 1)]
    [InlineData("No", "Yes", 2)]
    [InlineData("No", "No", 32)]
    [InlineData("Yes", "No", 32)]
    public async Task Whatever_is_agreed_on_data_arrive(string initialR2T, string immediate, int window)
    {
        byte[] model = Contents(512 << 10);
        await using var target = new ScriptedTarget([.. model]) { Window = window };
        (target.Keys["InitialR2T"], target.Keys["ImmediateData"]) = (initialR2T, immediate);
        await using BlockNode disk = await OpenAsync(target);
        await Task.WhenAll(Enumerable.Range(0, 16).Select(async i =>
        {
            var random = new Random(i);
            for (int n = 0; n < 5; n++)
            {
                Memory<byte> part = model.AsMemory((i << 15) + (n * 1000), random.Next(1, 25_000));
                random.NextBytes(part.Span);
                await disk.WriteAsync((i << 15) + (n * 1000), part);
            }
        }));
        await ReadAllAsync(disk, model);
        Assert.True(model.AsSpan().SequenceEqual(target.Disk));
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Waiting_for_a_target_that_hangs_can_be_given_up(bool writes)
    {
        await using var target = new ScriptedTarget(Contents());
        await using BlockNode disk = await OpenAsync(target);
        target.Hangs = true;
        byte[] buffer = new byte[100_352];
        using var stop = new CancellationTokenSource();
        Task asked = writes ? disk.WriteAsync(0, buffer, stop.Token).AsTask() : disk.ReadAsync(0, buffer, stop.Token).AsTask();
        await Task.Delay(50);
        Assert.False(asked.IsCompleted);
        await stop.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => asked.WaitAsync(TimeSpan.FromSeconds(10)));
        buffer.AsSpan().Fill(7);
    }

    [Fact]
    public async Task A_target_that_does_not_answer_in_time_is_given_up()
    {
        await using var target = new ScriptedTarget(Contents());
        await using BlockNode disk = await OpenAsync(target, ",\"timeout\":1,\"reconnect-delay\":0");
        target.Hangs = true;
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(() => ReadAllAsync(disk, target.Disk));
        Assert.Contains("did not answer a command within 1 s", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Another_unit_in_the_place_of_the_lost_one_is_not_taken_for_it()
    {
        await using var target = new ScriptedTarget(Contents());
        target.Cuts.Enqueue(await LengthOfAsync(target));
        await using BlockNode disk = await OpenAsync(target);
        target.Tamper = p =>
        {
            if (p.Data is [0, 0x80, 0, 4, ..])
            {
                p.Data = [0, 0x80, 0, 4, .. "9876"u8];
            }
            return [p];
        };
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(() => ReadAllAsync(disk, target.Disk));
        Assert.Contains("is another unit", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Names_are_read_and_what_they_hide_is_not_said()
    {
        var driver = new IscsiDriver();
        object Options(string url) => driver.Bind(driver.Parse(url));
        Assert.Equal("iscsi://h/iqn.2026-11.x:y/3", driver.NameOf(Options("iscsi://h/iqn.2026-11.x:y/3")));
        Assert.Equal("iscsi://[::1]:44/iqn.2026-11.x:y/0", driver.NameOf(Options("ISCSI://me%se:c@ret@[::1]:44/iqn.2026-11.x:y/0")));
        Assert.Equal(driver.IdentityOf(Options("iscsi://a/iqn.2026-11.x:Y/1")), driver.IdentityOf(Options("iscsi://b:99/iqn.2026-11.x:y/1")));
        Assert.DoesNotContain("secret", Options("iscsi://me%secret@h/iqn.2026-11.x:y/3").ToString(), StringComparison.Ordinal);
        foreach (string url in new[] { "iser://h/iqn.a:b/1", "iscsi+iser://h/iqn.a:b/1", "iscsi://h/iqn.a:b/1?iser" })
        {
            DiskImageException refused = Assert.Throws<DiskImageException>(() => Options(url));
            Assert.Equal(DiskImageErrorKind.Unsupported, refused.Kind);
            Assert.Contains("iSER", refused.Message, StringComparison.Ordinal);
        }
        foreach (string url in new[]
        {
            "iscsi://me%secret@/iqn.a:b/1", "iscsi://me%secret@h:0/iqn.a:b/1", "iscsi://me%secret@h/iqn.a:b", "iscsi://me%secret@h/x/1",
            "iscsi://me%secret@h/iqn.a:b/1?what", "iscsi://me%secret@h/iqn.a:b/99999", "iscsi://me%secret@h/iqn.a:b/x",
        })
        {
            DiskImageException wrong = Assert.Throws<DiskImageException>(() => Options(url));
            Assert.Equal(DiskImageErrorKind.InvalidOption, wrong.Kind);
            Assert.DoesNotContain("secret", wrong.ToString(), StringComparison.Ordinal);
        }
        Assert.StartsWith("iqn.2008-11.org.linux-kvm:", IscsiIdentity.InitiatorName, StringComparison.Ordinal);
    }
}
