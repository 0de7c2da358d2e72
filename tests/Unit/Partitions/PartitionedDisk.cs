using System.Buffers.Binary;
using System.Text;
using DiskImage.Block;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Partitions;

/// <summary>Disks with partition tables, written by the specification without the code under test.</summary>
internal static class PartitionedDisk
{
    public static readonly Guid LinuxData = new("0FC63DAF-8483-4772-8E79-3D69D8477DE4");

    private const int EntryBytes = 128;

    /// <summary>Writes an MBR, or a sector of the chain of logical partitions.</summary>
    public static void Mbr(Span<byte> sector, params (byte Type, uint Start, uint Count)[] entries)
    {
        for (int i = 0; i < entries.Length; i++)
        {
            Span<byte> entry = sector.Slice(446 + (i * 16), 16);
            entry[4] = entries[i].Type;
            BinaryPrimitives.WriteUInt32LittleEndian(entry[8..], entries[i].Start);
            BinaryPrimitives.WriteUInt32LittleEndian(entry[12..], entries[i].Count);
        }
        (sector[510], sector[511]) = (0x55, 0xAA);
    }

    /// <summary>A disk with a GPT, its copy and the MBR that protects it.</summary>
    public static byte[] Gpt(int length, int sector, int count, params (ulong First, ulong Last)[] partitions)
    {
        byte[] disk = new byte[length];
        ulong sectors = (ulong)(length / sector);
        Mbr(disk, (0xEE, 1, (uint)(sectors - 1)));
        byte[] entries = new byte[count * EntryBytes];
        for (int i = 0; i < partitions.Length; i++)
        {
            Span<byte> entry = entries.AsSpan(i * EntryBytes, EntryBytes);
            _ = LinuxData.TryWriteBytes(entry);
            entry[16] = (byte)(i + 1); // its own identity
            BinaryPrimitives.WriteUInt64LittleEndian(entry[32..], partitions[i].First);
            BinaryPrimitives.WriteUInt64LittleEndian(entry[40..], partitions[i].Last);
            _ = Encoding.Unicode.GetBytes("data", entry[56..]);
        }
        ulong entrySectors = (ulong)((entries.Length + sector - 1) / sector);
        entries.CopyTo(disk, 2 * sector);
        entries.CopyTo(disk, (int)(sectors - 1 - entrySectors) * sector);
        Header(disk.AsSpan(sector, sector), 1, sectors - 1, 2);
        Header(disk.AsSpan((int)(sectors - 1) * sector, sector), sectors - 1, 1, sectors - 1 - entrySectors);
        return disk;

        void Header(Span<byte> header, ulong mine, ulong other, ulong entriesAt)
        {
            "EFI PART"u8.CopyTo(header);
            BinaryPrimitives.WriteUInt32LittleEndian(header[8..], 0x0001_0000);
            BinaryPrimitives.WriteUInt32LittleEndian(header[12..], 92);
            BinaryPrimitives.WriteUInt64LittleEndian(header[24..], mine);
            BinaryPrimitives.WriteUInt64LittleEndian(header[32..], other);
            BinaryPrimitives.WriteUInt64LittleEndian(header[40..], 2 + entrySectors);
            BinaryPrimitives.WriteUInt64LittleEndian(header[48..], sectors - 2 - entrySectors);
            BinaryPrimitives.WriteUInt64LittleEndian(header[72..], entriesAt);
            BinaryPrimitives.WriteUInt32LittleEndian(header[80..], (uint)count);
            BinaryPrimitives.WriteUInt32LittleEndian(header[84..], EntryBytes);
            BinaryPrimitives.WriteUInt32LittleEndian(header[88..], Crc(entries));
            Seal(header);
        }
    }

    /// <summary>Makes a changed header's checksum right.</summary>
    public static void Seal(Span<byte> header)
    {
        header.Slice(16, 4).Clear();
        BinaryPrimitives.WriteUInt32LittleEndian(header[16..], Crc(header[..(int)BinaryPrimitives.ReadUInt32LittleEndian(header[12..])]));
    }

    public static BlockNode Node(byte[] disk, bool isReadOnly = true) => new MemoryNode(disk, isReadOnly);

    /// <summary>CRC-32 by its definition, a bit at a time.</summary>
    public static uint Crc(ReadOnlySpan<byte> bytes)
    {
        uint crc = 0xFFFF_FFFF;
        foreach (byte one in bytes)
        {
            crc ^= one;
            for (int bit = 0; bit < 8; bit++)
            {
                crc = (crc >> 1) ^ ((crc & 1) * 0xEDB8_8320);
            }
        }
        return ~crc;
    }
}
