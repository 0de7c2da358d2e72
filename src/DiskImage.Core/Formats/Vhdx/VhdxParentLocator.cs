using System.Text;
using DiskImage.Binary;
using DiskImage.Block;

namespace DiskImage.Formats.Vhdx;

/// <summary>Where a differencing disk's parent is, and how to know it: pairs of key and value. Spec: MS-VHDX 2.6.2.6.</summary>
internal sealed record VhdxParentLocator(Guid Type, IReadOnlyDictionary<string, string> Values)
{
    /// <summary>The only type that the specification defines: the parent is a VHDX file.</summary>
    public static readonly Guid VhdxType = new("B04AEFB7-D19E-4A81-B789-25B8E9445913");

    public const string LinkageKey = "parent_linkage", Linkage2Key = "parent_linkage2";
    public const string RelativeKey = "relative_path", VolumeKey = "volume_path", AbsoluteKey = "absolute_win32_path";
    private const int HeaderBytes = 20, EntryBytes = 12, CountAt = 18;

    /// <summary>The keys that hold paths, in the order in which they are to be tried.</summary>
    private static readonly string[] PathKeys = [RelativeKey, VolumeKey, AbsoluteKey];

    /// <summary>The paths to try, in the specification's order.</summary>
    public IEnumerable<string> Paths
    {
        get
        {
            foreach (string key in PathKeys)
            {
                if (Values.TryGetValue(key, out string? path))
                {
                    yield return path;
                }
            }
        }
    }

    /// <summary>The DataWriteGuid that the parent had; null if it is missing or not a GUID.</summary>
    public Guid? Linkage => LinkageOf(LinkageKey);

    /// <summary>True if a parent with this DataWriteGuid is the one that the disk was made on.</summary>
    public bool Accepts(Guid dataWriteGuid) => LinkageOf(LinkageKey) == dataWriteGuid || LinkageOf(Linkage2Key) == dataWriteGuid;

    /// <summary>The paths as they are to be opened here; the first is the one to show.</summary>
    public IEnumerable<string> LocalPaths
        => Paths.Select(WindowsPath.ToLocal).Where(p => !string.IsNullOrWhiteSpace(p)).Distinct(StringComparer.Ordinal);

    /// <summary>
    /// The paths to try: those recorded, then their file names in the disk's own folder, for chains that were moved to another system.
    /// </summary>
    public IEnumerable<string> Candidates
        => LocalPaths.Concat(Paths.Select(WindowsPath.FileName).Where(n => n.Length > 0)).Distinct(StringComparer.Ordinal);

    /// <summary>The locator of a new parent.</summary>
    /// <param name="names">Where it is.</param>
    /// <param name="dataWriteGuid">Its DataWriteGuid.</param>
    public static VhdxParentLocator For(ParentNames names, Guid dataWriteGuid)
        => new VhdxParentLocator(
            VhdxType, new Dictionary<string, string>(StringComparer.Ordinal) { [LinkageKey] = Text(dataWriteGuid) }).At(names);

    /// <summary>
    /// The locator with the parent in another place. What it said of the place is dropped, volume_path too: that is the name Windows gives
    /// a volume, which a path does not tell; the specification wants one of the three paths.
    /// </summary>
    public VhdxParentLocator At(ParentNames names)
    {
        Dictionary<string, string> values = Values.Where(
            v => !PathKeys.Contains(v.Key, StringComparer.Ordinal)).ToDictionary(StringComparer.Ordinal);
        if (names.Relative is { } relative)
        {
            values[RelativeKey] = relative;
        }
        if (names.Absolute is { } absolute)
        {
            values[AbsoluteKey] = WindowsPath.Long(absolute);
        }
        return this with { Values = values };
    }

    /// <summary>The locator with the parent's identity, and with the one that it is about to get, if any.</summary>
    public VhdxParentLocator Linked(Guid dataWriteGuid, Guid? coming = null)
    {
        var values = new Dictionary<string, string>(Values, StringComparer.Ordinal) { [LinkageKey] = Text(dataWriteGuid) };
        _ = values.Remove(Linkage2Key);
        if (coming is { } next)
        {
            values[Linkage2Key] = Text(next);
        }
        return this with { Values = values };
    }

    /// <summary>Reads a locator.</summary>
    /// <exception cref="DiskImageException">Corrupt.</exception>
    public static VhdxParentLocator Parse(ReadOnlySpan<byte> bytes, string path, long offset)
    {
        int count = bytes.Length < HeaderBytes ? 0 : LittleEndian.U16(bytes, CountAt);
        if (bytes.Length < HeaderBytes + (count * EntryBytes))
        {
            throw VhdxLayout.Corrupt(path, $"the parent locator has {bytes.Length} bytes, too few for its {count} pairs", offset);
        }
        var values = new Dictionary<string, string>(StringComparer.Ordinal);
        long total = 0;
        for (int i = 0; i < count; i++)
        {
            ReadOnlySpan<byte> entry = bytes.Slice(HeaderBytes + (i * EntryBytes), EntryBytes);
            uint keyAt = LittleEndian.U32(entry, 0), valueAt = LittleEndian.U32(entry, 4);
            int keyLength = LittleEndian.U16(entry, 8), valueLength = LittleEndian.U16(entry, 10);
            total += keyLength + valueLength;
            if (keyLength == 0 || keyLength % 2 != 0 || valueLength % 2 != 0 || keyAt > (uint)(bytes.Length - keyLength)
                || valueAt > (uint)(bytes.Length - valueLength)
                || keyLength > bytes.Length || valueLength > bytes.Length || total > bytes.Length)
            {
                throw VhdxLayout.Corrupt(
                    path,
                    $"pair {i} of the parent locator has a key of {keyLength} bytes at {keyAt} and a value of {valueLength} bytes at "
                        + $"{valueAt}; allowed: whole UTF-16 units inside the locator's {bytes.Length} bytes",
                    offset);
            }
            string key = Encoding.Unicode.GetString(bytes.Slice((int)keyAt, keyLength)).TrimEnd('\0');
            if (!values.TryAdd(key, Encoding.Unicode.GetString(bytes.Slice((int)valueAt, valueLength)).TrimEnd('\0')))
            {
                throw VhdxLayout.Corrupt(path, $"the key '{key}' stands in the parent locator twice", offset);
            }
        }
        return new(LittleEndian.Guid(bytes, 0), values);
    }

    /// <summary>The locator as it stands in the file.</summary>
    public byte[] ToBytes()
    {
        byte[] bytes = new byte[HeaderBytes + (Values.Count * EntryBytes) + Values.Sum(v => (v.Key.Length + v.Value.Length) * 2)];
        LittleEndian.Guid(bytes, 0, Type);
        LittleEndian.U16(bytes, CountAt, (ushort)Values.Count);
        int entry = HeaderBytes, at = HeaderBytes + (Values.Count * EntryBytes);
        foreach ((string key, string value) in Values)
        {
            LittleEndian.U32(bytes, entry, (uint)at);
            LittleEndian.U32(bytes, entry + 4, (uint)(at + (key.Length * 2)));
            LittleEndian.U16(bytes, entry + 8, (ushort)(key.Length * 2));
            LittleEndian.U16(bytes, entry + 10, (ushort)(value.Length * 2));
            at += Encoding.Unicode.GetBytes(key + value, bytes.AsSpan(at));
            entry += EntryBytes;
        }
        return bytes;
    }

    private static string Text(Guid id) => id.ToString("B");

    private Guid? LinkageOf(string key) => Values.TryGetValue(key, out string? text) && Guid.TryParse(text, out Guid id) ? id : null;
}
