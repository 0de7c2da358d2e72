using System.Globalization;
using System.Text;
using DiskImage.Block;
using DiskImage.Protocols.Ssh;
using static DiskImage.Tests.Protocols.Ssh.SftpAnswers;

namespace DiskImage.Tests.Protocols.Ssh;

/// <summary>A client's session against answers of every shape, cut everywhere, changed everywhere.</summary>
public sealed class SftpSessionTests
{
    private const int MostMemory = 4 << 20; // of one conversation: a few of the longest answers that are taken in
    private static readonly byte[] s_handle = [1, 2, 3];

    private static int Count => Environment.GetEnvironmentVariable("DISKIMAGE_SSH_MUTATIONS") is { Length: > 0 } text
        ? int.Parse(text, CultureInfo.InvariantCulture)
        : 20_000;

    /// <summary>Requests of every kind, by the numbers 1 and up.</summary>
    private static SftpRequest[] Requests() =>
    [
        SftpRequest.Limits(), SftpRequest.OfPath(SftpPacket.RealPath, "a/b"), SftpRequest.OfPath(SftpPacket.Stat, "a"),
        SftpRequest.Open("a", SftpOpen.Read), SftpRequest.OfHandle(SftpPacket.FileStat, s_handle),
        SftpRequest.Read(s_handle, 4096, new byte[5]), SftpRequest.Read(s_handle, 0, new byte[300]),
        SftpRequest.Write(s_handle, 7, new byte[3]), SftpRequest.Sync(s_handle), SftpRequest.FileSystem(s_handle),
        SftpRequest.Set(s_handle, new SftpAttributes(Size: 5)), SftpRequest.Rename("a", "b"), SftpRequest.Replace("a", "b"),
        SftpRequest.OfPath(SftpPacket.LinkStat, "a"), SftpRequest.OfHandle(SftpPacket.Close, s_handle),
    ];

    private static byte[][] Replies() =>
    [
        Limits(1, 262144, 261120, 261120), Name(2, "/home/a/b"), Attributes(3, 1L << 40), Handle(4, "xyz"), Attributes(5, 9),
        Data(6, 10, 11, 12, 13, 14), Data(7, [.. Enumerable.Range(0, 200).Select(i => (byte)i)]), Status(8, SftpStatus.Ok),
        Status(9, SftpStatus.Failure, "Failure"), Room(10, 77), Status(11, SftpStatus.PermissionDenied, "Permission denied"),
        Status(12, SftpStatus.Ok), Packet(SftpPacket.Status, 13, Number(0)), Status(14, SftpStatus.NoSuchFile), Status(15, SftpStatus.Ok),
    ];

    private static (SftpSession Session, SftpRequest[] Requests) Begin()
    {
        var session = new SftpSession("server");
        Assert.Empty(Feed(session, Version(3, SftpWire.Limits, SftpWire.FileSync), () => 3));
        SftpRequest[] requests = Requests();
        foreach (SftpRequest request in requests)
        {
            _ = session.Begin(request, new byte[1024]);
        }
        return (session, requests);
    }

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    [InlineData(5)]
    [InlineData(17)]
    [InlineData(100_000)]
    public void Answers_come_in_any_order_and_in_any_pieces(int piece)
    {
        for (int seed = 0; seed < 20; seed++)
        {
            (SftpSession session, SftpRequest[] requests) = Begin();
            byte[][] replies = Replies();
            new Random(seed).Shuffle(replies);
            List<SftpRequest> answered = Feed(session, replies.SelectMany(r => r).ToArray(), () => piece);
            Assert.Equal(requests.Length, answered.Count);
            Assert.Equal(0, session.InFlight);
            Assert.Equal("/home/a/b", Encoding.UTF8.GetString(requests[1].Answer));
            Assert.Equal(1L << 40, requests[2].Attributes.Size);
            Assert.Equal(0x1A4u, requests[2].Attributes.Rights);
            Assert.Equal("xyz"u8, requests[3].Answer);
            Assert.Equal([10, 11, 12, 13, 14], requests[5].Buffer.ToArray());
            Assert.Equal(200, requests[6].Received);
            Assert.Equal(199, requests[6].Buffer.Span[199]);
            Assert.Equal(SftpStatus.Failure, requests[8].Status);
            Assert.Equal(SftpStatus.PermissionDenied, requests[10].Status);
            Assert.Equal(SftpStatus.Ok, requests[12].Status);
            Assert.True(session.Has(SftpWire.FileSync) && !session.Has(SftpWire.PosixRename));
        }
    }

    [Fact]
    public void A_request_is_what_the_draft_says()
    {
        var session = new SftpSession("server");
        byte[] header = new byte[100];
        int length = session.Begin(SftpRequest.Write([0xAA], 0x0102030405060708, new byte[4]), header);
        Assert.Equal(
            [0, 0, 0, 26, 6, 0, 0, 0, 1, 0, 0, 0, 1, 0xAA, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 4], header[..length]);
        length = session.Begin(SftpRequest.Set([0xAA], new SftpAttributes(Size: 2, Owner: (3, 4), Permissions: 5)), header);
        Assert.Equal(
            [0, 0, 0, 34, 10, 0, 0, 0, 2, 0, 0, 0, 1, 0xAA, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 5],
            header[..length]);
        length = session.Begin(SftpRequest.Open("é", SftpOpen.Read | SftpOpen.Write), header);
        Assert.Equal([0, 0, 0, 19, 3, 0, 0, 0, 3, 0, 0, 0, 2, 0xC3, 0xA9, 0, 0, 0, 3, 0, 0, 0, 0], header[..length]);
    }

    [Fact]
    public void What_is_given_up_is_not_touched_any_more()
    {
        (SftpSession session, SftpRequest[] requests) = Begin();
        byte[] reply = Data(6, 10, 11, 12, 13, 14);
        Memory<byte> buffer = requests[5].Buffer;
        Feed(session, reply.AsSpan(0, 15), () => 100);
        SftpSession.Abandon(requests[5]);
        Assert.Single(Feed(session, reply.AsSpan(15), () => 100));
        Assert.Equal([10, 11, 0, 0, 0], buffer.ToArray());
        Assert.Single(Feed(session, Data(7, 1), () => 100));
    }

    public static TheoryData<string, byte[]> Wrong => new()
    {
        { "an answer that nobody waits for", Status(99, SftpStatus.Ok) },
        { "twice", [.. Status(8, SftpStatus.Ok), .. Status(8, SftpStatus.Ok)] },
        { "data to a write", Data(8, 1) },
        { "attributes to an open", Attributes(4, 1) },
        { "a handle to a read", Handle(6, "x") },
        { "more than was asked for", Data(6, 1, 2, 3, 4, 5, 6) },
        { "no data", Data(6) },
        { "data of another length than said", Packet(SftpPacket.Data, 6, 0, 0, 0, 3, 1, 2) },
        { "all is well, and no data", Status(6, SftpStatus.Ok) },
        { "all is well, and no handle", Status(4, SftpStatus.Ok) },
        { "an empty handle", Handle(4, "") },
        { "a handle that is too long", Handle(4, new string('x', 257)) },
        { "a handle that is cut short", Packet(SftpPacket.Handle, 4, 0, 0, 0, 9, 1) },
        { "two names", Packet(SftpPacket.Name, 2, [.. Number(2), .. Text("a"), .. Text("a"), .. Number(0)]) },
        { "a name with a NUL", Name(2, "a\0b") },
        { "an empty name", Name(2, "") },
        { "attributes that are cut short", Packet(SftpPacket.Attributes, 3, [.. Number(15), .. Long(5)]) },
        { "a size below zero", Attributes(3, -1) },
        { "a text that is cut short", Packet(SftpPacket.Status, 8, [.. Number(4), .. Number(100), 65]) },
        { "an answer that is too long", [0x7F, 0xFF, 0xFF, 0xFF, (byte)SftpPacket.Status, 0, 0, 0, 8] },
        { "an answer that is too short", [0, 0, 0, 5, (byte)SftpPacket.Status, 0, 0, 0, 8] },
        { "a request", Packet(SftpPacket.Read, 6, new byte[20]) },
    };

    [Theory]
    [MemberData(nameof(Wrong))]
    public void What_does_not_keep_to_the_protocol_is_refused(string what, byte[] answer)
    {
        (SftpSession session, _) = Begin();
        var e = Assert.Throws<DiskImageException>(() => Feed(session, answer, () => 1));
        Assert.True(e.Kind == DiskImageErrorKind.Io && e.Message.Contains("does not keep to SFTP"), what);
    }

    [Fact]
    public void What_greets_otherwise_is_refused()
    {
        foreach ((byte[] greeting, DiskImageErrorKind kind) in new[]
        {
            ("Welcome to the jungle"u8.ToArray(), DiskImageErrorKind.Io), (Version(2), DiskImageErrorKind.Unsupported),
            (Packet(SftpPacket.Version, 3, 0, 0, 0, 200, 1), DiskImageErrorKind.Io),
            (Packet(SftpPacket.Version, 3, [.. Text("lone")]), DiskImageErrorKind.Io),
            (Status(3, SftpStatus.Ok), DiskImageErrorKind.Io), ([0xFF, 0xFF, 0xFF, 0xFF, 2, 0, 0, 0, 3], DiskImageErrorKind.Io),
        })
        {
            Assert.Equal(kind, Assert.Throws<DiskImageException>(() => Feed(new SftpSession("server"), greeting, () => 1)).Kind);
        }
        var newer = new SftpSession("server");
        Feed(newer, Version(6), () => 1);
        Assert.True(newer.IsReady);
    }

    [Fact]
    public void Mutated_answers_lead_to_our_exception_or_nowhere()
    {
        int refused = 0, count = Count;
        for (int seed = 0; seed < count; seed++)
        {
            var random = new Random(seed);
            long before = GC.GetAllocatedBytesForCurrentThread();
            try
            {
                var session = new SftpSession("server");
                byte[] greeting = Version(3, SftpWire.Limits, "x");
                Feed(session, random.Next(8) == 0 ? Mutate(random, greeting) : greeting, () => random.Next(1, 40));
                foreach (SftpRequest request in Requests())
                {
                    _ = session.Begin(request, new byte[1024]);
                }
                byte[][] replies = Replies();
                random.Shuffle(replies);
                byte[] all = [.. replies.SelectMany(r => r)];
                Feed(session, Mutate(random, all), () => random.Next(1, 400));
            }
            catch (DiskImageException)
            {
                refused++;
            }
            catch (Exception e)
            {
                Assert.Fail($"seed {seed}: {e}");
            }
            long took = GC.GetAllocatedBytesForCurrentThread() - before;
            Assert.True(took < MostMemory, $"seed {seed}: {took:#,0} bytes of memory for one conversation");
        }
        Assert.InRange(refused, count / 10, count);
    }

    private static byte[] Mutate(Random random, byte[] bytes)
    {
        var changed = new List<byte>(bytes);
        for (int i = random.Next(1, 4); i > 0 && changed.Count > 0; i--)
        {
            int at = random.Next(changed.Count), length = random.Next(1, Math.Min(20, changed.Count - at) + 1);
            switch (random.Next(5))
            {
                case 0:
                    changed[at] ^= (byte)(1 << random.Next(8));
                    break;
                case 1:
                    changed[at] = (byte)(random.Next(2) == 0 ? 0xFF : 0);
                    break;
                case 2:
                    changed.RemoveRange(at, length);
                    break;
                case 3:
                    changed.InsertRange(at, changed.GetRange(at, length));
                    break;
                default:
                    changed.RemoveRange(at, changed.Count - at);
                    break;
            }
        }
        return [.. changed];
    }
}
