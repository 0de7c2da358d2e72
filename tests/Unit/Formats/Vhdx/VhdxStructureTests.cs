using DiskImage.Block;
using DiskImage.Formats.Vhdx;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Vhdx;

/// <summary>What we write, judged by a reader made from the specification.</summary>
public sealed class VhdxStructureTests
{
    private const int MiB = 1 << 20;

    [Theory]
    [InlineData("size=0")]
    [InlineData("size=512")]
    [InlineData("size=5000000")]
    [InlineData("size=20M,subformat=fixed,block_size=1M")]
    [InlineData("size=20M,block_size=2M,block_state_zero=off")]
    [InlineData("size=20M,block_size=1M,logical_sector_size=4096")]
    [InlineData("size=20M,block_size=1M,physical_sector_size=4096")]
    [InlineData("size=20000000,subformat=fixed,block_size=4M,logical_sector_size=4k,log_size=2M")]
    [InlineData("size=9G,block_size=1M")]
    public async Task A_new_image_is_as_specified(string options)
    {
        byte[] image = await VhdxDisks.CreateAsync(options);
        var spec = new VhdxSpecReader(image, requireClean: true);
        await using VhdxNode node = await VhdxDisks.OpenAsync(image);
        Assert.Equal(spec.Size, node.Length);
        Assert.Equal(0, spec.Size % spec.SectorSize);
        Assert.Equal(options.Contains("fixed", StringComparison.Ordinal), spec.LeaveAllocated);
        CheckReport report = await node.CheckAsync(null, CancellationToken.None);
        Assert.Empty(report.Findings);
        if (spec.Size < 1 << 30)
        {
            Assert.All(await VhdxDisks.ReadAllAsync(node), b => Assert.Equal(0, b));
        }
    }

    [Fact]
    public async Task New_blocks_are_marked_as_asked()
    {
        Assert.Equal(20, new VhdxSpecReader(await VhdxDisks.CreateAsync("size=20M,block_size=1M")).States[2]);
        Assert.Equal(20, new VhdxSpecReader(await VhdxDisks.CreateAsync("size=20M,block_size=1M,block_state_zero=off")).States[0]);
        Assert.Equal(20, new VhdxSpecReader(await VhdxDisks.CreateAsync("size=20M,block_size=1M,subformat=fixed")).States[6]);
    }

    [Theory]
    [InlineData("block_size=1M")]
    [InlineData("block_size=2M,logical_sector_size=4096")]
    [InlineData("block_size=1M,subformat=fixed")]
    public async Task Identifiers_change_when_they_must_and_only_then(string options)
    {
        byte[] image = await VhdxDisks.CreateAsync("size=8M," + options);
        var before = new VhdxSpecReader(image);
        byte[] opened = await VhdxDisks.ChangeAsync(image, async node =>
        {
            await node.ReadAsync(0, new byte[4096]);
            await node.FlushAsync();
        });
        Assert.Equal(image, opened);
        var written = new VhdxSpecReader(
            await VhdxDisks.ChangeAsync(image, async node => await node.WriteAsync(0, new byte[] { 1 })), requireClean: true);
        Assert.NotEqual(before.FileWriteGuid, written.FileWriteGuid);
        Assert.NotEqual(before.DataWriteGuid, written.DataWriteGuid);
        Assert.True(written.HeaderSequence > before.HeaderSequence);
        var compacted = new VhdxSpecReader(
            await VhdxDisks.ChangeAsync(image, async node => await node.CompactAsync(null, CancellationToken.None)), requireClean: true);
        Assert.NotEqual(before.FileWriteGuid, compacted.FileWriteGuid);
        Assert.Equal(before.DataWriteGuid, compacted.DataWriteGuid);
    }

    [Theory]
    [InlineData("block_size=1M")]
    [InlineData("block_size=4M,block_state_zero=off,log_size=2M")]
    [InlineData("block_size=1M,logical_sector_size=4096")]
    [InlineData("subformat=fixed,block_size=2M")]
    public async Task Random_changes_leave_what_the_specification_reads_as_the_twin(string options)
    {
        const int Size = 12 * MiB;
        int seed = Random.Shared.Next();
        byte[] image = await VhdxDisks.CreateAsync($"size={Size},{options}");
        var twin = new VhdxTwin(Size, seed);
        for (int round = 0; round < 4; round++)
        {
            image = await VhdxDisks.ChangeAsync(image, node => twin.ChangeAsync(node, 40));
            twin.RequireSame(new VhdxSpecReader(image, requireClean: true).Contents());
        }
    }

    [Theory]
    [InlineData("block_size=1M", "")]
    [InlineData("block_size=2M", "block_size=1M,")]
    [InlineData("block_size=1M", "logical_sector_size=4096,block_size=4M,")]
    [InlineData("", "subformat=fixed,block_size=1M,")]
    public async Task Random_changes_to_a_chain_leave_what_the_specification_reads_as_the_twin(string options, string parentOptions)
    {
        const int Size = 9 * MiB;
        int seed = Random.Shared.Next();
        byte[] below = VhdxDisks.Noise(Size - (2 * MiB), seed);
        byte[] parent = await VhdxDisks.ChangeAsync(
            await VhdxDisks.CreateAsync($"{parentOptions}size={below.Length}"), async node => await node.WriteAsync(0, below));
        byte[] child;
        await using (VhdxNode open = await VhdxDisks.OpenAsync(parent))
        {
            child = await VhdxDisks.CreateAsync($"size={Size},backing_file=p.vhdx,{options}", open);
        }
        var twin = new VhdxTwin(below.Concat(new byte[Size - below.Length]).ToArray(), seed);
        var spec = new VhdxSpecReader(parent, requireClean: true);
        Assert.Equal(@".\p.vhdx", new VhdxSpecReader(child, spec).Locator["relative_path"]);
        for (int round = 0; round < 4; round++)
        {
            child = await VhdxDisks.ChangeAsync(child, node => twin.ChangeAsync(node, 40), parent);
            twin.RequireSame(new VhdxSpecReader(child, spec, requireClean: true).Contents());
        }
        await using VhdxNode node = await VhdxDisks.OpenAsync(child, await VhdxDisks.OpenAsync(parent));
        Assert.DoesNotContain((await node.CheckAsync(null, CancellationToken.None)).Findings, f => f.Severity == CheckSeverity.Corruption);
    }

    [Fact]
    public async Task A_block_of_a_child_that_is_written_sector_by_sector_needs_no_bitmap_in_the_end()
    {
        byte[] parent = await VhdxDisks.ChangeAsync(
            await VhdxDisks.CreateAsync("size=4M,block_size=1M"), async n => await n.WriteAsync(0, VhdxDisks.Noise(4 * MiB, 1)));
        byte[] child;
        await using (VhdxNode open = await VhdxDisks.OpenAsync(parent))
        {
            child = await VhdxDisks.CreateAsync("backing_file=p.vhdx,block_size=1M", open);
        }
        child = await VhdxDisks.ChangeAsync(child, async node =>
        {
            for (int at = 0; at < MiB; at += 8192)
            {
                await node.WriteAsync(at, VhdxDisks.Noise(8192, at));
            }
            await node.WriteAsync((2 * MiB) + 100, new byte[] { 1, 2, 3 });
        }, parent);
        var spec = new VhdxSpecReader(child, new VhdxSpecReader(parent));
        Assert.Equal(1, spec.States[6]);
        Assert.Equal(1, spec.States[7]);
        Assert.Equal(2, spec.States[0]);
    }

    [Theory]
    [InlineData(5000, 512)] // blocks of 1 MiB: chunks of 4096
    [InlineData(2_000_000, 512)] // the entries are written in several pieces
    [InlineData(70_000, 4096)] // chunks of 32768
    [InlineData(1, 512)]
    public async Task New_blocks_are_zero_and_entries_of_bitmaps_are_empty(int blocks, int sectorSize)
    {
        byte[] image = await VhdxDisks.CreateAsync($"size={blocks}M,block_size=1M,logical_sector_size={sectorSize}");
        long ratio = (1L << 23) * sectorSize / (1 << 20), entries = blocks + ((blocks - 1) / ratio);
        const int Bat = 3 << 20;
        for (long index = 0; index < (image.Length - Bat) / 8; index++)
        {
            long expected = index < entries && index % (ratio + 1) != ratio ? 2 : 0;
            long entry = System.Buffers.Binary.BinaryPrimitives.ReadInt64LittleEndian(image.AsSpan((int)(Bat + (index * 8))));
            if (entry != expected)
            {
                Assert.Fail($"entry {index} of {entries} is {entry}, not {expected}");
            }
        }
    }

    [OracleFact]
    public async Task State_5_of_version_0_95_reads_as_zeroes_as_in_qemu()
    {
        const int Bat = 3 * MiB;
        byte[] image = await VhdxDisks.CreateAsync($"size={4 * MiB},block_size=1M");
        image = await VhdxDisks.ChangeAsync(image, async n => await n.WriteAsync(0, VhdxDisks.Noise(3 * MiB, 1)));
        image[Bat + 8] = 5; // block 1 keeps its place, as a discarded block may
        image.AsSpan(Bat + 16, 8).Clear();
        image[Bat + 16] = 5;
        byte[] expected = [.. VhdxDisks.Noise(3 * MiB, 1).AsSpan(0, MiB), .. new byte[3 * MiB]];
        await using (VhdxNode node = await VhdxDisks.OpenAsync(image))
        {
            Assert.Equal(expected, await VhdxDisks.ReadAllAsync(node));
            Assert.DoesNotContain((await node.CheckAsync(null, CancellationToken.None)).Findings, f => f.Severity != CheckSeverity.Leak);
        }
        using var folder = new TestFolder();
        await File.WriteAllBytesAsync(folder["a.vhdx"], image);
        await File.WriteAllBytesAsync(folder["a.raw"], expected);
        await Programs.CompareAsync(folder["a.raw"], "raw", folder["a.vhdx"], "vhdx");
        byte[] written = await VhdxDisks.ChangeAsync(image, async n =>
        {
            await n.WriteAsync(MiB + 5, new byte[] { 1 });
            _ = await n.CompactAsync(null, CancellationToken.None);
        });
        expected[MiB + 5] = 1;
        Assert.Equal(expected, new VhdxSpecReader(written, allowVersion095: true).Contents());
    }
}

/// <summary>A disk in memory and what has been done to it.</summary>
internal sealed class VhdxTwin(byte[] contents, int seed)
{
    private readonly Random _random = new(seed);
    private byte[] _contents = contents;

    public VhdxTwin(int size, int seed)
        : this(new byte[size], seed)
    {
    }

    public byte[] Contents => _contents;

    /// <summary>Does random things to a disk and to the twin.</summary>
    public async Task ChangeAsync(BlockNode node, int steps)
    {
        for (int i = 0; i < steps; i++)
        {
            int length = _random.Next(1, _random.Next(3) == 0 ? 3 << 20 : 70_000);
            length = Math.Min(length, _contents.Length);
            int at = _random.Next(_contents.Length - length + 1);
            if (_random.Next(3) == 0)
            {
                (at, length) = (at & ~0xFFFFF, Math.Min(_contents.Length - (at & ~0xFFFFF), 1 << 20)); // a whole block
            }
            switch (_random.Next(8))
            {
                case 0:
                    await node.WriteZeroesAsync(at, length, ZeroWriteMode.MayUnmap);
                    Array.Clear(_contents, at, length);
                    break;
                case 1:
                    await node.WriteZeroesAsync(at, length, ZeroWriteMode.KeepAllocated);
                    Array.Clear(_contents, at, length);
                    break;
                case 2:
                    await node.DiscardAsync(at, length);
                    await node.WriteZeroesAsync(at, length); // what discarding leaves is not defined
                    Array.Clear(_contents, at, length);
                    break;
                case 3:
                    await node.FlushAsync();
                    break;
                default:
                    byte[] data = new byte[length];
                    _random.NextBytes(data);
                    await node.WriteAsync(at, data);
                    data.CopyTo(_contents, at);
                    break;
            }
        }
        RequireSame(await VhdxDisks.ReadAllAsync(node));
    }

    public void Resize(int length) => Array.Resize(ref _contents, length);

    public void RequireSame(byte[] disk)
    {
        int same = disk.AsSpan().CommonPrefixLength(_contents);
        Assert.True(same == _contents.Length
            && disk.Length == _contents.Length, $"seed {seed}: differs from offset {same:#,0} on "
                + $"({disk.Length:#,0} and {_contents.Length:#,0} bytes)");
    }
}
