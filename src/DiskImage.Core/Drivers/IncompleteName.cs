using System.Globalization;
using System.Security.Cryptography;
using System.Text;

namespace DiskImage.Drivers;

/// <summary>
/// The names of files that are being made: <c>diskimage-TTTTTTTT-RRRRRRRR.incomplete</c>. T stands for the name that the file is to have,
/// so that a later run for the same name knows what an earlier one left; R is random. 38 bytes, however long the name is.
/// </summary>
internal static class IncompleteName
{
    /// <summary>The ending of all of them.</summary>
    public const string Suffix = ".incomplete";

    private const string Prefix = "diskimage-";
    private const int Digits = 8;

    /// <summary>A new one.</summary>
    /// <param name="name">The name that the file is to have, without its folder.</param>
    public static string For(string name)
        => $"{PrefixOf(name)}{RandomNumberGenerator.GetHexString(Digits, lowercase: true)}{Suffix}";

    /// <summary>What all names begin with that are for one file.</summary>
    public static string PrefixOf(string name)
    {
        uint tag = BitConverter.ToUInt32(SHA256.HashData(Encoding.UTF8.GetBytes(name)));
        return $"{Prefix}{tag.ToString("x8", CultureInfo.InvariantCulture)}-";
    }

    /// <summary>True for a name that begins so, and ends as all of them do.</summary>
    public static bool IsOf(string leftover, string prefix)
        => leftover.Length == prefix.Length + Digits + Suffix.Length
            && leftover.Skip(prefix.Length).Take(Digits).All(char.IsAsciiHexDigitLower)
            && leftover.StartsWith(prefix, StringComparison.Ordinal)
            && leftover.EndsWith(Suffix, StringComparison.Ordinal);
}
