using DiskImage.Block;
using DiskImage.Jobs;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Vmdk;

/// <summary>QEMU and this library over the same images, in both directions.</summary>
public sealed class VmdkOracleTests : IDisposable
{
    private const int Size = (37 << 20) + 1536;

    private readonly TestFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    /// <summary>Pairs of the options' values that QEMU has.</summary>
    public static TheoryData<string> Options() =>
    [
        "", "subformat=monolithicFlat", "subformat=twoGbMaxExtentSparse", "subformat=twoGbMaxExtentFlat", "subformat=streamOptimized",
        "zeroed_grain=on,adapter_type=lsilogic", "subformat=twoGbMaxExtentSparse,zeroed_grain=on,adapter_type=buslogic,compat6=on",
        "adapter_type=legacyESX,hwversion=7,toolsversion=12", "subformat=monolithicFlat,adapter_type=lsilogic,compat6=on",
        "subformat=twoGbMaxExtentFlat,adapter_type=buslogic,toolsversion=0", "subformat=streamOptimized,adapter_type=lsilogic,hwversion=10",
        "subformat=streamOptimized,adapter_type=buslogic,compat6=on",
    ];

    [OracleTheory]
    [MemberData(nameof(Options))]
    public Task What_qemu_writes_is_read_and_what_we_write_is_read_by_qemu(string options)
        => new BothWays(_folder, "vmdk").ConvertAsync(Size, options, canCheck: !options.Contains("Flat", StringComparison.Ordinal));

    [OracleTheory]
    [InlineData("", "none", 1)]
    [InlineData("zeroed_grain=on", "none", 2)]
    [InlineData("subformat=twoGbMaxExtentSparse", "none", 3)]
    [InlineData("subformat=monolithicFlat", "none", 4)]
    [InlineData("", "monolithicSparse", 5)]
    [InlineData("zeroed_grain=on", "monolithicFlat", 6)]
    [InlineData("subformat=twoGbMaxExtentSparse", "monolithicSparse", 7)]
    public async Task A_disk_that_both_write_to_reads_as_its_twin(string options, string parent, int seed)
    {
        var random = new Random(seed);
        byte[] twin = new byte[5 << 20];
        string given = options.Length == 0 ? "" : "," + options;
        if (!parent.Equals("none", StringComparison.Ordinal))
        {
            await Images.MakeRawAsync(_folder["base.raw"], 5 << 20, seed, unit: 24576);
            await Images.ConvertAsync(_folder["base.raw"], "raw", _folder["base.vmdk"], "vmdk", $"subformat={parent}");
            (await File.ReadAllBytesAsync(_folder["base.raw"])).CopyTo(twin, 0);
            given += ",backing_file=base.vmdk,backing_fmt=vmdk";
        }
        await Images.CreateAsync(_folder["a.vmdk"], "vmdk", $"size={twin.Length}{given}");
        await new BothWays(_folder, "vmdk").TwinAsync(_folder["a.vmdk"], twin, random);
    }

    [OracleTheory]
    [InlineData("subformat=streamOptimized")]
    [InlineData("subformat=vmfs")]
    [InlineData("")]
    public async Task A_disk_that_is_larger_than_what_is_copied_into_it_ends_with_zeroes(string options)
    {
        await Images.MakeRawAsync(_folder["disk.raw"], (5 << 20) + 512, seed: 2);
        byte[] contents = await File.ReadAllBytesAsync(_folder["disk.raw"]);
        Array.Fill(contents, (byte)1, contents.Length - 512, 512);
        await File.WriteAllBytesAsync(_folder["disk.raw"], contents);
        await Images.ConvertAsync(_folder["disk.raw"], "raw", _folder["a.vmdk"], "vmdk",
            $"size=6M{(options.Length == 0 ? "" : ",")}{options}");
        await Programs.CompareAsync(_folder["disk.raw"], "raw", _folder["a.vmdk"], "vmdk");
        await using BlockNode source = await Images.OpenAsync(_folder["disk.raw"], "raw"), disk = await Images.OpenAsync(_folder["a.vmdk"]);
        Assert.Equal(6 << 20, disk.Length);
        Assert.True((await new CompareJob(source, disk, strict: false).RunAsync(null, CancellationToken.None)).Identical);
    }

    [OracleFact]
    public async Task A_split_disk_of_several_files_is_read_by_both()
    {
        const long Length = (4L << 30) + (5 << 20);
        foreach (string subformat in new[] { "twoGbMaxExtentSparse", "twoGbMaxExtentFlat" })
        {
            await Images.CreateAsync(_folder[$"{subformat}.vmdk"], "vmdk", $"size={Length},subformat={subformat}");
            Assert.Equal(4, Directory.GetFiles(_folder.Root, $"{subformat}*").Length);
            await using (BlockNode disk = await Images.OpenAsync(_folder[$"{subformat}.vmdk"], writable: true))
            {
                byte[] data = new byte[3 << 20];
                Array.Fill(data, (byte)7);
                await disk.WriteAsync((2L << 30) - (1 << 20), data);
                await disk.WriteAsync(Length - 512, data.AsMemory(0, 512));
            }
            await Programs.RunAsync(
                "qemu-io", "-f", "vmdk", "-r", "-c", "read -P 7 2146435072 3145728",
                "-c", "read -P 0 2149580800 65536", "-c",
                $"read -P 7 {Length - 512} 512", _folder[$"{subformat}.vmdk"]);
            await Programs.QemuImgAsync("convert", "-f", "vmdk", "-O", "vmdk", "-o", $"subformat={subformat}",
                _folder[$"{subformat}.vmdk"], _folder[$"q-{subformat}.vmdk"]);
            await using BlockNode theirs = await Images.OpenAsync(_folder[$"q-{subformat}.vmdk"]), ours = await Images.OpenAsync(
                _folder[$"{subformat}.vmdk"]);
            Assert.Null((await new CompareJob(theirs, ours, strict: false).RunAsync(null, CancellationToken.None)).FirstDifference);
        }
    }

    [OracleFact]
    public async Task A_chain_that_qemu_made_is_read_and_a_changed_parent_is_refused()
    {
        await Images.MakeRawAsync(_folder["base.raw"], 4 << 20, 3);
        await Programs.QemuImgAsync("convert", "-f", "raw", "-O", "vmdk", _folder["base.raw"], _folder["base.vmdk"]);
        await Programs.QemuImgAsync("create", "-f", "vmdk", "-b", "base.vmdk", "-F", "vmdk", _folder["mid.vmdk"]);
        await Programs.RunAsync("qemu-io", "-f", "vmdk", "-c", "write -P 9 1000000 5120", _folder["mid.vmdk"]);
        await Images.CreateAsync(_folder["top.vmdk"], "vmdk", "backing_file=mid.vmdk");
        await using (BlockNode top = await Images.OpenAsync(_folder["top.vmdk"], writable: true))
        {
            byte[] data = new byte[100_000];
            Array.Fill(data, (byte)3);
            await top.WriteAsync(2_000_000, data);
        }
        await Programs.QemuImgAsync("convert", "-f", "vmdk", "-O", "raw", _folder["top.vmdk"], _folder["theirs.raw"]);
        await Images.ConvertAsync(_folder["top.vmdk"], null, _folder["ours.raw"], "raw");
        DiskFormat.Same(await File.ReadAllBytesAsync(_folder["theirs.raw"]), await File.ReadAllBytesAsync(_folder["ours.raw"]));
        await using (BlockNode mid = await Images.OpenAsync(_folder["mid.vmdk"], writable: true))
        {
            await mid.WriteAsync(0, new byte[512]);
        }
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(() => Images.OpenAsync(_folder["top.vmdk"]));
        Assert.Contains("content identifier", error.Message, StringComparison.Ordinal);
        Assert.Contains("was written to after", error.Message, StringComparison.Ordinal);
        await using BlockNode ignoring = await Images.OpenAsync(_folder["top.vmdk"], options: "ignore_id_mismatch=on");
        Assert.Equal(4 << 20, ignoring.Length);
    }

    [OracleFact]
    public async Task Info_says_what_qemu_says()
    {
        await Images.CreateAsync(_folder["a.vmdk"], "vmdk", "size=64M,adapter_type=lsilogic,hwversion=9,toolsversion=7");
        string info = await Programs.QemuImgAsync("info", "--output=json", _folder["a.vmdk"]);
        await using BlockNode disk = await Images.OpenAsync(_folder["a.vmdk"]);
        var said = (DiskImage.Formats.Vmdk.VmdkInfo)disk.As<IDescribed>()!.Describe().FormatSpecific!;
        Assert.Equal(("monolithicSparse", "lsilogic", "9", "7"),
            (said.CreateType, said.AdapterType, said.HardwareVersion, said.ToolsVersion));
        Assert.Contains($"\"cid\": {uint.Parse(said.Cid, System.Globalization.NumberStyles.HexNumber, null)}", info,
            StringComparison.Ordinal);
        Assert.Contains("\"virtual-size\": 67108864", info, StringComparison.Ordinal);
    }

    [OracleFact]
    public async Task A_stream_is_the_same_bytes_with_any_number_of_workers_and_is_written_from_front_to_back()
    {
        await Images.MakeRawAsync(_folder["disk.raw"], Size, seed: 8);
        byte[]? first = null;
        foreach (int workers in new[] { 1, 2, 7 })
        {
            var file = new MemoryNode();
            var log = new WriteLogNode(file);
            var driver = Images.Registry.Format("vmdk");
            object options = ((DiskImage.Drivers.ICreatable)driver).CreateOptions.Bind(
                DiskImage.Options.OptionSchema.Split($"size={Size},subformat=streamOptimized"));
            Assert.True(driver.IsWrittenForward(options));
            await ((DiskImage.Drivers.ICreatable)driver).CreateAsync(new DiskImage.Drivers.FormatCreateContext(log, options),
                CancellationToken.None);
            BlockNode target = await new DiskFormat("vmdk").OpenAsync(log);
            await using (BlockNode source = await Images.OpenAsync(_folder["disk.raw"], "raw"))
            {
                await new ConvertJob(source, target, new ConvertOptions { Workers = workers }).RunAsync(null, CancellationToken.None);
            }
            await target.DisposeAsync();
            long at = 0;
            foreach (WriteLogEntry entry in log.Entries.Where(e => e.Kind == WriteLogKind.Write))
            {
                Assert.Equal(at, entry.Offset);
                at += entry.Length;
            }
            Assert.DoesNotContain(log.Entries, e => e.Kind is not (WriteLogKind.Write or WriteLogKind.Flush));
            byte[] made = file.ToArray();
            string text = System.Text.Encoding.ASCII.GetString(made, 512, 1024);
            int cid = text.IndexOf("\nCID=", StringComparison.Ordinal) + 5;
            made.AsSpan(512 + cid, 8).Clear(); // random
            first ??= made;
            DiskFormat.Same(first, made);
        }
    }
}
