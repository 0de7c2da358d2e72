using DiskImage.Block;
using DiskImage.Metadata;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Metadata;

public sealed class MetadataTests : IDisposable
{
    private const int Piece = 512, Capacity = 10;

    private readonly FaultInjectionNode _file;
    private readonly WriteLogNode _log;
    private readonly MemoryNode _memory = new(new byte[64 * Piece]);
    private readonly WriteOrder _order;

    public MetadataTests()
    {
        _file = new FaultInjectionNode(_memory);
        _log = new WriteLogNode(_file);
        _order = new WriteOrder(_log);
    }

    public void Dispose() => _log.DisposeAsync().AsTask().GetAwaiter().GetResult();

    [Fact]
    public async Task Space_that_was_given_up_and_then_cut_off_does_not_fail_the_flush()
    {
        await using var file = new MemoryNode(new byte[4096]);
        var space = new SpaceMap(512, 1 << 20, at => new InvalidOperationException($"{at}"));
        using var session = new MetadataSession(file) { Space = space };
        using MetadataSession.Held held = await session.EnterAsync(CancellationToken.None);
        _ = space.TryMark(0, 4096);
        space.FreeAfterFlush(held, 3584, 512);
        await file.ResizeAsync(2048);
        await session.FlushAsync(held, CancellationToken.None);
        Assert.Equal((3584, 0), (space.End, space.Waiting));
    }

    [Fact]
    public async Task Pieces_used_last_stay_and_the_oldest_goes()
    {
        var cache = new MetadataCache(_order, Piece, Capacity * Piece);
        for (int i = 0; i < Capacity; i++)
        {
            _ = await cache.GetAsync(i * Piece, CancellationToken.None);
        }
        _ = await cache.GetAsync(0, CancellationToken.None); // no longer the oldest: that is 1 now
        Assert.Equal(Capacity, _file.Requests(RequestKinds.Read));
        _ = await cache.GetAsync(20 * Piece, CancellationToken.None);
        _ = await cache.GetAsync(0, CancellationToken.None);
        Assert.Equal(Capacity + 1, _file.Requests(RequestKinds.Read));
        _ = await cache.GetAsync(1 * Piece, CancellationToken.None);
        Assert.Equal(Capacity + 2, _file.Requests(RequestKinds.Read));
    }

    [Fact]
    public async Task What_lies_past_the_end_reads_as_zeroes()
    {
        var cache = new MetadataCache(_order, Piece, Capacity * Piece);
        Assert.Equal(new byte[Piece], (await cache.GetAsync(1000 * Piece, CancellationToken.None)).Bytes);
    }

    [Fact]
    public async Task Changes_reach_the_file_when_room_is_needed_or_asked_for_and_only_what_changed()
    {
        var cache = new MetadataCache(_order, Piece, Capacity * Piece);
        await SetAsync(cache, 3, at: 100, value: 7);
        await SetAsync(cache, 1, at: 8, value: 8);
        Assert.True(cache.IsDirty);
        Assert.Equal(0, _log.Count);
        for (int i = 10; i < 10 + Capacity - 1; i++)
        {
            _ = await cache.GetAsync(i * Piece, CancellationToken.None); // pushes piece 3 out
        }
        Assert.False(cache.IsDirty);
        Assert.Equal([(1 * Piece) + 8, (3 * Piece) + 100], _log.Entries.Select(e => e.Offset)); // in the order of offsets
        Assert.All(_log.Entries, e => Assert.Equal(1, e.Length));
        Assert.Equal(7, _memory.ToArray()[(3 * Piece) + 100]);
        await _order.FlushAsync(CancellationToken.None);
        Assert.Equal(3, _log.Count); // only the flush
    }

    [Fact]
    public async Task Lower_stores_are_written_and_flushed_before_higher_ones()
    {
        var low = new MetadataCache(_order, Piece, Capacity * Piece);
        var table = new PointerTable(_order);
        var high = new MetadataCache(_order, Piece, Capacity * Piece);
        await table.LoadAsync(30 * Piece, 8, CancellationToken.None);
        await SetAsync(high, 20, 0, 1);
        table[3] = 0x0102030405060708;
        await SetAsync(low, 5, 0, 2);
        await high.WriteBackAsync();
        Assert.Equal("Write 2560, Flush 0, Write 15384, Flush 0, Write 10240", Log());
        await SetAsync(low, 6, 0, 3);
        await low.WriteBackAsync(); // nothing is below it
        Assert.Equal("Write 3072", Log(skip: 5));
        _order.DataWritten();
        await SetAsync(high, 21, 0, 4);
        await high.WriteBackAsync(); // the data must not be lost behind it
        Assert.Equal("Flush 0, Write 10752", Log(skip: 6));
        await SetAsync(high, 22, 0, 5);
        await high.WriteBackAsync(); // everything below is durable already
        Assert.Equal("Write 11264", Log(skip: 8));
    }

    [Fact]
    public async Task What_could_not_be_written_stays_to_be_written()
    {
        var cache = new MetadataCache(_order, Piece, Capacity * Piece);
        foreach (int piece in new[] { 2, 4, 6 })
        {
            await SetAsync(cache, piece, 0, (byte)piece);
        }
        _file.Arm(new Fault(RequestKinds.Write, 2));
        await Assert.ThrowsAsync<DiskImageException>(async () => await cache.WriteBackAsync());
        Assert.True(cache.IsDirty);
        await cache.WriteBackAsync();
        Assert.False(cache.IsDirty);
        foreach (int piece in new[] { 2, 4, 6 })
        {
            Assert.Equal(piece, _memory.ToArray()[piece * Piece]);
        }
        var table = new PointerTable(_order);
        await table.LoadAsync(0, 4, CancellationToken.None);
        table[1] = 9;
        _file.Arm(new Fault(RequestKinds.Write, 1));
        await Assert.ThrowsAsync<DiskImageException>(async () => await table.WriteBackAsync());
        Assert.True(table.IsDirty);
        await table.WriteBackAsync();
        Assert.Equal(9, _memory.ToArray()[15]);
    }

    [Fact]
    public async Task A_failed_barrier_keeps_what_is_above_from_being_written()
    {
        var low = new MetadataCache(_order, Piece, Capacity * Piece);
        var high = new MetadataCache(_order, Piece, Capacity * Piece);
        await SetAsync(low, 1, 0, 1);
        await SetAsync(high, 2, 0, 2);
        _file.Arm(new Fault(RequestKinds.Flush, 1));
        await Assert.ThrowsAsync<DiskImageException>(async () => await high.WriteBackAsync());
        Assert.Equal(0, _memory.ToArray()[2 * Piece]);
        await high.WriteBackAsync();
        Assert.Equal("Write 512, Flush 0, Write 1024", Log());
    }

    [Fact]
    public async Task What_is_forgotten_is_not_written_and_read_again()
    {
        var cache = new MetadataCache(_order, Piece, Capacity * Piece);
        await SetAsync(cache, 2, 0, 1);
        await SetAsync(cache, 3, 0, 1);
        await SetAsync(cache, 4, 0, 1);
        cache.Forget(2 * Piece, 2 * Piece);
        await cache.WriteBackAsync();
        Assert.Equal("Write 2048", Log());
        Assert.Equal(0, (await cache.GetAsync(2 * Piece, CancellationToken.None)).Bytes[0]);
        await SetAsync(cache, 5, 0, 1);
        cache.Forget(0, 1000L * Piece); // far more than there are
        Assert.False(cache.IsDirty);
    }

    [Fact]
    public async Task A_new_piece_is_zeroes_and_written_whole()
    {
        await _memory.WriteAsync(7 * Piece, Enumerable.Repeat((byte)0xEE, Piece).ToArray());
        var cache = new MetadataCache(_order, Piece, Capacity * Piece);
        _ = await cache.GetAsync(7 * Piece, CancellationToken.None);
        CachedPiece piece = await cache.GetNewAsync(7 * Piece);
        Assert.Equal(new byte[Piece], piece.Bytes);
        await cache.WriteBackAsync();
        Assert.Equal(new byte[Piece], _memory.ToArray()[(7 * Piece)..(8 * Piece)]);
    }

    [Fact]
    public async Task A_pointer_table_finds_its_used_entries_and_writes_what_changed()
    {
        var table = new PointerTable(_order);
        await table.LoadAsync(1000 * Piece, 100, CancellationToken.None); // past the end: zeroes
        Assert.Equal(100, table.NextUsed(0));
        table[5] = 1;
        table[99] = 1UL << 63;
        Assert.Equal((5, 5, 99, 99), (table.NextUsed(0), table.NextUsed(5), table.NextUsed(6), table.NextUsed(99)));
        await table.LoadAsync(0, 64, CancellationToken.None);
        Assert.False(table.IsDirty);
        table[10] = 2;
        table[12] = 3;
        await table.WriteBackAsync();
        Assert.Equal((80L, 24L), (_log.Entries[0].Offset, _log.Entries[0].Length));
    }

    private string Log(int skip = 0) => string.Join(", ", _log.Entries.Skip(skip).Select(e => $"{e.Kind} {e.Offset}"));

    private static async Task SetAsync(MetadataCache cache, int piece, int at, byte value)
    {
        CachedPiece cached = await cache.GetAsync(piece * Piece, CancellationToken.None);
        cached.Bytes[at] = value;
        cache.Changed(cached, at, 1);
    }
}
