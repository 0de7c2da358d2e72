using System.Buffers.Binary;
using DiskImage.Block;
using DiskImage.Graph;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Vmdk;

/// <summary>Streams that lost their end or their tables are made whole from the markers before their grains.</summary>
public sealed class VmdkStreamRebuildTests
{
    private const int FirstGrain = 65536;

    private static readonly DiskFormat s_vmdk = new("vmdk");

    public static TheoryData<string> Losses() => ["end", "footer", "directory", "table", "half", "nothing but a table"];

    [Theory]
    [MemberData(nameof(Losses))]
    public async Task What_lost_its_end_is_found_and_made_whole(string loss)
    {
        byte[] image = await VmdkStructureTests.StreamAsync(), contents = await s_vmdk.ReadAsync(image);
        int directory = (int)(BinaryPrimitives.ReadUInt64LittleEndian(image.AsSpan(image.Length - 1024 + 56)) * 512);
        byte[] damaged = (byte[])image.Clone();
        switch (loss)
        {
            case "end":
                damaged = damaged[..^1024];
                break;
            case "footer":
                damaged.AsSpan(damaged.Length - 1024, 512).Fill(0x5A);
                break;
            case "directory":
                BinaryPrimitives.WriteUInt64LittleEndian(damaged.AsSpan(damaged.Length - 1024 + 56), 1 << 30);
                break;
            case "table":
                BinaryPrimitives.WriteUInt32LittleEndian(damaged.AsSpan(directory), 0x7FFF_FFFF);
                break;
            case "half":
                damaged = damaged[..(damaged.Length - 60_000)]; // within the grains
                break;
            default:
                damaged = damaged[..(directory - 512 - 2048 - 100)]; // the last table is cut
                break;
        }
        bool isWhole = !loss.Equals("half", StringComparison.Ordinal);
        await using (BlockNode looked = await s_vmdk.OpenAsync(new MemoryNode((byte[])damaged.Clone(), readOnly: true), forRepair: true))
        {
            CheckFinding found = Assert.Single((await looked.As<ICheckable>()!.CheckAsync(null, CancellationToken.None)).Findings);
            Assert.Equal(("StreamEnd", true), (found.Kind, found.Repair is not null));
        }
        var file = new MemoryNode((byte[])damaged.Clone());
        await using (BlockNode disk = await s_vmdk.OpenAsync(file, forRepair: true))
        {
            _ = await disk.As<IRepairable>()!.RepairAsync(RepairMode.Leaks, null, CancellationToken.None);
            DiskFormat.Same(damaged, file.ToArray());
            CheckReport report = await disk.As<IRepairable>()!.RepairAsync(RepairMode.All, null, CancellationToken.None);
            Assert.Equal((1, 0), (report.CorruptionsFixed, report.Corruptions));
        }
        byte[] made = file.ToArray(), read = await s_vmdk.ReadAsync(made);
        Assert.Empty((await s_vmdk.CheckAsync(made)).Findings);
        if (isWhole)
        {
            DiskFormat.Same(contents, read);
            DiskFormat.Same(image[..^2048], made[..(image.Length - 2048)]); // tables that are there are used
        }
        else
        {
            DiskFormat.Same(contents[..(32 << 20)], read[..(32 << 20)]);
            Assert.True(read.AsSpan().CommonPrefixLength(contents) >= 527 * 65536); // the grain that was cut, and what came after it
        }
    }

    [Fact]
    public async Task Where_the_middle_is_lost_the_rest_is_kept()
    {
        byte[] image = await VmdkStructureTests.StreamAsync(), contents = await s_vmdk.ReadAsync(image);
        byte[] damaged = image[..^1024];
        damaged.AsSpan(FirstGrain, 512).Fill(0xA5); // the first grain and its marker
        var file = new MemoryNode(damaged);
        await using (BlockNode disk = await s_vmdk.OpenAsync(file, forRepair: true))
        {
            Assert.Equal(0, (await disk.As<IRepairable>()!.RepairAsync(RepairMode.All, null, CancellationToken.None)).Corruptions);
        }
        byte[] read = await s_vmdk.ReadAsync(file.ToArray());
        Assert.False(read.AsSpan(0, FirstGrain).ContainsAnyExcept((byte)0));
        DiskFormat.Same(contents[FirstGrain..], read[FirstGrain..]);
    }

    [Fact]
    public async Task A_crash_during_it_leaves_what_can_be_repaired_again()
    {
        byte[] image = await VmdkStructureTests.StreamAsync(), contents = await s_vmdk.ReadAsync(image);
        byte[] damaged = image[..^(2048 + 512 + 2048 + 100)];
        var log = new WriteLogNode(new MemoryNode((byte[])damaged.Clone()));
        await using (BlockNode disk = await s_vmdk.OpenAsync(log, forRepair: true))
        {
            _ = await disk.As<IRepairable>()!.RepairAsync(RepairMode.All, null, CancellationToken.None);
        }
        for (int count = 0; count < log.Count; count++)
        {
            var file = new MemoryNode((byte[])damaged.Clone());
            foreach (WriteLogEntry entry in log.Entries.Take(count))
            {
                await WriteLogNode.ReplayAsync(entry, file);
            }
            await using (BlockNode disk = await s_vmdk.OpenAsync(file, forRepair: true))
            {
                Assert.Equal(0, (await disk.As<IRepairable>()!.RepairAsync(RepairMode.All, null, CancellationToken.None)).Corruptions);
            }
            DiskFormat.Same(contents, await s_vmdk.ReadAsync(file.ToArray()));
        }
    }

    [OracleFact]
    public async Task What_was_made_whole_qemu_reads()
    {
        byte[] image = await VmdkStructureTests.StreamAsync();
        using var folder = new TestFolder();
        await File.WriteAllBytesAsync(folder["a.raw"], await s_vmdk.ReadAsync(image));
        await File.WriteAllBytesAsync(folder["a.vmdk"], image[..^1000]);
        await using (BlockNode disk = (await Images.Opener.OpenAsync(
            new OpenRequest(folder["a.vmdk"]) { Writable = true, ForRepair = true }, CancellationToken.None)).Node)
        {
            _ = await disk.As<IRepairable>()!.RepairAsync(RepairMode.All, null, CancellationToken.None);
        }
        await Programs.CheckAsync(folder["a.vmdk"], "vmdk");
        await Programs.CompareAsync(folder["a.raw"], "raw", folder["a.vmdk"], "vmdk");
    }

    [Fact]
    public async Task Markers_that_would_make_more_tables_than_the_file_has_bytes_are_refused()
    {
        byte[] start = (await VmdkStructureTests.StreamAsync())[..FirstGrain];
        BinaryPrimitives.WriteUInt64LittleEndian(start.AsSpan(12), 1L << 34); // sectors
        byte[] image = [.. start, .. new byte[2000 * 512]];
        for (int i = 0; i < 2000; i++)
        {
            BinaryPrimitives.WriteUInt64LittleEndian(image.AsSpan(FirstGrain + (i * 512)), (ulong)i * 128 * 512); // each in a table of its own
            BinaryPrimitives.WriteUInt32LittleEndian(image.AsSpan(FirstGrain + (i * 512) + 8), 100);
        }
        var file = new MemoryNode((byte[])image.Clone());
        await using BlockNode disk = await s_vmdk.OpenAsync(file, forRepair: true);
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(async ()
            => await disk.As<IRepairable>()!.RepairAsync(RepairMode.All, null, CancellationToken.None));
        Assert.Contains("more than the file has", error.Message, StringComparison.Ordinal);
        DiskFormat.Same(image, file.ToArray());
    }
}
