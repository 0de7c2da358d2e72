using System.Net;
using DiskImage.Block;

namespace DiskImage.Protocols.Iscsi;

/// <summary>
/// A file of options in QEMU's form: <c>[iscsi "target"]</c> for one target, <c>[iscsi]</c> for all others, and lines
/// <c>key = "value"</c>. Source: QEMU's documentation, "iSCSI LUNs".
/// </summary>
internal static class IscsiConfiguration
{
    private const int LongestFile = 1 << 20; // ours

    /// <summary>Options with what a file says of their target where they say nothing.</summary>
    /// <exception cref="DiskImageException">The file cannot be read.</exception>
    public static IscsiOptions Under(IscsiOptions options)
    {
        if (options.Config is not { } file)
        {
            return options;
        }
        Dictionary<string, string> said = Read(file, options.Target);
        string? user = options.User ?? said.GetValueOrDefault("user");
        // one whose password is not in the file
        bool isOther = options.User is { } own && !own.Equals(said.GetValueOrDefault("user"), StringComparison.Ordinal);
        return options with
        {
            User = user,
            Password = options.Password ?? (isOther || options.PasswordSecret is not null ? null : Secret(said, "password")),
            PasswordSecret = options.PasswordSecret ?? (isOther ? null : said.GetValueOrDefault("password-secret")),
            InitiatorName = options.InitiatorName ?? said.GetValueOrDefault("initiator-name"),
            HeaderDigest = options.HeaderDigest ?? Digest(file, said.GetValueOrDefault("header-digest")),
            Timeout = options.Timeout ?? Number(file, said.GetValueOrDefault("timeout")),
        };
    }

    private static System.Security.SecureString? Secret(Dictionary<string, string> said, string key)
        => said.TryGetValue(key, out string? text) ? new NetworkCredential("", text).SecurePassword : null;

    private static IscsiDigest? Digest(string file, string? text) => text?.ToUpperInvariant() switch
    {
        null => null,
        "CRC32C" => IscsiDigest.Crc32C,
        "NONE" => IscsiDigest.None,
        "CRC32C-NONE" => IscsiDigest.Crc32CNone,
        "NONE-CRC32C" => IscsiDigest.NoneCrc32C,
        _ => throw Wrong(file, $"header-digest is '{text}'; allowed: CRC32C, NONE, CRC32C-NONE, NONE-CRC32C"),
    };

    private static long? Number(string file, string? text)
        => text is null ? null
            : ushort.TryParse(text, out ushort seconds) ? seconds
            : throw Wrong(file, $"timeout is '{text}'; allowed: a number of seconds");

    private static Dictionary<string, string> Read(string file, string target)
    {
        string[] lines;
        try
        {
            if (new FileInfo(file).Length > LongestFile)
            {
                throw Wrong(file, $"it is longer than {LongestFile:#,0} bytes");
            }
            lines = System.IO.File.ReadAllLines(file);
        }
        catch (Exception e) when (e is IOException and not DiskImageException or UnauthorizedAccessException)
        {
            throw new DiskImageException(
                e is FileNotFoundException or DirectoryNotFoundException ? DiskImageErrorKind.NotFound : DiskImageErrorKind.AccessDenied,
                $"{file}: the file of iSCSI options cannot be read: {e.Message}", file, cause: e);
        }
        var sections = new Dictionary<string, Dictionary<string, string>>(StringComparer.Ordinal);
        Dictionary<string, string>? section = null;
        for (int i = 0; i < lines.Length; i++)
        {
            string line = lines[i].Trim();
            if (line.Length == 0 || line[0] == '#')
            {
                continue;
            }
            if (line is ['[', .. string inside, ']'])
            {
                string[] name = inside.Split(' ', 2, StringSplitOptions.TrimEntries);
                string key = name.Length == 2 ? name[1].Trim('"') : "";
                section = name[0] is "iscsi" ? sections[key] = new(StringComparer.Ordinal) : null; // others are other things' options
                continue;
            }
            int equals = line.IndexOf('=', StringComparison.Ordinal);
            if (equals <= 0)
            {
                throw Wrong(file, $"line {i + 1} is neither a section nor key = \"value\""); // it may be a secret, so it is not said
            }
            section?[line[..equals].Trim()] = line[(equals + 1)..].Trim().Trim('"');
        }
        return sections.GetValueOrDefault(target) ?? sections.GetValueOrDefault("") ?? [];
    }

    private static DiskImageException Wrong(string file, string what)
        => new(DiskImageErrorKind.InvalidOption, $"{file}: is no file of iSCSI options as QEMU has them: {what}", file);
}
