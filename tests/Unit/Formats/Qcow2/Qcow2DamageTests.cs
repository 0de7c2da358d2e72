using DiskImage.Block;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Qcow2;

/// <summary>
/// Flips, zeroes, duplicates and overwrites entries of every kind of table of images with snapshots, bitmaps and compressed
/// clusters. A check neither fails nor hangs and changes nothing; a repair ends in an image that qemu-img and a reader of its own
/// call clean, and whatever that reader could reach before reads the same. The seed stands in the test's name.
/// </summary>
public sealed class Qcow2DamageTests
{
    private const int Steps = 30, SeedsEach = 12;

    private static readonly TimeSpan s_hangs = TimeSpan.FromMinutes(2);

    private static readonly string[] s_shapes =
    [
        "cluster_size=4096", "cluster_size=512", "cluster_size=1024,compat=0.10", "cluster_size=65536", "cluster_size=512,refcount_bits=1",
        "cluster_size=2048,refcount_bits=64", "cluster_size=16384,extended_l2=on", "cluster_size=1024,refcount_bits=4",
    ];

    public static TheoryData<string, int> Cases()
    {
        var data = new TheoryData<string, int>();
        int first = int.TryParse(Environment.GetEnvironmentVariable("DISKIMAGE_TEST_SEED"), out int given) ? given : 1;
        foreach (string shape in s_shapes)
        {
            foreach (int seed in Enumerable.Range(first, SeedsEach))
            {
                data.Add(shape, seed);
            }
        }
        return data;
    }

    [OracleTheory]
    [MemberData(nameof(Cases))]
    public async Task Repair_ends_clean_and_keeps_what_can_be_reached(string options, int seed)
    {
        using var folder = new TestFolder();
        using var hang = new CancellationTokenSource(s_hangs);
        byte[] image = await MakeAsync(folder, options, seed);
        string what = $"{options}, seed {seed}: {Damage(image, new Random(seed))}";
        var before = new Qcow2SpecReader(image);
        string path = folder["damaged.qcow2"];
        await File.WriteAllBytesAsync(path, image);
        (int judged, string found, _) = await Programs.TryAsync("qemu-img", "check", "-f", "qcow2", path);

        var file = new MemoryNode([.. image]);
        CheckReport left;
        await using (BlockNode disk = await MemoryDisk.OpenAsync(file, forRepair: true))
        {
            CheckReport report = await ((ICheckable)disk).CheckAsync(null, hang.Token);
            Assert.True(judged == 0 || report.Findings.Count > 0, $"{what}: qemu-img finds something, we do not\n{found}");
            Assert.Equal(image, file.ToArray());
            left = await ((IRepairable)disk).RepairAsync(RepairMode.All, null, hang.Token);
        }
        // A compressed cluster that does not decompress is lost and stays so: nothing else would say that its data is not there.
        long lost = left.Findings.Count(f => f.Kind.Equals("CompressedData", StringComparison.Ordinal));
        Assert.True(left is { Leaks: 0, CheckErrors: 0 } && left.Corruptions == lost, $"{what}: left: {string.Join('\n', left.Findings)}");
        await File.WriteAllBytesAsync(path, file.ToArray());
        (judged, found, string errors) = await Programs.TryAsync("qemu-img", "check", "-f", "qcow2", path);
        Assert.True(judged == 0, $"{what}: qemu-img still finds something\n{found}{errors}");
        var after = new Qcow2SpecReader(file.ToArray());
        after.RequireSound(what);
        Unchanged(before.Active, after.Active, what);
        foreach ((string id, _, Qcow2SpecView view) in before.Snapshots)
        {
            Qcow2SpecView? kept = after.Snapshots.FirstOrDefault(s => s.Id == id).View;
            Assert.True(kept is not null
                || what.Contains("the snapshot table", StringComparison.Ordinal), $"{what}: snapshot {id} is gone");
            if (kept is not null)
            {
                Unchanged(view, kept, $"{what}: snapshot {id}");
            }
        }
    }

    private static void Unchanged(Qcow2SpecView before, Qcow2SpecView after, string what)
    {
        for (long unit = 0; unit < before.Units; unit++)
        {
            byte[]? old = before.Read(unit);
            Assert.True(old is null
                || old.AsSpan().SequenceEqual(after.Read(unit)), $"{what}: unit {unit} was {before.KindOf(unit)}, is "
                    + $"{after.KindOf(unit)} and reads otherwise");
        }
    }

    private static async Task<byte[]> MakeAsync(TestFolder folder, string options, int seed)
    {
        string path = folder["whole.qcow2"];
        (Qcow2GuestModel model, string full) = await Qcow2RandomImage.PrepareAsync(folder, options, seed, byQemu: false);
        await Images.CreateAsync(path, "qcow2", full);
        await using (var actor = new OwnActor(path))
        {
            await Qcow2RandomImage.ScriptOf(actor, model, options, seed).RunAsync(Steps);
        }
        byte[] image = await File.ReadAllBytesAsync(path);
        new Qcow2SpecReader(image).RequireSound($"{options}, seed {seed}");
        return image;
    }

    /// <summary>Changes a few entries of tables, each kind of table as likely as any other; says what it did.</summary>
    private static string Damage(byte[] image, Random random)
    {
        var reader = new Qcow2SpecReader(image);
        (long Cluster, string Kind)[][] kinds =
        [
            .. reader.Tables.Select(
                t => (t.Cluster, Kind: string.Join(' ', t.What.Split(' ').Where(w => !char.IsAsciiDigit(w[0]) && w[0] != '\''))))
                .Where(t => t.Kind is not ("the header" or "the bits of bitmap")).GroupBy(
                    t => t.Kind, StringComparer.Ordinal).Select(g => g.ToArray()),
        ];
        var done = new List<string>();
        byte[] original = [.. image];
        while (done.Count == 0 || image.AsSpan().SequenceEqual(original))
        {
            for (int i = random.Next(1, 5); i > 0; i--)
            {
                (long Cluster, string Kind)[] kind = kinds[random.Next(kinds.Length)];
                int at = Entry(kind[random.Next(kind.Length)].Cluster), other = Entry(kind[random.Next(kind.Length)].Cluster);
                string how;
                switch (random.Next(4))
                {
                    case 0:
                        image[at + random.Next(8)] ^= (byte)(1 << random.Next(8));
                        how = "flipped";
                        break;
                    case 1:
                        image.AsSpan(at, 8).Clear();
                        how = "zeroed";
                        break;
                    case 2:
                        image.AsSpan(other, 8).CopyTo(image.AsSpan(at, 8));
                        how = $"copied from {other}";
                        break;
                    default:
                        random.NextBytes(image.AsSpan(at, 8));
                        how = "overwritten";
                        break;
                }
                done.Add($"{at} in {kind[0].Kind} {how}: {Convert.ToHexString(image.AsSpan(at, 8))}");
            }
        }
        return string.Join("; ", done);

        int Entry(long cluster)
        {
            int start = (int)(cluster << reader.ClusterBits), length = Math.Min(reader.ClusterSize, image.Length - start) & ~7;
            int[] used = [.. Enumerable.Range(0, length / 8).Where(i => image.AsSpan(start + (i * 8), 8).ContainsAnyExcept((byte)0))];
            bool isAny = used.Length == 0 || random.Next(4) == 0;
            return start + (8 * (isAny ? random.Next(length / 8) : used[random.Next(used.Length)]));
        }
    }
}
