using System.Globalization;

namespace DiskImage.CommandLine;

/// <summary>Sizes as QEMU reads and writes them. Spec: "Size units" of qemu-img's manual.</summary>
internal static class QemuSize
{
    private const string Suffixes = "BKMGTPE";

    private static readonly string[] s_units = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

    /// <summary>
    /// Bytes, or a number with one suffix b, k, M, G, T, P, E; a fraction takes a suffix and is rounded down, 0x needs none.
    /// </summary>
    /// <param name="text">The text.</param>
    /// <param name="unit">What a number without a suffix is multiplied with.</param>
    /// <param name="size">The bytes.</param>
    public static bool TryParse(string text, long unit, out long size)
    {
        size = 0;
        string digits = text.Trim();
        if (digits.StartsWith("0x", StringComparison.OrdinalIgnoreCase))
        {
            return long.TryParse(digits.AsSpan(2), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out size) && size >= 0;
        }
        int power = digits.Length == 0 ? -1 : Suffixes.IndexOf(char.ToUpperInvariant(digits[^1]), StringComparison.Ordinal);
        long factor = power >= 0 ? 1L << (10 * power) : unit;
        digits = power >= 0 ? digits[..^1] : digits;
        if (digits.Length == 0 || !char.IsAsciiDigit(digits[0])
            || !decimal.TryParse(digits, NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out decimal number)
            || number > long.MaxValue / (decimal)factor
            || (factor == 1 && digits.Contains('.', StringComparison.Ordinal)))
        {
            return false;
        }
        size = (long)decimal.Truncate(number * factor);
        return true;
    }

    /// <inheritdoc cref="TryParse(string, long, out long)"/>
    public static bool TryParse(string text, out long size) => TryParse(text, 1, out size);

    /// <summary>Reads the size in an option.</summary>
    /// <exception cref="CommandException">It is none.</exception>
    public static long Of(string what, string text)
        => TryParse(text, out long size)
            ? size
            : throw new CommandException(
                $"Invalid {what} specified. You may use k, M, G, T, P or E suffixes for \n"
                + "qemu-img: kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.");

    /// <summary>Three significant digits and a unit: <c>10 MiB</c>, <c>1.25 MiB</c>, <c>196 KiB</c>, <c>512 B</c>.</summary>
    public static string Text(long bytes)
    {
        double number = bytes;
        int power = 0;
        while (number >= 1000 && power < s_units.Length - 1)
        {
            number /= 1024;
            power++;
        }
        return $"{Digits(number, 3)} {(power == 0 ? "B" : s_units[power])}";
    }

    /// <summary>Three decimals, or none if they are zero, as qemu-io shows them.</summary>
    public static string Exact(double bytes)
    {
        int power = 0;
        while (bytes >= 1024 && power < s_units.Length - 1)
        {
            bytes /= 1024;
            power++;
        }
        string digits = Math.Round(bytes, 3, MidpointRounding.ToEven).ToString("0.000", CultureInfo.InvariantCulture);
        return $"{(digits.EndsWith(".000", StringComparison.Ordinal) ? digits[..^4] : digits)} {s_units[power]}";
    }

    /// <summary>A number with so many significant digits, without zeroes at the end, as C's %g writes it.</summary>
    private static string Digits(double number, int digits)
    {
        int whole = number == 0 ? 1 : (int)Math.Floor(Math.Log10(number)) + 1;
        decimal rounded = Math.Round((decimal)number, Math.Max(0, digits - whole), MidpointRounding.ToEven);
        return rounded.ToString("0.######", CultureInfo.InvariantCulture);
    }
}
