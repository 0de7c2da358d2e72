using DiskImage.Block;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Luks;

/// <summary>Encrypted qcow2 and qcow images, both ways with qemu-img: alone, with snapshots, backing images and changes of size.</summary>
public sealed class Qcow2EncryptionTests : IDisposable
{
    private const int Size = 2 << 20;

    private readonly TestFolder _folder = new();

    public Qcow2EncryptionTests() => Images.UseSecret(LuksQemu.Passphrase);

    public void Dispose() => _folder.Dispose();

    public static TheoryData<string, string, string> Shapes => new()
    {
        { "qcow2", "qcow2-luks", "encrypt.format=luks,encrypt.iter-time=10" },
        { "qcow2", "qcow2-luks", "encrypt.format=luks,encrypt.iter-time=10,cluster_size=4k,encrypt.cipher-mode=cbc,encrypt.ivgen-alg=essiv" },
        { "qcow2", "qcow2-luks", "encrypt.format=luks,encrypt.iter-time=10,extended_l2=on,encrypt.cipher-alg=serpent-128" },
        { "qcow2", "qcow2-luks", "encrypt.format=luks,encrypt.iter-time=10,compat=0.10" },
        { "qcow2", "qcow2-luks", "encrypt.format=luks,encrypt.iter-time=10,preallocation=metadata" },
        { "qcow2", "qcow2-aes", "encrypt.format=aes" },
        { "qcow2", "qcow2-aes", "encryption=on,compat=0.10,cluster_size=512" },
        { "qcow", "qcow-aes", "encrypt.format=aes" },
    };

    [OracleTheory]
    [MemberData(nameof(Shapes))]
    public async Task Each_reads_what_the_other_wrote(string format, string theirs, string options)
    {
        await Images.MakeRawAsync(_folder["raw"], Size, seed: 8, unit: 32768);
        byte[] expected = await File.ReadAllBytesAsync(_folder["raw"]);
        await Images.ConvertAsync(_folder["raw"], "raw", _folder["ours"], format, options);
        await LuksQemu.CompareAsync(_folder["ours"], theirs, _folder["raw"], "raw");
        _ = await LuksQemu.IoAsync(_folder["ours"], theirs, "write -P 0x5a 100k 300k", "write -z 1M 64k", "write -P 7 1001k 3k");
        expected.AsSpan(100 << 10, 300 << 10).Fill(0x5A);
        expected.AsSpan(1 << 20, 64 << 10).Clear();
        expected.AsSpan(1001 << 10, 3 << 10).Fill(7);
        await using (BlockNode disk = await Images.OpenAsync(_folder["ours"], writable: true))
        {
            await EqualsAsync(expected, disk);
            await disk.WriteAsync(777, expected.AsMemory(200_000, 4000)); // no whole sectors
            expected.AsSpan(200_000, 4000).CopyTo(expected.AsSpan(777));
            await disk.WriteZeroesAsync(300_001, 50_000);
            expected.AsSpan(300_001, 50_000).Clear();
            Assert.True(disk.As<IDescribed>()!.Describe().Encrypted);
            Assert.All(await ExtentsAsync(disk), e => Assert.Null(e.HostOffset));
        }
        await File.WriteAllBytesAsync(_folder["raw"], expected);
        await LuksQemu.CompareAsync(_folder["ours"], theirs, _folder["raw"], "raw");
        if (format == "qcow2")
        {
            await LuksQemu.CheckAsync(_folder["ours"], theirs);
            await using BlockNode disk = await Images.OpenAsync(_folder["ours"]);
            CheckReport report = await disk.As<ICheckable>()!.CheckAsync(null, default);
            Assert.Equal((0L, 0L), (report.Corruptions, report.Leaks));
        }
    }

    [OracleTheory]
    [InlineData("qcow2", "qcow2-luks", "encrypt.format=luks,encrypt.key-secret=s0,encrypt.iter-time=10")]
    [InlineData("qcow2", "qcow2-aes", "encrypt.format=aes,encrypt.key-secret=s0")]
    [InlineData("qcow", "qcow-aes", "encrypt.format=aes,encrypt.key-secret=s0")]
    public async Task What_QEMU_makes_is_read_and_written(string format, string theirs, string options)
    {
        await LuksQemu.CreateAsync(_folder["theirs"], format, options, "2M");
        _ = await LuksQemu.IoAsync(_folder["theirs"], theirs, "write -P 0x33 0 500k");
        await using (BlockNode disk = await Images.OpenAsync(_folder["theirs"], writable: true))
        {
            byte[] read = new byte[500 << 10];
            await disk.ReadAsync(0, read);
            Assert.All(read, b => Assert.Equal(0x33, b));
            await disk.WriteAsync(600_000, read.AsMemory(0, 100_000));
        }
        _ = await LuksQemu.IoAsync(_folder["theirs"], theirs, "read -P 0x33 0 500k", "read -P 0x33 600000 100000", "read -P 0 1M 1M");
    }

    [OracleTheory]
    [InlineData("encrypt.format=luks,encrypt.iter-time=10", "qcow2-luks")]
    [InlineData("encrypt.format=aes", "qcow2-aes")]
    public async Task Snapshots_sizes_and_compacting_keep_the_data(string options, string theirs)
    {
        byte[] first = Pattern(1 << 20, 1), second = Pattern(300_000, 2);
        await Images.CreateAsync(_folder["disk"], "qcow2", $"size=2M,{options}");
        await using (BlockNode disk = await Images.OpenAsync(_folder["disk"], writable: true))
        {
            await disk.WriteAsync(0, first);
            _ = await disk.As<ISnapshots>()!.CreateSnapshotAsync("before", DateTimeOffset.UnixEpoch, default);
            await disk.WriteAsync(100_000, second);
            await disk.ResizeAsync(3 << 20);
            await using BlockNode state = await disk.As<ISnapshots>()!.OpenSnapshotAsync("before", default);
            await EqualsAsync(first, state, first.Length);
        }
        await LuksQemu.CheckAsync(_folder["disk"], theirs);
        _ = await LuksQemu.IoAsync(_folder["disk"], theirs, "write -P 9 1M 1M");
        await using (BlockNode disk = await Images.OpenAsync(_folder["disk"], writable: true))
        {
            await disk.DiscardAsync(0, 64 << 10);
            _ = await disk.As<ISnapshots>()!.DeleteSnapshotAsync("before", default);
            _ = await disk.As<ICompactable>()!.CompactAsync(null, default); // places change, and with them what is stored
        }
        await LuksQemu.CheckAsync(_folder["disk"], theirs);
        byte[] expected = [.. first, .. Enumerable.Repeat((byte)9, 1 << 20), .. new byte[1 << 20]];
        second.CopyTo(expected, 100_000);
        expected.AsSpan(0, 64 << 10).Clear();
        await File.WriteAllBytesAsync(_folder["raw"], expected);
        await LuksQemu.CompareAsync(_folder["disk"], theirs, _folder["raw"], "raw");
    }

    [OracleFact]
    public async Task Each_layer_of_a_chain_has_its_own_secret()
    {
        byte[] below = Pattern(1 << 20, 3), above = Pattern(70_000, 4);
        await Images.CreateAsync(_folder["base"], "qcow2", "size=1M,encrypt.format=luks,encrypt.iter-time=10");
        await using (BlockNode disk = await Images.OpenAsync(_folder["base"], writable: true))
        {
            await disk.WriteAsync(0, below);
        }
        Images.Secrets.Value = new Dictionary<string, System.Security.SecureString>(StringComparer.Ordinal)
        {
            [_folder["base"]] = Images.Secret(LuksQemu.Passphrase), ["top.qcow2"] = Images.Secret("the other"), [""] = Images.Secret("the other"),
        };
        await Images.CreateAsync(
            _folder["top.qcow2"], "qcow2", "size=1M,backing_file=base,backing_fmt=qcow2,encrypt.format=luks,encrypt.iter-time=10");
        await using (BlockNode disk = await Images.OpenAsync(_folder["top.qcow2"], writable: true))
        {
            await disk.WriteAsync(130_000, above); // copies what lies around it from below
        }
        above.CopyTo(below, 130_000);
        await using (BlockNode disk = await Images.OpenAsync(_folder["top.qcow2"]))
        {
            await EqualsAsync(below, disk);
        }
        await LuksQemu.CheckAsync(_folder["base"], "qcow2-luks");
        Images.Secrets.Value = null;
        await using BlockNode locked = await Images.OpenAsync(_folder["top.qcow2"]); // opens, and says what is missing when it is
        DiskImageException e = await Assert.ThrowsAsync<DiskImageException>(() => locked.ReadAsync(0, new byte[512]).AsTask());
        Assert.Equal(DiskImageErrorKind.SecretRequired, e.Kind);
    }

    [Fact]
    public async Task Compression_and_a_wrong_secret_are_refused()
    {
        await Images.CreateAsync(_folder["disk"], "qcow2", "size=1M,encrypt.format=luks,encrypt.iter-time=1");
        await using (BlockNode disk = await Images.OpenAsync(_folder["disk"], writable: true))
        {
            DiskImageException compressed = await Assert.ThrowsAsync<DiskImageException>(
                () => disk.As<ICompressedWritable>()!.WriteCompressedAsync(0, new byte[100], default).AsTask());
            Assert.Equal(DiskImageErrorKind.Unsupported, compressed.Kind);
            Assert.Throws<DiskImageException>(() => disk.As<ICompressedWritable>()!.Compress(new byte[65536], new byte[65536]));
        }
        Images.UseSecret("wrong");
        DiskImageException wrong = await Assert.ThrowsAsync<DiskImageException>(() => Images.OpenAsync(_folder["disk"]));
        Assert.Equal(DiskImageErrorKind.WrongSecret, wrong.Kind);
        Images.Secrets.Value = null;
        DiskImageException missing = await Assert.ThrowsAsync<DiskImageException>(
            () => Images.CreateAsync(_folder["new"], "qcow2", "size=1M,encrypt.format=luks"));
        Assert.Equal(DiskImageErrorKind.SecretRequired, missing.Kind);
        Assert.False(File.Exists(_folder["new"]));
    }

    private static byte[] Pattern(int length, int seed)
    {
        byte[] data = new byte[length];
        new Random(seed).NextBytes(data);
        return data;
    }

    private static async Task EqualsAsync(byte[] expected, BlockNode disk, int? length = null)
    {
        byte[] read = new byte[length ?? (int)disk.Length];
        await disk.ReadAsync(0, read);
        Assert.True(expected.AsSpan().SequenceEqual(read), $"differs at {expected.AsSpan().CommonPrefixLength(read):#,0}");
    }

    private static async Task<List<BlockExtent>> ExtentsAsync(BlockNode disk)
    {
        var extents = new List<BlockExtent>();
        for (long at = 0; at < disk.Length; at = extents[^1].End)
        {
            extents.Add(await disk.GetExtentAsync(at, disk.Length - at));
        }
        return extents;
    }
}
