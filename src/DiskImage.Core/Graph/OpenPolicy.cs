using DiskImage.Block;
using DiskImage.Options;

namespace DiskImage.Graph;

/// <summary>How far a name that stands inside an image may reach.</summary>
public enum ReferenceScope
{
    /// <summary>No reference is followed: an image that needs one does not open.</summary>
    None,

    /// <summary>Files in the image's own folder and below, not through symbolic links that lead out of it. The default.</summary>
    SameFolder,

    /// <summary>Regular files of this machine, and of the network share the image is on, by path.</summary>
    LocalFiles,

    /// <summary>Whatever the image names: URIs and json: descriptions too.</summary>
    Anywhere,
}

/// <summary>
/// The gate between what an image says and what the program does. An image is untrusted input: the names in it (backing file,
/// data file) are opened only within these bounds. What the user names is the user's own word and has none.
/// </summary>
public sealed record OpenPolicy
{
    /// <summary>What an image names to have below it.</summary>
    internal const string BackingRole = "backing file";

    /// <summary>What an image names to hold its data.</summary>
    internal const string DataRole = "data file";

    private const string IgnoreIdMismatchOption = "ignore_id_mismatch"; // in every format that checks its parent

    /// <summary>Files in the image's folder, chains of up to 200 images.</summary>
    public static OpenPolicy Default { get; } = new();

    /// <summary>How far references reach, to read as to write.</summary>
    public ReferenceScope References { get; init; } = ReferenceScope.SameFolder;

    /// <summary>Images in one chain at most, the first included. Ours: deeper chains are an attack or an accident.</summary>
    public int MaximumDepth { get; init; } = 200;

    /// <summary>Takes a parent whose identity is not the recorded one, in every image of a chain whose format records one.</summary>
    public bool IgnoreIdMismatch { get; init; }

    /// <summary>Full paths of folders in which parents are looked for that are recorded without a path, beside the image's own.</summary>
    public IReadOnlyList<string> ParentFolders { get; init; } = [];

    /// <summary>Reads files, also those that images name, though others may be writing to them. Writing never shares.</summary>
    public bool ForceShare { get; init; }

    /// <summary>Whether files are locked as QEMU locks them, where a description does not say.</summary>
    public ImageLocking Locking { get; init; }

    /// <summary>How writes reach the medium, where a description does not say.</summary>
    public CachePolicy Cache { get; init; }

    /// <summary>Disks of the machine may be written to.</summary>
    public bool AllowDeviceWrite { get; init; }

    /// <summary>Throws if a disk of the machine is to be written to and that is not allowed.</summary>
    /// <exception cref="DiskImageException">ReadOnly.</exception>
    internal void RequireDeviceWrite(string device)
    {
        if (!AllowDeviceWrite)
        {
            throw new DiskImageException(
                DiskImageErrorKind.ReadOnly,
                $"{device}: is a disk of this machine, and these are only read. If all that it holds may be lost, allow writing "
                    + $"with {new Remedy(RemedyKind.AllowDeviceWrite)}.",
                device);
        }
    }

    /// <summary>
    /// Throws if a name that stands in an image leads to a disk of the machine, which is no file, and the user did not name it, too.
    /// </summary>
    /// <param name="device">The disk.</param>
    /// <param name="imagePath">The image.</param>
    /// <exception cref="DiskImageException">Refused.</exception>
    internal void RequireDeviceNamed(string device, string imagePath)
    {
        if (References != ReferenceScope.Anywhere && !Named.Contains(device))
        {
            throw new DiskImageException(
                DiskImageErrorKind.Refused,
                $"{imagePath}: names {device}, which is a disk of this machine and no file. It is not opened; if you trust the image, "
                    + $"allow it with {new Remedy(RemedyKind.References, nameof(ReferenceScope.Anywhere))}.",
                imagePath);
        }
    }

    /// <summary>Full paths and locators that the user named: whatever image names one of these too, it is opened.</summary>
    private HashSet<string> Named { get; init; } = [];

    /// <summary>The policy that also admits what the user named for an image to name.</summary>
    /// <param name="reference">The name, as it is to stand in the image; null for none.</param>
    /// <param name="imagePath">The image's full path.</param>
    public OpenPolicy Naming(string? reference, string imagePath)
        => string.IsNullOrEmpty(reference) ? this
            : this with { Named = new(Named.Append(KeyOf(ImageLocator.Parse(reference).Beside(imagePath))), ImagePaths.Comparer) };

    /// <summary>
    /// What the policy says about the options with which images of a format are opened; options that are given come after these.
    /// </summary>
    internal IEnumerable<KeyValuePair<string, object?>> OptionsFor(OptionSchema schema)
        => IgnoreIdMismatch && schema.Find(IgnoreIdMismatchOption) is not null ? [new(IgnoreIdMismatchOption, true)] : [];

    /// <summary>Passes a reference or refuses it.</summary>
    /// <param name="reference">The name as it stands in the image.</param>
    /// <param name="imagePath">The image's full path.</param>
    /// <param name="role">What the image names it for.</param>
    /// <exception cref="DiskImageException">Refused, saying what would allow it; InvalidOption: it is no name.</exception>
    public ImageLocator Admit(string reference, string imagePath, string role = BackingRole)
    {
        ArgumentNullException.ThrowIfNull(reference);
        bool isDescription = reference.StartsWith("json:", StringComparison.Ordinal);
        if (References == ReferenceScope.Anywhere || (isDescription && Named.Contains(reference)))
        {
            return ImageLocator.Parse(reference).Beside(imagePath);
        }
        if (isDescription)
        {
            throw Refusal("which is not the path of a file on this machine", ReferenceScope.Anywhere); // without looking into it
        }
        ImageLocator locator = ImageLocator.Parse(reference).Beside(imagePath);
        if (Named.Contains(KeyOf(locator)) || (locator.IsFile && ParentFolders.Any(f => ImagePaths.IsBelow(locator.FullPath, f))))
        {
            return locator;
        }
        string folder = ImageLocator.Parse(FolderOf(imagePath)).FullPath;
        // asking another machine tells it who asks
        return !locator.IsFile || (OperatingSystem.IsWindows() && !ImagePaths.IsNear(locator.FullPath, folder))
            ? throw Refusal("which is not the path of a file on this machine", ReferenceScope.Anywhere)
            : References == ReferenceScope.LocalFiles
            ? locator
            : !ImagePaths.IsBelow(locator.FullPath, folder)
            ? throw Refusal($"which leads out of the image's folder ({locator.FullPath})", ReferenceScope.LocalFiles)
            : References == ReferenceScope.SameFolder
            ? locator
            : throw Refusal("and no names are followed here", ReferenceScope.SameFolder);

        DiskImageException Refusal(string why, ReferenceScope needed) => new(
            DiskImageErrorKind.Refused,
            $"{imagePath}: names the {role} '{reference}', {why}. It is not opened; if you trust the image, allow it with "
                + $"{new Remedy(RemedyKind.References, needed.ToString())}.",
            imagePath);
    }

    private static string FolderOf(string imagePath)
    {
        string path = imagePath.StartsWith(NodeSpecJson.Prefix, StringComparison.Ordinal)
            ? ImageLocator.Parse(imagePath).Address
            : imagePath;
        return Path.GetDirectoryName(path) is { Length: > 0 } folder ? folder : ".";
    }

    private static string KeyOf(ImageLocator locator)
        => locator.IsFile && !locator.Text.StartsWith("json:", StringComparison.Ordinal) ? locator.FullPath : locator.Text;
}
