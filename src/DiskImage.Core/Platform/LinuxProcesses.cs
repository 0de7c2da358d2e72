using System.Globalization;

namespace DiskImage.Platform;

/// <summary>
/// Linux: /proc/locks lists the locks of a file by its inode, without a process for those that belong to an open file; /proc/PID/fdinfo
/// lists them for each descriptor, of processes that this user may look into. Source: proc(5).
/// </summary>
/// <param name="root">Where proc is mounted.</param>
/// <param name="find">What a path leads to.</param>
internal sealed class LinuxProcesses(string root, Func<string, HostEntry?> find) : HostProcesses
{
    private const int FirstField = 1; // "1: OFDLCK ADVISORY READ -1 fe:00:5326264 100 101": the number is no concern
    private const int Fields = 8;
    private const int MostDescriptors = 1 << 16; // that are looked at. Ours

    public override IReadOnlyList<HostHolder> HoldersOf(string path, long? except = null)
    {
        try
        {
            return find(path) is { } file ? Find(file, except) : [];
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return [];
        }
    }

    private List<HostHolder> Find(HostEntry file, long? except)
    {
        string inode = file.Identity.Text.Split(':')[^1];
        string number = long.Parse(inode, NumberStyles.HexNumber, CultureInfo.InvariantCulture).ToString(CultureInfo.InvariantCulture);
        Lock[] all = [.. Locks(Path.Combine(root, "locks"), number)];
        var holders = new List<HostHolder>();
        int looked = 0;
        foreach (int process in all.Length == 0 ? [] : Processes())
        {
            foreach (string descriptor in Entries(Path.Combine(root, $"{process}", "fdinfo")))
            {
                if ((process == Environment.ProcessId && Is(Path.GetFileName(descriptor), $"{except}")) || ++looked > MostDescriptors)
                {
                    continue;
                }
                Lock[] locks = [.. Locks(descriptor, number)];
                if (locks.Length > 0 && IsSame(file, Path.Combine(root, $"{process}", "fd", Path.GetFileName(descriptor))))
                {
                    holders.Add(Holder(process, locks));
                }
            }
        }
        // Of processes that hide their descriptors, those that the list names.
        foreach (IGrouping<int, Lock> hidden in all.Where(l => l.Process > 0).GroupBy(l => l.Process))
        {
            if (hidden.Key != Environment.ProcessId && !holders.Exists(h => h.ProcessId == hidden.Key))
            {
                holders.Add(Holder(hidden.Key, [.. hidden]));
            }
        }
        Lock[] nameless = [.. all.Where(l => l.Process <= 0 && !holders.Exists(h => h.Ranges!.Contains(l.Range)))];
        if (nameless.Length > 0 && (except is null || holders.Count == 0))
        {
            holders.Add(new HostHolder(null, null, [.. nameless.Select(l => l.Range)], IsWhole: false));
        }
        return holders;
    }

    /// <summary>A descriptor that leads to the file; one that cannot be looked at has its inode, and counts.</summary>
    private bool IsSame(HostEntry file, string descriptor) => find(descriptor) is not { } open || open.Identity == file.Identity;

    private HostHolder Holder(int process, Lock[] locks) => new(
        process,
        NameOf(process),
        [.. locks.Where(l => !l.IsWhole).Select(l => l.Range)],
        Array.Exists(locks, l => l.IsWhole));

    private string? NameOf(int process)
    {
        // The command line has all of a name of which comm has 15 bytes.
        string? name = Text(process, "comm")?.TrimEnd('\n');
        string? whole = Path.GetFileName(Text(process, "cmdline")?.Split('\0')[0]);
        return name is not null && whole is not null && whole.StartsWith(name, StringComparison.Ordinal) ? whole : name;
    }

    private string? Text(int process, string file)
    {
        try
        {
            return File.ReadAllText(Path.Combine(root, $"{process}", file));
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return null;
        }
    }

    private IEnumerable<int> Processes() => Directory.EnumerateDirectories(root)
        .Select(d => int.TryParse(Path.GetFileName(d), NumberStyles.None, CultureInfo.InvariantCulture, out int id) ? id : 0)
        .Where(id => id > 0);

    private static string[] Entries(string folder)
    {
        try
        {
            return Directory.GetFiles(folder);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return []; // another user's, or gone by now
        }
    }

    private static IEnumerable<Lock> Locks(string path, string inode)
    {
        string[] lines;
        try
        {
            lines = File.ReadAllLines(path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            yield break;
        }
        foreach (string line in lines)
        {
            string[] fields = (line.StartsWith("lock:", StringComparison.Ordinal) ? line[5..] : line)
                .Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries);
            // "->" stands before a lock that is waited for
            if (fields.Length == Fields && !Is(fields[FirstField], "->") && Is(fields[5].Split(':')[^1], inode)
                && int.TryParse(fields[4], NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out int process)
                && long.TryParse(fields[6], NumberStyles.None, CultureInfo.InvariantCulture, out long start))
            {
                long end = long.TryParse(fields[7], NumberStyles.None, CultureInfo.InvariantCulture, out long last) ? last : long.MaxValue;
                yield return new Lock(process, Is(fields[FirstField], "FLOCK"), new HostLockedRange(start, end));
            }
        }
    }

    private static bool Is(string text, string other) => text.Equals(other, StringComparison.Ordinal);

    private readonly record struct Lock(int Process, bool IsWhole, HostLockedRange Range);
}
