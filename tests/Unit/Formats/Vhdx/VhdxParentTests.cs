using DiskImage.Block;
using DiskImage.Formats.Vhdx;
using DiskImage.Graph;
using DiskImage.Jobs;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Vhdx;

/// <summary>Differencing disks as files: finding the parent, knowing it, changing it.</summary>
public sealed class VhdxParentTests
{
    private const int MiB = 1 << 20, Size = 5 * MiB;

    private static OpenPolicy Trusting { get; } = new() { References = ReferenceScope.LocalFiles };

    [Fact]
    public async Task A_chain_across_folders_is_found_after_all_of_it_has_moved()
    {
        using var folder = new TestFolder();
        Directory.CreateDirectory(folder["old/base"]);
        Directory.CreateDirectory(folder["old/mid"]);
        byte[] expected = VhdxDisks.Noise(Size, 1);
        await Images.CreateAsync(folder["old/base/base.vhdx"], "vhdx", $"size={Size},block_size=1M");
        await WriteAsync(folder["old/base/base.vhdx"], 0, expected);
        await Images.CreateAsync(
            folder["old/mid/mid.vhdx"], "vhdx", "backing_file=../base/base.vhdx,backing_fmt=vhdx,block_size=1M", Trusting);
        expected.AsSpan(MiB, 5000).Fill(7);
        await WriteAsync(folder["old/mid/mid.vhdx"], MiB, expected[MiB..(MiB + 5000)]);
        await Images.CreateAsync(folder["old/top.vhdx"], "vhdx", $"backing_file={folder["old/mid/mid.vhdx"]},backing_fmt=vhdx", Trusting);
        expected.AsSpan((3 * MiB) - 100, 200).Fill(9);
        await WriteAsync(folder["old/top.vhdx"], (3 * MiB) - 100, expected[((3 * MiB) - 100)..((3 * MiB) + 100)]);
        Directory.Move(folder["old"], folder["new"]);

        await using BlockNode top = await Images.OpenAsync(
            folder["new/top.vhdx"], policy: new OpenPolicy { References = ReferenceScope.LocalFiles });
        Assert.Equal(expected, await VhdxDisks.ReadAllAsync(top));
        var info = (VhdxInfo)((IDescribed)top).Describe().FormatSpecific!;
        Assert.Equal((nameof(VhdxSubformat.Differencing), @".\mid\mid.vhdx"), (info.Subformat, info.ParentPaths[0]));
        Assert.Equal(OperatingSystem.IsWindows() ? 2 : 1, info.ParentPaths.Count); // only Windows has absolute paths to record
        Assert.Equal("mid/mid.vhdx", ((IDescribed)top).Describe().BackingFile!.Replace('\\', '/'));
        Assert.Equal(((VhdxNode)top.Child("backing")!).Metadata.VirtualDiskId, info.VirtualDiskId);
        List<BlockExtent> map = [];
        await foreach (BlockExtent extent in MapJob.ExtentsAsync(top, 0, top.Length, CancellationToken.None))
        {
            map.Add(extent);
        }
        Assert.Equal(top.Length, map.Sum(e => e.Length));
        Assert.Contains(map, e => e.Depth == 0 && e.Offset == (3 * MiB) - 512 && e.Length == 1024 && e.IsData);
        Assert.Contains(map, e => e.Depth == 1 && e.Offset == MiB && e.Length == 5120);
        Assert.Contains(map, e => e.Depth == 2 && e.Offset == 0 && e.Length == MiB);
    }

    [Fact]
    public async Task Paths_are_tried_in_order_and_all_are_named_if_none_leads_anywhere()
    {
        using var folder = new TestFolder();
        await MakePairAsync(folder);
        await EditLocatorAsync(folder["child.vhdx"], values =>
        {
            values["relative_path"] = @".\gone\base.vhdx";
            values["volume_path"] = @"\\?\Volume{26A21BDA-A627-11D7-9931-806E6F6E6963}\base.vhdx";
            values["absolute_win32_path"] = OperatingSystem.IsWindows() ? @"\\?\" + folder["base.vhdx"] : folder["base.vhdx"];
        });
        await using (BlockNode child = await Images.OpenAsync(folder["child.vhdx"]))
        {
            Assert.NotNull(child.Child("backing"));
        }
        await EditLocatorAsync(folder["child.vhdx"], values => values["absolute_win32_path"] = @"\\?\Q:\gone\base.vhdx");
        await using (BlockNode child = await Images.OpenAsync(folder["child.vhdx"]))
        {
            Assert.NotNull(child.Child("backing")); // by its name, in the disk's own folder
        }
        File.Move(folder["base.vhdx"], folder["moved.vhdx"]);
        DiskImageException missing = await Assert.ThrowsAsync<DiskImageException>(() => Images.OpenAsync(folder["child.vhdx"]));
        Assert.Equal(DiskImageErrorKind.NotFound, missing.Kind);
        Assert.Contains("gone", missing.Message, StringComparison.Ordinal);
        Assert.Contains("Volume{", missing.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_parent_that_was_written_to_is_refused_unless_asked_otherwise()
    {
        using var folder = new TestFolder();
        await MakePairAsync(folder);
        await WriteAsync(folder["base.vhdx"], 100, [1, 2, 3]);
        DiskImageException mismatch = await Assert.ThrowsAsync<DiskImageException>(() => Images.OpenAsync(folder["child.vhdx"]));
        Assert.Equal(DiskImageErrorKind.Corrupt, mismatch.Kind);
        Assert.Contains("DataWriteGuid", mismatch.Message, StringComparison.Ordinal);
        Assert.Contains("ignore_id_mismatch", mismatch.Message, StringComparison.Ordinal);
        await using BlockNode child = await Images.OpenAsync(folder["child.vhdx"], options: "ignore_id_mismatch=on");
        CheckReport report = await ((ICheckable)child).CheckAsync(null, CancellationToken.None);
        Assert.Equal("Identity", Assert.Single(report.Findings, f => f.Severity == CheckSeverity.Corruption).Kind);
    }

    [Fact]
    public async Task A_disk_that_is_its_own_parent_and_a_ring_of_parents_are_refused()
    {
        using var folder = new TestFolder();
        await MakePairAsync(folder);
        await EditLocatorAsync(folder["child.vhdx"], values => Lead(values, @".\child.vhdx"));
        DiskImageException self = await Assert.ThrowsAsync<DiskImageException>(() => Images.OpenAsync(folder["child.vhdx"]));
        Assert.Equal(DiskImageErrorKind.Corrupt, self.Kind);
        await EditLocatorAsync(folder["child.vhdx"], values => Lead(values, @".\other.vhdx"));
        File.Copy(folder["child.vhdx"], folder["other.vhdx"]);
        await EditLocatorAsync(folder["other.vhdx"], values => Lead(values, @".\child.vhdx"));
        DiskImageException ring = await Assert.ThrowsAsync<DiskImageException>(() => Images.OpenAsync(folder["child.vhdx"]));
        Assert.Equal(DiskImageErrorKind.Corrupt, ring.Kind);
        Assert.Contains("chain", ring.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("json:{\"driver\":\"raw\",\"file.filename\":\"x\"}")]
    [InlineData("nbd://localhost/x")]
    public async Task A_path_that_is_no_path_is_not_followed(string reference)
    {
        using var folder = new TestFolder();
        await MakePairAsync(folder);
        await EditLocatorAsync(folder["child.vhdx"], values => Lead(values, reference));
        DiskImageException refused = await Assert.ThrowsAsync<DiskImageException>(() => Images.OpenAsync(folder["child.vhdx"]));
        Assert.Equal(DiskImageErrorKind.Refused, refused.Kind);
        await Assert.ThrowsAsync<DiskImageException>(
            () => Images.OpenAsync(folder["child.vhdx"], policy: new OpenPolicy { References = ReferenceScope.None }));
    }

    /// <summary>The relative path is all there is: what else Windows records would be tried next.</summary>
    private static void Lead(Dictionary<string, string> values, string path)
    {
        _ = values.Remove("absolute_win32_path");
        values["relative_path"] = path;
    }

    [Fact]
    public async Task Wrong_parents_are_refused_when_a_child_is_made()
    {
        using var folder = new TestFolder();
        await Images.MakeRawAsync(folder["base.raw"], MiB, 1);
        await Images.CreateAsync(folder["base.vhdx"], "vhdx", $"size={Size},logical_sector_size=4096");
        foreach (string options in new[]
        {
            "backing_file=base.raw,backing_fmt=raw", "backing_file=base.vhdx,subformat=fixed", "backing_file=base.vhdx,logical_sector_size=512",
            "subformat=differencing,size=1M",
            "backing_fmt=vhdx,size=1M",
            "size=65T",
            "size=1M,block_size=3M",
            "size=1M,logical_sector_size=1024",
            "block_size=1M",
        })
        {
            DiskImageException wrong = await Assert.ThrowsAsync<DiskImageException>(
                () => Images.CreateAsync(folder["child.vhdx"], "vhdx", options));
            Assert.Equal(DiskImageErrorKind.InvalidOption, wrong.Kind);
            Assert.False(File.Exists(folder["child.vhdx"]));
        }
    }

    [Fact]
    public async Task A_path_to_another_disk_gives_way_to_one_to_the_right_disk()
    {
        using var folder = new TestFolder();
        await MakePairAsync(folder);
        await Images.CreateAsync(folder["wrong.vhdx"], "vhdx", $"size={Size},block_size=1M");
        await EditLocatorAsync(folder["child.vhdx"], values =>
        {
            values["relative_path"] = @".\wrong.vhdx";
            values["absolute_win32_path"] = @"\\?\Q:\gone\base.vhdx";
        });
        await using BlockNode child = await Images.OpenAsync(folder["child.vhdx"]);
        Assert.EndsWith("base.vhdx", child.Child("backing")!.Name, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Identity_and_physical_sector_size_can_be_changed()
    {
        using var folder = new TestFolder();
        await MakePairAsync(folder);
        var id = Guid.NewGuid();
        await using (BlockNode disk = await Images.OpenAsync(folder["base.vhdx"], writable: true))
        {
            object options = VhdxDisks.Driver.AmendOptions.Bind(
                DiskImage.Options.OptionSchema.Split($"physical_sector_size=4k,virtual_disk_id={id:B}"));
            await VhdxDisks.Driver.AmendAsync(disk, options, null, CancellationToken.None);
        }
        var spec = new VhdxSpecReader(await File.ReadAllBytesAsync(folder["base.vhdx"]), requireClean: true);
        Assert.Equal((id, 4096), (spec.DiskId, spec.PhysicalSectorSize));
        await using BlockNode wrong = await Images.OpenAsync(folder["base.vhdx"], writable: true);
        foreach (VhdxAmendOptions options in new[]
        {
            new VhdxAmendOptions { VirtualDiskId = "x" }, new VhdxAmendOptions { PhysicalSectorSize = 1000 },
            new VhdxAmendOptions { ParentPath = "x" },
        })
        {
            DiskImageException refused = await Assert.ThrowsAsync<DiskImageException>(
                () => VhdxDisks.Driver.AmendAsync(wrong, options, null, CancellationToken.None).AsTask());
            Assert.Equal(DiskImageErrorKind.InvalidOption, refused.Kind);
        }
    }

    [Fact]
    public async Task The_parents_path_can_be_changed_and_the_disk_stays_the_one_its_own_children_know()
    {
        using var folder = new TestFolder();
        await MakePairAsync(folder);
        await Images.CreateAsync(folder["grandchild.vhdx"], "vhdx", "backing_file=child.vhdx,backing_fmt=vhdx");
        await EditLocatorAsync(
            folder["child.vhdx"], values => values["volume_path"] = @"\\?\Volume{26A21BDA-A627-11D7-9931-806E6F6E6963}\base.vhdx");
        var before = new VhdxSpecReader(await File.ReadAllBytesAsync(folder["child.vhdx"]));
        Directory.CreateDirectory(folder["else where"]);
        File.Move(folder["base.vhdx"], folder["else where/root.vhdx"]);
        await AmendAsync(folder["child.vhdx"], @"parent_path=else where\root.vhdx");
        var after = new VhdxSpecReader(await File.ReadAllBytesAsync(folder["child.vhdx"]), requireClean: true);
        Assert.Equal(@".\else where\root.vhdx", after.Locator["relative_path"]);
        Assert.False(after.Locator.ContainsKey("volume_path")); // it led to the old place
        Assert.Equal((before.Locator["parent_linkage"], before.DataWriteGuid), (after.Locator["parent_linkage"], after.DataWriteGuid));
        await using (BlockNode grandchild = await Images.OpenAsync(folder["grandchild.vhdx"]))
        {
            Assert.EndsWith("root.vhdx", grandchild.Child("backing")!.Child("backing")!.Name, StringComparison.Ordinal);
        }
        // another system's: nothing need be there
        await AmendAsync(folder["child.vhdx"], @"parent_path=D:\vms/base.vhdx,physical_sector_size=4k");
        after = new VhdxSpecReader(await File.ReadAllBytesAsync(folder["child.vhdx"]), requireClean: true);
        Assert.Equal((@"\\?\D:\vms\base.vhdx", 4096), (after.Locator["absolute_win32_path"], after.PhysicalSectorSize));
        DiskImageException refused = await Assert.ThrowsAsync<DiskImageException>(
            () => AmendAsync(folder["else where/root.vhdx"], "parent_path=x.vhdx"));
        Assert.Equal(DiskImageErrorKind.InvalidOption, refused.Kind);
        Assert.NotNull(VhdxDisks.Driver.AmendWarning(new VhdxAmendOptions { VirtualDiskId = "new" }));
        Assert.Null(VhdxDisks.Driver.AmendWarning(new VhdxAmendOptions { ParentPath = "base.vhdx" }));

        static async Task AmendAsync(string path, string options)
        {
            await using BlockNode disk = (
                await Images.Opener.OpenAsync(new OpenRequest(path) { Writable = true, WithBacking = false }, CancellationToken.None)).Node;
            await VhdxDisks.Driver.AmendAsync(
                disk, VhdxDisks.Driver.AmendOptions.Bind(DiskImage.Options.OptionSchema.Split(options)), null, CancellationToken.None);
        }
    }

    [Fact]
    public async Task A_child_can_be_emptied_after_its_contents_went_into_the_parent()
    {
        using var folder = new TestFolder();
        await MakePairAsync(folder);
        byte[] data = VhdxDisks.Noise(MiB + 1000, 4);
        await WriteAsync(folder["child.vhdx"], 77, data);
        long length = new FileInfo(folder["child.vhdx"]).Length;
        await WriteAsync(folder["base.vhdx"], 77, data); // what a commit does
        await using (BlockNode child = await Images.OpenAsync(folder["child.vhdx"], writable: true, options: "ignore_id_mismatch=on"))
        {
            await ((IEmptiable)child).MakeEmptyAsync(CancellationToken.None);
        }
        Assert.True(new FileInfo(folder["child.vhdx"]).Length < length);
        await using BlockNode again = await Images.OpenAsync(folder["child.vhdx"]);
        Assert.Equal(data, (await VhdxDisks.ReadAllAsync(again))[77..(77 + data.Length)]);
        BlockExtent extent = await again.GetExtentAsync(0, again.Length);
        Assert.Equal(1, extent.Depth);
        Assert.Empty((await ((ICheckable)again).CheckAsync(null, CancellationToken.None)).Findings);
    }

    [Fact]
    public async Task A_child_can_get_another_parent_and_none()
    {
        using var folder = new TestFolder();
        await MakePairAsync(folder);
        await WriteAsync(folder["child.vhdx"], 1000, VhdxDisks.Noise(100_000, 4));
        byte[] expected;
        await using (BlockNode child = await Images.OpenAsync(folder["child.vhdx"]))
        {
            expected = await VhdxDisks.ReadAllAsync(child);
        }
        await Images.CreateAsync(folder["other.vhdx"], "vhdx", $"size={Size},block_size=1M");
        await WriteAsync(folder["other.vhdx"], 2 * MiB, VhdxDisks.Noise(MiB, 9));
        await RebaseAsync(folder["child.vhdx"], folder["other.vhdx"]);
        await using (BlockNode child = await Images.OpenAsync(folder["child.vhdx"]))
        {
            Assert.EndsWith("other.vhdx", child.Child("backing")!.Name, StringComparison.Ordinal);
            Assert.Equal(expected, await VhdxDisks.ReadAllAsync(child));
        }
        await RebaseAsync(folder["child.vhdx"], null);
        File.Delete(folder["other.vhdx"]);
        await using (BlockNode child = await Images.OpenAsync(folder["child.vhdx"]))
        {
            Assert.Null(child.Child("backing"));
            Assert.Equal(expected, await VhdxDisks.ReadAllAsync(child));
        }
        Assert.Equal(expected, new VhdxSpecReader(await File.ReadAllBytesAsync(folder["child.vhdx"]), requireClean: true).Contents());
        await RebaseAsync(folder["child.vhdx"], folder["base.vhdx"]);
        await using (BlockNode child = await Images.OpenAsync(folder["child.vhdx"]))
        {
            Assert.NotNull(child.Child("backing"));
            Assert.Equal(expected, await VhdxDisks.ReadAllAsync(child));
        }
    }

    // libvhdi 20210425 shows the parent where a child has a block in the state "zero" (spec 2.5.1.1: zeroes), so there is none here.
    [VhdiFact]
    public async Task Vhdimount_reads_our_disks_byte_for_byte()
    {
        using var folder = new TestFolder();
        await MakePairAsync(folder);
        await WriteAsync(folder["child.vhdx"], 1000, VhdxDisks.Noise(2 * MiB, 4));
        // libvhdi takes the name from here only
        await EditLocatorAsync(folder["child.vhdx"], values => values["absolute_win32_path"] = @"\\?\C:\disks\base.vhdx");
        await Images.CreateAsync(folder["fixed.vhdx"], "vhdx", $"size={Size},subformat=fixed,block_size=1M");
        await WriteAsync(folder["fixed.vhdx"], 12345, VhdxDisks.Noise(2 * MiB, 6));
        foreach (string name in new[] { "base.vhdx", "fixed.vhdx", "child.vhdx" })
        {
            byte[] theirs = await Vhdi.ReadAsync(folder[name], folder["mnt"]);
            await using BlockNode ours = await Images.OpenAsync(folder[name]);
            byte[] expected = await VhdxDisks.ReadAllAsync(ours);
            Assert.True(theirs.AsSpan().SequenceEqual(expected), name);
        }
    }

    private static async Task MakePairAsync(TestFolder folder)
    {
        await Images.CreateAsync(folder["base.vhdx"], "vhdx", $"size={Size},block_size=1M");
        await WriteAsync(folder["base.vhdx"], 0, VhdxDisks.Noise(Size, 1));
        await Images.CreateAsync(folder["child.vhdx"], "vhdx", "backing_file=base.vhdx,backing_fmt=vhdx,block_size=1M");
    }

    private static async Task WriteAsync(string path, long at, byte[] data)
    {
        await using BlockNode disk = await Images.OpenAsync(path, writable: true, policy: Trusting);
        await disk.WriteAsync(at, data);
    }

    private static async Task RebaseAsync(string path, string? parent)
    {
        await using BlockNode disk = await Images.OpenAsync(path, writable: true);
        BlockNode? backing = parent is null ? null : await Images.OpenAsync(parent);
        try
        {
            await new RebaseJob(disk, backing).RunAsync(null, CancellationToken.None);
            await ((IRebasable)disk).SetBackingAsync(parent is null
                ? null
                : Path.GetFileName(parent), "vhdx", backing, CancellationToken.None);
        }
        finally
        {
            if (backing is not null)
            {
                await backing.DisposeAsync();
            }
        }
    }

    /// <summary>Writes another locator over the one of a closed image: in place, past the items that are there.</summary>
    private static async Task EditLocatorAsync(string path, Action<Dictionary<string, string>> edit)
    {
        byte[] file = await File.ReadAllBytesAsync(path);
        VhdxMetadata metadata;
        await using (VhdxNode node = await VhdxDisks.OpenAsync(file))
        {
            metadata = node.Metadata;
        }
        var values = new Dictionary<string, string>(metadata.Locator!.Values, StringComparer.Ordinal);
        edit(values);
        byte[] bytes = (metadata.Locator with { Values = values }).ToBytes();
        int region = 2 * MiB, index = metadata.Items.Select((item, i) => (item, i)).First(p => p.item.Id == VhdxItem.ParentLocator).i;
        int at = 128 << 10;
        bytes.CopyTo(file, region + at);
        VhdxMetadata.PutEntry(file.AsSpan(region), index, new VhdxItem(VhdxItem.ParentLocator, at, bytes.Length, VhdxItemFlags.IsRequired));
        await File.WriteAllBytesAsync(path, file);
    }
}
