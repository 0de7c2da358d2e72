using System.Text;
using DiskImage.Block;
using DiskImage.Formats.Vpc;
using DiskImage.Graph;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Vpc;

/// <summary>Differencing disks on a raw disk, as XenServer makes them: no identifier of the parent, and its file's time.</summary>
public sealed class VpcRawParentTests : IDisposable
{
    private const int Size = 4 << 20, Block = 2 << 20;

    private readonly TestFolder _folder = new();
    private readonly byte[] _parent = new byte[Size];

    public VpcRawParentTests()
    {
        new Random(41).NextBytes(_parent);
        File.WriteAllBytes(_folder["base.raw"], _parent);
    }

    public void Dispose() => _folder.Dispose();

    [Theory]
    [InlineData("MacX", "file://./base.raw")]
    [InlineData("W2ru", @".\base.raw")]
    [InlineData("W2ku", "/elsewhere/base.raw")]
    public async Task A_disk_of_XenServer_shows_its_raw_parent_and_says_that_nobody_can_tell_it(string platform, string text)
    {
        byte[] expected = await XenServerDiskAsync(platform, text);
        await using BlockNode disk = await Images.OpenAsync(_folder["child.vhd"]);
        Assert.Equal(expected, await VpcDisks.ReadAsync(disk));
        ImageDescription described = ((IDescribed)disk).Describe();
        Assert.Equal("raw", described.BackingFormat);
        string warning = Assert.Single(described.Warnings);
        Assert.Contains("which has no identity", warning, StringComparison.Ordinal);
        Assert.Contains("was changed at", warning, StringComparison.Ordinal); // the recorded time is another
    }

    [Fact]
    public async Task A_parent_that_begins_as_a_VHD_is_no_raw_disk()
    {
        await XenServerDiskAsync("W2ru", @".\base.raw");
        await Images.CreateAsync(_folder["base.vhd"], "vpc", $"size={Size}");
        File.Move(_folder["base.vhd"], _folder["base.raw"], overwrite: true);
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(() => Images.OpenAsync(_folder["child.vhd"]));
        Assert.Equal(DiskImageErrorKind.Corrupt, error.Kind);
        Assert.Contains("begins as a VHD", error.Message, StringComparison.Ordinal);
        await using BlockNode disk = await Images.OpenAsync(_folder["child.vhd"], options: "ignore_id_mismatch=on");
        Assert.NotNull(VpcParent.InfoOf(disk.Child("backing")));
    }

    [Fact]
    public async Task The_policy_decides_over_a_raw_parent_too()
    {
        await XenServerDiskAsync("W2ru", @".\base.raw");
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(
            () => Images.OpenAsync(_folder["child.vhd"], policy: new OpenPolicy { References = ReferenceScope.None }));
        Assert.Equal(DiskImageErrorKind.Refused, error.Kind);
    }

    [Fact]
    public async Task A_raw_parent_is_recorded_at_the_users_word_only()
    {
        await Images.CreateAsync(_folder["base.vhd"], "vpc", $"size={Size}");
        await Images.CreateAsync(_folder["child.vhd"], "vpc", "backing_file=base.vhd");
        await using (BlockNode child = await Images.OpenAsync(_folder["child.vhd"], writable: true))
        await using (BlockNode raw = await Images.OpenAsync(_folder["base.raw"], "raw"))
        {
            var rebased = (IRebasable)child;
            DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(
                () => rebased.SetBackingAsync("base.raw", "vpc", raw, CancellationToken.None).AsTask());
            Assert.Equal(DiskImageErrorKind.InvalidOption, error.Kind);
            await rebased.SetBackingAsync("base.raw", "raw", raw, CancellationToken.None);
            await child.FlushAsync();
        }
        byte[] header = (await File.ReadAllBytesAsync(_folder["child.vhd"]))[512..1536];
        Assert.Equal(new byte[16], header[40..56]);
        Assert.Equal("base.raw", Encoding.BigEndianUnicode.GetString(header, 64, 16));
        await using BlockNode disk = await Images.OpenAsync(_folder["child.vhd"], writable: true);
        Assert.Equal(_parent, await VpcDisks.ReadAsync(disk));
        Assert.DoesNotContain("was changed at", Assert.Single(((IDescribed)disk).Describe().Warnings), StringComparison.Ordinal);
        CheckReport report = await ((ICheckable)disk).CheckAsync(null, CancellationToken.None);
        Assert.Empty(report.Findings);
    }

    [Fact]
    public async Task A_change_of_the_raw_parent_on_purpose_is_taken_up()
    {
        await XenServerDiskAsync("W2ru", @".\base.raw");
        await using (BlockNode disk = await Images.OpenAsync(_folder["child.vhd"], writable: true))
        {
            await ((IBackingRecord)disk).ExpectBackingChangeAsync(changesThis: false, CancellationToken.None);
        }
        await using BlockNode after = await Images.OpenAsync(_folder["child.vhd"]);
        Assert.DoesNotContain("was changed at", Assert.Single(((IDescribed)after).Describe().Warnings), StringComparison.Ordinal);
    }

    /// <summary>A child whose second block has its first sector; returns what the disk reads as.</summary>
    private async Task<byte[]> XenServerDiskAsync(string platform, string text)
    {
        byte[] own = new byte[512], bits = new byte[512];
        new Random(42).NextBytes(own);
        bits[0] = 0x80;
        byte[] encoded = platform.Equals("MacX", StringComparison.Ordinal) ? Encoding.UTF8.GetBytes(text) : Encoding.Unicode.GetBytes(text);
        const long LocatorAt = 1536 + 512;
        VhdMaker.WithLocators((platform, encoded, LocatorAt));
        byte[] header = VhdMaker.Header(1536, 2, Block, parentId: 0, parentTime: 1, parentName: "base.raw", (platform, encoded, LocatorAt));
        byte[] image = VhdMaker.Dynamic(VhdMaker.Footer("tap\0", Size, (120, 4, 17), 4), header, Block, 2, (1, bits, own));
        await File.WriteAllBytesAsync(_folder["child.vhd"], image);
        byte[] expected = (byte[])_parent.Clone();
        own.CopyTo(expected, Block);
        return expected;
    }
}
