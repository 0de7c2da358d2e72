using System.Buffers.Binary;
using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Formats.Vdi;
using DiskImage.Graph;
using DiskImage.Options;
using DiskImage.Tests.Conformance;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Vdi;

/// <summary>A VDI that stands on another; the parent's contents show through in part.</summary>
public sealed class VdiDifferencingNodeTests : NodeConformance
{
    private protected override bool CanResize => true;

    private protected override bool CanPreallocate => false;

    private protected override async Task<BlockNode> MakeAsync(byte[] contents, bool writable)
    {
        byte[] below = [.. contents];
        new Random(2).NextBytes(below.AsSpan(0, Math.Min(below.Length, 70_000)));
        await VdiChains.FillAsync(Folder["base.vdi"], below, ",block_size=16k");
        await Images.CreateAsync(Folder["child.vdi"], "vdi", "backing_file=base.vdi,block_size=4k");
        await using (BlockNode node = await Images.OpenAsync(Folder["child.vdi"], writable: true))
        {
            await node.WriteAsync(0, contents.AsMemory(0, Math.Min(contents.Length, 70_000)));
        }
        return await Images.OpenAsync(Folder["child.vdi"], writable: writable);
    }
}

internal static class VdiChains
{
    public static async Task FillAsync(string path, byte[] contents, string options = "")
    {
        await Images.CreateAsync(path, "vdi", $"size={contents.Length}{options}");
        await using BlockNode node = await Images.OpenAsync(path, writable: true);
        await Images.FillAsync(node, contents);
    }
}

public sealed class VdiDifferencingTests : IDisposable
{
    private const int Block = 4096, Count = 16, Size = Block * Count;
    private const int TypeAt = 0x4C, ImageIdAt = 0x188, ModifiedAt = 0x198, LinkAt = 0x1A8, ParentModifiedAt = 0x1B8;

    private readonly TestFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public async Task A_chain_reads_as_its_layers_say_and_zeroes_hide_what_is_below()
    {
        byte[] model = await MakeChainAsync();
        byte[] below = await File.ReadAllBytesAsync(_folder["base.vdi"]);
        await using (BlockNode disk = await Images.OpenAsync(_folder["child.vdi"], writable: true))
        {
            Assert.Equal(model, await ReadAsync(disk));
            model.AsSpan(Block, 3 * Block).Clear();
            await disk.WriteZeroesAsync(Block, 3 * Block);
            model.AsSpan(9 * Block, 100).Fill(1);
            await disk.WriteAsync(9 * Block, model.AsMemory(9 * Block, 100));
            _ = await disk.As<ICompactable>()!.CompactAsync(null, CancellationToken.None);
            Assert.Equal(model, await ReadAsync(disk));
        }
        Assert.Equal(below, await File.ReadAllBytesAsync(_folder["base.vdi"]));
        await using BlockNode again = await Images.OpenAsync(_folder["child.vdi"]);
        Assert.Equal(model, await ReadAsync(again));
        Assert.Empty((await again.As<ICheckable>()!.CheckAsync(null, CancellationToken.None)).Findings);
        Assert.Equal("middle.vdi", ((IDescribed)again).Describe().BackingFile);
        BlockExtent zero = await again.GetExtentAsync(Block, Block), deep = await again.GetExtentAsync(12 * Block, Block);
        Assert.Equal((0, true, 2), (zero.Depth, zero.IsZero, deep.Depth));
    }

    [Fact]
    public async Task The_file_says_what_VirtualBox_says_of_a_child()
    {
        _ = await MakeChainAsync();
        byte[] parent = await File.ReadAllBytesAsync(_folder["base.vdi"]), child = await File.ReadAllBytesAsync(_folder["middle.vdi"]);
        Assert.Equal(4, child[TypeAt]);
        Assert.Equal(parent[ImageIdAt..(ImageIdAt + 16)], child[LinkAt..(LinkAt + 16)]);
        Assert.Equal(parent[ModifiedAt..(ModifiedAt + 16)], child[ParentModifiedAt..(ParentModifiedAt + 16)]);
        Assert.NotEqual(parent[ImageIdAt..(ImageIdAt + 16)], child[ImageIdAt..(ImageIdAt + 16)]);
    }

    [Fact]
    public async Task The_parent_is_found_by_its_identity_whatever_it_is_called_and_in_the_folders_that_are_named()
    {
        byte[] model = await MakeChainAsync();
        File.Move(_folder["middle.vdi"], _folder["{another}.vdi"]);
        await using (BlockNode disk = await Images.OpenAsync(_folder["child.vdi"]))
        {
            Assert.Equal(model, await ReadAsync(disk));
        }
        _ = Directory.CreateDirectory(_folder["elsewhere"]);
        File.Move(_folder["{another}.vdi"], _folder["elsewhere/a.VDI"]);
        DiskImageException missing = await Assert.ThrowsAsync<DiskImageException>(() => Images.OpenAsync(_folder["child.vdi"]));
        Assert.Equal(DiskImageErrorKind.NotFound, missing.Kind);
        Assert.Contains(missing.Wording.Remedies, r => r.Kind == RemedyKind.ParentSearchPath);
        OpenPolicy both = OpenPolicy.Default with { ParentFolders =
        [
            _folder["elsewhere"], Path.GetDirectoryName(_folder["x"])!, _folder["nowhere"],
        ] };
        await using (BlockNode disk = await Images.OpenAsync(_folder["child.vdi"], policy: both))
        {
            Assert.Equal(model, await ReadAsync(disk));
        }
        _ = await Assert.ThrowsAsync<DiskImageException>(
            () => Images.OpenAsync(_folder["child.vdi"], policy: both with { References = ReferenceScope.None, ParentFolders = [] }));
    }

    [Fact]
    public async Task A_parent_that_was_written_to_is_refused_and_taken_if_the_user_says_so()
    {
        byte[] model = await MakeChainAsync();
        await using (BlockNode disk = await Images.OpenAsync(_folder["base.vdi"], writable: true))
        {
            await disk.ReadAsync(0, new byte[100]);
        }
        await using (BlockNode disk = await Images.OpenAsync(_folder["child.vdi"]))
        {
            Assert.Equal(model, await ReadAsync(disk)); // only read
        }
        await using (BlockNode disk = await Images.OpenAsync(_folder["base.vdi"], writable: true))
        {
            await disk.WriteAsync(0, new byte[] { 1 });
        }
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(() => Images.OpenAsync(_folder["child.vdi"]));
        Assert.Equal(DiskImageErrorKind.Corrupt, error.Kind);
        Assert.Contains("written to after", error.Message, StringComparison.Ordinal);
        await using (
            BlockNode disk = await Images.OpenAsync(_folder["child.vdi"], policy: OpenPolicy.Default with { IgnoreIdMismatch = true }))
        {
            Assert.Equal(Size, disk.Length);
        }
        await using (BlockNode disk = await OpenAloneAsync("middle.vdi"))
        {
            await using BlockNode parent = await Images.OpenAsync(_folder["base.vdi"]);
            await disk.As<IRebasable>()!.SetBackingAsync("base.vdi", "vdi", parent, CancellationToken.None);
        }
        await using BlockNode repaired = await Images.OpenAsync(_folder["child.vdi"]);
        Assert.Equal(Size, repaired.Length);
    }

    [Fact]
    public async Task A_merge_leaves_a_chain_that_opens_and_reads_the_same()
    {
        byte[] model = await MakeChainAsync();
        await using (BlockNode disk = await Images.OpenAsync(_folder["child.vdi"]))
        {
            Assert.Equal(model, await ReadAsync(disk));
        }
        await using (BlockNode target = await OpenAloneAsync("base.vdi"))
        {
            var open = new Dictionary<NodeIdentity, BlockNode> { [Images.Opener.IdentityOf(_folder["base.vdi"])!.Value] = target };
            var request = new OpenRequest(_folder["middle.vdi"]) { Writable = true, Opened = open };
            await using BlockNode middle = (await Images.Opener.OpenAsync(request, CancellationToken.None)).Node;
            IBackingRecord record = middle.As<IBackingRecord>()!;
            await record.ExpectBackingChangeAsync(changesThis: false, CancellationToken.None);
            byte[] contents = await ReadAsync(middle);
            await target.WriteAsync(0, contents);
            await target.FlushAsync();
            await record.ConfirmBackingChangeAsync(CancellationToken.None);
            await middle.As<IEmptiable>()!.MakeEmptyAfterMergeAsync(CancellationToken.None);
        }
        await using BlockNode again = await Images.OpenAsync(_folder["child.vdi"]);
        Assert.Equal(model, await ReadAsync(again));
        byte[] child = await File.ReadAllBytesAsync(_folder["middle.vdi"]), parent = await File.ReadAllBytesAsync(_folder["base.vdi"]);
        Assert.Equal(parent[ModifiedAt..(ModifiedAt + 16)], child[ParentModifiedAt..(ParentModifiedAt + 16)]);
        Assert.Equal(0, BinaryPrimitives.ReadInt32LittleEndian(child.AsSpan(0x184)));
    }

    [Fact]
    public async Task A_merge_that_ends_half_way_leaves_a_chain_that_opens_and_reads_the_same()
    {
        byte[] model = await MakeChainAsync();
        await using (BlockNode target = await OpenAloneAsync("base.vdi"))
        {
            var open = new Dictionary<NodeIdentity, BlockNode> { [Images.Opener.IdentityOf(_folder["base.vdi"])!.Value] = target };
            var request = new OpenRequest(_folder["middle.vdi"]) { Writable = true, Opened = open };
            await using BlockNode middle = (await Images.Opener.OpenAsync(request, CancellationToken.None)).Node;
            await middle.As<IBackingRecord>()!.ExpectBackingChangeAsync(changesThis: false, CancellationToken.None);
            byte[] contents = await ReadAsync(middle);
            await target.WriteAsync(0, contents.AsMemory(0, Size / 2)); // and no more
        }
        await using BlockNode again = await Images.OpenAsync(_folder["child.vdi"]);
        Assert.Equal(model, await ReadAsync(again));
    }

    [Fact]
    public async Task What_the_parent_holds_behind_a_child_that_was_cut_does_not_come_up_when_it_grows()
    {
        byte[] contents = new byte[Size];
        new Random(5).NextBytes(contents);
        await VdiChains.FillAsync(_folder["base.vdi"], contents, $",block_size={Block}");
        await Images.CreateAsync(_folder["child.vdi"], "vdi", $"backing_file=base.vdi,block_size={Block}");
        await using (BlockNode disk = await Images.OpenAsync(_folder["child.vdi"], writable: true))
        {
            await disk.ResizeAsync((5 * Block) + 512);
            await disk.ResizeAsync(Size);
        }
        contents.AsSpan((5 * Block) + 512).Clear();
        await using BlockNode again = await Images.OpenAsync(_folder["child.vdi"]);
        Assert.Equal(contents, await ReadAsync(again));
        Assert.Empty((await again.As<ICheckable>()!.CheckAsync(null, CancellationToken.None)).Findings);
    }

    [Fact]
    public async Task Identities_and_the_remark_can_be_changed()
    {
        byte[] model = await MakeChainAsync();
        var id = Guid.NewGuid();
        await AmendAsync("middle.vdi", $"uuid={id},comment=of the second day");
        Assert.Equal(
            DiskImageErrorKind.NotFound, (await Assert.ThrowsAsync<DiskImageException>(() => Images.OpenAsync(_folder["child.vdi"]))).Kind);
        await AmendAsync("child.vdi", $"parent_uuid={id}");
        await using (BlockNode disk = await Images.OpenAsync(_folder["child.vdi"]))
        {
            Assert.Equal(model, await ReadAsync(disk));
            var info = (VdiInfo)((IDescribed)disk).Describe().FormatSpecific!;
            Assert.Equal((id, null), (info.ParentId, info.ParentModificationId));
        }
        await using (BlockNode disk = await Images.OpenAsync(_folder["middle.vdi"]))
        {
            Assert.Equal("of the second day", ((VdiInfo)((IDescribed)disk).Describe().FormatSpecific!).Comment);
        }
        foreach (string bad in new[] { "uuid=x", $"comment={new string('ä', 128)}" })
        {
            Assert.Equal(
                DiskImageErrorKind.InvalidOption, (await Assert.ThrowsAsync<DiskImageException>(() => AmendAsync("middle.vdi", bad))).Kind);
        }
        Assert.Equal(
            DiskImageErrorKind.InvalidOption,
            (await Assert.ThrowsAsync<DiskImageException>(() => AmendAsync("base.vdi", $"parent_uuid={id}"))).Kind);
    }

    [Fact]
    public async Task Only_a_VDI_can_be_a_parent_and_a_static_disk_no_child()
    {
        _ = await MakeChainAsync();
        await Images.CreateAsync(_folder["b.qcow2"], "qcow2", $"size={Size}");
        foreach (
            string options in new[] { "backing_file=b.qcow2", "backing_file=base.vdi,static", "backing_file=base.vdi,backing_fmt=raw" })
        {
            DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(
                () => Images.CreateAsync(_folder["new.vdi"], "vdi", options));
            Assert.True(
                error.Kind is DiskImageErrorKind.InvalidOption or DiskImageErrorKind.InvalidFormat,
                $"{options}: {error.Kind} {error.Message}");
        }
    }

    /// <summary>By the layout that VirtualBox publishes (VDICore.h), with none of the library's code.</summary>
    [Theory]
    [InlineData(0x0001_0000)]
    [InlineData(0x0001_0001)]
    public async Task A_child_that_is_written_by_the_published_layout_is_read(int version)
    {
        var random = new Random(6);
        byte[] parent = new byte[4 * Block], first = new byte[Block], third = new byte[Block];
        random.NextBytes(parent);
        random.NextBytes(first);
        random.NextBytes(third);
        Guid parentId = Guid.NewGuid(), parentModified = Guid.NewGuid();
        await File.WriteAllBytesAsync(
            _folder["p.vdi"], Write(version, 1, parentId, parentModified, default, default, [0, 1, 2, 3], parent));
        await File.WriteAllBytesAsync(
            _folder["c.vdi"],
            Write(version, 4, Guid.NewGuid(), Guid.NewGuid(), parentId, parentModified, [1, -1, 0, -2], [.. third, .. first]));
        await using BlockNode disk = await Images.OpenAsync(_folder["c.vdi"]);
        byte[] expected = [.. first, .. parent[Block..(2 * Block)], .. third, .. new byte[Block]];
        Assert.Equal(expected, await ReadAsync(disk));
        Assert.Empty((await disk.As<ICheckable>()!.CheckAsync(null, CancellationToken.None)).Findings);
    }

    private static byte[] Write(int version, int type, Guid id, Guid modified, Guid link, Guid parentModified, int[] map, byte[] blocks)
    {
        byte[] file = new byte[1024 + blocks.Length];
        "<<< Oracle VM VirtualBox Disk Image >>>\n"u8.CopyTo(file);
        void Put(int at, uint value) => BinaryPrimitives.WriteUInt32LittleEndian(file.AsSpan(at), value);
        Put(0x40, 0xBEDA107F);
        Put(0x44, (uint)version);
        Put(0x48, 0x190);
        Put(TypeAt, (uint)type);
        Put(0x154, 512);
        Put(0x158, 1024);
        Put(0x168, 512);
        Put(0x170, (uint)(map.Length * Block));
        Put(0x178, Block);
        Put(0x180, (uint)map.Length);
        Put(0x184, (uint)(blocks.Length / Block));
        foreach (
            (int at, Guid value) in new[] { (ImageIdAt, id), (ModifiedAt, modified), (LinkAt, link), (ParentModifiedAt, parentModified) })
        {
            value.ToByteArray().CopyTo(file, at);
        }
        for (int i = 0; i < map.Length; i++)
        {
            Put(512 + (i * 4), (uint)map[i]);
        }
        blocks.CopyTo(file, 1024);
        return file;
    }

    /// <summary>Three layers; what the top reads as.</summary>
    private async Task<byte[]> MakeChainAsync()
    {
        byte[] model = new byte[Size];
        new Random(4).NextBytes(model);
        await VdiChains.FillAsync(_folder["base.vdi"], model, $",block_size={Block}");
        foreach ((string name, string below, int at) in new[] { ("middle.vdi", "base.vdi", 2), ("child.vdi", "middle.vdi", 4) })
        {
            await Images.CreateAsync(_folder[name], "vdi", $"backing_file={below},block_size={Block}");
            await using BlockNode disk = await Images.OpenAsync(_folder[name], writable: true);
            model.AsSpan(at * Block, 4 * Block).Fill((byte)at);
            await disk.WriteAsync(at * Block, model.AsMemory(at * Block, 4 * Block));
        }
        return model;
    }

    private async Task<BlockNode> OpenAloneAsync(string name)
    {
        var request = new OpenRequest(_folder[name]) { Writable = true, WithBacking = false };
        return (await Images.Opener.OpenAsync(request, CancellationToken.None)).Node;
    }

    private async Task AmendAsync(string name, string options)
    {
        var driver = (IAmendable)Images.Registry.Format("vdi");
        await using BlockNode disk = await OpenAloneAsync(name);
        await driver.AmendAsync(disk, driver.AmendOptions.Bind(OptionSchema.Split(options)), null, CancellationToken.None);
    }

    private static async Task<byte[]> ReadAsync(BlockNode disk)
    {
        byte[] bytes = new byte[disk.Length];
        await disk.ReadAsync(0, bytes);
        return bytes;
    }
}
