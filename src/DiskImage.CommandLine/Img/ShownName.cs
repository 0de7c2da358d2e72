using DiskImage.Graph;

namespace DiskImage.CommandLine;

/// <summary>What files are called: as the user called the image, and those beside it from there, as QEMU has it.</summary>
internal static class ShownName
{
    /// <summary>The name of a file that belongs to an image.</summary>
    /// <param name="file">The file's full path or URI.</param>
    /// <param name="image">The image's full path or URI.</param>
    /// <param name="given">What the user calls the image.</param>
    public static string Of(string file, string image, string given)
    {
        if (file.Equals(image, StringComparison.Ordinal))
        {
            return given;
        }
        string folder = Path.GetDirectoryName(image) ?? "";
        return !Path.IsPathRooted(given) && folder.Length > 0
            && file.StartsWith(folder + Path.DirectorySeparatorChar, StringComparison.Ordinal)
            ? Beside(given, file[(folder.Length + 1)..])
            : file;
    }

    /// <summary>What an image that was named so is called: a description by its file's name, a file without <c>file:</c>.</summary>
    public static string Given(string given)
    {
        const string Scheme = "file:";
        if (given.StartsWith("json:", StringComparison.Ordinal))
        {
            object? below = ImageLocator.Parse(given).Spec.Child("file");
            return below is NodeSpec { Driver: null or "file", FileName: { } file } ? file : given;
        }
        if (!given.StartsWith(Scheme, StringComparison.Ordinal) || given.StartsWith(Scheme + "//", StringComparison.Ordinal))
        {
            return given;
        }
        string name = given[Scheme.Length..];
        int colon = name.IndexOf(':', StringComparison.Ordinal), slash = name.IndexOf('/', StringComparison.Ordinal);
        return colon >= 0 && (slash < 0 || colon < slash) ? $"./{name}" : name;
    }

    /// <summary>A name that stands in an image, as seen from where the image is.</summary>
    public static string Beside(string given, string name)
    {
        int end = given.LastIndexOf('/') + 1;
        return Path.IsPathRooted(name) || ImageLocator.HasScheme(name) || name.StartsWith("json:", StringComparison.Ordinal)
            || name.Length == 0 ? name : given[..end] + name;
    }
}
