using System.Buffers.Binary;

namespace DiskImage.Protocols.Iscsi;

/// <summary>The commands, as bytes. Spec: SPC-4, SBC-3, MMC-6.</summary>
internal static class ScsiCommands
{
    /// <summary>Pages of vital product data. Spec: SPC-4 and SBC-3.</summary>
    public const byte SerialPage = 0x80, IdentificationPage = 0x83, LimitsPage = 0xB0, ProvisioningPage = 0xB2;

    private const byte Fua = 0x08, UnmapBit = 0x08;

    /// <summary>TEST UNIT READY.</summary>
    public static byte[] TestUnitReady() => new byte[6];

    /// <summary>INQUIRY: what the unit is.</summary>
    public static byte[] Inquiry(int length) => [0x12, 0, 0, (byte)(length >> 8), (byte)length, 0];

    /// <summary>INQUIRY of a page.</summary>
    public static byte[] InquiryOf(byte page, int length) => [0x12, 1, page, (byte)(length >> 8), (byte)length, 0];

    /// <summary>MODE SENSE(6) of all pages, without block descriptors.</summary>
    public static byte[] ModeSense(byte length) => [0x1A, 0x08, 0x3F, 0, length, 0];

    /// <summary>REPORT LUNS.</summary>
    public static byte[] ReportLuns(int length)
    {
        byte[] cdb = new byte[12];
        cdb[0] = 0xA0;
        BinaryPrimitives.WriteInt32BigEndian(cdb.AsSpan(6), length);
        return cdb;
    }

    /// <summary>READ CAPACITY(10).</summary>
    public static byte[] ReadCapacity10()
    {
        byte[] cdb = new byte[10];
        cdb[0] = 0x25;
        return cdb;
    }

    /// <summary>READ CAPACITY(16).</summary>
    public static byte[] ReadCapacity16(int length)
    {
        byte[] cdb = new byte[16];
        (cdb[0], cdb[1]) = (0x9E, 0x10);
        BinaryPrimitives.WriteInt32BigEndian(cdb.AsSpan(10), length);
        return cdb;
    }

    /// <summary>GET LBA STATUS.</summary>
    public static byte[] GetLbaStatus(long block, int length)
    {
        byte[] cdb = new byte[16];
        (cdb[0], cdb[1]) = (0x9E, 0x12);
        BinaryPrimitives.WriteInt64BigEndian(cdb.AsSpan(2), block);
        BinaryPrimitives.WriteInt32BigEndian(cdb.AsSpan(10), length);
        return cdb;
    }

    /// <summary>READ(16), or READ(10).</summary>
    public static byte[] Read(bool isLong, long block, int count) => Transfer(isLong ? (byte)0x88 : (byte)0x28, 0, block, count);

    /// <summary>WRITE(16), or WRITE(10).</summary>
    /// <param name="isLong">16 bytes.</param>
    /// <param name="block">Where it begins.</param>
    /// <param name="count">Blocks.</param>
    /// <param name="fua">It is on the medium when it is answered.</param>
    public static byte[] Write(bool isLong, long block, int count, bool fua)
        => Transfer(isLong ? (byte)0x8A : (byte)0x2A, fua ? Fua : (byte)0, block, count);

    /// <summary>WRITE SAME(16): one block, many times.</summary>
    /// <param name="block">Where it begins.</param>
    /// <param name="count">Blocks.</param>
    /// <param name="unmap">Space may be given back.</param>
    public static byte[] WriteSame(long block, long count, bool unmap) => Transfer(0x93, unmap ? UnmapBit : (byte)0, block, count);

    /// <summary>SYNCHRONIZE CACHE(10) of everything.</summary>
    public static byte[] SynchronizeCache()
    {
        byte[] cdb = new byte[10];
        cdb[0] = 0x35;
        return cdb;
    }

    /// <summary>UNMAP.</summary>
    /// <param name="length">Bytes of <see cref="UnmapList"/>.</param>
    public static byte[] Unmap(int length)
    {
        byte[] cdb = new byte[10];
        cdb[0] = 0x42;
        BinaryPrimitives.WriteUInt16BigEndian(cdb.AsSpan(7), (ushort)length);
        return cdb;
    }

    /// <summary>What UNMAP takes: one run of blocks.</summary>
    public static byte[] UnmapList(long block, uint count)
    {
        byte[] list = new byte[24];
        BinaryPrimitives.WriteUInt16BigEndian(list, 22);
        BinaryPrimitives.WriteUInt16BigEndian(list.AsSpan(2), 16);
        BinaryPrimitives.WriteInt64BigEndian(list.AsSpan(8), block);
        BinaryPrimitives.WriteUInt32BigEndian(list.AsSpan(16), count);
        return list;
    }

    private static byte[] Transfer(byte code, byte flags, long block, long count)
    {
        byte[] cdb = new byte[code < 0x80 ? 10 : 16];
        (cdb[0], cdb[1]) = (code, flags);
        if (code < 0x80)
        {
            BinaryPrimitives.WriteUInt32BigEndian(cdb.AsSpan(2), checked((uint)block));
            BinaryPrimitives.WriteUInt16BigEndian(cdb.AsSpan(7), checked((ushort)count));
        }
        else
        {
            BinaryPrimitives.WriteInt64BigEndian(cdb.AsSpan(2), block);
            BinaryPrimitives.WriteUInt32BigEndian(cdb.AsSpan(10), checked((uint)count));
        }
        return cdb;
    }
}
