using DiskImage.Block;
using DiskImage.Platform;
using Microsoft.Win32.SafeHandles;
using HostIO = System.IO.File;

namespace DiskImage.Protocols.VirtualFat;

/// <summary>A file that is made, and has not got its name.</summary>
/// <param name="Arrival">What it is to be.</param>
/// <param name="Path">Where it is.</param>
/// <param name="IsLinked">It is the file of the folder itself, under one more name; otherwise a copy.</param>
internal sealed record FileMade(FileArrival Arrival, string Path, bool IsLinked);

/// <summary>
/// Brings a plan into the folder. All that is new is made and flushed in a folder of its own first; then each file takes its name in one
/// step; then what is no more is removed. Whenever that is cut short, every name leads to the old file or to the new one.
/// </summary>
/// <param name="known">The folder, which is kept up with what is done.</param>
/// <param name="read">Fills a buffer from an offset of the disk.</param>
/// <param name="offsetOf">Where on the disk a cluster is.</param>
/// <param name="onStep">Told before each change of the folder what it is.</param>
internal sealed class FolderWriter(KnownTree known, GuestTable.Reader read, Func<uint, long> offsetOf, Action<string>? onStep)
{
    private const int Step = 1 << 20;

    private readonly List<FatProblem> _problems = [];
    private readonly HashSet<string> _touched = new(StringComparer.Ordinal);
    private readonly string _incoming = known.HostPath(HostTree.IncomingFolder);

    /// <summary>What could not be done after all.</summary>
    public IReadOnlyList<FatProblem> Problems => _problems;

    /// <summary>Makes all that is new, under temporary names: the folder looks as before.</summary>
    /// <returns>The files, each with the path it was made under.</returns>
    /// <exception cref="DiskImageException">What the host says.</exception>
    public List<FileMade> Prepare(FolderPlan plan)
    {
        var made = new List<FileMade>();
        if (plan.Files.Count == 0)
        {
            return made;
        }
        Do(_incoming, "make a folder for what is brought in", () =>
        {
            if (new FileInfo(_incoming).LinkTarget is not null)
            {
                throw new IOException("there is a link of that name");
            }
            _ = Directory.CreateDirectory(_incoming);
            foreach (string left in Directory.EnumerateFiles(_incoming))
            {
                HostIO.Delete(left); // by a run that was cut short
            }
        });
        foreach (FileArrival arrival in plan.Files)
        {
            string path = Path.Combine(_incoming, made.Count.ToString(System.Globalization.CultureInfo.InvariantCulture));
            bool isLinked = false;
            if (arrival.MovedFrom is { } from)
            {
                Do(path, "link it", () => isLinked = HostNames.Current.TryLink(known.HostPath(from.Path), path));
            }
            if (!isLinked)
            {
                Do(path, "write it", () => Write(arrival, path));
            }
            made.Add(new FileMade(arrival, path, isLinked));
        }
        return made;
    }

    /// <summary>Has the folder become what the plan says.</summary>
    /// <exception cref="DiskImageException">What the host says.</exception>
    public void Apply(FolderPlan plan, List<FileMade> made)
    {
        Arrive(plan, made, blocked: false);
        FlushFolders(); // what is removed next may be what was renamed
        foreach (KnownFile file in plan.RemovedFiles)
        {
            string path = known.HostPath(file.Path);
            if (!plan.IsWantedInOtherCase(file.Path) || !IsThereInOtherCase(file))
            {
                Do(path, "remove it", () => HostIO.Delete(path));
            }
            if (known.Files.TryGetValue(file.Path, out KnownFile? now) && ReferenceEquals(now, file))
            {
                _ = known.Files.Remove(file.Path);
            }
            Touch(file.Path);
        }
        foreach (string folder in plan.RemovedFolders)
        {
            RemoveFolder(plan, folder);
        }
        Arrive(plan, made, blocked: true);
        FlushFolders();
        if (made.Count > 0)
        {
            Do(_incoming, "remove it", () => Directory.Delete(_incoming, recursive: false));
        }
    }

    private void Arrive(FolderPlan plan, List<FileMade> made, bool blocked)
    {
        foreach (string folder in plan.Folders.Where(f => plan.IsBlocked(f) == blocked))
        {
            string path = known.HostPath(folder);
            Do(path, "make it", () => Directory.CreateDirectory(path));
            _ = known.Folders.Add(folder);
            Touch(folder);
        }
        foreach (FileMade file in made.Where(m => plan.IsBlocked(m.Arrival.Item.Path) == blocked))
        {
            Take(file.Arrival, file.Path);
        }
    }

    private void Take(FileArrival arrival, string temporary)
    {
        string name = arrival.Item.Path, path = known.HostPath(name);
        bool isTaken = true;
        Do(path, "give it its name", () =>
        {
            if (known.WhyNotInside(name) is { } why)
            {
                throw new IOException(why);
            }
            if (arrival.Replaces is not null || HasOtherCase(name))
            {
                HostNames.Replace(temporary, path);
            }
            else
            {
                isTaken = HostNames.Current.TryRename(temporary, path);
            }
        });
        if (!isTaken)
        {
            _problems.Add(new FatProblem(name, "something with that name has appeared in the folder"));
            Do(temporary, "remove it", () => HostIO.Delete(temporary));
            return;
        }
        Do(temporary, "remove it", () => HostIO.Delete(temporary), isStep: false); // still there if both were names of one file
        FatFile? source = arrival.MovedFrom?.Source;
        var info = new FileInfo(path);
        NodeIdentity identity = HostNames.Current.Find(path)?.Identity ?? throw new DiskImageException(
            DiskImageErrorKind.WriteFailed, $"{path}: is gone right after it was brought in", path);
        bool isSameFile = source is not null && identity == source.Identity;
        if (isSameFile)
        {
            source!.Path = path;
        }
        known.Files[name] = new KnownFile(
            name, arrival.Item.Length, arrival.Item.Runs, identity, info.LastWriteTimeUtc, isSameFile ? source : null);
        Touch(name);
    }

    /// <summary>True if a file bears its new name, which differs in case, where the host takes both for one.</summary>
    private bool IsThereInOtherCase(KnownFile file) => known.Files.Values.Any(
        f => !f.Path.Equals(file.Path, StringComparison.Ordinal) && f.Path.Equals(file.Path, StringComparison.OrdinalIgnoreCase)
            && f.Identity == file.Identity);

    private bool HasOtherCase(string name)
        => known.Files.Keys.Any(k => !k.Equals(name, StringComparison.Ordinal) && k.Equals(name, StringComparison.OrdinalIgnoreCase));

    private void RemoveFolder(FolderPlan plan, string folder)
    {
        string path = known.HostPath(folder);
        _ = known.Folders.Remove(folder);
        if (plan.IsWantedInOtherCase(folder) && Directory.Exists(path) && Directory.EnumerateFileSystemEntries(path).Any())
        {
            return;
        }
        onStep?.Invoke($"remove {folder}");
        try
        {
            if (new DirectoryInfo(path).LinkTarget is null)
            {
                Directory.Delete(path, recursive: false);
            }
            Touch(folder);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            _problems.Add(new FatProblem(
                folder, "it was removed on the disk, and in the folder something is in it that is not on the disk"));
        }
    }

    private void Write(FileArrival arrival, string path)
    {
        SafeFileHandle handle = arrival.Replaces is { } old
            ? HostNames.Current.CreateLike(path, known.HostPath(old.Path))
            : HostIO.OpenHandle(path, FileMode.CreateNew, FileAccess.ReadWrite, FileShare.None);
        try
        {
            byte[] buffer = new byte[Step];
            long done = 0, length = arrival.Item.Length;
            foreach (ClusterRun run in arrival.Item.Runs)
            {
                long from = offsetOf(run.First), end = offsetOf(run.First + run.Count);
                while (from < end && done < length)
                {
                    int count = (int)Math.Min(Step, end - from), kept = (int)Math.Min(count, length - done);
                    read(from, buffer.AsSpan(0, count));
                    RandomAccess.Write(handle, buffer.AsSpan(0, kept), done);
                    from += count;
                    done += kept;
                }
            }
            if (arrival.Item.Changed is { } changed)
            {
                HostIO.SetLastWriteTimeUtc(handle, changed);
            }
            HostFile.Current.Flush(handle);
        }
        finally
        {
            HostFile.Current.Close(handle);
        }
    }

    private void FlushFolders()
    {
        foreach (string folder in _touched.Where(f => Directory.Exists(known.HostPath(f))))
        {
            Do(known.HostPath(folder), "make what is in it durable", () => HostNames.Current.FlushFolder(known.HostPath(folder)));
        }
        _touched.Clear();
    }

    private void Touch(string path)
        => _ = _touched.Add(path.LastIndexOf('/') is var at and >= 0 ? path[..at] : "");

    private void Do(string path, string what, Action action, bool isStep = true)
    {
        if (isStep)
        {
            onStep?.Invoke($"{what}: {path}");
        }
        try
        {
            action();
        }
        catch (Exception e) when (e is not DiskImageException and (IOException or UnauthorizedAccessException or ArgumentException))
        {
            throw HostFile.Error(e, path, what, otherwise: DiskImageErrorKind.WriteFailed);
        }
    }
}
