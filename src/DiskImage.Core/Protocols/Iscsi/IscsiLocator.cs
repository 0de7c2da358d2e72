using System.Net;
using System.Text;
using DiskImage.Block;

namespace DiskImage.Protocols.Iscsi;

/// <summary>From URLs to options: <c>iscsi://[user[%password]@]host[:port]/target/lun</c>, as libiscsi and QEMU have it.</summary>
internal static class IscsiLocator
{
    /// <summary>Scheme of URLs.</summary>
    public const string Scheme = "iscsi";

    /// <summary>Schemes of URLs that ask for RDMA.</summary>
    public static readonly string[] RdmaSchemes = ["iser", "iscsi+iser"];

    /// <summary>What is not an option of the record, because nobody is shown it.</summary>
    public const string Password = "password", TargetPassword = "target-password";

    /// <summary>The options that a URL stands for.</summary>
    /// <exception cref="DiskImageException">InvalidOption: it is none. Unsupported: RDMA.</exception>
    public static Dictionary<string, object?> Parse(string locator)
    {
        int end = locator.IndexOf("://", StringComparison.Ordinal);
        string scheme = end < 0 ? "" : locator[..end];
        if (RdmaSchemes.Contains(scheme, StringComparer.OrdinalIgnoreCase))
        {
            throw NoRdma();
        }
        if (!scheme.Equals(Scheme, StringComparison.OrdinalIgnoreCase))
        {
            throw Wrong("it does not begin with iscsi://");
        }
        string[] parts = locator[(end + 3)..].Split('?', 2);
        string[] path = parts[0].Split('/');
        Dictionary<string, object?> options = Server(path[0]);
        if (path.Length != 3 || path[2].Length == 0)
        {
            throw Wrong("it does not name a target and a unit");
        }
        options["target"] = Uri.UnescapeDataString(path[1]);
        options["lun"] = path[2];
        Query(parts.Length == 2 ? parts[1] : "", options);
        return options;
    }

    /// <summary>The options that the name of a server stands for: a portal, or a URL with or without a target.</summary>
    /// <exception cref="DiskImageException">InvalidOption: it is none.</exception>
    public static Dictionary<string, object?> ParseServer(string server)
    {
        int end = server.IndexOf("://", StringComparison.Ordinal);
        if (end >= 0 && RdmaSchemes.Contains(server[..end], StringComparer.OrdinalIgnoreCase))
        {
            throw NoRdma();
        }
        if (end >= 0 && !server[..end].Equals(Scheme, StringComparison.OrdinalIgnoreCase))
        {
            throw Wrong("it does not begin with iscsi://");
        }
        string[] parts = (end >= 0 ? server[(end + 3)..] : server).Split('?', 2);
        Dictionary<string, object?> options = Server(parts[0].Split('/')[0]);
        Query(parts.Length == 2 ? parts[1] : "", options);
        return options;
    }

    /// <summary>True for a name as initiators and targets have them. Spec: RFC 7143, section 4.2.7.</summary>
    public static bool IsName(string name)
        => (name.StartsWith("iqn.", StringComparison.OrdinalIgnoreCase) || name.StartsWith("eui.", StringComparison.OrdinalIgnoreCase)
                || name.StartsWith("naa.", StringComparison.OrdinalIgnoreCase))
            && Encoding.UTF8.GetByteCount(name) <= IscsiWire.LongestName && !name.Any(c => c <= ' ' || c is '/' or '=' or ',' or '?');

    /// <summary>RDMA is asked for.</summary>
    public static DiskImageException NoRdma() => new(
        DiskImageErrorKind.Unsupported,
        "iSER, iSCSI over RDMA, is not supported. The same target is reached by TCP: iscsi://host/target/lun.");

    private static Dictionary<string, object?> Server(string authority)
    {
        var options = new Dictionary<string, object?>(StringComparer.Ordinal);
        int at = authority.LastIndexOf('@');
        if (at >= 0)
        {
            string[] user = authority[..at].Split('%', 2);
            options["user"] = user[0];
            if (user.Length == 2)
            {
                options[Password] = new NetworkCredential("", user[1]).SecurePassword;
            }
        }
        string portal = authority[(at + 1)..];
        options["portal"] = IscsiPortal.Parse(portal) is not null ? portal : throw Wrong("it has no host, or no good port");
        return options;
    }

    private static void Query(string query, Dictionary<string, object?> options)
    {
        foreach (string part in query.Split('&', StringSplitOptions.RemoveEmptyEntries))
        {
            string[] pair = part.Split('=', 2);
            string value = Uri.UnescapeDataString(pair.Length == 2 ? pair[1] : "");
            switch (pair[0])
            {
                case "target_user":
                    options["target-user"] = value;
                    break;
                case "target_password":
                    options[TargetPassword] = new NetworkCredential("", value).SecurePassword;
                    break;
                case "header_digest":
                    options["header-digest"] = value;
                    break;
                case "iser":
                    throw NoRdma();
                default:
                    throw Wrong($"it has the query '{pair[0]}'; known: target_user, target_password, header_digest");
            }
        }
    }

    /// <summary>What was given may have a password in it, so it is not said.</summary>
    private static DiskImageException Wrong(string what) => new(
        DiskImageErrorKind.InvalidOption,
        $"What was given is no URL of an iSCSI unit: {what}. One is iscsi://[user[%password]@]host[:port]/target/lun.");
}
