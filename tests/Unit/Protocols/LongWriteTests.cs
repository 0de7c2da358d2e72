using DiskImage.Block;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Protocols;

/// <summary>Long writes to a file, many at once: they take turns, and each arrives or is cancelled as a whole.</summary>
public sealed class LongWriteTests : IDisposable
{
    private const int Length = 256 << 10, Count = 48;

    private readonly TestFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Each_arrives_or_is_cancelled_as_a_whole(bool isCancelled)
    {
        await File.WriteAllBytesAsync(_folder["disk"], new byte[((long)Count * Length) + 1]);
        await using BlockNode disk = await Images.OpenAsync(_folder["disk"], writable: true, format: "raw");
        using var stop = new CancellationTokenSource();
        int ended = 0;
        Task<bool>[] writes = [.. Enumerable.Range(0, Count).Reverse().Select(i => Task.Run(() => WriteAsync(i)))];
        bool[] arrived = await Task.WhenAll(writes);
        Assert.True(isCancelled || Array.TrueForAll(arrived, a => a));
        await disk.WriteAsync((long)Count * Length, new byte[] { 1 }); // nobody has kept the turn
        byte[] contents = new byte[Length];
        for (int i = 0; i < Count; i++)
        {
            await disk.ReadAsync((long)i * Length, contents);
            Assert.Equal(arrived[Count - 1 - i] ? (byte)(i + 1) : (byte)0, Assert.Single(contents.Distinct()));
        }

        async Task<bool> WriteAsync(int i)
        {
            byte[] bytes = new byte[Length];
            Array.Fill(bytes, (byte)(i + 1));
            try
            {
                await disk.WriteAsync((long)i * Length, bytes, stop.Token);
                return true;
            }
            catch (OperationCanceledException)
            {
                return false;
            }
            finally
            {
                if (Interlocked.Increment(ref ended) == Count / 4 && isCancelled)
                {
                    await stop.CancelAsync();
                }
            }
        }
    }
}
