using System.Net.Sockets;
using DiskImage.Block;
using DiskImage.Exports;
using DiskImage.Graph;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Protocols.Nbd;

/// <summary>A session that was recorded, played to our client up to any of its bytes.</summary>
public sealed class NbdReplayTests : IDisposable
{
    private readonly TestFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public async Task A_connection_that_is_cut_at_any_byte_is_an_error_of_ours_or_the_end()
    {
        List<(bool IsServer, byte[] Bytes)> tape = await RecordAsync();
        int length = tape.Where(t => t.IsServer).Sum(t => t.Bytes.Length);
        Assert.InRange(length, 300, 3000);
        int opened = 0;
        for (int cut = 0; cut <= length; cut++)
        {
            string path = _folder[$"p{cut}"];
            using var listener = Listen(path);
            Task playing = PlayAsync(listener, tape, cut);
            Exception? e = await Record.ExceptionAsync(async () =>
            {
                await using OpenedImage image = await OpenAsync(path);
                opened++;
                await TalkAsync(image.Node);
            }).WaitAsync(TimeSpan.FromSeconds(30));
            Assert.True(e is DiskImageException || (cut == length && e is null), $"cut after {cut} of {length} bytes: {e}");
            await playing.WaitAsync(TimeSpan.FromSeconds(30));
            File.Delete(path);
        }
        Assert.InRange(opened, 100, length - 100);
    }

    private static async Task TalkAsync(BlockNode disk)
    {
        byte[] read = new byte[100];
        await disk.ReadAsync(512, read);
        Assert.DoesNotContain(read, b => b != 7);
        await disk.WriteAsync(4096, read);
        await disk.FlushAsync();
        Assert.True((await disk.GetExtentAsync(0, 8192)).Length > 0);
        var full = await Assert.ThrowsAsync<DiskImageException>(async () => await disk.WriteAsync(60_000, read));
        if (full.Kind != DiskImageErrorKind.NoSpace)
        {
            throw full; // not what the server said
        }
    }

    private async Task<List<(bool IsServer, byte[] Bytes)>> RecordAsync()
    {
        byte[] contents = new byte[64 << 10];
        Array.Fill(contents, (byte)7);
        await using ExportServer server = await ExportServer.StartAsync(
            new UnixDomainSocketEndPoint(_folder["server"]), [new ExportDisk("d", new PartlyFullNode(new MemoryNode(contents)))], null,
            CancellationToken.None);
        using Socket listener = Listen(_folder["tape"]);
        var tape = new List<(bool, byte[])>();
        Task recording = Task.Run(async () =>
        {
            using Socket client = await listener.AcceptAsync();
            using var behind = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
            await behind.ConnectAsync(new UnixDomainSocketEndPoint(_folder["server"]));
            await Task.WhenAll(PassAsync(client, behind, isServer: false), PassAsync(behind, client, isServer: true));
        });
        async Task PassAsync(Socket from, Socket to, bool isServer)
        {
            byte[] buffer = new byte[1 << 16];
            int count;
            while ((count = await from.ReceiveAsync(buffer)) > 0)
            {
                lock (tape)
                {
                    tape.Add((isServer, buffer[..count]));
                }
                await to.SendAsync(buffer.AsMemory(0, count));
            }
            to.Shutdown(SocketShutdown.Send);
        }
        await using (OpenedImage image = await OpenAsync(_folder["tape"]))
        {
            await TalkAsync(image.Node);
        }
        await recording.WaitAsync(TimeSpan.FromSeconds(30));
        return tape;
    }

    /// <summary>Waits for what the client said at each place, and answers as the server did, until so many bytes are sent.</summary>
    private static async Task PlayAsync(Socket listener, List<(bool IsServer, byte[] Bytes)> tape, int left)
    {
        using Socket client = await listener.AcceptAsync();
        try
        {
            foreach ((bool isServer, byte[] bytes) in tape)
            {
                if (isServer)
                {
                    int count = Math.Min(left, bytes.Length);
                    left -= count;
                    if (count > 0)
                    {
                        await client.SendAsync(bytes.AsMemory(0, count));
                    }
                    if (count < bytes.Length)
                    {
                        return;
                    }
                    continue;
                }
                byte[] said = new byte[bytes.Length];
                for (int got = 0, count; got < said.Length; got += count)
                {
                    if ((count = await client.ReceiveAsync(said.AsMemory(got))) == 0)
                    {
                        return;
                    }
                }
            }
        }
        catch (SocketException)
        {
            // the client has gone
        }
    }

    private static Socket Listen(string path)
    {
        var listener = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        listener.Bind(new UnixDomainSocketEndPoint(path));
        listener.Listen(4);
        return listener;
    }

    private static async Task<OpenedImage> OpenAsync(string path)
        => await Images.Opener.OpenAsync(
            new OpenRequest($$"""json:{"driver":"nbd","server.type":"unix","server.path":"{{path}}","export":"d","connections":1}""")
            {
                Format = "raw", Writable = true,
            },
            CancellationToken.None);

    /// <summary>A disk without room for its end.</summary>
    private sealed class PartlyFullNode(BlockNode disk) : FilterNode(disk)
    {
        protected override ValueTask WriteCoreAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
            => offset < 32_768
                ? base.WriteCoreAsync(offset, buffer, cancellationToken)
                : throw new DiskImageException(DiskImageErrorKind.NoSpace, "there is no room left");
    }
}
