using System.Management.Automation;
using DiskImage.Block;
using DiskImage.Graph;

namespace DiskImage.PowerShell;

/// <summary>
/// Turns what a user writes into locators: paths are resolved as PowerShell does it (current location, drives, <c>~</c>, provider
/// paths, wildcards); URIs, <c>json:</c> descriptions and device names pass through. To be used on the pipeline thread.
/// </summary>
internal static class SessionPath
{
    /// <summary>The locators that a path with wildcards stands for; folders are left out. At least one.</summary>
    /// <exception cref="DiskImageException">NotFound, Unsupported or InvalidOption.</exception>
    public static IReadOnlyList<string> Expand(PathIntrinsics session, string path)
    {
        // A file whose name has wildcard characters is found by its name, so that it can be piped in.
        if (PassesThrough(path) || !MayHaveWildcards(path) || File.Exists(Literal(session, path)))
        {
            return [Literal(session, path)];
        }
        return Resolve(path, () =>
        {
            IEnumerable<string> found = session.GetResolvedProviderPathFromPSPath(path, out ProviderInfo provider);
            RequireFileSystem(path, provider);
            string[] files = [.. found.Where(f => !Directory.Exists(f))];
            return files.Length > 0 ? files : throw new DiskImageException(DiskImageErrorKind.NotFound, $"No file matches '{path}'.", path);
        });
    }

    /// <summary>The locator that a path without wildcards stands for, whether or not something is there.</summary>
    /// <exception cref="DiskImageException">NotFound, Unsupported or InvalidOption.</exception>
    public static string Literal(PathIntrinsics session, string path)
    {
        if (PassesThrough(path))
        {
            ImageLocator locator = ImageLocator.Parse(path);
            return locator.IsFile && !IsJson(path) ? locator.From(Folder(session)).Address : path;
        }
        return Resolve(path, () =>
        {
            string resolved = session.GetUnresolvedProviderPathFromPSPath(path, out ProviderInfo provider, out _);
            RequireFileSystem(path, provider);
            return Path.Combine(Folder(session), resolved); // a provider path may be relative
        });
    }

    /// <summary>
    /// A backing image's name as it is to be recorded: <c>~</c>, PowerShell's drives and provider paths become full paths, which everybody
    /// understands. Relative names stay as they are; they are taken from the image's folder.
    /// </summary>
    /// <exception cref="DiskImageException">NotFound, Unsupported or InvalidOption.</exception>
    public static string Backing(SessionState session, string name)
    {
        bool isHome = name is "~" or ['~', '/' or '\\', ..];
        int colon = name.IndexOf(':', StringComparison.Ordinal);
        bool isDrive = colon > 0 && session.Drive.GetAll().Any(d => d.Name.Equals(name[..colon], StringComparison.OrdinalIgnoreCase));
        bool isProvider = colon > 0 && name.AsSpan(colon).StartsWith("::");
        return !PassesThrough(name) && (isHome || isDrive || isProvider) ? Literal(session.Path, name) : name;
    }

    /// <summary>Folders, as full paths; they need not be there.</summary>
    public static IReadOnlyList<string> Folders(PathIntrinsics session, IEnumerable<string> paths)
        => [.. paths.Select(p => Path.GetFullPath(session.GetUnresolvedProviderPathFromPSPath(p)))];

    /// <summary>The current folder of the session, which need not be the process's.</summary>
    public static string Folder(PathIntrinsics session) => session.CurrentFileSystemLocation.ProviderPath;

    private static bool PassesThrough(string path)
        => IsJson(path) || path.StartsWith(@"\\.\", StringComparison.Ordinal) || path.StartsWith(@"\\?\", StringComparison.Ordinal)
            || ImageLocator.HasScheme(path);

    private static bool IsJson(string path) => path.StartsWith("json:", StringComparison.Ordinal);

    private static bool MayHaveWildcards(string path)
        => WildcardPattern.ContainsWildcardCharacters(path) || path.Contains('`', StringComparison.Ordinal);

    private static void RequireFileSystem(string path, ProviderInfo provider)
    {
        if (!provider.Name.Equals("FileSystem", StringComparison.Ordinal))
        {
            throw new DiskImageException(
                DiskImageErrorKind.Unsupported, $"'{path}' belongs to PowerShell's provider {provider.Name}, which has no files.", path);
        }
    }

    private static T Resolve<T>(string path, Func<T> resolve)
    {
        try
        {
            return resolve();
        }
        catch (Exception e) when (
            e is ItemNotFoundException or System.Management.Automation.DriveNotFoundException or ProviderNotFoundException)
        {
            throw new DiskImageException(DiskImageErrorKind.NotFound, e.Message, path, cause: e);
        }
        // what providers and paths throw is theirs; the item is at fault
        catch (Exception e) when (e is not (DiskImageException or PipelineStoppedException))
        {
            throw new DiskImageException(DiskImageErrorKind.InvalidOption, $"'{path}' is not a path: {e.Message}", path, cause: e);
        }
    }
}
