using System.Buffers.Binary;
using System.Globalization;
using DiskImage.Block;
using DiskImage.Protocols.Sheepdog;

namespace DiskImage.Tests.Protocols.Sheepdog;

/// <summary>
/// Answers of gateways with bytes changed, left out, doubled and cut: only our exception, no more than was asked for, no hang. A sample;
/// as many conversations as DISKIMAGE_SHEEP_MUTATIONS says.
/// </summary>
public sealed class SheepMutationTests : IAsyncDisposable
{
    private const int Guard = 64, MostMemory = 256 << 10; // of one conversation

    private static readonly SheepRedundancy s_kept = new(Copies: 1, Policy: 0);

    private readonly ScriptedSheep _sheep = new();

    private static int Count => Environment.GetEnvironmentVariable("DISKIMAGE_SHEEP_MUTATIONS") is { Length: > 0 } text
        ? int.Parse(text, CultureInfo.InvariantCulture)
        : 20_000;

    public ValueTask DisposeAsync() => _sheep.DisposeAsync();

    [Fact]
    public void Mutated_answers_are_our_exception_or_leave_alone_what_was_not_asked_for()
    {
        var cluster = new ScriptedCluster();
        SheepRequest made = SheepRequest.New("disk", 4 << 20, 0, keepsPresent: false, s_kept, SheepWire.SmallestShift);
        Talk(cluster, new SheepSession("disk"), [made], answer => answer);
        byte[] own = new byte[SheepInode.Length];
        Talk(cluster, new SheepSession("disk"), [SheepRequest.Read(SheepWire.InodeOf(made.AnsweredVdi), 0, own)], answer => answer);
        SheepInode inode = SheepInode.Parse(own, made.AnsweredVdi, "disk");
        int refused = 0, count = Count;
        byte[] room = new byte[SheepInode.Length + 4096 + (3 * Guard)];
        for (int seed = 0; seed < count; seed++)
        {
            var random = new Random(seed);
            Array.Clear(room);
            cluster.Log.Clear();
            long before = GC.GetAllocatedBytesForCurrentThread();
            try
            {
                Converse(cluster, inode, room, random);
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
            Assert.False(
                room.AsSpan(0, Guard).ContainsAnyExcept((byte)0) || room.AsSpan(Guard + SheepInode.Length, Guard).ContainsAnyExcept((byte)0)
                    || room.AsSpan(room.Length - Guard).ContainsAnyExcept((byte)0),
                $"seed {seed}: bytes beside what was asked for");
        }
        Assert.InRange(refused, count / 10, count);
    }

    [Fact]
    public async Task A_node_whose_gateway_gives_mutated_answers_ends_with_our_exception_or_well()
    {
        const int Talks = 200;
        await SheepTalk.MakeAsync(_sheep.Url("disk"), SheepTalk.Bytes(4096, 1));
        int refused = 0;
        for (int seed = 0; seed < Talks; seed++)
        {
            var random = new Random(seed);
            int which = random.Next(6);
            _sheep.Damage = bytes => which-- == 0 ? Mutated(bytes, random) : bytes;
            try
            {
                using var stop = new CancellationTokenSource(150);
                await ReadAsync(stop.Token);
            }
            catch (Exception e) when (e is DiskImageException or OperationCanceledException)
            {
                refused++;
            }
            catch (Exception e)
            {
                Assert.Fail($"seed {seed}: {e}");
            }
        }
        _sheep.Damage = b => b;
        Assert.InRange(refused, Talks / 10, Talks);
        await ReadAsync(default);
    }

    private static void Converse(ScriptedCluster cluster, SheepInode inode, byte[] room, Random random)
    {
        var session = new SheepSession("disk");
        Memory<byte> described = room.AsMemory(Guard, SheepInode.Length), data = room.AsMemory((2 * Guard) + SheepInode.Length, 4096);
        SheepRequest[] requests =
        [
            SheepRequest.Find(SheepOperation.GetVdiInfo, "disk", "", 0),
            SheepRequest.Read(SheepWire.InodeOf(inode.Vdi), 0, described),
            SheepRequest.Create(SheepWire.DataOf(inode.Vdi, 0), null, 0, new byte[4096], inode),
            SheepRequest.Read(SheepWire.DataOf(inode.Vdi, 0), 0, data),
            SheepRequest.Write(SheepWire.DataOf(inode.Vdi, 0), 512, new byte[512], inode),
            SheepRequest.Flush(inode.Vdi),
        ];
        int damaged = random.Next(requests.Length), asked = 0;
        Talk(cluster, session, requests, answer =>
        {
            if (random.Next(40) == 0)
            {
                session.Abandon(requests[random.Next(requests.Length)]);
            }
            return asked++ >= damaged ? Mutated(answer, random) : answer;
        });
        foreach (SheepRequest request in session.TakeAnswered())
        {
            _ = $"{request.Result} {request.AnsweredVdi}";
        }
        if (!described.Span.ContainsAnyExcept((byte)0))
        {
            return;
        }
        SheepInode found = SheepInode.Parse(described.Span, inode.Vdi, "disk");
        Assert.InRange(found.Size, 0, found.MostSize);
        Assert.InRange(found.Objects, 0, SheepWire.MostObjects);
        _ = found.AsSnapshot();
    }

    /// <summary>Sends all, and takes what comes back for each.</summary>
    private static void Talk(ScriptedCluster cluster, SheepSession session, SheepRequest[] requests, Func<byte[], byte[]> change)
    {
        byte[] sent = new byte[64 << 10];
        Array.ForEach(requests, session.Begin);
        int length = session.Fill(sent);
        for (int at = 0; at < length;)
        {
            int payload = (sent[at + 2] & 1) != 0 ? BinaryPrimitives.ReadInt32LittleEndian(sent.AsSpan(at + 12)) : 0;
            Span<byte> answer = change(cluster.Answer(sent.AsSpan(at, SheepWire.HeaderLength + payload)));
            at += SheepWire.HeaderLength + payload;
            while (!answer.IsEmpty)
            {
                int count = Math.Min(answer.Length, session.Wanted.Length);
                answer[..count].CopyTo(session.Wanted.Span);
                session.Advance(count);
                answer = answer[count..];
            }
        }
    }

    private static byte[] Mutated(byte[] bytes, Random random)
    {
        byte[] mutated = [.. bytes];
        int front = Math.Min(bytes.Length, 700);
        switch (random.Next(5))
        {
            case 0:
                mutated[random.Next(front)] ^= (byte)(1 << random.Next(8));
                return mutated;
            case 1:
                mutated[random.Next(ScriptedCluster.Header)] = (byte)random.Next(256);
                return mutated;
            case 2:
                BinaryPrimitives.WriteInt32LittleEndian(mutated.AsSpan(12), random.Next());
                return mutated;
            case 3:
                return mutated[..random.Next(bytes.Length)];
            default:
                return [.. mutated, .. mutated];
        }
    }

    private async Task ReadAsync(CancellationToken cancellationToken)
    {
        await using SheepNode node = await SheepDriver.OpenAsync(
            SheepDriver.PlaceOf(_sheep.Url("disk")), writable: false, cancellationToken);
        await node.ReadAsync(0, new byte[Math.Min(node.Length, 4096)], cancellationToken);
        _ = await node.GetSnapshotsAsync(cancellationToken);
    }
}
