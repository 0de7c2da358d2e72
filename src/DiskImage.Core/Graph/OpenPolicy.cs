using DiskImage.Block;
using DiskImage.Options;

namespace DiskImage.Graph;

/// <summary>How far a name that stands inside an image may reach.</summary>
public enum ReferenceScope
{
    /// <summary>No reference is followed: an image that needs one does not open.</summary>
    None,

    /// <summary>Files in the image's own folder and below, not through symbolic links that lead out of it.</summary>
    SameFolder,

    /// <summary>Regular files of this machine, and of the network share the image is on, by path. The default.</summary>
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
    private const string IgnoreIdMismatchOption = "ignore_id_mismatch"; // in every format that checks its parent

    /// <summary>Local files by path, chains of up to 200 images.</summary>
    public static OpenPolicy Default { get; } = new();

    /// <summary>How far references reach.</summary>
    public ReferenceScope References { get; init; } = ReferenceScope.LocalFiles;

    /// <summary>Images in one chain at most, the first included. Ours: deeper chains are an attack or an accident.</summary>
    public int MaximumDepth { get; init; } = 200;

    /// <summary>Takes a parent whose identity is not the recorded one, in every image of a chain whose format records one.</summary>
    public bool IgnoreIdMismatch { get; init; }

    /// <summary>Reads files, also those that images name, though others may be writing to them. Writing never shares.</summary>
    public bool ForceShare { get; init; }

    /// <summary>What the policy says about the options with which images of a format are opened; options that are given come after these.</summary>
    internal IEnumerable<KeyValuePair<string, object?>> OptionsFor(OptionSchema schema)
        => IgnoreIdMismatch && schema.Find(IgnoreIdMismatchOption) is not null ? [new(IgnoreIdMismatchOption, true)] : [];

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
        string path = Path.GetFullPath(locator.Address), full = Path.GetFullPath(folder);
        if (OperatingSystem.IsWindows() && !IsNearRoot(Path.GetPathRoot(path)!, Path.GetPathRoot(full)!))
        {
            throw Refusal("only paths of local files are followed"); // asking another machine for a file tells it who asks
        }
        return References == ReferenceScope.LocalFiles || IsBelow(path, Path.EndsInDirectorySeparator(full) ? full : full + Path.DirectorySeparatorChar)
            ? locator
            : throw Refusal("only files in its own folder are followed");

        DiskImageException Refusal(string rule) => new(
            DiskImageErrorKind.Refused,
            $"{imagePath}: names '{reference}', which is not opened: {rule}. If you trust the image, allow more with -References.",
            imagePath);
    }

    /// <summary>True for the root of a Windows path that is a drive's, or that the image has as well (a share).</summary>
    internal static bool IsNearRoot(string root, string imageRoot)
        => root is [_, ':', '\\' or '/'] || root.Equals(imageRoot, StringComparison.OrdinalIgnoreCase);

    /// <summary>True for a path in a folder or below it, no part of which, seen from there, is a symbolic link.</summary>
    private static bool IsBelow(string path, string folder)
    {
        if (!path.StartsWith(folder, StringComparison.Ordinal))
        {
            return false;
        }
        for (string at = path; at.Length >= folder.Length; at = Path.GetDirectoryName(at)!)
        {
            if (new FileInfo(at).LinkTarget is not null)
            {
                return false;
            }
        }
        return true;
    }
}
