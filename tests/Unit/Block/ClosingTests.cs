using DiskImage.Block;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Block;

public sealed class ClosingTests
{
    [Fact]
    public async Task All_is_closed_and_every_failure_is_told_also_those_of_parts_in_parts()
    {
        var closed = new List<string>();
        Func<ValueTask> Part(string name, bool fails) => () =>
        {
            closed.Add(name);
            return fails ? throw new DiskImageException(DiskImageErrorKind.Io, name) : default;
        };
        DiskImageException e = await Assert.ThrowsAsync<DiskImageException>(async () => await Closing.AllAsync(
            [() => Closing.AllAsync([Part("a", true), Part("b", true)]), Part("c", false), Part("d", true)]));
        Assert.Equal("a b c d", string.Join(' ', closed));
        Assert.Equal("a", e.Message);
        Assert.Equal($"b{Environment.NewLine}d", e.Data["Further"]);
    }

    [Fact]
    public async Task What_could_not_be_used_is_closed_without_a_word()
    {
        MemoryNode one = new(), two = new();
        await Closing.FailedAsync(new FailingClose(one), null, two);
        Assert.True(one.IsClosed && two.IsClosed);
    }

    private sealed class FailingClose(BlockNode below) : FilterNode(below)
    {
        protected override ValueTask CloseCoreAsync() => throw new DiskImageException(DiskImageErrorKind.Io, "told to fail");
    }
}
