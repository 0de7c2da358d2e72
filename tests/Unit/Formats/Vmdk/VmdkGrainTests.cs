using System.Buffers.Binary;
using System.Globalization;
using System.Text;
using DiskImage.Block;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Vmdk;

/// <summary>
/// Hosted sparse disks with grains of every size from 4 KiB, which VMware's tools take and none makes but with 64 KiB: made here by the
/// published layout (VMware, Virtual Disk Format 5.0), with none of the library's code.
/// </summary>
public sealed class VmdkGrainTests : IDisposable
{
    private const int Sector = 512, TableEntries = 512;

    private static readonly DiskFormat s_vmdk = new("vmdk");

    private readonly TestFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    public static TheoryData<int> Grains() => [8, 16, 32, 64, 128, 256, 512, 1024, 2048];

    [OracleTheory]
    [MemberData(nameof(Grains))]
    public async Task A_disk_that_both_write_to_reads_as_its_twin(int grainSectors)
    {
        byte[] twin = new byte[(5 << 20) + 1536];
        await File.WriteAllBytesAsync(_folder["a.vmdk"], Empty(grainSectors, twin.Length / Sector));
        await new BothWays(_folder, "vmdk").TwinAsync(_folder["a.vmdk"], twin, new Random(grainSectors), canCheck: true);
    }

    [Theory]
    [MemberData(nameof(Grains))]
    public async Task It_is_damaged_checked_repaired_compacted_and_resized_as_any(int grainSectors)
    {
        int grain = grainSectors * Sector;
        byte[] contents = new byte[6 * grain];
        new Random(3).NextBytes(contents);
        var file = new MemoryNode(Empty(grainSectors, contents.Length / Sector));
        await using (BlockNode disk = await s_vmdk.OpenAsync(file))
        {
            await disk.WriteAsync(0, contents);
        }
        byte[] bytes = file.ToArray();
        Assert.Empty((await s_vmdk.CheckAsync(bytes)).Findings);
        int table = (int)BinaryPrimitives.ReadUInt32LittleEndian(bytes.AsSpan(
            (int)BinaryPrimitives.ReadUInt64LittleEndian(bytes.AsSpan(56)) * Sector)) * Sector;
        BinaryPrimitives.WriteUInt32LittleEndian(bytes.AsSpan(table + 4), 0x00FF_0000); // the second grain
        Assert.Contains((await s_vmdk.CheckAsync(bytes)).Findings, f => f.Kind.Equals("OutOfFile", StringComparison.Ordinal));
        var damaged = new MemoryNode(bytes);
        await using (BlockNode disk = await s_vmdk.OpenAsync(damaged, forRepair: true))
        {
            CheckReport report = await disk.As<IRepairable>()!.RepairAsync(RepairMode.All, null, CancellationToken.None);
            Assert.Equal((0, 0), (report.Corruptions, report.Leaks));
        }
        DiskFormat.Same(contents, await s_vmdk.ReadAsync(damaged.ToArray())); // by the redundant table
        await using (BlockNode disk = await s_vmdk.OpenAsync(damaged))
        {
            await disk.WriteZeroesAsync(2 * grain, 2 * grain);
            contents.AsSpan(2 * grain, 2 * grain).Clear();
            Assert.Equal(2 * grain, await disk.As<ICompactable>()!.CompactAsync(null, CancellationToken.None));
            await disk.ResizeAsync((5 * grain) - Sector);
            await disk.ResizeAsync(600L * grain); // a further table
            await disk.WriteAsync(599L * grain, contents.AsMemory(0, grain));
        }
        byte[] after = damaged.ToArray();
        Assert.Empty((await s_vmdk.CheckAsync(after)).Findings);
        await using BlockNode again = await s_vmdk.OpenAsync(new MemoryNode(after, readOnly: true));
        byte[] read = new byte[contents.Length], last = new byte[grain];
        await again.ReadAsync(0, read);
        await again.ReadAsync(599L * grain, last);
        contents.AsSpan((5 * grain) - Sector).Clear();
        DiskFormat.Same(contents, read);
        DiskFormat.Same(contents[..grain], last);
    }

    [Theory]
    [InlineData(8)]
    [InlineData(16)]
    public async Task A_crash_leaks_at_most(int grainSectors)
    {
        const int Sectors = 400;
        await s_vmdk.CrashAsync(
            Empty(grainSectors, Sectors),
            null,
            new int[Sectors],
            GuestOperation.Sequence(
                grainSectors, Sectors, 80, 40, GuestAction.Write, GuestAction.Write, GuestAction.WriteZeroes, GuestAction.Discard,
                GuestAction.Flush),
            $"grains of {grainSectors} sectors");
    }

    /// <summary>A disk that holds nothing: header, descriptor, both directories and all tables.</summary>
    private static byte[] Empty(int grainSectors, long sectors)
    {
        const int Descriptor = 1, DescriptorSectors = 20, RedundantDirectory = Descriptor + DescriptorSectors;
        int tables = (int)((sectors + ((long)grainSectors * TableEntries) - 1) / ((long)grainSectors * TableEntries));
        int directory = ((tables * 4) + Sector - 1) / Sector, tableSectors = TableEntries * 4 / Sector;
        int first = RedundantDirectory + directory + (tables * tableSectors);
        int end = first + directory + (tables * tableSectors);
        int overhead = (end + grainSectors - 1) / grainSectors * grainSectors;
        byte[] file = new byte[overhead * Sector];
        "KDMV"u8.CopyTo(file);
        Put32(4, 1);
        Put32(8, 3); // line ends can be tested; there is a redundant directory
        Put64(12, sectors);
        Put64(20, grainSectors);
        Put64(28, Descriptor);
        Put64(36, DescriptorSectors);
        Put32(44, TableEntries);
        Put64(48, RedundantDirectory);
        Put64(56, first);
        Put64(64, overhead);
        "\n \r\n"u8.CopyTo(file.AsSpan(73));
        foreach (int at in new[] { RedundantDirectory, first })
        {
            for (int i = 0; i < tables; i++)
            {
                Put32((at * Sector) + (i * 4), (uint)(at + directory + (i * tableSectors)));
            }
        }
        string text = string.Create(
            CultureInfo.InvariantCulture,
            $"# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType=\"monolithicSparse\"\n\n"
                + $"# Extent description\nRW {sectors} SPARSE \"a.vmdk\"\n\n# The Disk Data Base\nddb.virtualHWVersion = \"4\"\n"
                + $"ddb.geometry.cylinders = \"10\"\nddb.geometry.heads = \"16\"\nddb.geometry.sectors = \"63\"\n"
                + $"ddb.adapterType = \"ide\"\n");
        Encoding.ASCII.GetBytes(text).CopyTo(file, Descriptor * Sector);
        return file;

        void Put32(int at, uint value) => BinaryPrimitives.WriteUInt32LittleEndian(file.AsSpan(at), value);

        void Put64(int at, long value) => BinaryPrimitives.WriteInt64LittleEndian(file.AsSpan(at), value);
    }
}
