using System.Globalization;

namespace DiskImage.Options;

/// <summary>Sizes as people write them: a number and a suffix of powers of 1024.</summary>
public static class SizeText
{
    private const string Suffixes = "KMGTPE";

    /// <summary>
    /// Reads <c>1048576</c>, <c>0x100000</c>, <c>64k</c>, <c>1.5G</c>, <c>10GB</c> or <c>10GiB</c>: bytes, and each
    /// suffix is a power of 1024.
    /// </summary>
    public static bool TryParse(string? text, out long size)
    {
        size = 0;
        if (!TrySplit(text, out ReadOnlySpan<char> number, out long factor))
        {
            return false;
        }
        if (factor == 0)
        {
            return long.TryParse(number, NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out size) && size >= 0;
        }
        if (!decimal.TryParse(number, NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out decimal value)
            || value > long.MaxValue / (decimal)factor || decimal.Truncate(value * factor) != value * factor)
        {
            return false;
        }
        size = (long)(value * factor);
        return true;
    }

    /// <summary>Why a text that <see cref="TryParse"/> does not take is none, in a sentence.</summary>
    public static string WhyNot(string? text)
        => IsTooLarge(text)
            ? $"'{text}' is too large: a size is at most {long.MaxValue:#,0} bytes, one less than 8E."
            : $"'{text}' is not a size. Give bytes, or a number with one of the suffixes k, M, G, T, P, E: 65536, 64k, 10G, 1.5TB.";

    /// <summary>
    /// Writes a size that <see cref="TryParse"/> reads back exactly, with the largest suffix that fits: <c>64k</c>, <c>2M</c>.
    /// </summary>
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

    /// <summary>True for a size of more bytes than there can be.</summary>
    internal static bool IsTooLarge(string? text)
        => TrySplit(text, out ReadOnlySpan<char> number, out long factor)
            && (factor == 0
                ? UInt128.TryParse(number, NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out UInt128 hex)
                && hex > long.MaxValue
                : double.TryParse(number, NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out double value)
                && value * factor >= 9223372036854775808d);

    /// <summary>The digits and what the suffix multiplies them by; 0 for hexadecimal digits.</summary>
    private static bool TrySplit(string? text, out ReadOnlySpan<char> number, out long factor)
    {
        number = text.AsSpan().Trim();
        factor = 0;
        if (number.StartsWith("0x", StringComparison.OrdinalIgnoreCase))
        {
            number = number[2..];
            return true;
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
        factor = 1L << (10 * power);
        return true;
    }
}
