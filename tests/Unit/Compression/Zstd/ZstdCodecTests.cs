using DiskImage.Compression;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Compression.Zstd;

/// <summary>What is compressed is read again, by us and by others, whoever compressed before.</summary>
public sealed class ZstdCodecTests
{
    [Fact]
    public void What_is_compressed_is_read_again()
    {
        foreach (string kind in ZstdInputs.Kinds)
        {
            foreach (int size in ZstdInputs.Sizes)
            {
                byte[] data = ZstdInputs.Make(kind, size, seed: 11);
                byte[] room = new byte[size + (size / 100) + 100];
                int packed = ZstdCodec.Instance.Compress(data, room)!.Value;
                ZstdJudge.Decodes(room.AsSpan(0, packed), data, $"{kind} {size}");
                // The library may want more room than it uses in the end.
                Assert.True(ZstdCodec.Instance.Compress(data, room.AsSpan(0, packed)) is not { } count
                    || count == packed, $"{kind} {size}");
                Assert.Null(ZstdCodec.Instance.Compress(data, room.AsSpan(0, packed - 1)));
            }
        }
        Assert.Null(ZstdCodec.Instance.Compress(new byte[10], default));
    }

    [Fact]
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
        });
    }

    [OracleFact("zstd")]
    public async Task The_zstd_program_reads_what_is_compressed()
    {
        using var folder = new TestFolder();
        byte[] data = ZstdInputs.Make("mixed", 1 << 20, seed: 12);
        await File.WriteAllBytesAsync(folder["a.zst"], Compress(data));
        await Programs.RunAsync("zstd", "-q", "-d", folder["a.zst"], "-o", folder["a"]);
        Assert.Equal(data, await File.ReadAllBytesAsync(folder["a"]));
    }

    [Fact]
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
