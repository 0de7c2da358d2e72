using System.Text;
using DiskImage.Block;

namespace DiskImage.Protocols.Iscsi;

/// <summary>Text of negotiations: keys with values. Spec: RFC 7143, section 6.1.</summary>
internal static class IscsiText
{
    /// <summary>Bytes of the text of one exchange at most, over all its PDUs. Ours.</summary>
    public const int Longest = 64 << 10;

    private const int LongestKey = 63; // spec

    /// <summary>The bytes of keys with values.</summary>
    public static byte[] Write(IEnumerable<KeyValuePair<string, string>> pairs)
        => Encoding.UTF8.GetBytes(string.Concat(pairs.Select(p => $"{p.Key}={p.Value}\0")));

    /// <summary>Keys with values from bytes, in their order.</summary>
    /// <param name="name">What the target is called in messages.</param>
    /// <param name="bytes">Pairs, each ended by a NUL; one that is missing at the very end is forgiven.</param>
    /// <exception cref="DiskImageException">It is no such text.</exception>
    public static List<KeyValuePair<string, string>> Read(string name, ReadOnlySpan<byte> bytes)
    {
        var pairs = new List<KeyValuePair<string, string>>();
        while (!bytes.IsEmpty)
        {
            int end = bytes.IndexOf((byte)0);
            ReadOnlySpan<byte> pair = end < 0 ? bytes : bytes[..end];
            bytes = end < 0 ? default : bytes[(end + 1)..];
            if (pair.IsEmpty)
            {
                continue; // some fill up with NULs
            }
            int equals = pair.IndexOf((byte)'=');
            if (equals is <= 0 or > LongestKey)
            {
                throw Wrong(name, "a key of its text is empty, too long, or has no value");
            }
            pairs.Add(new(Encoding.UTF8.GetString(pair[..equals]), Encoding.UTF8.GetString(pair[(equals + 1)..])));
        }
        return pairs;
    }

    /// <summary>The target does not keep to the protocol.</summary>
    public static DiskImageException Wrong(string name, string what)
        => new(DiskImageErrorKind.Io, $"{name}: does not keep to the iSCSI protocol: {what}", name);
}
