using System.Text;
using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Formats;
using DiskImage.Graph;
using DiskImage.Tests.Formats.Vpc;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats;

/// <summary>A differencing disk names its parent in several ways; one that fails gives way to the next.</summary>
public sealed class ParentSearchTests
{
    [Theory]
    [InlineData(DiskImageErrorKind.Refused)]
    [InlineData(DiskImageErrorKind.NotFound)]
    [InlineData(DiskImageErrorKind.AccessDenied)]
    [InlineData(DiskImageErrorKind.Io)]
    [InlineData(DiskImageErrorKind.InvalidOption)]
    [InlineData(DiskImageErrorKind.InvalidFormat)]
    [InlineData(DiskImageErrorKind.Corrupt)]
    public async Task A_name_that_fails_gives_way_to_the_next(DiskImageErrorKind kind)
    {
        var parent = new MemoryNode();
        ParentSearch search = Search(name => name.Equals("bad", StringComparison.Ordinal)
            ? throw new DiskImageException(kind, "no")
            : parent);
        (BlockNode found, string name) = (await search.OpenAsync(["bad", "./good"], _ => null, CancellationToken.None))!.Value;
        Assert.Equal((parent, "./good"), (found, name));
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(
            async () => await Search(_ => throw new DiskImageException(kind, "no")).OpenAsync(["bad"], _ => null, CancellationToken.None));
        Assert.Equal(kind == DiskImageErrorKind.InvalidOption ? DiskImageErrorKind.NotFound : kind, error.Kind);
    }

    [Theory]
    [InlineData(DiskImageErrorKind.Locked)]
    [InlineData(DiskImageErrorKind.Unsupported)]
    public async Task What_another_name_cannot_mend_ends_the_search(DiskImageErrorKind kind)
    {
        int opened = 0;
        ParentSearch search = Search(_ => opened++ == 0 ? throw new DiskImageException(kind, "no") : new MemoryNode());
        Assert.Equal(
            kind,
            (await Assert.ThrowsAsync<DiskImageException>(
                async () => await search.OpenAsync(["a", "b"], _ => null, CancellationToken.None))).Kind);
        Assert.Equal(1, opened);
    }

    [Fact]
    public async Task The_error_tells_what_was_tried_and_what_was_refused()
    {
        ParentSearch search = Search(name => throw (name.Equals("./a", StringComparison.Ordinal)
            ? new DiskImageException(DiskImageErrorKind.NotFound, "a is not there")
            : new DiskImageException(DiskImageErrorKind.Refused, "b is not opened")));
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(
            async () => await search.OpenAsync(["./a", "b"], _ => null, CancellationToken.None));
        Assert.Equal(DiskImageErrorKind.NotFound, error.Kind);
        Assert.Contains("tried 'a', 'b'", error.Message, StringComparison.Ordinal);
        Assert.Contains("a is not there b is not opened", error.Message, StringComparison.Ordinal);
        Assert.Null(await Search(_ => throw new InvalidOperationException()).OpenAsync([], _ => null, CancellationToken.None));
    }

    [Fact]
    public async Task Every_file_of_a_chain_is_tried_once_whatever_it_is_called()
    {
        const int Depth = 60; // were each file tried under both of its names, 2^60 openings
        using var folder = new TestFolder();
        _ = Directory.CreateDirectory(folder["d"]);
        for (int i = 1; i <= Depth; i++)
        {
            byte[] name = Encoding.Unicode.GetBytes($@"..\d\{i - 1}.vhd");
            VhdMaker.WithLocators(("W2ru", name, 2048));
            await File.WriteAllBytesAsync(
                folder[$"d/{i}.vhd"],
                VhdMaker.Dynamic(
                    VhdMaker.Footer("win ", 65536, (1, 4, 17), 4, id: (byte)i),
                    VhdMaker.Header(1536, 16, 4096, (byte)(i - 1), 1, $"{i - 1}.vhd", ("W2ru", name, 2048)), 4096, 16));
        }
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(() => Images.OpenAsync(folder[$"d/{Depth}.vhd"]));
        Assert.Equal(DiskImageErrorKind.NotFound, error.Kind);
        await File.WriteAllBytesAsync(
            folder["d/0.vhd"],
            VhdMaker.Dynamic(VhdMaker.Footer("win ", 65536, (1, 4, 17), 3, id: 99), VhdMaker.Header(1536, 16, 4096), 4096, 16));
        error = await Assert.ThrowsAsync<DiskImageException>(() => Images.OpenAsync(folder[$"d/{Depth}.vhd"]));
        Assert.Equal(DiskImageErrorKind.Corrupt, error.Kind); // another disk
    }

    [Theory]
    [InlineData("vmdk")]
    [InlineData("vpc")]
    [InlineData("vhdx")]
    [InlineData("vdi")]
    public async Task A_parent_is_found_in_the_folders_that_are_searched(string format)
    {
        using var folder = new TestFolder();
        _ = Directory.CreateDirectory(folder["a"]);
        _ = Directory.CreateDirectory(folder["b"]);
        string ending = Images.Registry.Format(format).Extensions[0], parent = folder[$"a/base{ending}"], child = folder[$"a/child{ending}"];
        await Images.CreateAsync(parent, format, "size=4M");
        await using (BlockNode disk = await Images.OpenAsync(parent, writable: true))
        {
            await disk.WriteAsync(70_000, new byte[] { 7 });
        }
        await Images.CreateAsync(child, format, $"backing_file=base{ending},backing_fmt={format}");
        File.Move(parent, folder[$"b/base{ending}"]);
        File.SetLastWriteTimeUtc(folder[$"b/base{ending}"], DateTime.UtcNow);
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(() => Images.OpenAsync(child));
        Assert.Contains("the folders to search", error.Message, StringComparison.Ordinal);
        await using BlockNode found = await Images.OpenAsync(child, policy: OpenPolicy.Default with { ParentFolders = [folder["b"]] });
        byte[] read = new byte[1];
        await found.ReadAsync(70_000, read);
        Assert.Equal(7, read[0]);
        await Images.CreateAsync(folder[$"a/base{ending}"], format, "size=4M"); // another disk of that name gives way
        await using BlockNode again = await Images.OpenAsync(child, policy: OpenPolicy.Default with { ParentFolders = [folder["b"]] });
        await again.ReadAsync(70_000, read);
        Assert.Equal(7, read[0]);
    }

    [Fact]
    public async Task The_start_of_a_file_nearby_is_read_once_for_all_layers()
    {
        using var folder = new TestFolder();
        await Images.CreateAsync(folder["0.vdi"], "vdi", "size=4M");
        for (int i = 1; i <= 6; i++)
        {
            await Images.CreateAsync(folder[$"{i}.vdi"], "vdi", $"backing_file={i - 1}.vdi");
        }
        for (int i = 0; i < 10; i++)
        {
            await Images.CreateAsync(folder[$"other{i}.vdi"], "vdi", $"size={i + 1}M");
        }
        var files = new FailingStorage();
        var opener = new ImageOpener(new DriverRegistry([.. Images.Registry.Formats], [files]), OpenPolicy.Default);
        await using (OpenedImage top = await opener.OpenAsync(new OpenRequest(folder["6.vdi"]), CancellationToken.None))
        {
            Assert.Equal(4 << 20, top.Node.Length);
        }
        Assert.All(files.Opened.GroupBy(f => f, StringComparer.Ordinal), f => Assert.InRange(
            f.Count(), 1, Path.GetFileName(f.Key).StartsWith("other", StringComparison.Ordinal) ? 1 : 2)); // a layer is opened as such, too
    }

    private static ParentSearch Search(Func<string, BlockNode> open)
        => new("child", "vpc", (name, _, _) => new ValueTask<BlockNode>(open(name)));
}
