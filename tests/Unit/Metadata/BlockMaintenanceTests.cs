using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Metadata;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Metadata;

/// <summary>
/// The tables that formats of blocks share, on a toy format: a table in the first sector, blocks of 1,024 bytes at any sector.
/// </summary>
public sealed class BlockMaintenanceTests : IDisposable
{
    private const int Sector = 512, Block = 1024, Entries = 16;

    private readonly MemoryNode _memory = new(new byte[Sector]);
    private readonly FaultInjectionNode _file;
    private readonly MetadataSession _session;
    private readonly BlockTable<BigBlockEntry> _table;
    private readonly Toy _toy;
    private readonly BlockMaintenance _maintenance;
    private readonly List<FileRange> _released = [];

    public BlockMaintenanceTests()
    {
        _file = new FaultInjectionNode(_memory);
        _session = new MetadataSession(_file, released: (free, _) =>
        {
            _released.Add(free);
            return default;
        });
        _table = new BlockTable<BigBlockEntry>(_session.Order);
        _table.Replace(0, [.. Enumerable.Repeat((byte)0xFF, Entries * 4)]);
        _toy = new Toy(_file, _table);
        _maintenance = new BlockMaintenance(_session, _toy);
    }

    public void Dispose()
    {
        _session.Dispose();
        _file.DisposeAsync().AsTask().GetAwaiter().GetResult();
    }

    [Fact]
    public async Task Everything_that_a_block_lies_on_is_named_and_each_gap_once()
    {
        await PutAsync((0, 0), (1, 1), (2, 2), (3, 8), (4, 100));
        await _file.ResizeAsync(14 * Sector);
        (StoredBlock[] blocks, long fragmented) = await _maintenance.StoredAsync(CancellationToken.None);
        var findings = new CheckFindings();
        Assert.Equal(10 * Sector, _maintenance.Check(blocks, findings)); // the block outside is not counted
        Assert.Equal(4, fragmented);
        Assert.Equal(
            [
                "block 0 at offset 0 overlaps the table",
                "block 1 at offset 512 overlaps block 0 at offset 0",
                "block 2 at offset 1,024 overlaps block 1 at offset 512",
                "block 4 is said to be at offset 51,200, past the end of the blocks at 7,168",
                "2,048 bytes at offset 2,048 are not used",
                "2,048 bytes at offset 5,120 are not used",
            ],
            findings.List.Select(f => f.Message),
            StringComparer.Ordinal);
        var unknown = new CheckFindings();
        _ = _maintenance.Check(blocks, unknown, isLimitKnown: false);
        Assert.Equal(1, unknown.List.Count(f => f.Severity == CheckSeverity.Leak)); // what is behind the last block may be anything
        DiskImageException refused = Assert.Throws<DiskImageException>(() => _maintenance.RequireSound(blocks));
        Assert.Equal((DiskImageErrorKind.Corrupt, 0L), (refused.Kind, refused.Offset));
    }

    [Fact]
    public async Task Blocks_that_share_a_place_get_their_own_behind_what_must_be_left_alone()
    {
        await PutAsync((0, 1), (1, 1), (2, 2), (3, 100));
        await _file.WriteAsync(Sector, Noise(3 * Sector));
        byte[][] before = [await ReadAsync(0), await ReadAsync(1), await ReadAsync(2)];
        using (MetadataSession.Held held = await _session.EnterAsync(CancellationToken.None))
        {
            Assert.True(await _maintenance.RepairAsync(held, least: 20 * Sector, CancellationToken.None));
            Assert.False(await _maintenance.RepairAsync(held, least: 20 * Sector, CancellationToken.None));
        }
        Assert.Equal([1u, 20u, 22u, uint.MaxValue], Enumerable.Range(0, 4).Select(b => _table[b].Value));
        for (int i = 0; i < before.Length; i++)
        {
            Assert.Equal(before[i], await ReadAsync(i));
        }
        Assert.Equal(_table.Bytes.ToArray(), _memory.ToArray()[..(Entries * 4)]);
    }

    [Fact]
    public async Task A_gap_too_small_for_a_good_place_is_filled_and_the_file_cut()
    {
        _toy.Good = 4; // sectors
        await PutAsync((0, 1), (1, 5), (2, 8), (3, 12));
        foreach (int block in new[] { 0, 1, 2, 3 })
        {
            await _file.WriteAsync(_table[block].Value * (long)Sector, Noise(Block, block));
        }
        using (MetadataSession.Held held = await _session.EnterAsync(CancellationToken.None))
        {
            await _maintenance.CompactAsync(held, CancellationToken.None);
        }
        // no multiple of 4 sectors is free before block 1
        Assert.Equal([1u, 5u, 8u, 3u], Enumerable.Range(0, 4).Select(b => _table[b].Value));
        Assert.Equal(10 * Sector, _memory.Length);
        foreach (int block in new[] { 0, 1, 2, 3 })
        {
            Assert.Equal(Noise(Block, block), await ReadAsync(block));
        }
    }

    [Fact]
    public async Task Room_is_made_by_moving_what_is_in_the_way_to_good_places_behind_the_rest()
    {
        _toy.Good = 4;
        await PutAsync((0, 1), (1, 3), (2, 5));
        await _file.WriteAsync(Sector, Noise(6 * Sector));
        byte[][] before = [await ReadAsync(0), await ReadAsync(1), await ReadAsync(2)];
        using (MetadataSession.Held held = await _session.EnterAsync(CancellationToken.None))
        {
            await _maintenance.ClearAsync(held, Sector, 4 * Sector, CancellationToken.None);
        }
        Assert.Equal([8u, 12u, 5u], Enumerable.Range(0, 3).Select(b => _table[b].Value));
        for (int i = 0; i < before.Length; i++)
        {
            Assert.Equal(before[i], await ReadAsync(i));
        }
    }

    [Fact]
    public async Task What_is_given_up_is_free_after_a_flush_that_succeeds_and_not_before()
    {
        var space = new SpaceMap(Sector, 1 << 20, end => new ArgumentOutOfRangeException(nameof(end)));
        _session.Space = space;
        _ = space.TryMark(0, 4 * Sector);
        using MetadataSession.Held held = await _session.EnterAsync(CancellationToken.None);
        space.FreeAfterFlush(held, Sector, Sector);
        space.FreeAfterFlush(held, 2 * Sector, Sector);
        Assert.Equal(4 * Sector, space.Allocate(held, Sector));
        Assert.Equal(2 * Sector, space.Waiting);
        _table.Set(held, 3, new(7));
        _file.Arm(new Fault(RequestKinds.Write, 1));
        await Assert.ThrowsAsync<DiskImageException>(async () => await _session.FlushAsync(held, CancellationToken.None));
        Assert.Equal((true, 2L * Sector), (_table.IsDirty, space.Waiting)); // it stays to be written, and nothing is free
        await _session.FlushAsync(held, CancellationToken.None);
        Assert.Equal((false, 0L), (_table.IsDirty, space.Waiting));
        Assert.Equal([new FileRange(Sector, 3 * Sector)], _released);
        Assert.Equal(Sector, space.Allocate(held, 2 * Sector));
    }

    [Fact]
    public async Task An_entry_set_aside_stays_in_the_file_until_it_is_written_anew()
    {
        await _file.ResizeAsync(0);
        await _file.WriteAsync(0, Enumerable.Repeat((byte)1, Entries * 4).ToArray());
        await _table.LoadAsync(0, Entries, CancellationToken.None);
        using MetadataSession.Held held = await _session.EnterAsync(CancellationToken.None);
        _table.SetAside(5);
        Assert.Equal((BigBlockEntry.Nowhere, 0x01010101u), (_table[5].Value, _table[4].Value));
        await _session.FlushAsync(held, CancellationToken.None);
        Assert.Equal(1, _memory.ToArray()[20]);
        _table.Rewrite(held, 5);
        await _session.FlushAsync(held, CancellationToken.None);
        Assert.Equal(0xFF, _memory.ToArray()[20]);
        _table.SetCount(held, Entries + 2, isInFile: true);
        Assert.False(_table.IsDirty);
        _table.SetCount(held, Entries + 4);
        await _session.FlushAsync(held, CancellationToken.None);
        Assert.Equal((Entries + 4) * 4, _memory.Length);
    }

    private static byte[] Noise(int length, int seed = 9)
    {
        byte[] bytes = new byte[length];
        new Random(seed).NextBytes(bytes);
        return bytes;
    }

    /// <summary>Puts blocks at sectors; the file ends behind the last of them that is not absurd.</summary>
    private async Task PutAsync(params (int Block, uint Sector)[] blocks)
    {
        using MetadataSession.Held held = await _session.EnterAsync(CancellationToken.None);
        foreach ((int block, uint sector) in blocks)
        {
            _table.Set(held, block, new(sector));
        }
        await _session.FlushAsync(held, CancellationToken.None);
        await _file.ResizeAsync((blocks.Where(b => b.Sector < 100).Max(b => b.Sector) * Sector) + Block);
    }

    private async Task<byte[]> ReadAsync(int block)
    {
        byte[] bytes = new byte[Block];
        await _file.ReadPaddedAsync(_table[block].Value * (long)Sector, bytes, CancellationToken.None);
        return bytes;
    }

    private sealed class Toy(BlockNode file, BlockTable<BigBlockEntry> table) : IBlockLayout
    {
        /// <summary>The multiples of sectors that are good places.</summary>
        public int Good { get; set; } = 1;

        public BlockNode File => file;

        public IReadOnlyList<FileRange> Structures { get; } = [new(0, Sector, "the table")];

        public long Limit => file.Length;

        public long BlockBytes => Block;

        public long Alignment => Sector;

        public long PlaceAt(long offset) => Round.Up(offset, Good * Sector);

        public ValueTask EachStoredAsync(Action<StoredBlock> each, CancellationToken cancellationToken)
        {
            foreach ((int block, BigBlockEntry entry) in table.Used())
            {
                each(new(entry.Value * (long)Sector, Block, block));
            }
            return default;
        }

        public (long Offset, long Length) GuestRange(long index) => (index * Block, Block);

        public string NameOf(long index) => $"block {index}";

        public ValueTask RelinkAsync(MetadataSession.Held held, long index, long place)
        {
            table.Set(held, (int)index, new((uint)(place / Sector)));
            return default;
        }

        public ValueTask DropAsync(MetadataSession.Held held, long index)
        {
            table.Set(held, (int)index, new(BigBlockEntry.Nowhere));
            return default;
        }

        public ValueTask SetLimitAsync(MetadataSession.Held held, long limit) => file.ResizeAsync(limit);
    }
}
