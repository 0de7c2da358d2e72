using System.Globalization;

namespace DiskImage.PowerShell;

/// <summary>Byte counts as people read them. The default views use it; properties stay raw.</summary>
public static class ReadableSize
{
    private static readonly string[] Units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

    /// <summary>Three digits at least and a unit: <c>512 B</c>, <c>64 KiB</c>, <c>1.46 GiB</c>. Empty for no value.</summary>
    public static string Of(long? bytes)
    {
        if (bytes is not long count)
        {
            return "";
        }
        double value = count;
        int unit = 0;
        while (Math.Abs(value) >= 1024 && unit < Units.Length - 1)
        {
            value /= 1024;
            unit++;
        }
        string format = value is >= 100 or <= -100 ? "0" : value is >= 10 or <= -10 ? "0.#" : "0.##";
        return $"{value.ToString(format, CultureInfo.InvariantCulture)} {Units[unit]}";
    }

    /// <summary>Both at once, for views with room: <c>1.46 GiB (1,567,656,960 bytes)</c>. Empty for no value.</summary>
    public static string WithBytes(long? bytes)
        => bytes is not long count ? "" : count < 1024 ? $"{count} bytes" : $"{Of(count)} ({count.ToString("#,0", CultureInfo.InvariantCulture)} bytes)";
}
