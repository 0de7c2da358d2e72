using DiskImage.Block;
using DiskImage.Filters.Error;
using DiskImage.Graph;
using DiskImage.Options;
using DiskImage.Tests.Conformance;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Filters;

public sealed class ErrorNodeTests : NodeConformance
{
    private protected override bool CanResize => true;

    private protected override Task<BlockNode> MakeAsync(byte[] contents, bool writable)
        => Task.FromResult<BlockNode>(new ErrorNode(
            new MemoryNode((byte[])contents.Clone(), !writable), new ErrorOptions().Kinds(), seed: 0));
}

public sealed class ErrorTests
{
    private const int Size = 1 << 20;

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    public async Task What_fails_leaves_the_disk_as_it_was(int seed)
    {
        byte[] twin = new byte[Size];
        var below = new MemoryNode(new byte[Size]);
        await using var node = new ErrorNode(new FixedLengthNode(below), new ErrorOptions { Rate = "20%" }.Kinds(), seed);
        var random = new Random(seed);
        int failed = 0;
        const int Requests = 1000;
        for (int i = 0; i < Requests; i++)
        {
            int offset = random.Next(Size), length = random.Next(1, Math.Min(Size - offset, 5000) + 1);
            byte[] bytes = new byte[length];
            random.NextBytes(bytes);
            try
            {
                switch (i % 5)
                {
                    case 0:
                        await node.WriteAsync(offset, bytes);
                        bytes.CopyTo(twin, offset);
                        break;
                    case 1:
                        await node.WriteZeroesAsync(offset, length);
                        twin.AsSpan(offset, length).Clear();
                        break;
                    case 2:
                        await node.ReadAsync(offset, bytes);
                        Assert.True(twin.AsSpan(offset, length).SequenceEqual(bytes));
                        break;
                    case 3:
                        _ = await node.GetExtentAsync(offset, length);
                        break;
                    default:
                        await node.FlushAsync();
                        break;
                }
            }
            catch (DiskImageException e)
            {
                Assert.Equal(DiskImageErrorKind.Io, e.Kind);
                Assert.Contains($"request {i + 1:#,0} of this disk", e.Message, StringComparison.Ordinal);
                failed++;
            }
        }
        Assert.InRange(failed, Requests / 5 * 0.7, Requests / 5 * 1.3);
        Assert.Equal(twin, below.ToArray());
    }

    [Fact]
    public async Task The_same_requests_fail_for_the_same_seed()
    {
        static async Task<string> PatternAsync(string options)
        {
            await using OpenedImage image = await OpenAsync(options);
            var pattern = new List<char>();
            for (int i = 0; i < 200; i++)
            {
                try
                {
                    await image.Node.ReadAsync(0, new byte[1]);
                    pattern.Add('.');
                }
                catch (DiskImageException)
                {
                    pattern.Add('x');
                }
            }
            return string.Concat(pattern);
        }
        string first = await PatternAsync("error-rate=0.5,seed=1");
        Assert.Equal(first, await PatternAsync("error-pread-rate=50%,seed=1,error-rate=1"));
        Assert.False(first.Equals(await PatternAsync("error-rate=0.5,seed=2"), StringComparison.Ordinal));
        Assert.DoesNotContain('x', await PatternAsync("error-pread-rate=0,error-rate=1"));
        Assert.DoesNotContain('.', await PatternAsync("error-rate=100%"));
    }

    [Theory]
    [InlineData("error=ENOSPC,error-pwrite-rate=1", DiskImageErrorKind.NoSpace)]
    [InlineData("error=ENOSPC,error-pwrite=EPERM,error-pwrite-rate=1", DiskImageErrorKind.AccessDenied)]
    [InlineData("error-pwrite=ENOMEM,error-pwrite-rate=1.0", DiskImageErrorKind.Io)]
    public async Task Each_kind_of_request_has_its_error(string options, DiskImageErrorKind kind)
    {
        await using OpenedImage image = await OpenAsync(options);
        DiskImageException e = await Assert.ThrowsAsync<DiskImageException>(async () => await image.Node.WriteAsync(5, new byte[1]));
        Assert.Equal((kind, 5L), (e.Kind, e.Offset));
        await image.Node.ReadAsync(0, new byte[1]);
        await image.Node.WriteZeroesAsync(0, 10);
        await image.Node.DiscardAsync(0, 10);
        await image.Node.FlushAsync();
    }

    [Theory]
    [InlineData("error-rate=1.5")]
    [InlineData("error-rate=101%")]
    [InlineData("error-pread-rate=often")]
    [InlineData("error-rate=-1")]
    [InlineData("error=EWHAT")]
    public async Task What_cannot_be_is_refused(string options)
    {
        DiskImageException e = await Assert.ThrowsAsync<DiskImageException>(() => OpenAsync(options));
        Assert.Equal(DiskImageErrorKind.InvalidOption, e.Kind);
        Assert.Contains($"Option '{options.Split('=')[0]}' cannot be '{options.Split('=')[1]}'", e.Message, StringComparison.Ordinal);
    }

    private static async Task<OpenedImage> OpenAsync(string options) => await Images.Opener.OpenAsync(
        new OpenRequest(NodeSpec.From(OptionSchema.Values($"driver=error,{options},file.driver=null-co")).ToString()) { Writable = true },
        CancellationToken.None);
}
