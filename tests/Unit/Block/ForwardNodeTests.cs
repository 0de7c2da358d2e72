using DiskImage.Block;

namespace DiskImage.Tests.Block;

public sealed class ForwardNodeTests
{
    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    public async Task What_is_written_nearly_in_order_arrives_as_it_would_lie_in_a_file(int seed)
    {
        var random = new Random(seed);
        byte[] twin = new byte[40 << 20];
        using var sink = new MemoryStream();
        await using var node = new ForwardNode(sink, "sent");
        await node.ResizeAsync(twin.Length);
        byte[] footer = new byte[512];
        random.NextBytes(footer);
        footer.CopyTo(twin.AsSpan(twin.Length - footer.Length));
        await node.WriteAsync(twin.Length - footer.Length, footer); // ahead of its turn
        for (int start = 0; start < twin.Length - (2 << 20); start += random.Next(1 << 20))
        {
            // Around where the writing is: some before, some after, some over others, some of it zeroes.
            int offset = Math.Max(0, start + random.Next(-1 << 20, 1 << 20));
            byte[] data = new byte[random.Next(1, 700_000)];
            if (random.Next(4) == 0)
            {
                await node.WriteZeroesAsync(offset, data.Length, ZeroWriteMode.MayUnmap);
            }
            else
            {
                random.NextBytes(data);
                await node.WriteAsync(offset, data);
            }
            data.CopyTo(twin.AsSpan(offset));
            int again = Math.Max(0, offset - 100_000);
            byte[] read = new byte[200_000];
            await node.ReadAsync(again, read);
            Assert.True(read.AsSpan().SequenceEqual(twin.AsSpan(again, read.Length)));
        }
        await node.SendRestAsync(CancellationToken.None);
        Assert.True(sink.ToArray().AsSpan().SequenceEqual(twin));
    }

    [Fact]
    public async Task What_was_sent_can_be_neither_read_nor_changed_nor_taken_back()
    {
        using var sink = new MemoryStream();
        await using var node = new ForwardNode(sink, "sent");
        byte[] data = new byte[1 << 20];
        for (int i = 0; i < 40; i++)
        {
            await node.WriteAsync((long)i << 20, data);
        }
        Assert.InRange(sink.Length, 24 << 20, 39 << 20); // what is held is bounded
        Func<Task>[] attempts =
        [
            () => node.ReadAsync(0, data).AsTask(),
            () => node.WriteAsync(5, data).AsTask(),
            () => node.WriteZeroesAsync(0, 100_000_000 - 1, ZeroWriteMode.MayUnmap).AsTask(),
            () => node.ResizeAsync(1 << 20).AsTask(),
        ];
        foreach (Func<Task> attempt in attempts)
        {
            DiskImageException problem = await Assert.ThrowsAsync<DiskImageException>(attempt);
            Assert.Equal(DiskImageErrorKind.Unsupported, problem.Kind);
            Assert.Contains("has been sent", problem.Message, StringComparison.Ordinal);
        }
        await node.ResizeAsync(35 << 20);
        await node.SendRestAsync(CancellationToken.None);
        Assert.Equal(35 << 20, sink.Length);
    }

    [Fact]
    public async Task Gaps_are_sent_as_zeroes()
    {
        using var sink = new MemoryStream();
        await using var node = new ForwardNode(sink, "sent");
        await node.WriteAsync(3_000_000, new byte[] { 1 });
        await node.ResizeAsync(5_000_001);
        await node.SendRestAsync(CancellationToken.None);
        byte[] expected = new byte[5_000_001];
        expected[3_000_000] = 1;
        Assert.Equal(expected, sink.ToArray());
    }

    [Fact]
    public async Task Who_takes_no_more_ends_it_with_the_first_cause()
    {
        await using var node = new ForwardNode(new FullStream(), "sent");
        byte[] data = new byte[1 << 20];
        async Task WriteAllAsync()
        {
            for (int i = 0; i < 40; i++)
            {
                await node.WriteAsync((long)i << 20, data);
            }
        }
        DiskImageException problem = await Assert.ThrowsAsync<DiskImageException>(WriteAllAsync);
        Assert.Equal(DiskImageErrorKind.Io, problem.Kind);
        Assert.Contains("no reader", problem.Message, StringComparison.Ordinal);
        problem = await Assert.ThrowsAsync<DiskImageException>(async () => await node.WriteAsync(60 << 20, data));
        Assert.Contains("no reader", problem.Message, StringComparison.Ordinal);
    }

    private sealed class FullStream : MemoryStream
    {
        public override ValueTask WriteAsync(ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken = default)
            => throw new IOException("no reader");
    }
}
