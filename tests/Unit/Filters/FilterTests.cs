using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Filters.BlkLogWrites;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Filters;

public sealed class FilterTests
{
    private const int Sector = 512;

    [Fact]
    public async Task A_write_log_replays_to_the_same_bytes()
    {
        byte[] before = new byte[64 * Sector];
        new Random(1).NextBytes(before);
        var log = new MemoryNode();
        var below = new MemoryNode([.. before]);
        byte[] data = new byte[3000];
        new Random(2).NextBytes(data);
        await using (var node = new BlkLogWritesNode(below, log, Sector))
        {
            await node.WriteAsync(777, data);
            await node.WriteZeroesAsync(8 * Sector, 4 * Sector);
            await node.FlushAsync();
            await node.DiscardAsync(32 * Sector, 2 * Sector);
        }
        byte[] bytes = log.ToArray();
        Assert.Equal(0x6A736677736872UL, LittleEndian.U64(bytes, 0));
        Assert.Equal((1UL, 4UL, (uint)Sector), (LittleEndian.U64(bytes, 8), LittleEndian.U64(bytes, 16), LittleEndian.U32(bytes, 24)));
        var flags = new List<ulong>();
        int at = Sector;
        for (ulong entry = 0; entry < 4; entry++)
        {
            int sector = (int)LittleEndian.U64(bytes, at), count = (int)LittleEndian.U64(bytes, at + 8);
            ulong flag = LittleEndian.U64(bytes, at + 16);
            flags.Add(flag);
            at += Sector;
            if (flag == 0)
            {
                bytes.AsSpan(at, count * Sector).CopyTo(before.AsSpan(sector * Sector));
                at += count * Sector;
            }
        }
        Assert.Equal([0, 0, 1, 4], flags);
        Assert.Equal(bytes.Length, at);
        Assert.Equal(below.ToArray()[..(32 * Sector)], before[..(32 * Sector)]);
        Assert.Equal(data, before[777..(777 + data.Length)]);
    }

    [Fact]
    public async Task Zeroes_are_zeroes_in_a_write_log_too_and_logging_them_can_be_cancelled()
    {
        var log = new Counting(new MemoryNode());
        await using var node = new BlkLogWritesNode(new MemoryNode(new byte[4 << 20]), log, Sector);
        await node.WriteZeroesAsync(0, 3 << 20);
        Assert.Equal((3 * Sector, 3 << 20), (log.Written, log.Zeroed)); // three headers
        using var stop = new CancellationTokenSource();
        await stop.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(
            async () => await node.WriteZeroesAsync(0, 3 << 20, cancellationToken: stop.Token));
        Assert.Equal(3 << 20, log.Zeroed);
    }

    /// <summary>Counts bytes.</summary>
    private sealed class Counting(BlockNode child) : FilterNode(child)
    {
        public long Written { get; private set; }

        public long Zeroed { get; private set; }

        protected override ValueTask WriteCoreAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
        {
            Written += buffer.Length;
            return base.WriteCoreAsync(offset, buffer, cancellationToken);
        }

        protected override ValueTask WriteZeroesCoreAsync(long offset, long length, ZeroWriteMode mode, CancellationToken cancellationToken)
        {
            Zeroed += length;
            return base.WriteZeroesCoreAsync(offset, length, mode, cancellationToken);
        }
    }
}
