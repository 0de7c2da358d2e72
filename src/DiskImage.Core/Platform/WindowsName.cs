namespace DiskImage.Platform;

/// <summary>What a Windows path says by itself of what it leads to.</summary>
internal enum WindowsNameKind
{
    /// <summary>A file or folder: ask the file system.</summary>
    File,

    /// <summary>A device: a disk, a volume, a port.</summary>
    Device,

    /// <summary>A named pipe or mailslot.</summary>
    Pipe,
}

/// <summary>Windows' rules for names, on text alone. Source: "Naming Files, Paths, and Namespaces" of the Windows documentation.</summary>
/// <remarks>
/// <c>\\.\</c> and <c>\\?\</c> open the same namespace of devices: what stands directly in it is a device, and what lies below a device
/// that holds a file system (<c>\\.\C:\disk.vhdx</c>,
/// <c>\\?\GLOBALROOT\Device\HarddiskVolumeShadowCopy1\disk.vhdx</c>) is a file or folder.
/// </remarks>
internal static class WindowsName
{
    private const string GlobalRoot = "GLOBALROOT";

    private static readonly string[] s_pipes = ["pipe", "mailslot"];

    private static readonly string[] s_reserved = ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$", "CLOCK$"];

    /// <summary>What kind of thing a full path can only lead to.</summary>
    public static WindowsNameKind KindOf(string path)
    {
        string rest = BelowDevices(path);
        if (rest.Length == 0)
        {
            return WindowsNameKind.File;
        }
        string[] parts = rest.Split('\\');
        int device = 0; // the part that names one
        if (parts[0].Equals(GlobalRoot, StringComparison.OrdinalIgnoreCase))
        {
            // GLOBALROOT\Device\HarddiskVolume1, GLOBALROOT\GLOBAL??\C:, and disks as Harddisk0\Partition1
            device = parts.Length > 2 && IsDiskFolder(parts[2]) ? 3 : 2;
        }
        if (device < parts.Length && Array.Exists(s_pipes, p => p.Equals(parts[device], StringComparison.OrdinalIgnoreCase)))
        {
            return WindowsNameKind.Pipe;
        }
        return parts.Length > device + 1 || IsShare(parts[0]) ? WindowsNameKind.File : WindowsNameKind.Device;
    }

    /// <summary>Why a new file cannot bear a name; null if it can. The path is full, or stands in an image.</summary>
    public static string? WhyNoNewFile(string path)
    {
        string leaf = path[(path.AsSpan().LastIndexOfAny('\\', '/') + 1)..];
        string plain = leaf.Split('.', ':')[0].TrimEnd(' ');
        if (IsReserved(plain))
        {
            return $"'{plain}' is the name of a device on Windows, with any ending. Choose another name.";
        }
        if (KindOf(path) != WindowsNameKind.File)
        {
            return "it is the name of a device, not of a file. Choose another name.";
        }
        int colon = leaf.IndexOf(':', StringComparison.Ordinal);
        // C:name, relative to the drive's current folder
        bool isDrive = colon == 1 && leaf.Length == path.Length && char.IsAsciiLetter(leaf[0]);
        int stream = isDrive ? leaf.IndexOf(':', 2) : colon;
        return stream < 0 ? null
            : $"'{leaf[(stream + 1)..]}' would be an alternate data stream of the file '{leaf[..stream]}', which copying "
                + $"loses. Choose a name without a colon.";
    }

    /// <summary>The path behind <c>\\.\</c> or <c>\\?\</c>; empty without such a prefix.</summary>
    private static string BelowDevices(string path)
    {
        // Only the form with a dot is normalised by Windows; behind \\?\ a slash is a part of a name.
        string normal = path.StartsWith(@"\\?\", StringComparison.Ordinal) ? path : path.Replace('/', '\\');
        return normal is ['\\', '\\', '.' or '?', '\\', ..] ? normal[4..] : "";
    }

    private static bool IsShare(string part) => part.Equals("UNC", StringComparison.OrdinalIgnoreCase);

    /// <summary>Harddisk0 and so on: a folder of partitions, not HarddiskVolume1, which is one.</summary>
    private static bool IsDiskFolder(string part)
    {
        const string Disk = "Harddisk";
        return part.StartsWith(Disk, StringComparison.OrdinalIgnoreCase) && part.Length > Disk.Length
            && part.AsSpan(Disk.Length).IndexOfAnyExceptInRange('0', '9') < 0;
    }

    private static bool IsReserved(string name)
        => Array.Exists(s_reserved, r => r.Equals(name, StringComparison.OrdinalIgnoreCase))
            || (name.Length == 4
                && (name.StartsWith("COM", StringComparison.OrdinalIgnoreCase)
                || name.StartsWith("LPT", StringComparison.OrdinalIgnoreCase))
                && name[3] is (>= '0' and <= '9') or '¹' or '²' or '³');
}
