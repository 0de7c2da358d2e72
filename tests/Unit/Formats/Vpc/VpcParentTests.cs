using System.Text;
using DiskImage.Block;
using DiskImage.Formats.Vpc;
using DiskImage.Graph;
using DiskImage.Jobs;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Vpc;

/// <summary>Differencing disks: making them, finding their parents, telling the right parent from a wrong one.</summary>
public sealed class VpcParentTests : IDisposable
{
    private const int Size = 6 << 20;

    private readonly TestFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public async Task A_chain_across_folders_is_recorded_as_Windows_expects_and_reads_as_written()
    {
        Directory.CreateDirectory(_folder["a/b"]);
        byte[] expected = await ChainAsync("base.vhd", "a/mid.vhd", "a/b/top.vhd");
        await using (BlockNode top = await Images.OpenAsync(
            _folder["a/b/top.vhd"], policy: new OpenPolicy { References = ReferenceScope.LocalFiles }))
        {
            Assert.Equal(expected, await VpcDisks.ReadAsync(top));
            VpcInfo info = VpcOracleTests.Info(top);
            Assert.Equal(nameof(VpcDiskType.Differencing), info.DiskType);
            Assert.Equal(VpcOracleTests.Info(top.Child("backing")!).UniqueId, info.ParentUniqueId);
            Assert.Equal("../mid.vhd", ((IDescribed)top).Describe().BackingFile);
            Assert.Equal(2, (await top.GetExtentAsync(4 << 20, 512)).Depth);
        }
        (VhdReader @base, byte[] contents) = VhdReader.Read(_folder["base.vhd"]);
        (VhdReader mid, contents) = VhdReader.Read(_folder["a/mid.vhd"], contents);
        (VhdReader last, contents) = VhdReader.Read(_folder["a/b/top.vhd"], contents);
        Assert.Equal(expected, contents);
        Assert.Equal(@base.UniqueId, mid.ParentId);
        Assert.Equal(mid.UniqueId, last.ParentId);
        Assert.Equal("mid.vhd", last.ParentName);
        Assert.Equal(@"..\mid.vhd", last.Locators["W2ru"]);
        Assert.Equal(mid.Time, last.ParentTime);
        Assert.Equal(OperatingSystem.IsWindows(), last.Locators.ContainsKey("W2ku"));
    }

    /// <summary>
    /// libvhdi 20210425 takes all sectors from the first set bit to the end of a bitmap's byte for set (a byte of 0xC0 reads as 0xFF), so
    /// what it judges is written by eight sectors.
    /// </summary>
    [VhdiFact]
    public async Task Libvhdi_reads_a_chain_identical()
    {
        byte[] expected = await ChainAsync(8 * 512, "base.vhd", "mid.vhd", "top.vhd");
        byte[] theirs = await Vhdi.ReadAsync(_folder["top.vhd"], _folder["mnt"]);
        Assert.True(expected.AsSpan().SequenceEqual(theirs));
    }

    [Fact]
    public async Task A_chain_that_moves_as_a_whole_still_opens()
    {
        byte[] expected = await ChainAsync("base.vhd", "mid.vhd", "top.vhd");
        Directory.CreateDirectory(_folder["elsewhere"]);
        foreach (string name in new[] { "base.vhd", "mid.vhd", "top.vhd" })
        {
            File.Move(_folder[name], _folder["elsewhere/" + name]);
        }
        await using BlockNode top = await Images.OpenAsync(_folder["elsewhere/top.vhd"]);
        Assert.Equal(expected, await VpcDisks.ReadAsync(top));
    }

    [Fact]
    public async Task Another_parent_is_a_mismatch_unless_that_is_ignored()
    {
        _ = await ChainAsync("base.vhd", "top.vhd");
        File.Delete(_folder["base.vhd"]);
        await Images.CreateAsync(_folder["base.vhd"], "vpc", $"size={Size},force_size");
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(() => Images.OpenAsync(_folder["top.vhd"]));
        Assert.Equal(DiskImageErrorKind.Corrupt, error.Kind);
        Assert.Contains("identifier", error.Message, StringComparison.Ordinal);
        Assert.Contains("ignore_id_mismatch", error.Message, StringComparison.Ordinal);
        await using BlockNode top = await Images.OpenAsync(_folder["top.vhd"], options: "ignore_id_mismatch=on");
        Assert.NotNull(top.Child("backing"));
    }

    [Fact]
    public async Task A_parent_that_was_changed_since_is_a_mismatch_unless_that_is_ignored()
    {
        Directory.CreateDirectory(_folder["sub"]);
        await MakeByHandAsync("W2ru", "p2.vhd", "p2.vhd", parentTime: 500_000_000); // neither the footer's stamp nor the file's time
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(() => Images.OpenAsync(_folder["c.vhd"]));
        Assert.Equal(DiskImageErrorKind.Corrupt, error.Kind);
        Assert.Contains("time stamp", error.Message, StringComparison.Ordinal);
        await using (BlockNode child = await Images.OpenAsync(_folder["c.vhd"], options: "ignore_id_mismatch=on"))
        {
            Assert.NotNull(child.Child("backing"));
        }
        File.SetLastWriteTimeUtc(_folder["p2.vhd"], VpcFooter.Time(500_000_000).UtcDateTime); // what Xen's and other tools record
        await (await Images.OpenAsync(_folder["c.vhd"])).DisposeAsync();
    }

    [Fact]
    public async Task A_parent_below_a_filter_is_known()
    {
        var parent = new MemoryNode();
        await VpcDisks.CreateAsync(parent, "size=1M,force_size");
        var child = new MemoryNode();
        async Task<BlockNode> BelowAsync() => new WriteLogNode(await VpcDisks.OpenAsync(new MemoryNode(parent.ToArray(), readOnly: true)));
        await using (BlockNode below = await BelowAsync())
        {
            await VpcDisks.CreateAsync(child, "backing_file=p.vhd", below);
        }
        BlockNode again = await BelowAsync();
        await using BlockNode disk = await VpcDisks.OpenAsync(child, () => again);
        Assert.Same(again, disk.Child("backing"));
    }

    [Fact]
    public async Task A_change_of_the_parent_does_not_keep_the_file_from_being_cut()
    {
        var file = new MemoryNode();
        await VpcDisks.CreateAsync(file, "size=1M,block_size=4k");
        await using (BlockNode disk = await VpcDisks.OpenAsync(file))
        {
            await disk.WriteAsync(0, new byte[] { 1 }); // the file grows ahead
            Assert.True(file.Length > 100_000);
            await ((IRebasable)disk).SetBackingAsync(null, null, null, CancellationToken.None);
        }
        Assert.True(file.Length < 16_384);
    }

    [Fact]
    public async Task A_disk_that_is_emptied_shows_its_parent_and_takes_its_time_stamp()
    {
        Directory.CreateDirectory(_folder["sub"]);
        await MakeByHandAsync("W2ru", "p2.vhd", "p2.vhd", parentTime: 500_000_000);
        await using (BlockNode top = await Images.OpenAsync(_folder["c.vhd"], writable: true, options: "ignore_id_mismatch=on"))
        {
            await ((IEmptiable)top).MakeEmptyAsync(CancellationToken.None);
        }
        await using BlockNode again = await Images.OpenAsync(_folder["c.vhd"]);
        Assert.All(await VpcDisks.ReadAsync(again), b => Assert.Equal(9, b));
        Assert.Equal(0, (await VpcDisks.CheckAsync(again)).AllocatedClusters);
    }

    [Fact]
    public async Task A_merge_leaves_a_child_on_a_parent_that_it_knew_by_the_time_of_its_file()
    {
        Directory.CreateDirectory(_folder["sub"]);
        await MakeByHandAsync("W2ru", "p2.vhd", "p2.vhd", parentTime: 500_000_000);
        File.SetLastWriteTimeUtc(_folder["p2.vhd"], VpcFooter.Time(500_000_000).UtcDateTime);
        byte[] expected;
        BlockNode target = await Images.OpenAsync(_folder["p2.vhd"], writable: true);
        await using (BlockNode top = (await Images.Opener.OpenAsync(
            new OpenRequest(_folder["c.vhd"])
            {
                Writable = true,
                Opened = new Dictionary<NodeIdentity, BlockNode> { [target.HolderIdentity()!.Value] = target },
            },
            CancellationToken.None)).Node)
        {
            expected = await VpcDisks.ReadAsync(top);
            await new CommitJob(top, 1, target).RunAsync(null, CancellationToken.None);
        }
        await target.DisposeAsync();
        await using BlockNode child = await Images.OpenAsync(_folder["c.vhd"]);
        Assert.Equal(expected, await VpcDisks.ReadAsync(child));
        await using BlockNode parent = await Images.OpenAsync(_folder["p2.vhd"]);
        Assert.Equal(expected, await VpcDisks.ReadAsync(parent));
    }

    [Theory]
    [InlineData("W2ru", @".\sub\p.vhd")]
    [InlineData("W2ru", @"sub\p.vhd")]
    [InlineData("W2ru", "p2.vhd")]
    [InlineData("W2ku", @"C:\vms\p2.vhd")]
    [InlineData("W2ku", @"\\server\share\p2.vhd")]
    [InlineData("MacX", "file://localhost{0}/sub/p.vhd")]
    [InlineData("MacX", "file://{0}/sub/p.vhd")]
    [InlineData("Wi2r", @".\sub\p.vhd")]
    [InlineData("Wi2k", @"D:\p2.vhd")]
    [InlineData("Mac ", "an alias is no text")]
    public async Task Every_kind_of_locator_leads_to_the_parent(string platform, string text)
    {
        Directory.CreateDirectory(_folder["sub"]);
        await MakeByHandAsync(platform, string.Format(text, _folder.Root), text.StartsWith("an alias", StringComparison.Ordinal)
            ? "p2.vhd" : "wrong name");
        await using BlockNode child = await Images.OpenAsync(_folder["c.vhd"]);
        byte[] contents = await VpcDisks.ReadAsync(child);
        Assert.Equal(7, contents[0]);
        Assert.Equal(9, contents[512]);
        Assert.Equal(9, contents[^1]);
        Assert.Empty((await VpcDisks.CheckAsync(child)).Findings);
    }

    [Fact]
    public async Task A_wrong_disk_of_the_right_name_gives_way_to_the_next_name()
    {
        Directory.CreateDirectory(_folder["sub"]);
        await MakeByHandAsync("W2ru", @"p3.vhd", "p2.vhd");
        await Images.CreateAsync(_folder["p3.vhd"], "vpc", "size=1M");
        await using BlockNode child = await Images.OpenAsync(_folder["c.vhd"]);
        Assert.EndsWith("p2.vhd", child.Child("backing")!.Name, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_missing_parent_is_NotFound_with_all_that_was_tried()
    {
        Directory.CreateDirectory(_folder["sub"]);
        await MakeByHandAsync("W2ku", @"\nowhere\lost.vhd", "gone.vhd");
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(
            () => Images.OpenAsync(_folder["c.vhd"], policy: new OpenPolicy { References = ReferenceScope.LocalFiles }));
        Assert.Equal(DiskImageErrorKind.NotFound, error.Kind);
        Assert.Contains("lost.vhd", error.Message, StringComparison.Ordinal);
        Assert.Contains("gone.vhd", error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("json:{\"driver\":\"raw\",\"file.filename\":\"/etc/hostname\"}")]
    [InlineData(@"nbd:\\127.0.0.1:1\x")]
    [InlineData("https://127.0.0.1:1/x.vhd")]
    public async Task What_looks_like_a_locator_of_another_protocol_is_a_path(string text)
    {
        Directory.CreateDirectory(_folder["sub"]);
        await MakeByHandAsync("W2ru", text, "gone.vhd");
        var policy = new OpenPolicy { References = ReferenceScope.Anywhere };
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(() => Images.OpenAsync(_folder["c.vhd"], policy: policy));
        Assert.Equal(DiskImageErrorKind.NotFound, error.Kind);
    }

    [Fact]
    public async Task The_policy_decides_over_locators()
    {
        Directory.CreateDirectory(_folder["a"]);
        _ = await ChainAsync("base.vhd", "a/top.vhd");
        var policy = new OpenPolicy { References = ReferenceScope.SameFolder };
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(
            () => Images.OpenAsync(_folder["a/top.vhd"], policy: policy));
        Assert.Equal(DiskImageErrorKind.Refused, error.Kind);
    }

    [Fact]
    public async Task A_disk_that_is_its_own_parent_or_grandparent_does_not_open()
    {
        Directory.CreateDirectory(_folder["sub"]);
        await MakeByHandAsync("W2ru", @".\c.vhd", "c.vhd");
        Assert.Equal(
            DiskImageErrorKind.Corrupt,
            (await Assert.ThrowsAsync<DiskImageException>(
                () => Images.OpenAsync(_folder["c.vhd"], options: "ignore_id_mismatch=on"))).Kind);
        await MakeByHandAsync("W2ru", @".\d.vhd", "d.vhd");
        File.Copy(_folder["c.vhd"], _folder["d.vhd"]);
        await MakeByHandAsync("W2ru", @".\d.vhd", "d.vhd");
        byte[] back = await File.ReadAllBytesAsync(_folder["d.vhd"]);
        back[2048 + 4] = (byte)'c'; // d names c
        await File.WriteAllBytesAsync(_folder["d.vhd"], back);
        Assert.Equal(
            DiskImageErrorKind.Corrupt,
            (await Assert.ThrowsAsync<DiskImageException>(
                () => Images.OpenAsync(_folder["c.vhd"], options: "ignore_id_mismatch=on"))).Kind);
    }

    [Fact]
    public async Task Only_a_vhd_can_be_a_parent()
    {
        await File.WriteAllBytesAsync(_folder["p.raw"], new byte[1 << 20]);
        await Images.CreateAsync(_folder["p.qcow2"], "qcow2", "size=1M");
        foreach (string name in new[] { "p.raw", "p.qcow2" })
        {
            DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(
                () => Images.CreateAsync(_folder["c.vhd"], "vpc", $"size=1M,backing_file={name}"));
            Assert.Equal(DiskImageErrorKind.InvalidOption, error.Kind);
        }
        Assert.False(File.Exists(_folder["c.vhd"]));
    }

    [Fact]
    public async Task The_parent_can_be_changed_taken_away_and_given()
    {
        byte[] expected = await ChainAsync("base.vhd", "mid.vhd", "top.vhd");
        Directory.CreateDirectory(_folder["moved"]);
        File.Move(_folder["mid.vhd"], _folder["moved/mid.vhd"]);
        await using (BlockNode parent = await Alone("moved/mid.vhd"))
        {
            await using BlockNode top = await Alone("top.vhd", writable: true);
            await ((IRebasable)top).SetBackingAsync("moved/mid.vhd", "vpc", parent, CancellationToken.None);
            Assert.Empty((await VpcDisks.CheckAsync(top)).Findings);
        }
        File.Copy(_folder["base.vhd"], _folder["moved/base.vhd"]);
        File.SetLastWriteTimeUtc(_folder["moved/base.vhd"], File.GetLastWriteTimeUtc(_folder["base.vhd"]));
        await using (BlockNode top = await Images.OpenAsync(_folder["top.vhd"]))
        {
            Assert.Equal(expected, await VpcDisks.ReadAsync(top));
        }
        await using (BlockNode top = await Images.OpenAsync(_folder["top.vhd"], writable: true))
        {
            await ((IRebasable)top).SetBackingAsync(null, null, null, CancellationToken.None);
        }
        await using BlockNode alone = await Images.OpenAsync(_folder["top.vhd"]);
        Assert.Equal(nameof(VpcDiskType.Dynamic), VpcOracleTests.Info(alone).DiskType);
        Assert.Empty((await VpcDisks.CheckAsync(alone)).Findings);
        Assert.Null(((IDescribed)alone).Describe().BackingFile);
        Assert.Equal(new byte[512], (await VpcDisks.ReadAsync(alone))[(4 << 20)..((4 << 20) + 512)]);

        async Task<BlockNode> Alone(string name, bool writable = false)
            => (await Images.Opener.OpenAsync(
                new OpenRequest(_folder[name]) { Format = "vpc", WithBacking = false, Writable = writable }, CancellationToken.None)).Node;
    }

    /// <summary>Each image holds something of its own; returns what the last reads as.</summary>
    private Task<byte[]> ChainAsync(params string[] names) => ChainAsync(1, names);

    private async Task<byte[]> ChainAsync(int grain, params string[] names)
    {
        byte[] expected = new byte[Size];
        var random = new Random(names.Length);
        for (int i = 0; i < names.Length; i++)
        {
            string parent = i == 0
                ? ""
                : $",backing_file={Path.GetRelativePath(Path.GetDirectoryName(_folder[names[i]])!, _folder[names[i - 1]])}";
            var trusting = new OpenPolicy { References = ReferenceScope.LocalFiles };
            await Images.CreateAsync(_folder[names[i]], "vpc", i == 0 ? $"size={Size},force_size" : $"size={Size}{parent}", trusting);
            await using BlockNode disk = await Images.OpenAsync(_folder[names[i]], writable: true, policy: trusting);
            if (i == 0)
            {
                random.NextBytes(expected.AsSpan(4 << 20, 1 << 20));
                await disk.WriteAsync(4 << 20, expected.AsMemory(4 << 20, 1 << 20));
            }
            for (int k = 0; k < 20; k++)
            {
                int length = random.Next(grain, 40_000) / grain * grain, at = random.Next((4 << 20) - length) / grain * grain;
                random.NextBytes(expected.AsSpan(at, length));
                await disk.WriteAsync(at, expected.AsMemory(at, length));
            }
            if (i > 0)
            {
                int zeroes = 300_000 / grain * grain;
                expected.AsSpan(i << 20, zeroes).Clear();
                await disk.WriteZeroesAsync(i << 20, zeroes);
            }
        }
        return expected;
    }

    /// <summary>
    /// A child with one locator, whose first sector is its own (7), over parents at sub/p.vhd and p2.vhd that are all nines.
    /// </summary>
    private async Task MakeByHandAsync(string platform, string text, string parentName, uint parentTime = 77)
    {
        const uint Block = 64 << 10;
        byte[] parent = VhdMaker.Footer("win ", 128 << 10, (2, 4, 17), 2, id: 0x22, time: 77);
        byte[] nines = new byte[128 << 10];
        Array.Fill(nines, (byte)9);
        foreach (string name in new[] { "sub/p.vhd", "p2.vhd" })
        {
            await File.WriteAllBytesAsync(_folder[name], [.. nines, .. parent]);
        }
        byte[] bytes = platform switch
        {
            "W2ru" or "W2ku" => Encoding.Unicode.GetBytes(text),
            "MacX" => Encoding.UTF8.GetBytes(text),
            _ => Encoding.Latin1.GetBytes(text),
        };
        byte[] footer = VhdMaker.Footer("win ", 128 << 10, (2, 4, 17), 4, id: 0x33);
        byte[] header = VhdMaker.Header(1536, 2, Block, 0x22, parentTime, parentName, (platform, bytes, 2048));
        byte[] bitmap = new byte[512], data = new byte[Block];
        bitmap[0] = 0x80;
        Array.Fill(data, (byte)7, 0, 512);
        VhdMaker.WithLocators((platform, bytes, 2048));
        await File.WriteAllBytesAsync(_folder["c.vhd"], VhdMaker.Dynamic(footer, header, Block, 2, (0, bitmap, data)));
    }
}
