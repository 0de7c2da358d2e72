using System.Text;
using DiskImage.Block;
using DiskImage.Formats;
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

    private static ParentSearch Search(Func<string, BlockNode> open)
        => new("child", "vpc", (name, _, _) => new ValueTask<BlockNode>(open(name)));
}
