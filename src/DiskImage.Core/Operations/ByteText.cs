using System.Globalization;

namespace DiskImage.Operations;

/// <summary>Byte counts and names as people read them.</summary>
public static class ByteText
{
    private static readonly string[] s_units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

    /// <summary>Three digits at least and a unit: <c>512 B</c>, <c>64 KiB</c>, <c>1.46 GiB</c>.</summary>
    public static string Of(long bytes)
    {
        double value = bytes;
        int unit = 0;
        while (Math.Abs(value) >= 1024 && unit < s_units.Length - 1)
        {
            value /= 1024;
            unit++;
        }
        string format = value is >= 100 or <= -100 ? "0" : value is >= 10 or <= -10 ? "0.#" : "0.##";
        return $"{value.ToString(format, CultureInfo.InvariantCulture)} {s_units[unit]}";
    }

    /// <summary>Both at once: <c>1.46 GiB (1,567,656,960 bytes)</c>.</summary>
    public static string WithBytes(long bytes)
        => bytes < 1024 ? $"{bytes} bytes" : $"{Of(bytes)} ({bytes.ToString("#,0", CultureInfo.InvariantCulture)} bytes)";

    /// <summary>A path's last part, for lines with little room.</summary>
    public static string Leaf(string path) => Path.GetFileName(path) is { Length: > 0 } name ? name : path;
}
