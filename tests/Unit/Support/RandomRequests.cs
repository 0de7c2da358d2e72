using DiskImage.Block;

namespace DiskImage.Tests.Support;

/// <summary>Requests at random, beside a model of what should be there.</summary>
internal static class RandomRequests
{
    private const int Block = 4096, Longest = 900_000;

    /// <summary>Reads, writes, zeroes and flushes a disk, and reads all of it at the end.</summary>
    public static async Task ExerciseAsync(BlockNode disk, byte[] model, int seed, int operations = 60)
    {
        var random = new Random(seed);
        for (int i = 0; i < operations; i++)
        {
            int offset = random.Next(model.Length - 1), length = random.Next(1, Math.Min(model.Length - offset, Longest));
            switch (random.Next(6))
            {
                case 0 or 1:
                    random.NextBytes(model.AsSpan(offset, length));
                    await disk.WriteAsync(offset, model.AsMemory(offset, length));
                    break;
                case 2:
                    model.AsSpan(offset, length).Clear();
                    await disk.WriteZeroesAsync(offset, length, random.Next(2) == 0 ? ZeroWriteMode.KeepAllocated : ZeroWriteMode.MayUnmap);
                    break;
                case 3:
                    await disk.FlushAsync();
                    break;
                case 4:
                    (offset, length) = (offset / Block * Block, Block);
                    random.NextBytes(model.AsSpan(offset, length));
                    await disk.WriteDurablyAsync(offset, model.AsMemory(offset, length));
                    break;
                default:
                    byte[] read = new byte[length];
                    await disk.ReadAsync(offset, read);
                    Assert.True(model.AsSpan(offset, length).SequenceEqual(read), $"seed {seed}, operation {i}: {length} at {offset}");
                    break;
            }
        }
        byte[] all = new byte[model.Length];
        await disk.ReadAsync(0, all);
        Assert.True(model.AsSpan().SequenceEqual(all), $"seed {seed}");
    }
}
