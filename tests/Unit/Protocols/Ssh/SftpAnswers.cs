using System.Buffers.Binary;
using System.Text;
using DiskImage.Protocols.Ssh;

namespace DiskImage.Tests.Protocols.Ssh;

/// <summary>Packets as a server sends them.</summary>
internal static class SftpAnswers
{
    public static byte[] Number(uint value)
    {
        byte[] bytes = new byte[4];
        BinaryPrimitives.WriteUInt32BigEndian(bytes, value);
        return bytes;
    }

    public static byte[] Long(ulong value)
    {
        byte[] bytes = new byte[8];
        BinaryPrimitives.WriteUInt64BigEndian(bytes, value);
        return bytes;
    }

    public static byte[] Text(params byte[] bytes) => [.. Number((uint)bytes.Length), .. bytes];

    public static byte[] Text(string text) => Text(Encoding.UTF8.GetBytes(text));

    public static byte[] Packet(SftpPacket type, uint id, params byte[] body)
        => [.. Number((uint)(5 + body.Length)), (byte)type, .. Number(id), .. body];

    public static byte[] Version(uint version, params string[] extensions)
        => Packet(SftpPacket.Version, version, [.. extensions.SelectMany(e => (byte[])[.. Text(e), .. Text("1")])]);

    public static byte[] Status(uint id, SftpStatus status, string text = "")
        => Packet(SftpPacket.Status, id, [.. Number((uint)status), .. Text(text), .. Text("")]);

    public static byte[] Data(uint id, params byte[] bytes) => Packet(SftpPacket.Data, id, Text(bytes));

    public static byte[] Handle(uint id, string handle) => Packet(SftpPacket.Handle, id, Text(handle));

    public static byte[] Name(uint id, string path)
        => Packet(SftpPacket.Name, id, [.. Number(1), .. Text(path), .. Text(path), .. Number(0)]);

    public static byte[] Attributes(uint id, long size, uint permissions = 0x81A4, uint modified = 1_700_000_000)
        => Packet(
            SftpPacket.Attributes, id,
            [.. Number(15), .. Long((ulong)size), .. Number(0), .. Number(0), .. Number(permissions), .. Number(1), .. Number(modified)]);

    public static byte[] Limits(uint id, ulong packet, ulong read, ulong write)
        => Packet(SftpPacket.ExtendedReply, id, [.. Long(packet), .. Long(read), .. Long(write), .. Long(0)]);

    /// <summary>The room of a file system, in units of 4096 bytes.</summary>
    public static byte[] Room(uint id, ulong units)
        => Packet(
            SftpPacket.ExtendedReply, id,
            [.. Long(4096), .. Long(4096), .. Long(1000), .. Long(units), .. Long(units), .. new byte[48]]);

    /// <summary>Has a session take bytes in, in pieces.</summary>
    public static List<SftpRequest> Feed(SftpSession session, ReadOnlySpan<byte> bytes, Func<int> piece)
    {
        var answered = new List<SftpRequest>();
        while (!bytes.IsEmpty)
        {
            Memory<byte> wanted = session.Wanted;
            int count = Math.Min(Math.Min(piece(), wanted.Length), bytes.Length);
            bytes[..count].CopyTo(wanted.Span);
            session.Advance(count);
            bytes = bytes[count..];
            answered.AddRange(session.TakeAnswered());
        }
        return answered;
    }
}
