using System.Text;
using DiskImage.Binary;

namespace DiskImage.Protocols.VirtualFat;

/// <summary>The bytes of a folder: its label or the two entries that lead back, then what is in it. Spec: fatgen103, 6 and 7.</summary>
internal static class FatFolderBytes
{
    /// <summary>Bytes of an entry.</summary>
    public const int EntryBytes = 32;

    /// <summary>Entries in a folder at most: what 16 bits count.</summary>
    public const int MostEntries = 65_536;

    private const int ShortLength = 11;
    private const byte LastOfName = 0x40;

    /// <summary>The units of a long name's entry: five, six and two.</summary>
    public static IReadOnlyList<int> UnitOffsets { get; } = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];

    /// <summary>The bytes of a folder, without what its last cluster has besides.</summary>
    public static byte[] Of(FatFolder folder, string label)
    {
        byte[] bytes = new byte[folder.Bytes];
        int at = 0;
        if (folder.Parent is { } parent)
        {
            Short(Take(bytes, ref at), ".".PadRight(ShortLength), folder);
            Short(Take(bytes, ref at), "..".PadRight(ShortLength), parent, parent.Parent is null ? 0 : parent.FirstCluster);
        }
        else
        {
            Span<byte> entry = Take(bytes, ref at);
            Short(entry, label, folder, 0);
            entry[11] = (byte)FatAttributes.VolumeId;
        }
        foreach (FatItem item in folder.Items)
        {
            byte sum = ChecksumOf(item.ShortName);
            int parts = FatName.LongEntriesOf(item.Name, item.ShortName);
            for (int part = parts; part > 0; part--)
            {
                Long(Take(bytes, ref at), item.Name, part, part == parts, sum);
            }
            Short(Take(bytes, ref at), item.ShortName, item);
        }
        return bytes;
    }

    /// <summary>What ties the entries of a long name to the short one.</summary>
    public static byte ChecksumOf(string shortName) => ChecksumOf(Encoding.ASCII.GetBytes(shortName));

    /// <inheritdoc cref="ChecksumOf(string)"/>
    public static byte ChecksumOf(ReadOnlySpan<byte> shortName)
    {
        byte sum = 0;
        foreach (byte c in shortName)
        {
            sum = (byte)((sum >> 1) + (sum << 7) + c);
        }
        return sum;
    }

    private static Span<byte> Take(byte[] bytes, ref int at)
    {
        Span<byte> entry = bytes.AsSpan(at, EntryBytes);
        at += EntryBytes;
        return entry;
    }

    private static void Short(Span<byte> entry, string name, FatItem item) => Short(entry, name, item, item.FirstCluster);

    private static void Short(Span<byte> entry, string name, FatItem item, uint cluster)
    {
        (ushort date, ushort time, byte tenths) = FatTime.Of(item.Changed);
        _ = Encoding.ASCII.GetBytes(name, entry);
        entry[11] = (byte)item.Attributes;
        entry[13] = tenths;
        LittleEndian.U16(entry, 14, time);
        LittleEndian.U16(entry, 16, date);
        LittleEndian.U16(entry, 18, date);
        LittleEndian.U16(entry, 20, (ushort)(cluster >> 16));
        LittleEndian.U16(entry, 22, time);
        LittleEndian.U16(entry, 24, date);
        LittleEndian.U16(entry, 26, (ushort)cluster);
        LittleEndian.U32(entry, 28, item is FatFile file ? (uint)file.Length : 0);
    }

    private static void Long(Span<byte> entry, string name, int part, bool isLast, byte sum)
    {
        entry[0] = (byte)(part | (isLast ? LastOfName : 0));
        entry[11] = (byte)FatAttributes.LongName;
        entry[13] = sum;
        int from = (part - 1) * FatName.UnitsInEntry;
        for (int i = 0; i < UnitOffsets.Count; i++)
        {
            int at = from + i;
            LittleEndian.U16(entry, UnitOffsets[i], at < name.Length ? name[at] : at == name.Length ? (ushort)0 : ushort.MaxValue);
        }
    }
}

/// <summary>
/// Dates and times of a folder's entries: from 1980 to 2107, in steps of two seconds, without a zone. Here they are UTC, so that a tree
/// gives the same bytes everywhere.
/// </summary>
internal static class FatTime
{
    private static readonly DateTime s_first = new(1980, 1, 1, 0, 0, 0, DateTimeKind.Utc);
    private static readonly DateTime s_last = new(2107, 12, 31, 23, 59, 58, DateTimeKind.Utc);

    /// <summary>The date, the time, and hundredths of a second that are added to it when something was made.</summary>
    public static (ushort Date, ushort Time, byte Hundredths) Of(DateTime time)
    {
        time = time < s_first ? s_first : time > s_last ? s_last : time;
        int date = ((time.Year - 1980) << 9) | (time.Month << 5) | time.Day;
        int clock = (time.Hour << 11) | (time.Minute << 5) | (time.Second / 2);
        return ((ushort)date, (ushort)clock, (byte)(((time.Second & 1) * 100) + (time.Millisecond / 10)));
    }

    /// <summary>What an entry's date and time say; null if they are none.</summary>
    public static DateTime? Read(ushort date, ushort time)
    {
        int month = (date >> 5) & 15, day = date & 31, hour = time >> 11, minute = (time >> 5) & 63, second = (time & 31) * 2;
        int year = 1980 + (date >> 9);
        return month is >= 1 and <= 12 && day >= 1 && day <= DateTime.DaysInMonth(year, month) && hour < 24 && minute < 60 && second < 60
            ? new DateTime(year, month, day, hour, minute, second, DateTimeKind.Utc)
            : null;
    }
}
