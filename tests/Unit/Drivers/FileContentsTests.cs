using System.Text;
using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Graph;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Drivers;

/// <summary>What passes for raw, what it is called, and what may be done with it.</summary>
public sealed class FileContentsTests : IDisposable
{
    private readonly TestFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    public static TheoryData<string, int, byte[], ContentsKind, string> Signatures => new()
    {
        { "apple", 0, "sprs"u8.ToArray(), ContentsKind.Container, "Apple" },
        { "wim", 0, "MSWIM\0\0\0"u8.ToArray(), ContentsKind.Container, "WIM" },
        { "gzip", 0, [0x1F, 0x8B, 8, 0], ContentsKind.NoDisk, "gzip" },
        { "xz", 0, [0xFD, (byte)'7', (byte)'z', (byte)'X', (byte)'Z', 0], ContentsKind.NoDisk, "xz" },
        { "zstd", 0, [0x28, 0xB5, 0x2F, 0xFD], ContentsKind.NoDisk, "zstd" },
        { "bzip2", 0, [.. "BZh9"u8, 0x31, 0x41, 0x59, 0x26, 0x53, 0x59], ContentsKind.NoDisk, "bzip2" },
        { "7z", 0, [(byte)'7', (byte)'z', 0xBC, 0xAF, 0x27, 0x1C], ContentsKind.NoDisk, "7z" },
        { "zip", 0, "PK\u0003\u0004"u8.ToArray(), ContentsKind.NoDisk, "zip" },
        { "tar", 257, "ustar\0"u8.ToArray(), ContentsKind.NoDisk, "tar" },
        { "html", 0, "\n <!DOCTYPE html><html><head>"u8.ToArray(), ContentsKind.NoDisk, "HTML" },
        { "iso", 32768, "\u0001CD001\u0001"u8.ToArray(), ContentsKind.Disc, "ISO 9660" },
        { "mbr", 510, [0x55, 0xAA], ContentsKind.PartitionedDisk, "partition" },
        { "gpt", 512, "EFI PART"u8.ToArray(), ContentsKind.PartitionedDisk, "partition" },
        { "other", 100, [1, 2, 3], ContentsKind.Unknown, "nothing" },
    };

    [Theory]
    [MemberData(nameof(Signatures))]
    public async Task Are_known_by_their_signatures(string what, int at, byte[] signature, ContentsKind kind, string description)
    {
        FileContents contents = await ContentsAsync(File(at, signature));
        Assert.True(contents.Kind == kind, $"{what}: {contents.Kind}");
        Assert.Contains(description, contents.Description, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("hello\r\n\tworld äöü", true)]
    [InlineData("\ufeffhello", true)]
    [InlineData("\u0001hello", false)]
    public async Task Text_has_no_control_characters(string text, bool isText)
    {
        Assert.Equal(isText ? ContentsKind.Text : ContentsKind.Unknown, (await ContentsAsync(Encoding.UTF8.GetBytes(text))).Kind);
        Assert.Equal(
            ContentsKind.Text, (await ContentsAsync([.. Encoding.Unicode.GetPreamble(), .. Encoding.Unicode.GetBytes(text)])).Kind);
        byte[] latin = Encoding.Latin1.GetBytes(new string('ä', 100) + " "); // is no UTF-8
        Assert.Equal(ContentsKind.Unknown, (await ContentsAsync(latin)).Kind);
        // a character is cut
        Assert.Equal(ContentsKind.Text, (await ContentsAsync(Encoding.UTF8.GetBytes('x' + new string('漢', 2000)))).Kind);
    }

    [Fact]
    public async Task An_empty_file_is_empty() => Assert.Equal(ContentsKind.Empty, (await ContentsAsync([])).Kind);

    [Theory]
    [MemberData(nameof(Signatures))]
    public async Task Are_refused_or_told(string what, int at, byte[] signature, ContentsKind kind, string description)
    {
        foreach (string ending in new[] { "", ".txt", ".raw", ".iso", ".qcow2", ".vmdk" })
        {
            string path = _folder[what + ending];
            byte[] bytes = File(at, signature);
            await System.IO.File.WriteAllBytesAsync(path, bytes);
            bool isRaw = ending is ".raw" or ".iso", promises = ending is ".qcow2" or ".vmdk";
            bool isForeign = kind == ContentsKind.Container || (kind == ContentsKind.Disc && promises);
            DiskImageErrorKind? reading = isForeign ? DiskImageErrorKind.Unsupported : null;
            DiskImageErrorKind? writing = reading
                ?? (promises || kind == ContentsKind.NoDisk || (!isRaw && kind != ContentsKind.PartitionedDisk)
                ? DiskImageErrorKind.InvalidFormat : null);
            bool warns = !isForeign && (promises || kind == ContentsKind.NoDisk);

            Assert.Equal((reading, warns), await OpenAsync(path, writable: false, before: false, description));
            Assert.Equal((writing, false), await OpenAsync(path, writable: true, before: false, description));
            Assert.Equal((writing, false), await OpenAsync(path, writable: false, before: true, description));
            foreach (bool writable in new[] { false, true })
            {
                await using BlockNode disk = await Images.OpenAsync(path, "raw", writable);
                Assert.Equal(bytes.Length, disk.Length);
            }
            Assert.Equal(bytes, await System.IO.File.ReadAllBytesAsync(path));
        }
    }

    [Theory]
    [InlineData("a.qcow2", "vhdx", "it looks like a qcow2 image", "the format qcow2")]
    [InlineData("a.wim", "qcow2", "is not a qcow2 image; it looks like a Windows image (WIM)", "")]
    [InlineData("a.txt", "vpc", "is not a vpc image; it looks like text", "")]
    [InlineData("empty", "qcow2", "is not a qcow2 image; it looks like an empty file", "")]
    [InlineData("noise", "qcow2", "noise", "")]
    public async Task A_named_format_that_is_not_there_is_told_with_what_is(string name, string format, string message, string wayOut)
    {
        await Images.CreateAsync(_folder["a.qcow2"], "qcow2", "size=1M");
        await System.IO.File.WriteAllBytesAsync(_folder["a.wim"], File(0, "MSWIM\0\0\0"u8.ToArray()));
        await System.IO.File.WriteAllTextAsync(_folder["a.txt"], "hello");
        await System.IO.File.WriteAllBytesAsync(_folder["empty"], []);
        await System.IO.File.WriteAllBytesAsync(_folder["noise"], File(0, [1, 2, 3]));
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(() => Images.OpenAsync(_folder[name], format));
        Assert.Equal(DiskImageErrorKind.InvalidFormat, error.Kind);
        Assert.Contains(message, error.Message, StringComparison.Ordinal);
        Assert.Contains(wayOut, error.Message, StringComparison.Ordinal);
    }

    private static async Task<(DiskImageErrorKind? Refused, bool Warned)> OpenAsync(
        string path, bool writable, bool before, string description)
    {
        var said = new List<string>();
        try
        {
            var opener = new ImageOpener(Images.Registry, OpenPolicy.Default, text => said.Add(text.ToString()));
            await using OpenedImage image = await opener.OpenAsync(
                new OpenRequest(path) { Writable = writable, BeforeWriting = before, Role = ImageRole.Difference }, CancellationToken.None);
            Assert.Equal(("raw", true), (image.Format.Name, image.WasProbed));
            Assert.All(said, s => Assert.Contains(description, s, StringComparison.Ordinal));
            return (null, said.Count > 0);
        }
        catch (DiskImageException e)
        {
            Assert.Contains(description, e.Message, StringComparison.Ordinal);
            Assert.Contains("the format raw of the other image", e.Message, StringComparison.Ordinal);
            return (e.Kind, said.Count > 0);
        }
    }

    private static byte[] File(int at, byte[] signature)
    {
        byte[] file = new byte[65536];
        file[3] = 0xFF; // no text
        signature.CopyTo(file, at);
        return file;
    }

    private static async Task<FileContents> ContentsAsync(byte[] contents)
        => (await Images.Registry.ProbeAsync(new MemoryNode(contents, readOnly: true), CancellationToken.None)).Contents!;
}
