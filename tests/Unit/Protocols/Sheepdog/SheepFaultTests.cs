using System.Buffers.Binary;
using DiskImage.Block;
using DiskImage.Protocols.Sheepdog;

namespace DiskImage.Tests.Protocols.Sheepdog;

/// <summary>What clusters and gateways may do wrong, and what others may do to a VDI meanwhile.</summary>
public sealed class SheepFaultTests : IAsyncDisposable
{
    private const int Unit = 1 << 20;

    private readonly ScriptedSheep _sheep = new();

    private string Vdi => _sheep.Url("disk");

    private ScriptedCluster Cluster => _sheep.Cluster;

    public ValueTask DisposeAsync() => _sheep.DisposeAsync();

    [Fact]
    public async Task After_a_crash_at_any_request_a_write_is_there_or_is_not()
    {
        byte[] old = SheepTalk.Bytes(3 * Unit, 1), made = SheepTalk.Bytes(2 * Unit, 2);
        for (int cut = 0; cut < 24; cut++)
        {
            await using var sheep = new ScriptedSheep();
            string url = sheep.Url("disk");
            await SheepTalk.MakeAsync(url, old);
            await using (SheepNode node = await SheepTalk.OpenAsync(url, writable: true))
            {
                _ = await node.CreateSnapshotAsync("s", DateTimeOffset.UtcNow, CancellationToken.None);
            }
            SheepNode writer = await SheepTalk.OpenAsync(url, writable: true);
            sheep.CutAfter = cut;
            try
            {
                await writer.WriteAsync(Unit / 2, made); // three objects, each a copy first
                await writer.DiscardAsync(0, Unit);
                await writer.ResizeAsync(4 * Unit);
                await writer.WriteAsync(3 * Unit, made.AsMemory(0, Unit));
            }
            catch (DiskImageException e)
            {
                Assert.Equal(DiskImageErrorKind.Io, e.Kind);
            }
            await writer.DisposeAsync();
            sheep.CutAfter = -1;
            SheepTalk.Same(old, await SheepTalk.ReadAsync($"{url}#s"));
            byte[] now = await SheepTalk.ReadAsync(url);
            for (int i = 0; i < 3; i++)
            {
                byte[] before = old[(i * Unit)..((i + 1) * Unit)], after = [.. before];
                int from = Math.Max(i * Unit, Unit / 2), to = Math.Min((i + 1) * Unit, (Unit / 2) + made.Length);
                made.AsSpan(from - (Unit / 2), to - from).CopyTo(after.AsSpan(from - (i * Unit)));
                byte[] found = now[(i * Unit)..((i + 1) * Unit)];
                Assert.True(
                    found.AsSpan().SequenceEqual(before) || found.AsSpan().SequenceEqual(after)
                        || (i == 0 && !found.AsSpan().ContainsAnyExcept((byte)0)),
                    $"cut after {cut} requests: object {i} is neither old nor new");
            }
        }
    }

    [Fact]
    public async Task After_a_crash_at_any_request_of_going_back_there_is_a_VDI_with_old_or_new_contents()
    {
        byte[] first = SheepTalk.Bytes(2 * Unit, 1), second = SheepTalk.Bytes(2 * Unit, 2);
        bool isRestored = false;
        for (int cut = 0; !isRestored; cut++)
        {
            Assert.True(cut < 30);
            await using var sheep = new ScriptedSheep();
            string url = sheep.Url("disk");
            await SheepTalk.MakeAsync(url, first);
            SheepNode node = await SheepTalk.OpenAsync(url, writable: true);
            _ = await node.CreateSnapshotAsync("s", DateTimeOffset.UtcNow, CancellationToken.None);
            await node.WriteAsync(0, second);
            sheep.CutAfter = cut;
            try
            {
                _ = await node.RestoreSnapshotAsync("s", CancellationToken.None);
                isRestored = true;
            }
            catch (DiskImageException e)
            {
                Assert.Equal(DiskImageErrorKind.Io, e.Kind);
            }
            await node.DisposeAsync();
            sheep.CutAfter = -1;
            byte[] now = await SheepTalk.ReadAsync(url);
            Assert.True(now.AsSpan().SequenceEqual(first) || now.AsSpan().SequenceEqual(second), $"cut after {cut} requests");
            SheepTalk.Same(first, await SheepTalk.ReadAsync($"{url}#s"));
        }
    }

    [Fact]
    public async Task A_session_that_is_cut_at_any_byte_is_one_error()
    {
        await SheepTalk.MakeAsync(Vdi, SheepTalk.Bytes(4096, 1));
        for (int cut = 0; cut < 700; cut += cut < 300 ? 1 : 7)
        {
            _sheep.CutAfterBytes = cut < 300 ? cut : 4600 + cut; // of finding it, of its inode's end, of the list, of what is read
            DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(async () => await TalkAsync());
            Assert.Equal(DiskImageErrorKind.Io, error.Kind);
        }
        _sheep.CutAfterBytes = -1;
        await TalkAsync();
    }

    [Theory]
    [InlineData(536, 0x7FFFFFFFFFFFFFFF, DiskImageErrorKind.Corrupt)] // the size
    [InlineData(536, -0x8000000000000000, DiskImageErrorKind.Corrupt)]
    [InlineData(536, 1L << 42, null)]
    [InlineData(552, 0x1F_01_00_00, DiskImageErrorKind.Corrupt)] // 2^31 bytes an object: the numbers that follow are 0
    [InlineData(552, 0x16_01_01_00, DiskImageErrorKind.Unsupported)] // a hyper volume
    [InlineData(552, 0x13_01_00_00, DiskImageErrorKind.Corrupt)]
    [InlineData(552, unchecked((long)0xFF_01_00_00), DiskImageErrorKind.Corrupt)]
    [InlineData(4664, 0x1234567, DiskImageErrorKind.Corrupt)] // whose the first object is
    public async Task An_inode_that_cannot_be_is_refused(int at, long value, DiskImageErrorKind? expected)
    {
        Cluster.Shift = 22;
        await SheepTalk.MakeAsync(Vdi, SheepTalk.Bytes(4096, 1));
        byte[] bytes = new byte[8];
        BinaryPrimitives.WriteInt64LittleEndian(bytes, value);
        int length = at == 552 && value == 0x1F_01_00_00 ? 12 : at == 536 ? 8 : 4;
        Cluster.Objects[ScriptedCluster.InodeOf(Cluster.Working("disk"))].Write(
            at, bytes.Concat(new byte[4]).Take(length).ToArray());
        if (expected is { } kind)
        {
            Assert.Equal(kind, await SheepTalk.KindAsync(async () => await TalkAsync()));
        }
        else
        {
            await TalkAsync();
        }
    }

    [Theory]
    [InlineData(0x15u, DiskImageErrorKind.NoSpace)]
    [InlineData(0x19u, DiskImageErrorKind.WriteFailed)]
    [InlineData(0x77u, DiskImageErrorKind.WriteFailed)]
    public async Task A_failed_write_says_what_the_cluster_says_and_the_next_one_may_do(uint result, DiskImageErrorKind expected)
    {
        await SheepTalk.MakeAsync(Vdi, new byte[Unit]);
        await using SheepNode node = await SheepTalk.OpenAsync(Vdi, writable: true);
        Cluster.Fail = (operation, _) => operation == 1 ? result : null;
        Assert.Equal(expected, await SheepTalk.KindAsync(async () => await node.WriteAsync(0, new byte[] { 1 })));
        Cluster.Fail = (_, _) => null;
        await node.WriteAsync(0, new byte[] { 2 });
        Assert.Equal(2, (await SheepTalk.ReadAsync(node))[0]);
    }

    [Fact]
    public async Task A_failed_flush_ends_writing()
    {
        Cluster.HasCache = true;
        await SheepTalk.MakeAsync(Vdi, new byte[Unit]);
        await using SheepNode node = await SheepTalk.OpenAsync(Vdi, writable: true);
        await node.FlushAsync();
        Cluster.Fail = (operation, _) => operation == 0x16 ? 3u : null;
        Assert.Equal(DiskImageErrorKind.WriteFailed, await SheepTalk.KindAsync(async () => await node.FlushAsync()));
        Cluster.Fail = (_, _) => null;
        Assert.Equal(DiskImageErrorKind.WriteFailed, await SheepTalk.KindAsync(async () => await node.WriteAsync(0, new byte[1])));
        _ = await SheepTalk.ReadAsync(node);
    }

    [Fact]
    public async Task A_snapshot_by_somebody_else_does_not_stop_a_writer()
    {
        byte[] model = SheepTalk.Bytes(2 * Unit, 1);
        await SheepTalk.MakeAsync(Vdi, model);
        await using SheepNode node = await SheepTalk.OpenAsync(Vdi, writable: true);
        for (int i = 0; i < 3; i++)
        {
            Cluster.SnapshotByOther("disk");
            byte[] part = SheepTalk.Bytes(5000, i);
            part.CopyTo(model.AsSpan(Unit - 2500 + i));
            await node.WriteAsync(Unit - 2500 + i, part);
        }
        SheepTalk.Same(model, await SheepTalk.ReadAsync(node));
        SheepTalk.Same(model, await SheepTalk.ReadAsync(Vdi));
        Assert.Equal(3, (await node.GetSnapshotsAsync(CancellationToken.None)).Count);
    }

    [Fact]
    public async Task An_object_that_is_given_up_is_not_made_again_before_it_is_gone()
    {
        await SheepTalk.MakeAsync(Vdi, SheepTalk.Bytes(Unit, 1));
        await using SheepNode node = await SheepTalk.OpenAsync(Vdi, writable: true);
        Cluster.ReclaimsLater = true;
        await node.DiscardAsync(0, Unit);
        Task writing = node.WriteAsync(100, new byte[] { 7 }).AsTask();
        await Task.Delay(200);
        Assert.DoesNotContain(Cluster.Log, l => l.StartsWith("01", StringComparison.Ordinal) && writing.IsCompleted);
        lock (Cluster)
        {
            Cluster.Reclaim();
        }
        await writing;
        lock (Cluster)
        {
            Cluster.Reclaim();
        }
        byte[] expected = new byte[Unit];
        expected[100] = 7;
        SheepTalk.Same(expected, await SheepTalk.ReadAsync(node));
    }

    [Fact]
    public async Task A_hung_gateway_lets_a_reader_give_up_and_nothing_is_written_to_his_buffer()
    {
        await SheepTalk.MakeAsync(Vdi, SheepTalk.Bytes(Unit, 1));
        await using SheepNode node = await SheepTalk.OpenAsync(Vdi, writable: false);
        _sheep.Hangs = true;
        byte[] buffer = new byte[4096];
        using var stop = new CancellationTokenSource(100);
        _ = await Assert.ThrowsAnyAsync<OperationCanceledException>(async () => await node.ReadAsync(0, buffer, stop.Token));
        _sheep.Hangs = false;
        byte[] other = await SheepTalk.ReadAsync(node);
        Assert.False(buffer.AsSpan().ContainsAnyExcept((byte)0));
        SheepTalk.Same(SheepTalk.Bytes(Unit, 1), other);
    }

    private async Task TalkAsync(CancellationToken cancellationToken = default)
    {
        await using SheepNode node = await SheepDriver.OpenAsync(SheepDriver.PlaceOf(Vdi), writable: false, cancellationToken);
        await node.ReadAsync(0, new byte[Math.Min(node.Length, 4096)], cancellationToken);
        _ = await node.GetSnapshotsAsync(cancellationToken);
    }
}
