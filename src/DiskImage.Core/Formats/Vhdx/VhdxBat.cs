using System.Buffers;
using System.Runtime.InteropServices;
using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Vhdx;

/// <summary>
/// The BAT and the sector bitmaps of an open disk: which block lies where, and which of its sectors are there. Spec: MS-VHDX 2.4, 2.5.
/// </summary>
/// <remarks>
/// A BAT has up to 512 MiB, so pieces of it are kept (<see cref="VhdxDisk.Cache"/>), and what looks at all of it reads it part by part, as
/// it is in the file. The session's lock guards it.
/// </remarks>
internal sealed class VhdxBat(VhdxDisk disk)
{
    private VhdxGeometry Geometry => disk.Geometry;

    /// <summary>
    /// Entries of the BAT that mean something: with those of bitmap blocks if the disk has a parent and the region has the room.
    /// </summary>
    public long EntriesInUse => disk.HasParent
        ? Math.Min(Geometry.EntriesWithBitmaps, disk.Regions.Bat.Length / VhdxGeometry.EntryBytes)
        : Geometry.EntriesWithoutBitmaps;

    /// <summary>True if the BAT's region has room for an entry.</summary>
    public bool HasEntry(long index) => (index + 1) * VhdxGeometry.EntryBytes <= disk.Regions.Bat.Length;

    /// <summary>Where an entry lies in the file.</summary>
    public long PlaceOf(long index) => disk.Regions.Bat.Offset + (index * VhdxGeometry.EntryBytes);

    /// <summary>An entry of the BAT.</summary>
    public async ValueTask<BatEntry> EntryAsync(long index, CancellationToken cancellationToken)
    {
        long at = index * VhdxGeometry.EntryBytes;
        CachedPiece piece = await PieceAsync(at, cancellationToken).ConfigureAwait(false);
        return new(LittleEndian.U64(piece.Bytes, (int)(at % VhdxLayout.Sector)));
    }

    /// <summary>The entry of a payload block.</summary>
    public ValueTask<BatEntry> PayloadAsync(long block, CancellationToken cancellationToken)
        => EntryAsync(Geometry.PayloadIndex(block), cancellationToken);

    /// <summary>
    /// The entry of a payload block, and how many blocks from it on have the same one, as far as a piece of the BAT shows.
    /// </summary>
    public async ValueTask<(BatEntry Entry, int Blocks)> RunAsync(long block, CancellationToken cancellationToken)
    {
        long index = Geometry.PayloadIndex(block), at = index * VhdxGeometry.EntryBytes;
        CachedPiece piece = await PieceAsync(at, cancellationToken).ConfigureAwait(false);
        ReadOnlySpan<ulong> words = MemoryMarshal.Cast<byte, ulong>(piece.Bytes.AsSpan((int)(at % VhdxLayout.Sector)));
        long toBitmap = Geometry.BitmapIndex(Geometry.ChunkOf(block)) - index;
        words = words[..(int)Math.Min(Math.Min(words.Length, toBitmap), Geometry.Blocks - block)];
        int alike = words.IndexOfAnyExcept(words[0]);
        return (new(LittleEndian.U64(piece.Bytes, (int)(at % VhdxLayout.Sector))), alike < 0 ? words.Length : alike);
    }

    public async ValueTask SetAsync(MetadataSession.Held held, long index, BatEntry entry)
    {
        disk.Session.Require(held);
        long at = index * VhdxGeometry.EntryBytes;
        CachedPiece piece = await PieceAsync(at, CancellationToken.None).ConfigureAwait(false);
        LittleEndian.U64(piece.Bytes, (int)(at % VhdxLayout.Sector), entry.Raw);
        disk.Cache.Changed(piece, 0, VhdxLayout.Sector);
    }

    public ValueTask SetPayloadAsync(MetadataSession.Held held, long block, BatEntry entry)
        => SetAsync(held, Geometry.PayloadIndex(block), entry);

    /// <summary>Gives a block another entry, and back the space that the old one has.</summary>
    public async ValueTask ReplaceAsync(MetadataSession.Held held, long block, BatEntry old, BatEntry entry)
    {
        _ = await disk.SpaceAsync(held).ConfigureAwait(false);
        await SetPayloadAsync(held, block, entry).ConfigureAwait(false);
        GiveUp(held, old);
    }

    /// <summary>An entry was replaced: its space, if it had any, is free once that is durable.</summary>
    public void GiveUp(MetadataSession.Held held, BatEntry old)
    {
        if (old.FileOffset >= VhdxLayout.MiB && old.State is not (BlockState.NotPresent or BlockState.Zero))
        {
            disk.Space.FreeAfterFlush(held, old.FileOffset, Geometry.BlockSize);
        }
    }

    /// <summary>Gives a block of which the parent holds everything a place, with no sector in it yet.</summary>
    public async ValueTask<BatEntry> AddPartialAsync(MetadataSession.Held held, long block)
    {
        HostOffset host = await disk.AllocateAsync(held, Geometry.BlockSize).ConfigureAwait(false);
        long index = Geometry.BitmapIndex(Geometry.ChunkOf(block));
        if (!HasEntry(index))
        {
            throw Wrong(block, $"cannot become partially present: the BAT region has no room for entry {index}, that of its sector bitmap");
        }
        BatEntry bitmap = await EntryAsync(index, CancellationToken.None).ConfigureAwait(false);
        if (bitmap.State == BlockState.FullyPresent)
        {
            HostOffset place = await BitmapAsync(block, CancellationToken.None).ConfigureAwait(false);
            await SetBitsAsync(place, block, new(Geometry.StartOf(block)), Geometry.BytesOf(block), value: false).ConfigureAwait(false);
        }
        else
        {
            HostOffset place = await disk.AllocateAsync(held, VhdxLayout.BitmapBlockSize).ConfigureAwait(false);
            disk.Cache.Forget(place.Value, VhdxLayout.BitmapBlockSize);
            await SetAsync(held, index, new BatEntry(BlockState.FullyPresent, place)).ConfigureAwait(false);
        }
        var entry = new BatEntry(BlockState.PartiallyPresent, host);
        await SetPayloadAsync(held, block, entry).ConfigureAwait(false);
        return entry;
    }

    /// <summary>Gives up sector bitmaps of chunks that no partially present block needs.</summary>
    public async ValueTask DropBitmapsAsync(MetadataSession.Held held, CancellationToken cancellationToken)
    {
        for (long chunk = 0; chunk < Geometry.Chunks && HasEntry(Geometry.BitmapIndex(chunk)); chunk++)
        {
            cancellationToken.ThrowIfCancellationRequested();
            BatEntry bitmap = await EntryAsync(Geometry.BitmapIndex(chunk), cancellationToken).ConfigureAwait(false);
            bool isKept = bitmap.State != BlockState.FullyPresent;
            long first = chunk * Geometry.ChunkRatio, end = disk.HasParent ? Math.Min(Geometry.Blocks, first + Geometry.ChunkRatio) : first;
            for (long block = first; block < end && !isKept; block++)
            {
                isKept = (await PayloadAsync(block, cancellationToken).ConfigureAwait(false)).State == BlockState.PartiallyPresent;
            }
            if (!isKept)
            {
                await SetAsync(held, Geometry.BitmapIndex(chunk), default).ConfigureAwait(false);
                disk.Space.FreeAfterFlush(held, bitmap.FileOffset, VhdxLayout.BitmapBlockSize);
            }
        }
    }

    /// <summary>Whether a sector of a partially present block is in this file, and how many bytes from an offset on are alike.</summary>
    public async ValueTask<(bool IsHere, long Length)> SectorRunAsync(
        long block, GuestOffset offset, long end, CancellationToken cancellationToken)
    {
        HostOffset bitmap = await BitmapAsync(block, cancellationToken).ConfigureAwait(false);
        int first = Geometry.BitOf(offset), inPage = first % (VhdxLayout.Sector * 8), sector = Geometry.SectorSize;
        HostOffset page = bitmap + Round.Down(first / 8, VhdxLayout.Sector);
        CachedPiece piece = await disk.Cache.GetAsync(page.Value, cancellationToken).ConfigureAwait(false);
        long sectors = Round.Units(end, sector) - (offset.Value / sector);
        int run = VhdxBits.Run(piece.Bytes, inPage, (int)Math.Min(inPage + sectors, VhdxLayout.Sector * 8), out bool isHere);
        return (isHere, Math.Min(((offset.Value / sector) + run) * sector, end) - offset.Value);
    }

    /// <summary>True if no sector of a partially present block is in this file (value false), or all of them are (value true).</summary>
    public async ValueTask<bool> AreAllAsync(long block, bool value, CancellationToken cancellationToken)
    {
        for (long at = Geometry.StartOf(block), end = at + Geometry.BytesOf(block); at < end;)
        {
            (bool isHere, long run) = await SectorRunAsync(block, new(at), end, cancellationToken).ConfigureAwait(false);
            if (isHere != value)
            {
                return false;
            }
            at += run;
        }
        return true;
    }

    /// <summary>Sectors of a block are written: says so in the bitmap, or in the BAT once all of them are.</summary>
    public async ValueTask SetSectorsAsync(MetadataSession.Held held, BatEntry entry, long block, GuestOffset start, long length)
    {
        HostOffset bitmap = await BitmapAsync(block, CancellationToken.None).ConfigureAwait(false);
        await SetBitsAsync(bitmap, block, start, length, value: true).ConfigureAwait(false);
        if (await AreAllAsync(block, value: true, CancellationToken.None).ConfigureAwait(false))
        {
            await SetPayloadAsync(held, block, new BatEntry(BlockState.FullyPresent, entry.Place)).ConfigureAwait(false);
        }
    }

    /// <summary>Shows a number of entries of the BAT, a part at a time, as they are in the file.</summary>
    public async ValueTask EachPartAsync(long entries, Action<long, ReadOnlyMemory<byte>> visit, CancellationToken cancellationToken)
    {
        byte[] buffer = ArrayPool<byte>.Shared.Rent(VhdxLayout.MiB);
        try
        {
            long total = entries * VhdxGeometry.EntryBytes;
            for (long done = 0; done < total; done += VhdxLayout.MiB)
            {
                Memory<byte> part = buffer.AsMemory(0, (int)Math.Min(VhdxLayout.MiB, total - done));
                await disk.File.ReadPaddedAsync(disk.Regions.Bat.Offset + done, part, cancellationToken).ConfigureAwait(false);
                visit(done / VhdxGeometry.EntryBytes, part);
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }
    }

    /// <summary>Shows the entries of a number that are not zero, as they are in the file.</summary>
    public ValueTask EachAsync(long entries, Action<long, BatEntry> visit, CancellationToken cancellationToken) => EachPartAsync(
        entries,
        (first, part) =>
        {
            ReadOnlySpan<ulong> words = MemoryMarshal.Cast<byte, ulong>(part.Span);
            for (int i = 0; i < words.Length && words[i..].IndexOfAnyExcept(0UL) is >= 0 and var next; i++)
            {
                i += next;
                visit(first + i, new BatEntry(LittleEndian.U64(part.Span, i * VhdxGeometry.EntryBytes)));
            }
        },
        cancellationToken);

    /// <summary>
    /// Shows the entries behind the last block that name a place, as they are in the file. They mean nothing; holes are not read.
    /// </summary>
    public async ValueTask EachStaleAsync(Action<long, BatEntry> visit, CancellationToken cancellationToken)
    {
        byte[] buffer = ArrayPool<byte>.Shared.Rent(VhdxLayout.MiB);
        try
        {
            long at = PlaceOf(Geometry.EntriesWithoutBitmaps), end = Math.Min(disk.Regions.Bat.End, disk.File.Length);
            while (at < end)
            {
                BlockExtent extent = await disk.File.GetExtentAsync(at, end - at, cancellationToken).ConfigureAwait(false);
                if (extent.IsZero)
                {
                    at = Round.Down(extent.End, VhdxGeometry.EntryBytes) is var next && next > at ? next : at + VhdxGeometry.EntryBytes;
                    continue;
                }
                long whole = Math.Max(VhdxGeometry.EntryBytes, Round.Down(extent.Length, VhdxGeometry.EntryBytes));
                Memory<byte> part = buffer.AsMemory(0, (int)Math.Min(VhdxLayout.MiB, whole));
                await disk.File.ReadPaddedAsync(at, part, cancellationToken).ConfigureAwait(false);
                ShowStale(part.Span, (at - disk.Regions.Bat.Offset) / VhdxGeometry.EntryBytes, visit);
                at += part.Length;
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }
    }

    /// <summary>Blocks that are stored, as the file says.</summary>
    public async ValueTask<long> CountStoredAsync(CancellationToken cancellationToken)
    {
        long stored = 0;
        await EachAsync(Geometry.EntriesWithoutBitmaps, (_, entry) => stored += entry.IsStored
            ? 1
            : 0, cancellationToken).ConfigureAwait(false);
        return stored;
    }

    /// <summary>Takes the places of all blocks.</summary>
    /// <param name="space">Where.</param>
    /// <param name="isStrict">False to let pass what is taken already.</param>
    /// <param name="cancellationToken">Stops it.</param>
    /// <exception cref="DiskImageException">Corrupt: an entry names no place, or one that is taken.</exception>
    public async ValueTask MarkAsync(SpaceMap space, bool isStrict, CancellationToken cancellationToken)
    {
        await EachAsync(EntriesInUse, (index, entry) => Mark(space, index, entry, isStrict), cancellationToken).ConfigureAwait(false);
        await EachStaleAsync((_, entry) => MarkStale(space, entry), cancellationToken).ConfigureAwait(false);
    }

    /// <summary>
    /// Keeps the place that a stale entry names from being used, unless it is in use: else it would come to name something that lives.
    /// </summary>
    public void MarkStale(SpaceMap space, BatEntry entry)
    {
        if (IsStalePlace(entry) && !space.IsUsed(entry.FileOffset, Geometry.BlockSize))
        {
            _ = space.TryMark(entry.FileOffset, Geometry.BlockSize);
        }
    }

    /// <summary>True if a block could lie where a stale entry says.</summary>
    public bool IsStalePlace(BatEntry entry)
        => entry.FileOffset >= VhdxLayout.MiB && entry.FileOffset <= disk.File.Length - Geometry.BlockSize;

    /// <summary>Refuses a place that no payload block can have.</summary>
    public void RequirePayload(BatEntry entry, long block)
        => disk.RequirePlace(entry.FileOffset, Geometry.BytesOf(block), $"payload block {block}");

    /// <summary>The error for an entry that contradicts the specification.</summary>
    public DiskImageException Wrong(long block, string what)
        => VhdxLayout.Corrupt(
            disk.Name,
            $"payload block {block}, for guest offset {Geometry.StartOf(block):#,0}, {what}",
            PlaceOf(Geometry.PayloadIndex(block)));

    private ValueTask<CachedPiece> PieceAsync(long at, CancellationToken cancellationToken)
        => disk.Cache.GetAsync(disk.Regions.Bat.Offset + Round.Down(at, VhdxLayout.Sector), cancellationToken);

    /// <summary>Where the sector bitmap block of a partially present block lies.</summary>
    private async ValueTask<HostOffset> BitmapAsync(long block, CancellationToken cancellationToken)
    {
        long index = Geometry.BitmapIndex(Geometry.ChunkOf(block));
        if (!HasEntry(index))
        {
            throw Wrong(block, $"is partially present, and the BAT region has no room for entry {index}, that of its sector bitmap");
        }
        BatEntry entry = await EntryAsync(index, cancellationToken).ConfigureAwait(false);
        if (entry.State != BlockState.FullyPresent)
        {
            throw Wrong(
                block,
                $"is partially present, and its sector bitmap (entry {index}) has the state {(int)entry.State}; allowed: "
                    + $"{(int)BlockState.FullyPresent}, present");
        }
        disk.RequirePlace(entry.FileOffset, VhdxLayout.BitmapBlockSize, $"the sector bitmap of chunk {Geometry.ChunkOf(block)}");
        return entry.Place;
    }

    /// <summary>Sets or clears the bits of the sectors of a guest range in one block.</summary>
    private async ValueTask SetBitsAsync(HostOffset bitmap, long block, GuestOffset start, long length, bool value)
    {
        const int PageBits = VhdxLayout.Sector * 8;
        long end = Math.Min(start.Value + length, Geometry.StartOf(block) + Geometry.BlockSize);
        int bit = Geometry.BitOf(start), lastBit = bit + (int)(Round.Units(end, Geometry.SectorSize) - (start.Value / Geometry.SectorSize));
        while (bit < lastBit)
        {
            int inPage = bit % PageBits, count = Math.Min(PageBits - inPage, lastBit - bit);
            HostOffset page = bitmap + Round.Down(bit / 8, VhdxLayout.Sector);
            CachedPiece piece = await disk.Cache.GetAsync(page.Value, CancellationToken.None).ConfigureAwait(false);
            VhdxBits.Set(piece.Bytes, inPage, inPage + count, value);
            disk.Cache.Changed(piece, 0, VhdxLayout.Sector);
            bit += count;
        }
    }

    private void ShowStale(ReadOnlySpan<byte> entries, long firstIndex, Action<long, BatEntry> visit)
    {
        for (int at = 0; at < entries.Length; at += VhdxGeometry.EntryBytes)
        {
            int skipped = entries[at..].IndexOfAnyExcept((byte)0);
            if (skipped < 0)
            {
                return;
            }
            at += (int)Round.Down(skipped, VhdxGeometry.EntryBytes);
            var entry = new BatEntry(LittleEndian.U64(entries, at));
            long index = firstIndex + (at / VhdxGeometry.EntryBytes);
            if (entry.FileOffset != 0 && !Geometry.IsInUse(index, disk.HasParent))
            {
                visit(index, entry);
            }
        }
    }

    private void Mark(SpaceMap space, long index, BatEntry entry, bool isStrict)
    {
        if (entry.FileOffset == 0 || entry.State is BlockState.Zero or BlockState.NotPresent)
        {
            return;
        }
        bool isBitmap = Geometry.IsBitmapIndex(index);
        if (!isBitmap && Geometry.BlockAt(index) >= Geometry.Blocks)
        {
            return; // stale: behind the last block of a differencing disk's last chunk
        }
        long length = isBitmap ? VhdxLayout.BitmapBlockSize : Geometry.BlockSize, end = disk.File.Length;
        string? why = entry.FileOffset < VhdxLayout.MiB ? ""
            : entry.FileOffset >= end || (isBitmap && entry.FileOffset > end - length) ? $", past the end of the file's {end:#,0} bytes"
            : !space.TryMark(entry.FileOffset, length) && isStrict ? ", where something else lies"
            : null;
        if (why is not null)
        {
            throw VhdxLayout.Corrupt(
                disk.Name,
                $"BAT entry {index} names offset {entry.FileOffset:#,0}{why}, so no place can be chosen for new data."
                    + $" Nothing was written; {new Remedy(RemedyKind.Repair)} may put it right",
                PlaceOf(index));
        }
    }
}
