using System.Buffers.Binary;
using DiskImage.Block;
using DiskImage.Protocols.Nbd;

namespace DiskImage.Tests.Protocols.Nbd;

/// <summary>A client's session against answers of every shape, cut everywhere; and against the server's.</summary>
public sealed class NbdSessionTests
{
    private static readonly NbdExportInfo s_simple = new() { Length = 1 << 20 };

    private static readonly NbdExportInfo s_structured = s_simple with
    {
        IsStructured = true, Contexts = new Dictionary<string, uint>(StringComparer.Ordinal) { ["base:allocation"] = 5 },
    };

    public static TheoryData<int> Pieces => [1, 2, 3, 5, 17, 4096];

    private static NbdRequest Read(int length, long offset = 4096)
        => new() { Command = NbdCommand.Read, Offset = offset, Length = length, Buffer = new byte[length] };

    private static byte[] Chunk(int flags, NbdChunk chunk, ulong cookie, params byte[] payload)
    {
        byte[] bytes = new byte[20 + payload.Length];
        BinaryPrimitives.WriteUInt32BigEndian(bytes, NbdWire.StructuredReplyMagic);
        BinaryPrimitives.WriteUInt16BigEndian(bytes.AsSpan(4), (ushort)flags);
        BinaryPrimitives.WriteUInt16BigEndian(bytes.AsSpan(6), (ushort)chunk);
        BinaryPrimitives.WriteUInt64BigEndian(bytes.AsSpan(8), cookie);
        BinaryPrimitives.WriteUInt32BigEndian(bytes.AsSpan(16), (uint)payload.Length);
        payload.CopyTo(bytes, 20);
        return bytes;
    }

    private static byte[] Data(int flags, ulong cookie, long offset, params byte[] data)
        => Chunk(flags, NbdChunk.Data, cookie, [.. Big(offset), .. data]);

    private static byte[] Big(long value)
    {
        byte[] bytes = new byte[8];
        BinaryPrimitives.WriteInt64BigEndian(bytes, value);
        return bytes;
    }

    private static byte[] Big32(uint value)
    {
        byte[] bytes = new byte[4];
        BinaryPrimitives.WriteUInt32BigEndian(bytes, value);
        return bytes;
    }

    private static byte[] Simple(uint error, ulong cookie, params byte[] data)
        => [.. Big32(NbdWire.SimpleReplyMagic), .. Big32(error), .. Big((long)cookie), .. data];

    [Theory]
    [MemberData(nameof(Pieces))]
    public void Simple_answers_come_in_any_order(int piece)
    {
        var session = new NbdClientSession("server", s_simple);
        NbdRequest first = Read(3), second = Read(2);
        Assert.Equal(28, session.Begin(first, new byte[64]));
        _ = session.Begin(second, new byte[64]);
        NbdTalk.Feed(session, [.. Simple(0, 2, 8, 9), .. Simple(5, 1)], () => piece);
        Assert.Equal([second, first], session.TakeAnswered());
        Assert.Equal([8, 9], second.Buffer.ToArray());
        Assert.Equal((NbdError.None, NbdError.Io), (second.Error, first.Error));
        Assert.Equal(0, session.InFlight);
    }

    [Theory]
    [MemberData(nameof(Pieces))]
    public void Chunks_come_in_any_order_between_those_of_others(int piece)
    {
        var session = new NbdClientSession("server", s_structured);
        NbdRequest first = Read(6), second = Read(1), third = new() { Command = NbdCommand.BlockStatus, Length = 100 };
        foreach (NbdRequest request in new[] { first, second, third })
        {
            _ = session.Begin(request, new byte[64]);
        }
        first.Buffer.Span.Fill(0xff);
        byte[] status = [.. Big32(5), .. Big32(60), .. Big32(3), .. Big32(60), .. Big32(0)]; // the last goes on behind the question
        NbdTalk.Feed(
            session,
            [
                .. Data(0, 1, 4099, 4, 5, 6), .. Chunk(1, NbdChunk.BlockStatus, 3, status), .. Data(1, 2, 4096, 7),
                .. Chunk(0, NbdChunk.Hole, 1, [.. Big(4097), .. Big32(2)]), .. Data(0, 1, 4096, 1), .. Chunk(1, NbdChunk.None, 1),
            ],
            () => piece);
        Assert.Equal([third, second, first], session.TakeAnswered());
        Assert.Equal([1, 0, 0, 4, 5, 6], first.Buffer.ToArray());
        Assert.Equal([7], second.Buffer.ToArray());
        Assert.Equal([new NbdExtent(60, 3), new NbdExtent(40, 0)], third.Status[5]);
    }

    [Fact]
    public void An_error_in_the_middle_ends_with_the_answer_and_says_why()
    {
        var session = new NbdClientSession("server", s_structured);
        NbdRequest request = Read(4);
        _ = session.Begin(request, new byte[64]);
        NbdTalk.Feed(
            session,
            [
                .. Data(0, 1, 4096, 1), .. Chunk(0, NbdChunk.ErrorOffset, 1, [.. Big32(5), 0, 3, .. "bad"u8, .. Big(4097)]),
                .. Chunk(1, NbdChunk.Error, 1, [.. Big32(28), 0, 0]),
            ],
            () => 1);
        Assert.Same(request, Assert.Single(session.TakeAnswered()));
        Assert.Equal((NbdError.Io, "bad"), (request.Error, request.ErrorText));
    }

    [Fact]
    public void Nothing_goes_into_the_buffer_of_a_request_that_was_given_up()
    {
        var session = new NbdClientSession("server", s_simple);
        NbdRequest request = Read(4);
        Memory<byte> buffer = request.Buffer;
        _ = session.Begin(request, new byte[64]);
        byte[] answer = Simple(0, 1, 1, 2, 3, 4);
        NbdTalk.Feed(session, answer.AsSpan(0, 18), () => 100);
        NbdClientSession.Abandon(request);
        NbdTalk.Feed(session, answer.AsSpan(18), () => 100);
        Assert.Same(request, Assert.Single(session.TakeAnswered()));
        Assert.Equal([1, 2, 0, 0], buffer.ToArray());
    }

    public static TheoryData<string, byte[], bool> Wrongs => new()
    {
        { "wrong magic", [.. Big32(0x12345678), .. new byte[12]], true },
        { "unasked", Simple(0, 9), false },
        { "twice", [.. Simple(5, 1), .. Simple(5, 1)], false },
        { "simple where chunks were agreed on", Simple(0, 1, 1, 2, 3, 4), true },
        { "structured where none were", Data(1, 1, 4096, 1, 2, 3, 4), false },
        { "too early an end", [.. Data(0, 1, 4096, 1), .. Chunk(1, NbdChunk.None, 1)], true },
        { "one byte twice", [.. Data(0, 1, 4096, 1, 2), .. Data(1, 1, 4097, 1, 2, 3)], true },
        { "before the range", Data(1, 1, 4095, 1, 2, 3, 4), true },
        { "behind the range", Data(1, 1, 4097, 1, 2, 3, 4), true },
        { "2^63", Data(1, 1, long.MinValue, 1, 2, 3, 4), true },
        { "no data", Chunk(1, NbdChunk.Data, 1, Big(4096)), true },
        { "a long chunk", Chunk(1, NbdChunk.Data, 1, new byte[100]), true },
        { "a hole of nothing", Chunk(1, NbdChunk.Hole, 1, [.. Big(4096), .. Big32(0)]), true },
        { "a hole of 4 GiB", Chunk(1, NbdChunk.Hole, 1, [.. Big(4096), .. Big32(uint.MaxValue)]), true },
        { "status of a read", Chunk(1, NbdChunk.BlockStatus, 1, [.. Big32(5), .. Big32(4), .. Big32(0)]), true },
        { "data for a question", Data(1, 2, 0, 1), true },
        { "status of another context", Chunk(1, NbdChunk.BlockStatus, 2, [.. Big32(6), .. Big32(4), .. Big32(0)]), true },
        { "an extent of nothing", Chunk(1, NbdChunk.BlockStatus, 2, [.. Big32(5), .. Big32(0), .. Big32(0)]), true },
        { "half an extent", Chunk(1, NbdChunk.BlockStatus, 2, [.. Big32(5), .. Big32(4), .. Big32(0), .. Big32(1)]), true },
        { "no status at all", Chunk(1, NbdChunk.None, 2), true },
        { "an error without a number", Chunk(1, NbdChunk.Error, 1, [.. Big32(0), 0, 0]), true },
        { "an error's text that is too long", Chunk(1, NbdChunk.Error, 1, [.. Big32(5), 0, 9, 65]), true },
        { "a chunk of no type", Chunk(1, (NbdChunk)77, 1, 0), true },
        { "nothing, and more to come", Chunk(0, NbdChunk.None, 1), true },
    };

    [Theory]
    [MemberData(nameof(Wrongs))]
    public void What_the_protocol_does_not_allow_ends_the_conversation(string what, byte[] answer, bool structured)
    {
        var session = new NbdClientSession("server", structured ? s_structured : s_simple);
        _ = session.Begin(Read(4), new byte[64]);
        _ = session.Begin(new NbdRequest { Command = NbdCommand.BlockStatus, Length = 100 }, new byte[64]);
        var e = Assert.Throws<DiskImageException>(() => NbdTalk.Feed(session, answer, () => 1));
        Assert.True(e.Kind == DiskImageErrorKind.Io, what);
    }

    [Theory]
    [InlineData(false, false)]
    [InlineData(true, false)]
    [InlineData(true, true)]
    public void Both_sessions_understand_each_other(bool structured, bool extended)
    {
        byte[] disk = new byte[1 << 16];
        var random = new Random(7);
        random.NextBytes(disk);
        NbdExportInfo info = s_structured with { IsStructured = structured, IsExtended = extended };
        var client = new NbdClientSession("server", info);
        var server = new NbdServerSession("client", structured, extended);
        var waiting = new List<(NbdRequest Request, byte[]? Expected)>();
        var answers = new List<byte[]>();
        byte[] header = new byte[64];
        for (int round = 0; round < 2000; round++)
        {
            long offset = random.Next(disk.Length - 300);
            int length = random.Next(1, 300);
            byte[] payload = new byte[length];
            random.NextBytes(payload);
            NbdRequest request = random.Next(structured ? 4 : 3) switch
            {
                0 => new() { Command = NbdCommand.Write, Offset = offset, Length = length, Payload = payload },
                1 => new() { Command = NbdCommand.WriteZeroes, Offset = offset, Length = length, Flags = NbdCommandFlags.NoHole },
                2 => Read(length, offset),
                _ => new() { Command = NbdCommand.BlockStatus, Offset = offset, Length = length },
            };
            int head = client.Begin(request, header);
            byte[] sent = [.. header[..head], .. request.Payload.Span];
            NbdAsked asked = Receive(server, sent, random, disk);
            Assert.Equal((request.Command, (ulong)offset, (ulong)length), (asked.Command, asked.Offset, asked.Length));
            answers.Add(Answer(server, asked, disk));
            waiting.Add((request, request.Command == NbdCommand.Read ? disk[(int)offset..(int)(offset + length)] : null));
            if (random.Next(8) != 0)
            {
                continue;
            }
            random.Shuffle(System.Runtime.InteropServices.CollectionsMarshal.AsSpan(answers));
            foreach (byte[] answer in answers)
            {
                NbdTalk.Feed(client, answer, () => random.Next(1, 50));
            }
            answers.Clear();
            Assert.Equal(waiting.Count, client.TakeAnswered().Length);
            foreach ((NbdRequest done, byte[]? expected) in waiting)
            {
                Assert.Equal(NbdError.None, done.Error);
                Assert.True(expected is null || expected.AsSpan().SequenceEqual(done.Buffer.Span));
                Assert.True(done.Command != NbdCommand.BlockStatus || done.Status[5][0].Length == done.Length);
            }
            waiting.Clear();
        }
    }

    private static NbdAsked Receive(NbdServerSession server, byte[] bytes, Random random, byte[] disk)
    {
        for (int at = 0; !server.IsComplete;)
        {
            if (server.Asked is { HasPayload: true } asked && !s_taken.Contains(asked))
            {
                server.Take(disk.AsMemory((int)asked.Offset, (int)asked.Length));
                _ = s_taken.Add(asked);
            }
            int count = Math.Min(Math.Min(random.Next(1, 40), bytes.Length - at), server.Wanted.Length);
            bytes.AsSpan(at, count).CopyTo(server.Wanted.Span);
            server.Advance(count);
            at += count;
        }
        NbdAsked complete = server.Asked!.Value;
        server.Next();
        return complete;
    }

    [ThreadStatic]
    private static HashSet<NbdAsked>? s_takenByThread;

    private static HashSet<NbdAsked> s_taken => s_takenByThread ??= [];

    private static byte[] Answer(NbdServerSession server, NbdAsked asked, byte[] disk)
    {
        byte[] answer = new byte[1000];
        switch (asked.Command)
        {
            case NbdCommand.Read:
                server.AnswerPiece(asked, new NbdPiece((long)asked.Offset, (int)asked.Length, IsHole: false), isLast: true, answer);
                int head = server.PieceHead(isHole: false);
                disk.AsSpan((int)asked.Offset, (int)asked.Length).CopyTo(answer.AsSpan(head));
                return answer[..(head + (int)asked.Length)];
            case NbdCommand.BlockStatus:
                return server.AnswerStatus(asked, 5, [new NbdExtent((long)asked.Length, 2)], isLast: true);
            case NbdCommand.WriteZeroes:
                disk.AsSpan((int)asked.Offset, (int)asked.Length).Clear();
                break;
            default:
                break;
        }
        return answer[..server.Answer(asked, NbdError.None, answer)];
    }
}
