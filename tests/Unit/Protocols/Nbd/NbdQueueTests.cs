using System.Buffers.Binary;
using System.Net.Sockets;
using DiskImage.Block;
using DiskImage.Protocols.Nbd;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Protocols.Nbd;

/// <summary>How much a client asks for at once, also while it waits for a server to come back.</summary>
public sealed class NbdQueueTests
{
    private const int RequestLength = 28, Reads = NbdConnections.MostRequests + 40, ReadLength = 512;

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task No_more_than_so_many_requests_are_under_way(bool cutsFirst)
    {
        await using var server = new SilentServer(cutsFirst);
        await using BlockNode disk = await Images.OpenAsync(
            $$"""json:{"driver":"nbd","server.type":"inet","server.host":"127.0.0.1","server.port":"{{server.Port}}","reconnect-delay":30}""");
        Task[] reads = [.. Enumerable.Range(0, Reads).Select(i => disk.ReadAsync(i * ReadLength, new byte[ReadLength]).AsTask())];
        await server.Full.WaitAsync(TimeSpan.FromMinutes(1));
        Assert.Equal(NbdConnections.MostRequests, server.Seen);
        server.Answer();
        await Task.WhenAll(reads).WaitAsync(TimeSpan.FromMinutes(1));
        Assert.Equal(Reads, server.Seen);
    }

    /// <summary>An oldstyle server that answers nothing until it is told to, and then one request for each that came.</summary>
    private sealed class SilentServer : LoopbackServer
    {
        private static readonly TimeSpan s_quiet = TimeSpan.FromMilliseconds(300); // in which a request too many would come

        private readonly TaskCompletionSource _full = new(TaskCreationOptions.RunContinuationsAsynchronously);
        private readonly TaskCompletionSource _answers = new(TaskCreationOptions.RunContinuationsAsynchronously);
        private bool _cuts;

        public SilentServer(bool cutsFirst)
        {
            _cuts = cutsFirst;
            Listen();
        }

        /// <summary>Nothing more comes.</summary>
        public Task Full => _full.Task;

        /// <summary>Requests that came over the last connection.</summary>
        public int Seen { get; private set; }

        public void Answer() => _answers.TrySetResult();

        protected override async Task ServeAsync(NetworkStream client)
        {
            byte[] greeting = new byte[152];
            "NBDMAGIC"u8.CopyTo(greeting);
            BinaryPrimitives.WriteUInt64BigEndian(greeting.AsSpan(8), NbdWire.OldMagic);
            BinaryPrimitives.WriteInt64BigEndian(greeting.AsSpan(16), 1 << 20);
            BinaryPrimitives.WriteUInt32BigEndian(greeting.AsSpan(24), 1); // flags are told
            await client.WriteAsync(greeting, Ended);
            var requests = new Queue<byte[]>();
            while (requests.Count < NbdConnections.MostRequests)
            {
                requests.Enqueue(await RequestAsync(client));
                if (_cuts && requests.Count == NbdConnections.MostRequests / 2)
                {
                    _cuts = false;
                    return; // all of them are asked again
                }
            }
            Seen = requests.Count;
            await Task.Delay(s_quiet, Ended);
            Seen += client.DataAvailable ? 1 : 0;
            _full.SetResult();
            await _answers.Task.WaitAsync(Ended);
            byte[] reply = new byte[16 + ReadLength];
            BinaryPrimitives.WriteUInt32BigEndian(reply, 0x67446698); // simple
            while (requests.TryDequeue(out byte[]? request))
            {
                request.AsSpan(8, 8).CopyTo(reply.AsSpan(8)); // its cookie
                await client.WriteAsync(reply, Ended);
                if (Seen < Reads)
                {
                    requests.Enqueue(await RequestAsync(client));
                    Seen++;
                }
            }
            await RequestAsync(client); // the goodbye
        }

        private async Task<byte[]> RequestAsync(NetworkStream client)
        {
            byte[] request = new byte[RequestLength];
            await client.ReadExactlyAsync(request, Ended);
            return request;
        }
    }
}
