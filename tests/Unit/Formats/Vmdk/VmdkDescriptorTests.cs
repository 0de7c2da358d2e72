using System.Globalization;
using System.Text;
using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Formats.Vmdk;
using DiskImage.Graph;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Vmdk;

/// <summary>Descriptors as programs write them, and as nobody should.</summary>
public sealed class VmdkDescriptorTests : IDisposable
{
    private const string Start = "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n";

    private readonly TestFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    public static TheoryData<string> Spellings() =>
    [
        "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\nRW 16 FLAT \"a-flat.vmdk\" 0\n",
        "#disk descriptorfile\r\nVERSION = 3\r\ncid=ABCDEF01\r\nPARENTCID = FFFFFFFF\r\ncreatetype = \"monolithicFlat\"\r\n\r\n  rw   16\tflat  \"a-flat.vmdk\"   0  \r\n",
        "\n# a comment\n\n#   Disk DescriptorFile\nversion=1\nCID=1\n# another\nparentCID=ffffffff\nRW 16 FLAT a-flat.vmdk 0\n",
        "\uFEFF# Disk DescriptorFile\nversion=2\nCID=00000001\nparentCID=ffffffff\nisNativeSnapshot=\"no\"\nRW 16 VMFS \"a-flat.vmdk\"",
        "version=1\nCID=00000001\nparentCID=ffffffff\nRW 8 FLAT \"a-flat.vmdk\" 0\nRW 8 FLAT \"a-flat.vmdk\" 8\n",
    ];

    [Theory]
    [MemberData(nameof(Spellings))]
    public async Task Are_read_however_they_are_spelt(string text)
    {
        byte[] contents = new byte[16 * 512];
        new Random(1).NextBytes(contents);
        await File.WriteAllBytesAsync(_folder["a-flat.vmdk"], contents);
        await File.WriteAllTextAsync(_folder["a.vmdk"], text, new UTF8Encoding(false));
        await using BlockNode disk = await Images.OpenAsync(_folder["a.vmdk"]);
        byte[] read = new byte[disk.Length];
        await disk.ReadAsync(0, read);
        DiskFormat.Same(contents, read);
    }

    [Fact]
    public async Task A_change_keeps_every_other_line()
    {
        const string Text = "# Disk DescriptorFile\r\n# by hand\r\nversion=1\r\nCID=00000001\r\nparentCID=ffffffff\r\ncreateType=\"monolithicFlat\"\r\n\r\nRW 16 FLAT \"a-flat.vmdk\" 0\r\n"
            + "\r\nddb.uuid = \"60 00 c2 91\"\r\nddb.longContentID = \"0123456789abcdef0123456700000001\"\r\nddb.strange = \"kept\"\r\n";
        await File.WriteAllBytesAsync(_folder["a-flat.vmdk"], new byte[16 * 512]);
        await File.WriteAllTextAsync(_folder["a.vmdk"], Text);
        await using (BlockNode disk = await Images.OpenAsync(_folder["a.vmdk"], writable: true))
        {
            await disk.FlushAsync();
        }
        Assert.Equal(Text, await File.ReadAllTextAsync(_folder["a.vmdk"])); // opening changes nothing
        await using (BlockNode disk = await Images.OpenAsync(_folder["a.vmdk"], writable: true))
        {
            await disk.WriteAsync(0, new byte[] { 1 });
            await disk.ResizeAsync(20 * 512);
        }
        string now = await File.ReadAllTextAsync(_folder["a.vmdk"]);
        string cid = now[(now.IndexOf("\nCID=", StringComparison.Ordinal) + 5)..][..8];
        Assert.False(cid.Equals("00000001", StringComparison.Ordinal));
        Assert.Equal(Text.Replace("00000001", cid, StringComparison.Ordinal).Replace("RW 16", "RW 20", StringComparison.Ordinal), now);
    }

    [Theory]
    [InlineData("windows-1252", "Größe-flat.vmdk")]
    [InlineData("Shift_JIS", "ディスク-flat.vmdk")]
    [InlineData("GBK", "磁盘-flat.vmdk")]
    [InlineData("UTF-8", "диск-flat.vmdk")]
    [InlineData(null, "Größe-flat.vmdk")]
    public async Task Names_are_of_the_encoding_that_is_named(string? encoding, string name)
    {
        await File.WriteAllBytesAsync(_folder[name], Enumerable.Repeat((byte)7, 512).ToArray());
        string text = $"# Disk DescriptorFile\nversion=1\n{(encoding is null ? "" : $"encoding=\"{encoding}\"\n")}CID=1\nparentCID=ffffffff\nRW 1 FLAT \"{name}\" 0\n";
        byte[] bytes = (CodePagesEncodingProvider.Instance.GetEncoding(encoding ?? "windows-1252") ?? Encoding.UTF8).GetBytes(text);
        await File.WriteAllBytesAsync(_folder["a.vmdk"], bytes);
        await using (BlockNode disk = await Images.OpenAsync(_folder["a.vmdk"], writable: true))
        {
            byte[] one = new byte[1];
            await disk.ReadAsync(5, one);
            Assert.Equal(7, one[0]);
            await disk.WriteAsync(0, one);
        }
        await using BlockNode again = await Images.OpenAsync(_folder["a.vmdk"]); // still in its encoding
        Assert.Equal(512, again.Length);
    }

    [Theory]
    [InlineData("RW 16 FLAT \"/dev/sda\" 0", DiskImageErrorKind.Unsupported, "device")]
    [InlineData("RW 16 FLAT \"\\\\.\\PhysicalDrive0\" 0", DiskImageErrorKind.Unsupported, "device")]
    [InlineData("RW 16 VMFSRDM \"a-rdm.vmdk\"", DiskImageErrorKind.Unsupported, "device")]
    [InlineData("RW 16 VMFSRAW \"a-raw.vmdk\"", DiskImageErrorKind.Unsupported, "device")]
    [InlineData("createType=\"vmfsRawDeviceMap\"\nRW 16 VMFS \"a-flat.vmdk\"", DiskImageErrorKind.Unsupported, "device")]
    [InlineData("createType=\"fullDevice\"\nRW 16 FLAT \"a-flat.vmdk\" 0", DiskImageErrorKind.Unsupported, "device")]
    [InlineData("RW 16 FLAT \"../out.raw\" 0", DiskImageErrorKind.Refused, "leads out")]
    [InlineData("RW 16 FLAT \"/etc/passwd\" 0", DiskImageErrorKind.Refused, "leads out")]
    [InlineData("RW 16 FLAT \"link.raw\" 0", DiskImageErrorKind.Refused, "leads out")]
    [InlineData("RW 16 FLAT \"file:///etc/passwd\" 0", DiskImageErrorKind.NotFound, "cannot be opened")]
    [InlineData("RW 16 FLAT \"json:{'driver':'null-co'}\" 0", DiskImageErrorKind.NotFound, "cannot be opened")]
    [InlineData("RW 16 FLAT \"null-co://\" 0", DiskImageErrorKind.NotFound, "cannot be opened")]
    [InlineData("RW 16 FLAT \"nbd://127.0.0.1/x\" 0", DiskImageErrorKind.NotFound, "cannot be opened")]
    [InlineData("RW 16 FLAT \"C:\\VMs\\a-flat.vmdk\" 0", DiskImageErrorKind.NotFound, "drive")]
    [InlineData("RW 16 FLAT \"missing.vmdk\" 0", DiskImageErrorKind.NotFound, "missing.vmdk")]
    [InlineData("RW 16 SPARSE \"a.vmdk\"", DiskImageErrorKind.Corrupt, "the descriptor itself")]
    [InlineData("RW 16 SPARSE \"a-flat.vmdk\"", DiskImageErrorKind.InvalidFormat, "KDMV")]
    [InlineData("RW x FLAT \"a-flat.vmdk\" 0", DiskImageErrorKind.Corrupt, "number of sectors")]
    [InlineData("RW 99999999999999999999 FLAT \"a-flat.vmdk\" 0", DiskImageErrorKind.Corrupt, "number of sectors")]
    [InlineData("RW 16 FLAT \"a-flat.vmdk\" 99999999999999999999", DiskImageErrorKind.Corrupt, "no sector")]
    [InlineData("RW 16 FLAT", DiskImageErrorKind.Corrupt, "no file name")]
    [InlineData("RW 16 QUILT \"a\"", DiskImageErrorKind.Unsupported, "QUILT")]
    [InlineData("RW 60000000000000 ZERO\nRW 60000000000000 ZERO", DiskImageErrorKind.Corrupt, "together")]
    [InlineData("CIDX=1", DiskImageErrorKind.Corrupt, "lists no extents")]
    [InlineData("RW 16 FLAT \"a-flat.vmdk\" 0\nRW 16 FLAT \"./a-flat.vmdk\" 16\nRW 16 FLAT \"b/../a-flat.vmdk\" 0", DiskImageErrorKind.Corrupt, "another name")]
    public async Task What_cannot_be_or_must_not_be_opened_is_refused(string lines, DiskImageErrorKind kind, string message)
    {
        if (OperatingSystem.IsWindows() && (lines.Contains('/', StringComparison.Ordinal) || lines.Contains("C:", StringComparison.Ordinal)))
        {
            return; // paths of another system
        }
        Directory.CreateDirectory(_folder["in/b"]);
        await File.WriteAllBytesAsync(_folder["out.raw"], new byte[16 * 512]);
        await File.WriteAllBytesAsync(_folder["in/a-flat.vmdk"], new byte[48 * 512]);
        File.CreateSymbolicLink(_folder["in/link.raw"], _folder["out.raw"]);
        await File.WriteAllTextAsync(_folder["in/a.vmdk"], Start + lines + "\n");
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(() => Images.OpenAsync(_folder["in/a.vmdk"]));
        Assert.True(kind == error.Kind, $"{error.Kind}: {error.Message}");
        Assert.Contains(message, error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Extents_outside_the_folder_open_where_the_user_allows_it()
    {
        Directory.CreateDirectory(_folder["in"]);
        await File.WriteAllBytesAsync(_folder["out.raw"], new byte[16 * 512]);
        await File.WriteAllTextAsync(_folder["in/a.vmdk"], Start + "RW 16 FLAT \"..\\out.raw\" 0\n");
        await using BlockNode disk = await Images.OpenAsync(_folder["in/a.vmdk"], policy: new OpenPolicy { References = ReferenceScope.LocalFiles });
        Assert.Equal(16 * 512, disk.Length);
    }

    [Fact]
    public async Task Extents_that_are_zero_read_only_or_not_accessible_are_just_that()
    {
        await File.WriteAllBytesAsync(_folder["a-flat.vmdk"], Enumerable.Repeat((byte)7, 1024).ToArray());
        await File.WriteAllTextAsync(_folder["a.vmdk"], Start + "RW 1 FLAT \"a-flat.vmdk\" 1\nRW 2 ZERO\nRDONLY 1 FLAT \"a-flat.vmdk\" 0\nNOACCESS 3 ZERO\n");
        await using BlockNode disk = await Images.OpenAsync(_folder["a.vmdk"], writable: true);
        Assert.Equal(7 * 512, disk.Length);
        byte[] read = new byte[4 * 512];
        await disk.ReadAsync(0, read);
        Assert.True(read.AsSpan(0, 512).IndexOfAnyExcept((byte)7) < 0 && read.AsSpan(512, 1024).IndexOfAnyExcept((byte)0) < 0 && read[^1] == 7);
        await disk.WriteAsync(0, new byte[512]);
        Assert.Equal(DiskImageErrorKind.ReadOnly, (await Assert.ThrowsAsync<DiskImageException>(async () => await disk.WriteAsync(3 * 512, new byte[1]))).Kind);
        Assert.Equal(DiskImageErrorKind.ReadOnly, (await Assert.ThrowsAsync<DiskImageException>(async () => await disk.WriteAsync(512, new byte[] { 1 }))).Kind);
        Assert.Equal(DiskImageErrorKind.AccessDenied, (await Assert.ThrowsAsync<DiskImageException>(async () => await disk.ReadAsync(4 * 512, read.AsMemory(0, 1)))).Kind);
    }

    [Fact]
    public async Task Descriptors_without_end_and_extents_by_the_million_take_no_time()
    {
        var format = new DiskFormat("vmdk");
        string many = Start + string.Concat(Enumerable.Range(0, 1_000_000).Select(i => $"RW 1 ZERO {i.ToString(CultureInfo.InvariantCulture)}\n"));
        Assert.Contains("2,097,152", (await RefusedAsync(Encoding.ASCII.GetBytes(many))).Message, StringComparison.Ordinal);
        string full = Start + string.Concat(Enumerable.Repeat("RW 1 ZERO\n", 10_000));
        Assert.Contains("8,192", (await RefusedAsync(Encoding.ASCII.GetBytes(full))).Message, StringComparison.Ordinal);
        await using (FileStream huge = File.Create(_folder["huge.vmdk"]))
        {
            await huge.WriteAsync(Encoding.ASCII.GetBytes(Start + string.Concat(Enumerable.Repeat(new string('x', 100) + "\n", 30_000))));
            huge.SetLength(1L << 30);
        }
        Assert.Equal(DiskImageErrorKind.Corrupt, (await Assert.ThrowsAsync<DiskImageException>(() => Images.OpenAsync(_folder["huge.vmdk"]))).Kind);
        async Task<DiskImageException> RefusedAsync(byte[] bytes)
            => await Assert.ThrowsAsync<DiskImageException>(async () => await format.OpenAsync(new MemoryNode(bytes, readOnly: true)));
    }

    [Fact]
    public async Task A_part_of_a_split_disk_opens_alone_and_says_what_it_is()
    {
        await Images.CreateAsync(_folder["a.vmdk"], "vmdk", "size=1M,subformat=twoGbMaxExtentSparse");
        await using BlockNode part = await Images.OpenAsync(_folder["a-s001.vmdk"]);
        Assert.Equal(1 << 20, part.Length);
        Assert.Contains("descriptor", part.As<IDescribed>()!.Describe().Warnings[0], StringComparison.Ordinal);
    }

    [Fact]
    public async Task Options_are_changed_in_place()
    {
        await Images.CreateAsync(_folder["a.vmdk"], "vmdk", "size=1M");
        var driver = (IAmendable)Images.Registry.Format("vmdk");
        await using (BlockNode disk = await Images.OpenAsync(_folder["a.vmdk"], writable: true))
        {
            await driver.AmendAsync(
                disk, driver.AmendOptions.Bind(DiskImage.Options.OptionSchema.Split("adapter_type=lsilogic,hwversion=13,toolsversion=99,cid=0badcafe")), null, CancellationToken.None);
            foreach (string wrong in new[] { "cid=xyz", "cid=ffffffff", "parent_path=b.vmdk" })
            {
                Assert.Equal(DiskImageErrorKind.InvalidOption, (await Assert.ThrowsAsync<DiskImageException>(async () => await driver.AmendAsync(
                    disk, driver.AmendOptions.Bind(DiskImage.Options.OptionSchema.Split(wrong)), null, CancellationToken.None))).Kind);
            }
        }
        await using BlockNode again = await Images.OpenAsync(_folder["a.vmdk"]);
        var info = (VmdkInfo)again.As<IDescribed>()!.Describe().FormatSpecific!;
        Assert.Equal(("lsilogic", "13", "99", "0badcafe"), (info.AdapterType, info.HardwareVersion, info.ToolsVersion, info.Cid));
    }
}
