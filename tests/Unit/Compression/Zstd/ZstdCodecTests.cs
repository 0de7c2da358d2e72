using DiskImage.Block;
using DiskImage.Compression.Zstd;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Compression.Zstd;

/// <summary>Compressing through the machine's library, and what holds without it.</summary>
public sealed class ZstdCodecTests
{
    [Fact]
    public void Without_the_library_blocks_are_read_but_not_written()
    {
        var codec = new ZstdCodec(null);
        Assert.False(codec.CanCompress);
        byte[] output = new byte[3];
        Assert.True(codec.TryDecompress(ZstdFrameBuilder.Sized(3).RleBlock(7, 3).Done(), output));
        Assert.Equal([7, 7, 7], output);
        DiskImageException error = Assert.Throws<DiskImageException>(() => codec.Compress(output, new byte[100]));
        Assert.Equal(DiskImageErrorKind.Unsupported, error.Kind);
        Assert.Contains("libzstd 1.4.0 or newer", error.Message, StringComparison.Ordinal);
    }

    [ZstdLibraryFact]
    public void What_is_compressed_both_decoders_read()
    {
        Assert.True(ZstdCodec.Instance.CanCompress);
        foreach (string kind in ZstdInputs.Kinds)
        {
            foreach (int size in ZstdInputs.Sizes)
            {
                byte[] data = ZstdInputs.Make(kind, size, seed: 11);
                byte[] room = new byte[size + (size / 100) + 100];
                int packed = ZstdCodec.Instance.Compress(data, room)!.Value;
                ZstdJudge.Decodes(room.AsSpan(0, packed), data, $"{kind} {size}");
                // The library may want more room than it uses in the end.
                Assert.True(ZstdCodec.Instance.Compress(data, room.AsSpan(0, packed)) is not { } count || count == packed, $"{kind} {size}");
                Assert.Null(ZstdCodec.Instance.Compress(data, room.AsSpan(0, packed - 1)));
            }
        }
        Assert.Null(ZstdCodec.Instance.Compress(new byte[10], default));
    }

    [ZstdLibraryFact]
    public async Task The_bytes_do_not_depend_on_the_thread_or_on_what_it_compressed_before()
    {
        byte[][] blocks = [.. Enumerable.Range(0, 64).Select(i => ZstdInputs.Make(ZstdInputs.Kinds[i % 8], 65536 - (i % 3), seed: i))];
        byte[][] first = [.. blocks.Select(Compress)];
        await Parallel.ForAsync(0, 512, async (i, _) =>
        {
            await Task.Yield();
            int at = i * 37 % 64;
            Assert.Equal(first[at], Compress(blocks[at]));
            byte[] output = new byte[blocks[at].Length];
            Assert.True(ZstdCodec.Instance.TryDecompress(first[at], output));
            Assert.Equal(blocks[at], output);
            Array.Clear(output);
            Assert.True(ZstdDecoder.Instance.TryDecompress(first[at], output));
            Assert.Equal(blocks[at], output);
        });
    }

    [ZstdLibraryFact("zstd")]
    public async Task The_zstd_program_reads_what_is_compressed()
    {
        using var folder = new TestFolder();
        byte[] data = ZstdInputs.Make("mixed", 1 << 20, seed: 12);
        await File.WriteAllBytesAsync(folder["a.zst"], Compress(data));
        await Programs.RunAsync("zstd", "-q", "-d", folder["a.zst"], "-o", folder["a"]);
        Assert.Equal(data, await File.ReadAllBytesAsync(folder["a"]));
    }

    [ZstdLibraryFact]
    public void A_thread_that_has_begun_allocates_nothing()
    {
        byte[] data = ZstdInputs.Make("mixed", 65536, seed: 13);
        byte[] packed = Compress(data);
        byte[] output = new byte[65536];
        byte[] room = new byte[70000];
        Use();
        long before = GC.GetAllocatedBytesForCurrentThread();
        Use();
        Assert.Equal(0, GC.GetAllocatedBytesForCurrentThread() - before);

        void Use()
        {
            _ = ZstdDecoder.Instance.TryDecompress(packed, output);
            _ = ZstdCodec.Instance.TryDecompress(packed, output);
            _ = ZstdCodec.Instance.Compress(data, room);
        }
    }

    private static byte[] Compress(byte[] data)
    {
        byte[] room = new byte[data.Length + (data.Length / 100) + 100];
        return room[..ZstdCodec.Instance.Compress(data, room)!.Value];
    }
}

/// <summary>A fact that needs the machine's zstd library; skipped, with the reason, where it is missing.</summary>
public sealed class ZstdLibraryFactAttribute : FactAttribute
{
    public ZstdLibraryFactAttribute(string? program = null)
        => Skip = !ZstdCodec.Instance.CanCompress ? "the zstd library is not installed" : program is null ? null : Programs.WhyMissing(program);
}
