using System.Text;
using DiskImage.Binary;

namespace DiskImage.Protocols.VirtualFat;

/// <summary>
/// Reads what a guest has made of a volume. It trusts nothing but where the volume's parts were when it was made: a boot sector that says
/// otherwise is a problem of all. Entries, depth, lengths and chains are bounded. Spec: fatgen103.
/// </summary>
/// <param name="geometry">The volume, as it was made.</param>
/// <param name="read">Fills a buffer from an offset of the disk.</param>
internal sealed class GuestReader(FatGeometry geometry, GuestTable.Reader read)
{
    private const int MostItems = 1_000_000, MostDepth = 100, MostProblems = 1000, EntryBytes = FatFolderBytes.EntryBytes;
    private const int ShortLength = 11;

    private readonly List<GuestItem> _items = [];
    private readonly List<FatProblem> _problems = [];

    /// <summary>The allocation table.</summary>
    public GuestTable Table { get; } = new(geometry, read);

    /// <summary>Reads all of it.</summary>
    /// <param name="rootCluster">The first cluster of the top folder; 0 where it is no chain.</param>
    public GuestTree Read(uint rootCluster)
    {
        var folders = new Queue<(string Path, int Depth, byte[] Bytes)>();
        folders.Enqueue(("", 0, rootCluster == 0 ? Bytes(geometry.RootAt, geometry.RootBytes) : Bytes("", Chain("", rootCluster))));
        while (folders.TryDequeue(out (string Path, int Depth, byte[] Bytes) next))
        {
            foreach (GuestItem item in Items(next.Path, next.Bytes).Where(i => i.IsFolder))
            {
                if (next.Depth + 1 >= MostDepth)
                {
                    Report(item.Path, $"it lies deeper than {MostDepth} folders in each other");
                }
                else
                {
                    folders.Enqueue((item.Path, next.Depth + 1, Bytes(item.Path, item.Runs)));
                }
            }
            if (_items.Count > MostItems || _problems.Count >= MostProblems)
            {
                Report(next.Path, "there are too many files, or too many that cannot be understood");
                break;
            }
        }
        return new GuestTree(_items, _problems);
    }

    private List<GuestItem> Items(string folder, byte[] bytes)
    {
        var items = new List<GuestItem>();
        var names = new HashSet<string>(FatName.Comparer);
        var longName = new LongName();
        for (int at = 0; at < bytes.Length && bytes[at] != 0; at += EntryBytes)
        {
            ReadOnlySpan<byte> entry = bytes.AsSpan(at, EntryBytes);
            var attributes = (FatAttributes)entry[11];
            if (entry[0] == 0xE5)
            {
                longName.Clear();
            }
            else if ((attributes & FatAttributes.LongName) == FatAttributes.LongName)
            {
                longName.Add(entry);
            }
            else
            {
                string? name = longName.Take(entry[..ShortLength]);
                bool isDots = folder.Length > 0 && (entry.StartsWith(".          "u8) || entry.StartsWith("..         "u8));
                if ((attributes & FatAttributes.VolumeId) == 0 && !isDots && Item(folder, name, entry, names) is { } item)
                {
                    items.Add(item);
                    _items.Add(item);
                }
            }
        }
        return items;
    }

    private GuestItem? Item(string folder, string? longName, ReadOnlySpan<byte> entry, HashSet<string> names)
    {
        string? name = longName ?? ShortName(entry);
        if (name is null)
        {
            string shown = Encoding.Latin1.GetString(entry[..ShortLength]);
            Report($"{folder}/{shown}", "its short name is not ASCII, and it has no long name");
            return null;
        }
        string path = folder.Length == 0 ? name : $"{folder}/{name}";
        string? objection = FatName.Objection(name) is { } why ? $"it cannot be the name of a file: {why}"
            : !names.Add(name) ? "another one has that name"
            : folder.Length == 0 && name.Equals(HostTree.IncomingFolder, StringComparison.OrdinalIgnoreCase)
            ? "that name is kept for own use"
            : null;
        if (objection is not null)
        {
            Report(path, objection);
            return null;
        }
        bool isFolder = ((FatAttributes)entry[11] & FatAttributes.Folder) != 0;
        uint first = LittleEndian.U16(entry, 26) | (geometry.Type == FatType.Fat32 ? (uint)LittleEndian.U16(entry, 20) << 16 : 0);
        long length = isFolder ? 0 : LittleEndian.U32(entry, 28);
        if (first == 0 && (isFolder || length > 0))
        {
            Report(path, isFolder ? "it is a folder without clusters" : $"it has {length} bytes and no clusters");
            return null;
        }
        IReadOnlyList<ClusterRun>? runs = first == 0 ? [] : Chain(path, first);
        if (runs is null)
        {
            return null;
        }
        long room = runs.Sum(r => (long)r.Count) * geometry.ClusterBytes;
        if (room < length)
        {
            Report(path, $"it has {length} bytes, and its clusters {room}");
            return null;
        }
        DateTime? changed = FatTime.Read(LittleEndian.U16(entry, 24), LittleEndian.U16(entry, 22));
        return new GuestItem(path, isFolder, length, isFolder ? runs : Needed(runs, length), changed);
    }

    /// <summary>The clusters of a chain that hold a file's bytes: more may be claimed.</summary>
    private List<ClusterRun> Needed(IReadOnlyList<ClusterRun> runs, long length)
    {
        var needed = new List<ClusterRun>();
        long left = (length + geometry.ClusterBytes - 1) / geometry.ClusterBytes;
        foreach (ClusterRun run in runs.TakeWhile(_ => left > 0))
        {
            needed.Add(run with { Count = (uint)Math.Min(run.Count, left) });
            left -= needed[^1].Count;
        }
        return needed;
    }

    private List<ClusterRun>? Chain(string path, uint first)
    {
        List<ClusterRun> runs = Table.Follow(first, out string? problem);
        if (problem is null)
        {
            return runs;
        }
        Report(path, problem);
        return null;
    }

    private byte[] Bytes(string path, IReadOnlyList<ClusterRun>? runs)
    {
        const int Most = FatFolderBytes.MostEntries * EntryBytes;
        long length = (runs ?? []).Sum(r => (long)r.Count) * geometry.ClusterBytes;
        if (length > Most)
        {
            Report(path, $"the folder has {length} bytes; allowed: {Most}");
            return [];
        }
        byte[] bytes = new byte[length];
        int at = 0;
        foreach (ClusterRun run in runs ?? [])
        {
            int count = (int)run.Count * geometry.ClusterBytes;
            read(geometry.OffsetOf(run.First), bytes.AsSpan(at, count));
            at += count;
        }
        return bytes;
    }

    private byte[] Bytes(long offset, long length)
    {
        byte[] bytes = new byte[length];
        read(offset, bytes);
        return bytes;
    }

    private void Report(string path, string reason)
    {
        if (_problems.Count <= MostProblems)
        {
            _problems.Add(new FatProblem(path, reason));
        }
    }

    /// <summary>A short name as it is shown; two bits say that a part of it is in small letters. Null if it is not ASCII.</summary>
    private static string? ShortName(ReadOnlySpan<byte> entry)
    {
        const byte SmallStem = 8, SmallEnding = 16;
        if (entry[..ShortLength].ContainsAnyExceptInRange((byte)' ', (byte)'~'))
        {
            return null;
        }
        string stem = Encoding.ASCII.GetString(entry[..8]).TrimEnd(' ');
        string ending = Encoding.ASCII.GetString(entry[8..ShortLength]).TrimEnd(' ');
        stem = (entry[12] & SmallStem) != 0 ? Small(stem) : stem;
        ending = (entry[12] & SmallEnding) != 0 ? Small(ending) : ending;
        return ending.Length == 0 ? stem : $"{stem}.{ending}";

        static string Small(string text) => string.Concat(text.Select(c => char.IsAsciiLetterUpper(c) ? (char)(c | 0x20) : c));
    }

    /// <summary>Puts the parts of a long name together, which come last part first.</summary>
    private sealed class LongName
    {
        private const int LastPart = 0x40, MostParts = 20;

        private readonly char[] _units = new char[MostParts * FatName.UnitsInEntry];
        private int _next, _parts;
        private byte _sum;

        public void Clear() => (_next, _parts) = (0, 0);

        public void Add(ReadOnlySpan<byte> entry)
        {
            int part = entry[0] & ~LastPart;
            if ((entry[0] & LastPart) != 0 && part is > 0 and <= MostParts)
            {
                (_parts, _next, _sum) = (part, part, entry[13]);
            }
            if (part == 0 || part != _next || entry[13] != _sum)
            {
                Clear();
                return;
            }
            _next--;
            for (int i = 0; i < FatName.UnitsInEntry; i++)
            {
                _units[(_next * FatName.UnitsInEntry) + i] = (char)LittleEndian.U16(entry, FatFolderBytes.UnitOffsets[i]);
            }
        }

        /// <summary>The name before a short one; null if there is none, or it is another's.</summary>
        public string? Take(ReadOnlySpan<byte> shortName)
        {
            bool isWhole = _parts > 0 && _next == 0 && FatFolderBytes.ChecksumOf(shortName) == _sum;
            int length = _parts * FatName.UnitsInEntry, end = Array.IndexOf(_units, '\0', 0, length);
            Clear();
            return isWhole ? new string(_units, 0, end < 0 ? length : end) : null;
        }
    }
}
