using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Options;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Qcow2;

/// <summary>
/// Everything that can be done to an image, in any order and without closing it in between: after each step the open image is checked, and
/// now and then read whole, its snapshots too. The seed stands in the test's name.
/// </summary>
public sealed class Qcow2SessionTests
{
    private const int Steps = 60, MostSnapshots = 3, MostBytes = 3 << 20;

    public static TheoryData<string, int> Cases()
    {
        var data = new TheoryData<string, int>();
        int first = int.TryParse(Environment.GetEnvironmentVariable("DISKIMAGE_TEST_SEED"), out int given) ? given : 1;
        foreach (string shape in new[]
        {
            "cluster_size=512,refcount_bits=64", "cluster_size=512,lazy_refcounts=on", "cluster_size=4k", "cluster_size=2k,compat=0.10",
            "cluster_size=16k,extended_l2=on",
            "cluster_size=64k,refcount_bits=8",
            "cluster_size=4k,backing_file=below,backing_fmt=raw",
            "cluster_size=16k,extended_l2=on,backing_file=below,backing_fmt=raw",
        })
        {
            foreach (int seed in Enumerable.Range(first, 5))
            {
                data.Add(shape, seed);
            }
        }
        return data;
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public async Task Any_order_of_changes_leaves_a_sound_image(string options, int seed)
    {
        var random = new Random(seed);
        bool hasBacking = options.Contains("below", StringComparison.Ordinal);
        bool isVersion2 = options.Contains("0.10", StringComparison.Ordinal);
        byte[] twin = new byte[random.Next(1, MostBytes / 1024) * 1024], below = [];
        if (hasBacking)
        {
            below = new byte[MostBytes / 2];
            random.NextBytes(below);
            below.AsSpan(0, Math.Min(below.Length, twin.Length)).CopyTo(twin);
        }
        var file = new MemoryNode(await MemoryDisk.NewAsync($"size={twin.Length},{options}"));
        string caches = seed % 2 == 0 ? "l2-cache-size=0,refcount-cache-size=0" : "";
        var snapshots = new Dictionary<string, byte[]>(StringComparer.Ordinal);
        var done = new List<string>();
        BlockNode disk = await MemoryDisk.OpenAsync(file, below, caches);
        try
        {
            for (int step = 0; step < Steps; step++)
            {
                int action = random.Next(20);
                done.Add($"{action}");
                switch (action)
                {
                    case < 7:
                        byte[] data = new byte[random.Next(1, Math.Min(twin.Length, 200_000) + 1)];
                        int at = random.Next(twin.Length - data.Length + 1);
                        if (action < 5)
                        {
                            Array.Fill(data, (byte)random.Next(256));
                        }
                        await (action < 5 ? disk.WriteAsync(at, data) : disk.WriteZeroesAsync(at, data.Length));
                        data.CopyTo(twin, at);
                        break;
                    case < 9:
                        int start = random.Next(twin.Length);
                        await disk.DiscardAsync(start, random.Next(twin.Length - start + 1));
                        await disk.ReadAsync(0, twin); // zeroes or as before: what counts is that it stays so
                        break;
                    case < 11 when snapshots.Count < MostSnapshots:
                        snapshots.Add(
                            (await ((ISnapshots)disk).CreateSnapshotAsync(
                                $"s{step}", DateTimeOffset.UnixEpoch, CancellationToken.None)).Name,
                            (byte[])twin.Clone());
                        break;
                    case < 12 when snapshots.Count > 0:
                        string restored = snapshots.Keys.ElementAt(random.Next(snapshots.Count));
                        _ = await ((ISnapshots)disk).RestoreSnapshotAsync(restored, CancellationToken.None);
                        twin = (byte[])snapshots[restored].Clone();
                        break;
                    case < 14 when snapshots.Count > 0:
                        string deleted = snapshots.Keys.ElementAt(random.Next(snapshots.Count));
                        _ = await ((ISnapshots)disk).DeleteSnapshotAsync(deleted, CancellationToken.None);
                        snapshots.Remove(deleted);
                        break;
                    case < 16 when !(isVersion2 && snapshots.Count > 0):
                        int size = random.Next(1, MostBytes / 512) * 512;
                        PreallocationMode mode = size > twin.Length && !hasBacking
                            ? (PreallocationMode)random.Next(3)
                            : PreallocationMode.Off;
                        await disk.ResizeAsync(size, mode);
                        Array.Resize(ref twin, size);
                        break;
                    case 16:
                        _ = await ((ICompactable)disk).CompactAsync(null, CancellationToken.None);
                        break;
                    case 17 when !isVersion2:
                        var driver = (IAmendable)Images.Registry.Format("qcow2");
                        await driver.AmendAsync(
                            disk,
                            driver.AmendOptions.Bind(OptionSchema.Split($"refcount_bits={8 << random.Next(4)}")),
                            null,
                            CancellationToken.None);
                        break;
                    case 18:
                        Assert.Equal(
                            0, (await ((IRepairable)disk).RepairAsync(RepairMode.All, null, CancellationToken.None)).CorruptionsFixed);
                        break;
                    default:
                        await disk.DisposeAsync();
                        disk = await MemoryDisk.OpenAsync(file, below, caches);
                        break;
                }
                CheckReport report = await ((ICheckable)disk).CheckAsync(null, CancellationToken.None);
                Assert.True(
                    report is { Corruptions: 0, Leaks: 0, CheckErrors: 0 },
                    $"{options}, seed {seed}, after {string.Join(' ', done)}: {string.Join("; ", report.Findings.Take(3))}");
                if (step % 5 == 0 || step == Steps - 1)
                {
                    await SameAsync(disk, twin, $"{options}, seed {seed}, after {string.Join(' ', done)}");
                    foreach ((string name, byte[] then) in snapshots)
                    {
                        await using BlockNode view = await ((ISnapshots)disk).OpenSnapshotAsync(name, CancellationToken.None);
                        await SameAsync(view, then, $"{options}, seed {seed}, after {string.Join(' ', done)}: snapshot {name}");
                    }
                }
            }
        }
        finally
        {
            await disk.DisposeAsync();
        }
    }

    private static async Task SameAsync(BlockNode disk, byte[] expected, string what)
    {
        byte[] now = new byte[disk.Length];
        await disk.ReadAsync(0, now);
        int at = now.AsSpan().CommonPrefixLength(expected);
        Assert.True(now.Length == expected.Length && at == now.Length, $"{what}: {now.Length} of {expected.Length} bytes, differs at {at}");
    }
}
