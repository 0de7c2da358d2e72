using DiskImage.Compression;
using DiskImage.Tests.Compression.Zstd;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Compression;

/// <summary>Deflate by the runtime's zlib and by its public streams: the same contract, each reads the other.</summary>
public sealed class DeflateTests
{
    private const int QemusWindow = 4096;

    private static readonly DeflateCodec s_native = DeflateCodec.Instance, s_streams = new(null);

    /// <summary>On every system that .NET runs on: else every compressed image is read and written the slow way.</summary>
    [Fact]
    public void The_zlib_of_this_runtime_is_found_and_works()
        => Assert.True(
            RuntimeZlib.TryLoad() is not null,
            $"{RuntimeZlib.FileName} is not in {System.Runtime.InteropServices.RuntimeEnvironment.GetRuntimeDirectory()}, or not as known");

    [Fact]
    public void A_file_that_is_missing_or_another_library_is_not_taken_for_zlib()
    {
        using var folder = new TestFolder();
        Assert.Null(RuntimeZlib.TryLoad(folder["none.so"]));
        File.WriteAllText(folder["text.so"], "not a library");
        Assert.Null(RuntimeZlib.TryLoad(folder["text.so"]));
        string other = RuntimeZlib.FileName.Replace("IO.Compression", OperatingSystem.IsWindows()
            ? "Globalization"
            : "Native", StringComparison.Ordinal);
        Assert.Null(RuntimeZlib.TryLoad(Path.Combine(
            System.Runtime.InteropServices.RuntimeEnvironment.GetRuntimeDirectory(),
            other.Replace("Native.Native", "Native", StringComparison.Ordinal))));
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void What_is_written_reads_back_and_reaches_no_further_than_qemus_window(bool native)
    {
        DeflateCodec codec = native ? s_native : s_streams;
        foreach (string kind in ZstdInputs.Kinds)
        {
            foreach (int size in new[] { 1, 2, 511, 4095, 4096, 4097, 65536 })
            {
                byte[] data = ZstdInputs.Make(kind, size, seed: 31), room = new byte[size + (size / 10) + 100], output = new byte[size];
                if (codec.Compress(data, room) is not { } length)
                {
                    Assert.True(Noise.Is(data), $"{kind} {size}: not compressed");
                    continue;
                }
                byte[] packed = room[..length];
                var judge = new InflateReader(packed);
                Assert.Equal(data, judge.Read());
                Assert.Equal(length, judge.Used);
                Assert.True(judge.FurthestCopy <= QemusWindow, $"{kind} {size}: a copy from {judge.FurthestCopy} bytes back");
                foreach (DeflateCodec reader in new[] { s_native, s_streams })
                {
                    Array.Clear(output);
                    Assert.True(reader.TryDecompress([.. packed, 1, 2, 3], output), $"{kind} {size}: refused");
                    Assert.Equal(data, output);
                }
                Assert.Null(codec.Compress(data, room.AsSpan(0, length - 1)));
            }
        }
    }

    [Fact]
    public void Text_takes_less_room_both_ways()
    {
        byte[] text = ZstdInputs.Make("text", 65536, seed: 32), room = new byte[65536];
        Assert.InRange(s_native.Compress(text, room)!.Value, 1, 40_000);
        Assert.InRange(s_streams.Compress(text, room)!.Value, 1, 45_000);
    }

    [Fact]
    public void Damage_is_refused_or_read_alike()
    {
        var random = new Random(33);
        foreach (string kind in new[] { "text", "mixed", "disk" })
        {
            byte[] data = ZstdInputs.Make(kind, 5000, seed: 33), room = new byte[6000], one = new byte[5000], two = new byte[5000];
            byte[] packed = room[..s_native.Compress(data, room)!.Value];
            for (int i = 0; i < 3000; i++)
            {
                byte[] damaged = random.Next(4) == 0 ? packed[..random.Next(packed.Length)] : [.. packed];
                for (int n = random.Next(3); n > 0 && damaged.Length > 0; n--)
                {
                    damaged[random.Next(damaged.Length)] ^= (byte)(1 << random.Next(8));
                }
                bool native = s_native.TryDecompress(damaged, one);
                Assert.True(native == s_streams.TryDecompress(damaged, two), $"{kind} round {i}, seed 33: zlib {native}");
                Assert.True(!native || one.AsSpan().SequenceEqual(two), $"{kind} round {i}, seed 33: other bytes");
            }
        }
    }
}
