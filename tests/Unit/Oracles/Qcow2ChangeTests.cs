using System.Text.Json;
using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Graph;
using DiskImage.Jobs;
using DiskImage.Options;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Oracles;

/// <summary>Random guest work and changes of the whole image, option by option, judged by qemu-img and a twin in memory.</summary>
public sealed class Qcow2ChangeTests
{
    public static TheoryData<string, int> Matrix()
    {
        var data = new TheoryData<string, int>();
        string[] shapes =
        [
            "", "compat=0.10", "cluster_size=512", "cluster_size=4k,refcount_bits=8", "cluster_size=2M", "cluster_size=1k,refcount_bits=64",
            "extended_l2=on,cluster_size=16k",
            "extended_l2=on",
            "extended_l2=on,cluster_size=128k,refcount_bits=32",
            "lazy_refcounts=on",
            "refcount_bits=2",
        ];
        foreach (string shape in shapes)
        {
            for (int seed = 0; seed < 4; seed++)
            {
                data.Add(shape, seed);
            }
        }
        return data;
    }

    [OracleTheory]
    [MemberData(nameof(Matrix))]
    public async Task Random_work_reads_back_and_checks_clean(string options, int seed)
    {
        using var folder = new TestFolder();
        var random = new Random(seed);
        long size = (2 << 20) + (random.Next(100) * 512);
        bool hasBacking = seed % 2 == 1;
        byte[] twin = new byte[size];
        string path = folder["a.qcow2"];
        if (hasBacking)
        {
            await Images.MakeRawAsync(folder["base.raw"], 1 << 20, seed, unit: 8192);
            (await File.ReadAllBytesAsync(folder["base.raw"])).CopyTo(twin, 0);
        }
        string backing = hasBacking ? ",backing_file=base.raw,backing_fmt=raw" : "";
        await Images.CreateAsync(path, "qcow2", $"size={size}{(options.Length > 0 ? "," : "")}{options}{backing}");
        for (int round = 0; round < 4; round++)
        {
            BlockNode disk = await Images.OpenAsync(path, writable: true);
            await using (disk)
            {
                for (int i = 0; i < 40; i++)
                {
                    await StepAsync(disk, twin, random);
                }
                if (round == 2)
                {
                    twin = await ResizeAsync(disk, twin, random, options.Contains("0.10", StringComparison.Ordinal));
                }
            }
            await Programs.CheckAsync(path);
            await File.WriteAllBytesAsync(folder["twin.raw"], twin);
            await Programs.CompareAsync(folder["twin.raw"], "raw", path, "qcow2");
            await using BlockNode again = await Images.OpenAsync(path);
            byte[] got = new byte[twin.Length];
            await again.ReadAsync(0, got);
            Assert.True(
                twin.AsSpan().SequenceEqual(got), $"seed {seed}, {options}: reads otherwise at {twin.AsSpan().CommonPrefixLength(got)}");
            CheckReport report = await ((ICheckable)again).CheckAsync(null, CancellationToken.None);
            Assert.True(report.Findings.Count == 0, string.Join("\n", report.Findings));
        }
    }

    private static async Task StepAsync(BlockNode disk, byte[] twin, Random random)
    {
        int length = random.Next(4) == 0 ? random.Next(1, 300_000) : random.Next(1, 9_000);
        int at = random.Next(twin.Length - length);
        switch (random.Next(8))
        {
            case 0 or 1:
                await disk.WriteZeroesAsync(at, length, random.Next(2) == 0 ? ZeroWriteMode.MayUnmap : ZeroWriteMode.KeepAllocated);
                twin.AsSpan(at, length).Clear();
                break;
            case 2:
                await disk.DiscardAsync(at, length);
                await disk.ReadAsync(at, twin.AsMemory(at, length)); // undefined, but it must stay what it reads as now
                break;
            case 3:
                await disk.FlushAsync();
                break;
            default:
                byte[] data = new byte[length];
                random.NextBytes(data);
                await disk.WriteAsync(at, data);
                data.CopyTo(twin, at);
                break;
        }
    }

    private static async Task<byte[]> ResizeAsync(BlockNode disk, byte[] twin, Random random, bool isVersion2)
    {
        int smaller = twin.Length / 2 / 512 * 512, larger = twin.Length + (random.Next(1, 4000) * 512);
        await disk.ResizeAsync(smaller);
        byte[] resized = new byte[larger];
        twin.AsSpan(0, smaller).CopyTo(resized);
        PreallocationMode mode = disk.Child("backing") is null && !isVersion2 ? (PreallocationMode)random.Next(4) : PreallocationMode.Off;
        await disk.ResizeAsync(larger, mode);
        return resized;
    }

    [OracleTheory]
    [InlineData("")]
    [InlineData("cluster_size=512")]
    [InlineData("refcount_bits=1,cluster_size=4k")]
    [InlineData("extended_l2=on")]
    [InlineData("preallocation=full")]
    public async Task Measured_sizes_equal_those_of_qemu(string options)
    {
        using var folder = new TestFolder();
        await Images.MakeRawAsync(folder["a.raw"], (9 << 20) + 1536, 3, unit: 40960);
        await Images.ConvertAsync(folder["a.raw"], "raw", folder["a.qcow2"], "qcow2");
        string[] extra = options.Length == 0 ? [] : ["-o", options];
        foreach (string image in new[] { "a.raw", "a.qcow2" })
        {
            using JsonDocument theirs = JsonDocument.Parse(
                await Programs.QemuImgAsync(["measure", "--output=json", "-O", "qcow2", .. extra, "-f", image[2..], folder[image]]));
            await using BlockNode source = await Images.OpenAsync(folder[image], image[2..]);
            ImageMeasurement ours = await MeasureAsync(options, source);
            Assert.Equal(theirs.RootElement.GetProperty("required").GetInt64(), ours.Required);
            Assert.Equal(theirs.RootElement.GetProperty("fully-allocated").GetInt64(), ours.FullyAllocated);
        }
        using JsonDocument empty = JsonDocument.Parse(
            await Programs.QemuImgAsync(["measure", "--output=json", "-O", "qcow2", .. extra, "--size", "37G"]));
        ImageMeasurement large = await MeasureAsync($"size=37G{(options.Length == 0 ? "" : ",")}{options}", null);
        Assert.Equal(empty.RootElement.GetProperty("required").GetInt64(), large.Required);
        Assert.Equal(empty.RootElement.GetProperty("fully-allocated").GetInt64(), large.FullyAllocated);
    }

    private static ValueTask<ImageMeasurement> MeasureAsync(string options, BlockNode? source)
    {
        FormatDriver driver = Images.Registry.Format("qcow2");
        return ((IMeasurable)driver).MeasureAsync(
            ((ICreatable)driver).CreateOptions.Bind(OptionSchema.Split(options)), source, CancellationToken.None);
    }

    [OracleTheory]
    [InlineData("", 1)]
    [InlineData("cluster_size=4k", 2)]
    [InlineData("extended_l2=on", 3)]
    [InlineData("compat=0.10", 4)]
    public async Task A_chain_is_merged_and_rebased_without_changing_what_it_reads_as(string options, int seed)
    {
        using var folder = new TestFolder();
        var random = new Random(seed);
        string more = options.Length == 0 ? "" : "," + options;
        await Images.MakeRawAsync(folder["base.raw"], 1 << 20, seed, unit: 8192);
        await Images.ConvertAsync(folder["base.raw"], "raw", folder["base.qcow2"], "qcow2", options);
        await Images.MakeRawAsync(folder["other.raw"], 3 << 20, seed + 100, unit: 8192);
        await Images.CreateAsync(folder["mid.qcow2"], "qcow2", $"size={3 << 19},backing_file=base.qcow2,backing_fmt=qcow2{more}");
        await Images.CreateAsync(folder["top.qcow2"], "qcow2", $"size={2 << 20},backing_file=mid.qcow2,backing_fmt=qcow2{more}");
        foreach (string name in new[] { "mid.qcow2", "top.qcow2" })
        {
            await using BlockNode disk = await Images.OpenAsync(folder[name], writable: true);
            byte[] unseen = new byte[disk.Length];
            for (int i = 0; i < 25; i++)
            {
                await StepAsync(disk, unseen, random);
            }
        }
        await Images.ConvertAsync(folder["top.qcow2"], null, folder["expected.raw"], "raw");

        await using (BlockNode top = await Images.OpenAsync(folder["top.qcow2"], writable: true))
        await using (BlockNode other = await Images.OpenAsync(folder["other.raw"], "raw"))
        {
            await new RebaseJob(top, other).RunAsync(null, CancellationToken.None);
            await ((IRebasable)top).SetBackingAsync("other.raw", "raw", other, CancellationToken.None);
        }
        await Programs.CheckAsync(folder["top.qcow2"]);
        await Programs.CompareAsync(folder["expected.raw"], "raw", folder["top.qcow2"], "qcow2");

        await using (BlockNode target = await Images.OpenAsync(folder["other.raw"], "raw", writable: true))
        {
            OpenedImage top = await Images.Opener.OpenAsync(
                new OpenRequest(folder["top.qcow2"]) { Opened = new Dictionary<NodeIdentity, BlockNode> { [target.HolderIdentity()!.Value] = target } },
                CancellationToken.None);
            await using (top)
            {
                await new CommitJob(top.Node, 1, target).RunAsync(null, CancellationToken.None);
            }
        }
        await using (BlockNode top = await Images.OpenAsync(folder["top.qcow2"], writable: true))
        {
            await ((IEmptiable)top).MakeEmptyAsync(CancellationToken.None);
        }
        await Programs.CheckAsync(folder["top.qcow2"]);
        await Programs.CompareAsync(folder["expected.raw"], "raw", folder["top.qcow2"], "qcow2");

        await using (BlockNode top = await Images.OpenAsync(folder["top.qcow2"], writable: true))
        {
            await new RebaseJob(top, null).RunAsync(null, CancellationToken.None);
            await ((IRebasable)top).SetBackingAsync(null, null, null, CancellationToken.None);
        }
        await Programs.CheckAsync(folder["top.qcow2"]);
        await Programs.CompareAsync(folder["expected.raw"], "raw", folder["top.qcow2"], "qcow2");
    }
}
