using System.Text.Json;
using DiskImage.Block;
using DiskImage.Formats.Vpc;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Vpc;

/// <summary>raw → vpc → raw, with qemu-img, libvhdi and a reader of our own as the judges.</summary>
public sealed class VpcOracleTests
{
    private static readonly long[] Sizes = [0, 512, 65536, (1 << 20) + 1024, (5 << 20) + 512, (17 << 20) + 3584, 33 << 20];

    public static TheoryData<long, string> Ours()
    {
        var data = new TheoryData<long, string>();
        foreach (long size in Sizes)
        {
            foreach (string options in new[]
            {
                "", "force_size=off", "subformat=fixed", "subformat=fixed,force_size=off", "block_size=512k,force_size=off",
                "block_size=4k", "block_size=16M",
            })
            {
                if (size > 0 || !options.Contains("fixed", StringComparison.Ordinal)) // QEMU does not open an empty fixed disk
                {
                    data.Add(size, options);
                }
            }
        }
        return data;
    }

    public static TheoryData<long, string> Theirs()
    {
        var data = new TheoryData<long, string>();
        foreach (long size in Sizes)
        {
            foreach (string options in new[] { "", "force_size=on", "subformat=fixed", "subformat=fixed,force_size=on" })
            {
                if (size > 0 || !options.Contains("fixed", StringComparison.Ordinal)) // QEMU does not open an empty fixed disk
                {
                    data.Add(size, options);
                }
            }
        }
        return data;
    }

    [OracleTheory]
    [MemberData(nameof(Ours))]
    public async Task What_we_write_qemu_and_the_specification_read_identical(long size, string options)
    {
        using var folder = new TestFolder();
        await Images.MakeRawAsync(folder["a.raw"], size, seed: 1);
        await Images.ConvertAsync(folder["a.raw"], "raw", folder["b.vhd"], "vpc", options);
        await Programs.CompareAsync(folder["a.raw"], "raw", folder["b.vhd"], "vpc");
        (VhdReader disk, byte[] contents) = VhdReader.Read(folder["b.vhd"]);
        Assert.Equal(disk.Size, contents.Length);
        byte[] raw = await File.ReadAllBytesAsync(folder["a.raw"]);
        Assert.True(raw.AsSpan().SequenceEqual(contents.AsSpan(0, raw.Length)));
        Assert.True(!contents.AsSpan(raw.Length).ContainsAnyExcept((byte)0));
        Assert.Equal(options.Contains("force_size=off", StringComparison.Ordinal) ? contents.Length : size, contents.Length);
        await using BlockNode node = await Images.OpenAsync(folder["b.vhd"]);
        Assert.Equal(await VirtualSizeAsync(folder["b.vhd"]), node.Length);
        CheckReport report = await ((ICheckable)node).CheckAsync(null, CancellationToken.None);
        Assert.Empty(report.Findings);
    }

    [OracleTheory]
    [MemberData(nameof(Theirs))]
    public async Task What_qemu_writes_we_read_identical_and_find_nothing_wrong_with(long size, string options)
    {
        using var folder = new TestFolder();
        await Images.MakeRawAsync(folder["a.raw"], size, seed: 2);
        await Programs.QemuImgAsync(["convert", "-f", "raw", "-O", "vpc", .. options.Length == 0 ? Array.Empty<string>()
            : ["-o", options], folder["a.raw"], folder["b.vhd"]]);
        await using (BlockNode node = await Images.OpenAsync(folder["b.vhd"]))
        {
            Assert.Equal(await VirtualSizeAsync(folder["b.vhd"]), node.Length);
            Assert.Empty((await ((ICheckable)node).CheckAsync(null, CancellationToken.None)).Findings);
            Assert.Equal(options.Contains("fixed", StringComparison.Ordinal)
                ? nameof(VpcDiskType.Fixed)
                : nameof(VpcDiskType.Dynamic), Info(node).DiskType);
        }
        await Images.ConvertAsync(folder["b.vhd"], null, folder["c.raw"], "raw");
        byte[] raw = await File.ReadAllBytesAsync(folder["a.raw"]), ours = await File.ReadAllBytesAsync(folder["c.raw"]);
        Assert.True(raw.AsSpan().SequenceEqual(ours.AsSpan(0, raw.Length)));
        Assert.True(!ours.AsSpan(raw.Length).ContainsAnyExcept((byte)0));
    }

    [OracleTheory]
    [InlineData("force_size=on")]
    [InlineData("force_size=off")]
    [InlineData("subformat=fixed,force_size=on")]
    [InlineData("subformat=fixed,force_size=off")]
    public async Task New_disks_have_qemus_size_and_geometry(string options)
    {
        using var folder = new TestFolder();
        var random = new Random(3);
        long[] sizes = [.. Enumerable.Range(0, 12).Select(i => random.NextInt64(
            1L << random.Next(10, 41))), 1 << 20, 504L << 20, (504L << 20) + 512, 127L << 30, 128L << 30, 2040L << 30];
        foreach (long size in options.Equals("force_size=off", StringComparison.Ordinal) ? sizes : sizes.Where(s => s < 1L << 36))
        {
            string ours = folder[$"o{size}.vhd"], theirs = folder[$"t{size}.vhd"];
            await Images.CreateAsync(ours, "vpc", $"size={size},{options}");
            await Programs.QemuImgAsync("create", "-f", "vpc", "-o", options, theirs, size.ToString());
            await using BlockNode a = await Images.OpenAsync(ours), b = await Images.OpenAsync(theirs);
            (VpcInfo mine, VpcInfo other) = (Info(a), Info(b));
            Assert.Equal(other with { UniqueId = mine.UniqueId, Created = mine.Created, ParentLocators = mine.ParentLocators }, mine);
            Assert.Equal(await VirtualSizeAsync(ours), a.Length);
            Assert.Equal(b.Length, a.Length);
        }
    }

    [OracleFact]
    public async Task Who_made_a_disk_decides_which_size_it_has()
    {
        using var folder = new TestFolder();
        const long Bytes = 1 << 30, Chs = 1000L * 16 * 63 * 512;
        foreach ((string creator, long size, bool qemuAgrees) in new[]
        {
            ("vpc ", Chs, true), ("vs  ", Chs, true), ("qemu", Chs, true), (
                "zzzz",
                Bytes,
                false), ("vbox", Bytes, false), ("simh", Bytes, false), ("qem2", Bytes, true), ("win ", Bytes, true), ("d2v ", Bytes, true),
            ("tap\0", Bytes, true), ("CTXS", Bytes, true), ("d2v\0", Bytes, false), ("wa\0\0", Bytes, false),
        })
        {
            foreach (bool largest in new[] { false, true })
            {
                (ushort, byte, byte) geometry = largest ? ((ushort)65535, (byte)16, (byte)255) : ((ushort)1000, (byte)16, (byte)63);
                byte[] footer = VhdMaker.Footer(creator, Bytes, geometry, 3);
                await File.WriteAllBytesAsync(folder["a.vhd"], VhdMaker.Dynamic(footer, VhdMaker.Header(1536, 512, 2 << 20), 2 << 20, 512));
                foreach ((
                    string calculation,
                    long expected) in new[] { ("auto", largest ? Bytes : size), ("chs", largest ? Bytes : Chs), ("current_size", Bytes) })
                {
                    await using BlockNode node = await Images.OpenAsync(folder["a.vhd"], options: $"force_size_calc={calculation}");
                    Assert.Equal(expected, node.Length);
                    string theirs = await Programs.QemuImgAsync(
                        "info",
                        "--output=json",
                        "--image-opts",
                        $"driver=vpc,file.filename={folder["a.vhd"]}{(calculation.Equals("auto", StringComparison.Ordinal) ? "" : $",force_size_calc={calculation}")}");
                    if (qemuAgrees || !calculation.Equals("auto", StringComparison.Ordinal) || largest)
                    {
                        Assert.Equal(JsonDocument.Parse(theirs).RootElement.GetProperty("virtual-size").GetInt64(), node.Length);
                    }
                }
            }
        }
    }

    [OracleFact]
    public async Task Qemu_goes_on_writing_what_we_began_and_we_what_qemu_began()
    {
        using var folder = new TestFolder();
        const int Size = 20 << 20;
        byte[] expected = new byte[Size];
        await Images.CreateAsync(folder["a.vhd"], "vpc", $"size={Size},force_size");
        var random = new Random(5);
        for (int round = 0; round < 6; round++)
        {
            if (round % 2 == 0)
            {
                await using BlockNode node = await Images.OpenAsync(folder["a.vhd"], writable: true);
                for (int i = 0; i < 20; i++)
                {
                    byte[] data = new byte[random.Next(1, 100_000)];
                    random.NextBytes(data);
                    int at = random.Next(Size - data.Length);
                    await node.WriteAsync(at, data);
                    data.CopyTo(expected, at);
                    if (i % 7 == 6)
                    {
                        await node.WriteZeroesAsync(2 << 20, 5 << 20);
                        expected.AsSpan(2 << 20, 5 << 20).Clear();
                    }
                }
            }
            else
            {
                var commands = new List<string> { "-f", "vpc" };
                for (int i = 0; i < 10; i++)
                {
                    int length = random.Next(1, 200) * 512, at = random.Next((Size - length) / 512) * 512;
                    commands.AddRange(["-c", $"write -P {i + 1} {at} {length}"]);
                    expected.AsSpan(at, length).Fill((byte)(i + 1));
                }
                await Programs.RunAsync("qemu-io", [.. commands, folder["a.vhd"]]);
            }
            await File.WriteAllBytesAsync(folder["e.raw"], expected);
            await Programs.CompareAsync(folder["e.raw"], "raw", folder["a.vhd"], "vpc");
            await using BlockNode read = await Images.OpenAsync(folder["a.vhd"]);
            byte[] got = new byte[Size];
            await read.ReadAsync(0, got);
            Assert.True(expected.AsSpan().SequenceEqual(got), $"round {round}");
        }
        _ = VhdReader.Read(folder["a.vhd"]);
    }

    [VhdiTheory]
    [InlineData("")]
    [InlineData("force_size,block_size=512k")]
    [InlineData("subformat=fixed,force_size")]
    public async Task Libvhdi_reads_what_we_write(string options)
    {
        using var folder = new TestFolder();
        await Images.MakeRawAsync(folder["a.raw"], (9 << 20) + 512, seed: 4);
        await Images.ConvertAsync(folder["a.raw"], "raw", folder["b.vhd"], "vpc", options);
        string info = await Programs.RunAsync("vhdiinfo", folder["b.vhd"]);
        Assert.Contains(options.Contains("fixed", StringComparison.Ordinal) ? "Fixed" : "Dynamic", info, StringComparison.Ordinal);
        (_, byte[] expected) = VhdReader.Read(folder["b.vhd"]);
        byte[] read = await Vhdi.ReadAsync(folder["b.vhd"], folder["mnt"]);
        Assert.True(expected.AsSpan().SequenceEqual(read));
    }

    internal static VpcInfo Info(BlockNode node) => (VpcInfo)((IDescribed)node).Describe().FormatSpecific!;

    internal static async Task<long> VirtualSizeAsync(string path)
        => JsonDocument.Parse(
            await Programs.QemuImgAsync("info", "--output=json", "-f", "vpc", path)).RootElement.GetProperty("virtual-size").GetInt64();
}
