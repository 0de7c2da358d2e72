using System.Buffers.Binary;
using System.Net.Sockets;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Protocols.Sheepdog;

/// <summary>A gateway to a cluster in memory: serves it over TCP, and what it says can be changed, cut off, held back.</summary>
internal sealed class ScriptedSheep : LoopbackServer
{
    private long _requests;

    public ScriptedSheep(ScriptedCluster? cluster = null)
    {
        Cluster = cluster ?? new ScriptedCluster();
        Listen();
    }

    public ScriptedCluster Cluster { get; }

    /// <summary>Requests that have come, over all connections.</summary>
    public long Requests => Interlocked.Read(ref _requests);

    /// <summary>The bytes of each answer go through it.</summary>
    public Func<byte[], byte[]> Damage { get; set; } = b => b;

    /// <summary>After so many requests that were done, counted from now, the connection is cut without an answer; -1 for never.</summary>
    public long CutAfter { get; set; } = -1;

    /// <summary>Bytes of answers that are sent before the connection is cut; -1 for all.</summary>
    public long CutAfterBytes { get; set; } = -1;

    /// <summary>Nothing is answered any more.</summary>
    public volatile bool Hangs;

    public string Url(string vdi) => $"sheepdog://127.0.0.1:{Port}/{vdi}";

    protected override async Task ServeAsync(NetworkStream client)
    {
        byte[] header = new byte[ScriptedCluster.Header];
        while (true)
        {
            await client.ReadExactlyAsync(header);
            int length = (header[2] & 1) != 0 ? BinaryPrimitives.ReadInt32LittleEndian(header.AsSpan(12)) : 0;
            byte[] request = [.. header, .. new byte[length]];
            await client.ReadExactlyAsync(request.AsMemory(ScriptedCluster.Header));
            _ = Interlocked.Increment(ref _requests);
            byte[] answer;
            lock (Cluster)
            {
                if (CutAfter == 0)
                {
                    return;
                }
                CutAfter -= CutAfter > 0 ? 1 : 0;
                answer = Damage(Cluster.Answer(request));
            }
            while (Hangs)
            {
                await Task.Delay(20, Ended);
            }
            int count = CutAfterBytes < 0 ? answer.Length : (int)Math.Min(CutAfterBytes, answer.Length);
            CutAfterBytes -= CutAfterBytes < 0 ? 0 : count;
            await client.WriteAsync(answer.AsMemory(0, count));
            if (count < answer.Length)
            {
                return;
            }
        }
    }
}
