using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using HostIO = System.IO.File;

namespace DiskImage.Protocols.File;

/// <summary>
/// The names of files that are being made: <c>diskimage-TTTTTTTT-RRRRRRRR.incomplete</c>. T stands for the name that the file is to have,
/// so that a later run for the same name knows what an earlier one left; R is random. 38 bytes, however long the name is.
/// </summary>
internal static class TemporaryName
{
    /// <summary>The ending of all of them.</summary>
    public const string Suffix = ".incomplete";

    private const string Prefix = "diskimage-";
    private const int Digits = 8;

    /// <summary>A new one.</summary>
    /// <param name="name">The name that the file is to have, without its folder.</param>
    public static string For(string name)
        => $"{PrefixOf(name)}{RandomNumberGenerator.GetHexString(Digits, lowercase: true)}{Suffix}";

    /// <summary>
    /// Removes what runs that were killed left of a file. What is empty may have been made this moment, and what is locked is in use: both
    /// stay. What cannot be removed stays as well.
    /// </summary>
    /// <param name="folder">The folder.</param>
    /// <param name="name">The name that the file was to have.</param>
    public static void RemoveLeftovers(string folder, string name)
    {
        string prefix = PrefixOf(name);
        try
        {
            foreach (string path in Directory.EnumerateFiles(
                folder, $"{prefix}*{Suffix}").Where(p => IsOf(Path.GetFileName(p), prefix)).ToList())
            {
                var file = new FileInfo(path);
                if (file.LinkTarget is null && file.Length > 0)
                {
                    // Alone, or it is refused; the file is gone before the lock is.
                    HostIO.OpenHandle(path, FileMode.Open, FileAccess.ReadWrite, FileShare.None, FileOptions.DeleteOnClose).Dispose();
                }
            }
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // In use, or somebody else's.
        }
    }

    /// <summary>True if a run that was killed left something of a file.</summary>
    public static bool HasLeftovers(string path)
    {
        try
        {
            string prefix = PrefixOf(Path.GetFileName(path));
            return Directory.EnumerateFiles(Path.GetDirectoryName(path)!, $"{prefix}*{Suffix}").Any(p => IsOf(Path.GetFileName(p), prefix));
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or ArgumentException)
        {
            return false;
        }
    }

    private static bool IsOf(string leftover, string prefix)
        => leftover.Length == prefix.Length + Digits + Suffix.Length
            && leftover.Skip(prefix.Length).Take(Digits).All(char.IsAsciiHexDigitLower)
            && leftover.StartsWith(prefix, StringComparison.Ordinal)
            && leftover.EndsWith(Suffix, StringComparison.Ordinal);

    private static string PrefixOf(string name)
    {
        uint tag = BitConverter.ToUInt32(SHA256.HashData(Encoding.UTF8.GetBytes(name)));
        return $"{Prefix}{tag.ToString("x8", CultureInfo.InvariantCulture)}-";
    }
}
