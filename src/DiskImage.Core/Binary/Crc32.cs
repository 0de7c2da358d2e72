namespace DiskImage.Binary;

/// <summary>CRC-32 as Ethernet and GPT have it (polynomial 0x04C11DB7, reflected). Spec: UEFI 5.3.2, ISO 3309.</summary>
internal static class Crc32
{
    private const uint Reflected = 0xEDB8_8320;

    private static readonly uint[] s_table = Table();

    /// <summary>The checksum of a run of bytes.</summary>
    public static uint Of(ReadOnlySpan<byte> bytes)
    {
        uint state = uint.MaxValue;
        foreach (byte one in bytes)
        {
            state = s_table[(byte)(state ^ one)] ^ (state >> 8);
        }
        return ~state;
    }

    private static uint[] Table()
    {
        uint[] table = new uint[256];
        for (uint i = 0; i < table.Length; i++)
        {
            uint value = i;
            for (int bit = 0; bit < 8; bit++)
            {
                value = (value & 1) != 0 ? (value >> 1) ^ Reflected : value >> 1;
            }
            table[i] = value;
        }
        return table;
    }
}
