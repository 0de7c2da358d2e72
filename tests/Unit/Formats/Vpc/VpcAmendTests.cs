using DiskImage.Block;
using DiskImage.Formats.Vpc;
using DiskImage.Graph;
using DiskImage.Options;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Vpc;

/// <summary>Identifier and parent path of an existing disk.</summary>
public sealed class VpcAmendTests : IDisposable
{
    private static readonly Guid s_id = new("0badc0de-1111-2222-3333-444455556666");

    private readonly TestFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Theory]
    [InlineData("subformat=fixed,force_size")]
    [InlineData("subformat=dynamic,force_size")]
    public async Task A_disk_gets_the_identifier_that_is_given_or_a_new_one(string options)
    {
        byte[] noise = new byte[1 << 20];
        new Random(1).NextBytes(noise);
        await Images.CreateAsync(_folder["a.vhd"], "vpc", $"size={noise.Length},{options}");
        await WriteAsync("a.vhd", noise);
        await AmendAsync("a.vhd", $"unique_id={s_id:B}");
        (VhdReader disk, byte[] contents) = VhdReader.Read(_folder["a.vhd"]);
        Assert.Equal(s_id, new Guid(disk.UniqueId, bigEndian: true));
        Assert.Equal(noise, contents);
        await AmendAsync("a.vhd", "unique_id=new");
        await using BlockNode again = await Images.OpenAsync(_folder["a.vhd"]);
        Assert.True(VpcOracleTests.Info(again).UniqueId != s_id && VpcOracleTests.Info(again).UniqueId != Guid.Empty);
        Assert.Empty((await VpcDisks.CheckAsync(again)).Findings);
    }

    [Fact]
    public async Task Children_made_before_refuse_a_disk_with_a_new_identifier()
    {
        await Images.CreateAsync(_folder["base.vhd"], "vpc", "size=1M,force_size");
        await Images.CreateAsync(_folder["child.vhd"], "vpc", "backing_file=base.vhd");
        await AmendAsync("base.vhd", "unique_id=new");
        DiskImageException refused = await Assert.ThrowsAsync<DiskImageException>(() => Images.OpenAsync(_folder["child.vhd"]));
        Assert.Contains("identifier", refused.Message, StringComparison.Ordinal);
        Assert.NotNull(new VpcDriver().AmendWarning(new VpcAmendOptions { UniqueId = "new" }));
        Assert.Null(new VpcDriver().AmendWarning(new VpcAmendOptions { ParentPath = "base.vhd" }));
    }

    [Fact]
    public async Task The_parents_path_is_written_as_Windows_expects_it_and_its_identity_stays()
    {
        await Images.CreateAsync(_folder["base.vhd"], "vpc", "size=1M,force_size");
        await Images.CreateAsync(_folder["child.vhd"], "vpc", "backing_file=base.vhd");
        await WriteAsync("child.vhd", [1, 2, 3]);
        (VhdReader before, _) = VhdReader.Read(_folder["child.vhd"], new byte[1 << 20]);
        Directory.CreateDirectory(_folder["else where"]);
        File.Move(_folder["base.vhd"], _folder["else where/root.vhd"]);
        await AmendAsync("child.vhd", @"parent_path=else where\root.vhd"); // from the disk's folder, written either way
        (VhdReader after, _) = VhdReader.Read(_folder["child.vhd"], new byte[1 << 20]);
        Assert.Equal((@".\else where\root.vhd", "root.vhd"), (after.Locators["W2ru"], after.ParentName));
        Assert.Equal(before.ParentId, after.ParentId);
        Assert.Equal(before.ParentTime, after.ParentTime);
        Assert.Equal(before.UniqueId, after.UniqueId);
        Assert.Equal(OperatingSystem.IsWindows(), after.Locators.ContainsKey("W2ku"));
        await using (BlockNode child = await Images.OpenAsync(_folder["child.vhd"]))
        {
            Assert.EndsWith("root.vhd", child.Child("backing")!.Name, StringComparison.Ordinal);
            Assert.Equal("else where/root.vhd", ((IDescribed)child).Describe().BackingFile!.Replace('\\', '/'));
            Assert.Empty((await VpcDisks.CheckAsync(child)).Findings);
        }
        await AmendAsync("child.vhd", @"parent_path=D:\vms/base.vhd"); // another system's: nothing need be there
        (after, _) = VhdReader.Read(_folder["child.vhd"], new byte[1 << 20]);
        Assert.Equal((@"D:\vms\base.vhd", "base.vhd"), (after.Locators["W2ku"], after.ParentName));
    }

    [Theory]
    [InlineData("unique_id=x", "allowed: a GUID")]
    [InlineData("parent_path=p.vhd", "has no parent")]
    public async Task What_is_not_possible_changes_nothing(string options, string why)
    {
        foreach (string subformat in new[] { "fixed", "dynamic" })
        {
            var file = new MemoryNode();
            await VpcDisks.CreateAsync(file, $"size=1M,subformat={subformat}");
            byte[] before = file.ToArray();
            await using (BlockNode disk = await VpcDisks.OpenAsync(file))
            {
                DiskImageException refused = await Assert.ThrowsAsync<DiskImageException>(() => AmendAsync(disk, options));
                Assert.Equal(DiskImageErrorKind.InvalidOption, refused.Kind);
                Assert.Contains(why, refused.Message, StringComparison.Ordinal);
            }
            Assert.Equal(before, file.ToArray());
        }
    }

    [Fact]
    public async Task Every_prefix_of_a_change_has_the_old_or_the_new()
    {
        var parent = new MemoryNode();
        await VpcDisks.CreateAsync(parent, "size=1M,force_size");
        BlockNode OpenParent() => VpcDisks.OpenAsync(new MemoryNode(parent.ToArray(), readOnly: true)).GetAwaiter().GetResult();
        var memory = new MemoryNode();
        await VpcDisks.CreateAsync(memory, "backing_file=old.vhd,block_size=4k", OpenParent());
        byte[] before = memory.ToArray();
        Guid old;
        var log = new WriteLogNode(memory);
        await using (BlockNode disk = await VpcDisks.OpenAsync(log, OpenParent))
        {
            old = VpcOracleTests.Info(disk).UniqueId;
            await AmendAsync(disk, $"unique_id={s_id},parent_path=deep/down/new.vhd");
        }
        var seen = new HashSet<(bool, string)>();
        for (int count = 0; count <= log.Count; count++)
        {
            var crashed = new MemoryNode([.. before]);
            foreach (WriteLogEntry entry in log.Entries.Take(count))
            {
                await WriteLogNode.ReplayAsync(entry, crashed);
            }
            await using BlockNode disk = await VpcDisks.OpenAsync(crashed, OpenParent);
            VpcInfo info = VpcOracleTests.Info(disk);
            Assert.True(info.UniqueId == old || info.UniqueId == s_id, $"after {count}: {info.UniqueId}");
            string path = Assert.Single(info.ParentLocators, l => l.PlatformCode.Equals("W2ru", StringComparison.Ordinal)).Text!;
            Assert.EndsWith(info.ParentName!, path, StringComparison.Ordinal);
            seen.Add((info.UniqueId == s_id, info.ParentName!));
            CheckReport report = await VpcDisks.CheckAsync(disk);
            Assert.All(report.Findings, f => Assert.StartsWith("FooterCopy", f.Kind, StringComparison.Ordinal));
            Assert.Empty((await VpcDisks.RepairAsync(disk, RepairMode.All)).Findings);
        }
        Assert.Contains((true, "new.vhd"), seen);
        Assert.Contains(seen, s => !s.Item1 && !s.Item2.Equals("new.vhd", StringComparison.Ordinal));
    }

    private async Task WriteAsync(string name, byte[] data)
    {
        await using BlockNode disk = await Images.OpenAsync(_folder[name], writable: true);
        await disk.WriteAsync(0, data);
    }

    private async Task AmendAsync(string name, string options)
    {
        await using BlockNode disk = (await Images.Opener.OpenAsync(
            new OpenRequest(_folder[name]) { Writable = true, WithBacking = false }, CancellationToken.None)).Node;
        await AmendAsync(disk, options);
    }

    private static async Task AmendAsync(BlockNode disk, string options)
    {
        var driver = new VpcDriver();
        await driver.AmendAsync(disk, driver.AmendOptions.Bind(OptionSchema.Split(options)), null, CancellationToken.None);
    }
}
