using System.Buffers.Binary;

namespace DiskImage.Compression.Zstd;

/// <summary>
/// What stands before the blocks of a frame (RFC 8878, section 3.1.1.1). <see cref="Size"/> counts its bytes, the magic number
/// included; <see cref="ContentSize"/> is null where the frame does not say.
/// </summary>
internal readonly record struct FrameHeader(int Size, ulong WindowSize, ulong? ContentSize, bool HasChecksum, uint DictionaryId)
{
    /// <summary>The first four bytes of a frame.</summary>
    public const uint Magic = 0xFD2FB528;

    /// <summary>The most bytes that a block of any frame takes and gives.</summary>
    public const int LargestBlock = 128 << 10;

    private const uint SkippableMagic = 0x184D2A50; // and the fifteen numbers after it
    private const int LargestWindowLog = 31; // the zstd library's limit (QEMU's is 27); the RFC leaves it to the decoder

    /// <summary>The most bytes that a block of the frame takes, and the most that it gives (section 3.1.1.2.4).</summary>
    public int MaxBlockSize => (int)Math.Min(WindowSize, LargestBlock);

    /// <summary>Reads the header of a Zstandard frame. False if it is none, is cut off, has the reserved bit set or
    /// asks for a window over 3.75 GiB.</summary>
    public static bool TryRead(ReadOnlySpan<byte> input, out FrameHeader header)
    {
        header = default;
        if (input.Length < 5 || BinaryPrimitives.ReadUInt32LittleEndian(input) != Magic)
        {
            return false;
        }
        int descriptor = input[4];
        bool singleSegment = (descriptor & 0x20) != 0;
        int dictionaryBytes = (descriptor & 3) == 3 ? 4 : descriptor & 3;
        int sizeBytes = (descriptor >> 6) switch
        {
            0 => singleSegment ? 1 : 0,
            1 => 2,
            2 => 4,
            _ => 8,
        };
        int size = 5 + (singleSegment ? 0 : 1) + dictionaryBytes + sizeBytes;
        if ((descriptor & 0x08) != 0 || input.Length < size)
        {
            return false;
        }
        int at = 5;
        ulong window = 0;
        if (!singleSegment)
        {
            int log = 10 + (input[at] >> 3);
            if (log > LargestWindowLog)
            {
                return false;
            }
            ulong windowBase = 1UL << log;
            window = windowBase + (windowBase / 8 * (ulong)(input[at] & 7));
            at++;
        }
        uint dictionary = (uint)ReadNumber(input.Slice(at, dictionaryBytes));
        at += dictionaryBytes;
        ulong? content = null;
        if (sizeBytes != 0)
        {
            content = ReadNumber(input.Slice(at, sizeBytes)) + (sizeBytes == 2 ? 256u : 0);
        }
        header = new(size, singleSegment ? content!.Value : window, content, (descriptor & 4) != 0, dictionary);
        return true;
    }

    /// <summary>Passes over the skippable frames at the start (section 3.1.2). False if one is cut off.</summary>
    public static bool TrySkip(ref ReadOnlySpan<byte> input)
    {
        while (input.Length >= 4 && (BinaryPrimitives.ReadUInt32LittleEndian(input) & ~15u) == SkippableMagic)
        {
            if (input.Length < 8 || BinaryPrimitives.ReadUInt32LittleEndian(input[4..]) > (uint)(input.Length - 8))
            {
                return false;
            }
            input = input[(8 + (int)BinaryPrimitives.ReadUInt32LittleEndian(input[4..]))..];
        }
        return true;
    }

    private static ulong ReadNumber(ReadOnlySpan<byte> bytes)
    {
        ulong value = 0;
        for (int i = bytes.Length - 1; i >= 0; i--)
        {
            value = (value << 8) | bytes[i];
        }
        return value;
    }
}
