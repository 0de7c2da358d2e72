using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Graph;
using DiskImage.Options;

namespace DiskImage.Bench;

/// <summary>The comparisons beyond plain conversions: compression, checks, snapshots, small writes, other formats.</summary>
internal static class FeatureScenarios
{
    private const string PackedZstd = "packed-zstd.qcow2", Million = "million.qcow2", MillionTheirs = "million-theirs.qcow2";
    private const int SmallWrites = 50_000, SmallWriteBytes = 4096, SmallWriteStep = 69_632;
    private const long SmallWriteDisk = 8L << 30;

    public static IReadOnlyList<Scenario> All { get; } =
    [
        Compress("zlib", "raw → qcow2 -c zlib", 0.25, "compression_type=zlib", ["-c"]),
        Compress("zlib-workers", "  beside -W -m 16", 0.45, "compression_type=zlib", ["-c", "-W", "-m", "16"]),
        Compress("zstd", "raw → qcow2 -c zstd", 0.3, "compression_type=zstd", ["-c", "-o", "compression_type=zstd"]),
        new(
            "zstd-raw", "zstd qcow2 → raw", 0.6,
            folder => Scenario.ConvertAsync(Path.Combine(folder, PackedZstd), "qcow2", Path.Combine(folder, "ours.raw"), "raw"),
            folder => ["convert", "-f", "qcow2", "-O", "raw", Path.Combine(folder, PackedZstd), Path.Combine(folder, "theirs.raw")],
            "ours.raw",
            "theirs.raw")
        {
            PrepareAsync = folder => Comparison.RunQemuImgAsync(
                ["convert", "-c", "-f", "raw", "-O", "qcow2", "-o", "compression_type=zstd", Path.Combine(
                    folder, Scenario.Raw), Path.Combine(folder, PackedZstd)]),
        },
        Other("vhdx", "raw → vhdx", "vhdx"),
        Other("vpc", "raw → vhd", "vpc"),
        Back("vhdx", "vhdx → raw", "vhdx"),
        Back("vpc", "vhd → raw", "vpc"),
        .. JobScenarios.All,
        new(
            "check",
            "check, 1M clusters",
            0.7,
            CheckAsync,
            folder => ["check", "-f", "qcow2", Path.Combine(folder, Million)],
            null,
            null) { PrepareAsync = MakeMillionAsync },
        new(
            "snapshot",
            "snapshot, 1M clusters",
            1.0,
            SnapshotAsync,
            folder => ["snapshot", "-c", "bench", Path.Combine(folder, MillionTheirs)],
            null,
            null)
        {
            PrepareAsync = MakeMillionAsync,
            AfterAsync = DropSnapshotsAsync,
        },
        new(
            "small-writes", "50,000 writes of 4 KiB", 1.0, SmallWritesAsync,
            folder =>
            [
                "bench", "-f", "qcow2", "-w", "-c", $"{SmallWrites}", "-s", $"{SmallWriteBytes}", "-S", $"{SmallWriteStep}",
                Path.Combine(folder, "theirs.qcow2"),
            ],
            "ours.qcow2",
            "theirs.qcow2")
        {
            BeforeAsync = folder => Comparison.RunQemuImgAsync(
                ["create", "-f", "qcow2", Path.Combine(folder, "theirs.qcow2"), $"{SmallWriteDisk}"]),
        },
    ];

    private static Scenario Compress(string name, string title, double target, string options, string[] theirs)
        => new(
            name, title, target,
            folder => Scenario.ConvertAsync(
                Path.Combine(folder, Scenario.Raw), "raw", Path.Combine(folder, "ours.qcow2"), "qcow2", options, compress: true),
            folder => ["convert", .. theirs, "-f", "raw", "-O", "qcow2", Path.Combine(
                folder, Scenario.Raw), Path.Combine(folder, "theirs.qcow2")],
            "ours.qcow2",
            "theirs.qcow2")
        {
            MostRuns = 5,
        };

    private static Scenario Other(string name, string title, string format)
        => new(
            "raw-" + name, title, 0.75,
            folder => Scenario.ConvertAsync(Path.Combine(folder, Scenario.Raw), "raw", Path.Combine(folder, "ours." + format), format),
            folder => ["convert", "-f", "raw", "-O", format, Path.Combine(folder, Scenario.Raw), Path.Combine(folder, "theirs." + format)],
            "ours." + format,
            "theirs." + format)
        {
            IsPossible = () => BuiltInDrivers.CreateRegistry().Formats.Any(f => f.Name.Equals(format, StringComparison.Ordinal)),
        };

    private static Scenario Back(string name, string title, string format)
        => new(
            name + "-raw", title, 1.0,
            folder => Scenario.ConvertAsync(Path.Combine(folder, "mix." + format), format, Path.Combine(folder, "ours.raw"), "raw"),
            folder => ["convert", "-f", format, "-O", "raw", Path.Combine(folder, "mix." + format), Path.Combine(folder, "theirs.raw")],
            "ours.raw",
            "theirs.raw")
        {
            IsPossible = () => BuiltInDrivers.CreateRegistry().Formats.Any(f => f.Name.Equals(format, StringComparison.Ordinal)),
            PrepareAsync = folder => Comparison.RunQemuImgAsync(
                ["convert", "-f", "raw", "-O", format, Path.Combine(folder, Scenario.Raw), Path.Combine(folder, "mix." + format)]),
            BeforeAsync = RemoveOursAsync, // a vhd has whole cylinders, so it is not compared with the mix
        };

    private static Task RemoveOursAsync(string folder)
    {
        File.Delete(Path.Combine(folder, "ours.raw"));
        return Task.CompletedTask;
    }

    private static async Task MakeMillionAsync(string folder)
    {
        foreach (string name in new[] { Million, MillionTheirs })
        {
            if (!File.Exists(Path.Combine(folder, name)))
            {
                await Comparison.RunQemuImgAsync(
                    ["create", "-f", "qcow2", "-o", "preallocation=metadata", Path.Combine(folder, name), "64G"]);
            }
        }
    }

    private static async Task CheckAsync(string folder)
    {
        await using OpenedImage image = await OpenAsync(Path.Combine(folder, Million), writable: false);
        CheckReport report = await ((ICheckable)image.Node).CheckAsync(null, CancellationToken.None);
        if (report is not { Corruptions: 0, AllocatedClusters: 1 << 20 })
        {
            throw new InvalidOperationException($"Not a sound image of a million clusters: {report}");
        }
    }

    private static async Task SnapshotAsync(string folder)
    {
        await using OpenedImage image = await OpenAsync(Path.Combine(folder, Million), writable: true);
        _ = await ((ISnapshots)image.Node).CreateSnapshotAsync("bench", DateTimeOffset.UtcNow, CancellationToken.None);
    }

    private static async Task DropSnapshotsAsync(string folder)
    {
        foreach (string name in new[] { Million, MillionTheirs })
        {
            await Comparison.RunQemuImgAsync(["snapshot", "-d", "bench", Path.Combine(folder, name)]);
        }
    }

    private static async Task SmallWritesAsync(string folder)
    {
        string path = Path.Combine(folder, "ours.qcow2");
        DriverRegistry registry = BuiltInDrivers.CreateRegistry();
        FormatDriver format = registry.Format("qcow2");
        object options = ((ICreatable)format).CreateOptions.Bind(OptionSchema.Split($"size={SmallWriteDisk}"));
        var creator = new ImageCreator(new ImageOpener(registry, OpenPolicy.Default));
        await using (
            NewImage made = await creator.CreateAsync(path, format, options, replace: false, openOptions: null, CancellationToken.None))
        {
            await made.CompleteAsync(durable: false, CancellationToken.None);
        }
        await using OpenedImage image = await OpenAsync(path, writable: true);
        int next = 0;
        await Task.WhenAll(Enumerable.Range(0, Environment.ProcessorCount).Select(worker => Task.Run(async () =>
        {
            var random = new Random(worker);
            byte[] data = new byte[SmallWriteBytes];
            random.NextBytes(data);
            while (Interlocked.Increment(ref next) <= SmallWrites)
            {
                await image.Node.WriteAsync(random.NextInt64(SmallWriteDisk / SmallWriteBytes) * SmallWriteBytes, data);
            }
        })));
    }

    private static ValueTask<OpenedImage> OpenAsync(string path, bool writable)
        => new ImageOpener(
            BuiltInDrivers.CreateRegistry(),
            OpenPolicy.Default).OpenAsync(new OpenRequest(path) { Format = "qcow2", Writable = writable }, CancellationToken.None);
}
