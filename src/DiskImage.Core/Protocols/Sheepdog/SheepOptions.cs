using System.Globalization;
using System.Net;
using System.Net.Sockets;
using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Options;

namespace DiskImage.Protocols.Sheepdog;

/// <summary>How a gateway is reached.</summary>
internal enum SheepServerType
{
    /// <summary>By TCP.</summary>
    [OptionText("inet", "tcp")]
    Inet,

    /// <summary>By a socket of this machine.</summary>
    Unix,
}

/// <summary>Options when a VDI is opened. The names are QEMU's.</summary>
internal sealed record SheepOptions
{
    /// <summary>How the gateway is reached.</summary>
    [DriverOption("server.type", "How the gateway is reached: inet, unix; by what else is given")]
    public SheepServerType? ServerType { get; init; }

    /// <summary>The gateway's host.</summary>
    [DriverOption("server.host", "Name or address of the gateway's host; this machine if not given")]
    public string? ServerHost { get; init; }

    /// <summary>The gateway's port.</summary>
    [DriverOption("server.port", "The gateway's TCP port", Minimum = 1, Maximum = 65535)]
    public long ServerPort { get; init; } = SheepWire.Port;

    /// <summary>The gateway's socket.</summary>
    [DriverOption("server.path", "Path of the gateway's unix socket")]
    public string? ServerPath { get; init; }

    /// <summary>The VDI.</summary>
    [DriverOption("vdi", "Name of the VDI")]
    public string? Vdi { get; init; }

    /// <summary>The number of a snapshot.</summary>
    [DriverOption("snap-id", "Number of one of its snapshots, which is opened for reading", Minimum = 1, Maximum = uint.MaxValue)]
    public long? SnapshotId { get; init; }

    /// <summary>The tag of a snapshot.</summary>
    [DriverOption("tag", "Tag of one of its snapshots, which is opened for reading")]
    public string? Tag { get; init; }
}

/// <summary>Options when a VDI is made. The names are QEMU's.</summary>
internal sealed record SheepCreateOptions : ICreateOptions
{
    /// <summary>The length is the format's to say.</summary>
    public long? Size => null;

    /// <inheritdoc/>
    [DriverOption("backing_file", "Snapshot of a VDI that the new one begins as: sheepdog:///vdi#tag, in the same cluster")]
    public string? BackingFile { get; init; }

    /// <summary>How often objects are kept.</summary>
    [DriverOption("redundancy", "Copies (3), or strips and parities of an erasure code (4:2); as the cluster does if not given")]
    public string? Redundancy { get; init; }

    /// <summary>Bytes of an object.</summary>
    [DriverOption("object_size", "Bytes of an object, 1M to 2G; as the cluster does if not given", IsSize = true, PowerOfTwo = true,
        Minimum = 1L << SheepWire.SmallestShift, Maximum = 1L << SheepWire.LargestShift)]
    public long? ObjectSize { get; init; }
}

/// <summary>What is opened, once all that was given has been understood.</summary>
/// <param name="Address">Where the gateway listens.</param>
/// <param name="Server">The gateway as the beginning of a URI, and as its end where it is a socket.</param>
/// <param name="Vdi">The VDI.</param>
/// <param name="Snapshot">The snapshot's number or tag; null for none.</param>
internal sealed record SheepPlace(EndPoint Address, (string Before, string After) Server, string Vdi, string? Snapshot)
{
    /// <summary>It as a URI that leads to it again, in one form whatever was given.</summary>
    public string Name
        => $"{Server.Before}/{Escaped(Vdi)}{Server.After}{(Snapshot is null ? "" : $"#{Uri.EscapeDataString(Snapshot)}")}";

    /// <summary>Which VDI it is, or which snapshot.</summary>
    public NodeIdentity Identity => new($"sheepdog:{Name}");

    /// <summary>The identity of a snapshot that is reached by way of its VDI.</summary>
    public static NodeIdentity IdentityOf(uint number, NodeIdentity vdi)
        => new(string.Create(CultureInfo.InvariantCulture, $"{vdi}#vdi-{number:x}"));

    /// <summary>Understands options.</summary>
    /// <exception cref="DiskImageException">InvalidOption.</exception>
    public static SheepPlace Of(SheepOptions options)
    {
        string vdi = options.Vdi is { Length: > 0 } given && SheepWire.IsName(given) ? given : throw Invalid(
            $"A VDI needs 'vdi', its name: 1 to {SheepWire.NameLength - 1} bytes of UTF-8, without NUL.");
        string? tag = options.Tag is { Length: > 0 } text ? text : null;
        if (tag is not null && (options.SnapshotId is not null || !SheepWire.IsName(tag)))
        {
            throw Invalid("A snapshot is named by 'snap-id', its number, or by 'tag' with at most 255 bytes of UTF-8, not by both.");
        }
        string? snapshot = options.SnapshotId?.ToString(CultureInfo.InvariantCulture) ?? tag;
        if (options.ServerType == SheepServerType.Unix || (options.ServerType is null && options.ServerPath is not null))
        {
            string path = options.ServerPath ?? throw Invalid("A VDI of a gateway's unix socket needs 'server.path', where that is.");
            return new(SocketAt(path), ("sheepdog+unix://", $"?socket={Escaped(path)}"), vdi, snapshot);
        }
        string host = options.ServerHost ?? "localhost";
        string shown = host.Contains(':', StringComparison.Ordinal) ? $"[{host}]" : host;
        bool isUsual = host.Equals("localhost", StringComparison.Ordinal) && options.ServerPort == SheepWire.Port;
        return new(
            new DnsEndPoint(host, (int)options.ServerPort),
            (isUsual ? "sheepdog://" : $"sheepdog://{shown}{(options.ServerPort == SheepWire.Port ? "" : $":{options.ServerPort}")}", ""),
            vdi,
            snapshot);
    }

    private static UnixDomainSocketEndPoint SocketAt(string path)
    {
        try
        {
            return new UnixDomainSocketEndPoint(path);
        }
        catch (Exception e) when (e is ArgumentException or PlatformNotSupportedException)
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption, $"{path}: no unix socket can have that path: {e.Message}", path, cause: e);
        }
    }

    private static string Escaped(string text) => Uri.EscapeDataString(text).Replace("%2F", "/", StringComparison.Ordinal);

    private static DiskImageException Invalid(Wording message) => new(DiskImageErrorKind.InvalidOption, message);
}
