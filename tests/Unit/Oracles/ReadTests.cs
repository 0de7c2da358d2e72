using System.Text.Json;
using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Formats.Qcow2;
using DiskImage.Metadata;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Oracles;

/// <summary>What QEMU's programs leave, we read as they do; what they say about an image, we say too.</summary>
public sealed class ReadTests
{
    [OracleTheory]
    [InlineData("raw")]
    [InlineData("qcow2")]
    public async Task A_chain_of_three_with_a_shorter_backing_image(string bottom)
    {
        using var folder = new TestFolder();
        await MapTests.ChainAsync(folder, bottom);
        foreach (string name in new[] { "top.qcow2", "mid.qcow2" })
        {
            await ReadsAlikeAsync(folder, folder[name]);
        }
    }

    [OracleTheory]
    [InlineData("", 1)]
    [InlineData("cluster_size=512", 2)]
    [InlineData("cluster_size=2M", 3)]
    [InlineData("compat=0.10", 4)]
    [InlineData("lazy_refcounts=on", 5)]
    [InlineData("refcount_bits=1,cluster_size=4k", 6)]
    [InlineData("preallocation=metadata", 7)]
    [InlineData("extended_l2=on", 8)]
    public async Task What_a_sequence_of_qemu_io_left(string options, int seed)
    {
        using var folder = new TestFolder();
        const int Sectors = 8195;
        await Programs.QemuImgAsync(["create", "-q", "-f", "qcow2", .. options.Length == 0 ? Array.Empty<string>()
            : ["-o", options], folder["disk.qcow2"], $"{Sectors * 512}"]);
        var random = new Random(seed);
        var commands = new List<string>();
        for (int i = 0; i < 60; i++)
        {
            int count = random.Next(1, 1 + random.Next(1, 700)), sector = random.Next(Sectors - count + 1);
            string verb = random.Next(6) switch { 0 => "write -z", 1 => "write "
                + "-zu", 2 => "discard", _ => $"write -P {random.Next(1, 256)}" };
            commands.Add("-c");
            commands.Add($"{verb} {sector * 512L} {count * 512}");
        }
        await Programs.RunAsync("qemu-io", ["-f", "qcow2", .. commands, folder["disk.qcow2"]]);
        await ReadsAlikeAsync(folder, folder["disk.qcow2"]);
        await using (BlockNode disk = await Images.OpenAsync(folder["disk.qcow2"], writable: true)) // and we can go on where it stopped
        {
            byte[] data = new byte[100_000];
            random.NextBytes(data);
            for (int i = 0; i < 20; i++)
            {
                await disk.WriteAsync(random.NextInt64(disk.Length - data.Length), data);
            }
        }
        await Programs.CheckAsync(folder["disk.qcow2"]);
        await ReadsAlikeAsync(folder, folder["disk.qcow2"]);
    }

    [OracleTheory]
    [InlineData("cluster_size=4k")]
    [InlineData("cluster_size=64k")]
    [InlineData("cluster_size=512")]
    public async Task Compressed_clusters_that_straddle_sectors_and_clusters(string options)
    {
        using var folder = new TestFolder();
        await Images.MakeRawAsync(folder["a.raw"], (4 << 20) + 512, seed: 21, unit: 40960);
        await Programs.QemuImgAsync("convert", "-c", "-f", "raw", "-O", "qcow2", "-o", options, folder["a.raw"], folder["b.qcow2"]);
        await using (BlockNode disk = await Images.OpenAsync(folder["b.qcow2"]))
        {
            var qcow2 = (Qcow2Node)disk;
            int straddling = 0;
            foreach (L2Entry entry in await EntriesAsync(qcow2))
            {
                if (entry.IsCompressed)
                {
                    (HostOffset place, int length) = entry.CompressedRange(qcow2.Geometry.ClusterBits);
                    bool straddles = qcow2.Geometry.ClusterStart(place) != qcow2.Geometry.ClusterStart(place + (length - 1));
                    straddling += straddles && place.Value % 512 != 0 ? 1 : 0;
                }
            }
            Assert.True(options.EndsWith("512", StringComparison.Ordinal) || straddling > 0, "no compressed cluster straddles a cluster");
        }
        await ReadsAlikeAsync(folder, folder["b.qcow2"]);
    }

    [OracleTheory]
    [InlineData("", "")]
    [InlineData("compat=0.10", "")]
    [InlineData("lazy_refcounts=on,refcount_bits=32,cluster_size=8k", "")]
    [InlineData("extended_l2=on", "")]
    [InlineData("", "-b base.qcow2 -F qcow2")]
    [InlineData("compat=0.10", "-b base.qcow2 -F qcow2")]
    public async Task Facts_are_those_of_qemu_img_info(string options, string backing)
    {
        using var folder = new TestFolder();
        await Programs.QemuImgAsync("create", "-q", "-f", "qcow2", folder["base.qcow2"], "7M");
        await Programs.QemuImgAsync(
            [
                "create", "-q", "-f", "qcow2", .. options.Length == 0 ? Array.Empty<string>() : ["-o", options],
                .. backing.Split(' ', StringSplitOptions.RemoveEmptyEntries), folder["disk.qcow2"], "9437696",
            ]);
        await FactsAgreeAsync(folder["disk.qcow2"]);
        if (!options.Contains("extended_l2", StringComparison.Ordinal))
        {
            string[] ours = [.. options.Split(',', StringSplitOptions.RemoveEmptyEntries), .. backing.Length == 0
                ? Array.Empty<string>()
                : ["backing_file=base.qcow2", "backing_fmt=qcow2"]];
            await Images.CreateAsync(folder["ours.qcow2"], "qcow2", string.Join(',', ours.Prepend("size=9437696")));
            await FactsAgreeAsync(folder["ours.qcow2"]);
        }
    }

    private static async Task FactsAgreeAsync(string path)
    {
        using var document = JsonDocument.Parse(await Programs.QemuImgAsync("info", "-f", "qcow2", "--output=json", path));
        JsonElement theirs = document.RootElement, specific = theirs.GetProperty("format-specific").GetProperty("data");
        await using BlockNode disk = await Images.OpenAsync(path);
        ImageDescription ours = ((IDescribed)disk).Describe();
        var info = (Qcow2Info)ours.FormatSpecific!;
        Assert.Equal(theirs.GetProperty("virtual-size").GetInt64(), disk.Length);
        Assert.Equal(theirs.GetProperty("actual-size").GetInt64(), disk.Child("file")!.AllocatedLength);
        Assert.Equal(theirs.GetProperty("cluster-size").GetInt64(), ours.ClusterSize);
        Assert.Equal(theirs.GetProperty("format").GetString(), ours.Format);
        Assert.Equal(theirs.GetProperty("dirty-flag").GetBoolean(), ours.Dirty);
        Assert.Equal(Text(theirs, "backing-filename"), ours.BackingFile);
        Assert.Equal(Text(theirs, "backing-filename-format"), ours.BackingFormat);
        Assert.Equal(Text(theirs, "full-backing-filename"), disk.Child("backing")?.Name);
        Assert.Equal(Text(specific, "compat"), info.Compat);
        Assert.Equal(Text(specific, "compression-type"), info.CompressionType.ToString().ToLowerInvariant());
        Assert.Equal(specific.GetProperty("refcount-bits").GetInt32(), info.RefcountBits);
        Assert.Equal(Flag(specific, "lazy-refcounts"), info.LazyRefcounts);
        Assert.Equal(Flag(specific, "corrupt"), info.Corrupt);
        Assert.Equal(Flag(specific, "extended-l2"), info.ExtendedL2);

        static string? Text(JsonElement element, string name)
            => element.TryGetProperty(name, out JsonElement value) ? value.GetString() : null;

        static bool Flag(JsonElement element, string name) => element.TryGetProperty(name, out JsonElement value) && value.GetBoolean();
    }

    /// <summary>All of the active L2 entries, straight from the file.</summary>
    private static async Task<List<L2Entry>> EntriesAsync(Qcow2Node disk)
    {
        var entries = new List<L2Entry>();
        byte[] l1 = new byte[disk.Header.L1Size * 8], l2 = new byte[disk.Geometry.ClusterSize];
        BlockNode file = disk.Child("file")!;
        await file.ReadAsync(disk.Header.L1TableOffset, l1);
        for (int i = 0; i < l1.Length; i += 8)
        {
            long table = L2Entry.OffsetOf(BigEndian.U64(l1, i));
            if (table != 0)
            {
                await file.ReadAsync(table, l2);
                entries.AddRange(Enumerable.Range(0, disk.Geometry.L2Entries).Select(k => new L2Entry(BigEndian.U64(l2, k * 8))));
            }
        }
        return entries;
    }

    private static async Task ReadsAlikeAsync(TestFolder folder, string path)
    {
        await Programs.QemuImgAsync("convert", "-f", "qcow2", "-O", "raw", path, folder["theirs.raw"]);
        await Images.ConvertAsync(path, null, folder["ours.raw"], "raw");
        byte[] theirs = await File.ReadAllBytesAsync(folder["theirs.raw"]), ours = await File.ReadAllBytesAsync(folder["ours.raw"]);
        Assert.Equal(theirs.Length, ours.Length);
        int same = theirs.AsSpan().CommonPrefixLength(ours);
        Assert.True(same == theirs.Length, $"differs at {same}");
        File.Delete(folder["ours.raw"]);
        await using BlockNode disk = await Images.OpenAsync(path);
        var random = new Random(5);
        for (int i = 0; i < 200; i++) // and in any piece
        {
            byte[] piece = new byte[random.Next(1, 100_000)];
            int at = random.Next(theirs.Length - piece.Length);
            await disk.ReadAsync(at, piece);
            Assert.True(theirs.AsSpan(at, piece.Length).SequenceEqual(piece), $"{piece.Length} bytes at {at}");
        }
    }
}
