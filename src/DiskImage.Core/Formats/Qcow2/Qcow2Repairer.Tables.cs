using DiskImage.Binary;

namespace DiskImage.Formats.Qcow2;

/// <summary>Putting the entries of L1 and L2 tables right: only what is lost changes, and what two have gets copied.</summary>
internal sealed partial class Qcow2Repairer
{
    /// <summary>Drops L1 entries that lead nowhere, and mends the L2 tables of the others; those that lie on something else move.</summary>
    private async ValueTask MendTablesAsync(long l1Offset, int l1Size, HashSet<long> overlaps, bool isActive)
    {
        byte[] l1 = new byte[l1Size * 8], table = new byte[_geometry.ClusterSize];
        await _file.ReadPaddedAsync(l1Offset, l1, _cancellationToken).ConfigureAwait(false);
        int first = l1.Length, end = 0;
        for (int i = 0; i < l1Size; i++)
        {
            _cancellationToken.ThrowIfCancellationRequested();
            ulong raw = BigEndian.U64(l1, i * 8);
            long l2 = L2Entry.OffsetOf(raw), place = 0;
            if (raw == 0)
            {
                continue;
            }
            bool isKnown = _mended.TryGetValue(l2, out place);
            if (IsPlace(l2) && (!isKnown || (isActive && MayAdd())))
            {
                await _file.ReadPaddedAsync(isKnown ? place : l2, table, _cancellationToken).ConfigureAwait(false);
                place = isKnown || overlaps.Contains(l2 >> _header.ClusterBits) ? FileEnd : l2;
                if (place != l2)
                {
                    await _file.WriteAsync(place, table, _cancellationToken).ConfigureAwait(false); // takes the place, before a copy of data may
                }
                if (await MendL2Async(table, i * _geometry.L2Span, isActive).ConfigureAwait(false))
                {
                    await _file.WriteAsync(place, table, _cancellationToken).ConfigureAwait(false);
                }
                _ = _mended.TryAdd(l2, place);
            }
            ulong mended = place != 0 && place == l2 ? raw & L2Entry.L1Bits : (ulong)place;
            if (mended != raw)
            {
                BigEndian.U64(l1, i * 8, mended);
                (first, end) = (Math.Min(first, i * 8), (i * 8) + 8);
            }
        }
        if (first < end)
        {
            await _file.FlushAsync(_cancellationToken).ConfigureAwait(false);
            await _file.WriteAsync(l1Offset + first, l1.AsMemory(first..end), _cancellationToken).ConfigureAwait(false);
        }
    }

    private async ValueTask<bool> MendL2Async(byte[] table, long guest, bool isActive)
    {
        bool changed = false;
        bool extended = _geometry.HasSubclusters;
        for (int at = 0; at < table.Length; at += _geometry.L2EntryBytes, guest += _geometry.ClusterSize)
        {
            var entry = new L2Entry(BigEndian.U64(table, at), extended ? BigEndian.U64(table, at + 8) : 0);
            if (entry == default)
            {
                continue;
            }
            L2Entry mended = Mend(entry, guest) ?? new L2Entry((ulong)await ZeroClusterAsync().ConfigureAwait(false));
            mended = isActive ? await OwnAsync(mended).ConfigureAwait(false) : mended;
            if (mended != entry)
            {
                changed = true;
                BigEndian.U64(table, at, mended.Raw);
                if (extended)
                {
                    BigEndian.U64(table, at + 8, mended.Bitmap);
                }
            }
        }
        return changed;
    }

    /// <summary>
    /// The entry that can stand: itself, or one in which what is lost reads as zeroes and all else is as it was. Null where that cannot be said
    /// in the entry: version 2 knows no zeroes, and with a backing file an unallocated cluster would show that.
    /// </summary>
    private L2Entry? Mend(L2Entry entry, long guest)
    {
        bool external = _header.Has(Qcow2Incompatible.ExternalDataFile), extended = _geometry.HasSubclusters;
        entry = entry.WithoutReserved(extended);
        if (entry.IsCompressed)
        {
            long offset = entry.CompressedRange(_header.ClusterBits).Place.Value;
            bool isLost = external || offset < _geometry.ClusterSize || offset >= _length || _broken.Contains(entry.WithCopied(false));
            return isLost ? Lost(entry) : entry.CompressedWithin(_length, _header.ClusterBits).WithCopied(false);
        }
        if (external && (entry.HasPlace || entry.IsCopied))
        {
            entry = entry.WithPlace(new(guest)); // the only place it can have there
        }
        bool isThere = external ? entry.HasPlace || entry.IsCopied : IsPlace(entry.Place.Value);
        if (_header.Version < 3 && (entry.Raw & 1) != 0)
        {
            return isThere ? entry with { Raw = entry.Raw & ~1UL } : Lost(entry); // the bit means nothing in version 2
        }
        bool isPastData = external && entry.Place.Value >= _dataFile?.Length && !IsRaw && (extended ? (uint)entry.Bitmap != 0 : (entry.Raw & 1) == 0);
        if (!isThere || isPastData)
        {
            bool isStored = extended || (entry.HasPlace && (entry.Raw & 1) == 0);
            return isStored ? Lost(entry) : entry with { Raw = entry.Raw & 1 };
        }
        uint both = extended ? (uint)entry.Bitmap & (uint)(entry.Bitmap >> 32) : 0;
        return both == 0 ? entry : entry with { Bitmap = entry.Bitmap & ~(ulong)both };
    }

    private bool IsRaw => (_header.AutoClear & Qcow2AutoClear.RawExternalData) != Qcow2AutoClear.None;

    /// <summary>An entry whose stored data is lost.</summary>
    private L2Entry? Lost(L2Entry entry)
    {
        if (_header.Version < 3)
        {
            return _header.BackingFile is null ? default(L2Entry) : null;
        }
        if (!_geometry.HasSubclusters || entry.IsCompressed)
        {
            return L2Entry.Zero(null, _geometry.HasSubclusters);
        }
        ulong stored = (uint)entry.Bitmap;
        return new L2Entry(0, (entry.Bitmap | stored << 32) & ~stored);
    }

    /// <summary>The entry with a place that no other entry of the disk has; unchanged where it has one, or where copies would take too much.</summary>
    private async ValueTask<L2Entry> OwnAsync(L2Entry entry)
    {
        bool hasPlace = !entry.IsCompressed && entry.HasPlace && entry.Place.Value != _zeroes && !_header.Has(Qcow2Incompatible.ExternalDataFile);
        if (!hasPlace || _taken.Add(entry.Place.Value >> _header.ClusterBits) == 1)
        {
            return entry;
        }
        bool isReserved = _geometry.HasSubclusters ? (uint)entry.Bitmap == 0 : (entry.Raw & 1) != 0;
        if (isReserved)
        {
            return entry.WithCopied(false).WithPlace(default); // what is reserved holds nothing
        }
        return MayAdd() ? entry.WithCopied(false).WithPlace(new(await CopyToEndAsync(entry.Place.Value, _geometry.ClusterSize).ConfigureAwait(false))) : entry;
    }

    /// <summary>True if a cluster more may be taken for what would be shared otherwise: in all as many bytes as the file has.</summary>
    private bool MayAdd()
    {
        _added += _geometry.ClusterSize;
        return _added <= _length;
    }

    /// <summary>A cluster that holds zeroes, shared with others only where there would be too many.</summary>
    private async ValueTask<long> ZeroClusterAsync()
    {
        if (_zeroes == 0 || _zeroUses == _geometry.MaxRefcount || MayAdd())
        {
            (_zeroes, _zeroUses) = (FileEnd, 0);
            await _file.WriteAsync(_zeroes, new byte[_geometry.ClusterSize], _cancellationToken).ConfigureAwait(false);
        }
        _zeroUses++;
        return _zeroes;
    }
}
