using System.Globalization;
using DiskImage.Block;
using DiskImage.Protocols.Nbd;

namespace DiskImage.Tests.Protocols.Nbd;

/// <summary>
/// Messages of both sides with bytes changed, left out, doubled and cut: only our exception, little memory, no hang. A sample; as many as
/// DISKIMAGE_NBD_MUTATIONS says.
/// </summary>
public sealed class NbdMutationTests
{
    private const int MostMemory = 64 << 20; // of one conversation: two of the longest messages that are taken in, and the rest

    private static readonly NbdOffer s_disk = new()
    {
        Name = "disk", Description = "a disk", Length = 1 << 20, Flags = NbdExportFlags.HasFlags,
        Contexts = [NbdWire.AllocationContext, NbdWire.DepthContext],
    };

    private static int Count => Environment.GetEnvironmentVariable("DISKIMAGE_NBD_MUTATIONS") is { Length: > 0 } text
        ? int.Parse(text, CultureInfo.InvariantCulture)
        : 20_000;

    [Fact]
    public void Mutated_messages_lead_to_our_exception_or_nowhere()
    {
        int refused = 0, count = Count;
        for (int seed = 0; seed < count; seed++)
        {
            var random = new Random(seed);
            long before = GC.GetAllocatedBytesForCurrentThread();
            try
            {
                switch (seed % 4)
                {
                    case 0 or 1:
                        Handshake(random);
                        break;
                    case 2:
                        Answers(random);
                        break;
                    default:
                        Requests(random);
                        break;
                }
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

    private static void Handshake(Random random)
    {
        var client = new NbdClientHandshake(
            "server", new NbdWishes { Export = "disk", ListsOnly = random.Next(3) == 0, Tls = random.Next(5) == 0, Extended = random.Next(2) == 0 });
        var server = new NbdServerHandshake("client", new NbdServerOffer([s_disk], HasTls: random.Next(2) == 0));
        int messages = random.Next(8);
        bool ofServer = random.Next(2) == 0;
        NbdTalk.Handshake(
            client, server, () => 4096, (isServer, bytes) => isServer == ofServer && messages-- == 0 ? Mutate(random, bytes) : bytes);
    }

    private static void Answers(Random random)
    {
        bool extended = random.Next(2) == 0;
        var client = new NbdClientSession("server", new NbdExportInfo
        {
            Length = 1 << 20, IsStructured = true, IsExtended = extended,
            Contexts = new Dictionary<string, uint>(StringComparer.Ordinal) { ["a"] = 0 },
        });
        var server = new NbdServerSession("client", isStructured: true, extended);
        byte[] answers = [];
        for (int i = 0; i < 4; i++)
        {
            var command = i == 3 ? NbdCommand.BlockStatus : i == 2 ? NbdCommand.Flush : NbdCommand.Read;
            var request = new NbdRequest { Command = command, Length = 64, Buffer = new byte[64] };
            _ = client.Begin(request, new byte[64]);
            var asked = new NbdAsked(command, 0, request.Cookie, 0, 64, false);
            byte[] answer = new byte[200];
            if (command == NbdCommand.Read)
            {
                int data = server.PieceHead(isHole: false), hole = server.PieceHead(isHole: true);
                server.AnswerPiece(asked, new NbdPiece(0, 40, IsHole: false), isLast: false, answer);
                server.AnswerPiece(asked, new NbdPiece(40, 24, IsHole: true), isLast: true, answer.AsSpan(data + 40));
                answer = answer[..(data + 40 + hole)];
            }
            else
            {
                answer = command == NbdCommand.BlockStatus
                    ? server.AnswerStatus(asked, 0, [new(32, 1), new(32, 0)], isLast: true)
                    : answer[..server.Answer(asked, (NbdError)random.Next(6), answer)];
            }
            answers = [.. answers, .. answer];
        }
        NbdTalk.Feed(client, Mutate(random, answers), () => 4096);
    }

    private static void Requests(Random random)
    {
        bool extended = random.Next(2) == 0;
        var client = new NbdClientSession("server", new NbdExportInfo { Length = 1 << 20, IsStructured = true, IsExtended = extended });
        var server = new NbdServerSession("client", isStructured: true, extended);
        byte[] bytes = [], header = new byte[64];
        for (int i = 0; i < 4; i++)
        {
            var request = new NbdRequest { Command = (NbdCommand)(i % 2), Offset = 100, Length = 50, Payload = new byte[i % 2 * 50] };
            int head = client.Begin(request, header);
            bytes = [.. bytes, .. header[..head], .. request.Payload.Span];
        }
        ReadOnlySpan<byte> left = Mutate(random, bytes);
        while (!left.IsEmpty)
        {
            int count = Math.Min(left.Length, server.Wanted.Length);
            left[..count].CopyTo(server.Wanted.Span);
            server.Advance(count);
            left = left[count..];
            if (server.IsComplete)
            {
                server.Next();
            }
        }
    }

    private static byte[] Mutate(Random random, byte[] bytes)
    {
        List<byte> changed = [.. bytes];
        for (int i = random.Next(1, 4); i > 0 && changed.Count > 0; i--)
        {
            int at = random.Next(changed.Count), length = Math.Min(random.Next(1, 9), changed.Count - at);
            switch (random.Next(5))
            {
                case 0:
                    changed[at] ^= (byte)(1 << random.Next(8));
                    break;
                case 1:
                    for (int k = 0; k < length; k++)
                    {
                        changed[at + k] = (byte)(random.Next(2) * 255);
                    }
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
