using DiskImage.Compression.Zstd;

namespace DiskImage.Tests.Compression.Zstd;

/// <summary>Runs the managed decoder, and beside it the machine's library where there is one.</summary>
internal static class ZstdJudge
{
    private const byte Canary = 0xA5;

    public static ZstdLibrary? Library { get; } = ZstdLibrary.TryLoad();

    /// <summary>Both decoders must make these bytes of the input, and nothing of it for an output of another length.</summary>
    public static void Decodes(ReadOnlySpan<byte> input, ReadOnlySpan<byte> expected, string what)
    {
        byte[] output = new byte[expected.Length];
        Assert.True(ZstdDecoder.Instance.TryDecompress(input, output), $"{what}: refused");
        Assert.True(expected.SequenceEqual(output), $"{what}: other bytes, first at {expected.CommonPrefixLength(output)}");
        bool small = expected.Length < 20_000;
        if (small)
        {
            Assert.False(ZstdDecoder.Instance.TryDecompress(input, new byte[expected.Length + 1]), $"{what}: filled one byte more than there is");
            Assert.False(expected.Length > 1 && ZstdDecoder.Instance.TryDecompress(input, new byte[expected.Length - 1]), $"{what}: a frame was cut");
        }
        if (Library is not null)
        {
            Array.Clear(output);
            Assert.True(Library.TryDecompress(input, output), $"{what}: refused by the library");
            Assert.True(expected.SequenceEqual(output), $"{what}: other bytes from the library");
            Assert.False(small && Library.TryDecompress(input, new byte[expected.Length + 1]), $"{what}: the library filled one byte more than there is");
        }
    }

    /// <summary>Neither decoder may take the input for a frame of the length; the library only where it is as strict.</summary>
    public static void Refuses(ReadOnlySpan<byte> input, int length, string what, bool libraryToo = true)
    {
        byte[] output = new byte[length];
        Assert.False(ZstdDecoder.Instance.TryDecompress(input, output), $"{what}: accepted");
        if (libraryToo && Library is not null)
        {
            Assert.False(Library.TryDecompress(input, output), $"{what}: accepted by the library");
        }
    }

    /// <summary>Decodes into the middle of a larger buffer whose borders must stay untouched; null if refused.</summary>
    public static byte[]? TryDecode(ReadOnlySpan<byte> input, int length)
    {
        const int Border = 64;
        byte[] buffer = new byte[length + (2 * Border)];
        Array.Fill(buffer, Canary);
        bool done = ZstdDecoder.Instance.TryDecompress(input, buffer.AsSpan(Border, length));
        Assert.False(buffer.AsSpan(0, Border).ContainsAnyExcept(Canary), "wrote before the output");
        Assert.False(buffer.AsSpan(Border + length).ContainsAnyExcept(Canary), "wrote behind the output");
        return done ? buffer[Border..^Border] : null;
    }
}
