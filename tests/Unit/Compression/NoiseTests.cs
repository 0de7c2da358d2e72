using System.IO.Compression;
using System.Text;
using DiskImage.Compression;

namespace DiskImage.Tests.Compression;

public sealed class NoiseTests
{
    private const int Length = 64 << 10;

    [Theory]
    [InlineData("random", true)]
    [InlineData("packed", true)]
    [InlineData("short", false)]
    [InlineData("zeroes", false)]
    [InlineData("text", false)]
    [InlineData("base64", false)]
    [InlineData("counters", false)]
    [InlineData("floats", false)]
    [InlineData("every value in turn", false)]
    [InlineData("random, twice", false)]
    [InlineData("random, a sixteenth of it twice", false)]
    [InlineData("mostly random, then text", false)]
    public void What_cannot_get_smaller_is_told_from_what_can(string kind, bool isNoise)
    {
        byte[] block = Make(kind);
        Assert.Equal(isNoise, Noise.Is(block));
        byte[] packed = new byte[Length];
        if (isNoise)
        {
            using var stream = new MemoryStream();
            using (var deflate = new DeflateStream(stream, CompressionLevel.SmallestSize, leaveOpen: true))
            {
                deflate.Write(block);
            }
            Assert.True(stream.Length > block.Length * 0.99, $"{stream.Length} of {block.Length} bytes"); // so it was no loss
            Assert.Null(DeflateCodec.Instance.Compress(block, packed));
        }
        else if (kind != "short")
        {
            Assert.NotNull(DeflateCodec.Instance.Compress(block, packed));
        }
    }

    [Fact]
    public void A_large_block_is_looked_at_to_its_end()
    {
        byte[] block = new byte[2 << 20];
        new Random(3).NextBytes(block);
        Assert.True(Noise.Is(block));
        block.AsSpan(block.Length - Length, Length / 2).CopyTo(block.AsSpan(block.Length - (Length / 2)));
        Assert.False(Noise.Is(block));
    }

    private static byte[] Make(string kind)
    {
        byte[] block = new byte[kind == "short" ? 512 : Length];
        var random = new Random(7);
        switch (kind)
        {
            case "random" or "short":
                random.NextBytes(block);
                break;
            case "packed":
                using (var stream = new MemoryStream())
                {
                    using (var deflate = new ZLibStream(stream, CompressionLevel.SmallestSize, leaveOpen: true))
                    {
                        for (int i = 0; i < 60_000; i++)
                        {
                            deflate.Write(Encoding.ASCII.GetBytes(random.Next().ToString("x8", null)));
                        }
                    }
                    stream.ToArray().AsSpan(100, Length).CopyTo(block);
                }
                break;
            case "text":
                Encoding.ASCII.GetBytes(string.Join(' ', Enumerable.Range(0, 20_000)))[..Length].CopyTo(block, 0);
                break;
            case "base64":
                byte[] source = new byte[Length];
                random.NextBytes(source);
                Encoding.ASCII.GetBytes(Convert.ToBase64String(source))[..Length].CopyTo(block, 0);
                break;
            case "counters":
                Buffer.BlockCopy(Enumerable.Range(0, Length / 4).ToArray(), 0, block, 0, Length);
                break;
            case "floats":
                Buffer.BlockCopy(Enumerable.Range(0, Length / 8).Select(_ => random.NextDouble()).ToArray(), 0, block, 0, Length);
                break;
            case "every value in turn":
                for (int i = 0; i < Length; i++)
                {
                    block[i] = (byte)i;
                }
                break;
            case "random, twice":
                random.NextBytes(block.AsSpan(0, 2048));
                for (int at = 2048; at < Length; at += 2048)
                {
                    block.AsSpan(0, 2048).CopyTo(block.AsSpan(at));
                }
                break;
            case "random, a sixteenth of it twice":
                random.NextBytes(block);
                for (int at = 0; at < Length; at += 1024)
                {
                    block.AsSpan(at, 64).CopyTo(block.AsSpan(at + 512));
                }
                break;
            case "mostly random, then text":
                random.NextBytes(block);
                block.AsSpan(Length - 8192).Fill((byte)' ');
                break;
            default:
                break; // zeroes
        }
        return block;
    }
}
