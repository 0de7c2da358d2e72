using System.Buffers.Binary;
using System.Text;
using DiskImage.Block;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Vmdk;

/// <summary>
/// Extents that no tool here makes, written by these tests from the published layouts: COWD of ESX and VMware 3 (Virtual Disk Format 5.0,
/// "ESXi Host Sparse Extents"), seSparse of ESXi 6.5 (QEMU's patch of 2019 that describes it). QEMU is the second reader of both.
/// </summary>
public sealed class VmdkGoldenTests : IDisposable
{
    private const int Sectors = 9000 + 40; // of the disks: more than a grain table of either covers at its smallest grain

    private readonly TestFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [OracleFact]
    public async Task A_cowd_delta_over_a_flat_disk_reads_as_qemu_reads_it()
    {
        byte[] model = await WriteBaseAsync("vmfs", "VMFS");
        var random = new Random(2);
        await File.WriteAllBytesAsync(_folder["a-delta.vmdk"], Cowd(model, grainSectors: 1, _ => random.Next(3) == 0));
        await File.WriteAllTextAsync(_folder["a.vmdk"],
            Descriptor("vmfsSparse", $"RW {Sectors} VMFSSPARSE \"a-delta.vmdk\"", "11111111", "22222222", "base.vmdk"));
        await RequireAsync(model);
    }

    [OracleFact]
    public async Task A_cowd_file_of_vmware_3_stands_alone()
    {
        byte[] model = new byte[Sectors * 512];
        var random = new Random(3);
        await File.WriteAllBytesAsync(_folder["b.vmdk"], Cowd(model, grainSectors: 128, _ => random.Next(2) == 0));
        await using (BlockNode alone = await Images.OpenAsync(_folder["b.vmdk"]))
        {
            byte[] read = new byte[alone.Length];
            await alone.ReadAsync(0, read);
            DiskFormat.Same(model, read);
        }
        await File.WriteAllTextAsync(_folder["a.vmdk"],
            Descriptor("vmfsSparse", $"RW {Sectors} VMFSSPARSE \"b.vmdk\"", "11111111", "ffffffff", null));
        await RequireAsync(model); // QEMU wants a descriptor
    }

    [OracleTheory]
    [InlineData(1)]
    [InlineData(16)]
    public async Task A_cowd_delta_that_both_write_to_reads_as_its_twin(int grainSectors)
    {
        byte[] twin = await WriteBaseAsync("vmfs", "VMFS");
        var random = new Random(grainSectors);
        await File.WriteAllBytesAsync(_folder["a-delta.vmdk"], Cowd(twin, grainSectors, g => g < 4000 && random.Next(3) == 0));
        await File.WriteAllTextAsync(_folder["a.vmdk"],
            Descriptor("vmfsSparse", $"RW {Sectors} VMFSSPARSE \"a-delta.vmdk\"", "11111111", "22222222", "base.vmdk"));
        byte[] header = (await File.ReadAllBytesAsync(_folder["a-delta.vmdk"]))[..2048];
        for (int turn = 0; turn < 3; turn++)
        {
            await using (BlockNode disk = await Images.OpenAsync(_folder["a.vmdk"], writable: true))
            {
                await DiskFormat.RequestsAsync(disk, twin, random, 40);
            }
            byte[] file = await File.ReadAllBytesAsync(_folder["a-delta.vmdk"]);
            uint free = BinaryPrimitives.ReadUInt32LittleEndian(file.AsSpan(28));
            Assert.Equal((uint)((file.Length + 511) / 512), free); // where ESX puts what is new
            BinaryPrimitives.WriteUInt32LittleEndian(file.AsSpan(28), BinaryPrimitives.ReadUInt32LittleEndian(header.AsSpan(28)));
            DiskFormat.Same(header, file[..2048]);
            int at = random.Next(Sectors / 2) * 512, length = 512 * random.Next(1, 400);
            twin.AsSpan(at, length).Fill((byte)(turn + 1));
            await Programs.RunAsync("qemu-io", "-f", "vmdk", "-c", $"write -P {turn + 1} {at} {length}", _folder["a.vmdk"]);
        }
        await RequireAsync(twin);
    }

    [Fact]
    public async Task A_cowd_file_of_a_child_without_a_descriptor_is_not_written_to_nor_resized()
    {
        byte[] image = Cowd(new byte[Sectors * 512], 8, _ => true);
        var format = new DiskFormat("vmdk");
        await using (BlockNode root = await format.OpenAsync(new MemoryNode((byte[])image.Clone())))
        {
            Assert.False(root.IsReadOnly);
            Assert.Equal(DiskImageErrorKind.Unsupported, (await Assert.ThrowsAsync<DiskImageException>(async ()
                => await root.ResizeAsync(root.Length + 512))).Kind);
        }
        image[8] = 2; // not a root
        await using BlockNode child = await format.OpenAsync(new MemoryNode(image));
        Assert.True(child.IsReadOnly);
    }

    [Fact]
    public async Task A_cowd_file_of_which_a_crash_left_the_free_sector_behind_is_found_and_repaired()
    {
        byte[] image = Cowd(new byte[Sectors * 512], 8, g => g % 2 == 0);
        (image[28], image[1648]) = (5, 1);
        (image[29], image[30]) = (0, 0);
        var format = new DiskFormat("vmdk");
        Assert.Equal("FreeSector NotClosed", string.Join(' ', (await format.CheckAsync(image)).Findings.Select(f => f.Kind)));
        var file = new MemoryNode(image);
        await using (BlockNode disk = await format.OpenAsync(file, forRepair: true))
        {
            CheckReport report = await disk.As<IRepairable>()!.RepairAsync(RepairMode.All, null, CancellationToken.None);
            Assert.Empty(report.Findings);
        }
        Assert.Empty((await format.CheckAsync(file.ToArray())).Findings);
    }

    [Theory]
    [InlineData(1)]
    [InlineData(8)]
    public async Task A_crash_while_a_cowd_file_is_written_leaks_at_most(int grainSectors)
    {
        byte[] image = Cowd(new byte[Sectors * 512], grainSectors, _ => false);
        List<GuestOperation> operations = GuestOperation.Sequence(
            4, 800, 80, 40, GuestAction.Write, GuestAction.Write, GuestAction.WriteZeroes, GuestAction.Discard, GuestAction.Flush);
        await new DiskFormat("vmdk").CrashAsync(image, null, new int[800], operations, "COWD");
    }

    [OracleFact]
    public async Task A_sesparse_delta_over_a_flat_disk_reads_as_qemu_reads_it()
    {
        byte[] model = await WriteBaseAsync("vmfs", "VMFS");
        await File.WriteAllBytesAsync(_folder["a-sesparse.vmdk"], SeSparse(model));
        await File.WriteAllTextAsync(_folder["a.vmdk"],
            Descriptor("seSparse", $"RW {Sectors} SESPARSE \"a-sesparse.vmdk\"", "11111111", "22222222", "base.vmdk"));
        await RequireAsync(model);
    }

    [Theory]
    [InlineData(0, 1ul, DiskImageErrorKind.InvalidFormat)]
    [InlineData(2, ulong.MaxValue, DiskImageErrorKind.Corrupt)]
    [InlineData(3, 0ul, DiskImageErrorKind.Corrupt)]
    [InlineData(3, 3ul, DiskImageErrorKind.Corrupt)]
    [InlineData(4, 0ul, DiskImageErrorKind.Corrupt)]
    [InlineData(10, 0ul, DiskImageErrorKind.Corrupt)]
    [InlineData(16, 1ul << 40, DiskImageErrorKind.Corrupt)]
    [InlineData(17, 0ul, DiskImageErrorKind.Corrupt)]
    [InlineData(67, 1ul, DiskImageErrorKind.Unsupported)] // the journal is to be replayed
    public async Task A_sesparse_header_that_cannot_be_is_refused(int field, ulong value, DiskImageErrorKind kind)
    {
        byte[] bytes = SeSparse(new byte[Sectors * 512]);
        BinaryPrimitives.WriteUInt64LittleEndian(bytes.AsSpan(field * 8), value);
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(async ()
            => await new DiskFormat("vmdk").OpenAsync(new MemoryNode(bytes, readOnly: true)));
        Assert.True(kind == error.Kind, error.Message);
    }

    [Fact]
    public async Task Damage_to_both_ends_in_an_error_or_none()
    {
        var format = new DiskFormat("vmdk");
        var random = new Random(5);
        byte[] model = new byte[Sectors * 512];
        foreach (byte[] image in new[] { Cowd(model, 8, _ => random.Next(2) == 0), SeSparse(model) })
        {
            for (int seed = 0; seed < 60; seed++)
            {
                var damage = new Random(seed);
                byte[] damaged = (byte[])image.Clone();
                for (int i = 0; i < 3; i++)
                {
                    BinaryPrimitives.WriteUInt64LittleEndian(damaged.AsSpan(damage.Next(4096 / 8) * 8), damage.Next(2) == 0
                        ? (ulong)damage.NextInt64() : (ulong)damage.Next(1 << 20));
                }
                _ = await format.ExerciseAsync(damaged, $"seed {seed}");
            }
        }
    }

    private static string Descriptor(string type, string line, string cid, string parentCid, string? parent)
        => $"# Disk DescriptorFile\nversion=1\nencoding=\"UTF-8\"\nCID={cid}\nparentCID={parentCid}\n"
            + $"isNativeSnapshot=\"no\"\n"
            + $"createType=\"{type}\"\n"
            + (parent is null ? ""
                : $"parentFileNameHint=\"{parent}\"\n") + $"\n# Extent description\n{line}\n\n"
            + "# The Disk Data Base\n#DDB\n\nddb.adapterType = \"lsilogic\"\n";

    /// <summary>A file of ESX; the model gets what is stored.</summary>
    internal static byte[] Cowd(byte[] model, int grainSectors, Func<int, bool> isStored, int sectors = Sectors)
    {
        const int Entries = 4096;
        int grains = (sectors + grainSectors - 1) / grainSectors, tables = (grains + Entries - 1) / Entries;
        var file = new MemoryStream();
        int directorySectors = ((tables * 4) + 511) / 512;
        uint next = (uint)(4 + directorySectors);
        byte[] directory = new byte[directorySectors * 512];
        var parts = new List<(uint Sector, byte[] Bytes)>();
        for (int table = 0; table < tables; table++)
        {
            byte[] entries = new byte[Entries * 4];
            uint place = next;
            next += Entries * 4 / 512;
            bool isUsed = false;
            for (int i = 0; i < Entries && (table * Entries) + i < grains; i++)
            {
                int grain = (table * Entries) + i;
                if (isStored(grain))
                {
                    byte[] data = new byte[grainSectors * 512];
                    new Random(grain).NextBytes(data);
                    parts.Add((next, data));
                    BinaryPrimitives.WriteUInt32LittleEndian(entries.AsSpan(i * 4), next);
                    int start = grain * grainSectors * 512;
                    data.AsSpan(0, Math.Min(data.Length, model.Length - start)).CopyTo(model.AsSpan(start));
                    next += (uint)grainSectors;
                    isUsed = true;
                }
            }
            parts.Add((place, entries));
            BinaryPrimitives.WriteUInt32LittleEndian(directory.AsSpan(table * 4), isUsed ? place : 0);
        }
        byte[] header = new byte[2048];
        "COWD"u8.CopyTo(header);
        foreach ((int offset, uint value) in new (int, uint)[] { (4, 1), (8, 3), (12, (uint)sectors), (16, (uint)grainSectors), (20, 4),
            (24, (uint)tables), (28, next) })
        {
            BinaryPrimitives.WriteUInt32LittleEndian(header.AsSpan(offset), value);
        }
        Put(file, 0, header);
        Put(file, 4, directory);
        parts.ForEach(p => Put(file, p.Sector, p.Bytes));
        return file.ToArray();
    }

    /// <summary>A file of ESXi 6.5 with grains of all kinds, in an order that is not the disk's; the model gets what it reads as.</summary>
    private static byte[] SeSparse(byte[] model)
    {
        const int Grain = 8, Table = 64, Entries = Table * 512 / 8, Directory = 16, Tables = 32, Grains = 512;
        int grains = (Sectors + Grain - 1) / Grain, tables = (grains + Entries - 1) / Entries;
        var file = new MemoryStream();
        Span<ulong> fields = stackalloc ulong[26];
        (fields[0], fields[1], fields[2], fields[3], fields[4]) = (0xCAFEBABE, 0x2_0000_0001, Sectors, Grain, Table);
        (fields[10], fields[11], fields[12], fields[13], fields[14], fields[15]) = (1, 1, 2, 1, 3, 4);
        (fields[16], fields[17], fields[18], fields[19]) = (Directory, 8, Tables, (ulong)(tables * Table));
        (fields[20], fields[21], fields[22], fields[23], fields[24], fields[25]) = (400, 8, 410, 8, Grains, 100_000);
        Put(file, 0, Bytes(fields, 512));
        Put(file, 1, Bytes([0xCAFECAFE, 0, 0, 0], 512));
        ulong[] directory = new ulong[8 * 64];
        for (int table = 0; table < tables; table++)
        {
            directory[table] = 0x1000_0000_0000_0000ul | (uint)(tables - 1 - table); // not in order
            ulong[] entries = new ulong[Entries];
            for (int i = 0; i < Entries && (table * Entries) + i < grains; i++)
            {
                int grain = (table * Entries) + i, start = grain * Grain * 512, length = Math.Min(Grain * 512, model.Length - start);
                ulong index = (ulong)(((grain * 7) + 3) % 1300);
                entries[i] = (grain % 5) switch
                {
                    0 => 0,
                    1 => 0x1000_0000_0000_0000,
                    2 => 0x2000_0000_0000_0000,
                    _ => 0x3000_0000_0000_0000 | ((index & 0xFFF) << 48) | (index >> 12),
                };
                if (grain % 5 is 1 or 2)
                {
                    model.AsSpan(start, length).Clear();
                }
                else if (grain % 5 > 2)
                {
                    byte[] data = new byte[Grain * 512];
                    new Random((int)index).NextBytes(data);
                    Put(file, Grains + ((long)index * Grain), data);
                    data.AsSpan(0, length).CopyTo(model.AsSpan(start));
                }
            }
            Put(file, Tables + ((tables - 1 - table) * Table), Bytes(entries, Table * 512));
        }
        Put(file, Directory, Bytes(directory, 8 * 512));
        return file.ToArray();

        static byte[] Bytes(ReadOnlySpan<ulong> values, int length)
        {
            byte[] bytes = new byte[length];
            for (int i = 0; i < values.Length; i++)
            {
                BinaryPrimitives.WriteUInt64LittleEndian(bytes.AsSpan(i * 8), values[i]);
            }
            return bytes;
        }
    }

    private static void Put(MemoryStream file, long sector, byte[] bytes)
    {
        file.Position = sector * 512;
        file.Write(bytes);
    }

    private async Task<byte[]> WriteBaseAsync(string type, string extent)
    {
        byte[] contents = new byte[Sectors * 512];
        new Random(1).NextBytes(contents);
        await File.WriteAllBytesAsync(_folder["base-flat.vmdk"], contents);
        await File.WriteAllTextAsync(_folder["base.vmdk"],
            Descriptor(type, $"RW {Sectors} {extent} \"base-flat.vmdk\"", "22222222", "ffffffff", null), Encoding.UTF8);
        string text = await File.ReadAllTextAsync(_folder["base.vmdk"]);
        await File.WriteAllTextAsync(_folder["base.vmdk"], text, new UTF8Encoding(false));
        return contents;
    }

    private async Task RequireAsync(byte[] model)
    {
        await using (BlockNode disk = await Images.OpenAsync(_folder["a.vmdk"]))
        {
            byte[] read = new byte[disk.Length];
            await disk.ReadAsync(0, read);
            DiskFormat.Same(model, read);
            Assert.Equal(0, (await disk.As<ICheckable>()!.CheckAsync(null, CancellationToken.None)).Corruptions);
        }
        await File.WriteAllBytesAsync(_folder["model.raw"], model);
        await Programs.CompareAsync(_folder["model.raw"], "raw", _folder["a.vmdk"], "vmdk");
    }
}
