using DiskImage.Platform;

namespace DiskImage.Protocols.VirtualFat;

/// <summary>A file that is to be in the folder.</summary>
/// <param name="Item">The file as it is on the disk.</param>
/// <param name="MovedFrom">The file of the folder that it is, under another name; null for one whose contents are new.</param>
/// <param name="Replaces">The file that has its name now; null for none.</param>
internal sealed record FileArrival(GuestItem Item, KnownFile? MovedFrom, KnownFile? Replaces);

/// <summary>What is to be done in the folder so that it is as the disk is.</summary>
internal sealed class FolderPlan
{
    private readonly List<FatProblem> _problems;
    private readonly KnownTree _known;
    private readonly Dictionary<string, GuestItem> _wanted = new(StringComparer.Ordinal);

    private readonly HashSet<string> _blocked = new(StringComparer.Ordinal);

    private FolderPlan(KnownTree known, GuestTree guest) => (_known, _problems) = (known, [.. guest.Problems]);

    /// <summary>Files that are new, changed or renamed.</summary>
    public List<FileArrival> Files { get; } = [];

    /// <summary>Folders that are new, each before those in it.</summary>
    public List<string> Folders { get; } = [];

    /// <summary>Files that are no more under their names.</summary>
    public List<KnownFile> RemovedFiles { get; } = [];

    /// <summary>Folders that are no more, each behind those in it.</summary>
    public List<string> RemovedFolders { get; } = [];

    /// <summary>What cannot be brought in.</summary>
    public IReadOnlyList<FatProblem> Problems => _problems;

    /// <summary>True if nothing is to be done.</summary>
    public bool IsEmpty => Files.Count + Folders.Count + RemovedFiles.Count + RemovedFolders.Count == 0;

    /// <summary>Compares what the disk has with what is known of the folder.</summary>
    /// <param name="known">The folder.</param>
    /// <param name="guest">The disk.</param>
    /// <param name="isFresh">True for clusters that were written to since they were last compared.</param>
    public static FolderPlan Make(KnownTree known, GuestTree guest, Func<IReadOnlyList<ClusterRun>, bool> isFresh)
    {
        var plan = new FolderPlan(known, guest);
        foreach (GuestItem item in guest.Items)
        {
            plan._wanted[item.Path] = item;
        }
        Dictionary<uint, KnownFile> byCluster = known.Files.Values.Where(f => f.Runs.Count > 0)
            .GroupBy(f => f.Runs[0].First).ToDictionary(g => g.Key, g => g.First());
        foreach (GuestItem item in guest.Items)
        {
            plan.Arrive(item, byCluster, isFresh);
        }
        plan._blocked.UnionWith(guest.Items.Select(i => i.Path).Where(plan.IsInTheWay));
        // What could not be understood may be what seems to be missing.
        if (guest.Problems.Count == 0)
        {
            plan.Leave();
        }
        return plan;
    }

    /// <summary>
    /// True for a path that is free only when what is removed is gone: a folder takes the place of a file, or the reverse.
    /// </summary>
    public bool IsBlocked(string path) => _blocked.Contains(path);

    private bool IsInTheWay(string path)
    {
        for (int end = path.IndexOf('/', StringComparison.Ordinal); ; end = path.IndexOf('/', end + 1))
        {
            string part = end < 0 ? path : path[..end];
            if (_wanted.TryGetValue(part, out GuestItem? item)
                && (item.IsFolder ? _known.Files.ContainsKey(part) : _known.Folders.Contains(part)))
            {
                return true;
            }
            if (end < 0)
            {
                return false;
            }
        }
    }

    /// <summary>True if a path that differs from this one in case at most is to be there.</summary>
    public bool IsWantedInOtherCase(string path)
        => !_wanted.ContainsKey(path) && _wanted.Keys.Any(k => k.Equals(path, StringComparison.OrdinalIgnoreCase));

    private void Arrive(GuestItem item, Dictionary<uint, KnownFile> byCluster, Func<IReadOnlyList<ClusterRun>, bool> isFresh)
    {
        string path = item.Path;
        KnownFile? here = _known.Files.GetValueOrDefault(path);
        if ((item.IsFolder && _known.Folders.Contains(path)) || (here is not null && IsSame(here, item) && !isFresh(item.Runs)))
        {
            return;
        }
        string? objection = HostFile.Current.WhyNoNewFile(_known.HostPath(path)) ?? _known.WhyNotInside(path)
            ?? (here is not null ? _known.WhyOther(here)
                : !_known.Folders.Contains(path) && Path.Exists(_known.HostPath(path)) && !HasOtherCase(path)
                ? "something with that name is in the folder that is not on the disk" : null);
        if (objection is not null)
        {
            Report(path, objection);
            _ = here?.IsBehind = true;
        }
        else if (item.IsFolder)
        {
            Folders.Add(path);
        }
        else
        {
            KnownFile? moved = item.Runs.Count > 0 ? byCluster.GetValueOrDefault(item.Runs[0].First) : null;
            bool isMoved = moved is not null && IsSame(moved, item) && !isFresh(item.Runs) && _known.WhyOther(moved) is null;
            Files.Add(new FileArrival(item, isMoved ? moved : null, here));
        }
    }

    private void Leave()
    {
        foreach (KnownFile file in _known.Files.Values.Where(f => !_wanted.TryGetValue(f.Path, out GuestItem? item) || item.IsFolder))
        {
            if (_known.WhyOther(file) is { } objection)
            {
                Report(file.Path, $"it was removed on the disk, but {objection}");
            }
            else
            {
                RemovedFiles.Add(file);
            }
        }
        RemovedFolders.AddRange(_known.Folders.Where(f => !_wanted.TryGetValue(f, out GuestItem? item) || !item.IsFolder)
            .OrderByDescending(f => f.Count(c => c == '/')).ThenBy(f => f, StringComparer.Ordinal));
    }

    /// <summary>What is there may be a known file or folder whose name only changes its case, where the host does not tell these.</summary>
    private bool HasOtherCase(string path)
        => _known.Files.Keys.Concat(_known.Folders).Any(k => k.Equals(path, StringComparison.OrdinalIgnoreCase));

    private static bool IsSame(KnownFile file, GuestItem item)
        => !item.IsFolder && !file.IsBehind && file.Length == item.Length && file.Runs.SequenceEqual(item.Runs);

    private void Report(string path, string reason) => _problems.Add(new FatProblem(path, reason));
}
