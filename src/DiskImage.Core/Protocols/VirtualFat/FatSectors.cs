using System.Text;
using DiskImage.Binary;

namespace DiskImage.Protocols.VirtualFat;

/// <summary>The sectors that describe the disk and the volume. Spec: fatgen103, 3 and 5; for the first one UEFI 5.2.1.</summary>
internal static class FatSectors
{
    private const int Sector = FatGeometry.Sector, CodeAt = 62, CodeAt32 = 90, SignatureAt = 510;
    private const int InfoSector = 1, BackupSector = 6, BootSectors = 3;
    private const int PartitionAt = 446, DiskSignatureAt = 440;
    private const uint LastCluster28 = 0x0FFF_FFFF;

    // int 18h, which has the firmware try the next disk; then hlt, without end
    private static readonly byte[] s_code = [0xCD, 0x18, 0xF4, 0xEB, 0xFD];

    /// <summary>A disk's first sector, with one partition.</summary>
    public static byte[] PartitionTable(FatGeometry geometry, uint serial)
    {
        byte[] bytes = new byte[Sector];
        s_code.CopyTo(bytes, 0);
        LittleEndian.U32(bytes, DiskSignatureAt, serial);
        Span<byte> entry = bytes.AsSpan(PartitionAt, 16);
        entry[0] = 0x80;
        Place(geometry, geometry.Start).CopyTo(entry[1..]);
        entry[4] = geometry.Type switch
        {
            FatType.Fat12 => 0x01,
            FatType.Fat16 => geometry.Sectors < 65536 ? (byte)0x04 : (byte)0x0E,
            _ => 0x0C,
        };
        Place(geometry, geometry.Start + geometry.Sectors - 1).CopyTo(entry[5..]);
        LittleEndian.U32(entry, 8, (uint)geometry.Start);
        LittleEndian.U32(entry, 12, (uint)geometry.Sectors);
        Sign(bytes);
        return bytes;
    }

    /// <summary>All sectors before the tables.</summary>
    /// <param name="geometry">The volume.</param>
    /// <param name="label">Its label, padded.</param>
    /// <param name="serial">Its number.</param>
    /// <param name="used">Clusters that are taken, from the first one on.</param>
    public static byte[] Reserved(FatGeometry geometry, string label, uint serial, long used)
    {
        byte[] bytes = new byte[geometry.Reserved * Sector];
        Boot(bytes, geometry, label, serial);
        if (geometry.Type == FatType.Fat32)
        {
            Information(bytes.AsSpan(InfoSector * Sector, Sector), geometry, used);
            Sign(bytes.AsSpan(2 * Sector, Sector));
            bytes.AsSpan(0, BootSectors * Sector).CopyTo(bytes.AsSpan(BackupSector * Sector));
        }
        return bytes;
    }

    private static void Boot(Span<byte> bytes, FatGeometry geometry, string label, uint serial)
    {
        bool is32 = geometry.Type == FatType.Fat32;
        int code = is32 ? CodeAt32 : CodeAt;
        bytes[0] = 0xEB;
        bytes[1] = (byte)(code - 2);
        bytes[2] = 0x90;
        _ = Encoding.ASCII.GetBytes("MSWIN4.1", bytes[3..]); // some systems look at it; fatgen103 advises this one
        LittleEndian.U16(bytes, 11, Sector);
        bytes[13] = (byte)geometry.SectorsPerCluster;
        LittleEndian.U16(bytes, 14, (ushort)geometry.Reserved);
        bytes[16] = FatGeometry.Tables;
        LittleEndian.U16(bytes, 17, (ushort)geometry.RootEntries);
        bool isSmall = geometry.Sectors < 65536 && !is32;
        LittleEndian.U16(bytes, 19, isSmall ? (ushort)geometry.Sectors : (ushort)0);
        bytes[21] = geometry.Media;
        LittleEndian.U16(bytes, 22, is32 ? (ushort)0 : (ushort)geometry.TableSectors);
        LittleEndian.U16(bytes, 24, (ushort)geometry.SectorsPerTrack);
        LittleEndian.U16(bytes, 26, (ushort)geometry.Heads);
        LittleEndian.U32(bytes, 28, (uint)geometry.Start);
        LittleEndian.U32(bytes, 32, isSmall ? 0 : (uint)geometry.Sectors);
        if (is32)
        {
            LittleEndian.U32(bytes, 36, (uint)geometry.TableSectors);
            LittleEndian.U32(bytes, 44, FatGeometry.FirstCluster); // of the top folder
            LittleEndian.U16(bytes, 48, InfoSector);
            LittleEndian.U16(bytes, 50, BackupSector);
        }
        Span<byte> tail = bytes[(code - 26)..];
        tail[0] = geometry.Start == 0 ? (byte)0 : (byte)0x80;
        tail[2] = 0x29; // what follows is there
        LittleEndian.U32(tail, 3, serial);
        _ = Encoding.ASCII.GetBytes(label, tail[7..]);
        _ = Encoding.ASCII.GetBytes($"FAT{(int)geometry.Type}   ", tail[18..]);
        s_code.CopyTo(bytes[code..]);
        Sign(bytes);
    }

    private static void Information(Span<byte> bytes, FatGeometry geometry, long used)
    {
        LittleEndian.U32(bytes, 0, 0x4161_5252);
        LittleEndian.U32(bytes, 484, 0x6141_7272);
        LittleEndian.U32(bytes, 488, (uint)(geometry.Clusters - used));
        LittleEndian.U32(bytes, 492, Math.Min(FatGeometry.FirstCluster + (uint)used, LastCluster28));
        Sign(bytes);
    }

    private static void Sign(Span<byte> sector)
    {
        sector[SignatureAt] = 0x55;
        sector[SignatureAt + 1] = 0xAA;
    }

    /// <summary>Head, sector and cylinder of a sector; the last there is for those beyond.</summary>
    private static byte[] Place(FatGeometry geometry, long sector)
    {
        long track = sector / geometry.SectorsPerTrack, cylinder = track / geometry.Heads;
        return cylinder > 1023
            ? [0xFE, 0xFF, 0xFF]
            :
            [
                (byte)(track % geometry.Heads),
                (byte)((sector % geometry.SectorsPerTrack) + 1 + ((cylinder >> 8) << 6)),
                (byte)cylinder,
            ];
    }
}
