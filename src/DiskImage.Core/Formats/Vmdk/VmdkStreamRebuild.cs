using System.Buffers;
using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Compression;

namespace DiskImage.Formats.Vmdk;

/// <summary>
/// Makes the tables, the directory and the footer of a stream anew from the markers before its grains. Spec: Virtual Disk Format 5.0,
/// "Stream-Optimized Compressed Sparse Extents".
/// </summary>
/// <remarks>
/// <para>A marker tells which sectors of the disk a grain holds and how long it is, and grains ascend. So the file is gone through from its
/// first grain; where something else is than a marker, up to the next one before a grain that decodes. Tables that are as they should be
/// are used, the others are written behind the last grain, with directory and footer: over what is there, which is no grain.</para>
/// <para>First the file is gone through without a change. A crash leaves a stream without its end, as it was.</para>
/// </remarks>
/// <param name="file">The file.</param>
/// <param name="header">The header of the stream, which says that the directory is at the end.</param>
internal sealed class VmdkStreamRebuild(BlockNode file, VmdkHeader header)
{
    private readonly byte[] _table = new byte[header.TableEntries * sizeof(uint)];
    private readonly byte[] _directory = new byte[Round.Up(header.DirectoryEntries * (long)sizeof(uint), VmdkHeader.SectorSize)];
    private long _tableIndex = -1; // of the table in hand
    private bool _isPlaced; // the one in hand is in the file
    private long _position; // where the next request goes

    /// <summary>Does it, durably.</summary>
    /// <exception cref="DiskImageException">Corrupt: what is to be written is more than the file has.</exception>
    public async ValueTask RunAsync(CancellationToken cancellationToken)
    {
        long end = header.Overhead * VmdkHeader.SectorSize, tables = 0, last = -1;
        await foreach (Item item in ItemsAsync(cancellationToken).ConfigureAwait(false))
        {
            tables += item.Kind == ItemKind.Grain && item.Value / header.TableEntries != last ? 1 : 0;
            last = item.Kind == ItemKind.Grain ? item.Value / header.TableEntries : last;
            end = item.End;
        }
        if (tables * (VmdkHeader.SectorSize + (long)_table.Length) > file.Length)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Corrupt, $"{file.Name}: {tables:#,0} grain tables would be more than the file has,"
                    + $" {file.Length:#,0} bytes; it is no stream that a program wrote", file.Name);
        }
        _position = end;
        await foreach (Item item in ItemsAsync(cancellationToken).ConfigureAwait(false))
        {
            if (item.Start >= end)
            {
                break; // what was written here
            }
            await TakeAsync(item, cancellationToken).ConfigureAwait(false);
        }
        await BeginTableAsync(-1).ConfigureAwait(false);
        await PutAsync(VmdkFooter.EndOf(header, _directory, _position, file.Name)).ConfigureAwait(false);
        await file.ResizeAsync(_position, cancellationToken: CancellationToken.None).ConfigureAwait(false);
        await file.FlushAsync(CancellationToken.None).ConfigureAwait(false);
    }

    private async ValueTask TakeAsync(Item item, CancellationToken cancellationToken)
    {
        if (item.Kind == ItemKind.Grain)
        {
            await BeginTableAsync(item.Value / header.TableEntries).ConfigureAwait(false);
            uint sector = VmdkFooter.Sector(item.Start, file.Name);
            LittleEndian.U32(_table, (int)(item.Value % header.TableEntries) * sizeof(uint), sector);
            _isPlaced = false;
        }
        else if (!_isPlaced && _tableIndex >= 0)
        {
            byte[] there = new byte[_table.Length];
            await file.ReadAsync(item.Start + VmdkHeader.SectorSize, there, cancellationToken).ConfigureAwait(false);
            _isPlaced = there.AsSpan().SequenceEqual(_table);
            if (_isPlaced)
            {
                Direct(item.Start + VmdkHeader.SectorSize);
            }
        }
    }

    /// <summary>Writes the table in hand, if it is not in the file, and takes another.</summary>
    private async ValueTask BeginTableAsync(long index)
    {
        if (index == _tableIndex)
        {
            return;
        }
        if (_tableIndex >= 0 && !_isPlaced)
        {
            byte[] table = new byte[Round.Up(_table.Length, VmdkHeader.SectorSize)];
            _table.CopyTo(table, 0);
            await PutAsync(VmdkFooter.Marker(table.Length / VmdkHeader.SectorSize, VmdkFooter.GrainTable)).ConfigureAwait(false);
            Direct(_position);
            await PutAsync(table).ConfigureAwait(false);
        }
        Array.Clear(_table);
        (_tableIndex, _isPlaced) = (index, false);
    }

    private void Direct(long place) => LittleEndian.U32(_directory, (int)_tableIndex * sizeof(uint), VmdkFooter.Sector(place, file.Name));

    private async ValueTask PutAsync(ReadOnlyMemory<byte> bytes)
    {
        await file.WriteAsync(_position, bytes).ConfigureAwait(false);
        _position += bytes.Length;
    }

    /// <summary>Grains and tables in the order of the file.</summary>
    private async IAsyncEnumerable<Item> ItemsAsync(
        [System.Runtime.CompilerServices.EnumeratorCancellation] CancellationToken cancellationToken)
    {
        byte[] sector = new byte[VmdkHeader.SectorSize];
        long last = -1;
        bool isDoubtful = false; // something else came before: what looks like a marker may be part of a grain
        for (long at = header.Overhead * VmdkHeader.SectorSize; at + VmdkHeader.SectorSize <= file.Length;)
        {
            cancellationToken.ThrowIfCancellationRequested();
            BlockExtent extent = await file.GetExtentAsync(at, file.Length - at, cancellationToken).ConfigureAwait(false);
            if (extent.IsZero && extent.Length >= VmdkHeader.SectorSize)
            {
                at += Round.Down(extent.Length, VmdkHeader.SectorSize);
                isDoubtful = true;
                continue;
            }
            await file.ReadAsync(at, sector, cancellationToken).ConfigureAwait(false);
            Item? item = ItemAt(sector, at, last);
            if (item is { } found && found.End <= file.Length
                && (!isDoubtful || await IsSureAsync(found, cancellationToken).ConfigureAwait(false)))
            {
                isDoubtful = false;
                last = found.Kind == ItemKind.Grain ? found.Value : last;
                at = found.End;
                yield return found;
                continue;
            }
            isDoubtful = true;
            at += VmdkHeader.SectorSize;
        }
    }

    /// <summary>What a marker says that comes next.</summary>
    private Item? ItemAt(byte[] sector, long at, long last)
    {
        ulong value = LittleEndian.U64(sector, 0);
        uint size = LittleEndian.U32(sector, 8);
        if (size == 0)
        {
            long sectors = Round.Units(_table.Length, VmdkHeader.SectorSize);
            return LittleEndian.U32(sector, 12) == VmdkFooter.GrainTable && value == (ulong)sectors
                ? new(ItemKind.Table, 0, at, at + VmdkHeader.SectorSize + ((long)value * VmdkHeader.SectorSize)) : null;
        }
        return value < (ulong)header.Capacity && value % (ulong)header.GrainSectors == 0 && (long)value / header.GrainSectors > last
            && size <= header.GrainBytes * 2L
            ? new(ItemKind.Grain, (long)value / header.GrainSectors, at,
                at + Round.Up(VmdkSparseExtent.MarkerBytes + (long)size, VmdkHeader.SectorSize))
            : null;
    }

    /// <summary>True for a grain that decodes.</summary>
    private async ValueTask<bool> IsSureAsync(Item item, CancellationToken cancellationToken)
    {
        if (item.Kind != ItemKind.Grain)
        {
            return false;
        }
        int length = (int)(item.End - item.Start);
        byte[] stored = ArrayPool<byte>.Shared.Rent(length), whole = ArrayPool<byte>.Shared.Rent(header.GrainBytes);
        try
        {
            await file.ReadAsync(item.Start, stored.AsMemory(0, length), cancellationToken).ConfigureAwait(false);
            int said = (int)LittleEndian.U32(stored, 8);
            int rest = (int)Math.Min(header.GrainBytes, header.Length - (item.Value * header.GrainBytes));
            ReadOnlyMemory<byte> packed = stored.AsMemory(VmdkSparseExtent.MarkerBytes, said);
            return ZlibCodec.Instance.TryDecompress(packed.Span, whole.AsSpan(0, header.GrainBytes))
                || (rest < header.GrainBytes && ZlibCodec.Instance.TryDecompress(packed.Span, whole.AsSpan(0, rest)));
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(stored);
            ArrayPool<byte>.Shared.Return(whole);
        }
    }

    private enum ItemKind
    {
        Grain,
        Table,
    }

    /// <summary>What lies in the file.</summary>
    /// <param name="Kind">The kind.</param>
    /// <param name="Value">The number of a grain.</param>
    /// <param name="Start">Where its marker is.</param>
    /// <param name="End">Where it ends, in whole sectors.</param>
    private readonly record struct Item(ItemKind Kind, long Value, long Start, long End);
}
