using System.Text.Json;
using DiskImage.Block;
using DiskImage.Jobs;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Oracles;

/// <summary>
/// Our extents are those of <c>qemu-img map --output=json</c>: start, length, depth, present, zero, data and host offset.
/// </summary>
public sealed class MapTests
{
    private const int Size = (6 << 20) + 1536;

    [OracleTheory]
    [InlineData("")]
    [InlineData("compat=0.10")]
    [InlineData("cluster_size=512")]
    [InlineData("cluster_size=2M")]
    [InlineData("preallocation=metadata")]
    [InlineData("preallocation=falloc")]
    [InlineData("preallocation=full")]
    [InlineData("preallocation=metadata,cluster_size=4k")]
    public async Task Of_what_qemu_made(string options)
    {
        using var folder = new TestFolder();
        await Images.MakeRawAsync(folder["a.raw"], Size, seed: 11);
        string[] with = options.Length == 0 ? [] : ["-o", options];
        await Programs.QemuImgAsync(["create", "-q", "-f", "qcow2", .. with, folder["empty.qcow2"], $"{Size}"]);
        await AgreeAsync(folder["empty.qcow2"], "qcow2");
        await Programs.QemuImgAsync(["convert", "-f", "raw", "-O", "qcow2", .. with, folder["a.raw"], folder["b.qcow2"]]);
        await AgreeAsync(folder["b.qcow2"], "qcow2");
        await Programs.RunAsync(
            "qemu-io",
            "-f",
            "qcow2",
            "-c",
            "write -P 1 100k 300k",
            "-c",
            "write -z 1M 100k",
            "-c",
            "write -zu 2M 512k",
            "-c",
            "discard 3M 700k",
            "-c",
            "write -P 2 3300k 1000",
            folder["b.qcow2"]);
        await AgreeAsync(folder["b.qcow2"], "qcow2", exact: false);
    }

    [OracleTheory]
    [InlineData("")]
    [InlineData("compat=0.10,cluster_size=1k")]
    [InlineData("preallocation=metadata")]
    public async Task Of_what_we_made(string options)
    {
        using var folder = new TestFolder();
        await Images.MakeRawAsync(folder["a.raw"], Size, seed: 12);
        await AgreeAsync(folder["a.raw"], "raw");
        await Images.ConvertAsync(folder["a.raw"], "raw", folder["b.qcow2"], "qcow2", options);
        await AgreeAsync(folder["b.qcow2"], "qcow2");
        await using (BlockNode disk = await Images.OpenAsync(folder["b.qcow2"], writable: true))
        {
            await disk.WriteZeroesAsync(100_000, 500_000);
            await disk.WriteZeroesAsync(1 << 20, 1 << 20, ZeroWriteMode.KeepAllocated);
            await disk.DiscardAsync(3 << 20, 1 << 20);
        }
        await AgreeAsync(folder["b.qcow2"], "qcow2", exact: false);
    }

    [OracleFact]
    public async Task Of_compressed_images()
    {
        using var folder = new TestFolder();
        await Images.MakeRawAsync(folder["a.raw"], Size, seed: 13, unit: 40960);
        await Programs.QemuImgAsync("convert", "-c", "-f", "raw", "-O", "qcow2", folder["a.raw"], folder["theirs.qcow2"]);
        await AgreeAsync(folder["theirs.qcow2"], "qcow2");
        await Images.ConvertAsync(folder["a.raw"], "raw", folder["ours.qcow2"], "qcow2", "cluster_size=16k", new() { Compress = true });
        await AgreeAsync(folder["ours.qcow2"], "qcow2");
        Assert.Contains(await ExtentsAsync(folder["ours.qcow2"], "qcow2"), e => e.IsCompressed);
    }

    [OracleTheory]
    [InlineData("qcow2")]
    [InlineData("raw")]
    public async Task Of_a_chain_with_a_shorter_backing_image(string bottom)
    {
        using var folder = new TestFolder();
        await ChainAsync(folder, bottom);
        foreach (string name in new[] { "top", "mid" })
        {
            await AgreeAsync(folder[$"{name}.qcow2"], "qcow2");
        }
        Assert.Contains(await ExtentsAsync(folder["top.qcow2"], "qcow2"), e => e.Depth == 2);
    }

    /// <summary>base (2 MiB) ← mid (5 MiB) ← top (6 MiB), each with something of its own.</summary>
    internal static async Task ChainAsync(TestFolder folder, string bottom)
    {
        await Images.MakeRawAsync(folder["base"], (2 << 20) + 512, seed: 14);
        if (!bottom.Equals("raw", StringComparison.Ordinal))
        {
            await Programs.QemuImgAsync("convert", "-c", "-f", "raw", "-O", bottom, folder["base"], folder["base.tmp"]);
            File.Move(folder["base.tmp"], folder["base"], overwrite: true);
        }
        await Programs.QemuImgAsync(
            "create", "-q", "-f", "qcow2", "-b", "base", "-F", bottom, "-o", "cluster_size=4k", folder["mid.qcow2"], "5M");
        await Programs.RunAsync(
            "qemu-io",
            "-f",
            "qcow2",
            "-c",
            "write -P 3 50k 300k",
            "-c",
            "write -z 1M 200k",
            "-c",
            "write -P 4 4M 100k",
            folder["mid.qcow2"]);
        await Programs.QemuImgAsync("create", "-q", "-f", "qcow2", "-b", "mid.qcow2", "-F", "qcow2", folder["top.qcow2"], "6M");
        await Programs.RunAsync(
            "qemu-io",
            "-f",
            "qcow2",
            "-c",
            "write -P 5 100k 64k",
            "-c",
            "write -z 1536k 128k",
            "-c",
            "write -P 6 5500k 64k",
            folder["top.qcow2"]);
    }

    private static async Task<List<BlockExtent>> ExtentsAsync(string path, string format)
    {
        await using BlockNode disk = await Images.OpenAsync(path, format);
        var extents = new List<BlockExtent>();
        await foreach (BlockExtent extent in MapJob.ExtentsAsync(disk, 0, disk.Length, CancellationToken.None))
        {
            extents.Add(extent);
        }
        return extents;
    }

    /// <summary>
    /// Both lists must be equal. Whether to ask the host for holes inside stored data is decided by rules of thumb that differ, so that
    /// "zero" of stored data counts only where <paramref name="exact"/>; then neighbours that differ in it alone are one.
    /// </summary>
    private static async Task AgreeAsync(string path, string format, bool exact = true)
    {
        string json = await Programs.QemuImgAsync("map", "-f", format, "--output=json", path);
        using var document = JsonDocument.Parse(json);
        IEnumerable<Entry> theirs = document.RootElement.EnumerateArray().Select(e => new Entry(
            e.GetProperty("start").GetInt64(),
            e.GetProperty("length").GetInt64(),
            e.GetProperty("depth").GetInt32(),
            e.GetProperty("present").GetBoolean(),
            e.GetProperty("zero").GetBoolean(),
            e.GetProperty("data").GetBoolean(),
            e.TryGetProperty("offset", out JsonElement at) ? at.GetInt64() : null));
        IEnumerable<Entry> ours = (await ExtentsAsync(path, format)).Select(
            e => new Entry(e.Offset, e.Length, e.Depth, e.IsAllocated, e.IsZero, e.IsData, e.HostOffset));
        Assert.Equal(exact ? theirs : Joined(theirs), exact ? ours : Joined(ours));
    }

    private static List<Entry> Joined(IEnumerable<Entry> entries)
    {
        var joined = new List<Entry>();
        foreach (Entry entry in entries.Select(e => e with { Zero = e.Zero && !e.Data }))
        {
            if (joined.Count > 0 && joined[^1] is var last
                && last with { Start = entry.Start, Length = entry.Length, Offset = last.Offset + last.Length } == entry)
            {
                joined[^1] = last with { Length = last.Length + entry.Length };
            }
            else
            {
                joined.Add(entry);
            }
        }
        return joined;
    }

    private sealed record Entry(long Start, long Length, int Depth, bool Present, bool Zero, bool Data, long? Offset);
}
