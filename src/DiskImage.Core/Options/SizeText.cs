using System.Globalization;

namespace DiskImage.Options;

/// <summary>Sizes as people write them: a number and a suffix of powers of 1024.</summary>
public static class SizeText
{
    private const string Suffixes = "KMGTPE";

    /// <summary>
    /// Reads <c>1048576</c>, <c>0x100000</c>, <c>64k</c>, <c>1.5G</c>, <c>10GB</c> or <c>10GiB</c>: bytes, and each suffix is a power of 1024.
    /// </summary>
    public static bool TryParse(string? text, out long size)
    {
        size = 0;
        ReadOnlySpan<char> number = text.AsSpan().Trim();
        if (number.StartsWith("0x", StringComparison.OrdinalIgnoreCase))
        {
            return long.TryParse(number[2..], NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out size) && size >= 0;
        }
        if (number.EndsWith("iB", StringComparison.OrdinalIgnoreCase))
        {
            number = number[..^2];
            if (number.IsEmpty || !char.IsAsciiLetter(number[^1]))
            {
                return false;
            }
        }
        else if (number.EndsWith("B", StringComparison.OrdinalIgnoreCase))
        {
            number = number[..^1];
        }
        int power = number.IsEmpty ? 0 : Suffixes.IndexOf(char.ToUpperInvariant(number[^1]), StringComparison.Ordinal) + 1;
        number = power == 0 ? number : number[..^1].TrimEnd();
        if (!decimal.TryParse(number, NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out decimal value))
        {
            return false;
        }
        decimal factor = 1L << (10 * power);
        if (value > long.MaxValue / factor || decimal.Truncate(value * factor) != value * factor)
        {
            return false;
        }
        size = (long)(value * factor);
        return true;
    }

    /// <summary>Writes a size that <see cref="TryParse"/> reads back exactly, with the largest suffix that fits: <c>64k</c>, <c>2M</c>.</summary>
    public static string Format(long size)
    {
        int power = 0;
        while (size != 0 && size % 1024 == 0 && power < Suffixes.Length)
        {
            size /= 1024;
            power++;
        }
        return size.ToString(CultureInfo.InvariantCulture) + (power == 0 ? "" : power == 1 ? "k" : Suffixes[power - 1].ToString());
    }
}
