using DiskImage.Binary;
using DiskImage.Block;

namespace DiskImage.Formats.Qcow2;

/// <summary>
/// Counts the references of bitmaps, and tells which of them cannot stand. Spec: qcow2, "Bitmaps extension", "Bitmap directory".
/// </summary>
internal sealed class Qcow2BitmapCheck(Qcow2Census census)
{
    private const string DropOne = "drop this bitmap", DropAll = "drop all bitmaps";

    // which bitmap a table belongs to, by what it is called
    private readonly Dictionary<string, int> _numberOf = new(StringComparer.Ordinal);
    private readonly HashSet<int> _broken = [];
    private bool _hasBrokenDirectory;

    /// <summary>The bitmaps, by their number in the directory, that cannot stand as they are.</summary>
    public IReadOnlySet<int> Broken
        => new HashSet<int>([.. _broken, .. census.Met.Where(_numberOf.ContainsKey).Select(table => _numberOf[table])]);

    /// <summary>The directory cannot be read, or lies on something else.</summary>
    public bool HasBrokenDirectory => _hasBrokenDirectory || census.Met.Contains(Qcow2Census.BitmapDirectory);

    private CheckFindings Findings => census.Findings;

    private Qcow2Geometry Geometry => census.Geometry;

    /// <summary>True if a structure is one of a bitmap.</summary>
    public static bool IsBitmap(string what) => what.Contains("bitmap", StringComparison.Ordinal);

    public async ValueTask CountAsync()
    {
        Qcow2BitmapDirectory directory;
        try
        {
            directory = await Qcow2BitmapDirectory.ReadAsync(census.File, census.Header, census.CancellationToken).ConfigureAwait(false);
        }
        catch (DiskImageException e)
        {
            census.HasUncounted = _hasBrokenDirectory = true;
            Findings.Corruption("BitmapDirectory", $"{e.Wording}", DropAll, host: e.Offset);
            return;
        }
        if (directory.Entries.Count == 0)
        {
            return;
        }
        if ((census.Header.AutoClear & Qcow2AutoClear.Bitmaps) == Qcow2AutoClear.None)
        {
            Findings.Warning(
                "BitmapsStale",
                $"The image has bitmaps, but was written to by a program that does not know them:"
                    + $" they are lost, and what they occupied is leaked or used otherwise.");
            return;
        }
        long at = directory.Place.Value;
        _ = census.AddTable(at, directory.Length, Qcow2Census.BitmapDirectory, repair: "write it anew");
        _hasBrokenDirectory |= ClustersOf(at, directory.Length).Any(census.Overlaps.Contains);
        var names = new HashSet<string>(StringComparer.Ordinal);
        for (int i = 0; i < directory.Entries.Count; i++)
        {
            long found = Findings.Corruptions;
            await CountAsync(directory.Entries[i], i, names.Add(directory.Entries[i].Name), at).ConfigureAwait(false);
            if (Findings.Corruptions > found)
            {
                _ = _broken.Add(i);
            }
        }
    }

    private async ValueTask CountAsync(Qcow2BitmapEntry bitmap, int number, bool isFirst, long at)
    {
        if (!isFirst)
        {
            Findings.Corruption("BitmapDirectory", $"Two bitmaps have the name '{bitmap.Name}'.", DropOne, host: at);
        }
        CheckEntry(bitmap, at);
        string table = $"the table of bitmap '{bitmap.Name}'", data = $"data of bitmap '{bitmap.Name}'";
        (_numberOf[table], _numberOf[data]) = (number, number);
        if (!census.AddTable(bitmap.TableOffset, bitmap.TableSize * 8L, table, repair: DropOne))
        {
            return;
        }
        foreach (ulong entry in await census.ReadTableAsync(bitmap.TableOffset, bitmap.TableSize).ConfigureAwait(false))
        {
            long offset = L2Entry.OffsetOf(entry);
            if ((entry & ~(0x00FF_FFFF_FFFF_FE00UL | 1)) != 0 || (offset != 0 && (entry & 1) != 0))
            {
                Findings.Corruption(
                    "BitmapTable", $"Bitmap '{bitmap.Name}' has a table entry {entry:x16} with reserved bits set.",
                    DropOne, host: bitmap.TableOffset);
            }
            else if (offset != 0)
            {
                _ = census.AddTable(offset, Geometry.ClusterSize, data, repair: DropOne);
            }
        }
    }

    private void CheckEntry(Qcow2BitmapEntry bitmap, long at)
    {
        Qcow2BitmapFlags known = Qcow2BitmapFlags.Known;
        if (bitmap.ExtraData.Length == 0)
        {
            known &= ~Qcow2BitmapFlags.ExtraDataCompatible; // QEMU refuses what is said of nothing
        }
        if (bitmap.Type != Qcow2BitmapEntry.DirtyTracking || (bitmap.Flags & ~known) != Qcow2BitmapFlags.None)
        {
            Findings.Corruption(
                "BitmapDirectory",
                $"Bitmap '{bitmap.Name}' has type {bitmap.Type} and flags {(uint)bitmap.Flags:x};"
                    + $" allowed: type {Qcow2BitmapEntry.DirtyTracking}, flags up to {(uint)known:x}.",
                DropOne, host: at);
        }
        long needed = Round.Units(Round.Units(census.Header.Size, 1L << bitmap.GranularityBits), Geometry.ClusterSize * 8L);
        if (bitmap.TableSize < needed && (bitmap.Flags & Qcow2BitmapFlags.InUse) == Qcow2BitmapFlags.None)
        {
            Findings.Corruption(
                "BitmapTable", $"Bitmap '{bitmap.Name}' has a table of {bitmap.TableSize:#,0} entries; the disk needs {needed:#,0}.",
                DropOne, host: bitmap.TableOffset);
        }
    }

    private IEnumerable<long> ClustersOf(long offset, long length)
    {
        for (long cluster = offset >> Geometry.ClusterBits; cluster < Geometry.Clusters(offset + length); cluster++)
        {
            yield return cluster;
        }
    }
}
