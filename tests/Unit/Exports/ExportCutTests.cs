using System.Net.Sockets;
using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Exports;
using DiskImage.Graph;
using DiskImage.Jobs;
using DiskImage.Tests.Protocols.Nbd;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Exports;

/// <summary>Connections that are cut while a disk is converted from one server to another.</summary>
public sealed class ExportCutTests : IDisposable
{
    private const int Length = 24 << 20;

    private readonly TestFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    private string Described(string socket, int delay)
        => $$"""json:{"driver":"nbd","server.type":"unix","server.path":"{{_folder[socket]}}","export":"d","reconnect-delay":{{delay}}}""";

    [Theory]
    [InlineData(30)]
    [InlineData(0)]
    public async Task A_conversion_goes_on_after_every_cut_if_it_may_wait_and_fails_cleanly_if_not(int delay)
    {
        byte[] contents = new byte[Length];
        new Random(8).NextBytes(contents.AsSpan(1 << 20, Length / 2));
        byte[] there = new byte[Length];
        new Random(9).NextBytes(there);
        var target = new MemoryNode(there);
        await using ExportServer from = await StartAsync("from", new MemoryNode(contents));
        await using ExportServer to = await StartAsync("to", new FixedLengthNode(target));
        await using var readCuts = new CuttingProxy(_folder["a"], _folder["from"], Enumerable.Range(1, 5).Select(i => (i * 2L << 20) + 777));
        await using var writeCuts = new CuttingProxy(_folder["b"], _folder["to"], Enumerable.Range(1, 5).Select(i => 300L + (i * 90)));
        await using OpenedImage source = await Images.Opener.OpenAsync(
            new OpenRequest(Described("a", delay)), CancellationToken.None);
        async Task ConvertAsync()
        {
            await using OpenedImage image = await Images.Opener.OpenAsync(
                new OpenRequest(Described("b", delay)) { Writable = true }, CancellationToken.None);
            await new ConvertJob(source.Node, image.Node, new ConvertOptions { TargetReadsZero = false }).RunAsync(
                null, CancellationToken.None);
            await image.Node.FlushAsync();
        }
        if (delay == 0)
        {
            var e = await Assert.ThrowsAsync<DiskImageException>(() => ConvertAsync().WaitAsync(TimeSpan.FromSeconds(60)));
            Assert.Equal(DiskImageErrorKind.Io, e.Kind);
            Assert.Contains("lost", e.Message, StringComparison.Ordinal);
            return;
        }
        await ConvertAsync().WaitAsync(TimeSpan.FromSeconds(60));
        Assert.Equal(10, readCuts.Cuts + writeCuts.Cuts);
        Assert.True(contents.AsSpan().SequenceEqual(target.ToArray()));
    }

    [Fact]
    public async Task All_that_is_in_flight_fails_with_the_first_cause()
    {
        await using ExportServer from = await StartAsync("from", new MemoryNode(new byte[Length]));
        await using var cuts = new CuttingProxy(_folder["a"], _folder["from"], [5L << 20]);
        await using OpenedImage source = await Images.Opener.OpenAsync(new OpenRequest(Described("a", 0)), CancellationToken.None);
        Task[] reads = [.. Enumerable.Range(0, 24).Select(
            async i => await source.Node.ReadAsync((long)i << 20, new byte[1 << 20]))];
        DiskImageException[] failures =
        [
            .. (await Task.WhenAll(reads.Select(async r => await Record.ExceptionAsync(() => r)))).OfType<DiskImageException>(),
        ];
        Assert.NotEmpty(failures);
        var later = await Assert.ThrowsAsync<DiskImageException>(async () => await source.Node.ReadAsync(0, new byte[1]));
        Assert.Equal(failures[0].Message, later.Message);
    }

    /// <summary>One request has nearly all of the room that a client has, the next waits for the rest of it.</summary>
    [Fact]
    public async Task A_server_that_stops_waits_for_no_request_that_waits_for_room()
    {
        var disk = new Slow(new MemoryNode(new byte[Length]));
        ExportServer server = await StartAsync("from", disk);
        await using (OpenedImage source = await Images.Opener.OpenAsync(
            new OpenRequest(Described("from", 0)[..^1] + ",\"connections\":1}"), CancellationToken.None))
        {
            Task[] reads = [.. new[] { 20 << 20, 20 << 20 }.Select(
                async length => _ = await Record.ExceptionAsync(async () => await source.Node.ReadAsync(0, new byte[length])))];
            await disk.Begun.Task.WaitAsync(TimeSpan.FromSeconds(30));
            await Task.Delay(300); // the others have come, too
            await server.DisposeAsync().AsTask().WaitAsync(TimeSpan.FromSeconds(30));
            await Task.WhenAll(reads).WaitAsync(TimeSpan.FromSeconds(30));
        }
    }

    private sealed class Slow(BlockNode below) : FilterNode(below)
    {
        public TaskCompletionSource Begun { get; } = new(TaskCreationOptions.RunContinuationsAsynchronously);

        protected override async ValueTask ReadCoreAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
        {
            _ = buffer.Length > 4096 && Begun.TrySetResult();
            await Task.Delay(buffer.Length > 4096 ? Timeout.Infinite : 0, cancellationToken);
            await base.ReadCoreAsync(offset, buffer, cancellationToken);
        }
    }

    [Fact]
    public async Task A_place_of_fixed_length_shows_nothing_of_what_was_there()
    {
        byte[] there = new byte[1 << 20];
        new Random(3).NextBytes(there);
        var node = new MemoryNode(there);
        byte[] model = new byte[600_000];
        var random = new Random(4);
        await using (var covered = new OccupiedPlace.CoveredNode(new FixedLengthNode(node)))
        {
            Assert.Equal(0, covered.Length);
            await covered.ResizeAsync(model.Length);
            for (int i = 0; i < 200; i++)
            {
                int offset = random.Next(model.Length - 1), length = random.Next(1, Math.Min(5000, model.Length - offset));
                if (random.Next(3) == 0)
                {
                    byte[] read = new byte[length];
                    await covered.ReadAsync(offset, read);
                    Assert.True(model.AsSpan(offset, length).SequenceEqual(read), $"{length} at {offset}");
                    continue;
                }
                random.NextBytes(model.AsSpan(offset, length));
                await covered.WriteAsync(offset, model.AsMemory(offset, length));
            }
            await covered.ResizeAsync(300_000);
            await covered.ResizeAsync(700_000);
            Array.Clear(model, 300_000, model.Length - 300_000);
            byte[] all = new byte[700_000];
            await covered.ReadAsync(0, all);
            Assert.True(all.AsSpan(0, model.Length).SequenceEqual(model) && !all.AsSpan(model.Length).ContainsAnyExcept((byte)0));
            var e = await Assert.ThrowsAsync<DiskImageException>(async () => await covered.WriteAsync((1 << 20) - 1, new byte[2]));
            Assert.Equal(DiskImageErrorKind.NoSpace, e.Kind);
        }
        Assert.True(node.ToArray().AsSpan(0, model.Length).SequenceEqual(model));
        Assert.True(node.ToArray().AsSpan(700_000).SequenceEqual(there.AsSpan(700_000)));
    }

    private async Task<ExportServer> StartAsync(string socket, BlockNode node)
        => await ExportServer.StartAsync(
            new UnixDomainSocketEndPoint(_folder[socket]), [new ExportDisk("d", node)], null, CancellationToken.None);
}
