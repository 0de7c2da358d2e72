using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Protocols.Sheepdog;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Protocols.Sheepdog;

/// <summary>
/// What is done with VDIs: making, cloning, growing, snapshots, locks, discards. Over a cluster in memory; over a real one, whose gateway
/// is at the port that DISKIMAGE_SHEEP_PORT says, where that is set.
/// </summary>
public sealed class SheepVdiTests : IAsyncDisposable
{
    private const int Unit = 1 << 20;

    private readonly ScriptedSheep _sheep = new();
    private readonly string _mark = $"{Environment.ProcessId}-{Guid.NewGuid():N}"[..20];

    private static string? RealPort => Environment.GetEnvironmentVariable("DISKIMAGE_SHEEP_PORT") is { Length: > 0 } port ? port : null;

    public ValueTask DisposeAsync() => _sheep.DisposeAsync();

    private string Url(string vdi)
        => RealPort is { } port ? $"sheepdog://127.0.0.1:{port}/{vdi}-{_mark}" : _sheep.Url(vdi);

    private static SheepCreateOptions Small => new() { ObjectSize = Unit };

    [Fact]
    public async Task What_is_written_is_read_again_and_what_is_not_is_zeroes()
    {
        byte[] model = new byte[(7 * Unit) + 12_345];
        await SheepTalk.MakeAsync(Url("a"), model, Small);
        var random = new Random(5);
        await using (SheepNode node = await SheepTalk.OpenAsync(Url("a"), writable: true))
        {
            for (int i = 0; i < 60; i++)
            {
                int at = random.Next(model.Length - 1), length = random.Next(1, Math.Min(model.Length - at, 3 * Unit));
                switch (random.Next(5))
                {
                    case 0:
                        model.AsSpan(at, length).Clear();
                        await node.WriteZeroesAsync(at, length, (ZeroWriteMode)random.Next(2));
                        break;
                    case 1:
                        await node.DiscardAsync(at, length);
                        await node.ReadAsync(at, model.AsMemory(at, length));
                        break;
                    default:
                        random.NextBytes(model.AsSpan(at, length));
                        await node.WriteAsync(at, model.AsMemory(at, length));
                        break;
                }
            }
            await node.FlushAsync();
            SheepTalk.Same(model, await SheepTalk.ReadAsync(node));
        }
        SheepTalk.Same(model, await SheepTalk.ReadAsync(Url("a")));
        if (RealPort is null)
        {
            Assert.Equal(0, _sheep.Cluster.Lost);
        }
        await new SheepDriver().RemoveAsync(Url("a"), SheepDriver.PlaceOf(Url("a")).Identity);
        Assert.Equal(DiskImageErrorKind.NotFound, await SheepTalk.KindAsync(async () => await SheepTalk.ReadAsync(Url("a"))));
    }

    [Fact]
    public async Task Snapshots_keep_what_was_and_can_be_gone_back_to()
    {
        byte[] first = SheepTalk.Bytes(5 * Unit, 1), second = [.. first];
        SheepTalk.Bytes(Unit + 77, 2).CopyTo(second.AsSpan(Unit - 30));
        await SheepTalk.MakeAsync(Url("s"), first, Small);
        await using SheepNode node = await SheepTalk.OpenAsync(Url("s"), writable: true);
        DiskSnapshot one = await node.CreateSnapshotAsync("one", DateTimeOffset.UtcNow, CancellationToken.None);
        Assert.Equal(("one", 5L * Unit), (one.Name, one.VirtualSize));
        Assert.True(one.Date > DateTimeOffset.UnixEpoch);
        await node.WriteAsync(0, second);
        await node.ResizeAsync(6 * Unit);
        second = [.. second, .. new byte[Unit]];
        DiskSnapshot two = await node.CreateSnapshotAsync("tag two", DateTimeOffset.UtcNow, CancellationToken.None);
        await node.WriteZeroesAsync(0, 6 * Unit);
        Assert.Equal(
            [(one.Id, "one"), (two.Id, "tag two")],
            (await node.GetSnapshotsAsync(CancellationToken.None)).Select(s => (s.Id, s.Name)));
        SheepTalk.Same(first, await SheepTalk.ReadAsync($"{Url("s")}#one"));
        SheepTalk.Same(first, await SheepTalk.ReadAsync($"{Url("s")}#{one.Id}"));
        SheepTalk.Same(second, await SheepTalk.ReadAsync($"{Url("s")}#tag%20two"));
        SheepTalk.Same(new byte[6 * Unit], await SheepTalk.ReadAsync(node));
        await using (BlockNode kept = await node.OpenSnapshotAsync("one", CancellationToken.None))
        {
            Assert.True(kept.IsReadOnly);
            SheepTalk.Same(first, await SheepTalk.ReadAsync(kept));
        }
        _ = await node.RestoreSnapshotAsync("one", CancellationToken.None);
        Assert.Equal(5 * Unit, node.Length);
        SheepTalk.Same(first, await SheepTalk.ReadAsync(node));
        await node.WriteAsync(3 * Unit, new byte[] { 1, 2, 3 });
        SheepTalk.Same(first, await SheepTalk.ReadAsync($"{Url("s")}#one"));
        Assert.Equal(2, (await node.GetSnapshotsAsync(CancellationToken.None)).Count);
        Assert.Equal("tag two", (await node.DeleteSnapshotAsync("tag two", CancellationToken.None)).Name);
        Assert.Equal("one", (await node.DeleteSnapshotAsync(one.Id, "one", CancellationToken.None)).Name);
        Assert.Empty(await node.GetSnapshotsAsync(CancellationToken.None));
        new byte[] { 1, 2, 3 }.CopyTo(first.AsSpan(3 * Unit));
        SheepTalk.Same(first, await SheepTalk.ReadAsync(node));
        Assert.Equal(
            DiskImageErrorKind.NotFound,
            await SheepTalk.KindAsync(async () => await node.RestoreSnapshotAsync("one", CancellationToken.None)));
        if (RealPort is null)
        {
            Assert.Equal(0, _sheep.Cluster.Lost);
        }
    }

    [Fact]
    public async Task A_snapshot_that_is_named_is_not_written_to()
    {
        await SheepTalk.MakeAsync(Url("r"), SheepTalk.Bytes(Unit, 1), Small);
        await using (SheepNode node = await SheepTalk.OpenAsync(Url("r"), writable: true))
        {
            _ = await node.CreateSnapshotAsync("x", DateTimeOffset.UtcNow, CancellationToken.None);
        }
        Assert.Equal(
            DiskImageErrorKind.ReadOnly, await SheepTalk.KindAsync(async () => await SheepTalk.OpenAsync($"{Url("r")}#x", true)));
        Assert.Equal(
            DiskImageErrorKind.NotFound, await SheepTalk.KindAsync(async () => await SheepTalk.OpenAsync($"{Url("r")}#y", false)));
    }

    [Fact]
    public async Task A_clone_begins_as_the_snapshot_and_leaves_it_alone()
    {
        byte[] model = SheepTalk.Bytes((3 * Unit) + 4096, 3);
        await SheepTalk.MakeAsync(Url("base"), model, Small);
        await using (SheepNode node = await SheepTalk.OpenAsync(Url("base"), writable: true))
        {
            _ = await node.CreateSnapshotAsync("gold", DateTimeOffset.UtcNow, CancellationToken.None);
            await node.WriteZeroesAsync(0, node.Length);
        }
        var driver = new SheepDriver();
        var options = new SheepCreateOptions { BackingFile = $"{Url("base")}#gold" };
        StoragePlace place = await driver.LookAsync(Url("clone"), TargetMode.New, CancellationToken.None);
        await using (PendingNode made = await driver.BeginAsync(
            place, new StorageTraits(AllowsHoles: true, NoCow: false, Options: options), CancellationToken.None))
        {
            await made.Node.ResizeAsync(4 * Unit);
            await made.Node.WriteAsync(Unit + 5, new byte[] { 9 });
            await made.PublishAsync(durable: false, revocable: false, CancellationToken.None);
        }
        byte[] cloned = [.. model, .. new byte[Unit - 4096]];
        cloned[Unit + 5] = 9;
        SheepTalk.Same(cloned, await SheepTalk.ReadAsync(Url("clone")));
        SheepTalk.Same(model, await SheepTalk.ReadAsync($"{Url("base")}#gold"));
        SheepTalk.Same(new byte[model.Length], await SheepTalk.ReadAsync(Url("base")));
        foreach (string wrong in new[] { Url("base"), "sheepdog://127.0.0.1:1/base#gold" })
        {
            StoragePlace other = await driver.LookAsync(Url("other"), TargetMode.New, CancellationToken.None);
            Assert.Equal(DiskImageErrorKind.InvalidOption, await SheepTalk.KindAsync(async () => await driver.BeginAsync(
                other,
                new StorageTraits(AllowsHoles: true, NoCow: false, Options: new SheepCreateOptions { BackingFile = wrong }),
                CancellationToken.None)));
        }
    }

    [Fact]
    public async Task A_disk_becomes_longer_and_shorter_and_what_comes_back_is_zeroes()
    {
        byte[] model = SheepTalk.Bytes((4 * Unit) - 1000, 4);
        await SheepTalk.MakeAsync(Url("l"), model, Small);
        await using SheepNode node = await SheepTalk.OpenAsync(Url("l"), writable: true);
        await node.ResizeAsync((2 * Unit) + 10);
        await node.ResizeAsync(5 * Unit);
        byte[] expected = [.. model[..((2 * Unit) + 10)], .. new byte[(3 * Unit) - 10]];
        SheepTalk.Same(expected, await SheepTalk.ReadAsync(node));
        Assert.Equal(3 * Unit, node.AllocatedLength);
        await node.ResizeAsync(7 * Unit, PreallocationMode.Falloc);
        Assert.Equal(5 * Unit, node.AllocatedLength);
        await node.ResizeAsync((8 * Unit) + 1, PreallocationMode.Full);
        Assert.Equal(7 * Unit, node.AllocatedLength);
        SheepTalk.Same([.. expected, .. new byte[(3 * Unit) + 1]], await SheepTalk.ReadAsync(node));
        Assert.Equal(DiskImageErrorKind.OutOfRange, await SheepTalk.KindAsync(async () => await node.ResizeAsync((1L << 40) + 1)));
        await node.ResizeAsync(1L << 40);
        BlockExtent extent = await node.GetExtentAsync(9 * Unit, (1L << 40) - (9 * Unit));
        Assert.True(extent is { IsZero: true } && extent.End == 1L << 40);
    }

    [Fact]
    public async Task One_writer_has_a_VDI_where_the_cluster_keeps_locks()
    {
        if (RealPort is not null)
        {
            return; // a real cluster keeps locks only if it is formatted so
        }
        await SheepTalk.MakeAsync(Url("k"), SheepTalk.Bytes(Unit, 1), Small);
        await using (SheepNode writer = await SheepTalk.OpenAsync(Url("k"), writable: true))
        {
            DiskImageException locked = await Assert.ThrowsAsync<DiskImageException>(
                async () => await SheepTalk.OpenAsync(Url("k"), writable: true));
            Assert.Equal(DiskImageErrorKind.Locked, locked.Kind);
            Assert.Contains("dog vdi lock unlock", locked.Message, StringComparison.Ordinal);
            _ = await SheepTalk.ReadAsync(Url("k"));
            _ = await writer.CreateSnapshotAsync("x", DateTimeOffset.UtcNow, CancellationToken.None);
            Assert.Equal(DiskImageErrorKind.Locked, await SheepTalk.KindAsync(async () => await SheepTalk.OpenAsync(Url("k"), true)));
        }
        await (await SheepTalk.OpenAsync(Url("k"), writable: true)).DisposeAsync();
    }

    [Fact]
    public async Task What_is_there_is_not_replaced_and_what_fails_is_gone_again()
    {
        var driver = new SheepDriver();
        await SheepTalk.MakeAsync(Url("t"), SheepTalk.Bytes(Unit, 1), Small);
        foreach (TargetMode mode in new[] { TargetMode.New, TargetMode.Replace })
        {
            Assert.Equal(
                DiskImageErrorKind.AlreadyExists,
                await SheepTalk.KindAsync(async () => await driver.LookAsync(Url("t"), mode, CancellationToken.None)));
        }
        byte[] other = SheepTalk.Bytes(2 * Unit, 9);
        StoragePlace present = await driver.LookAsync(Url("t"), TargetMode.InPlace, CancellationToken.None);
        await using (PendingNode inPlace = await driver.BeginAsync(present, new StorageTraits(true, false), CancellationToken.None))
        {
            Assert.Equal(0, inPlace.Node.Length);
            await inPlace.Node.ResizeAsync(other.Length);
            await inPlace.Node.WriteAsync(0, other);
            await inPlace.Node.DisposeAsync();
            await inPlace.PublishAsync(durable: false, revocable: false, CancellationToken.None);
        }
        SheepTalk.Same(other, await SheepTalk.ReadAsync(Url("t")));
        StoragePlace place = await driver.LookAsync(Url("half"), TargetMode.New, CancellationToken.None);
        await using (PendingNode half = await driver.BeginAsync(place, new StorageTraits(true, false), CancellationToken.None))
        {
            await half.Node.ResizeAsync(Unit);
            await half.Node.WriteAsync(0, new byte[] { 1 });
        }
        Assert.Equal(DiskImageErrorKind.NotFound, await SheepTalk.KindAsync(async () => await SheepTalk.ReadAsync(Url("half"))));
    }

    [Fact]
    public async Task A_disk_in_a_format_and_a_raw_one_are_made_and_opened_as_any()
    {
        await Images.CreateAsync(Url("q"), "qcow2", "size=8M");
        byte[] bytes = SheepTalk.Bytes(3 * Unit, 8);
        await using (BlockNode disk = await Images.OpenAsync(Url("q"), writable: true))
        {
            Assert.Equal(8 << 20, disk.Length);
            await disk.WriteAsync(Unit, bytes);
        }
        await using (BlockNode disk = await Images.OpenAsync(Url("q")))
        {
            byte[] read = new byte[bytes.Length];
            await disk.ReadAsync(Unit, read);
            SheepTalk.Same(bytes, read);
            Assert.Equal("qcow2", disk.As<IDescribed>()!.Describe().Format);
        }
        await Images.CreateAsync(Url("w"), "raw", "size=2M,preallocation=full");
        await using BlockNode raw = await Images.OpenAsync(Url("w"), "raw", writable: true);
        Assert.NotNull(raw.As<ISnapshots>());
        Assert.Equal(2 << 20, raw.Length);
    }
}
