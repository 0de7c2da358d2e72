using System.Text.RegularExpressions;
using DiskImage.Block;
using DiskImage.Drivers;

namespace DiskImage.Graph;

/// <summary>
/// Where an image is: a path, a URI (<c>scheme://…</c>, <c>file:…</c>, <c>nbd:…</c>, <c>fat:…</c>) or a <c>json:{…}</c> description
/// of a node.
/// </summary>
/// <param name="Text">The locator as it was given.</param>
/// <param name="Scheme">The protocol; "file" for plain paths.</param>
/// <param name="Address">What the protocol gets: a path, or the rest of the URI.</param>
public sealed partial record ImageLocator(string Text, string Scheme, string Address)
{
    private const string FileScheme = "file";

    private NodeSpec? _described;

    /// <summary>What is to be opened: the description, or the file of a path or URI in a format that is not named.</summary>
    public NodeSpec Spec => _described
        ?? NodeSpec.Of(
            null,
            (NodeSpec.FileRole, IsFile
                ? NodeSpec.Of(FileScheme, (NodeSpec.FileNameKey, Address))
                : NodeSpec.Of(null, (NodeSpec.FileNameKey, Text))));

    /// <summary>True for a <c>json:</c> description.</summary>
    public bool IsDescription => _described is not null;

    /// <summary>True for a plain path, a <c>file:</c> URI, and a description of a file.</summary>
    public bool IsFile => Scheme.Equals(FileScheme, StringComparison.OrdinalIgnoreCase);

    /// <summary>True if the text is a plain path, with neither scheme nor json.</summary>
    public bool IsPlainPath => ReferenceEquals(Text, Address);

    /// <summary>True if a text begins with a scheme, and so is no path.</summary>
    public static bool HasScheme(string text) => SchemePattern().IsMatch(text);

    /// <summary>The address of a file as a full path, relative ones from the process's current folder.</summary>
    /// <exception cref="DiskImageException">InvalidOption: it cannot be a path.</exception>
    public string FullPath
    {
        get
        {
            try
            {
                return Path.GetFullPath(Address);
            }
            catch (Exception e) when (e is ArgumentException or NotSupportedException or PathTooLongException)
            {
                throw new DiskImageException(DiskImageErrorKind.InvalidOption, $"'{Text}' is not a path: {e.Message}", cause: e);
            }
        }
    }

    /// <summary>Tells the parts of a locator. A single letter before a colon is a Windows drive, not a scheme.</summary>
    /// <exception cref="DiskImageException">InvalidOption: empty, with a NUL, or URI or <c>json:</c> text that is
    /// not understood.</exception>
    public static ImageLocator Parse(string text)
    {
        if (string.IsNullOrWhiteSpace(text))
        {
            throw new DiskImageException(DiskImageErrorKind.InvalidOption, "An image's path is empty.");
        }
        ImageLocator locator = text.StartsWith(NodeSpecJson.Prefix, StringComparison.Ordinal)
            ? Describe(text, NodeSpecJson.Read(text))
            : ParseText(text);
        return string.IsNullOrWhiteSpace(locator.Address) && (!locator.IsDescription || locator.IsFile)
            ? throw new DiskImageException(DiskImageErrorKind.InvalidOption, $"'{text}' has no path.")
            : locator.Address.Contains('\0', StringComparison.Ordinal) || text.Contains('\0', StringComparison.Ordinal)
            ? throw new DiskImageException(DiskImageErrorKind.InvalidOption, $"An image's path has a NUL character: '{text}'.")
            : locator;
    }

    /// <summary>This locator, with a relative path taken from <paramref name="folder"/>.</summary>
    public ImageLocator From(string folder)
        => IsFile ? this with { Address = PathFrom(folder, Address, OperatingSystem.IsWindows()) } : this;

    /// <summary>
    /// This locator, a name that stands in an image, with a relative path taken from where the image is: its folder, on its server if it
    /// is on one. There the query of the image's URI is kept: it says how the server is reached.
    /// </summary>
    /// <param name="image">The image: a full path, a URI, or a description.</param>
    public ImageLocator Beside(string image)
    {
        if (IsPlainPath && !Address.StartsWith('/') && HasScheme(image)
            && image.IndexOf("://", StringComparison.Ordinal) is > 0 and var colon
            && !image.StartsWith($"{FileScheme}:", StringComparison.OrdinalIgnoreCase))
        {
            int query = image.IndexOf('?', StringComparison.Ordinal), end = query < 0 ? image.Length : query;
            int slash = image.LastIndexOf('/', end - 1);
            string folder = slash > colon + 2 ? image[..(slash + 1)] : $"{image[..end]}/";
            string name = Uri.EscapeDataString(Address).Replace("%2F", "/", StringComparison.Ordinal);
            string text = $"{folder}{name}{image[end..]}";
            return new ImageLocator(text, image[..colon], text[(colon + 1)..]);
        }
        string? path = image.StartsWith(NodeSpecJson.Prefix, StringComparison.Ordinal) ? Parse(image).Address : image;
        return From(Path.GetDirectoryName(path) is { Length: > 0 } beside ? beside : ".");
    }

    /// <summary>What a protocol gets to make something there: the path of a file, or the whole text.</summary>
    public string Target => IsFile ? Address : Text;

    /// <summary>
    /// A path as seen from a folder. On Windows <c>\a</c> is on the folder's drive or share, and <c>C:a</c> in the folder if that is on the
    /// drive, else at the drive's root: the process's own current folders have no say.
    /// </summary>
    internal static string PathFrom(string folder, string path, bool isWindows)
    {
        if (!isWindows)
        {
            return path.StartsWith('/') ? path : Path.Combine(folder, path);
        }
        if (path is ['\\' or '/', '\\' or '/', ..] or [_, ':', '\\' or '/', ..])
        {
            return path;
        }
        string root = WindowsRoot(folder);
        return path is ['\\' or '/', ..] ? root.TrimEnd('\\', '/') + path
            : path is not [_, ':', ..] ? Joined(folder, path)
            : root is [_, ':', ..] && char.ToUpperInvariant(root[0]) == char.ToUpperInvariant(path[0]) ? Joined(folder, path[2..])
            : $"{path[..2]}\\{path[2..]}";

        static string Joined(string folder, string path)
            => folder.Length == 0 || folder[^1] is '\\' or '/' ? folder + path : $"{folder}\\{path}";
    }

    /// <summary>The drive or share that a full Windows path begins with.</summary>
    private static string WindowsRoot(string path)
    {
        if (path is [_, ':', ..])
        {
            return path[..2];
        }
        int server = path.Length > 2 ? path.AsSpan(2).IndexOfAny('\\', '/') : -1;
        int share = server < 0 ? -1 : path.AsSpan(server + 3).IndexOfAny('\\', '/');
        return share < 0 ? path : path[..(server + 3 + share)];
    }

    private static ImageLocator ParseText(string text)
    {
        Match uri = SchemePattern().Match(text);
        if (!uri.Success)
        {
            return new ImageLocator(text, FileScheme, text);
        }
        string scheme = uri.Groups["scheme"].Value;
        string rest = text[(scheme.Length + 1)..];
        if (!scheme.Equals(FileScheme, StringComparison.OrdinalIgnoreCase))
        {
            return new ImageLocator(text, scheme, rest);
        }
        if (!OperatingSystem.IsWindows() && FileUrl.OtherHost(text) is { } host) // on Windows it is the name of a share
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"'{text}' names a file on the host '{host}', and only Windows opens files of other hosts by such a URL. A file of this "
                    + $"machine is file:///folder/name; for another's, give the path where it is mounted.");
        }
        string address = !rest.StartsWith("//", StringComparison.Ordinal)
            ? rest
            : FileUrl.ToPath(text, hasDrives: OperatingSystem.IsWindows())
            ?? throw new DiskImageException(
                DiskImageErrorKind.InvalidOption, $"'{text}' names no file. A URL of a file has the form file:///folder/name.");
        return new ImageLocator(text, FileScheme, address);
    }

    /// <summary>The locator of a description: where its file is, if it is one.</summary>
    private static ImageLocator Describe(string text, NodeSpec spec)
    {
        NodeSpec leaf = spec.Leaf;
        ImageLocator at = leaf.FileName is { Length: > 0 } name && leaf.Driver is null or FileScheme
            ? ParseText(name)
            : new(text, leaf.Driver ?? "", leaf.FileName ?? "");
        string scheme = leaf.Driver is FileScheme || (leaf.Driver is null && leaf.FileName is not null && at.Scheme.Length == 0)
            ? FileScheme : at.Scheme;
        return new ImageLocator(text, scheme, at.Address) { _described = spec };
    }

    [GeneratedRegex(
        @"^(?<scheme>(?:file|nbd|fat|sheepdog)(?=:)|[A-Za-z][A-Za-z0-9+.\-]+(?=://))",
        RegexOptions.ExplicitCapture | RegexOptions.IgnoreCase,
        matchTimeoutMilliseconds: 10_000)]
    private static partial Regex SchemePattern();
}
