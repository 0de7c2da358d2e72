using System.Globalization;
using DiskImage.Block;

namespace DiskImage.CommandLine;

/// <summary>Snapshots as a table for people.</summary>
internal static class SnapshotTable
{
    /// <summary>The table with its heading; nothing for no snapshots.</summary>
    public static string Of(IReadOnlyList<DiskSnapshot> snapshots)
        => snapshots.Count == 0 ? ""
            : "Snapshot list:\n" + Row("ID", "TAG", "VM SIZE", "DATE", "VM CLOCK", "ICOUNT")
                + string.Concat(snapshots.Select(s => Row(
                    Printable.Of(s.Id),
                    Printable.Of(s.Name),
                    QemuSize.Text(s.VmStateSize),
                    s.Date.LocalDateTime.ToString("yyyy-MM-dd HH:mm:ss", CultureInfo.InvariantCulture),
                    Clock(s.VmClock),
                    (s.ICount ?? 0).ToString(CultureInfo.InvariantCulture))));

    private static string Clock(TimeSpan time)
        => string.Create(
            CultureInfo.InvariantCulture, $"{(long)time.TotalHours:00}:{time.Minutes:00}:{time.Seconds:00}.{time.Milliseconds:000}");

    private static string Row(string id, string tag, string size, string date, string clock, string count)
        => $"{id,-9} {tag,-16} {size,8} {date,19}{clock,13}{count,11}\n";
}
