using System.IO.Compression;
using DiskImage.Binary;
using DiskImage.Compression;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Compression.Apple;

/// <summary>
/// The decoders that Apple's disk images need, against streams of other makers, and against noise. A run takes a sample of the noise;
/// DISKIMAGE_FUZZ=1000000 makes it as many inputs each, DISKIMAGE_TEST_SEED sets the first seed.
/// </summary>
public sealed class AppleDecoderTests
{
    private const int Sample = 4000, LargeText = 150_016, SmallText = 2048;

    private static readonly string[] s_words =
        ["the ", "quick ", "brown ", "fox ", "jumps ", "over ", "the ", "lazy ", "dog ", "and ", "runs "
            + "", "away ", "into ", "a ", "forest ", "\n"];

    /// <summary>The text that the kept streams were made of.</summary>
    public static byte[] Text(int length)
    {
        var text = new List<byte>();
        for (uint state = 1; text.Count < length;)
        {
            state = (state * 1_664_525) + 1_013_904_223;
            text.AddRange(System.Text.Encoding.ASCII.GetBytes(s_words[state >> 28]));
            if (((state >> 20) & 63) == 0)
            {
                text.AddRange([(byte)(state >> 8), (byte)(state >> 12)]);
            }
        }
        return [.. text[..length]];
    }

    public static byte[] Kept(string name)
    {
        using FileStream packed = File.OpenRead(Path.Combine(AppContext.BaseDirectory, "Data", "lzfse", name + ".gz"));
        using var gzip = new GZipStream(packed, CompressionMode.Decompress);
        using var stream = new MemoryStream();
        gzip.CopyTo(stream);
        return stream.ToArray();
    }

    /// <summary>A stream of one raw block.</summary>
    public static byte[] Raw(byte[] contents) => [.. "bvx-"u8, .. BitConverter.GetBytes(contents.Length), .. contents, .. "bvx$"u8];

    [Theory]
    [InlineData("text.bvx1", LargeText)]
    [InlineData("text.bvx2", LargeText)]
    [InlineData("text.bvxn", SmallText)]
    public void Every_kind_of_block_is_decoded(string name, int length)
    {
        byte[] stream = Kept(name), text = Text(length), output = new byte[length];
        Assert.True(LzfseDecoder.Instance.TryDecompress(stream, output));
        Assert.Equal(text, output);
        Assert.False(LzfseDecoder.Instance.TryDecompress(stream, new byte[length - 1]));
        Assert.False(LzfseDecoder.Instance.TryDecompress(stream, new byte[length + 1]));
        Assert.False(LzfseDecoder.Instance.TryDecompress(stream.AsSpan(0, stream.Length / 2), output));
        byte[] both = [.. Raw(text)[..^4], .. stream]; // one block behind another
        Assert.True(LzfseDecoder.Instance.TryDecompress(both, output = new byte[2 * length]));
        Assert.Equal([.. text, .. text], output);
    }

    [Fact]
    public void Every_form_of_lzvn_is_decoded()
    {
        byte[] code =
        [
            0xE3, 1, 2, 3, // three literals
            0x00 | (0 << 3) | 0, 3, // 3 bytes from 3 back
            0x40 | (1 << 3) | 6, 9, // one literal, 4 bytes, the former distance
            0xA0 | (1 << 3) | 1, (4 << 2) | 2, 0, 8, // one literal, 4 + 2 + 3 bytes from 4 back
            0x80 | (2 << 3) | 7, 1, 0, 4, 5, // two literals, 5 bytes from 1 back
            0xF2, // 2 more
            0xF0, 0, // 16 more
            0xE0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, // 16 literals
            0x0E, 0x16, // nothing, twice
            0x06, 0, 0, 0, 0, 0, 0, 0,
        ];
        byte[] expected =
        [
            1, 2, 3, 1, 2, 3, 9, 2, 3, 9, 2, 8, 3, 9, 2, 8, 3, 9, 2, 8, 3, 4, 5, 5, 5, 5, 5, 5, 5, 5, .. Enumerable.Repeat((byte)5, 16),
            .. Enumerable.Range(1, 16).Select(i => (byte)i),
        ];
        byte[] output = new byte[expected.Length];
        Assert.True(LzvnDecoder.TryDecode(code, output, 0));
        Assert.Equal(expected, output);
        Assert.False(LzvnDecoder.TryDecode(code.AsSpan(..^8), output, 0)); // without its end
        Assert.False(LzvnDecoder.TryDecode([0x1E], output, 0));
        Assert.False(LzvnDecoder.TryDecode([0xE1, 7, 0x46, 7], output, 0)); // no former distance
    }

    [Fact]
    public void Adc_has_literals_and_two_forms_of_matches()
    {
        byte[] output = new byte[3 + 5 + 10 + 1];
        Assert.True(AdcDecoder.Instance.TryDecompress([0x82, 1, 2, 3, 2 << 2, 2, 0x40 | 6, 0, 0, 0x80, 9], output));
        Assert.Equal([1, 2, 3, 1, 2, 3, 1, 2, .. Enumerable.Repeat((byte)2, 10), 9], output);
        Assert.False(AdcDecoder.Instance.TryDecompress([0x80, 1, 0, 1], new byte[4])); // before the beginning
        Assert.False(AdcDecoder.Instance.TryDecompress([0x80, 1, 0, 0], new byte[3])); // past the end
        Assert.False(AdcDecoder.Instance.TryDecompress([0x82, 1], new byte[3]));
    }

    [OracleTheory("bzip2")]
    [InlineData("bzip2", "-1")]
    [InlineData("bzip2", "-9")]
    [InlineData("xz", "-0")]
    [InlineData("xz", "-9")]
    [InlineData("xz", "--lzma2=dict=64KiB,lc=1,lp=3,pb=0")]
    [InlineData("xz", "--block-size=100KiB")]
    [InlineData("xz", "--check=sha256")]
    public async Task What_the_programs_make_is_decoded(string program, string option)
    {
        using var folder = new TestFolder();
        byte[] noise = new byte[70_000];
        new Random(1).NextBytes(noise);
        IBlockDecompressor decoder = program.Equals("xz", StringComparison.Ordinal) ? XzDecoder.Instance : Bzip2Decoder.Instance;
        foreach (byte[] contents in new byte[][]
        {
            [7], new byte[300_000], Text(1_200_000), noise, [.. Text(100_000), .. new byte[200_000], .. noise, .. Text(250_000)],
        })
        {
            await File.WriteAllBytesAsync(folder["in"], contents);
            string packed = program.Equals("xz", StringComparison.Ordinal) ? folder["in.xz"] : folder["in.bz2"];
            _ = await Programs.RunAsync(program, "-k", "-f", option, folder["in"]);
            byte[] stream = await File.ReadAllBytesAsync(packed), output = new byte[contents.Length];
            Assert.True(decoder.TryDecompress(stream, output), $"{contents.Length} bytes");
            Assert.True(contents.AsSpan().SequenceEqual(output));
            Assert.False(decoder.TryDecompress(stream, new byte[contents.Length + 1]));
            Assert.False(decoder.TryDecompress(stream.AsSpan(0, stream.Length / 2), output));
        }
    }

    /// <summary>A stream of the program of that name, and what there is to know about its end.</summary>
    [OracleFact("bzip2")]
    public async Task A_bzip2_stream_ends_where_the_output_does_and_its_checksums_are_right()
    {
        using var folder = new TestFolder();
        byte[] contents = Text(250_000), output = new byte[contents.Length];
        await File.WriteAllBytesAsync(folder["in"], contents);
        _ = await Programs.RunAsync("bzip2", "-k", "-1", folder["in"]);
        byte[] stream = await File.ReadAllBytesAsync(folder["in.bz2"]);
        Assert.True(Bzip2Decoder.Instance.TryDecompress([.. stream, 1, 2, 3], output)); // rubbish behind it
        Assert.True(Bzip2Decoder.Instance.TryDecompress([.. stream, .. stream], output)); // another stream is no more than that
        Assert.False(Bzip2Decoder.Instance.TryDecompress([.. stream, .. stream], new byte[2 * contents.Length]));
        Assert.False(Bzip2Decoder.Instance.TryDecompress(stream, new byte[contents.Length - 1]));
        Assert.False(Bzip2Decoder.Instance.TryDecompress([], output));
        Assert.False(Bzip2Decoder.Instance.TryDecompress([], []));
        for (int cut = 1; cut < 64; cut++)
        {
            Assert.False(Bzip2Decoder.Instance.TryDecompress(stream.AsSpan(0, cut), output));
            Assert.False(Bzip2Decoder.Instance.TryDecompress(stream.AsSpan(0, stream.Length - cut), output));
        }
        foreach (int at in new[] { 0, 3, 4, 10, 11, 14, stream.Length / 2 }) // magics, the first block's checksum, the data
        {
            byte[] damaged = [.. stream];
            damaged[at] ^= 0x40;
            Assert.False(Bzip2Decoder.Instance.TryDecompress(damaged, output), $"byte {at}");
        }
    }

    [Fact]
    public void The_checksum_is_that_of_zip_and_zeroes_are_summed_up_at_once()
    {
        Assert.Equal(0xCBF4_3926, Crc32.Append(0, "123456789"u8));
        foreach (int zeroes in new[] { 0, 1, 7, 8, 4096, 123_457 })
        {
            Assert.Equal(
                Crc32.Append(Crc32.Append(0, Text(999)), new byte[zeroes]), Crc32.AppendZeroes(Crc32.Append(0, Text(999)), zeroes));
        }
    }

    public static TheoryData<string> Decoders() => ["adc", "lzfse", "lzvn", "bzip2", "xz"];

    /// <summary>
    /// Streams with damage, and noise that begins like a stream. What comes of it is true or false, nothing else, and no byte
    /// beside the output changes.
    /// </summary>
    [Theory]
    [MemberData(nameof(Decoders))]
    public void Noise_ends_in_true_or_false(string name)
    {
        int rounds = int.TryParse(Environment.GetEnvironmentVariable("DISKIMAGE_FUZZ"), out int given) ? given : Sample;
        int first = int.TryParse(Environment.GetEnvironmentVariable("DISKIMAGE_TEST_SEED"), out int seed) ? seed : 1;
        byte[][] starts = name switch
        {
            "lzfse" => [Kept("text.bvxn"), Kept("text.bvx1")[..6000], Kept("text.bvx2")[..6000], Raw(Text(500))],
            "lzvn" => [Kept("text.bvxn")[12..]],
            "bzip2" => [Convert.FromBase64String("QlpoMTFBWSZTWcEZDk8AAuORgEAAP///8DAAuApo0AaAACmjQBoAAClUmpppgExo2o4iYE6iYE3iaCZCaCcxP8TeJ2EyE7BNRNgnkT2E1EzE7iZCbBMCeRMxOQmgnsTMTqJ6E1EzCYEwJ0FXwT4J9F3JFOFCQwRkOTw=")],
            "xz" => [Convert.FromBase64String("/Td6WFoAAATm1rRGAgAhARYAAAB0L+Wj4AbfADpdADoaCM52x+Xp1gc0w9EOv85V4aq94OSPmAHdjeUHVJ5lJV8nOmp+tNNJAQA09aVUYhClVMXKI62iqAAAAADtozMdZLvBhAABVuANAAAANSA8w7HEZ/sCAAAAAARZWg==")],
            _ => [[0x82, 1, 2, 3, 2 << 2, 2, 0x40 | 6, 0, 0, 0x80, 9]],
        };
        byte[] room = new byte[40_000 + 64];
        for (int round = first; round < first + rounds; round++)
        {
            var random = new Random(round);
            byte[] stream = (byte[])starts[random.Next(starts.Length)].Clone();
            int kept = random.Next(4) == 0 ? random.Next(Math.Min(stream.Length, 16)) : stream.Length;
            random.NextBytes(stream.AsSpan(kept));
            for (int i = random.Next(8); i > 0; i--)
            {
                stream[random.Next(2) == 0
                    ? random.Next(Math.Min(64, stream.Length))
                    : random.Next(stream.Length)] = (byte)random.Next(256);
            }
            int length = random.Next(3) == 0 ? random.Next(40_000) : random.Next(3000);
            if (name.Equals("lzfse", StringComparison.Ordinal) && random.Next(2) == 0)
            {
                BitConverter.TryWriteBytes(stream.AsSpan(4), length); // so that it gets past the first look
            }
            Array.Fill(room, (byte)0xA5);
            ReadOnlySpan<byte> input = stream.AsSpan(0, random.Next(5) == 0 ? random.Next(stream.Length + 1) : stream.Length);
            Span<byte> output = room.AsSpan(32, length);
            try
            {
                _ = name switch
                {
                    "adc" => AdcDecoder.Instance.TryDecompress(input, output),
                    "lzfse" => LzfseDecoder.Instance.TryDecompress(input, output),
                    "lzvn" => LzvnDecoder.TryDecode(input, output, 0),
                    "bzip2" => Bzip2Decoder.Instance.TryDecompress(input, output),
                    _ => XzDecoder.Instance.TryDecompress(input, output),
                };
            }
            catch (Exception e)
            {
                Assert.Fail($"{name}, seed {round}: {e}");
            }
            Assert.False(room.AsSpan(0, 32).ContainsAnyExcept((byte)0xA5)
                || room.AsSpan(32 + length).ContainsAnyExcept((byte)0xA5), $"{name}, seed {round}: wrote beside its output");
        }
    }
}
