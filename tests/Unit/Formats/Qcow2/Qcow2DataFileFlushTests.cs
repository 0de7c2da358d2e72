using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Options;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Qcow2;

/// <summary>
/// The host could not make an external data file durable: what was written to it may be lost, so no table comes to
/// point there, now or later.
/// </summary>
public sealed class Qcow2DataFileFlushTests
{
    private const int Cluster = 4096, L2Span = Cluster / 8 * Cluster, Size = 64 << 20;

    private static readonly FormatDriver s_qcow2 = Images.Registry.Format("qcow2");

    [Theory]
    [InlineData("flush")]
    [InlineData("flush twice")]
    [InlineData("close")]
    [InlineData("write on")]
    [InlineData("check")]
    [InlineData("zeroes")]
    [InlineData("snapshot")]
    [InlineData("resize")]
    public async Task No_table_points_to_what_a_failed_flush_may_have_lost(string then)
    {
        (byte[] image, byte[] data) = await NewAsync();
        var file = new MemoryNode(image);
        var failing = new FailingFlush(new MemoryNode(data));
        BlockNode disk = await OpenAsync(file, failing);
        await disk.WriteAsync(0, Filled(Cluster, 0xA1));
        await disk.FlushAsync();
        byte[] flushed = file.ToArray();
        await disk.WriteAsync(64 * Cluster, Filled(Cluster, 0xB2));
        failing.Fails = true;
        DiskImageException first = await Assert.ThrowsAsync<DiskImageException>(async () => await disk.FlushAsync());
        failing.Fails = false; // the host reports it once
        switch (then)
        {
            case "flush twice":
                DiskImageException again = await Assert.ThrowsAsync<DiskImageException>(async () => await disk.FlushAsync());
                Assert.Equal(first.Kind, again.Kind);
                break;
            case "write on":
                for (int i = 1; i < 60; i++)
                {
                    _ = await Assert.ThrowsAsync<DiskImageException>(async () =>
                    {
                        await disk.WriteAsync((64 + i) * Cluster, Filled(Cluster, 0xC3));
                        await disk.FlushAsync();
                    });
                }
                break;
            case "check":
                _ = await Assert.ThrowsAsync<DiskImageException>(
                    async () => await ((ICheckable)disk).CheckAsync(null, CancellationToken.None));
                break;
        }
        switch (then)
        {
            case "zeroes": // needs tables only, and more of them than the cache holds: changed ones have to make room
                _ = await Assert.ThrowsAsync<DiskImageException>(async () =>
                {
                    for (long at = Size - L2Span; at > 0; at -= L2Span)
                    {
                        await disk.WriteZeroesAsync(at, Cluster, ZeroWriteMode.KeepAllocated);
                    }
                });
                break;
            case "resize":
                _ = await Assert.ThrowsAsync<DiskImageException>(async () => await disk.ResizeAsync(Size + Cluster));
                break;
            case "snapshot":
                _ = await Assert.ThrowsAsync<DiskImageException>(
                    async () => await ((ISnapshots)disk).CreateSnapshotAsync("s", DateTimeOffset.UnixEpoch, CancellationToken.None));
                break;
        }
        _ = await Record.ExceptionAsync(async () => await disk.DisposeAsync());
        Assert.Equal(flushed, file.ToArray());
        byte[] kept = failing.Kept;
        await using BlockNode reopened = await OpenAsync(new MemoryNode(flushed, readOnly: true), new MemoryNode(kept, readOnly: true));
        byte[] now = new byte[128 * Cluster], expected = new byte[now.Length];
        await reopened.ReadAsync(0, now);
        expected.AsSpan(0, Cluster).Fill(0xA1);
        Assert.Equal(expected, now);
        Assert.False((await reopened.GetExtentAsync(64 * Cluster, Cluster)).IsAllocated);
    }

    /// <summary>Bytes of a page that are gone with the write that failed: reading the image shows what was there before.</summary>
    [Fact]
    public async Task Reading_goes_on()
    {
        (byte[] image, byte[] data) = await NewAsync();
        var failing = new FailingFlush(new MemoryNode(data)) { Fails = true };
        BlockNode disk = await OpenAsync(new MemoryNode(image), failing);
        await disk.WriteAsync(0, Filled(Cluster, 0xA1));
        _ = await Assert.ThrowsAsync<DiskImageException>(async () => await disk.FlushAsync());
        byte[] now = new byte[Cluster];
        await disk.ReadAsync(0, now);
        Assert.Equal(Filled(Cluster, 0xA1), now);
        _ = await Record.ExceptionAsync(async () => await disk.DisposeAsync());
    }

    private static async Task<(byte[] Image, byte[] Data)> NewAsync()
    {
        MemoryNode file = new(), data = new();
        object record = ((ICreatable)s_qcow2).CreateOptions.Bind(OptionSchema.Split($"size={Size},cluster_size={Cluster},data_file=d"));
        await ((ICreatable)s_qcow2).CreateAsync(
            new FormatCreateContext(file, record, null, (_, _, _) => new(new BorrowedNode(data, isReadOnly: false))),
            CancellationToken.None);
        return (file.ToArray(), data.ToArray());
    }

    private static ValueTask<BlockNode> OpenAsync(BlockNode file, BlockNode data)
        => s_qcow2.OpenAsync(
            new FormatOpenContext(file, s_qcow2.OpenOptions.Bind(OptionSchema.Split("l2-cache-size=4k")), null, (_, _, _) => new(data)),
            CancellationToken.None);

    private static byte[] Filled(int length, byte value)
    {
        byte[] bytes = new byte[length];
        Array.Fill(bytes, value);
        return bytes;
    }

    /// <summary>A file whose flushes fail while it is told so. What was written since the last that did not is lost.</summary>
    private sealed class FailingFlush(MemoryNode below) : FilterNode(below)
    {
        public bool Fails { get; set; }

        /// <summary>The bytes that are durable.</summary>
        public byte[] Kept { get; private set; } = below.ToArray();

        protected override ValueTask FlushCoreAsync(CancellationToken cancellationToken)
        {
            if (Fails)
            {
                var error = new DiskImageException(DiskImageErrorKind.WriteFailed, "data: told to fail", "data");
                BreakWriting(error);
                throw error;
            }
            Kept = below.ToArray();
            return default;
        }
    }
}
