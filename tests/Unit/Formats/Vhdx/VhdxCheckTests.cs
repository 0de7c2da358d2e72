using System.Buffers.Binary;
using DiskImage.Block;
using DiskImage.Formats.Vhdx;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Vhdx;

/// <summary>Every defect is found as itself, once; what can be repaired is, and then the specification's reader agrees.</summary>
public sealed class VhdxCheckTests
{
    private const int MiB = 1 << 20, Size = 8 * MiB, Bat = 3 * MiB;

    public static TheoryData<string, string, CheckSeverity, bool> Defects() => new()
    {
        { "header 1", "Header", CheckSeverity.Corruption, true },
        { "header 2", "Header", CheckSeverity.Corruption, true },
        { "region table 1", "RegionTable", CheckSeverity.Corruption, true },
        { "region table 2", "RegionTable", CheckSeverity.Corruption, true },
        { "beyond", "Place", CheckSeverity.Corruption, true },
        { "on the log", "Place", CheckSeverity.Corruption, true },
        { "in the header", "Place", CheckSeverity.Corruption, true },
        { "shared", "Overlap", CheckSeverity.Corruption, true },
        { "state 4", "State", CheckSeverity.Corruption, true },
        { "partial", "State", CheckSeverity.Corruption, true },
        { "reserved bits", "Reserved", CheckSeverity.Warning, true },
        { "offset of a zero block", "Reserved", CheckSeverity.Warning, true },
        { "leak", "Leak", CheckSeverity.Leak, true },
        { "tail", "Leak", CheckSeverity.Leak, true },
        { "odd length", "Size", CheckSeverity.Warning, false },
    };

    [Theory]
    [MemberData(nameof(Defects))]
    public async Task A_defect_is_found_and_repaired(string defect, string kind, CheckSeverity severity, bool canRepair)
    {
        byte[] image = await ImageAsync();
        byte[] expected = new VhdxSpecReader(image).Contents();
        byte[] damaged = Damage(image, defect);
        await using (VhdxNode node = await VhdxDisks.OpenAsync(new MemoryNode((byte[])damaged.Clone(), readOnly: true)))
        {
            CheckReport report = await node.CheckAsync(null, CancellationToken.None);
            CheckFinding finding = Assert.Single(report.Findings, f => f.Severity != CheckSeverity.Leak || severity == CheckSeverity.Leak);
            Assert.Equal((kind, severity), (finding.Kind, finding.Severity));
            Assert.Equal(severity == CheckSeverity.Corruption ? 1 : 0, report.Corruptions);
        }
        var file = new MemoryNode((byte[])damaged.Clone());
        await using (VhdxNode node = await VhdxDisks.OpenAsync(file, forRepair: true))
        {
            CheckReport report = await node.RepairAsync(RepairMode.All, null, CancellationToken.None);
            Assert.Equal(severity == CheckSeverity.Corruption ? 1 : 0, report.CorruptionsFixed);
            // what a wrong entry meant may be there
            Assert.Equal(canRepair, report.Findings.All(f => f.Severity == CheckSeverity.Leak && severity != CheckSeverity.Leak));
        }
        if (canRepair)
        {
            byte[] contents = new VhdxSpecReader(file.ToArray(), requireClean: true).Contents();
            Assert.Equal(expected[..MiB], contents[..MiB]);
            if (defect is not ("beyond" or "on the log" or "in the header" or "state 4" or "shared" or "leak"))
            {
                Assert.Equal(expected, contents);
            }
        }
    }

    [Fact]
    public async Task Repairing_leaks_alone_touches_nothing_that_is_damaged()
    {
        byte[] damaged = Damage(await ImageAsync(), "beyond");
        byte[] after = await VhdxDisks.ChangeAsync(damaged, async node =>
        {
            CheckReport report = await node.RepairAsync(RepairMode.Leaks, null, CancellationToken.None);
            Assert.Equal(1, report.Corruptions);
        });
        Assert.Equal(damaged, after);
    }

    [Fact]
    public async Task A_disk_with_a_damaged_BAT_can_be_read_elsewhere_and_not_be_written_to()
    {
        byte[] damaged = Damage(await ImageAsync(), "beyond");
        var file = new MemoryNode((byte[])damaged.Clone());
        await using VhdxNode node = await VhdxDisks.OpenAsync(file);
        await node.ReadAsync(0, new byte[MiB]);
        DiskImageException unreadable = await Assert.ThrowsAsync<DiskImageException>(
            async () => await node.ReadAsync(3 * MiB, new byte[1]));
        Assert.Equal(DiskImageErrorKind.Corrupt, unreadable.Kind);
        DiskImageException refused = await Assert.ThrowsAsync<DiskImageException>(
            async () => await node.WriteAsync(6 * MiB, new byte[] { 1 }));
        Assert.Contains(refused.Wording.Remedies, r => r.Kind == RemedyKind.Repair);
    }

    [Fact]
    public async Task Faults_of_bitmaps_and_locators_are_found()
    {
        byte[] parent = await VhdxDisks.ChangeAsync(
            await VhdxDisks.CreateAsync($"size={Size},block_size=1M"), async n => await n.WriteAsync(0, VhdxDisks.Noise(Size, 1)));
        byte[] child;
        await using (VhdxNode open = await VhdxDisks.OpenAsync(parent))
        {
            child = await VhdxDisks.CreateAsync("backing_file=p.vhdx,block_size=1M", open);
        }
        child = await VhdxDisks.ChangeAsync(child, async n => await n.WriteAsync(MiB + 4096, new byte[512]), parent);
        const int BitmapEntry = Bat + (4096 * 8);
        long bitmap = BinaryPrimitives.ReadInt64LittleEndian(child.AsSpan(BitmapEntry)) & ~7L;
        foreach ((Action<byte[]> damage, string kind) in new (Action<byte[]>, string)[]
        {
            (f => f.AsSpan(BitmapEntry, 8).Clear(), "Bitmap"),
            (f => BinaryPrimitives.WriteInt64LittleEndian(f.AsSpan(BitmapEntry), 900L * MiB | 6), "Bitmap"),
            (f => f[BitmapEntry] = 5, "Bitmap"),
            (f => f.AsSpan((int)bitmap, MiB).Clear(), "Bitmap"),
            (f => f[Find(f, "parent_linkage")] = (byte)'q', "Locator"),
            (ForgetPaths, "Locator"),
        })
        {
            byte[] damaged = (byte[])child.Clone();
            damage(damaged);
            await using VhdxNode node = await VhdxDisks.OpenAsync(damaged);
            CheckReport report = await node.CheckAsync(null, CancellationToken.None);
            Assert.Contains(report.Findings, f => f.Kind.Equals(kind, StringComparison.Ordinal));
        }
    }

    [Fact]
    public async Task A_lost_log_keeps_the_image_shut_until_it_is_repaired_or_the_log_discarded()
    {
        byte[] image = await ImageAsync();
        foreach (int place in new[] { 64 << 10, 128 << 10 })
        {
            Guid.NewGuid().TryWriteBytes(image.AsSpan(place + 48));
            Fix(image, place, 4096);
        }
        DiskImageException lost = await Assert.ThrowsAsync<DiskImageException>(() => VhdxDisks.OpenAsync(image));
        Assert.Equal(DiskImageErrorKind.Corrupt, lost.Kind);
        await using (VhdxNode node = await VhdxDisks.OpenAsync(image, options: "discard_log=on"))
        {
            Assert.Equal("Log", Assert.Single((await node.CheckAsync(null, CancellationToken.None)).Findings).Kind);
        }
        var file = new MemoryNode((byte[])image.Clone());
        await using (VhdxNode node = await VhdxDisks.OpenAsync(file, forRepair: true))
        {
            Assert.Equal(1, (await node.RepairAsync(RepairMode.All, null, CancellationToken.None)).CorruptionsFixed);
        }
        _ = new VhdxSpecReader(file.ToArray(), requireClean: true);
    }

    internal static async Task<byte[]> ImageAsync()
        => await VhdxDisks.ChangeAsync(
            await VhdxDisks.CreateAsync($"size={Size},block_size=1M"), async n => await n.WriteAsync(0, VhdxDisks.Noise(5 * MiB, 1)));

    /// <summary>Writes a structure's checksum anew.</summary>
    internal static void Fix(byte[] file, int at, int length)
        => BinaryPrimitives.WriteUInt32LittleEndian(file.AsSpan(at + 4), VhdxSpecReader.Crc(file.AsSpan(at, length), 4));

    private static void ForgetPaths(byte[] file)
    {
        foreach (string name in new[] { "relative_path", "absolute_win32_path" }) // the latter is there on Windows only
        {
            if (Find(file, name) is >= 0 and var at)
            {
                file[at] = (byte)'q';
            }
        }
    }

    private static int Find(byte[] file, string text) => file.AsSpan().IndexOf(System.Text.Encoding.Unicode.GetBytes(text));

    private static byte[] Damage(byte[] image, string defect)
    {
        byte[] file = (byte[])image.Clone();
        Span<byte> entry = file.AsSpan(Bat + (3 * 8), 8);
        switch (defect)
        {
            case "header 1":
                file[(64 << 10) + 20] ^= 1;
                break;
            case "header 2":
                file[(128 << 10) + 4000] ^= 1;
                break;
            case "region table 1":
                file[(192 << 10) + 20] ^= 1;
                break;
            case "region table 2":
                file[256 << 10] ^= 1;
                break;
            case "beyond":
                BinaryPrimitives.WriteInt64LittleEndian(entry, (5000L * MiB) | 6);
                break;
            case "on the log":
                BinaryPrimitives.WriteInt64LittleEndian(entry, (1L * MiB) | 6);
                break;
            case "in the header":
                BinaryPrimitives.WriteInt64LittleEndian(entry, 6);
                break;
            case "shared":
                file.AsSpan(Bat + (2 * 8), 8).CopyTo(entry);
                break;
            case "state 4":
                entry[0] = 4;
                break;
            case "partial":
                entry[0] = 7;
                break;
            case "reserved bits":
                entry[1] = 1;
                break;
            case "offset of a zero block":
                BinaryPrimitives.WriteInt64LittleEndian(file.AsSpan(Bat + (6 * 8)), (77L * MiB) | 2);
                break;
            case "leak":
                BinaryPrimitives.WriteInt64LittleEndian(entry, 2);
                break;
            case "tail":
                Array.Resize(ref file, file.Length + (3 * MiB));
                break;
            case "odd length":
                Array.Resize(ref file, file.Length + 512);
                break;
        }
        return file;
    }
}
