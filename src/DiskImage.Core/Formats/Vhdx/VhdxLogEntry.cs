using System.Numerics;
using DiskImage.Binary;

namespace DiskImage.Formats.Vhdx;

/// <summary>One change that a log entry makes: 4 KiB of data, or a run of zeroes. Spec: MS-VHDX 2.3.1.2, 2.3.1.3.</summary>
/// <param name="FileOffset">Where it goes, a multiple of 4 KiB.</param>
/// <param name="Length">Bytes, a multiple of 4 KiB; one sector if it is data.</param>
/// <param name="Data">The sector; empty for zeroes.</param>
internal readonly record struct VhdxLogUpdate(long FileOffset, long Length, ReadOnlyMemory<byte> Data)
{
    public static VhdxLogUpdate Sector(long fileOffset, ReadOnlyMemory<byte> data) => new(fileOffset, VhdxLayout.Sector, data);

    public static VhdxLogUpdate Zeroes(long fileOffset, long length) => new(fileOffset, length, default);

    public bool IsZero => Data.IsEmpty;
}

/// <summary>The header of a log entry. Spec: MS-VHDX 2.3.1.1.</summary>
internal readonly record struct VhdxLogEntryHeader(
    uint EntryLength, uint Tail, ulong SequenceNumber, uint DescriptorCount, Guid LogGuid, ulong FlushedFileOffset, ulong LastFileOffset);

/// <summary>A log entry as bytes: descriptor sectors, then a data sector for each data descriptor. Spec: MS-VHDX 2.3.1.</summary>
internal static class VhdxLogEntry
{
    public const uint Signature = 0x65676F6C, ZeroSignature = 0x6F72657A, DescriptorSignature = 0x63736564, DataSignature = 0x61746164;
    public const int HeaderBytes = 64, DescriptorBytes = 32;
    private const int ChecksumAt = 4, LengthAt = 8, TailAt = 12, SequenceAt = 16, CountAt = 24, GuidAt = 32, FlushedAt = 48, LastAt = 56;
    private const int LeadingBytes = 8, TrailingBytes = 4;

    /// <summary>Sectors that the header and a number of descriptors take.</summary>
    public static long DescriptorSectors(long descriptors) => Round.Units(HeaderBytes + (descriptors * DescriptorBytes), VhdxLayout.Sector);

    /// <summary>Updates that fit into an entry of a length, if all are data.</summary>
    public static int MostUpdates(long entryLength)
    {
        long sectors = entryLength / VhdxLayout.Sector, count = sectors - 1;
        while (count > 0 && DescriptorSectors(count) + count > sectors)
        {
            count--;
        }
        return (int)count;
    }

    /// <summary>Reads the header fields that can be looked at before the rest is read; false if this is no entry of the log.</summary>
    public static bool TryReadHeader(ReadOnlySpan<byte> sector, Guid logGuid, long logLength, out VhdxLogEntryHeader header)
    {
        header = default;
        if (LittleEndian.U32(sector, 0) != Signature)
        {
            return false;
        }
        header = new(
            LittleEndian.U32(sector, LengthAt),
            LittleEndian.U32(sector, TailAt),
            LittleEndian.U64(sector, SequenceAt),
            LittleEndian.U32(sector, CountAt),
            LittleEndian.Guid(sector, GuidAt), LittleEndian.U64(sector, FlushedAt), LittleEndian.U64(sector, LastAt));
        return header.LogGuid == logGuid && header.SequenceNumber > 0
            && header.EntryLength > 0 && header.EntryLength % VhdxLayout.Sector == 0 && header.EntryLength <= logLength
            && header.Tail % VhdxLayout.Sector == 0 && header.Tail < logLength
            && DescriptorSectors(header.DescriptorCount) * VhdxLayout.Sector <= header.EntryLength;
    }

    /// <summary>True if a descriptor of an entry is right; tells what it says.</summary>
    /// <param name="descriptor">Its 32 bytes.</param>
    /// <param name="sequence">The entry's sequence number.</param>
    /// <param name="fileOffset">Where it writes.</param>
    /// <param name="length">How much.</param>
    /// <param name="isZero">True for zeroes, false for a data sector.</param>
    public static bool TryReadDescriptor(
        ReadOnlySpan<byte> descriptor, ulong sequence, out long fileOffset, out long length, out bool isZero)
    {
        uint signature = LittleEndian.U32(descriptor, 0);
        isZero = signature == ZeroSignature;
        ulong at = LittleEndian.U64(descriptor, 16), bytes = isZero ? LittleEndian.U64(descriptor, 8) : VhdxLayout.Sector;
        (fileOffset, length) = ((long)at, (long)bytes);
        return (isZero || signature == DescriptorSignature) && LittleEndian.U64(descriptor, 24) == sequence
            && at % VhdxLayout.Sector == 0 && bytes % VhdxLayout.Sector == 0 && at <= (ulong)VhdxLayout.MaxFileSize
            && bytes <= (ulong)VhdxLayout.MaxFileSize - at;
    }

    /// <summary>True if a data sector belongs to an entry.</summary>
    public static bool IsDataSector(ReadOnlySpan<byte> sector, ulong sequence)
        => LittleEndian.U32(sector, 0) == DataSignature && LittleEndian.U32(sector, 4) == (uint)(sequence >> 32)
            && LittleEndian.U32(sector, VhdxLayout.Sector - TrailingBytes) == (uint)sequence;

    /// <summary>Puts back the bytes that the signature and sequence number of a data sector took the place of.</summary>
    public static void Restore(Span<byte> sector, ReadOnlySpan<byte> descriptor)
    {
        descriptor.Slice(8, LeadingBytes).CopyTo(sector);
        descriptor.Slice(4, TrailingBytes).CopyTo(sector[^TrailingBytes..]);
    }

    /// <summary>Bytes of an entry of these updates.</summary>
    public static int LengthOf(IReadOnlyList<VhdxLogUpdate> updates)
        => (int)((DescriptorSectors(updates.Count) + updates.Count(u => !u.IsZero)) * VhdxLayout.Sector);

    /// <summary>Writes an entry; <paramref name="header"/> has its length and count.</summary>
    public static void Build(Span<byte> entry, in VhdxLogEntryHeader header, IReadOnlyList<VhdxLogUpdate> updates)
    {
        int dataAt = (int)DescriptorSectors(updates.Count) * VhdxLayout.Sector;
        entry[..dataAt].Clear();
        LittleEndian.U32(entry, 0, Signature);
        LittleEndian.U32(entry, LengthAt, header.EntryLength);
        LittleEndian.U32(entry, TailAt, header.Tail);
        LittleEndian.U64(entry, SequenceAt, header.SequenceNumber);
        LittleEndian.U32(entry, CountAt, header.DescriptorCount);
        LittleEndian.Guid(entry, GuidAt, header.LogGuid);
        LittleEndian.U64(entry, FlushedAt, header.FlushedFileOffset);
        LittleEndian.U64(entry, LastAt, header.LastFileOffset);
        for (int i = 0; i < updates.Count; i++)
        {
            VhdxLogUpdate update = updates[i];
            Span<byte> descriptor = entry.Slice(HeaderBytes + (i * DescriptorBytes), DescriptorBytes);
            LittleEndian.U32(descriptor, 0, update.IsZero ? ZeroSignature : DescriptorSignature);
            LittleEndian.U64(descriptor, 16, (ulong)update.FileOffset);
            LittleEndian.U64(descriptor, 24, header.SequenceNumber);
            if (update.IsZero)
            {
                LittleEndian.U64(descriptor, 8, (ulong)update.Length);
                continue;
            }
            ReadOnlySpan<byte> data = update.Data.Span;
            data[..LeadingBytes].CopyTo(descriptor[8..]);
            data[^TrailingBytes..].CopyTo(descriptor[4..]);
            Span<byte> sector = entry.Slice(dataAt, VhdxLayout.Sector);
            data.CopyTo(sector);
            LittleEndian.U32(sector, 0, DataSignature);
            LittleEndian.U32(sector, 4, (uint)(header.SequenceNumber >> 32));
            LittleEndian.U32(sector, VhdxLayout.Sector - TrailingBytes, (uint)header.SequenceNumber);
            dataAt += VhdxLayout.Sector;
        }
        LittleEndian.U32(entry, ChecksumAt, Crc32C.OfAllBut(entry, ChecksumAt));
    }

    /// <summary>The checksum that an entry states.</summary>
    public static uint Checksum(ReadOnlySpan<byte> sector) => LittleEndian.U32(sector, ChecksumAt);

    /// <summary>Carries a checksum over an entry's first sector, whose checksum field counts as zero.</summary>
    public static uint AddFirst(uint state, ReadOnlySpan<byte> sector)
    {
        state = Crc32C.Add(state, sector[..ChecksumAt]);
        state = BitOperations.Crc32C(state, 0u);
        return Crc32C.Add(state, sector[(ChecksumAt + sizeof(uint))..]);
    }
}
