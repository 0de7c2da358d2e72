using DiskImage.Block;
using DiskImage.Formats.Vpc;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Vpc;

/// <summary>Random requests to a disk and to an array beside it; seeds are in the messages.</summary>
public sealed class VpcModelTests : IDisposable
{
    private readonly TestFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    public static TheoryData<int, string, bool> Runs()
    {
        var data = new TheoryData<int, string, bool>();
        for (int seed = 0; seed < 3; seed++)
        {
            data.Add(seed, "block_size=4k,force_size", false);
            data.Add(seed, "block_size=512k", false);
            data.Add(seed, "force_size", false);
            data.Add(seed, "block_size=64k", true);
            data.Add(seed, "subformat=fixed", false);
        }
        return data;
    }

    [Theory]
    [MemberData(nameof(Runs))]
    public async Task A_disk_reads_as_its_raw_twin(int seed, string options, bool hasParent)
    {
        const int Size = 3 << 20;
        var random = new Random(seed);
        string path = _folder["a.vhd"];
        byte[]? parent = null;
        if (hasParent)
        {
            await Images.CreateAsync(_folder["p.vhd"], "vpc", $"size={Size},force_size");
            await using BlockNode below = await Images.OpenAsync(_folder["p.vhd"], writable: true);
            parent = new byte[Size];
            random.NextBytes(parent.AsSpan(0, Size / 2));
            await below.WriteAsync(0, parent.AsMemory(0, Size / 2));
        }
        await Images.CreateAsync(path, "vpc", hasParent ? $"{options},backing_file=p.vhd" : $"size={Size},{options}");
        byte[] twin = [];
        for (int session = 0; session < 3; session++)
        {
            await using (BlockNode disk = await Images.OpenAsync(path, writable: true))
            {
                if (session == 0)
                {
                    twin = new byte[disk.Length];
                    parent?.CopyTo(twin, 0);
                }
                for (int i = 0; i < 40; i++)
                {
                    twin = await StepAsync(disk, twin, random);
                }
                Assert.Equal(twin.Length, disk.Length);
                byte[] read = await VpcDisks.ReadAsync(disk);
                Assert.True(twin.AsSpan().SequenceEqual(read), $"seed {seed}, session {session}");
            }
            await using BlockNode again = await Images.OpenAsync(path);
            byte[] reread = await VpcDisks.ReadAsync(again);
            Assert.True(twin.AsSpan().SequenceEqual(reread), $"seed {seed}, session {session}, opened again");
            // dropped blocks leave gaps
            Assert.All((await VpcDisks.CheckAsync(again)).Findings, f => Assert.Equal(CheckSeverity.Leak, f.Severity));
            (_, byte[] independent) = VhdReader.Read(path, parent);
            Assert.True(
                twin.AsSpan().SequenceEqual(independent.AsSpan(0, twin.Length)), $"seed {seed}, session {session}, independent reader");
        }
    }

    [Theory]
    [InlineData("block_size=64k,force_size")]
    [InlineData("force_size")]
    public async Task Writers_in_parallel_do_not_disturb_each_other(string options)
    {
        const int Size = 8 << 20, Workers = 8, Part = 512;
        await Images.CreateAsync(_folder["a.vhd"], "vpc", $"size={Size},{options}");
        byte[] expected = new byte[Size];
        await using (BlockNode disk = await Images.OpenAsync(_folder["a.vhd"], writable: true))
        {
            await Task.WhenAll(Enumerable.Range(0, Workers).Select(w => Task.Run(async () =>
            {
                var random = new Random(w);
                byte[] data = new byte[Part];
                for (int i = 0; i < 400; i++) // each has every eighth sector for its own, so that they meet in every block
                {
                    int at = ((random.Next(Size / Part / Workers) * Workers) + w) * Part;
                    if (random.Next(4) == 0)
                    {
                        expected.AsSpan(at, Part).Clear();
                        await disk.WriteZeroesAsync(at, Part);
                    }
                    else
                    {
                        random.NextBytes(data);
                        data.CopyTo(expected, at);
                        await disk.WriteAsync(at, data);
                    }
                    if (random.Next(50) == 0)
                    {
                        await disk.FlushAsync();
                    }
                }
            })));
        }
        (_, byte[] contents) = VhdReader.Read(_folder["a.vhd"]);
        Assert.True(expected.AsSpan().SequenceEqual(contents));
    }

    [OracleFact]
    public async Task A_disk_that_is_compacted_is_as_small_as_a_new_one()
    {
        const int Size = 40 << 20;
        await Images.CreateAsync(_folder["a.vhd"], "vpc", $"size={Size},force_size");
        byte[] expected = new byte[Size];
        var random = new Random(1);
        await using (BlockNode disk = await Images.OpenAsync(_folder["a.vhd"], writable: true))
        {
            random.NextBytes(expected);
            await disk.WriteAsync(0, expected);
            expected.AsSpan(4 << 20, 20 << 20).Clear();
            await disk.WriteAsync(4 << 20, new byte[20 << 20]); // zeroes that were written, not zeroed
            await disk.DiscardAsync(30 << 20, 2 << 20);
            expected.AsSpan(30 << 20, 2 << 20).Clear();
            await disk.FlushAsync();
            long saved = await ((ICompactable)disk).CompactAsync(null, CancellationToken.None);
            Assert.InRange(saved, 22 << 20, 23 << 20);
            byte[] now = await VpcDisks.ReadAsync(disk);
            Assert.True(expected.AsSpan().SequenceEqual(now));
            Assert.Empty((await VpcDisks.CheckAsync(disk)).Findings);
            await disk.WriteAsync(5 << 20, expected.AsMemory(0, 1000));
            expected.AsSpan(0, 1000).CopyTo(expected.AsSpan(5 << 20));
        }
        (VhdReader reader, byte[] contents) = VhdReader.Read(_folder["a.vhd"]);
        Assert.True(expected.AsSpan().SequenceEqual(contents));
        Assert.Equal(10, reader.Allocated);
        Assert.InRange(new FileInfo(_folder["a.vhd"]).Length, 20 << 20, (20 << 20) + (64 << 10));
        await File.WriteAllBytesAsync(_folder["e.raw"], expected);
        await Programs.CompareAsync(_folder["e.raw"], "raw", _folder["a.vhd"], "vpc");
    }

    [OracleTheory]
    [InlineData("block_size=4k")]
    [InlineData("block_size=64k")]
    [InlineData("block_size=2M")]
    public async Task A_table_that_grows_moves_what_is_in_its_way(string options)
    {
        await Images.CreateAsync(_folder["a.vhd"], "vpc", $"size=1M,force_size,{options}");
        byte[] data = new byte[1 << 20];
        new Random(2).NextBytes(data);
        long[] sizes = [4 << 20, (64 << 20) + 512, 3 << 20, 512, 200 << 20];
        await using (BlockNode disk = await Images.OpenAsync(_folder["a.vhd"], writable: true))
        {
            await disk.WriteAsync(0, data);
            foreach (long size in sizes)
            {
                await disk.ResizeAsync(size);
                if (size < data.Length)
                {
                    data.AsSpan((int)size).Clear();
                }
                byte[] now = new byte[Math.Min(size, data.Length)];
                await disk.ReadAsync(0, now);
                Assert.True(data.AsSpan(0, now.Length).SequenceEqual(now));
                // the place of blocks that have moved
                Assert.All((await VpcDisks.CheckAsync(disk)).Findings, f => Assert.Equal(CheckSeverity.Leak, f.Severity));
                await disk.WriteAsync(size - 512, data.AsMemory(0, 512));
                await disk.WriteZeroesAsync(size - 512, 512);
                data.AsSpan((int)Math.Min(data.Length, size - 512)).Clear();
            }
        }
        await using (FileStream raw = File.Create(_folder["e.raw"]))
        {
            await raw.WriteAsync(data.AsMemory(0, 512));
            raw.SetLength(200 << 20);
        }
        await Programs.CompareAsync(_folder["e.raw"], "raw", _folder["a.vhd"], "vpc");
        _ = VhdReader.Read(_folder["a.vhd"]);
    }

    [Fact]
    public async Task The_size_after_a_resize_is_what_everybody_takes_it_for()
    {
        await Images.CreateAsync(_folder["a.vhd"], "vpc", "size=10M,force_size=off");
        await using BlockNode disk = await Images.OpenAsync(_folder["a.vhd"], writable: true);
        Assert.Equal("qemu", VpcOracleTests.Info(disk).CreatorApplication);
        await disk.ResizeAsync(VpcGeometry.Covering((20 << 20) / 512).Sectors * 512);
        Assert.Equal("qemu", VpcOracleTests.Info(disk).CreatorApplication);
        await disk.ResizeAsync(30_000_128); // 58594 sectors: no geometry says so
        Assert.Equal(
            ("qem2", 30_000_128L, 65535),
            (VpcOracleTests.Info(disk).CreatorApplication, VpcOracleTests.Info(disk).CurrentSize, VpcOracleTests.Info(disk).Cylinders));
    }

    private static async Task<byte[]> StepAsync(BlockNode disk, byte[] twin, Random random)
    {
        int length = random.Next(1, Math.Max(2, Math.Min(twin.Length, 1 << random.Next(4, 21))));
        int at = random.Next(twin.Length - length + 1);
        switch (random.Next(12))
        {
            case <= 4:
                random.NextBytes(twin.AsSpan(at, length));
                await disk.WriteAsync(at, twin.AsMemory(at, length));
                return twin;
            case <= 6:
                twin.AsSpan(at, length).Clear();
                await disk.WriteZeroesAsync(at, length, random.Next(2) == 0 ? ZeroWriteMode.MayUnmap : ZeroWriteMode.KeepAllocated);
                return twin;
            case 7:
                await disk.DiscardAsync(at, length);
                await disk.ReadAsync(at, twin.AsMemory(at, length)); // whatever it is now, it stays
                return twin;
            case 8:
                await disk.FlushAsync();
                return twin;
            case 9 when random.Next(3) == 0:
                int size = (1 << 20) + (random.Next(8000) * 512);
                await disk.ResizeAsync(size);
                byte[] resized = new byte[disk.Length];
                twin.AsSpan(0, Math.Min(twin.Length, size)).CopyTo(resized);
                return resized;
            case 10 when disk is ICompactable compactable:
                await compactable.CompactAsync(null, CancellationToken.None);
                return twin;
            default:
                byte[] read = new byte[length];
                await disk.ReadAsync(at, read);
                Assert.True(twin.AsSpan(at, length).SequenceEqual(read));
                return twin;
        }
    }
}
