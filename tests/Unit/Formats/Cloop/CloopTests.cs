using System.Buffers.Binary;
using System.IO.Compression;
using DiskImage.Block;
using DiskImage.Compression;
using DiskImage.Formats.Cloop;
using DiskImage.Graph;
using DiskImage.Tests.Conformance;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Cloop;

/// <summary>Makes cloop images by the published layout.</summary>
internal static class CloopMaker
{
    /// <summary>An image of some contents; the last block is filled up with zeroes.</summary>
    public static byte[] Make(byte[] contents, int blockSize)
    {
        int blocks = (contents.Length + blockSize - 1) / blockSize;
        byte[] head = new byte[136 + ((blocks + 1) * 8)];
        "#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n"u8.CopyTo(head);
        BinaryPrimitives.WriteInt32BigEndian(head.AsSpan(128), blockSize);
        BinaryPrimitives.WriteInt32BigEndian(head.AsSpan(132), blocks);
        using var file = new MemoryStream();
        file.Write(head);
        byte[] padded = new byte[blocks * blockSize];
        contents.CopyTo(padded, 0);
        for (int i = 0; i < blocks; i++)
        {
            BinaryPrimitives.WriteInt64BigEndian(head.AsSpan(136 + (i * 8)), file.Length);
            using var zlib = new ZLibStream(file, CompressionLevel.Fastest, leaveOpen: true);
            zlib.Write(padded, i * blockSize, blockSize);
        }
        BinaryPrimitives.WriteInt64BigEndian(head.AsSpan(136 + (blocks * 8)), file.Length);
        file.Position = 0;
        file.Write(head);
        return file.ToArray();
    }
}

public abstract class CloopConformance(int blockSize) : NodeConformance
{
    private protected override bool CanWrite => false;

    private protected override Task<BlockNode> MakeAsync(byte[] contents, bool writable)
        => new DiskFormat("cloop").OpenAsync(new MemoryNode(CloopMaker.Make(contents, blockSize), readOnly: true)).AsTask();
}

public sealed class CloopSectorNodeTests() : CloopConformance(512);

/// <summary>No power of two, and a divisor of the disk's size.</summary>
public sealed class CloopOddNodeTests() : CloopConformance(1536);

public sealed class CloopTests : IDisposable
{
    private static readonly DiskFormat s_cloop = new("cloop");

    private readonly TestFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [OracleTheory("create_compressed_fs")]
    [InlineData(512)]
    [InlineData(65536)]
    [InlineData(1 << 20)]
    [InlineData(3 * 512)]
    public async Task What_cloop_utils_make_is_read_and_what_we_make_they_and_qemu_read(int blockSize)
    {
        await Images.MakeRawAsync(_folder["disk.raw"], 6 << 20, seed: 5);
        byte[] contents = await File.ReadAllBytesAsync(_folder["disk.raw"]);
        _ = await Programs.RunAsync("create_compressed_fs", "-q", "-B", $"{blockSize}", _folder["disk.raw"], _folder["theirs.cloop"]);
        await File.WriteAllBytesAsync(_folder["ours.cloop"], CloopMaker.Make(contents, blockSize));
        foreach (string name in new[] { "theirs", "ours" })
        {
            string path = _folder[$"{name}.cloop"];
            await Images.ConvertAsync(path, null, _folder[$"{name}.raw"], "raw");
            DiskFormat.Same(contents, await File.ReadAllBytesAsync(_folder[$"{name}.raw"]));
            if (Programs.WhyMissing("qemu-img") is null)
            {
                await Programs.CompareAsync(_folder[$"{name}.raw"], "raw", path, "cloop");
            }
            await using BlockNode disk = await Images.OpenAsync(path);
            Assert.Empty((await disk.As<ICheckable>()!.CheckAsync(null, CancellationToken.None)).Findings);
            var info = (CloopInfo)disk.As<IDescribed>()!.Describe().FormatSpecific!;
            Assert.Equal((blockSize, (long)contents.Length / blockSize), (info.BlockSize, info.Blocks));
        }
    }

    [Fact]
    public async Task It_is_read_only_and_says_what_can_be_done_instead()
    {
        await File.WriteAllBytesAsync(_folder["a.cloop"], CloopMaker.Make(new byte[5000], 1024));
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(() => Images.OpenAsync(_folder["a.cloop"], writable: true));
        Assert.Equal(DiskImageErrorKind.ReadOnly, error.Kind);
        Assert.Contains(error.Wording.Remedies, r => r.Kind == RemedyKind.Convert);
        error = await Assert.ThrowsAsync<DiskImageException>(async () => await new ImageCreator(Images.Opener).CreateAsync(
            _folder["b.cloop"], s_cloop.Driver, new object(), replace: false, null, CancellationToken.None));
        Assert.Equal(DiskImageErrorKind.Unsupported, error.Kind);
    }

    [Fact]
    public async Task Damaged_blocks_are_found_each_by_itself()
    {
        byte[] contents = new byte[40 * 4096];
        new Random(1).NextBytes(contents);
        byte[] image = CloopMaker.Make(contents, 4096);
        foreach (int block in new[] { 3, 20, 39 })
        {
            image[BinaryPrimitives.ReadInt32BigEndian(image.AsSpan(136 + 4 + (block * 8))) + 100] ^= 1;
        }
        CheckReport report = await s_cloop.CheckAsync(image);
        Assert.Equal([3 * 4096L, 20 * 4096L, 39 * 4096L], report.Findings.Select(f => f.GuestOffset!.Value));
        await using BlockNode disk = await s_cloop.OpenAsync(new MemoryNode(image, readOnly: true));
        byte[] read = new byte[4096];
        await disk.ReadAsync(2 * 4096, read);
        Assert.Equal(contents[(2 * 4096)..(3 * 4096)], read);
        for (int i = 0; i < 2; i++) // a failure is not kept as a block
        {
            Assert.Equal(
                DiskImageErrorKind.Corrupt,
                (await Assert.ThrowsAsync<DiskImageException>(async () => await disk.ReadAsync((3 * 4096) + 5, read.AsMemory(0, 7)))).Kind);
        }
    }

    [Fact]
    public async Task Small_reads_decode_a_block_once()
    {
        byte[] contents = new byte[8 * 65536];
        new Random(1).NextBytes(contents);
        var file = new Campaign.CountingNode(new MemoryNode(CloopMaker.Make(contents, 65536), readOnly: true));
        await using BlockNode disk = await s_cloop.OpenAsync(file);
        byte[] read = new byte[512];
        long before = file.Requests;
        for (int at = 0; at < contents.Length; at += 512)
        {
            await disk.ReadAsync(at, read);
            Assert.True(contents.AsSpan(at, 512).SequenceEqual(read));
        }
        Assert.Equal(8, file.Requests - before);
    }

    [Theory]
    [InlineData(0, 0u, DiskImageErrorKind.InvalidFormat)]
    [InlineData(128, 0u, DiskImageErrorKind.Corrupt)]
    [InlineData(128, 513u, DiskImageErrorKind.Corrupt)]
    [InlineData(128, 0x04000200u, DiskImageErrorKind.Corrupt)]
    [InlineData(128, 0xFFFFFE00u, DiskImageErrorKind.Corrupt)]
    [InlineData(132, 0xFFFFFFFFu, DiskImageErrorKind.Corrupt)]
    [InlineData(132, 10000u, DiskImageErrorKind.Corrupt)]
    public async Task A_header_that_cannot_be_is_refused(int offset, uint value, DiskImageErrorKind kind)
        => await s_cloop.RefusesAsync(CloopMaker.Make(new byte[5000], 1024), offset, value, kind, bigEndian: true);

    [Fact]
    public async Task Damage_of_any_kind_ends_in_an_error_or_none()
    {
        byte[] contents = new byte[100_000];
        new Random(1).NextBytes(contents);
        byte[] image = CloopMaker.Make(contents, 4096);
        await s_cloop.DamageAsync(image, [(128, 8), (136, 208), (0, image.Length)], first: 1, rounds: 200);
    }

    [Fact]
    public void Both_ways_to_inflate_verify_the_checksum_and_the_length()
    {
        byte[] contents = new byte[5000], output = new byte[5000];
        new Random(1).NextBytes(contents.AsSpan(0, 2500));
        using var packed = new MemoryStream();
        using (var zlib = new ZLibStream(packed, CompressionLevel.Optimal, leaveOpen: true))
        {
            zlib.Write(contents);
        }
        byte[] stream = packed.ToArray();
        foreach (ZlibCodec codec in new[] { ZlibCodec.Instance, new ZlibCodec(null) })
        {
            Assert.True(codec.TryDecompress(stream, output));
            Assert.Equal(contents, output);
            Assert.False(codec.TryDecompress(stream, new byte[4999]));
            Assert.False(codec.TryDecompress(stream, new byte[5001]));
            Assert.False(codec.TryDecompress(stream.AsSpan(..^8), output));
            byte[] wrong = (byte[])stream.Clone();
            wrong[^1] ^= 1;
            Assert.False(codec.TryDecompress(wrong, output));
        }
    }
}
