using DiskImage.Metadata;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Metadata;

/// <summary>Changes that are held back, against the same changes made at once.</summary>
public sealed class StagedNodeTests
{
    public static TheoryData<int> Seeds() => [.. Enumerable.Range(1, 20)];

    [Theory]
    [MemberData(nameof(Seeds))]
    public async Task Reads_as_if_changed_and_changes_nothing_until_committed(int seed)
    {
        var random = new Random(seed);
        byte[] before = new byte[random.Next(1, 60_000)];
        random.NextBytes(before);
        var below = new MemoryNode((byte[])before.Clone());
        var twin = new MemoryNode((byte[])before.Clone());
        var staged = new StagedNode(below, inMemory: seed % 2 == 0 ? 0 : 1 << 20); // all of it in a temporary file, or none
        await using (staged)
        {
            for (int i = 0; i < 60; i++)
            {
                byte[] data = new byte[random.Next(1, 9000)];
                random.NextBytes(data);
                long at = random.Next((int)twin.Length + 5000);
                switch (random.Next(5))
                {
                    case 0:
                        long length = random.Next(70_000);
                        await staged.ResizeAsync(length);
                        await twin.ResizeAsync(length);
                        break;
                    case 1:
                        await staged.FlushAsync();
                        break;
                    default:
                        await staged.WriteAsync(at, data);
                        await twin.WriteAsync(at, data);
                        break;
                }
                byte[] now = new byte[staged.Length];
                await staged.ReadAsync(0, now);
                Assert.True(twin.ToArray().AsSpan().SequenceEqual(now), $"seed {seed}, step {i}: reads otherwise");
                for (int start = 0; start < now.Length; start += 1000)
                {
                    int count = Math.Min(1000, now.Length - start);
                    Assert.True(!staged.IsUntouched(start, count)
                        || now.AsSpan(start, count).SequenceEqual(
                            before.AsSpan(start, count)), $"seed {seed}, step {i}: {start} is touched");
                }
            }
            Assert.Equal(before, below.ToArray());
            await staged.CommitAsync();
            Assert.Equal(twin.ToArray(), below.ToArray());
            Assert.False(staged.HasChanges);
        }
    }

    /// <summary>What was flushed before something else was written is durable before that, in the file as well.</summary>
    [Fact]
    public async Task Committing_keeps_the_flushes_between_changes()
    {
        var log = new WriteLogNode(new MemoryNode(new byte[8192]));
        await using var staged = new StagedNode(log);
        await staged.WriteAsync(5000, new byte[] { 1 });
        await staged.FlushAsync();
        await staged.WriteAsync(0, new byte[] { 2 });
        await staged.WriteAsync(5000, new byte[] { 3 });
        await staged.ResizeAsync(20_000);
        Assert.Empty(log.Entries);
        await staged.CommitAsync();
        Assert.Equal(
            [
                WriteLogKind.Write, WriteLogKind.Flush, WriteLogKind.Write, WriteLogKind.Write, WriteLogKind.Resize, WriteLogKind.Flush,
            ], log.Entries.Select(e => e.Kind));
        Assert.Equal([5000L, 0L, 5000L], log.Entries.Where(e => e.Kind == WriteLogKind.Write).Select(e => e.Offset));
    }
}
