using System.Buffers.Binary;
using DiskImage.Block;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Qed;

/// <summary>Check, repair, compaction, crashes and hostile images, in memory.</summary>
public sealed class QedStructureTests
{
    private const int Cluster = 4096, FirstTable = 2 * Cluster, Sectors = 2048;

    private static readonly DiskFormat s_qed = new("qed");

    /// <summary>Tables of one cluster and of more: a table of more may find no gap that holds it.</summary>
    [Theory]
    [InlineData(1, 1)]
    [InlineData(4, 2)]
    [InlineData(16, 3)]
    public async Task Compacting_drops_zeroes_closes_every_gap_and_keeps_the_rest(int table, int seed)
    {
        int span = Cluster * table / 8 * Cluster, spans = 4;
        MemoryNode file = await s_qed.CreateAsync($"size={(long)span * spans},cluster_size=4k,table_size={table}");
        var random = new Random(seed);
        var model = new Dictionary<long, byte[]>();
        await using (BlockNode disk = await s_qed.OpenAsync(file))
        {
            for (int i = 0; i < 160; i++)
            {
                long at = ((random.Next(spans) * (long)(span / Cluster)) + random.Next(60)) * Cluster;
                byte[] data = new byte[Cluster];
                random.NextBytes(data);
                model[at] = data;
                await disk.WriteAsync(at, data);
            }
            foreach (long at in model.Keys.Where(_ => random.Next(3) == 0).ToArray())
            {
                model[at] = new byte[Cluster];
                await disk.WriteAsync(at, model[at]);
            }
            foreach (long at in model.Keys.Where(k => k < span).ToArray()) // a whole table becomes needless
            {
                model[at] = new byte[Cluster];
                await disk.WriteAsync(at, model[at]);
            }
            long before = file.Length, gained = await disk.As<ICompactable>()!.CompactAsync(null, CancellationToken.None);
            Assert.Equal(before - file.Length, gained);
            int data2 = model.Values.Count(d => d.AsSpan().ContainsAnyExcept((byte)0));
            int tables = model.Where(m => m.Value.AsSpan().ContainsAnyExcept((byte)0)).Select(m => m.Key / span).Distinct().Count();
            Assert.Equal((1 + table + data2 + (tables * table)) * (long)Cluster, file.Length);
        }
        Assert.Empty((await s_qed.CheckAsync(file.ToArray())).Findings);
        await using BlockNode again = await s_qed.OpenAsync(file);
        foreach ((long at, byte[] data) in model)
        {
            byte[] read = new byte[Cluster];
            await again.ReadAsync(at, read);
            Assert.True(data.AsSpan().SequenceEqual(read), $"at {at}");
        }
    }

    /// <summary>Where (0 L1, 1 L2), which entry, what it becomes (null: the same as the entry after it), what is found.</summary>
    public static TheoryData<int, int, ulong?, string> Damage() => new()
    {
        { 1, 3, 1000 * Cluster, "OutOfFile" },
        { 1, 3, (5 * Cluster) + 512, "Misaligned" },
        { 1, 3, 0, "Leak" },
        { 1, 3, null, "Overlap" },
        { 1, 3, Cluster, "Overlap" }, // the L1 table
        { 1, 3, FirstTable, "Overlap" }, // an L2 table
        { 0, 0, 1000 * Cluster, "OutOfFile" },
        { 0, 0, FirstTable + 8, "Misaligned" },
        { 0, 0, null, "Overlap" },
        { 0, 1, 0, "Leak" },
        { 0, 0, ulong.MaxValue - 4095, "OutOfFile" },
        { 1, 0, 1UL << 63, "OutOfFile" },
    };

    [Theory]
    [MemberData(nameof(Damage))]
    public async Task What_is_damaged_is_found_refused_and_repaired_and_the_rest_reads_as_before(
        int where, int entry, ulong? value, string kind)
    {
        byte[] contents = new byte[3 << 20]; // two L2 tables
        new Random(4).NextBytes(contents);
        contents.AsSpan(600 * Cluster, 50 * Cluster).Clear();
        byte[] image = await s_qed.FilledAsync($"size={contents.Length},cluster_size=4k,table_size=1", contents);
        int l2 = (int)BinaryPrimitives.ReadUInt64LittleEndian(image.AsSpan(Cluster));
        Assert.Equal(FirstTable, l2);
        int at = (where == 0 ? Cluster : l2) + (entry * 8);
        byte[] next = image[(at + 8)..(at + 16)];
        BinaryPrimitives.WriteUInt64LittleEndian(image.AsSpan(at), value ?? BinaryPrimitives.ReadUInt64LittleEndian(next));
        CheckReport report = await s_qed.CheckAsync(image);
        Assert.Contains(report.Findings, f => f.Kind.Equals(kind, StringComparison.Ordinal));
        if (!kind.Equals("Leak", StringComparison.Ordinal))
        {
            await Assert.ThrowsAsync<DiskImageException>(async () => await s_qed.OpenAsync(new MemoryNode((byte[])image.Clone())));
        }
        byte[]? before = null;
        try
        {
            before = await s_qed.ReadAsync(image);
        }
        catch (DiskImageException)
        {
            // what leads out of the file is not read
        }
        var damaged = new MemoryNode((byte[])image.Clone());
        await using (BlockNode disk = await s_qed.OpenAsync(damaged, forRepair: true))
        {
            CheckReport repaired = await disk.As<IRepairable>()!.RepairAsync(RepairMode.All, null, CancellationToken.None);
            Assert.Equal((0, 0, 0), (repaired.Corruptions, repaired.Leaks, repaired.CheckErrors));
        }
        byte[] bytes = damaged.ToArray();
        Assert.Empty((await s_qed.CheckAsync(bytes)).Findings);
        byte[] read = await s_qed.ReadAsync(bytes);
        if (before is not null)
        {
            Assert.True(before.AsSpan().SequenceEqual(read), "the repair changed what could be read");
        }
        int lost = where == 0 ? 512 * Cluster : Cluster, start = entry * lost;
        Assert.True(contents.AsSpan(0, start).SequenceEqual(read.AsSpan(0, start)));
        Assert.True(
            contents.AsSpan(Math.Min(start + lost, contents.Length)).SequenceEqual(read.AsSpan(Math.Min(start + lost, contents.Length))));
    }

    [OracleTheory]
    [InlineData(1)]
    [InlineData(2)]
    public async Task What_we_repaired_qemu_finds_clean(int seed)
    {
        byte[] contents = new byte[1 << 20];
        new Random(4).NextBytes(contents);
        byte[] image = await s_qed.FilledAsync($"size={contents.Length},cluster_size=4k,table_size=2", contents);
        var random = new Random(seed);
        for (int i = 0; i < 12; i++)
        {
            ulong value = (ulong)random.Next(image.Length / Cluster * 2) * Cluster;
            BinaryPrimitives.WriteUInt64LittleEndian(image.AsSpan((3 * Cluster) + (random.Next(256) * 8)), value);
        }
        var damaged = new MemoryNode(image);
        await using (BlockNode disk = await s_qed.OpenAsync(damaged, forRepair: true))
        {
            _ = await disk.As<IRepairable>()!.RepairAsync(RepairMode.All, null, CancellationToken.None);
        }
        using var folder = new TestFolder();
        await File.WriteAllBytesAsync(folder["a.qed"], damaged.ToArray());
        await Programs.CheckAsync(folder["a.qed"], "qed");
        await File.WriteAllBytesAsync(folder["a.raw"], await s_qed.ReadAsync(damaged.ToArray()));
        await Programs.CompareAsync(folder["a.raw"], "raw", folder["a.qed"], "qed");
    }

    [Theory]
    [InlineData(false, 1)]
    [InlineData(true, 2)]
    [InlineData(false, 3)]
    public async Task A_crash_leaks_at_most(bool overBacking, int seed)
    {
        int[] tags = [.. Enumerable.Range(0, Sectors).Select(s => overBacking && s < Sectors - 300 ? 1_000_000 + s : 0)];
        byte[]? backing = overBacking ? [.. tags.Take(Sectors - 300).SelectMany((tag, sector) => SectorModel.Data(sector, 1, tag))] : null;
        string options = $"size={Sectors * 512},cluster_size=4k,table_size={seed}{(overBacking ? ",backing_file=base,backing_fmt=raw" : "")}";
        byte[] image = (await s_qed.CreateAsync(options.Replace("table_size=3", "table_size=4", StringComparison.Ordinal))).ToArray();
        List<GuestOperation> operations = GuestOperation.Sequence(
            seed, Sectors, 80, 40, GuestAction.Write, GuestAction.Write, GuestAction.WriteZeroes, GuestAction.Discard, GuestAction.Flush);
        await s_qed.CrashAsync(
            image,
            backing,
            tags,
            operations,
            $"seed {seed}",
            async disk => _ = await disk.As<ICompactable>()!.CompactAsync(null, CancellationToken.None));
    }

    [Theory]
    [InlineData(0, 0u, DiskImageErrorKind.InvalidFormat)]
    [InlineData(4, 0u, DiskImageErrorKind.Corrupt)]
    [InlineData(4, 2048u, DiskImageErrorKind.Corrupt)]
    [InlineData(4, 12288u, DiskImageErrorKind.Corrupt)]
    [InlineData(4, 0x8000000u, DiskImageErrorKind.Corrupt)]
    [InlineData(8, 0u, DiskImageErrorKind.Corrupt)]
    [InlineData(8, 3u, DiskImageErrorKind.Corrupt)]
    [InlineData(8, 32u, DiskImageErrorKind.Corrupt)]
    [InlineData(12, 0u, DiskImageErrorKind.Corrupt)]
    [InlineData(12, 0xFFFFFFFFu, DiskImageErrorKind.Corrupt)]
    [InlineData(16, 8u, DiskImageErrorKind.Unsupported)]
    [InlineData(20, 1u, DiskImageErrorKind.Unsupported)]
    [InlineData(16, 1u, DiskImageErrorKind.Corrupt)] // a backing file without a name
    [InlineData(40, 0u, DiskImageErrorKind.Corrupt)]
    [InlineData(40, 4097u, DiskImageErrorKind.Corrupt)]
    [InlineData(44, 0xFFFFFFFFu, DiskImageErrorKind.Corrupt)]
    [InlineData(48, 511u, DiskImageErrorKind.Corrupt)]
    [InlineData(52, 0x7FFFFFFFu, DiskImageErrorKind.Corrupt)]
    [InlineData(52, 0xFFFFFFFFu, DiskImageErrorKind.Corrupt)]
    public async Task A_header_that_cannot_be_is_refused(int offset, uint value, DiskImageErrorKind kind)
        => await s_qed.RefusesAsync((await s_qed.CreateAsync("size=1M,cluster_size=4k,table_size=1")).ToArray(), offset, value, kind);

    [Fact]
    public async Task Damage_of_any_kind_ends_in_an_error_or_none()
    {
        byte[] contents = new byte[(3 << 20) + 512];
        new Random(1).NextBytes(contents);
        byte[] image = await s_qed.FilledAsync($"size={contents.Length},cluster_size=4k,table_size=1", contents);
        await s_qed.DamageAsync(
            image, [(0, 64), (Cluster, 64), (FirstTable, 256), (FirstTable, 4096), (0, image.Length)], first: 1, rounds: 250);
    }
}
