using System.Buffers.Binary;
using System.Diagnostics;
using System.IO.Compression;

namespace DiskImage.Bench;

/// <summary>
/// The comparisons for the formats of old disks. cloop needs create_compressed_fs, bzip2 the program of that name and a
/// qemu-img with its module.
/// </summary>
internal static class OldFormatScenarios
{
    private const int DmgChunk = 1 << 20;
    private const string DmgZlib = "zlib.dmg", DmgBzip2 = "bzip2.dmg", Cloop = "mix.cloop", QcowPacked = "packed.qcow";

    public static IReadOnlyList<Scenario> All { get; } =
    [
        ToRaw("dmg-zlib-raw", "dmg zlib → raw", 0.5, "dmg", DmgZlib, folder => MakeDmgAsync(folder, DmgZlib, 0x8000_0005)),
        ToRaw("dmg-bzip2-raw", "dmg bzip2 → raw", 0.5, "dmg", DmgBzip2, folder => MakeDmgAsync(folder, DmgBzip2, 0x8000_0006)) with
        {
            IsPossible = () => Has("bzip2")
                && File.Exists(Path.Combine(
                    Environment.GetEnvironmentVariable("QEMU_MODULE_DIR") ?? "/usr/lib/x86_64-linux-gnu/qemu", "block-dmg-bz2.so")),
        },
        ToRaw(
            "cloop-raw",
            "cloop → raw",
            0.5,
            "cloop",
            Cloop,
            folder => RunAsync(
                "create_compressed_fs",
                "-q",
                "-B",
                "65536",
                "-L",
                "6",
                Path.Combine(folder, Scenario.Raw),
                Path.Combine(folder, Cloop))) with
        {
            IsPossible = () => Has("create_compressed_fs"),
        },
        ToRaw("qcow-raw", "qcow zlib → raw", 0.4, "qcow", QcowPacked, folder => Comparison.RunQemuImgAsync(
            ["convert", "-c", "-f", "raw", "-O", "qcow", Path.Combine(folder, Scenario.Raw), Path.Combine(folder, QcowPacked)])),
        new(
            "raw-qcow", "raw → qcow -c zlib", 0.35,
            folder => Scenario.ConvertAsync(
                Path.Combine(folder, Scenario.Raw), "raw", Path.Combine(folder, "ours.qcow"), "qcow", compress: true),
            folder => ["convert", "-c", "-f", "raw", "-O", "qcow", Path.Combine(folder, Scenario.Raw), Path.Combine(folder, "theirs.qcow")],
            "ours.qcow",
            "theirs.qcow")
        {
            MostRuns = 5,
        },
        new(
            "raw-qed", "raw → qed", 0.8,
            folder => Scenario.ConvertAsync(Path.Combine(folder, Scenario.Raw), "raw", Path.Combine(folder, "ours.qed"), "qed"),
            folder => ["convert", "-f", "raw", "-O", "qed", Path.Combine(folder, Scenario.Raw), Path.Combine(folder, "theirs.qed")],
            "ours.qed",
            "theirs.qed"),
        FromRaw("raw-vdi", "raw → vdi", "vdi"),
        ToRaw("vdi-raw", "vdi → raw", 0.8, "vdi", "mix.vdi", folder => MakeAsync(folder, "vdi")),
        FromRaw("raw-parallels", "raw → parallels", "parallels"),
        ToRaw("parallels-raw", "parallels → raw", 0.8, "parallels", "mix.parallels", folder => MakeAsync(folder, "parallels")),
    ];

    private static Scenario FromRaw(string name, string title, string format) => new(
        name, title, 0.8,
        folder => Scenario.ConvertAsync(Path.Combine(folder, Scenario.Raw), "raw", Path.Combine(folder, $"ours.{format}"), format),
        folder => ["convert", "-f", "raw", "-O", format, Path.Combine(folder, Scenario.Raw), Path.Combine(folder, $"theirs.{format}")],
        $"ours.{format}",
        $"theirs.{format}");

    private static Task MakeAsync(string folder, string format) => Comparison.RunQemuImgAsync(
        ["convert", "-f", "raw", "-O", format, Path.Combine(folder, Scenario.Raw), Path.Combine(folder, $"mix.{format}")]);

    private static Scenario ToRaw(string name, string title, double target, string format, string source, Func<string, Task> prepare)
        => new(
            name, title, target,
            folder => Scenario.ConvertAsync(Path.Combine(folder, source), format, Path.Combine(folder, "ours.raw"), "raw"),
            folder => ["convert", "-f", format, "-O", "raw", Path.Combine(folder, source), Path.Combine(folder, "theirs.raw")],
            "ours.raw",
            "theirs.raw")
        {
            PrepareAsync = prepare,
            MostRuns = 5,
        };

    private static bool Has(string program)
        => (Environment.GetEnvironmentVariable("PATH")
            ?? "").Split(Path.PathSeparator).Any(folder => File.Exists(Path.Combine(folder, program)));

    private static async Task RunAsync(string program, params string[] arguments)
    {
        using Process process =
            Process.Start(new ProcessStartInfo(program, arguments)
            {
                UseShellExecute = false,
                RedirectStandardOutput = true,
                RedirectStandardError = true,
            })!;
        Task<string> output = process.StandardOutput.ReadToEndAsync(), errors = process.StandardError.ReadToEndAsync();
        await process.WaitForExitAsync();
        _ = await output;
        if (process.ExitCode != 0)
        {
            throw new InvalidOperationException($"{program}: {process.ExitCode} {await errors}");
        }
    }

    /// <summary>A DMG of chunks of one mebibyte: zero where all is zero, else of one kind.</summary>
    private static async Task MakeDmgAsync(string folder, string name, uint kind)
    {
        string raw = Path.Combine(folder, Scenario.Raw);
        await using FileStream source = File.OpenRead(raw), target = File.Create(Path.Combine(folder, name));
        int count = (int)((source.Length + DmgChunk - 1) / DmgChunk);
        byte[] table = new byte[204 + ((count + 1) * 40)], chunk = new byte[DmgChunk];
        "mish"u8.CopyTo(table);
        BinaryPrimitives.WriteInt64BigEndian(table.AsSpan(16), source.Length / 512);
        BinaryPrimitives.WriteInt32BigEndian(table.AsSpan(200), count + 1);
        for (int i = 0; i <= count; i++)
        {
            int length = await source.ReadAtLeastAsync(chunk, DmgChunk, throwOnEndOfStream: false);
            Memory<byte> data = chunk.AsMemory(0, length);
            bool isZero = !data.Span.ContainsAnyExcept((byte)0);
            long start = target.Length;
            if (!isZero)
            {
                await target.WriteAsync(kind == 0x8000_0005
                    ? await ZlibAsync(data)
                    : await Bzip2Async(data, Path.Combine(folder, "chunk")));
            }
            Memory<byte> entry = table.AsMemory(204 + (i * 40), 40);
            BinaryPrimitives.WriteUInt32BigEndian(entry.Span, i == count ? 0xFFFF_FFFF : isZero ? 0 : kind);
            BinaryPrimitives.WriteInt64BigEndian(entry.Span[8..], (long)i * (DmgChunk / 512));
            BinaryPrimitives.WriteInt64BigEndian(entry.Span[16..], length / 512);
            BinaryPrimitives.WriteInt64BigEndian(entry.Span[24..], start);
            BinaryPrimitives.WriteInt64BigEndian(entry.Span[32..], target.Length - start);
        }
        long end = target.Length;
        byte[] list = System.Text.Encoding.UTF8.GetBytes(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<plist "
                + "version=\"1.0\">\n<dict>\n<key>resource-fork</key>\n<dict>\n<key>blkx</key>\n<array>\n<dict>\n<key>Data</key>\n<data>\n"
                + Convert.ToBase64String(
                    table,
                    Base64FormattingOptions.InsertLineBreaks)
                        + "\n</data>\n<key>Name</key>\n<string>mix</string>\n</dict>\n</array>\n</dict>\n</dict>\n</plist>\n");
        byte[] trailer = new byte[512];
        "koly"u8.CopyTo(trailer);
        BinaryPrimitives.WriteInt32BigEndian(trailer.AsSpan(4), 4);
        BinaryPrimitives.WriteInt32BigEndian(trailer.AsSpan(8), 512);
        BinaryPrimitives.WriteInt64BigEndian(trailer.AsSpan(32), end);
        BinaryPrimitives.WriteInt64BigEndian(trailer.AsSpan(216), end);
        BinaryPrimitives.WriteInt64BigEndian(trailer.AsSpan(224), list.Length);
        BinaryPrimitives.WriteInt64BigEndian(trailer.AsSpan(492), source.Length / 512);
        await target.WriteAsync(list);
        await target.WriteAsync(trailer);
    }

    private static async Task<byte[]> ZlibAsync(Memory<byte> data)
    {
        using var packed = new MemoryStream();
        await using (var zlib = new ZLibStream(packed, CompressionLevel.Optimal, leaveOpen: true))
        {
            await zlib.WriteAsync(data);
        }
        return packed.ToArray();
    }

    private static async Task<byte[]> Bzip2Async(Memory<byte> data, string path)
    {
        await File.WriteAllBytesAsync(path, data.ToArray());
        await RunAsync("bzip2", "-f", path);
        byte[] packed = await File.ReadAllBytesAsync(path + ".bz2");
        File.Delete(path + ".bz2");
        return packed;
    }
}
