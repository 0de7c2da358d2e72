using System.Buffers;
using DiskImage.Binary;
using DiskImage.Metadata;

namespace DiskImage.Formats.Qcow2;

/// <summary>The references of the L1 and L2 tables.</summary>
internal sealed partial class Qcow2Checker
{
    private readonly List<L2Use> _uses = []; // in the order in which they were met: the active ones first
    private readonly Dictionary<long, int> _usesOf = []; // offset of an L2 table → index in _uses

    /// <summary>Counts an L1 table and the L2 tables it leads to; those are read when all of them are known.</summary>
    private async ValueTask CountL1Async(long offset, int entries, string what, bool isActive)
    {
        bool isTaken = !isActive && HoldsTable(offset, entries * 8L);
        if (entries == 0 || !AddTable(offset, entries * 8L, what, repair: isActive ? null : DropSnapshots))
        {
            return;
        }
        if (isTaken)
        {
            HasUncounted = true; // it is another table, not this one
            return;
        }
        RequireEntries(offset, (isActive ? Math.Min(entries, _geometry.L1EntriesFor(_header.Size)) : entries) * 8L, what);
        ulong[] l1 = await ReadTableAsync(offset, entries).ConfigureAwait(false);
        for (int i = 0; i < l1.Length; i++)
        {
            _cancellationToken.ThrowIfCancellationRequested();
            long l2 = L2Entry.OffsetOf(l1[i]), guest = i * _geometry.L2Span;
            if ((l1[i] & ~(l2 == 0 ? 0 : L2Entry.L1Bits)) != 0)
            {
                ReservedBits("L1", l1[i], guest, offset + (i * 8L), _geometry.L2Span);
            }
            if (isActive && l2 != 0 && i >= _neededL1)
            {
                _ = _beyond.Add(l2 >> _geometry.ClusterBits);
            }
            if (l2 != 0 && AddTable(l2, _geometry.ClusterSize, L2Table, guest, isShared: true))
            {
                if (_usesOf.TryAdd(l2, _uses.Count))
                {
                    _uses.Add(new(l2, guest, isActive));
                }
                else
                {
                    _uses[_usesOf[l2]].Times++;
                }
            }
        }
    }

    private async ValueTask CountL2Async()
    {
        byte[] table = ArrayPool<byte>.Shared.Rent(_geometry.ClusterSize);
        try
        {
            foreach (L2Use use in _uses)
            {
                _cancellationToken.ThrowIfCancellationRequested();
                RequireEntries(use.Offset, Math.Clamp(_geometry.Clusters(_header.Size - use.Guest) * _geometry.L2EntryBytes, 0, _geometry.ClusterSize), L2Table, use.Guest);
                await _file.ReadPaddedAsync(use.Offset, table.AsMemory(0, _geometry.ClusterSize), _cancellationToken).ConfigureAwait(false);
                CountL2(table.AsSpan(0, _geometry.ClusterSize), use);
                if (use.IsActive)
                {
                    _bytes?.Report(Math.Min(use.Guest + _geometry.L2Span, _header.Size));
                }
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(table);
        }
    }

    private void CountL2(ReadOnlySpan<byte> table, L2Use use)
    {
        long guest = use.Guest;
        ulong end = (ulong)_fileClusters << _geometry.ClusterBits, inCluster = (ulong)_geometry.ClusterSize - 1;
        bool plain = !_geometry.HasSubclusters && !_external;
        for (int i = 0; i < _geometry.L2Entries; i++, guest += _geometry.ClusterSize)
        {
            int at = i * _geometry.L2EntryBytes;
            ulong raw = BigEndian.U64(table, at), host = raw & ~(1UL << 63);
            if (plain && (raw == 0 || (host - 1 < end - 1 && (host & inCluster) == 0 && _isTable[(long)host >> _geometry.ClusterBits] == 0)))
            {
                if (raw != 0) // the usual case: a whole cluster inside the file that is no table
                {
                    _ = References.Add((long)host >> _geometry.ClusterBits, use.Times);
                    Tally(use.IsActive, (long)host, isCompressed: false);
                }
                continue;
            }
            var entry = new L2Entry(raw, _geometry.HasSubclusters ? BigEndian.U64(table, at + 8) : 0);
            if (entry != default)
            {
                CountEntry(entry, guest, use.Offset + at, use);
            }
        }
    }

    private void CountEntry(L2Entry entry, long guest, long at, L2Use use)
    {
        if (entry.IsCompressed)
        {
            if (entry.Bitmap != 0)
            {
                Findings.Corruption("SubclusterBitmap", $"The compressed cluster for guest offset {guest:#,0} has the subcluster bitmap {entry.Bitmap:x16}; allowed: 0.", "clear it", guest, _geometry.ClusterSize, at);
            }
            (HostOffset place, int length) = entry.CompressedRange(_geometry.ClusterBits);
            long offset = place.Value;
            if (_external)
            {
                Findings.Corruption("CompressedInDataFile", $"Guest offset {guest:#,0} is compressed, which an image with an external data file cannot have.", "make it read as zeroes", guest, _geometry.ClusterSize, at);
            }
            else
            {
                long inFile = Math.Min(length, Round.Up(_file.Length, _geometry.ClusterSize) - offset); // the last sector may be cut short
                if (offset >= _file.Length || entry.IsCopied)
                {
                    Findings.Corruption("CompressedDescriptor", $"The compressed cluster for guest offset {guest:#,0} lies at offset {offset:#,0}, {length} bytes{(entry.IsCopied ? ", and bears the copied flag" : "")}; allowed: inside the file of {_file.Length:#,0} bytes, without the flag.", "make it read as zeroes", guest, _geometry.ClusterSize, at);
                }
                else if (entry.CompressedWithin(_file.Length, _geometry.ClusterBits) != entry)
                {
                    Findings.Corruption("CompressedDescriptor", $"The compressed cluster for guest offset {guest:#,0} lies at offset {offset:#,0}, {length} bytes, and the file ends at {_file.Length:#,0}; allowed: less than a cluster of {_geometry.ClusterSize:#,0} bytes past it.", "make its length end with the file", guest, _geometry.ClusterSize, at);
                }
                if (inFile > 0)
                {
                    AddData(offset, inFile, guest, at, use.Times);
                }
                if (offset < _file.Length && _packed.Count << _geometry.ClusterBits < MaxUnpacked)
                {
                    _ = _packed.TryAdd(entry.WithCopied(false), (guest, at));
                }
            }
            Tally(use.IsActive, -1, isCompressed: true);
            return;
        }
        if (entry != entry.WithoutReserved(_geometry.HasSubclusters))
        {
            ReservedBits("L2", entry.Raw, guest, at, _geometry.ClusterSize);
        }
        if (entry.Fault(_geometry.HasSubclusters, _external) is { } fault)
        {
            Findings.Corruption("SubclusterBitmap", $"The entry for guest offset {guest:#,0} {fault}.", "let them read as zeroes", guest, _geometry.ClusterSize, at);
        }
        if (_header.Version < 3 && (entry.Raw & 1) != 0)
        {
            Findings.Corruption("ZeroInVersion2", $"The entry for guest offset {guest:#,0} is a zero cluster, which version 2 does not have.", "make it unallocated", guest, _geometry.ClusterSize, at);
        }
        bool isNowhere = !entry.HasPlace && !(_external && entry.IsCopied); // offset 0 is a place in an external data file only
        if (isNowhere)
        {
            return;
        }
        if (_external)
        {
            CheckInDataFile(entry, guest, at);
            return;
        }
        if (_geometry.InCluster(entry.Place.Value) != 0)
        {
            Findings.Corruption("Misaligned", $"The entry for guest offset {guest:#,0} points to host offset {entry.Place.Value:#,0}; allowed: multiples of {_geometry.ClusterSize:#,0}.", "make it read as zeroes", guest, _geometry.ClusterSize, at);
            return;
        }
        AddData(entry.Place.Value, _geometry.ClusterSize, guest, at, use.Times);
        Tally(use.IsActive, entry.Place.Value, isCompressed: false);
    }

    /// <summary>A cluster in an external data file has the offset that the guest has. Spec: "Header", bit 2 of incompatible_features.</summary>
    private void CheckInDataFile(L2Entry entry, long guest, long at)
    {
        bool holdsData = _geometry.HasSubclusters ? (uint)entry.Bitmap != 0 : (entry.Raw & 1) == 0;
        if (entry.Place.Value != guest)
        {
            Findings.Corruption("Misplaced", $"The entry for guest offset {guest:#,0} points to offset {entry.Place.Value:#,0} of the external data file; allowed: the same offset.", "point it there", guest, _geometry.ClusterSize, at);
        }
        else if (holdsData && guest >= _dataLength)
        {
            bool isRaw = (_header.AutoClear & Qcow2AutoClear.RawExternalData) != Qcow2AutoClear.None;
            Findings.Corruption("OutOfFile", $"The data for guest offset {guest:#,0} is past the end of the external data file, at {_dataLength:#,0}.", isRaw ? null : "make it read as zeroes", guest, _geometry.ClusterSize, at);
        }
    }

    private void ReservedBits(string table, ulong entry, long guest, long at, long length)
        => Findings.Corruption("ReservedBits", $"The {table} entry for guest offset {guest:#,0} is {entry:x16}, with reserved bits set.", "clear them", guest, length, at);

    private void Tally(bool isActive, long host, bool isCompressed)
    {
        if (!isActive)
        {
            return;
        }
        _allocated++;
        if (isCompressed)
        {
            _compressed++;
            _fragmented++; // compressed clusters are fragmented by nature
            return;
        }
        _fragmented += _nextContiguous >= 0 && host != _nextContiguous ? 1 : 0;
        _nextContiguous = host + _geometry.ClusterSize;
    }

    /// <summary>An L2 table, the guest offset of the first L1 entry that leads to it, and how many do.</summary>
    private sealed class L2Use(long offset, long guest, bool isActive)
    {
        public long Offset { get; } = offset;

        public long Guest { get; } = guest;

        public bool IsActive { get; } = isActive;

        public ulong Times { get; set; } = 1;
    }
}
