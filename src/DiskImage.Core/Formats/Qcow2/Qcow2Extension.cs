using System.Text;
using DiskImage.Binary;
using DiskImage.Block;

namespace DiskImage.Formats.Qcow2;

/// <summary>One header extension. Spec: qcow2, "Header extensions".</summary>
internal sealed record Qcow2Extension(uint Type, byte[] Data)
{
    public const uint BackingFormat = 0xE2792ACA, FeatureNames = 0x6803F857, Bitmaps = 0x23852875;
    public const uint Encryption = 0x0537BE77, ExternalDataFile = 0x44415441;

    /// <summary>
    /// Ours ("DIic"), without data: a version 2 image in the middle of a change of its refcounts, which is repaired on opening.
    /// </summary>
    public const uint InChange = 0x44496963;

    private const int HeaderBytes = 8, NameEntryBytes = 48, NameOffset = 2, NameBytes = 46;

    private static readonly (int Kind, int Bit, string Name)[] KnownNames =
    [
        (0, 0, "dirty bit"), (0, 1, "corrupt bit"), (0, 2, "external data file"), (0, 3, "compression type"), (0, 4, "extended L2 entries"),
        (1, 0, "lazy refcounts"), (2, 0, "bitmaps"), (2, 1, "raw external data"),
    ];

    /// <summary>The name table that new images get: what the bits are called, for programs that do not know them.</summary>
    public static Qcow2Extension NewFeatureNames()
    {
        byte[] table = new byte[KnownNames.Length * NameEntryBytes];
        for (int i = 0; i < KnownNames.Length; i++)
        {
            Span<byte> entry = table.AsSpan(i * NameEntryBytes, NameEntryBytes);
            (entry[0], entry[1]) = ((byte)KnownNames[i].Kind, (byte)KnownNames[i].Bit);
            Encoding.ASCII.GetBytes(KnownNames[i].Name, entry[2..]);
        }
        return new(FeatureNames, table);
    }

    /// <summary>An extension that holds text.</summary>
    public static Qcow2Extension Text(uint type, string text) => new(type, Encoding.UTF8.GetBytes(text));

    /// <summary>What the image calls an incompatible feature; null if it does not say.</summary>
    public static string? FeatureName(byte[]? table, int bit)
    {
        for (int at = 0; table is not null && at + NameOffset < table.Length; at += NameEntryBytes) // the last one may be cut short
        {
            if (table[at] == 0 && table[at + 1] == bit)
            {
                ReadOnlySpan<byte> bytes = table.AsSpan(at + NameOffset, Math.Min(NameBytes, table.Length - at - NameOffset));
                int end = bytes.IndexOf((byte)0);
                string name = Encoding.ASCII.GetString(end < 0 ? bytes : bytes[..end]).Trim();
                return new string([.. name.Where(c => c is >= ' ' and <= '~')]);
            }
        }
        return null;
    }

    /// <summary>Reads the extensions between two offsets of the first cluster.</summary>
    public static List<Qcow2Extension> ParseAll(ReadOnlySpan<byte> cluster, int start, int end, string path)
    {
        var found = new List<Qcow2Extension>();
        for (int at = start; at <= end - HeaderBytes;)
        {
            uint type = BigEndian.U32(cluster, at), length = BigEndian.U32(cluster, at + 4);
            if (type == 0)
            {
                return found;
            }
            at += HeaderBytes;
            if (length > end - at)
            {
                throw new DiskImageException(
                    DiskImageErrorKind.InvalidFormat,
                    $"{path}: qcow2 header extension {type:x8} at offset {at - HeaderBytes} is {length} bytes long; at most {end - at} fit",
                    path,
                    at - HeaderBytes);
            }
            found.Add(new(type, cluster.Slice(at, (int)length).ToArray()));
            at += (int)Math.Min(Round.Up(length, 8), int.MaxValue - at);
        }
        return found;
    }

    /// <summary>Where the end marker stands, if it claims more bytes than there are: QEMU does not open such an image.</summary>
    /// <param name="cluster">The first cluster.</param>
    /// <param name="start">Where the extensions begin.</param>
    /// <param name="end">Where they must end.</param>
    public static (int At, uint Length)? EndFault(ReadOnlySpan<byte> cluster, int start, int end)
    {
        for (int at = start; at <= end - HeaderBytes;)
        {
            uint type = BigEndian.U32(cluster, at), length = BigEndian.U32(cluster, at + 4);
            if (type == 0)
            {
                return length > end - at - HeaderBytes ? (at, length) : null;
            }
            at = (int)Math.Min(end, at + HeaderBytes + Round.Up(length, 8));
        }
        return null;
    }

    /// <summary>Bytes that the extensions take, end marker included.</summary>
    public static int TotalLength(IEnumerable<Qcow2Extension> extensions)
        => HeaderBytes + extensions.Sum(e => HeaderBytes + (int)Round.Up(e.Data.Length, 8));

    /// <summary>Writes the extensions and the end marker; returns the offset after it.</summary>
    public static int WriteAll(IEnumerable<Qcow2Extension> extensions, Span<byte> cluster, int at)
    {
        foreach (Qcow2Extension extension in extensions)
        {
            BigEndian.U32(cluster, at, extension.Type);
            BigEndian.U32(cluster, at + 4, (uint)extension.Data.Length);
            extension.Data.CopyTo(cluster[(at + HeaderBytes)..]);
            at += HeaderBytes + (int)Round.Up(extension.Data.Length, 8);
        }
        return at + HeaderBytes;
    }
}
