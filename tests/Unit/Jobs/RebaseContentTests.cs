using DiskImage.Block;
using DiskImage.Jobs;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Jobs;

/// <summary>A disk that moves from one backing image to another, to none, or onto its first, reads the same bytes as before.</summary>
public sealed class RebaseContentTests
{
    // slots meet clusters, subclusters, blocks and the ends of backing images in all ways
    private const int Size = 4 << 20, Slot = 96 << 10;

    private static readonly (string Name, string Format, string Options)[] s_formats =
    [
        ("qcow2 v3", "qcow2", "cluster_size=64k"),
        ("qcow2 v3, small clusters", "qcow2", "cluster_size=512"),
        ("qcow2 v3, huge clusters", "qcow2", "cluster_size=2M"),
        ("qcow2 v2", "qcow2", "cluster_size=64k,compat=0.10"),
        ("qcow2 extended", "qcow2", "cluster_size=64k,extended_l2=on"),
        ("vpc", "vpc", "force_size=on"),
        ("vhdx", "vhdx", "block_size=1M"),
        ("vhdx, blocks not present", "vhdx", "block_size=1M,block_state_zero=off"),
    ];

    public static TheoryData<string, string, string> Cases()
    {
        var data = new TheoryData<string, string, string>();
        foreach ((string name, string format, _) in s_formats)
        {
            // a VHD and its parent are of one size
            string[] lengths = format == "vpc" ? ["none", "equal"] : ["none", "short", "equal", "longer"];
            foreach (string from in lengths)
            {
                foreach (string to in lengths)
                {
                    data.Add(name, from, to);
                }
            }
        }
        return data;
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public async Task A_rebased_disk_reads_as_it_did(string name, string from, string to)
    {
        (_, string format, string options) = s_formats.First(f => f.Name == name);
        using var folder = new TestFolder();
        string path = folder["disk"];
        string? old = await MakeBackingAsync(
            folder, "old", format, from, 0xBB), @new = await MakeBackingAsync(folder, "new", format, to, 0xCC);
        string backing = old is null ? "" : $",backing_file={Path.GetFileName(old)},backing_fmt={BackingFormat(format)}";
        await Images.CreateAsync(path, format, $"size={Size}{(options.Length == 0 ? "" : "," + options)}{backing}");
        byte[] expected;
        await using (BlockNode disk = await Images.OpenAsync(path, format, writable: true))
        {
            await MakeZeroesAsync(disk);
            await disk.FlushAsync();
            expected = await ReadAsync(disk);
        }
        Assert.True(old is null || expected.Contains((byte)0xBB), "the old backing image does not show at all");
        Assert.Contains((byte)0x5A, expected);

        await RebaseAsync(path, format, @new);

        await using (BlockNode disk = await Images.OpenAsync(path, format))
        {
            byte[] now = await ReadAsync(disk);
            int first = now.AsSpan().CommonPrefixLength(expected);
            Assert.True(
                first == expected.Length,
                $"offset {first:#,0} reads {now[Math.Min(first, Size - 1)]:X2}, not {expected[Math.Min(first, Size - 1)]:X2}");
            Assert.Equal(0, (await ((ICheckable)disk).CheckAsync(null, CancellationToken.None)).Corruptions);
        }
        if (format == "qcow2" && Programs.WhyMissing("qemu-img") is null)
        {
            await File.WriteAllBytesAsync(folder["expected"], expected);
            await Programs.CheckAsync(path);
            await Programs.CompareAsync(folder["expected"], "raw", path, "qcow2");
        }
    }

    /// <summary>Every way in which a range can come to read as zeroes, or as the backing image, next to data and to each other.</summary>
    private static async Task MakeZeroesAsync(BlockNode disk)
    {
        byte[] data = new byte[Slot], zeroes = new byte[Slot];
        Array.Fill(data, (byte)0x5A);
        for (int slot = 0; slot < Size / Slot; slot++)
        {
            long at = slot * (long)Slot;
            switch (slot * 7 % 11)
            {
                case 0 or 1:
                    break; // nobody ever touched it
                case 2:
                    await disk.WriteZeroesAsync(at, Slot);
                    break;
                case 3:
                    await disk.WriteZeroesAsync(at, Slot, ZeroWriteMode.KeepAllocated);
                    break;
                case 4:
                    await disk.WriteAsync(at, zeroes);
                    break;
                case 5:
                    await disk.WriteAsync(at, data);
                    await disk.DiscardAsync(at, Slot);
                    break;
                case 6:
                    await disk.WriteAsync(at, data);
                    await disk.WriteZeroesAsync(at, Slot);
                    break;
                case 7:
                    await disk.WriteAsync(at, data);
                    break;
                case 8:
                    await disk.WriteAsync(at + 8192, data.AsMemory(0, 4096)); // a block, cluster or subcluster in part
                    break;
                case 9:
                    await disk.WriteZeroesAsync(at + 512, 8192);
                    break;
                default:
                    await disk.WriteAsync(at, data);
                    await disk.WriteZeroesAsync(at + 4096, 20_480);
                    await disk.DiscardAsync(at + 65_536, 16_384);
                    break;
            }
        }
    }

    private static async Task<string?> MakeBackingAsync(TestFolder folder, string name, string format, string length, byte value)
    {
        int? bytes = length switch { "short" => (Size / 2) + 4096, "equal" => Size, "longer" => Size + (1 << 20), _ => null };
        if (bytes is not int size)
        {
            return null;
        }
        string path = folder[name];
        byte[] contents = new byte[size];
        Array.Fill(contents, value);
        if (BackingFormat(format) == "raw")
        {
            await File.WriteAllBytesAsync(path, contents);
            return path;
        }
        await Images.CreateAsync(path, format, $"size={size}{(format == "vpc" ? ",force_size=on" : "")}");
        await using BlockNode disk = await Images.OpenAsync(path, format, writable: true);
        await disk.WriteAsync(0, contents.AsMemory(0, (int)Math.Min(size, disk.Length)));
        return path;
    }

    private static string BackingFormat(string format) => format == "qcow2" ? "raw" : format;

    private static async Task RebaseAsync(string path, string format, string? to)
    {
        await using BlockNode disk = await Images.OpenAsync(path, format, writable: true);
        BlockNode? backing = to is null ? null : await Images.OpenAsync(to, BackingFormat(format));
        try
        {
            await new RebaseJob(disk, backing).RunAsync(null, CancellationToken.None);
            await ((IRebasable)disk).SetBackingAsync(to is null
                ? null
                : Path.GetFileName(to), BackingFormat(format), backing, CancellationToken.None);
        }
        finally
        {
            if (backing is not null)
            {
                await backing.DisposeAsync();
            }
        }
    }

    private static async Task<byte[]> ReadAsync(BlockNode disk)
    {
        byte[] contents = new byte[Size];
        await disk.ReadAsync(0, contents);
        return contents;
    }
}
