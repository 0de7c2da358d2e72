using System.Text;
using System.Text.Unicode;

namespace DiskImage.Drivers;

/// <summary>What kind of thing a file holds that no driver here opens.</summary>
public enum ContentsKind
{
    /// <summary>A disk in a format that has no driver here: its bytes are not the disk's.</summary>
    Container,

    /// <summary>Something that is no disk: an archive, a page of the web.</summary>
    NoDisk,

    /// <summary>An ISO 9660 file system: the bytes of a disc, whatever the file is called.</summary>
    Disc,

    /// <summary>Text.</summary>
    Text,

    /// <summary>Nothing.</summary>
    Empty,

    /// <summary>A disk's bytes with a partition table.</summary>
    PartitionedDisk,

    /// <summary>Anything else.</summary>
    Unknown,
}

/// <summary>What a file seems to hold, by its bytes alone.</summary>
/// <param name="Kind">What kind of thing.</param>
/// <param name="Description">What to call it, with its article: "a gzip archive".</param>
public sealed record FileContents(ContentsKind Kind, string Description)
{
    /// <summary>Where an ISO 9660 file system has its first volume descriptor. Spec: ECMA-119, 6.2.1 and 8.1.</summary>
    internal const int DiscAt = 0x8000, DiscBytes = 6;

    private static readonly byte[] DiscMagic = "CD001"u8.ToArray();

    /// <summary>Looks at a file that is of no format here.</summary>
    /// <param name="header">Its first bytes.</param>
    /// <param name="tail">Its last bytes.</param>
    /// <param name="disc">The <see cref="DiscBytes"/> at <see cref="DiscAt"/>; empty if it is shorter.</param>
    /// <param name="formats">The names of formats that have a driver: they are not foreign.</param>
    internal static FileContents Of(
        ReadOnlySpan<byte> header, ReadOnlySpan<byte> tail, ReadOnlySpan<byte> disc, IReadOnlyCollection<string> formats)
    {
        foreach (ForeignFormat foreign in ForeignFormat.All)
        {
            if ((foreign.Format is null || !formats.Contains(foreign.Format, StringComparer.Ordinal)) && foreign.Has(header, tail))
            {
                return new FileContents(foreign.Kind, foreign.Description);
            }
        }
        return header.IsEmpty ? new(ContentsKind.Empty, "an empty file")
            : IsHtml(header) ? new(ContentsKind.NoDisk, "an HTML page")
            : IsText(header) ? new(ContentsKind.Text, "text")
            : disc.Length == DiscBytes && disc[1..].SequenceEqual(DiscMagic) ? new(ContentsKind.Disc, "an ISO 9660 disc")
            : HasPartitionTable(header) ? new(ContentsKind.PartitionedDisk, "the bytes of a partitioned disk")
            : new(ContentsKind.Unknown, "nothing that is known");
    }

    /// <summary>An MBR, which also protects a GPT, or a GPT without one. Spec: UEFI 5.2.1, 5.3.2.</summary>
    private static bool HasPartitionTable(ReadOnlySpan<byte> header)
        => (header.Length >= 512 && header[510] == 0x55 && header[511] == 0xAA)
            || (header.Length >= 520 && header.Slice(512, 8).SequenceEqual("EFI PART"u8));

    private static bool IsHtml(ReadOnlySpan<byte> header)
    {
        string start = Encoding.Latin1.GetString(
            header[..Math.Min(header.Length, 512)]).TrimStart('\u00EF', '\u00BB', '\u00BF', ' ', '\t', '\r', '\n');
        return start.StartsWith("<!doctype html", StringComparison.OrdinalIgnoreCase)
            || start.StartsWith("<html", StringComparison.OrdinalIgnoreCase);
    }

    /// <summary>Text has no control characters but white space, in UTF-8 or in UTF-16 with its mark.</summary>
    private static bool IsText(ReadOnlySpan<byte> header)
    {
        if (header.StartsWith((ReadOnlySpan<byte>)[0xFF, 0xFE]) || header.StartsWith((ReadOnlySpan<byte>)[0xFE, 0xFF]))
        {
            return true;
        }
        foreach (byte b in header)
        {
            if (b is (< 0x20 and not (0x09 or 0x0A or 0x0C or 0x0D)) or 0x7F)
            {
                return false;
            }
        }
        for (int cut = 0; cut < Math.Min(4, header.Length); cut++) // a character may be cut where the look ends
        {
            if (Utf8.IsValid(header[..^cut]))
            {
                return true;
            }
        }
        return false;
    }
}
