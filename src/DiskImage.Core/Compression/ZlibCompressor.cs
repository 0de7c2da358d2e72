using System.Buffers.Binary;
using System.IO.Compression;

namespace DiskImage.Compression;

/// <summary>
/// Writes zlib streams (RFC 1950), of one block of memory each: by the zlib inside the .NET runtime where that can be called, else by the
/// runtime's public streams; what does not get smaller as stored blocks.
/// </summary>
/// <param name="zlib">The zlib; null for the public streams.</param>
internal sealed class ZlibCompressor(RuntimeZlib? zlib) : IBlockCompressor
{
    private const int Level = 2; // of zlib-ng: half the time of its default 6, and some percent more bytes. Ours
    private const int HeaderBytes = 2, ChecksumBytes = 4, StoredHeader = 5, MostStored = 65535; // RFC 1951, 3.2.4
    private const uint Modulus = 65521; // RFC 1950, 8.2: Adler-32
    private const int SumBytes = 5552; // bytes after which its sums must be reduced

    /// <summary>The compressor of this runtime.</summary>
    public static ZlibCompressor Instance { get; } = new(RuntimeZlib.TryLoad());

    /// <summary>Bytes that <see cref="Store"/> makes of a block.</summary>
    public static int StoredBytes(int length)
        => HeaderBytes + length + (Math.Max(1, (length + MostStored - 1) / MostStored) * StoredHeader) + ChecksumBytes;

    /// <inheritdoc/>
    public int? Compress(ReadOnlySpan<byte> input, Span<byte> output)
        => Noise.Is(input) ? null : zlib is null ? ByStream(input, output) : zlib.CompressZlib(input, output, Level);

    /// <summary>Writes a block as it is, as a zlib stream; returns <see cref="StoredBytes"/>.</summary>
    public static int Store(ReadOnlySpan<byte> input, Span<byte> output)
    {
        output[0] = 0x78; // deflate, a window of 32 KiB
        output[1] = 0x01; // no dictionary, fastest; makes the two a multiple of 31
        uint sum = Adler32(input);
        int at = HeaderBytes;
        do
        {
            int count = Math.Min(MostStored, input.Length);
            output[at] = (byte)(count == input.Length ? 1 : 0);
            BinaryPrimitives.WriteUInt16LittleEndian(output[(at + 1)..], (ushort)count);
            BinaryPrimitives.WriteUInt16LittleEndian(output[(at + 3)..], (ushort)~count);
            input[..count].CopyTo(output[(at + StoredHeader)..]);
            input = input[count..];
            at += StoredHeader + count;
        }
        while (!input.IsEmpty);
        BinaryPrimitives.WriteUInt32BigEndian(output[at..], sum);
        return at + ChecksumBytes;
    }

    /// <summary>The checksum of a zlib stream.</summary>
    internal static uint Adler32(ReadOnlySpan<byte> bytes)
    {
        uint a = 1, b = 0;
        while (!bytes.IsEmpty)
        {
            ReadOnlySpan<byte> part = bytes[..Math.Min(SumBytes, bytes.Length)];
            foreach (byte value in part)
            {
                a += value;
                b += a;
            }
            (a, b) = (a % Modulus, b % Modulus);
            bytes = bytes[part.Length..];
        }
        return (b << 16) | a;
    }

    private static int? ByStream(ReadOnlySpan<byte> input, Span<byte> output)
    {
        using var packed = new MemoryStream();
        using (var stream = new ZLibStream(packed, CompressionLevel.Fastest, leaveOpen: true))
        {
            stream.Write(input);
        }
        return packed.GetBuffer().AsSpan(0, (int)packed.Length).TryCopyTo(output) ? (int)packed.Length : null;
    }
}
