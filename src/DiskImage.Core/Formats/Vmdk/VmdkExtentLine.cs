using System.Globalization;
using DiskImage.Block;

namespace DiskImage.Formats.Vmdk;

/// <summary>What may be done with an extent. Spec: Virtual Disk Format 5.0, "The Extents Section".</summary>
internal enum VmdkAccess
{
    /// <summary>Neither read nor written.</summary>
    NoAccess,

    /// <summary>Read only.</summary>
    ReadOnly,

    /// <summary>Read and written.</summary>
    ReadWrite,
}

/// <summary>How an extent keeps its sectors.</summary>
internal enum VmdkExtentType
{
    /// <summary>As they are, in a file: FLAT, VMFS.</summary>
    Flat,

    /// <summary>A hosted sparse extent: SPARSE.</summary>
    Sparse,

    /// <summary>All zero, without a file: ZERO.</summary>
    Zero,

    /// <summary>A sparse extent of ESX, also of VMware 3: VMFSSPARSE.</summary>
    Cowd,

    /// <summary>A space-efficient sparse extent of ESXi 6.5 and later: SESPARSE.</summary>
    SeSparse,

    /// <summary>A raw device: VMFSRAW, VMFSRDM.</summary>
    Device,
}

/// <summary>A line that describes an extent.</summary>
/// <param name="Access">What may be done with it.</param>
/// <param name="Sectors">Its length in sectors of 512 bytes.</param>
/// <param name="Type">How it keeps them.</param>
/// <param name="TypeName">The type's name as it stands there.</param>
/// <param name="FileName">The file; null for none.</param>
/// <param name="StartSector">Where in a flat file it begins.</param>
internal sealed record VmdkExtentLine(VmdkAccess Access, long Sectors, VmdkExtentType Type, string TypeName, string? FileName, long StartSector)
{
    /// <summary>Bytes.</summary>
    public long Length => Sectors * VmdkHeader.SectorSize;

    /// <summary>The line as it is written.</summary>
    public string Text
    {
        get
        {
            string access = Access switch { VmdkAccess.ReadWrite => "RW", VmdkAccess.ReadOnly => "RDONLY", _ => "NOACCESS" };
            string name = FileName is null ? "" : $" \"{FileName}\"";
            bool hasStart = Type == VmdkExtentType.Flat && (StartSector > 0 || !TypeName.Equals("VMFS", StringComparison.OrdinalIgnoreCase));
            string start = hasStart ? string.Create(CultureInfo.InvariantCulture, $" {StartSector}") : "";
            return string.Create(CultureInfo.InvariantCulture, $"{access} {Sectors} {TypeName}{name}{start}");
        }
    }

    /// <inheritdoc/>
    public override string ToString() => Text;

    /// <summary>Reads a line; null if it describes no extent.</summary>
    /// <param name="line">The line, trimmed.</param>
    /// <param name="imageName">The image, for errors.</param>
    /// <exception cref="DiskImageException">Corrupt, Unsupported.</exception>
    public static VmdkExtentLine? TryParse(string line, string imageName)
    {
        (string first, string rest) = Word(line);
        if (AccessOf(first) is not { } access)
        {
            return null;
        }
        (string count, rest) = Word(rest);
        (string kind, rest) = Word(rest);
        if (!long.TryParse(count, NumberStyles.None, CultureInfo.InvariantCulture, out long sectors) || sectors > VmdkHeader.MaxSectors)
        {
            throw Corrupt(imageName, line, $"'{count}' is no number of sectors up to {VmdkHeader.MaxSectors:#,0}");
        }
        VmdkExtentType type = TypeOf(kind) ?? throw new DiskImageException(
            DiskImageErrorKind.Unsupported,
            $"{imageName}: the descriptor's line '{Short(line)}' names the extent type '{kind}'; known: FLAT, SPARSE, ZERO, VMFS, VMFSSPARSE, SESPARSE",
            imageName);
        if (type == VmdkExtentType.Zero)
        {
            return new(access, sectors, type, kind, null, 0);
        }
        (string? name, rest) = Quoted(rest);
        if (string.IsNullOrEmpty(name))
        {
            throw access == VmdkAccess.NoAccess || type == VmdkExtentType.Device
                ? Device(imageName, kind)
                : Corrupt(imageName, line, "there is no file name in quotes");
        }
        long start = 0;
        if (type == VmdkExtentType.Flat && Word(rest).First is { Length: > 0 } at
            && (!long.TryParse(at, NumberStyles.None, CultureInfo.InvariantCulture, out start) || start > VmdkHeader.MaxSectors))
        {
            throw Corrupt(imageName, line, $"'{at}' is no sector of a file");
        }
        return new(access, sectors, type, kind, name, start);
    }

    /// <summary>Refuses what leads to a device.</summary>
    public static DiskImageException Device(string imageName, string what)
        => new(
            DiskImageErrorKind.Unsupported,
            $"{imageName}: is the descriptor of a disk on a device ({what}): its sectors lie on a physical disk or a LUN and not in a file, and a name in an"
                + " image never opens a device. Read the device itself, or have the disk copied to a file by the host that it belongs to (vmkfstools -i).",
            imageName);

    private static VmdkAccess? AccessOf(string word) => word.ToUpperInvariant() switch
    {
        "RW" => VmdkAccess.ReadWrite,
        "RDONLY" => VmdkAccess.ReadOnly,
        "NOACCESS" => VmdkAccess.NoAccess,
        _ => null,
    };

    private static VmdkExtentType? TypeOf(string word) => word.ToUpperInvariant() switch
    {
        "FLAT" or "VMFS" => VmdkExtentType.Flat,
        "SPARSE" => VmdkExtentType.Sparse,
        "ZERO" => VmdkExtentType.Zero,
        "VMFSSPARSE" => VmdkExtentType.Cowd,
        "SESPARSE" => VmdkExtentType.SeSparse,
        "VMFSRAW" or "VMFSRDM" => VmdkExtentType.Device,
        _ => null,
    };

    private static (string First, string Others) Word(string text)
    {
        string trimmed = text.TrimStart();
        int end = trimmed.AsSpan().IndexOfAny(' ', '\t');
        return end < 0 ? (trimmed, "") : (trimmed[..end], trimmed[end..]);
    }

    /// <summary>What stands in quotes; without them, the next word.</summary>
    private static (string? Name, string Others) Quoted(string text)
    {
        string trimmed = text.TrimStart();
        if (!trimmed.StartsWith('"'))
        {
            return Word(trimmed);
        }
        int end = trimmed.IndexOf('"', 1);
        return end < 0 ? (null, "") : (trimmed[1..end], trimmed[(end + 1)..]);
    }

    private static DiskImageException Corrupt(string imageName, string line, string why)
        => new(DiskImageErrorKind.Corrupt, $"{imageName}: the descriptor's line '{Short(line)}' describes no extent: {why}", imageName);

    private static string Short(string line) => line.Length <= 200 ? line : line[..200] + "…";
}
