using DiskImage.Compression;

namespace DiskImage.Tests.Compression.Zstd;

/// <summary>Runs the codec, and beside it the machine's library where there is one.</summary>
internal static class ZstdJudge
{
    private const byte Canary = 0xA5;

    /// <summary>Both must make these bytes of the input, and nothing of it for an output of another length.</summary>
    public static void Decodes(ReadOnlySpan<byte> input, ReadOnlySpan<byte> expected, string what)
    {
        byte[] output = new byte[expected.Length];
        Assert.True(ZstdCodec.Instance.TryDecompress(input, output), $"{what}: refused");
        Assert.True(expected.SequenceEqual(output), $"{what}: other bytes, first at {expected.CommonPrefixLength(output)}");
        if (expected.Length < 20_000)
        {
            Assert.False(
                ZstdCodec.Instance.TryDecompress(input, new byte[expected.Length + 1]), $"{what}: filled one byte more than there is");
            Assert.False(expected.Length > 1
                && ZstdCodec.Instance.TryDecompress(input, new byte[expected.Length - 1]), $"{what}: a frame was cut");
        }
        if (NativeZstd.Instance is { } library)
        {
            Array.Clear(output);
            Assert.True(library.TryDecompress(input, output), $"{what}: refused by the library");
            Assert.True(expected.SequenceEqual(output), $"{what}: other bytes from the library");
        }
    }

    /// <summary>Neither may take the input for a frame of the length.</summary>
    public static void Refuses(ReadOnlySpan<byte> input, int length, string what)
    {
        byte[] output = new byte[length];
        Assert.False(ZstdCodec.Instance.TryDecompress(input, output), $"{what}: accepted");
        Assert.False(NativeZstd.Instance?.TryDecompress(input, output) ?? false, $"{what}: accepted by the library");
    }

    /// <summary>
    /// For what the zstd library takes though the RFC forbids it, an old release more of it than a new one: what is accepted must be
    /// what the library makes of it, too.
    /// </summary>
    public static void Agrees(ReadOnlySpan<byte> input, int length, string what)
    {
        byte[]? ours = TryDecode(input, length);
        if (ours is not null && NativeZstd.Instance is { } library)
        {
            byte[] theirs = new byte[length];
            Assert.True(
                library.TryDecompress(input, theirs),
                $"{what}: refused by the library: {Convert.ToHexString(input[..Math.Min(input.Length, 60)])}");
            Assert.True(ours.AsSpan().SequenceEqual(theirs), $"{what}: the library makes other bytes");
        }
    }

    /// <summary>Decodes into the middle of a larger buffer whose borders must stay untouched; null if refused.</summary>
    public static byte[]? TryDecode(ReadOnlySpan<byte> input, int length)
    {
        const int Border = 64;
        byte[] buffer = new byte[length + (2 * Border)];
        Array.Fill(buffer, Canary);
        bool done = ZstdCodec.Instance.TryDecompress(input, buffer.AsSpan(Border, length));
        Assert.False(buffer.AsSpan(0, Border).ContainsAnyExcept(Canary), "wrote before the output");
        Assert.False(buffer.AsSpan(Border + length).ContainsAnyExcept(Canary), "wrote behind the output");
        return done ? buffer[Border..^Border] : null;
    }
}
