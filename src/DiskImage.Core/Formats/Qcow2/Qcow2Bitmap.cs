using System.Buffers;
using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Qcow2;

/// <summary>One dirty bitmap: what is stored of it, and what has changed since. Spec: qcow2, "Bitmap table", "Bitmap data".</summary>
/// <remarks>
/// <para>Idea. A page is what one entry of the bitmap table stands for: a cluster of bits. An entry says "all zeroes", "all ones", or
/// where the page is stored. A page comes into memory when a bit in it changes, and only then; what was not touched is neither
/// read nor written again. So memory follows what is written to the disk, not what a table claims.</para>
/// <para>States. The table in memory is what the bitmap is now, save for the pages in memory, which overrule it; the stored
/// table is what the file has. <see cref="PrepareAsync"/> writes what differs to new clusters and changes nothing else;
/// <see cref="UnusedAsync"/> tells what is not needed once the directory points there; <see cref="AsStored"/> begins anew.</para>
/// <para>Bits past the end of the disk are zero in every page in memory and in every page written. In a file that sets them they are
/// not looked at.</para>
/// <para>Not thread-safe: the node's metadata lock guards it.</para>
/// </remarks>
internal sealed class Qcow2Bitmap(BlockNode file, Qcow2Geometry geometry, Qcow2BitmapEntry entry, long length)
{
    public const long MaxBitsBytes = 512 << 20; // QEMU's limit (BME_MAX_PHYS_SIZE)
    private const ulong AllOnes = 1, OffsetMask = 0x00FF_FFFF_FFFF_FE00; // spec: bit 0; bits 9-55
    private const int MaxRanges = 1 << 24; // ours: what a list of dirty ranges may hold

    private readonly Dictionary<int, Page> _pages = [];
    private readonly Qcow2BitmapEntry _original = entry; // as the directory has it
    private ulong[]? _stored, _table; // as it is in the file, and as it is now: null until needed

    /// <summary>The directory entry as it is to be; its table offset and size are those of the stored table.</summary>
    public Qcow2BitmapEntry Entry { get; set; } = entry;

    /// <summary>Bytes of the disk that it covers. Nothing past them is recorded.</summary>
    public long Length { get; private set; } = length;

    /// <summary>True if the directory in the file says that it is in use because this program uses it.</summary>
    public bool IsMarked { get; set; }

    /// <summary>It records writes.</summary>
    public bool IsEnabled => (Entry.Flags & Qcow2BitmapFlags.Auto) != 0;

    /// <summary>
    /// It was saved properly, and it is understood: a dirty tracking bitmap without extra data, or with extra data that may be ignored.
    /// </summary>
    public bool IsUsable
        => (Entry.Flags & ~(Qcow2BitmapFlags.Auto | Qcow2BitmapFlags.ExtraDataCompatible)) == 0
            && Entry.Type == Qcow2BitmapEntry.DirtyTracking
            && (Entry.ExtraData.Length == 0 || (Entry.Flags & Qcow2BitmapFlags.ExtraDataCompatible) != 0);

    /// <summary>True if its bits are not as they are stored.</summary>
    public bool BitsChanged => Entry.TableOffset == 0 || !ReferenceEquals(_stored, _table) || _pages.Values.Any(p => p.IsChanged);

    /// <summary>True if the file does not have it as it is now.</summary>
    public bool IsChanged => BitsChanged || !ReferenceEquals(Entry, _original);

    /// <summary>Bytes of bits that the stored table or the disk's length speaks of: the most that its pages can take in memory.</summary>
    public long BitsBytes => Math.Max(BitsBytesFor(Length, Entry.GranularityBits), (long)Entry.TableSize << geometry.ClusterBits);

    private long BitCount => Round.Units(Length, 1L << Entry.GranularityBits);

    private long BitsPerPage => geometry.ClusterSize * 8L;

    // bounded when the table is read
    private int PageCount => (int)Math.Max(1, Round.Units(BitsBytesFor(Length, Entry.GranularityBits), geometry.ClusterSize));

    /// <summary>Clusters that the stored table points to, once it was read.</summary>
    public long StoredPages { get; private set; }

    /// <summary>Bytes of bits for a disk.</summary>
    public static long BitsBytesFor(long length, int granularityBits) => Round.Units(Round.Units(length, 1L << granularityBits), 8);

    /// <summary>Sets the bits that stand for any byte of a range of the disk, as far as the bitmap covers it.</summary>
    public async ValueTask SetAsync(GuestOffset offset, long count)
    {
        long end = Math.Min(offset.Value + count, Length);
        if (offset.Value >= end)
        {
            return;
        }
        await LoadAsync(CancellationToken.None).ConfigureAwait(false);
        long first = offset.Value >> Entry.GranularityBits, last = (end - 1) >> Entry.GranularityBits;
        for (long page = first / BitsPerPage; page <= last / BitsPerPage; page++)
        {
            long start = page * BitsPerPage;
            await SetInPageAsync((int)page, Math.Max(first - start, 0), Math.Min(last - start, BitsPerPage - 1) + 1).ConfigureAwait(false);
        }
    }

    /// <summary>Clears every bit.</summary>
    public async ValueTask ClearAsync()
    {
        await LoadAsync(CancellationToken.None).ConfigureAwait(false);
        _table = new ulong[PageCount];
        _pages.Clear();
    }

    /// <summary>Makes it cover another length of the disk. New bits are clear.</summary>
    public async ValueTask ResizeAsync(long newLength)
    {
        if (newLength == Length)
        {
            return;
        }
        await LoadAsync(CancellationToken.None).ConfigureAwait(false);
        long oldBits = BitCount, newBits = Round.Units(newLength, 1L << Entry.GranularityBits);
        long kept = Math.Min(oldBits, newBits);
        if (oldBits != newBits && kept % BitsPerPage != 0)
        {
            int border = (int)(kept / BitsPerPage);
            Page page = await PageAsync(border).ConfigureAwait(false); // also clears what a careless writer left past the old end
            page.IsChanged |= Qcow2Bits.Clear(page.Bits, kept % BitsPerPage, BitsPerPage) || _table![border] != 0;
        }
        Length = newLength;
        ulong[] table = new ulong[PageCount];
        _table.AsSpan(0, Math.Min(table.Length, _table!.Length)).CopyTo(table);
        _table = table;
        foreach (int gone in _pages.Keys.Where(p => p >= table.Length).ToArray())
        {
            _ = _pages.Remove(gone);
        }
    }

    /// <summary>Bytes of the disk that the set bits stand for.</summary>
    public async ValueTask<long> CountAsync(CancellationToken cancellationToken)
    {
        long count = 0;
        bool last = false; // the last bit may stand for less
        await ForEachPageAsync((page, bits) =>
        {
            count += bits.IsEmpty ? Math.Min(BitsPerPage, BitCount - (page * BitsPerPage)) : Qcow2Bits.Count(bits);
            if (page == (BitCount - 1) / BitsPerPage)
            {
                long bit = (BitCount - 1) % BitsPerPage;
                last = bits.IsEmpty || Qcow2Bits.Next(bits, bit, set: true) == bit;
            }
        }, cancellationToken).ConfigureAwait(false);
        return (count << Entry.GranularityBits) - (last ? (BitCount << Entry.GranularityBits) - Length : 0);
    }

    /// <summary>The ranges of the disk that the set bits stand for, in order, neighbours joined.</summary>
    /// <exception cref="DiskImageException">OutOfRange: more than a list should hold.</exception>
    public async ValueTask<List<(long Offset, long Length)>> RangesAsync(CancellationToken cancellationToken)
    {
        var ranges = new List<(long Offset, long Length)>();
        await ForEachPageAsync((page, bits) =>
        {
            long start = page * BitsPerPage;
            if (bits.IsEmpty)
            {
                Add(start, start + BitsPerPage);
                return;
            }
            for (long bit = Qcow2Bits.Next(bits, 0, set: true); bit < BitsPerPage;)
            {
                long end = Qcow2Bits.Next(bits, bit, set: false);
                Add(start + bit, start + end);
                bit = Qcow2Bits.Next(bits, end, set: true);
            }
        }, cancellationToken).ConfigureAwait(false);
        return ranges;

        void Add(long firstBit, long endBit)
        {
            long offset = firstBit << Entry.GranularityBits;
            long end = endBit >= BitCount ? Length : endBit << Entry.GranularityBits;
            if (ranges.Count > 0 && ranges[^1] is var last && last.Offset + last.Length == offset)
            {
                ranges[^1] = (last.Offset, end - last.Offset);
                return;
            }
            if (ranges.Count == MaxRanges)
            {
                throw new DiskImageException(
                    DiskImageErrorKind.OutOfRange, $"{file.Name}: bitmap '{Entry.Name}' has more than {MaxRanges:#,0} dirty ranges,"
                        + $" more than can be listed", file.Name);
            }
            ranges.Add((offset, end - offset));
        }
    }

    /// <summary>Writes the bits that changed, and a table for them, to new clusters. Nothing points there yet.</summary>
    /// <param name="allocate">Takes a number of clusters in a row.</param>
    public async ValueTask<PreparedTable> PrepareAsync(Func<int, ValueTask<HostOffset>> allocate)
    {
        await LoadAsync(CancellationToken.None).ConfigureAwait(false);
        ulong[] table = _table![..PageCount]; // a stored table may be longer than it needs to be
        foreach ((int index, Page page) in _pages.Where(p => p.Value.IsChanged).OrderBy(p => p.Key))
        {
            bool isWhole = (index + 1) * BitsPerPage <= BitCount; // spec: unused bits of the last cluster are zero
            if (ZeroDetection.IsZero(page.Bits))
            {
                table[index] = 0;
            }
            else if (isWhole && !page.Bits.AsSpan().ContainsAnyExcept(byte.MaxValue))
            {
                table[index] = AllOnes;
            }
            else
            {
                HostOffset place = await allocate(1).ConfigureAwait(false);
                await file.WriteAsync(place.Value, page.Bits).ConfigureAwait(false);
                table[index] = (ulong)place.Value;
            }
        }
        byte[] bytes = new byte[Round.Up(table.Length * 8L, geometry.ClusterSize)];
        for (int i = 0; i < table.Length; i++)
        {
            BigEndian.U64(bytes, i * 8, table[i]);
        }
        HostOffset start = await allocate(bytes.Length >> geometry.ClusterBits).ConfigureAwait(false);
        await file.WriteAsync(start.Value, bytes).ConfigureAwait(false);
        return new(start, table);
    }

    /// <summary>The bitmap as it is stored now, with nothing of it in memory.</summary>
    public Qcow2Bitmap AsStored(Qcow2BitmapEntry stored) => new(file, geometry, stored, Length);

    /// <summary>The stored table and data that a newer table does not use; all of them without one.</summary>
    public async ValueTask<IReadOnlyList<(HostOffset Place, long Length)>> UnusedAsync(PreparedTable? newer)
    {
        if (_original.TableOffset == 0)
        {
            return [];
        }
        await LoadAsync(CancellationToken.None).ConfigureAwait(false);
        HashSet<HostOffset> used = newer is null ? [] : [.. newer.Table.Select(PlaceOf)];
        _ = used.Add(default);
        IEnumerable<HostOffset> given = _stored!.Select(PlaceOf).Where(place => !used.Contains(place)).Distinct();
        List<(HostOffset Place, long Length)> unused = [.. given.Select(place => (place, (long)geometry.ClusterSize))];
        unused.Add((new(_original.TableOffset), _original.TableSize * 8L));
        return unused;
    }

    private static HostOffset PlaceOf(ulong entry) => new((long)(entry & OffsetMask));

    private async ValueTask SetInPageAsync(int index, long first, long end)
    {
        bool inMemory = _pages.TryGetValue(index, out Page? page);
        if (!inMemory && _table![index] == AllOnes)
        {
            return;
        }
        if (first == 0 && end == BitsPerPage && !inMemory)
        {
            OwnTable()[index] = AllOnes;
            return;
        }
        page ??= await PageAsync(index).ConfigureAwait(false);
        page.IsChanged |= Qcow2Bits.Set(page.Bits, first, end);
    }

    /// <summary>The table, in a copy that may be changed.</summary>
    private ulong[] OwnTable()
    {
        if (ReferenceEquals(_table, _stored))
        {
            _table = (ulong[])_stored!.Clone();
        }
        return _table!;
    }

    private async ValueTask<Page> PageAsync(int index)
    {
        if (!_pages.TryGetValue(index, out Page? page))
        {
            page = new Page(new byte[geometry.ClusterSize]);
            await ReadPageAsync(_table![index], index, page.Bits, CancellationToken.None).ConfigureAwait(false);
            _pages.Add(index, page);
        }
        return page;
    }

    private async ValueTask ReadPageAsync(ulong entry, int index, Memory<byte> bits, CancellationToken cancellationToken)
    {
        if (PlaceOf(entry) is { Value: not 0 and var place })
        {
            await file.ReadPaddedAsync(place, bits, cancellationToken).ConfigureAwait(false);
        }
        else
        {
            bits.Span.Fill(entry == AllOnes ? byte.MaxValue : (byte)0);
        }
        _ = Qcow2Bits.Clear(bits.Span, Math.Clamp(BitCount - (index * BitsPerPage), 0, BitsPerPage), BitsPerPage);
    }

    /// <summary>Calls <paramref name="visit"/> for every page with a bit set; it gets no bits if all of them are.</summary>
    private async ValueTask ForEachPageAsync(PageVisitor visit, CancellationToken cancellationToken)
    {
        ulong[] table = _table ?? await ReadTableAsync(cancellationToken).ConfigureAwait(false);
        byte[] buffer = ArrayPool<byte>.Shared.Rent(geometry.ClusterSize);
        try
        {
            for (int i = 0; i < PageCount; i++)
            {
                cancellationToken.ThrowIfCancellationRequested();
                if (_pages.TryGetValue(i, out Page? page))
                {
                    visit(i, page.Bits);
                }
                else if (table[i] == AllOnes)
                {
                    visit(i, default);
                }
                else if (table[i] != 0)
                {
                    Memory<byte> bits = buffer.AsMemory(0, geometry.ClusterSize);
                    await ReadPageAsync(table[i], i, bits, cancellationToken).ConfigureAwait(false);
                    visit(i, bits.Span);
                }
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }
    }

    private async ValueTask LoadAsync(CancellationToken cancellationToken)
    {
        if (_table is null)
        {
            _stored = await ReadTableAsync(cancellationToken).ConfigureAwait(false);
            _table = _stored;
        }
    }

    /// <summary>Reads the stored table. Every entry is checked, and there are as many as the disk needs.</summary>
    private async ValueTask<ulong[]> ReadTableAsync(CancellationToken cancellationToken)
    {
        if (IsUsable && BitsBytes > MaxBitsBytes)
        {
            throw Wrong($"has {BitsBytes:#,0} bytes of bits; allowed: at most {MaxBitsBytes:#,0}", Entry.TableOffset);
        }
        if (Entry.TableOffset == 0)
        {
            return new ulong[PageCount]; // not stored yet
        }
        if (IsUsable && Entry.TableSize < PageCount)
        {
            throw Wrong(
                $"has a table of {Entry.TableSize} entries; allowed: at least {PageCount} for {Length:#,0} bytes", Entry.TableOffset);
        }
        byte[] bytes = new byte[Entry.TableSize * 8];
        await file.ReadPaddedAsync(Entry.TableOffset, bytes, cancellationToken).ConfigureAwait(false);
        ulong[] table = new ulong[Entry.TableSize];
        long stored = 0, clusters = geometry.Clusters(file.Length);
        for (int i = 0; i < Entry.TableSize; i++)
        {
            table[i] = BigEndian.U64(bytes, i * 8);
            long place = PlaceOf(table[i]).Value;
            stored += place == 0 ? 0 : 1;
            bool isWrong = (table[i] & ~OffsetMask) > (place == 0 ? AllOnes : 0) || geometry.InCluster(place) != 0
                || place >> geometry.ClusterBits >= clusters;
            if (isWrong || stored > clusters)
            {
                throw Wrong($"has a table entry {i} of {table[i]:x16}; allowed: 0, 1,"
                    + $" or a cluster of its own inside the file of {file.Length:#,0} bytes", Entry.TableOffset + (i * 8L));
            }
        }
        StoredPages = stored;
        return table;
    }

    private DiskImageException Wrong(string what, long offset)
        => new(DiskImageErrorKind.Corrupt, $"{file.Name}: bitmap '{Entry.Name}' {what}. Remove the bitmap,"
            + $" or look at all of it with {new Remedy(RemedyKind.Check)}.", file.Name, offset);

    private delegate void PageVisitor(int page, ReadOnlySpan<byte> bits);

    /// <summary>A table that is written but that nothing points to yet.</summary>
    internal sealed record PreparedTable(HostOffset Place, ulong[] Table);

    private sealed class Page(byte[] bits)
    {
        public byte[] Bits { get; } = bits;

        public bool IsChanged { get; set; }
    }
}
