using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Options;

namespace DiskImage.Graph;

/// <summary>
/// A backing image as a new image is to name it. It is opened once before it is recorded: a name that leads nowhere or back to the
/// new image is found out before anything is written.
/// </summary>
/// <param name="Name">The name as it is to stand in the new image: relative ones are taken from the new image's
/// folder, as QEMU does.</param>
/// <param name="Format">Its format's name. Always recorded: an image whose backing format is probed at each opening
/// can be made to lie.</param>
/// <param name="Length">Its virtual size in bytes.</param>
/// <param name="WasProbed">True if the format was found by probing.</param>
public sealed record BackingReference(string Name, string Format, long Length, bool WasProbed)
{
    /// <summary>Opens the backing image, with all that is below it, and closes it again.</summary>
    /// <param name="opener">Opens within its policy.</param>
    /// <param name="imagePath">The full path that the new image will have.</param>
    /// <param name="name">The backing image's name.</param>
    /// <param name="format">Its format; null to probe.</param>
    /// <param name="currentFolder">The user's current folder: where a relative name may have been meant from. Null for none.</param>
    /// <param name="cancellationToken">Stops the opening.</param>
    /// <exception cref="DiskImageException">What opening says; InvalidOption if the new image would be its own backing image.</exception>
    public static async ValueTask<BackingReference> ResolveAsync(
        ImageOpener opener, string imagePath, string name, string? format, string? currentFolder, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(opener);
        OpenedImage backing;
        try
        {
            backing = await opener.OpenReferenceAsync(imagePath, name, format, [], cancellationToken).ConfigureAwait(false);
        }
        catch (DiskImageException e) when (e.Kind == DiskImageErrorKind.NotFound
            && Elsewhere(opener, imagePath, name, currentFolder) is { } hint)
        {
            throw new DiskImageException(e.Kind, hint, e.Path, cause: e);
        }
        await using (backing.ConfigureAwait(false))
        {
            RequireOther(opener, imagePath, name, backing);
            return new BackingReference(Recorded(name), backing.Format.Name, backing.Node.Length, backing.WasProbed);
        }
    }

    /// <summary>A backing image that need not be there, as an image is to name it. Its format is the user's word.</summary>
    public static BackingReference Unseen(string name, string format) => new(Recorded(name), format, 0, WasProbed: false);

    /// <summary>Throws if an image is one of the files that an opened backing image is made of.</summary>
    /// <exception cref="DiskImageException">InvalidOption.</exception>
    public static void RequireOther(ImageOpener opener, string imagePath, string name, OpenedImage backing)
    {
        ArgumentNullException.ThrowIfNull(opener);
        ArgumentNullException.ThrowIfNull(backing);
        if (backing.Node.FindSame(opener.IdentityOf(imagePath)) is not null)
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"{imagePath}: cannot be its own backing image (by way of '{name}'). Choose another name.",
                imagePath);
        }
    }

    /// <summary>The create options that make a new image of a format name this backing image.</summary>
    /// <param name="format">The new image's format.</param>
    /// <exception cref="DiskImageException">Unsupported: the format knows no backing images.</exception>
    public IEnumerable<KeyValuePair<string, object?>> OptionsFor(FormatDriver format)
    {
        OptionSchema schema = (format as ICreatable)?.CreateOptions ?? OptionSchema.Empty;
        string file = Named(nameof(ICreateOptions.BackingFile))
            ?? throw new DiskImageException(
                DiskImageErrorKind.Unsupported,
                $"An image of format '{format.Name}' cannot have a backing image. Choose another format, for example qcow2.");
        yield return new(file, Name);
        if (Named(nameof(ICreateOptions.BackingFormat)) is { } formatOption)
        {
            yield return new(formatOption, Format);
        }

        string? Named(string property) => schema.Options.FirstOrDefault(
            o => o.PropertyName.Equals(property, StringComparison.Ordinal))?.Name;
    }

    /// <summary>
    /// A name as it is to stand in the image. QEMU takes what comes before a colon for a protocol, unless a slash comes before that.
    /// </summary>
    private static string Recorded(string name)
    {
        int colon = name.IndexOf(':', StringComparison.Ordinal);
        return !OperatingSystem.IsWindows() && colon >= 0 && name.IndexOf('/', StringComparison.Ordinal) is var slash
            && (slash < 0 || slash > colon)
            && ImageLocator.Parse(name).IsPlainPath
            ? $"./{name}"
            : name;
    }

    /// <summary>
    /// What to say of a relative name that leads nowhere from the image's folder but somewhere from the current one; null if it does not.
    /// </summary>
    private static string? Elsewhere(ImageOpener opener, string imagePath, string name, string? currentFolder)
    {
        ImageLocator locator = ImageLocator.Parse(name);
        string folder = Path.GetDirectoryName(imagePath) ?? ".";
        if (currentFolder is null || !locator.IsPlainPath || Path.IsPathRooted(name)
            || opener.IdentityOf(Path.Combine(folder, name)) is not null || opener.IdentityOf(Path.Combine(currentFolder, name)) is null)
        {
            return null;
        }
        string meant = Path.GetFullPath(name, currentFolder);
        return $"{imagePath}: there is no '{name}' in its folder {folder}, where relative names of backing images are taken from, "
            + $"but there is one in the current folder. "
            + $"If that is meant, write '{Path.GetRelativePath(folder, meant)}' or '{meant}'.";
    }
}
