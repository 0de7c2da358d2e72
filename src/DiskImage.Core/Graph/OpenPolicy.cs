using DiskImage.Block;

namespace DiskImage.Graph;

/// <summary>How far a name that stands inside an image may reach.</summary>
public enum ReferenceScope
{
    /// <summary>No reference is followed: an image that needs one does not open.</summary>
    None,

    /// <summary>Files in the image's own folder and below.</summary>
    SameFolder,

    /// <summary>Regular files of this machine, by path. The default.</summary>
    LocalFiles,

    /// <summary>Whatever the image names: URIs and json: descriptions too.</summary>
    Anywhere,
}

/// <summary>
/// The gate between what an image says and what the program does. An image is untrusted input: the names in it (backing file,
/// data file) are opened only within these bounds.
/// </summary>
public sealed record OpenPolicy
{
    /// <summary>Local files by path, chains of up to 200 images.</summary>
    public static OpenPolicy Default { get; } = new();

    /// <summary>How far references reach.</summary>
    public ReferenceScope References { get; init; } = ReferenceScope.LocalFiles;

    /// <summary>Images in one chain at most, the first included. Ours: deeper chains are an attack or an accident.</summary>
    public int MaximumDepth { get; init; } = 200;

    /// <summary>Passes a reference or refuses it.</summary>
    /// <param name="reference">The name as it stands in the image.</param>
    /// <param name="imagePath">The image's full path.</param>
    /// <exception cref="DiskImageException">Refused, saying what would allow it.</exception>
    public ImageLocator Admit(string reference, string imagePath)
    {
        if (References == ReferenceScope.None)
        {
            throw Refusal("references are not followed here");
        }
        if (References != ReferenceScope.Anywhere && reference.StartsWith("json:", StringComparison.Ordinal))
        {
            throw Refusal("only paths of local files are followed"); // without looking into it
        }
        ImageLocator locator = ImageLocator.Parse(reference);
        if (References == ReferenceScope.Anywhere)
        {
            return locator.From(Path.GetDirectoryName(imagePath) ?? ".");
        }
        if (!locator.IsFile)
        {
            throw Refusal("only paths of local files are followed");
        }
        string folder = Path.GetDirectoryName(imagePath) ?? ".";
        locator = locator.From(folder);
        string inside = Path.GetFullPath(folder) is var full && Path.EndsInDirectorySeparator(full) ? full : full + Path.DirectorySeparatorChar;
        return References == ReferenceScope.LocalFiles || Path.GetFullPath(locator.Address).StartsWith(inside, StringComparison.Ordinal)
            ? locator
            : throw Refusal("only files in its own folder are followed");

        DiskImageException Refusal(string rule) => new(
            DiskImageErrorKind.Refused,
            $"{imagePath}: names '{reference}', which is not opened: {rule}. If you trust the image, allow more with -References.",
            imagePath);
    }
}
