using DiskImage.Tests.Support;

namespace DiskImage.Tests.Compression.Zstd;

/// <summary>The zstd program compresses, at every level and with the switches that change the format; we read it.</summary>
public sealed class ZstdOracleTests(ZstdOracleTests.Inputs inputs) : IClassFixture<ZstdOracleTests.Inputs>
{
    public static TheoryData<string> Switches()
    {
        var data = new TheoryData<string>();
        for (int level = 1; level <= 19; level++)
        {
            data.Add($"-{level}");
        }
        foreach (string more in new[]
        {
            "--ultra -20", "--ultra -22", "--fast=1", "--fast=20", "--no-check", "--no-check --no-content-size", "-7 "
                + "--no-content-size", "--long=27 -5", "--ultra -22 --long=30",
            "--format=zstd",
            "--rsyncable -T2",
            "-T2 -B131072",
            "--no-compress-literals",
            "-19 --compress-literals",
            "--target-compressed-block-size=1400",
            "-12 --no-row-match-finder",
            "--single-thread", "--zstd=wlog=10,strategy=9", "--zstd=mml=3,strategy=7,tlen=4", "--zstd=strategy=1,mml=7,wlog=15",
        })
        {
            data.Add(more);
        }
        return data;
    }

    [OracleTheory("zstd")]
    [MemberData(nameof(Switches))]
    public async Task What_zstd_writes_we_read(string switches)
    {
        using var folder = new TestFolder();
        await Programs.RunAsync("zstd", [.. switches.Split(' '), "-q", "-r", inputs.Folder["in"], "--output-dir-flat", folder.Root]);
        foreach ((string name, byte[] data) in inputs.Files)
        {
            ZstdJudge.Decodes(await File.ReadAllBytesAsync(folder[name + ".zst"]), data, $"{switches} {name}");
        }
    }

    [OracleTheory("zstd")]
    [InlineData("-3", 5 << 20)]
    [InlineData("-9 --long=27", 9 << 20)]
    [InlineData("-1 --no-content-size", (4 << 20) + 1)]
    public async Task Large_inputs_of_many_blocks(string switches, int size)
    {
        using var folder = new TestFolder();
        byte[] data = ZstdInputs.Make("mixed", size, seed: 5);
        await File.WriteAllBytesAsync(folder["a"], data);
        await Programs.RunAsync("zstd", [.. switches.Split(' '), "-q", folder["a"], "-o", folder["b"]]);
        ZstdJudge.Decodes(await File.ReadAllBytesAsync(folder["b"]), data, switches);
    }

    [OracleFact("zstd")]
    public async Task Frames_of_several_files_make_one_output()
    {
        using var folder = new TestFolder();
        byte[] packed = [], plain = [];
        foreach (string kind in ZstdInputs.Kinds)
        {
            byte[] data = ZstdInputs.Make(kind, 70_000, seed: 6);
            await File.WriteAllBytesAsync(folder[kind], data);
            await Programs.RunAsync("zstd", "-q", "-5", folder[kind]);
            packed = [.. packed, .. ZstdFrameBuilder.Skippable(3, 1, 2, 3), .. await File.ReadAllBytesAsync(folder[kind + ".zst"])];
            plain = [.. plain, .. data];
        }
        ZstdJudge.Decodes(packed, plain, "all kinds");
        ZstdJudge.Decodes([.. packed, 0, 0, 0], plain, "all kinds and rubbish");
    }

    [OracleFact("zstd")]
    public async Task A_frame_that_needs_a_dictionary_is_refused()
    {
        using var folder = new TestFolder();
        var samples = new List<string>();
        for (int i = 0; i < 200; i++)
        {
            string sample = folder[$"s{i}"];
            await File.WriteAllBytesAsync(sample, ZstdInputs.Make("text", 700, seed: i % 20));
            samples.Add(sample);
        }
        await Programs.RunAsync("zstd", ["-q", "--train", .. samples, "--maxdict=8192", "-o", folder["dictionary"]]);
        await Programs.RunAsync("zstd", "-q", "-D", folder["dictionary"], samples[0], "-o", folder["a.zst"]);
        ZstdJudge.Refuses(await File.ReadAllBytesAsync(folder["a.zst"]), 700, "with a dictionary");
    }

    /// <summary>The files to compress, written once.</summary>
    public sealed class Inputs : IDisposable
    {
        public Inputs()
        {
            Directory.CreateDirectory(Folder["in"]);
            foreach (string kind in ZstdInputs.Kinds)
            {
                foreach (int size in ZstdInputs.Sizes.Where(size => size < 100_000 || kind is "text" or "mixed" or "copies"))
                {
                    byte[] data = ZstdInputs.Make(kind, size, seed: 3);
                    Files.Add($"{kind}-{size}", data);
                    File.WriteAllBytes(Path.Combine(Folder["in"], $"{kind}-{size}"), data);
                }
            }
        }

        public IDictionary<string, byte[]> Files { get; } = new Dictionary<string, byte[]>(StringComparer.Ordinal);

        internal TestFolder Folder { get; } = new();

        public void Dispose() => Folder.Dispose();
    }
}
