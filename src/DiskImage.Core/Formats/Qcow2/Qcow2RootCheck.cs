using DiskImage.Block;

namespace DiskImage.Formats.Qcow2;

/// <summary>Whether what all else is found by can be relied on: the active L1 table.</summary>
internal sealed class Qcow2RootCheck(Qcow2Census census, Qcow2TableCount tables)
{
    private readonly int _needed = (int)census.Geometry.L1EntriesFor(census.Header.Size);
    private bool _isPlausible, _isFlagged;

    /// <summary>
    /// Why the active L1 table cannot be what the image was last written with; null if nothing speaks against it. While that is so, what
    /// nothing refers to may be the disk's data.
    /// </summary>
    public string? Fault { get; private set; }

    /// <summary>Entries of the active L1 table that can stand: fewer than the header says where the others are no entries.</summary>
    public int Entries { get; private set; } = census.Header.L1Size;

    private Qcow2Header Header => census.Header;

    private BlockNode File => census.File;

    private Qcow2Geometry Geometry => census.Geometry;

    /// <summary>
    /// Counts the active L1 table. One that has more entries than the disk needs is cut to those where it does not fit in the file, or
    /// where the others cannot be entries: then its size was damaged.
    /// </summary>
    public async ValueTask CountAsync()
    {
        long offset = Header.L1TableOffset;
        if (_needed > 0 && (offset == 0 || offset >= File.Length))
        {
            Fault = offset == 0 ? "lies on the header" : $"lies past the end of the file, at {File.Length:#,0}";
        }
        if (census.Fits(offset, _needed))
        {
            ulong[] used = Array.FindAll(await census.ReadTableAsync(offset, _needed).ConfigureAwait(false), entry => entry != 0);
            _isPlausible = used.Count(LeadsIntoFile) * 2 > used.Length;
            // no other table has the flag there
            _isFlagged = used.Count(entry => LeadsIntoFile(entry) && new L2Entry(entry).IsCopied) * 2 > used.Length;
        }
        if (offset < File.Length && Entries > _needed && !await AreEntriesAsync(
            offset + (_needed * 8L), Entries - _needed).ConfigureAwait(false))
        {
            Trim("the others are no entries");
        }
        await tables.CountL1Async(offset, Entries, Qcow2Census.ActiveL1, isActive: true).ConfigureAwait(false);
    }

    /// <summary>What follows the entries that the disk needs lies on other structures, or leads to them: it is not the table's.</summary>
    public void TrimOverlapped()
    {
        if (Header.L1TableOffset >= File.Length || Entries == _needed)
        {
            return;
        }
        long end = Geometry.Clusters(Header.L1TableOffset + (Entries * 8L));
        bool isOverlapped = false;
        for (long cluster = Geometry.Clusters(Header.L1TableOffset + (_needed * 8L)); cluster < end && !isOverlapped; cluster++)
        {
            isOverlapped = census.Overlaps.Contains(cluster);
        }
        if (isOverlapped || tables.Beyond.Overlaps(census.Overlaps))
        {
            Trim("the others lie on other structures, or lead to them");
        }
    }

    /// <summary>Collects what speaks against the active L1 table once everything is counted.</summary>
    public void Judge(Qcow2RefcountCheck refcounts)
    {
        // Where its own kind or guest data lies on it, or a bitmap, it is they that are astray; so are refcounts where it looks like a
        // table.
        bool isMetByOther = census.RootMeets is { } other
            && !ReferenceEquals(other, Qcow2Census.L2Table) && !ReferenceEquals(other, Qcow2Census.GuestData)
            && !Qcow2BitmapCheck.IsBitmap(other)
            && !(ReferenceEquals(other, Qcow2Census.RefcountBlock) && _isPlausible)
            && !(ReferenceEquals(other, Qcow2Census.RefcountTable) && _isFlagged);
        bool hasLeaks = census.Findings.Leaks > 0;
        if (isMetByOther)
        {
            Fault ??= $"lies on {census.RootMeets}";
        }
        else if (Header.L1TableOffset + (_needed * 8L) > File.Length && hasLeaks)
        {
            Fault ??= $"is cut off at the end of the file, at {File.Length:#,0}";
        }
        else if (refcounts.IsRootUnused && !refcounts.IsHeaderUnused && !_isPlausible && hasLeaks && !Header.IsInChange)
        {
            // Where the header is called free as well, the refcounts are wrong.
            Fault ??= "lies in a cluster that the refcounts call free, while other clusters are in use that nothing refers to";
        }
        if (!census.IsExternal && Header.DataFile is { } name && census.Findings.Corruptions > 0)
        {
            Fault ??= $"leads to places in this file,"
                + $" while the header names the external data file '{name}' and lacks the bit that says so";
        }
        if (Fault is not null)
        {
            census.Findings.Error(
                "RootTable",
                $"The active L1 table at host offset {Header.L1TableOffset:#,0} {Fault}: it may not be the disk's table."
                    + $" A repair leaves such an image as it is, since what nothing refers to may be the disk's data.",
                host: Header.L1TableOffset);
        }
    }

    private void Trim(string why)
    {
        census.Findings.Corruption(
            "L1Size",
            $"The active L1 table has {Header.L1Size:#,0} entries; its disk of {Header.Size:#,0} bytes needs {_needed:#,0}, and {why}.",
            "set its size to what the disk needs", host: Qcow2Header.L1SizeAt);
        Entries = _needed;
    }

    /// <summary>True if a run of an L1 table lies in the file and each of its entries is zero or leads into the file.</summary>
    private async ValueTask<bool> AreEntriesAsync(long offset, int count)
        => census.Fits(offset, count)
            && Array.TrueForAll(
                await census.ReadTableAsync(offset, count).ConfigureAwait(false), entry => entry == 0 || LeadsIntoFile(entry));

    private bool LeadsIntoFile(ulong entry)
        => L2Entry.OffsetOf(entry) is > 0 and var l2 && l2 < File.Length && Geometry.InCluster(l2) == 0 && (entry & ~L2Entry.L1Bits) == 0;
}
