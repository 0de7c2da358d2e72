using DiskImage.Compression;
using DiskImage.Metadata;

namespace DiskImage.Formats.Qcow2;

/// <summary>Whether what all else is found by can be relied on: the active L1 table, and compressed clusters at the end of the file.</summary>
internal sealed partial class Qcow2Checker
{
    /// <summary>Bytes of compressed clusters that are decompressed at most: a check need not take as long as reading the disk. Ours.</summary>
    private const long MaxUnpacked = 64 << 20;

    private readonly Dictionary<L2Entry, (long Guest, long At)> _packed = []; // compressed clusters that are looked into
    private readonly HashSet<long> _beyond = []; // clusters that L1 entries past the end of the disk lead to
    private int _neededL1;
    private bool _rootIsUnused, _headerIsUnused, _rootIsPlausible, _rootIsFlagged, _hasTooLow;
    private string? _rootMeets; // the structure that the active L1 table lies on

    /// <summary>Compressed clusters that do not decompress: they were cut off with the file, or their entry leads to something else.</summary>
    public HashSet<L2Entry> BrokenClusters { get; } = [];

    /// <summary>
    /// Counts the active L1 table. One that has more entries than the disk needs is cut to those where it does not fit in the file, or where the
    /// others cannot be entries: then its size was damaged.
    /// </summary>
    private async ValueTask CountActiveL1Async()
    {
        long offset = _header.L1TableOffset;
        L1Entries = _header.L1Size;
        _neededL1 = (int)_geometry.L1EntriesFor(_header.Size);
        if (_neededL1 > 0 && (offset == 0 || offset >= _file.Length))
        {
            RootFault = offset == 0 ? "lies on the header" : $"lies past the end of the file, at {_file.Length:#,0}";
        }
        if (Fits(offset, _neededL1))
        {
            ulong[] used = Array.FindAll(await ReadTableAsync(offset, _neededL1).ConfigureAwait(false), entry => entry != 0);
            _rootIsPlausible = used.Count(LeadsIntoFile) * 2 > used.Length;
            _rootIsFlagged = used.Count(entry => LeadsIntoFile(entry) && new L2Entry(entry).IsCopied) * 2 > used.Length; // no other table has the flag there
        }
        if (offset < _file.Length && L1Entries > _neededL1 && !await AreEntriesAsync(offset + (_neededL1 * 8L), L1Entries - _neededL1).ConfigureAwait(false))
        {
            TrimL1("the others are no entries");
        }
        await CountL1Async(offset, L1Entries, ActiveL1, isActive: true).ConfigureAwait(false);
    }

    private void TrimL1(string why)
    {
        Findings.Corruption(
            "L1Size", $"The active L1 table has {_header.L1Size:#,0} entries; its disk of {_header.Size:#,0} bytes needs {_neededL1:#,0}, and {why}.", "set its size to what the disk needs", host: Qcow2Header.L1SizeAt);
        L1Entries = _neededL1;
    }

    /// <summary>What follows the entries that the disk needs lies on other structures, or leads to them: it is not the table's.</summary>
    private void TrimOverlappedL1()
    {
        if (_header.L1TableOffset >= _file.Length || L1Entries == _neededL1)
        {
            return;
        }
        long end = _geometry.Clusters(_header.L1TableOffset + (L1Entries * 8L));
        bool isOverlapped = false;
        for (long cluster = _geometry.Clusters(_header.L1TableOffset + (_neededL1 * 8L)); cluster < end && !isOverlapped; cluster++)
        {
            isOverlapped = Overlaps.Contains(cluster);
        }
        if (isOverlapped || _beyond.Overlaps(Overlaps))
        {
            TrimL1("the others lie on other structures, or lead to them");
        }
    }

    /// <summary>True if a run of an L1 table lies in the file and each of its entries is zero or leads into the file.</summary>
    private async ValueTask<bool> AreEntriesAsync(long offset, int count)
        => Fits(offset, count) && Array.TrueForAll(await ReadTableAsync(offset, count).ConfigureAwait(false), entry => entry == 0 || LeadsIntoFile(entry));

    private bool Fits(long offset, int entries) => entries * 8L <= (_fileClusters << _geometry.ClusterBits) - offset;

    private bool LeadsIntoFile(ulong entry)
        => L2Entry.OffsetOf(entry) is > 0 and var l2 && l2 < _file.Length && _geometry.InCluster(l2) == 0 && (entry & ~L2Entry.L1Bits) == 0;

    /// <summary>Collects what speaks against the active L1 table once everything is counted.</summary>
    private void JudgeRoot()
    {
        bool isMetByOther = _rootMeets is { } other && !ReferenceEquals(other, L2Table) && !ReferenceEquals(other, GuestData) && !IsBitmap(other)
            && !(ReferenceEquals(other, RefcountBlocks) && _rootIsPlausible) && !(ReferenceEquals(other, RefcountTableName) && _rootIsFlagged); // else the refcounts are astray
        if (isMetByOther)
        {
            RootFault ??= $"lies on {_rootMeets}";
        }
        else if (_header.L1TableOffset + (_neededL1 * 8L) > _file.Length && Findings.Leaks > 0)
        {
            RootFault ??= $"is cut off at the end of the file, at {_file.Length:#,0}";
        }
        else if (_rootIsUnused && !_headerIsUnused && !_rootIsPlausible && Findings.Leaks > 0 && !_header.IsInChange) // where the header is called free as well, the refcounts are wrong
        {
            RootFault ??= "lies in a cluster that the refcounts call free, while other clusters are in use that nothing refers to";
        }
        if (!_external && _header.DataFile is { } name && Findings.Corruptions > 0)
        {
            RootFault ??= $"leads to places in this file, while the header names the external data file '{name}' and lacks the bit that says so";
        }
        if (RootFault is not null)
        {
            Findings.Error(
                "RootTable",
                $"The active L1 table at host offset {_header.L1TableOffset:#,0} {RootFault}: it may not be the disk's table. A repair leaves such an image as it is, since what nothing refers to may be the disk's data.",
                host: _header.L1TableOffset);
        }
    }

    /// <summary>Decompresses compressed clusters, each place once, as far as the bound goes: an entry that is astray is told by nothing else.</summary>
    private async ValueTask CheckPackedAsync()
    {
        if (_packed.Count == 0)
        {
            return;
        }
        IBlockDecompressor decompressor = Qcow2Compression.Decompressor(_header.CompressionType);
        byte[] cluster = new byte[_geometry.ClusterSize], packed = new byte[(2 * _geometry.ClusterSize) + 512];
        foreach ((L2Entry entry, (long guest, long at)) in _packed)
        {
            _cancellationToken.ThrowIfCancellationRequested();
            (HostOffset place, int length) = entry.CompressedRange(_geometry.ClusterBits);
            long offset = place.Value;
            bool isCut = length > _file.Length - offset;
            length = (int)Math.Min(Math.Min(length, packed.Length), _file.Length - offset);
            await _file.ReadAsync(offset, packed.AsMemory(0, length), _cancellationToken).ConfigureAwait(false);
            if (!decompressor.TryDecompress(packed.AsSpan(0, length), cluster))
            {
                _ = BrokenClusters.Add(entry);
                string what = isCut ? $"goes on past the end of the file of {_file.Length:#,0} bytes, which has {length:#,0} of its bytes: it was cut off" : "does not decompress";
                Findings.Corruption(
                    "CompressedData", $"The compressed cluster for guest offset {guest:#,0} at offset {offset:#,0} {what}.", "make it read as zeroes", guest, _geometry.ClusterSize, at);
            }
        }
    }
}
