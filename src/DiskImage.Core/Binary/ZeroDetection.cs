namespace DiskImage.Binary;

/// <summary>Tells zeroes from data. The scans are vectorised by the runtime.</summary>
internal static class ZeroDetection
{
    /// <summary>True if every byte is zero.</summary>
    public static bool IsZero(ReadOnlySpan<byte> bytes) => !bytes.ContainsAnyExcept((byte)0);

    /// <summary>
    /// The length of the first run of blocks that are alike: all zero, or all with data. Blocks are <paramref name="block"/>
    /// bytes; the last may be short.
    /// </summary>
    public static int Run(ReadOnlySpan<byte> bytes, int block, out bool isZero)
    {
        int length = Math.Min(block, bytes.Length);
        isZero = IsZero(bytes[..length]);
        if (isZero)
        {
            int data = bytes[length..].IndexOfAnyExcept((byte)0);
            return data < 0 ? bytes.Length : length + (data / block * block);
        }
        while (length < bytes.Length)
        {
            ReadOnlySpan<byte> next = bytes.Slice(length, Math.Min(block, bytes.Length - length));
            if (IsZero(next))
            {
                break;
            }
            length += next.Length;
        }
        return length;
    }
}
