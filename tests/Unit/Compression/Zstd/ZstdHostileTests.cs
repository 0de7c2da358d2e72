using DiskImage.Compression;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Compression.Zstd;

/// <summary>
/// Damaged frames, from fixed seeds: the decoder neither throws nor touches a byte outside its two spans nor takes more memory for what a
/// frame says of itself; it does the same twice; and what it accepts, the machine's library accepts.
/// </summary>
/// <remarks>
/// Which bytes come out of a damaged Huffman stream that both take is not asked: the library's releases differ in what they make of
/// the last symbol of a stream that is too short. Where a frame has a checksum, the bytes are the right ones or none.
/// </remarks>
public sealed class ZstdHostileTests
{
    private const int HasChecksum = 4; // in the frame's descriptor, its fifth byte

    [OracleTheory("zstd")]
    [InlineData("-1", 1)]
    [InlineData("-3 --no-check", 2)]
    [InlineData("-19 --no-check", 3)]
    [InlineData("--fast=5 --no-check --no-content-size", 4)]
    [InlineData("-9 --no-check --target-compressed-block-size=400", 5)]
    [InlineData("-6 --no-check --zstd=wlog=10", 6)]
    public async Task Damage_is_refused_or_decoded_alike(string switches, int seed)
    {
        using var folder = new TestFolder();
        var random = new Random(seed);
        bool isChecked = !switches.Contains("--no-check", StringComparison.Ordinal);
        using var input = new GuardedMemory(1 << 20);
        using var output = new GuardedMemory(1 << 20);
        foreach (string kind in ZstdInputs.Kinds)
        {
            foreach (int size in new[] { 40, 900, 5000, 66_000 })
            {
                byte[] data = ZstdInputs.Make(kind, size, seed);
                await File.WriteAllBytesAsync(folder["a"], data);
                await Programs.RunAsync("zstd", [.. switches.Split(' '), "-q", "-f", folder["a"], "-o", folder["b"]]);
                byte[] packed = await File.ReadAllBytesAsync(folder["b"]);
                for (int i = 0; i < 4_000_000 / (size + 20_000); i++)
                {
                    byte[] damaged = Damage(packed, random);
                    bool done = Judge(damaged, size, input, output, i % 2 == 0, $"{switches} {kind} {size} round {i} seed {seed}");
                    Assert.True(!done || !isChecked || (damaged[4] & HasChecksum) == 0
                        || data.AsSpan().SequenceEqual(ZstdJudge.TryDecode(damaged, size)), $"{switches} {kind} {size} round {i} "
                            + $"seed {seed}: a checksum was passed over");
                }
            }
        }
    }

    [Fact]
    public void Rubbish_behind_a_good_header_is_refused_or_decoded_alike()
    {
        var random = new Random(77);
        using var input = new GuardedMemory(1 << 16);
        using var output = new GuardedMemory(1 << 18);
        for (int i = 0; i < 30_000; i++)
        {
            byte[] content = new byte[random.Next(1, 300)];
            random.NextBytes(content);
            if (random.Next(2) == 0)
            {
                content[0] = (byte)(2 | (random.Next(64) << 2)); // literals with a tree
            }
            int length = random.Next(5) == 0 ? random.Next(200_000) : random.Next(2000);
            Judge(
                ZstdFrameBuilder.Windowed().Block(2, content.Length, content).RawBlock().Done(),
                length,
                input,
                output,
                i % 2 == 0,
                $"round {i}");
        }
    }

    [Fact]
    public void Every_prefix_and_every_changed_bit_of_a_small_frame()
    {
        using var input = new GuardedMemory(4096);
        using var output = new GuardedMemory(4096);
        byte[] frame = ZstdFrameBuilder.Windowed()
            .CompressedBlock(
                ZstdFrameBuilder.HuffmanLiterals(2, 4, 127 + 5, 0x43, 0x20, 0x10, 0x01, 0x0D),
                ZstdFrameBuilder.Sequences(2, 3, 36, (0, 5, 0)))
            .CompressedBlock(ZstdFrameBuilder.HuffmanLiterals(3, 4, 0x01, 0x0D), [0])
            .RawBlock(1, 2, 3)
            .RleBlock(5, 9)
            .Done();
        for (int length = 0; length <= frame.Length; length++)
        {
            Judge(frame[..length], 66, input, output, true, $"prefix {length}");
        }
        for (int bit = 0; bit < frame.Length * 8; bit++)
        {
            byte[] damaged = [.. frame];
            damaged[bit / 8] ^= (byte)(1 << (bit % 8));
            for (int length = 0; length < 80; length++)
            {
                Judge(damaged, length, input, output, bit % 2 == 0, $"bit {bit} length {length}");
            }
        }
    }

    [Fact]
    public void No_frame_makes_the_decoder_take_memory_for_what_it_says_of_itself()
    {
        byte[] output = new byte[100];
        Assert.True(ZstdCodec.Instance.TryDecompress(ZstdFrameBuilder.Sized(100).RleBlock(7, 100).Done(), output));
        long before = ZstdCodec.DecompressorBytes;
        Assert.InRange(before, 1, 512 << 10);
        foreach (byte window in new byte[] { 0x00, 0x38, 0x80, 0xA0, 0xA8, 0xAF, 0xF8 }) // 1 KiB to 2 GiB, then what is not allowed
        {
            bool allowed = window <= 0xAF;
            Assert.Equal(allowed, ZstdCodec.Instance.TryDecompress(ZstdFrameBuilder.Windowed(window).RleBlock(7, 100).Done(), output));
        }
        // 8 EiB
        byte[] huge = ZstdFrameBuilder.Raw(
            [0x28, 0xB5, 0x2F, 0xFD, 0xC0, 0xA8, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F]).RleBlock(7, 100).Done();
        Assert.False(ZstdCodec.Instance.TryDecompress(huge, output));
        Assert.Equal(before, ZstdCodec.DecompressorBytes);
    }

    private static byte[] Damage(byte[] packed, Random random)
    {
        byte[] damaged = [.. packed];
        for (int n = random.Next(1, 4); n > 0; n--)
        {
            // Most of it near the start, where headers and tables are.
            int at = random.Next(2) == 0 ? random.Next(damaged.Length) : random.Next(Math.Min(damaged.Length, 80));
            switch (random.Next(7))
            {
                case 0:
                    damaged[at] = (byte)random.Next(256);
                    break;
                case 1:
                case 2:
                    damaged[at] ^= (byte)(1 << random.Next(8));
                    break;
                case 3:
                    damaged = damaged[..at];
                    break;
                case 4:
                    random.NextBytes(damaged.AsSpan(at, Math.Min(random.Next(1, 20), damaged.Length - at)));
                    break;
                case 5:
                    damaged = [.. damaged[..at], .. damaged[Math.Min(damaged.Length, at + random.Next(1, 5))..]];
                    break;
                default:
                    int from = random.Next(damaged.Length);
                    damaged = [.. damaged[..at], .. damaged[from..]];
                    break;
            }
            if (damaged.Length == 0)
            {
                break;
            }
        }
        return damaged;
    }

    /// <summary>Whether the bytes were taken for a frame.</summary>
    private static bool Judge(byte[] packed, int length, GuardedMemory input, GuardedMemory output, bool atEnd, string what)
    {
        Span<byte> source = atEnd ? input.Last(packed.Length) : input.First(packed.Length);
        Span<byte> target = atEnd ? output.Last(length) : output.First(length);
        packed.CopyTo(source);
        bool done = ZstdCodec.Instance.TryDecompress(source, target);
        byte[]? again = ZstdJudge.TryDecode(packed, length);
        Assert.True(done == again is not null && (again is null || target.SequenceEqual(again)), $"{what}: not the same twice");
        Assert.True(!done || NativeZstd.Instance?.TryDecompress(packed, new byte[length]) != false, $"{what}: refused by the library");
        return done;
    }
}
