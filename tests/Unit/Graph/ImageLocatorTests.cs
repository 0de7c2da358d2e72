using DiskImage.Block;
using DiskImage.Graph;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Graph;

public sealed class ImageLocatorTests
{
    [Theory]
    [InlineData("disk.qcow2", "file", "disk.qcow2")]
    [InlineData("/a/b c/d:e.img", "file", "/a/b c/d:e.img")]
    [InlineData("a:b.img", "file", "a:b.img")]
    [InlineData("C:\\disks\\a.vhd", "file", "C:\\disks\\a.vhd")]
    [InlineData("file:a.img", "file", "a.img")]
    [InlineData("file:/a/b.img", "file", "/a/b.img")]
    [InlineData("file:///a/b%20c.img", "file", "/a/b c.img")]
    [InlineData("file://localhost/a/b.img", "file", "/a/b.img")]
    [InlineData("file:///a/b.img?x#y", "file", "/a/b.img")]
    [InlineData("FILE:a.img", "file", "a.img")]
    [InlineData("nbd://host:10809/name", "nbd", "//host:10809/name")]
    [InlineData("http://host/a.iso?x=1", "http", "//host/a.iso?x=1")]
    [InlineData("nbd+unix://x", "nbd+unix", "//x")]
    [InlineData("{\"a\":1}", "file", "{\"a\":1}")]
    public void Tells_paths_from_addresses(string text, string scheme, string address)
    {
        ImageLocator locator = ImageLocator.Parse(text);
        Assert.Equal((scheme, address, text), (locator.Scheme, locator.Address, locator.Text));
        Assert.Equal(scheme.Equals("file", StringComparison.Ordinal), locator.IsFile);
        Assert.False(locator.IsDescription);
    }

    [Fact]
    public void Descriptions_in_json()
    {
        ImageLocator locator = ImageLocator.Parse("""json:{"driver":"qcow2","file":{"driver":"file","filename":"/a/b.img"},"l2-cache-size":"1M","discard":"ignore","backing":null}""");
        Assert.Equal(("file", "/a/b.img", "qcow2", true), (locator.Scheme, locator.Address, locator.Spec.Driver, locator.IsDescription));
        locator = ImageLocator.Parse("""json:{"driver":"raw","file.filename":"x.img","offset":512}""");
        Assert.Equal(("file", "x.img", "raw"), (locator.Scheme, locator.Address, locator.Spec.Driver));
        locator = ImageLocator.Parse("""json:{"driver":"raw","file":{"driver":"null-co","size":512}}""");
        Assert.Equal(("null-co", "", false), (locator.Scheme, locator.Address, locator.IsFile));
    }

    [Theory]
    [InlineData("")]
    [InlineData("   ")]
    [InlineData("file://[")]
    [InlineData("file://")]
    [InlineData("file://host")]
    [InlineData("file:///a%00b")]
    [InlineData("json:")]
    [InlineData("json:{")]
    [InlineData("json:[]")]
    [InlineData("json:7")]
    [InlineData("json:null")]
    [InlineData("json:\"x\"")]
    [InlineData("json:{\"file\":{\"filename\":\"\"}}")]
    [InlineData("json:{\"file\":{\"filename\":7}}x")]
    [InlineData("a\0b")]
    [InlineData("file:")]
    [InlineData("json:{\"file\":{\"filename\":\"\\ud800\"}}")]
    [InlineData("json:{\"\\udc00\":1,\"filename\":\"a\"}")]
    [InlineData("json:{\"filename\":\"a\\u0000b\"}")]
    [InlineData("json:{\"filename\":\" \"}")]
    public void What_is_not_understood_is_an_option_error(string text)
        => Assert.Equal(DiskImageErrorKind.InvalidOption, Assert.Throws<DiskImageException>(() => ImageLocator.Parse(text)).Kind);

    /// <summary>Whatever stands in an image: only errors of the library come of it, from parsing, the gate and the opening.</summary>
    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    public async Task Odd_names_do_no_more_than_fail(int seed)
    {
        string[] parts =
        [
            "file:", "file://", "file:///", "json:", "json:{", "{\"driver\":", "\"file\":{\"filename\":\"", "\"}}", "\\ud800", "\\u0000",
            "%00", "%ff", "%",
            "[",
            "]",
            "://",
            "//",
            "\\\\?\\",
            "\\\\.\\",
            "C:",
            ":",
            "..",
            "/",
            "\\",
            "\0",
            "\ud800",
            "\udfff",
            "\u202e",
            "\u001b]0;",
            "\n",
            "*",
            "?",
            "#",
            "~",
            " ",
            "nbd",
            "a",
            new string('x', 300), new string('y', 5000),
        ];
        var random = new Random(seed);
        using var folder = new TestFolder();
        foreach (ReferenceScope scope in Enum.GetValues<ReferenceScope>())
        {
            var policy = new OpenPolicy { References = scope };
            var opener = new ImageOpener(Images.Registry, policy);
            for (int i = 0; i < 400; i++)
            {
                string name = string.Concat(Enumerable.Range(0, random.Next(1, 6)).Select(_ => parts[random.Next(parts.Length)]));
                try
                {
                    _ = policy.Naming(name, folder["image"]).Admit(name, folder["image"]);
                    await using OpenedImage image = await opener.OpenReferenceAsync(
                        folder["image"], name, null, [new ChainLink(folder["image"], null)], CancellationToken.None);
                }
                catch (DiskImageException e)
                {
                    Assert.DoesNotContain(e.Message, char.IsControl);
                }
                catch (Exception e)
                {
                    Assert.Fail($"seed {seed}, {scope}, name {string.Join(' ', name.Select(c => ((int)c).ToString("x4", null)))}: {e}");
                }
            }
        }
    }

    [Fact]
    public async Task Json_opens_with_its_options()
    {
        using var folder = new TestFolder();
        byte[] file = new byte[5000];
        new Random(1).NextBytes(file);
        await File.WriteAllBytesAsync(folder["a.raw"], file);
        string path = folder["a.raw"].Replace("\\", "\\\\", StringComparison.Ordinal);
        await using BlockNode disk = await Images.OpenAsync($$$"""json:{"driver":"raw","offset":512,"size":"1k","file":{"driver":"file","filename":"{{{path}}}"}}""");
        byte[] read = new byte[1024];
        await disk.ReadAsync(0, read);
        Assert.Equal(1024, disk.Length);
        Assert.Equal(file[512..1536], read);
    }

    [Fact]
    public void Relative_names_are_taken_from_the_folder_of_the_image()
    {
        string folder = Path.GetFullPath(Path.Combine(Path.GetTempPath(), "images"));
        Assert.Equal(Path.Combine(folder, "base.img"), ImageLocator.Parse("base.img").From(folder).Address);
        string full = Path.Combine(folder, "x", "base.img");
        Assert.Equal(full, ImageLocator.Parse(full).From(Path.GetTempPath()).Address);
        Assert.Equal("//host/x", ImageLocator.Parse("nbd://host/x").From(folder).Address);
    }

    [Fact]
    public void A_file_of_another_host_is_none_of_this_one()
    {
        if (OperatingSystem.IsWindows())
        {
            Assert.Equal("//server/a/b.raw", ImageLocator.Parse("file://server/a/b.raw").Address);
            return;
        }
        DiskImageException error = Assert.Throws<DiskImageException>(() => ImageLocator.Parse("file://server/a/b.raw"));
        Assert.Equal(DiskImageErrorKind.InvalidOption, error.Kind);
        Assert.Contains("the host 'server'", error.Message, StringComparison.Ordinal);
        Assert.Equal("/a/b.raw", ImageLocator.Parse("file://localhost/a/b.raw").Address);
    }
}
