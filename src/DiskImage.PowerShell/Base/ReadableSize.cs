using DiskImage.Operations;

namespace DiskImage.PowerShell;

/// <summary>Byte counts as people read them. The default views use it; properties stay raw.</summary>
public static class ReadableSize
{
    /// <summary>Three digits at least and a unit: <c>512 B</c>, <c>64 KiB</c>, <c>1.46 GiB</c>. Empty for no value.</summary>
    public static string Of(long? bytes) => bytes is long count ? ByteText.Of(count) : "";

    /// <summary>Both at once, for views with room: <c>1.46 GiB (1,567,656,960 bytes)</c>. Empty for no value.</summary>
    public static string WithBytes(long? bytes) => bytes is long count ? ByteText.WithBytes(count) : "";
}
