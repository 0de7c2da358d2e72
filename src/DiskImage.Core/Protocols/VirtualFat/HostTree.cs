using System.Globalization;
using DiskImage.Block;
using DiskImage.Platform;

namespace DiskImage.Protocols.VirtualFat;

/// <summary>
/// Lists a folder with all that is in it. Links are followed only to files in the folder, and not at all if what is written is to go
/// into it. What a volume cannot have is left out and said.
/// </summary>
/// <param name="root">The folder's full path.</param>
/// <param name="followsLinks">Links to files are taken for these.</param>
/// <param name="warn">Told what is left out.</param>
internal sealed class HostTree(string root, bool followsLinks, Action<Wording> warn)
{
    /// <summary>Where files are made that are to be brought in: never on the disk.</summary>
    public const string IncomingFolder = ".diskimage-incoming";

    private const int MostItems = 1_000_000, MostDepth = 100; // ours; paths on a volume have up to 260 characters on most systems
    private const int MostWarnings = 20;
    private const string EpochVariable = "SOURCE_DATE_EPOCH";

    private static readonly EnumerationOptions s_all = new() { AttributesToSkip = 0, IgnoreInaccessible = false };

    private readonly DateTime _latest = Latest();
    private int _items, _warnings;
    private string? _real;

    /// <summary>Lists it.</summary>
    /// <exception cref="DiskImageException">
    /// NotFound, AccessDenied and what the host says; OutOfRange: a file or folder that a volume cannot hold.
    /// </exception>
    public FatFolder List(CancellationToken cancellationToken)
    {
        HostFileKind kind = HostFile.Current.KindOf(root);
        if (kind != HostFileKind.Directory)
        {
            throw new DiskImageException(
                kind == HostFileKind.None ? DiskImageErrorKind.NotFound : DiskImageErrorKind.InvalidOption,
                kind == HostFileKind.None
                    ? $"{root}: no such folder"
                    : (Wording)$"{root}: is no folder. A virtual FAT disk is made of one.",
                root);
        }
        var top = new FatFolder("", root) { Changed = Clamp(Directory.GetLastWriteTimeUtc(root)), Attributes = FatAttributes.Folder };
        var open = new Stack<(FatFolder Folder, int Depth)>([(top, 1)]);
        while (open.TryPop(out (FatFolder Folder, int Depth) next))
        {
            cancellationToken.ThrowIfCancellationRequested();
            Fill(next.Folder, next.Depth);
            foreach (FatFolder inner in next.Folder.Items.OfType<FatFolder>().Reverse())
            {
                open.Push((inner, next.Depth + 1));
            }
        }
        if (_warnings > MostWarnings)
        {
            warn($"{root}: {_warnings - MostWarnings:#,0} more files or folders are not on the disk.");
        }
        return top;
    }

    private void Fill(FatFolder folder, int depth)
    {
        FileSystemInfo[] found = Try(folder.Path, "list it", () => new DirectoryInfo(folder.Path).GetFileSystemInfos("*", s_all));
        Array.Sort(found, (a, b) => string.CompareOrdinal(a.Name, b.Name));
        var names = new Dictionary<string, string>(FatName.Comparer);
        foreach (FileSystemInfo entry in found)
        {
            if (++_items > MostItems)
            {
                throw TooMuch(root, $"has more than {MostItems:#,0} files and folders");
            }
            if (folder.Parent is null && entry.Name.Equals(IncomingFolder, StringComparison.Ordinal))
            {
                warn($"{entry.FullName}: was left by a run that was cut short while it brought changes in. It is not on the disk.");
            }
            else if (FatName.Objection(entry.Name) is { } objection)
            {
                LeaveOut(entry.FullName, $"a FAT volume cannot have that name: {objection}");
            }
            else if (names.TryGetValue(entry.Name, out string? other))
            {
                LeaveOut(entry.FullName, $"on a FAT volume its name would be the same as that of '{other}'");
            }
            else if (Item(folder, entry, depth) is { } item)
            {
                names.Add(entry.Name, entry.Name);
                folder.Items.Add(item);
            }
        }
        FatName.GiveShortNames(folder.Items);
        if (folder.Entries > FatFolderBytes.MostEntries)
        {
            throw TooMuch(
                folder.Path,
                $"takes {folder.Entries:#,0} entries with its {folder.Items.Count:#,0} files and folders, long names among them; a folder "
                    + $"of a FAT volume has up to {FatFolderBytes.MostEntries:#,0}");
        }
    }

    private FatItem? Item(FatFolder folder, FileSystemInfo entry, int depth)
    {
        string path = entry.FullName;
        if (entry.LinkTarget is not null || (entry.Attributes & FileAttributes.ReparsePoint) != 0)
        {
            return Linked(entry);
        }
        if (entry is DirectoryInfo)
        {
            return depth >= MostDepth
                ? throw TooMuch(path, $"lies deeper than {MostDepth} folders in each other")
                : new FatFolder(entry.Name, path)
                {
                    Parent = folder, Changed = Clamp(entry.LastWriteTimeUtc), Attributes = FatAttributes.Folder | Kept(entry, path),
                };
        }
        return FileOf(entry, path);
    }

    private FatFile? Linked(FileSystemInfo entry)
    {
        string path = entry.FullName;
        if (!followsLinks)
        {
            return LeaveOut(path, "it is a link, and what is written is never brought through links");
        }
        _real ??= Try(root, "follow it", () => HostNames.Current.Resolve(Path.Combine(root, "x")))[..^1];
        string? target = null;
        try
        {
            target = HostNames.Current.Resolve(path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // it leads nowhere
        }
        return target is null || HostFile.Current.KindOf(target) == HostFileKind.None ? LeaveOut(path, "it is a link that leads nowhere")
            : !target.StartsWith(_real, StringComparison.Ordinal) ? LeaveOut(path, "it is a link that leads out of the folder")
            : HostFile.Current.KindOf(target) != HostFileKind.Regular ? LeaveOut(path, "it is a link to something else than a file")
            : FileOf(new FileInfo(target), path, entry.Name);
    }

    private FatFile? FileOf(FileSystemInfo entry, string path, string? name = null)
    {
        HostEntry? host = HostNames.Current.Find(entry.FullName);
        if (host is null)
        {
            return LeaveOut(path, "it is gone, or its name is no text");
        }
        if (host.Kind != HostFileKind.Regular)
        {
            return LeaveOut(path, host.Kind switch
            {
                HostFileKind.Device => "it is a device",
                HostFileKind.Pipe => "it is a pipe",
                _ => "it is a socket or something else that is no file",
            });
        }
        long length = ((FileInfo)entry).Length;
        return length > uint.MaxValue
            ? throw TooMuch(
                path, $"has {length:#,0} bytes; a file on a FAT volume has up to {uint.MaxValue:#,0}. Leave it out of the folder")
            : new FatFile(name ?? entry.Name, path)
            {
                Length = length,
                Identity = host.Identity,
                HostChanged = entry.LastWriteTimeUtc,
                Changed = Clamp(entry.LastWriteTimeUtc),
                Attributes = FatAttributes.Archive | Kept(entry, path),
            };
    }

    /// <summary>What of an entry's attributes a volume has, too. On Unix a dot before the name hides nothing here.</summary>
    private static FatAttributes Kept(FileSystemInfo entry, string path)
    {
        if (!OperatingSystem.IsWindows())
        {
            return (Try(path, "look at it", () => entry.UnixFileMode) & UnixFileMode.UserWrite) == 0
                ? FatAttributes.ReadOnly : FatAttributes.None;
        }
        FileAttributes has = entry.Attributes;
        return ((has & FileAttributes.ReadOnly) != 0 && entry is not DirectoryInfo ? FatAttributes.ReadOnly : FatAttributes.None)
            | ((has & FileAttributes.Hidden) != 0 ? FatAttributes.Hidden : FatAttributes.None)
            | ((has & FileAttributes.System) != 0 ? FatAttributes.System : FatAttributes.None);
    }

    private FatFile? LeaveOut(string path, string why)
    {
        if (++_warnings <= MostWarnings)
        {
            warn($"{path}: is not on the disk: {why}.");
        }
        return null;
    }

    private DateTime Clamp(DateTime time) => time > _latest ? _latest : time;

    /// <summary>No time is later where the environment says so. Spec: SOURCE_DATE_EPOCH 1.1 of reproducible-builds.org.</summary>
    private static DateTime Latest()
    {
        string? value = Environment.GetEnvironmentVariable(EpochVariable);
        return long.TryParse(value, NumberStyles.None, CultureInfo.InvariantCulture, out long seconds)
            && seconds <= DateTimeOffset.MaxValue.ToUnixTimeSeconds()
            ? DateTimeOffset.FromUnixTimeSeconds(seconds).UtcDateTime
            : DateTime.MaxValue;
    }

    private static T Try<T>(string path, string doing, Func<T> action)
    {
        try
        {
            return action();
        }
        catch (Exception e) when (e is not DiskImageException and (IOException or UnauthorizedAccessException))
        {
            throw HostFile.Error(e, path, doing);
        }
    }

    private static DiskImageException TooMuch(string path, Wording what)
        => new(DiskImageErrorKind.OutOfRange, $"{path}: {what}.", path);
}
