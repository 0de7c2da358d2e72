namespace DiskImage.Binary;

/// <summary>
/// The checksum of zip, Ethernet, GPT and Apple's disk images: polynomial 0x04C11DB7, lowest bit first. Eight bytes a step.
/// </summary>
internal static class Crc32
{
    private const uint Polynomial = 0xEDB8_8320;

    private static readonly uint[] s_tables = Tables();

    /// <summary>The checksum of a run of bytes.</summary>
    public static uint Of(ReadOnlySpan<byte> bytes) => Append(0, bytes);

    /// <summary>The checksum of more bytes, given that of those before; 0 to begin with.</summary>
    public static uint Append(uint crc, ReadOnlySpan<byte> bytes)
    {
        uint[] t = s_tables;
        crc = ~crc;
        for (; bytes.Length >= 8; bytes = bytes[8..])
        {
            uint a = LittleEndian.U32(bytes, 0) ^ crc, b = LittleEndian.U32(bytes, 4);
            crc = t[1792 + (a & 0xFF)] ^ t[1536 + ((a >> 8) & 0xFF)] ^ t[1280 + ((a >> 16) & 0xFF)] ^ t[1024 + (a >> 24)]
                ^ t[768 + (b & 0xFF)] ^ t[512 + ((b >> 8) & 0xFF)] ^ t[256 + ((b >> 16) & 0xFF)] ^ t[b >> 24];
        }
        foreach (byte value in bytes)
        {
            crc = (crc >> 8) ^ t[(crc ^ value) & 0xFF];
        }
        return ~crc;
    }

    /// <summary>The same for a number of zeroes, in a time that does not follow their number.</summary>
    public static uint AppendZeroes(uint crc, long count)
    {
        uint power = 1u << 31, square = 1u << 23; // x to the 0, and to the 8: a byte
        for (; count > 0; count >>= 1)
        {
            power = (count & 1) != 0 ? Multiply(square, power) : power;
            square = Multiply(square, square);
        }
        return ~Multiply(power, ~crc);
    }

    /// <summary>The product of two polynomials, modulo that of the checksum; the highest bit is x to the 0.</summary>
    private static uint Multiply(uint a, uint b)
    {
        uint product = 0;
        for (uint bit = 1u << 31; bit != 0; bit >>= 1)
        {
            product ^= (a & bit) != 0 ? b : 0;
            b = (b >> 1) ^ ((b & 1) != 0 ? Polynomial : 0);
        }
        return product;
    }

    private static uint[] Tables()
    {
        uint[] tables = new uint[8 * 256];
        for (uint i = 0; i < 256; i++)
        {
            uint crc = i;
            for (int bit = 0; bit < 8; bit++)
            {
                crc = (crc >> 1) ^ ((crc & 1) != 0 ? Polynomial : 0);
            }
            tables[i] = crc;
        }
        for (int i = 256; i < tables.Length; i++)
        {
            tables[i] = (tables[i - 256] >> 8) ^ tables[tables[i - 256] & 0xFF];
        }
        return tables;
    }
}
