namespace DiskImage.Protocols.Iscsi;

/// <summary>Where a target listens.</summary>
/// <param name="Host">Name or address.</param>
/// <param name="Port">TCP port.</param>
internal sealed record IscsiPortal(string Host, int Port)
{
    /// <summary>From <c>host</c>, <c>host:port</c>, <c>[address]:port</c>, and what targets say, with <c>,group</c> behind it.</summary>
    /// <returns>Null if it is no such text.</returns>
    public static IscsiPortal? Parse(string text)
    {
        int comma = text.LastIndexOf(',');
        text = comma > 0 ? text[..comma] : text;
        int bracket = text.LastIndexOf(']'), colon = text.LastIndexOf(':');
        bool hasPort = colon > bracket && (bracket > 0 || text.IndexOf(':', StringComparison.Ordinal) == colon);
        string host = (hasPort ? text[..colon] : text).TrimStart('[').TrimEnd(']');
        int port = IscsiWire.Port;
        bool isGood = !hasPort || (int.TryParse(
            text[(colon + 1)..],
            System.Globalization.NumberStyles.None,
            System.Globalization.CultureInfo.InvariantCulture,
            out port) && port is > 0 and <= ushort.MaxValue);
        return isGood && Uri.CheckHostName(host) is UriHostNameType.Dns or UriHostNameType.IPv4 or UriHostNameType.IPv6
            ? new IscsiPortal(host, port)
            : null;
    }

    /// <summary>As it stands in a URL, the usual port left out.</summary>
    public override string ToString()
    {
        string host = Host.Contains(':', StringComparison.Ordinal) ? $"[{Host}]" : Host;
        return Port == IscsiWire.Port ? host : $"{host}:{Port}";
    }
}
