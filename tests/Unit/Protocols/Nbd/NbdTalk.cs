using DiskImage.Protocols.Nbd;

namespace DiskImage.Tests.Protocols.Nbd;

/// <summary>Two sides that talk to each other without a connection, in pieces of any length.</summary>
internal static class NbdTalk
{
    /// <summary>Carries bytes between two sides until both have said all, or neither has anything to say.</summary>
    /// <param name="client">One side.</param>
    /// <param name="server">The other.</param>
    /// <param name="piece">Bytes at a time.</param>
    /// <param name="change">Changes what one side sends; gets whether it is the server's.</param>
    public static void Handshake(NbdSteps client, NbdSteps server, Func<int> piece, Func<bool, byte[], byte[]>? change = null)
    {
        client.Start();
        server.Start();
        var toClient = new Queue<byte>();
        var toServer = new Queue<byte>();
        for (bool moves = true; moves;)
        {
            moves = Send(server, toClient, isServer: true) | Send(client, toServer, isServer: false);
            if (client.AwaitsTls && server.AwaitsTls)
            {
                client.Resume();
                server.Resume();
                moves = true;
            }
            moves |= Receive(client, toClient) | Receive(server, toServer);
        }

        bool Send(NbdSteps side, Queue<byte> wire, bool isServer)
        {
            byte[] output = side.TakeOutput().ToArray();
            foreach (byte value in change is null ? output : change(isServer, output))
            {
                wire.Enqueue(value);
            }
            return output.Length > 0;
        }

        bool Receive(NbdSteps side, Queue<byte> wire)
        {
            int count = Math.Min(Math.Min(wire.Count, side.Wanted.Length), piece());
            for (int i = 0; i < count; i++)
            {
                side.Wanted.Span[i] = wire.Dequeue();
            }
            if (count > 0)
            {
                side.Advance(count);
            }
            return count > 0;
        }
    }

    /// <summary>Gives a client's session bytes, in pieces.</summary>
    public static void Feed(NbdClientSession session, ReadOnlySpan<byte> bytes, Func<int> piece)
    {
        while (!bytes.IsEmpty)
        {
            Memory<byte> wanted = session.Wanted;
            int count = Math.Min(Math.Min(bytes.Length, wanted.Length), piece());
            bytes[..count].CopyTo(wanted.Span);
            session.Advance(count);
            bytes = bytes[count..];
        }
    }
}
