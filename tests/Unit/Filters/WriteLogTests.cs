using System.Text;
using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Filters.BlkLogWrites;
using DiskImage.Graph;
using DiskImage.Options;
using DiskImage.Tests.Conformance;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Filters;

public sealed class BlkLogWritesNodeTests : NodeConformance
{
    private protected override bool CanResize => true;

    private protected override Task<BlockNode> MakeAsync(byte[] contents, bool writable)
        => Task.FromResult<BlockNode>(new BlkLogWritesNode(
            new MemoryNode((byte[])contents.Clone(), !writable), new MemoryNode([], !writable), 512));
}

/// <summary>What a log of writes makes of a disk.</summary>
public sealed class WriteLogTests : IDisposable
{
    private const int Size = (1 << 20) + 1536, Sector = 512;

    private readonly TestFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Theory]
    [InlineData(1, 512)]
    [InlineData(2, 4096)]
    [InlineData(3, 65536)]
    public async Task A_log_replays_to_the_bytes_that_the_guest_wrote(int seed, int sector)
    {
        byte[] before = Noise(Size, seed), twin = [.. before];
        var log = new MemoryNode();
        var below = new MemoryNode([.. before]);
        await using (var node = new BlkLogWritesNode(new FixedLengthNode(below), log, sector, superblockInterval: 7))
        {
            await RandomRequests.ExerciseAsync(node, twin, seed);
        }
        var again = new FixedLengthNode(new MemoryNode([.. before]));
        WriteLog written = await WriteLog.OpenAsync(log, CancellationToken.None);
        WriteLogReplay done = await written.ReplayAsync(again, null, null, CancellationToken.None);
        Assert.Equal((written.Entries, sector), (done.Entries, written.SectorSize));
        byte[] read = new byte[Size];
        await again.ReadAsync(0, read);
        Assert.Equal(twin, read);
        Assert.Equal(twin, below.ToArray());
    }

    [Fact]
    public async Task A_log_is_replayed_up_to_an_entry_or_a_mark()
    {
        var log = new MemoryNode();
        await using (var node = new BlkLogWritesNode(new MemoryNode(new byte[8 * Sector]), log, Sector))
        {
            await node.WriteAsync(0, Filled(1)); // entry 1
            await node.FlushAsync(); // 2
            await node.WriteAsync(Sector, Filled(2)); // 3
            await node.DiscardAsync(0, Sector); // 4
        }
        byte[] bytes = [.. log.ToArray(), .. new byte[Sector], .. new byte[2 * Sector]];
        int mark = bytes.Length - (3 * Sector), last = mark + Sector;
        LittleEndian.U64(bytes, 16, 6); // two entries more: a mark, and a write
        LittleEndian.U64(bytes, mark + 16, 8);
        LittleEndian.U64(bytes, mark + 24, 5);
        Encoding.UTF8.GetBytes("höhe").CopyTo(bytes, mark + 32);
        LittleEndian.U64(bytes, last, 3);
        LittleEndian.U64(bytes, last + 8, 1);
        LittleEndian.U64(bytes, last + 16, 2); // durable
        Filled(9).CopyTo(bytes, last + Sector);
        WriteLog read = await WriteLog.OpenAsync(new MemoryNode(bytes), CancellationToken.None);
        foreach ((long? entries, string? name, byte[] firsts, WriteLogReplay expected) in new (long?, string?, byte[], WriteLogReplay)[]
        {
            (0, null, [7, 7, 7, 7], new(0, 0, null)),
            (1, null, [1, 7, 7, 7], new(1, Sector, null)),
            (3, null, [1, 2, 7, 7], new(3, 2 * Sector, null)),
            (4, null, [0, 2, 7, 7], new(4, 3 * Sector, null)),
            (null, "höhe", [0, 2, 7, 7], new(5, 3 * Sector, "höhe")),
            (3, "höhe", [1, 2, 7, 7], new(3, 2 * Sector, null)),
            (null, null, [0, 2, 7, 9], new(6, 4 * Sector, "höhe")),
        })
        {
            var disk = new MemoryNode([.. Enumerable.Repeat((byte)7, 8 * Sector)]);
            Assert.Equal(expected, await read.ReplayAsync(disk, entries, name, CancellationToken.None));
            Assert.Equal(firsts, disk.ToArray().Chunk(Sector).Take(4).Select(s => s[0]));
        }
        DiskImageException missing = await Assert.ThrowsAsync<DiskImageException>(
            async () => await read.ReplayAsync(new MemoryNode(new byte[8 * Sector]), null, "hohe", CancellationToken.None));
        Assert.Equal(DiskImageErrorKind.NotFound, missing.Kind);
        DiskImageException small = await Assert.ThrowsAsync<DiskImageException>(
            async () => await read.ReplayAsync(new FixedLengthNode(new MemoryNode(new byte[Sector])), null, null, CancellationToken.None));
        Assert.Equal((DiskImageErrorKind.OutOfRange, (long)Sector), (small.Kind, small.Offset));
    }

    [Theory]
    [InlineData(0, 1, DiskImageErrorKind.InvalidFormat, "is no log of writes")]
    [InlineData(8, 2, DiskImageErrorKind.Unsupported, "version 2")]
    [InlineData(24, 513, DiskImageErrorKind.Unsupported, "sectors of 513 bytes")]
    [InlineData(24, 1 << 30, DiskImageErrorKind.Unsupported, "known are version 1 and powers of two from 512 to 1,048,576")]
    [InlineData(16, 1L << 60, DiskImageErrorKind.Corrupt, "counts 1,152,921,504,606,846,976 entries")]
    [InlineData(16, 3, DiskImageErrorKind.Corrupt, "entry 3 of 3 of the log of writes, at offset 2,048, begins past its end")]
    [InlineData(Sector + 8, -1, DiskImageErrorKind.Corrupt, "which no disk has")]
    [InlineData(Sector + 8, 4, DiskImageErrorKind.Corrupt, "has 2,048 bytes of data, which reach past its end")]
    [InlineData((2 * Sector) + Sector + 24, 999, DiskImageErrorKind.Corrupt, "is a mark with a name of 999 bytes")]
    public async Task A_log_that_is_damaged_is_said_to_be(int offset, long value, DiskImageErrorKind kind, string message)
    {
        var log = new MemoryNode();
        await using (var node = new BlkLogWritesNode(new MemoryNode(new byte[8 * Sector]), log, Sector))
        {
            await node.WriteAsync(0, Filled(1));
            await node.FlushAsync();
        }
        byte[] bytes = log.ToArray();
        if (offset > 3 * Sector)
        {
            LittleEndian.U64(bytes, (3 * Sector) + 16, 8); // the flush becomes a mark
        }
        LittleEndian.U64(bytes, offset, (ulong)value);
        DiskImageException e = await Assert.ThrowsAsync<DiskImageException>(async () =>
        {
            WriteLog read = await WriteLog.OpenAsync(new MemoryNode(bytes), CancellationToken.None);
            _ = await read.ReplayAsync(new MemoryNode(new byte[8 * Sector]), null, null, CancellationToken.None);
        });
        Assert.Equal(kind, e.Kind);
        Assert.Contains(message, e.Message, StringComparison.Ordinal);
    }

    /// <summary>QEMU writes a log, we go on with it, QEMU goes on with ours; each time the log makes the disk.</summary>
    [OracleTheory("qemu-io")]
    [InlineData(512)]
    [InlineData(4096)]
    public async Task A_log_of_QEMU_and_of_ours_in_turn_makes_the_same_disk(int sector)
    {
        string disk = _folder["disk.raw"], log = _folder["log"];
        byte[] before = Noise(1 << 20, 5);
        await File.WriteAllBytesAsync(disk, before);
        await File.WriteAllBytesAsync(log, new byte[4096]);
        await QemuAsync("write -P 1 0 64k", "write -P 2 60k 8k", "flush", "write -z 128k 64k", "discard 256k 64k", "write -P 3 1020k 4k");
        await AgreesAsync();
        await using (OpenedImage image = await OpenAsync($"{Log(disk, log)},log-append=on"))
        {
            await image.Node.WriteAsync(300_000, Noise(100_000, 6));
            await image.Node.WriteZeroesAsync(310_000, 7000);
            await image.Node.FlushAsync();
            await image.Node.DiscardAsync(512 << 10, 64 << 10);
        }
        await AgreesAsync();
        await QemuAsync("log-append=on", "write -P 4 32k 4k", "write -P 5 1016k 8k");
        long entries = await AgreesAsync();
        Assert.True(entries >= 10, $"{entries} entries");

        async Task QemuAsync(params string[] commands)
        {
            string append = commands[0].Contains('=', StringComparison.Ordinal) ? $",{commands[0]}" : $",log-sector-size={sector}";
            string[] arguments =
            [
                .. commands.Where(c => !c.Contains('=', StringComparison.Ordinal)).SelectMany(c => new[] { "-c", c }), "--image-opts",
                $"driver=blklogwrites,file.driver=file,file.filename={disk},file.discard=unmap,log.driver=file,log.filename={log}{append},discard=unmap",
            ];
            _ = await Programs.RunAsync("qemu-io", arguments);
        }

        async Task<long> AgreesAsync()
        {
            await using BlockNode file = await Images.OpenAsync(log, "raw");
            WriteLog written = await WriteLog.OpenAsync(file, CancellationToken.None);
            Assert.Equal(sector, written.SectorSize);
            var again = new MemoryNode([.. before]);
            _ = await written.ReplayAsync(again, null, null, CancellationToken.None);
            byte[] expected = await File.ReadAllBytesAsync(disk), replayed = again.ToArray();
            int same = expected.AsSpan().CommonPrefixLength(replayed);
            Assert.True(same == expected.Length && same == replayed.Length, $"differs at {same}");
            return written.Entries;
        }
    }

    /// <summary>The power goes after any entry of the log: the image opens, and leaks at most.</summary>
    [OracleTheory("qemu-img")]
    [InlineData("qcow2", "cluster_size=4k")]
    [InlineData("qcow2", "refcount_bits=1,cluster_size=512")]
    public async Task An_image_is_sound_after_each_entry_of_its_log(string format, string options)
    {
        string path = _folder[$"disk.{format}"], log = _folder["log"];
        await Images.CreateAsync(path, format, $"size=8M,{options}");
        byte[] before = await File.ReadAllBytesAsync(path);
        var random = new Random(4);
        await using (OpenedImage image = await OpenAsync(
            $"driver={format},file.driver=blklogwrites,file.file.filename={path},file.log.filename={await NewAsync(log)}"))
        {
            for (int i = 0; i < 60; i++)
            {
                await image.Node.WriteAsync(random.Next(8 << 20) / 4096 * 4096, Noise(4096, i));
                if (i % 10 == 9)
                {
                    await image.Node.FlushAsync();
                }
            }
        }
        await using BlockNode file = await Images.OpenAsync(log, "raw");
        WriteLog written = await WriteLog.OpenAsync(file, CancellationToken.None);
        Assert.True(written.Entries > 50, $"{written.Entries} entries");
        for (long entries = 0; entries <= written.Entries; entries += Math.Max(1, written.Entries / 25))
        {
            string crashed = _folder[$"crashed.{format}"];
            await File.WriteAllBytesAsync(crashed, before);
            await using (BlockNode bytes = await Images.Opener.OpenFileAsync(
                ImageLocator.Parse(crashed), writable: true, folder: null, CancellationToken.None))
            {
                _ = await written.ReplayAsync(bytes, entries, null, CancellationToken.None);
            }
            await using BlockNode disk = await Images.OpenAsync(crashed, format, writable: true);
            CheckReport result = await disk.As<ICheckable>()!.CheckAsync(null, CancellationToken.None);
            Assert.True(result.Findings.All(f => f.Severity is CheckSeverity.Leak or CheckSeverity.Warning), $"{entries}: {string.Join('\n', result.Findings)}");
        }
    }

    private static async Task<string> NewAsync(string path)
    {
        await File.WriteAllBytesAsync(path, []);
        return path;
    }

    private static string Log(string disk, string log) => $"driver=blklogwrites,file.driver=raw,file.file.filename={disk},log.filename={log}";

    private static byte[] Filled(byte value) => [.. Enumerable.Repeat(value, Sector)];

    private static byte[] Noise(int length, int seed)
    {
        byte[] bytes = new byte[length];
        new Random(seed).NextBytes(bytes);
        return bytes;
    }

    private static async Task<OpenedImage> OpenAsync(string text) => await Images.Opener.OpenAsync(
        new OpenRequest(NodeSpec.From(OptionSchema.Values(text)).ToString()) { Writable = true }, CancellationToken.None);
}
