using DiskImage.Block;
using DiskImage.Drivers;

namespace DiskImage.PowerShell;

/// <summary>Which format a new image is to have.</summary>
internal static class TargetFormat
{
    /// <summary>The named format, else the one that the path's ending stands for.</summary>
    /// <exception cref="DiskImageException">InvalidOption, naming the choice.</exception>
    public static FormatDriver Of(string? name, string path, string parameter)
        => name is not null
            ? DiskImageCmdlet.Registry.Format(name)
            : DiskImageCmdlet.Registry.FormatByExtension(path)
                ?? throw new DiskImageException(
                    DiskImageErrorKind.InvalidOption,
                    $"{path}: its ending does not tell which format it is to have. Name one with "
                        + $"-{parameter}: {string.Join(", ", Names())}.",
                    path);

    /// <summary>The same, or null where it is not known (yet): for completion and dynamic parameters.</summary>
    public static FormatDriver? TryOf(string? name, string? path)
    {
        try
        {
            return Of(name, path ?? "", "");
        }
        catch (DiskImageException)
        {
            return null;
        }
    }

    private static IEnumerable<string> Names() => DiskImageCmdlet.Registry.Formats.Where(f => f is ICreatable).Select(f => f.Name);
}
