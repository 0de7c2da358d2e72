using DiskImage.Block;
using DiskImage.Formats.Parallels;
using DiskImage.Graph;
using DiskImage.Tests.Conformance;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Parallels;

public sealed class ParallelsBundleTests : IDisposable
{
    private const int Cluster = BundleMaker.Cluster, Sectors = 8 * Cluster / 512;

    private readonly TestFolder _folder = new();
    private readonly BundleMaker _maker;

    public ParallelsBundleTests() => _maker = new BundleMaker(_folder, "vm.hdd");

    public void Dispose() => _folder.Dispose();

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task A_folder_or_its_descriptor_opens_as_the_chain_of_its_snapshots(bool isRootPlain)
    {
        (byte[] top, byte[] middle) = _maker.MakeChain(isRootPlain);
        foreach (string path in new[] { _maker.Folder, _maker.Folder + Path.DirectorySeparatorChar, _maker.Descriptor })
        {
            await using BlockNode disk = await Images.OpenAsync(path);
            Assert.Equal(top, await ReadAsync(disk));
            ImageDescription told = ((IDescribed)disk).Describe();
            Assert.Equal(("parallels", "middle.hds", _maker.Descriptor), (told.Format, told.BackingFile, disk.Name));
            Assert.Equal(2, ((ParallelsInfo)told.FormatSpecific!).Snapshots.Count);
            BlockExtent extent = await disk.GetExtentAsync(0, Cluster);
            Assert.Equal((2, true), (extent.Depth, extent.IsData));
        }
        await using BlockNode older = await Images.OpenAsync(_maker.Folder, options: $"snapshot={BundleMaker.Middle}");
        Assert.Equal(middle, await ReadAsync(older));
    }

    [Fact]
    public async Task Writing_changes_the_top_layer_alone_and_zeroes_hide_what_is_below()
    {
        (byte[] model, _) = _maker.MakeChain();
        byte[] root = await File.ReadAllBytesAsync(_folder["vm.hdd/root.hds"]);
        byte[] middle = await File.ReadAllBytesAsync(_folder["vm.hdd/middle.hds"]);
        await using (BlockNode disk = await Images.OpenAsync(_maker.Folder, writable: true))
        {
            model.AsSpan(100, 1000).Fill(7);
            await disk.WriteAsync(100, model.AsMemory(100, 1000));
            model.AsSpan(Cluster, 2 * Cluster).Clear();
            await disk.WriteZeroesAsync(Cluster, 2 * Cluster);
            _ = await disk.As<ICompactable>()!.CompactAsync(null, CancellationToken.None);
        }
        Assert.Equal(root, await File.ReadAllBytesAsync(_folder["vm.hdd/root.hds"]));
        Assert.Equal(middle, await File.ReadAllBytesAsync(_folder["vm.hdd/middle.hds"]));
        await using (BlockNode again = await Images.OpenAsync(_maker.Descriptor))
        {
            Assert.Equal(model, await ReadAsync(again));
            Assert.Empty((await again.As<ICheckable>()!.CheckAsync(null, CancellationToken.None)).Findings);
        }
        DiskImageException refused = await Assert.ThrowsAsync<DiskImageException>(
            () => Images.OpenAsync(_maker.Folder, writable: true, options: $"snapshot={BundleMaker.Middle}"));
        Assert.Equal(DiskImageErrorKind.ReadOnly, refused.Kind);
    }

    [Theory]
    [InlineData("root.hds", "OutOfFile")]
    [InlineData("middle.hds", "OutOfFile")]
    [InlineData("middle.hds", "Layer")]
    public async Task What_is_wrong_with_a_layer_below_the_top_is_found_with_its_name(string file, string kind)
    {
        _ = _maker.MakeChain();
        string path = _folder[$"vm.hdd/{file}"];
        await using (BlockNode sound = (await Images.Opener.OpenAsync(
            new OpenRequest(_maker.Folder) { WithBacking = false }, CancellationToken.None)).Node)
        {
            Assert.Empty((await sound.As<ICheckable>()!.CheckAsync(null, CancellationToken.None)).Findings);
        }
        byte[] bytes = await File.ReadAllBytesAsync(path);
        int at = kind.Equals("Layer", StringComparison.Ordinal) ? 0 // the signature
            : Enumerable.Range(0, 8).Select(i => 64 + (i * 4)).First(a => BitConverter.ToUInt32(bytes, a) != 0);
        BitConverter.TryWriteBytes(bytes.AsSpan(at), 0x00FF_FFFFu);
        await File.WriteAllBytesAsync(path, bytes);
        await using BlockNode disk = (await Images.Opener.OpenAsync(
            new OpenRequest(_maker.Folder) { WithBacking = false }, CancellationToken.None)).Node; // as Test-DiskImage does
        CheckReport report = await disk.As<ICheckable>()!.CheckAsync(null, CancellationToken.None);
        Assert.True(report.Corruptions > 0);
        CheckFinding found = report.Findings.First(f => f.Kind.Equals(kind, StringComparison.Ordinal));
        Assert.StartsWith(file, found.Message, StringComparison.Ordinal);
        Assert.Null(found.Repair);
    }

    /// <summary>ploop takes the layers alone, without their descriptor: what it merges is what the bundle reads as.</summary>
    [OracleFact("ploop")]
    public async Task What_ploop_merges_is_what_the_chain_reads_as()
    {
        const int MiB = 1 << 20;
        await Images.MakeRawAsync(_folder["disk.raw"], 9 * MiB, seed: 12);
        _ = Directory.CreateDirectory(_maker.Folder);
        await Images.ConvertAsync(_folder["disk.raw"], "raw", _folder["vm.hdd/root.hds"], "parallels");
        await Images.CreateAsync(_folder["vm.hdd/top.hds"], "parallels", $"size={9 * MiB}");
        _maker.Describe(
            9 * MiB / 512,
            BundleMaker.Storage(0, 9 * MiB / 512, (BundleMaker.Root, "Compressed", "root.hds"), (BundleMaker.Top, "Compressed", "top.hds")),
            BundleMaker.Shot(BundleMaker.Top, BundleMaker.Root) + BundleMaker.Shot(BundleMaker.Root, BundleMaker.Nothing));
        byte[] model;
        await using (BlockNode disk = await Images.OpenAsync(_maker.Folder, writable: true))
        {
            await disk.WriteAsync((2 * MiB) - 5000, Enumerable.Repeat((byte)8, 10_000).ToArray());
            await disk.WriteZeroesAsync(5 * MiB, 2 * MiB);
            model = await ReadAsync(disk);
        }
        foreach (string name in new[] { "root.hds", "top.hds" })
        {
            await File.WriteAllBytesAsync(_folder[name], await File.ReadAllBytesAsync(_folder[$"vm.hdd/{name}"])); // without holes
        }
        await Programs.RunAsync("ploop", "merge", _folder["top.hds"], _folder["root.hds"]);
        await using BlockNode merged = await Images.OpenAsync(_folder["root.hds"]);
        Assert.Equal(model, await ReadAsync(merged));
        Assert.Empty((await merged.As<ICheckable>()!.CheckAsync(null, CancellationToken.None)).Findings);
    }

    [Fact]
    public async Task A_split_image_is_its_storages_one_behind_the_other()
    {
        (byte[] chain, _) = _maker.MakeChain();
        byte[] last = Enumerable.Repeat((byte)9, 3 * Cluster).ToArray();
        await File.WriteAllBytesAsync(_folder["vm.hdd/last.hds"], last);
        _maker.Image("last-top.hds", [null, null, null]);
        _maker.Image("last-middle.hds", [null, Enumerable.Repeat((byte)3, Cluster).ToArray(), null]);
        last.AsSpan(Cluster, Cluster).Fill(3);
        _maker.Describe(
            Sectors + (3 * Cluster / 512),
            BundleMaker.Storage(
                Sectors,
                Sectors + (3 * Cluster / 512),
                (BundleMaker.Top, "Compressed", "last-top.hds"),
                (BundleMaker.Middle, "Compressed", "last-middle.hds"),
                (BundleMaker.Root, "Plain", "last.hds"))
                + BundleMaker.Storage(
                    0,
                    Sectors,
                    (BundleMaker.Root, "Compressed", "root.hds"),
                    (BundleMaker.Middle, "Compressed", "middle.hds"),
                    (BundleMaker.Top, "Compressed", "top.hds")),
            BundleMaker.Shot(
                BundleMaker.Root,
                BundleMaker.Nothing) + BundleMaker.Shot(BundleMaker.Middle,
                BundleMaker.Root) + BundleMaker.Shot(BundleMaker.Top,
                BundleMaker.Middle)
                + $"<TopGUID>{BundleMaker.Top}</TopGUID>");
        byte[] model = [.. chain, .. last];
        await using (BlockNode disk = await Images.OpenAsync(_maker.Folder, writable: true))
        {
            Assert.Equal(model, await ReadAsync(disk));
            model.AsSpan((8 * Cluster) - 700, 1400).Fill(5);
            await disk.WriteAsync((8 * Cluster) - 700, model.AsMemory((8 * Cluster) - 700, 1400));
            await disk.FlushAsync();
            Assert.Empty((await disk.As<ICheckable>()!.CheckAsync(null, CancellationToken.None)).Findings);
        }
        await using BlockNode again = await Images.OpenAsync(_maker.Folder);
        Assert.Equal(model, await ReadAsync(again));
    }

    public static TheoryData<string, string, DiskImageErrorKind> Bad()
    {
        string shots = BundleMaker.Shot(BundleMaker.Top, BundleMaker.Nothing);
        string image = "<Image><GUID>{0}</GUID><Type>Compressed</Type><File>top.hds</File></Image>";
        string Storage(
            string images,
            int start = 0,
            int end = Sectors) => $"<Storage><Start>{start}</Start><End>{end}</End><Blocksize>128</Blocksize>{images}</Storage>";
        string good = Storage(image.Replace("{0}", BundleMaker.Top, StringComparison.Ordinal));
        return new()
        {
            { good, BundleMaker.Shot(BundleMaker.Top, BundleMaker.Top), DiskImageErrorKind.Corrupt }, // a circle
            { good, BundleMaker.Shot(BundleMaker.Top, BundleMaker.Middle), DiskImageErrorKind.Corrupt }, // no root
            { good, BundleMaker.Shot(BundleMaker.Root, BundleMaker.Nothing), DiskImageErrorKind.Corrupt }, // no top
            { good, shots + shots, DiskImageErrorKind.Corrupt },
            { Storage(""), shots, DiskImageErrorKind.Corrupt },
            { Storage(image.Replace("{0}", "5", StringComparison.Ordinal)), shots, DiskImageErrorKind.Corrupt },
            { good + good, shots, DiskImageErrorKind.Corrupt },
            { Storage(image.Replace("{0}", BundleMaker.Top, StringComparison.Ordinal), 0, Sectors - 1), shots, DiskImageErrorKind.Corrupt },
            { Storage(image.Replace("{0}", BundleMaker.Top, StringComparison.Ordinal), 1, Sectors), shots, DiskImageErrorKind.Corrupt },
            { "", shots, DiskImageErrorKind.Corrupt },
            { good.Replace("Compressed", "Other", StringComparison.Ordinal), shots, DiskImageErrorKind.Unsupported },
            { good.Replace("top.hds", "missing.hds", StringComparison.Ordinal), shots, DiskImageErrorKind.NotFound },
            { good.Replace("top.hds", "../out.hds", StringComparison.Ordinal), shots, DiskImageErrorKind.Refused },
            { good.Replace("top.hds", "/etc/hostname", StringComparison.Ordinal), shots, DiskImageErrorKind.Refused },
            { good.Replace("top.hds", "json:{}", StringComparison.Ordinal), shots, DiskImageErrorKind.Refused },
            { good.Replace("top.hds", "https://127.0.0.1/x", StringComparison.Ordinal), shots, DiskImageErrorKind.Refused },
            { good.Replace("top.hds", "&lt;bad", StringComparison.Ordinal) + "<unclosed>", shots, DiskImageErrorKind.Corrupt },
            { string.Concat(
                Enumerable.Repeat("<a>", 50)) + string.Concat(Enumerable.Repeat("</a>", 50)) + good, shots, DiskImageErrorKind.Corrupt },
        };
    }

    [Theory]
    [MemberData(nameof(Bad))]
    public async Task A_descriptor_that_cannot_be_is_refused(string storages, string snapshots, DiskImageErrorKind kind)
    {
        _ = _maker.MakeChain();
        File.Copy(_folder["vm.hdd/top.hds"], _folder["out.hds"]);
        _maker.Describe(Sectors, storages, snapshots);
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(() => Images.OpenAsync(_maker.Folder));
        Assert.Equal(kind, error.Kind);
    }

    [Fact]
    public async Task Types_and_entities_of_XML_padding_and_encryption_are_refused()
    {
        _ = _maker.MakeChain();
        string storages = BundleMaker.Storage(0, Sectors, (BundleMaker.Root, "Compressed", "root.hds"));
        string shots = BundleMaker.Shot(BundleMaker.Root, BundleMaker.Nothing) + $"<TopGUID>{BundleMaker.Root}</TopGUID>";
        _maker.Describe(Sectors, storages, shots);
        await using (BlockNode good = await Images.OpenAsync(_maker.Folder))
        {
            Assert.Equal(8 * Cluster, good.Length);
        }
        _maker.Describe(Sectors, storages, shots, prolog: "<!DOCTYPE x [<!ENTITY e SYSTEM 'file:///etc/hostname'>]>\n");
        Assert.Equal(
            DiskImageErrorKind.Corrupt, (await Assert.ThrowsAsync<DiskImageException>(() => Images.OpenAsync(_maker.Folder))).Kind);
        _maker.Describe(Sectors, storages, shots, more: "<Encryption><Engine>{11111111-0000-0000-0000-000000000000}</Engine></Encryption>");
        Assert.Equal(
            DiskImageErrorKind.Unsupported, (await Assert.ThrowsAsync<DiskImageException>(() => Images.OpenAsync(_maker.Folder))).Kind);
        await File.WriteAllTextAsync(
            _maker.Descriptor,
            (await File.ReadAllTextAsync(_maker.Descriptor)).Replace("<Padding>0", "<Padding>1", StringComparison.Ordinal));
        Assert.Equal(
            DiskImageErrorKind.Unsupported, (await Assert.ThrowsAsync<DiskImageException>(() => Images.OpenAsync(_maker.Folder))).Kind);
    }

    /// <summary>Descriptors that are made to cost: of a GiB, of storages and snapshots without number.</summary>
    [Fact]
    public async Task Descriptors_without_end_are_refused()
    {
        _ = _maker.MakeChain();
        string whole = await File.ReadAllTextAsync(_maker.Descriptor);
        await using (FileStream huge = File.Open(_maker.Descriptor, FileMode.Open))
        {
            huge.SetLength(1L << 30);
        }
        Assert.Equal(DiskImageErrorKind.Corrupt, (await RefusedAsync()).Kind);
        string shot = BundleMaker.Shot(BundleMaker.Top, BundleMaker.Nothing);
        string image = BundleMaker.Storage(0, Sectors, (BundleMaker.Top, "Compressed", "top.hds"));
        _maker.Describe(Sectors, string.Concat(Enumerable.Repeat(image, 20_000)), shot);
        Assert.Equal(DiskImageErrorKind.Corrupt, (await RefusedAsync()).Kind);
        _maker.Describe(Sectors, image, shot + string.Concat(Enumerable.Range(1, 30_000).Select(
            i => BundleMaker.Shot($"{{{i:x8}-0000-0000-0000-000000000000}}", $"{{{i - 1:x8}-0000-0000-0000-000000000000}}"))));
        await using (BlockNode disk = await Images.OpenAsync(_maker.Folder)) // what the top layer does not stand on costs nothing more
        {
            Assert.Equal(Sectors * 512, disk.Length);
        }
        _maker.Describe(Sectors, image, BundleMaker.Shot(BundleMaker.Top, "{00000001-0000-0000-0000-000000000000}") + string.Concat(
            Enumerable.Range(1, 20_000).Select(i => BundleMaker.Shot(
                $"{{{i:x8}-0000-0000-0000-000000000000}}", $"{{{(i == 20_000 ? 0 : i + 1):x8}-0000-0000-0000-000000000000}}"))));
        Assert.Equal(DiskImageErrorKind.Corrupt, (await RefusedAsync()).Kind);
        await File.WriteAllTextAsync(_maker.Descriptor, whole);
        await using BlockNode good = await Images.OpenAsync(_maker.Folder);
        Assert.Equal(Sectors * 512, good.Length);

        Task<DiskImageException> RefusedAsync() => Assert.ThrowsAsync<DiskImageException>(() => Images.OpenAsync(_maker.Folder));
    }

    [Fact]
    public async Task An_image_that_is_a_link_out_of_the_folder_a_pipe_or_a_device_is_refused()
    {
        if (OperatingSystem.IsWindows())
        {
            return; // paths of another system
        }
        _ = _maker.MakeChain();
        string top = _folder["vm.hdd/top.hds"];
        File.Copy(top, _folder["out.hds"]);
        File.Delete(top);
        File.CreateSymbolicLink(top, _folder["out.hds"]);
        Assert.Equal(
            DiskImageErrorKind.Refused, (await Assert.ThrowsAsync<DiskImageException>(() => Images.OpenAsync(_maker.Folder))).Kind);
        File.Delete(top);
        _ = await Programs.RunAsync("mkfifo", top);
        Assert.Equal(
            DiskImageErrorKind.InvalidOption, (await Assert.ThrowsAsync<DiskImageException>(() => Images.OpenAsync(_maker.Folder))).Kind);
        File.Delete(top);
        File.CreateSymbolicLink(top, "/dev/null");
        Assert.Equal(
            DiskImageErrorKind.Refused, (await Assert.ThrowsAsync<DiskImageException>(() => Images.OpenAsync(_maker.Folder))).Kind);
    }

    [Fact]
    public async Task What_a_user_allows_is_opened_outside_the_folder()
    {
        (byte[] top, _) = _maker.MakeChain();
        File.Move(_folder["vm.hdd/root.hds"], _folder["out.hds"]);
        await File.WriteAllTextAsync(
            _maker.Descriptor,
            (await File.ReadAllTextAsync(_maker.Descriptor)).Replace(">root.hds", ">../out.hds", StringComparison.Ordinal));
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(() => Images.OpenAsync(_maker.Folder));
        Assert.Equal(DiskImageErrorKind.Refused, error.Kind);
        await using BlockNode disk = await Images.OpenAsync(
            _maker.Folder, policy: OpenPolicy.Default with { References = ReferenceScope.LocalFiles });
        Assert.Equal(top, await ReadAsync(disk));
    }

    private static async Task<byte[]> ReadAsync(BlockNode disk)
    {
        byte[] bytes = new byte[disk.Length];
        await disk.ReadAsync(0, bytes);
        return bytes;
    }
}

/// <summary>The top of a chain, whose contents are partly the snapshot's.</summary>
public sealed class ParallelsBundleNodeTests : NodeConformance
{
    private protected override bool CanResize => true;

    private protected override bool CanShrink => false;

    private protected override bool CanPreallocate => false;

    private protected override async Task<BlockNode> MakeAsync(byte[] contents, bool writable)
    {
        var maker = new BundleMaker(Folder, "vm.hdd");
        int count = (contents.Length + BundleMaker.Cluster - 1) / BundleMaker.Cluster;
        byte[] padded = [.. contents, .. new byte[(count * BundleMaker.Cluster) - contents.Length]];
        byte[] Part(int i) => padded[(i * BundleMaker.Cluster)..((i + 1) * BundleMaker.Cluster)];
        long sectors = contents.Length / 512;
        maker.Image(
            "root.hds",
            [.. Enumerable.Range(0, count).Select(i => i % 3 == 0 ? null : i % 2 == 0 ? Part(i) : new byte[BundleMaker.Cluster])],
            sectors);
        maker.Image("top.hds", [.. Enumerable.Range(0, count).Select(i => i % 3 == 0 || i % 2 == 1 ? Part(i) : null)], sectors);
        maker.Describe(
            sectors,
            BundleMaker.Storage(0, sectors, (BundleMaker.Root, "Compressed", "root.hds"), (BundleMaker.Top, "Compressed", "top.hds")),
            BundleMaker.Shot(BundleMaker.Top, BundleMaker.Root) + BundleMaker.Shot(BundleMaker.Root, BundleMaker.Nothing));
        return await Images.OpenAsync(maker.Folder, writable: writable);
    }
}
