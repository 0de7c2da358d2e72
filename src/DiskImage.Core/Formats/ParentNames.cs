using DiskImage.Block;

namespace DiskImage.Formats;

/// <summary>
/// The names by which a differencing disk records where its parent is, as Windows writes paths. One of them at least is there.
/// </summary>
/// <param name="Relative">From the disk's folder, beginning with <c>.\</c> or <c>..\</c>; null if there is no such way.</param>
/// <param name="Absolute">From a drive or a share, without the prefix of long paths; null if the parent's path is
/// not one of Windows.</param>
internal sealed record ParentNames(string? Relative, string? Absolute)
{
    /// <summary>The parent's file name.</summary>
    public string FileName => WindowsPath.FileName(Relative ?? Absolute!);

    /// <summary>The names of a parent.</summary>
    /// <param name="imageName">The differencing disk's path.</param>
    /// <param name="parent">The parent's path, from the disk's folder if relative.</param>
    /// <exception cref="DiskImageException">InvalidOption: the path cannot be written as Windows writes paths.</exception>
    public static ParentNames Of(string imageName, string parent)
    {
        if (!OperatingSystem.IsWindows() && WindowsPath.Full(parent) is { } elsewhere)
        {
            return new ParentNames(null, elsewhere);
        }
        string folder = Path.GetDirectoryName(Path.GetFullPath(imageName)) ?? Path.GetFullPath(imageName);
        string full = Path.GetFullPath(parent, folder);
        var names = new ParentNames(WindowsPath.Relative(folder, full), WindowsPath.Full(full));
        return names is { Relative: null, Absolute: null }
            ? throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"{imageName}: the parent's path '{parent}' cannot be recorded, since a part of it has a backslash in its name. Rename it.",
                imageName)
            : names;
    }

    /// <summary>
    /// The names for a value of the option parent_path, which may be written as Windows or as this system writes
    /// paths; nothing need be there.
    /// </summary>
    /// <param name="imageName">The differencing disk's path.</param>
    /// <param name="hasParent">False if the disk is no differencing one.</param>
    /// <param name="value">The option's value.</param>
    /// <exception cref="DiskImageException">InvalidOption: no path, or there is no parent whose path it could be.</exception>
    public static ParentNames OfOption(string imageName, bool hasParent, string value)
    {
        string local = WindowsPath.ToLocal(value);
        return !hasParent
            ? throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"{imageName}: has no parent, so parent_path={value} is not possible. Give it one "
                    + $"with {new Remedy(RemedyKind.SetBacking)}.",
                imageName)
            : WindowsPath.FileName(local).Length == 0
            ? throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"{imageName}: parent_path={value} is not possible; allowed: the path of a file."
                    + $" To take the parent away there is {new Remedy(RemedyKind.SetBacking)}.",
                imageName)
            : Of(imageName, local);
    }
}
