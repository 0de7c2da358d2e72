using System.Buffers.Binary;
using DiskImage.Block;
using DiskImage.Protocols.Nbd;

namespace DiskImage.Tests.Protocols.Nbd;

/// <summary>The handshake of both sides, cut at every place, and with what real servers never say.</summary>
public sealed class NbdHandshakeTests
{
    private static readonly NbdOffer s_disk = new()
    {
        Name = "disk",
        Description = "a disk",
        Length = 123_456_789_012,
        Flags = NbdExportFlags.HasFlags | NbdExportFlags.SendFlush | NbdExportFlags.CanMultiConnect,
        MinimumBlock = 512,
        Contexts = [NbdWire.AllocationContext, NbdWire.DepthContext, NbdWire.BitmapContext + "day"],
    };

    private static readonly NbdOffer s_other = s_disk with { Name = "öther", Description = null, Length = 0, Contexts = [] };

    private static NbdServerHandshake Server(bool tls = false, Func<NbdOffer, string?>? whyNot = null)
        => new("client", new NbdServerOffer([s_disk, s_other], tls, tls, whyNot));

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    [InlineData(7)]
    [InlineData(1000)]
    public void Both_sides_agree_wherever_the_bytes_are_cut(int piece)
    {
        var client = new NbdClientHandshake(
            "server", new NbdWishes { Export = "disk", Contexts = [NbdWire.BitmapContext + "day", "no:such"] });
        NbdServerHandshake server = Server();
        NbdTalk.Handshake(client, server, () => piece);
        Assert.True(client.IsOver && server.IsOver);
        Assert.Same(s_disk, server.Chosen);
        Assert.Equal(s_disk.Length, client.Info.Length);
        Assert.Equal(s_disk.Flags, client.Info.Flags);
        Assert.Equal(512, client.Info.MinimumBlock);
        Assert.Equal(4096, client.Info.PreferredBlock);
        Assert.Equal(NbdWire.MaximumPayload, client.Info.MaximumPayload);
        Assert.Equal("a disk", client.Info.Description);
        Assert.Equal(2u, client.Info.Contexts[NbdWire.BitmapContext + "day"]);
        Assert.Equal([2], server.Contexts);
        Assert.True(client.Info.IsExtended && server.IsExtended);
    }

    [Theory]
    [InlineData(true, true, true)]
    [InlineData(true, false, false)]
    [InlineData(false, false, false)]
    public void A_client_gets_what_it_wishes_for(bool structured, bool extended, bool isExtended)
    {
        var client = new NbdClientHandshake("server", new NbdWishes { Structured = structured, Extended = extended });
        NbdServerHandshake server = Server();
        NbdTalk.Handshake(client, server, () => 1);
        Assert.Equal(structured, client.Info.IsStructured);
        Assert.Equal(isExtended, client.Info.IsExtended);
        Assert.Equal(structured ? 1 : 0, client.Info.Contexts.Count);
        Assert.Equal("disk", server.Chosen!.Name); // the default
        Assert.Equal((client.Info.IsStructured, client.Info.IsExtended), (server.IsStructured, server.IsExtended));
    }

    [Fact]
    public void A_list_has_every_export_with_its_contexts()
    {
        var client = new NbdClientHandshake("server", new NbdWishes { ListsOnly = true });
        NbdServerHandshake server = Server();
        NbdTalk.Handshake(client, server, () => 5);
        Assert.Equal(["disk", "öther"], client.Exports.Select(e => e.Name), StringComparer.Ordinal);
        Assert.Equal([s_disk.Length, 0], client.Exports.Select(e => e.Length));
        Assert.Equal(s_disk.Contexts, client.Exports[0].Contexts.Keys, StringComparer.Ordinal);
        Assert.Equal("a disk", client.Exports[0].Description);
        Assert.Null(client.Exports[1].Description);
        Assert.True(server.IsOver);
        Assert.Null(server.Chosen);
    }

    [Fact]
    public void Tls_comes_before_anything_is_named()
    {
        var client = new NbdClientHandshake("server", new NbdWishes { Export = "disk", Tls = true });
        NbdServerHandshake server = Server(tls: true);
        NbdTalk.Handshake(client, server, () => 3, (isServer, bytes) =>
        {
            Assert.False(!server.AwaitsTls && !isServer && !s_secure(client) && bytes.AsSpan().IndexOf("disk"u8) >= 0);
            return bytes;
        });
        Assert.Same(s_disk, server.Chosen);
    }

    private static readonly Func<NbdClientHandshake, bool> s_secure = c => !c.AwaitsTls && c.Info.Length == 0;

    [Theory]
    [InlineData("nothing", false, null, DiskImageErrorKind.NotFound)]
    [InlineData("disk", true, null, DiskImageErrorKind.AccessDenied)]
    [InlineData("disk", false, "it is full", DiskImageErrorKind.AccessDenied)]
    public void A_refusal_is_an_error_of_its_kind(string export, bool tls, string? whyNot, DiskImageErrorKind kind)
    {
        var client = new NbdClientHandshake("server", new NbdWishes { Export = export });
        var e = Assert.Throws<DiskImageException>(() => NbdTalk.Handshake(client, Server(tls, _ => whyNot), () => 4));
        Assert.Equal(kind, e.Kind);
        Assert.Contains(whyNot ?? "", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void An_oldstyle_server_is_understood_and_asked_for_nothing_that_it_cannot()
    {
        byte[] greeting = new byte[152];
        BinaryPrimitives.WriteUInt64BigEndian(greeting, NbdWire.Magic);
        BinaryPrimitives.WriteUInt64BigEndian(greeting.AsSpan(8), NbdWire.OldMagic);
        BinaryPrimitives.WriteUInt64BigEndian(greeting.AsSpan(16), 1 << 20);
        BinaryPrimitives.WriteUInt32BigEndian(greeting.AsSpan(24), 3);
        NbdClientHandshake client = Client(new NbdWishes());
        Give(client, greeting);
        Assert.True(client.IsOver);
        Assert.Equal(1 << 20, client.Info.Length);
        Assert.Equal(NbdExportFlags.HasFlags | NbdExportFlags.ReadOnly, client.Info.Flags);
        Assert.Equal(0, client.TakeOutput().Length);
        Assert.Equal(
            DiskImageErrorKind.NotFound,
            Assert.Throws<DiskImageException>(() => Give(Client(new NbdWishes { Export = "a" }), greeting)).Kind);
        Assert.Equal(
            DiskImageErrorKind.Refused,
            Assert.Throws<DiskImageException>(() => Give(Client(new NbdWishes { Tls = true }), greeting)).Kind);
    }

    [Theory]
    [InlineData("00000000000000000000000000000000")] // no magic
    [InlineData("4e42444d414749430000000000000000")] // not its second half
    public void What_is_no_server_is_said_to_be_none(string hex)
        => Assert.Equal(
            DiskImageErrorKind.Io,
            Assert.Throws<DiskImageException>(() => Give(Client(new NbdWishes()), Convert.FromHexString(hex))).Kind);

    [Theory]
    [InlineData(0x8000_0000_0000_0000, 1, 4096, 1 << 25)] // longer than can be addressed
    [InlineData(1 << 20, 3, 4096, 1 << 25)] // no power of two
    [InlineData(1 << 20, 1 << 17, 1 << 17, 1 << 25)] // more than the protocol allows
    [InlineData(1 << 20, 512, 256, 1 << 25)] // preferred less than the minimum
    [InlineData(1 << 20, 512, 4096, 1000)] // a maximum that is no multiple
    public void What_cannot_be_is_refused(ulong length, uint minimum, uint preferred, uint maximum)
    {
        var client = new NbdClientHandshake("server", new NbdWishes { Export = "disk", Structured = false, Extended = false });
        byte[] Change(bool isServer, byte[] bytes)
        {
            if (isServer && bytes.AsSpan().IndexOf("disk"u8) is var at and >= 0)
            {
                // the reply with the export comes first, the one with block sizes last before the acknowledgement
                BinaryPrimitives.WriteUInt64BigEndian(bytes.AsSpan(22), length);
                int sizes = bytes.Length - 20 - 12;
                BinaryPrimitives.WriteUInt32BigEndian(bytes.AsSpan(sizes), minimum);
                BinaryPrimitives.WriteUInt32BigEndian(bytes.AsSpan(sizes + 4), preferred);
                BinaryPrimitives.WriteUInt32BigEndian(bytes.AsSpan(sizes + 8), maximum);
                Assert.True(at > 0);
            }
            return bytes;
        }
        var e = Assert.Throws<DiskImageException>(() => NbdTalk.Handshake(client, Server(), () => 1000, Change));
        Assert.Equal(DiskImageErrorKind.Io, e.Kind);
    }

    private static NbdClientHandshake Client(NbdWishes wishes)
    {
        var client = new NbdClientHandshake("server", wishes);
        client.Start();
        return client;
    }

    private static void Give(NbdClientHandshake client, byte[] bytes)
    {
        foreach (byte value in bytes)
        {
            client.Wanted.Span[0] = value;
            client.Advance(1);
        }
    }
}
