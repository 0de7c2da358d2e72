using System.Text.Json;
using DiskImage.Block;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Oracles;

/// <summary>Internal snapshots, interchanged with qemu-img in both directions.</summary>
public sealed class Qcow2SnapshotTests
{
    public static TheoryData<string, int> Shapes()
    {
        var data = new TheoryData<string, int>();
        foreach (string options in new[]
        {
            "", "compat=0.10", "cluster_size=512", "cluster_size=4k", "refcount_bits=8,cluster_size=1k", "refcount_bits=64",
            "cluster_size=2M",
        })
        {
            foreach (int seed in new[] { 1, 2 })
            {
                data.Add(options, seed);
            }
        }
        return data;
    }

    [OracleTheory]
    [MemberData(nameof(Shapes))]
    public async Task Random_snapshots_by_both_programs_keep_every_state(string options, int seed)
    {
        const int Size = 3 << 20;
        using var folder = new TestFolder();
        string path = folder["a.qcow2"];
        var random = new Random(seed);
        await Images.MakeRawAsync(folder["a.raw"], Size, seed, unit: 8192);
        await Images.ConvertAsync(folder["a.raw"], "raw", path, "qcow2", options, new() { Compress = seed == 2 });
        byte[] now = await File.ReadAllBytesAsync(folder["a.raw"]);
        var kept = new Dictionary<string, byte[]>(StringComparer.Ordinal);
        for (int step = 0; step < 14; step++)
        {
            string name = $"s{step}";
            string? old = kept.Count > 0 ? kept.Keys.ElementAt(random.Next(kept.Count)) : null;
            bool byQemu = random.Next(2) == 0;
            switch (random.Next(4))
            {
                case 0 when old is not null:
                    await (byQemu ? Programs.QemuImgAsync("snapshot", "-a", old, path)
                        : OnDiskAsync(path, d => d.RestoreSnapshotAsync(old, CancellationToken.None)));
                    now = [.. kept[old]];
                    break;
                case 1 when old is not null:
                    await (byQemu ? Programs.QemuImgAsync("snapshot", "-d", old, path)
                        : OnDiskAsync(path, d => d.DeleteSnapshotAsync(old, CancellationToken.None)));
                    kept.Remove(old);
                    break;
                default:
                    await (byQemu ? Programs.QemuImgAsync("snapshot", "-c", name, path)
                        : OnDiskAsync(path, d => d.CreateSnapshotAsync(name, DateTimeOffset.UtcNow, CancellationToken.None)));
                    kept[name] = [.. now];
                    break;
            }
            await Programs.CheckAsync(path);
            await using BlockNode disk = await Images.OpenAsync(path, writable: true);
            for (int i = random.Next(5); i > 0; i--)
            {
                byte[] data = new byte[random.Next(1, 60_000)];
                random.NextBytes(data);
                int at = random.Next(Size - data.Length);
                await disk.WriteAsync(at, data);
                data.CopyTo(now, at);
            }
        }
        await Programs.CheckAsync(path);
        await File.WriteAllBytesAsync(folder["now.raw"], now);
        await Programs.CompareAsync(folder["now.raw"], "raw", path, "qcow2");
        await using BlockNode final = await Images.OpenAsync(path);
        foreach ((string name, byte[] expected) in kept)
        {
            await using BlockNode view = await ((ISnapshots)final).OpenSnapshotAsync(name, CancellationToken.None);
            byte[] got = new byte[view.Length];
            await view.ReadAsync(0, got);
            Assert.True(expected.AsSpan().SequenceEqual(got), $"seed {seed}: snapshot {name} reads otherwise");
        }
        IReadOnlyList<DiskSnapshot> ours = await ((ISnapshots)final).GetSnapshotsAsync(CancellationToken.None);
        using JsonDocument info = JsonDocument.Parse(await Programs.QemuImgAsync("info", "--output=json", path));
        string[] theirs = info.RootElement.TryGetProperty("snapshots", out JsonElement list)
            ? [.. list.EnumerateArray().Select(s => $"{s.GetProperty("id").GetString()} {s.GetProperty("name").GetString()} "
                + $"{s.GetProperty("date-sec").GetInt64()} {s.GetProperty("vm-state-size").GetInt64()}")]
            : [];
        Assert.Equal(theirs, ours.Select(s => $"{s.Id} {s.Name} {s.Date.ToUnixTimeSeconds()} {s.VmStateSize}").ToArray());
    }

    [OracleFact]
    public async Task One_bit_refcounts_refuse_a_snapshot_and_the_image_stays_clean()
    {
        using var folder = new TestFolder();
        await Images.MakeRawAsync(folder["a.raw"], 1 << 20, 1);
        await Images.ConvertAsync(folder["a.raw"], "raw", folder["a.qcow2"], "qcow2", "refcount_bits=1");
        var error = await Assert.ThrowsAsync<DiskImageException>(
            () => OnDiskAsync(folder["a.qcow2"], d => d.CreateSnapshotAsync("x", DateTimeOffset.UtcNow, CancellationToken.None)));
        Assert.Equal(DiskImageErrorKind.OutOfRange, error.Kind);
        await Programs.CheckAsync(folder["a.qcow2"]);
        await Programs.CompareAsync(folder["a.raw"], "raw", folder["a.qcow2"], "qcow2");
    }

    private static async Task<string> OnDiskAsync(string path, Func<ISnapshots, ValueTask<DiskSnapshot>> change)
    {
        await using BlockNode disk = await Images.OpenAsync(path, writable: true);
        return (await change((ISnapshots)disk)).Id;
    }
}
