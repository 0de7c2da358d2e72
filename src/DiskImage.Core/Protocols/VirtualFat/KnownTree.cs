using DiskImage.Block;
using DiskImage.Platform;

namespace DiskImage.Protocols.VirtualFat;

/// <summary>A file of the folder as it was last seen, and the clusters that stand for it.</summary>
/// <param name="Path">Its path from the top, with slashes.</param>
/// <param name="Length">Bytes.</param>
/// <param name="Runs">The clusters that hold them.</param>
/// <param name="Identity">Which file it is.</param>
/// <param name="Changed">When the host says that it was changed.</param>
/// <param name="Source">The file whose bytes the disk still takes from the folder; null where it has them itself.</param>
internal sealed record KnownFile(
    string Path, long Length, IReadOnlyList<ClusterRun> Runs, NodeIdentity Identity, DateTime Changed, FatFile? Source)
{
    /// <summary>What was written to it could not be brought in.</summary>
    public bool IsBehind { get; set; }
}

/// <summary>What is in the folder, as it was when it was opened and as what was brought in has made it.</summary>
/// <param name="root">The folder's full path.</param>
internal sealed class KnownTree(string root)
{
    /// <summary>Files by path.</summary>
    public Dictionary<string, KnownFile> Files { get; } = new(StringComparer.Ordinal);

    /// <summary>Paths of folders.</summary>
    public HashSet<string> Folders { get; } = new(StringComparer.Ordinal);

    /// <summary>The tree of a volume.</summary>
    public static KnownTree Of(FatVolume volume)
    {
        string root = volume.Root.Path;
        var known = new KnownTree(root);
        foreach (FatItem item in FatVolume.InOrder(volume.Root).Skip(1))
        {
            string path = System.IO.Path.GetRelativePath(root, item.Path).Replace(System.IO.Path.DirectorySeparatorChar, '/');
            if (item is FatFile file)
            {
                ClusterRun[] runs = file.Clusters == 0 ? [] : [new ClusterRun(file.FirstCluster, file.Clusters)];
                known.Files.Add(path, new KnownFile(path, file.Length, runs, file.Identity, file.HostChanged, file));
            }
            else
            {
                _ = known.Folders.Add(path);
            }
        }
        return known;
    }

    /// <summary>A path on the host.</summary>
    public string HostPath(string path)
        => path.Length == 0 ? root : System.IO.Path.Combine(root, path.Replace('/', System.IO.Path.DirectorySeparatorChar));

    /// <summary>Why the file on the host is not the one that is known; null if it is.</summary>
    public string? WhyOther(KnownFile file)
    {
        var host = new FileInfo(HostPath(file.Path));
        return WhyNotInside(file.Path)
            ?? (!host.Exists ? "it is gone from the folder"
                : host.Length != file.Length || host.LastWriteTimeUtc != file.Changed
                    || HostNames.Current.Find(host.FullName)?.Identity != file.Identity ? "somebody else changed it in the folder"
                : null);
    }

    /// <summary>Why a path does not lie in the folder: something on the way, or the last part, is a link. Null if it does.</summary>
    public string? WhyNotInside(string path)
    {
        for (int end = path.IndexOf('/', StringComparison.Ordinal); ; end = path.IndexOf('/', end + 1))
        {
            string part = end < 0 ? path : path[..end];
            if (new FileInfo(HostPath(part)).LinkTarget is not null)
            {
                return $"'{part}' is a link in the folder, and nothing is brought in through links";
            }
            if (end < 0)
            {
                return null;
            }
        }
    }
}
