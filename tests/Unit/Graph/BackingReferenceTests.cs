using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Graph;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Graph;

public sealed class BackingReferenceTests : IDisposable
{
    private readonly TestFolder _folder = new();
    private readonly ImageOpener _opener = new(BuiltInDrivers.CreateRegistry(), new OpenPolicy { References = ReferenceScope.LocalFiles });

    public void Dispose() => _folder.Dispose();

    [Fact]
    public async Task A_relative_name_is_taken_from_the_new_image_and_stays_as_it_is()
    {
        Directory.CreateDirectory(_folder["sub"]);
        File.WriteAllBytes(_folder["base.raw"], new byte[4096]);
        BackingReference backing = await ResolveAsync(_folder["sub/top.qcow2"], "../base.raw");
        Assert.Equal(new BackingReference("../base.raw", "raw", 4096, WasProbed: true), backing);
    }

    [Fact]
    public async Task A_given_format_is_not_probed()
    {
        File.WriteAllBytes(_folder["base.raw"], new byte[1024]);
        BackingReference backing = await ResolveAsync(_folder["top.qcow2"], "base.raw", "raw");
        Assert.False(backing.WasProbed);
    }

    [Fact]
    public async Task A_missing_file_is_NotFound()
        => Assert.Equal(DiskImageErrorKind.NotFound, await KindAsync(_folder["top.qcow2"], "nowhere.raw"));

    [Fact]
    public async Task A_name_that_is_in_the_current_folder_only_is_said_to_be_there()
    {
        Directory.CreateDirectory(_folder["sub"]);
        File.WriteAllBytes(_folder["base.raw"], new byte[4096]);
        var error = await Assert.ThrowsAsync<DiskImageException>(
            async () => await ResolveAsync(_folder["sub/top.qcow2"], "base.raw", currentFolder: _folder.Root));
        Assert.Equal(DiskImageErrorKind.NotFound, error.Kind);
        Assert.Contains($"'{Path.Combine("..", "base.raw")}' or '{_folder["base.raw"]}'", error.Message, StringComparison.Ordinal);
        error = await Assert.ThrowsAsync<DiskImageException>(
            async () => await ResolveAsync(_folder["sub/top.qcow2"], "nowhere.raw", currentFolder: _folder.Root));
        Assert.DoesNotContain("current folder", error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("a:b.raw", "./a:b.raw")]
    [InlineData("sub/a:b.raw", "sub/a:b.raw")]
    [InlineData("./a:b.raw", "./a:b.raw")]
    [InlineData("rbd:c.raw", "./rbd:c.raw")]
    [InlineData("plain.raw", "plain.raw")]
    public async Task A_colon_is_kept_from_looking_like_a_protocol(string name, string recorded)
    {
        if (OperatingSystem.IsWindows())
        {
            return; // there it is a drive or a stream
        }
        Directory.CreateDirectory(_folder["sub"]);
        File.WriteAllBytes(_folder[name], new byte[4096]);
        Assert.Equal(recorded, (await ResolveAsync(_folder["top.qcow2"], name)).Name);
        Assert.Equal(recorded, BackingReference.Unseen(name, "raw").Name);
    }

    [Fact]
    public async Task The_new_image_itself_is_refused()
    {
        File.WriteAllBytes(_folder["top.qcow2"], new byte[1024]);
        Assert.Equal(DiskImageErrorKind.InvalidOption, await KindAsync(_folder["top.qcow2"], "top.qcow2"));
    }

    [Fact]
    public async Task The_policy_decides_what_may_be_named()
        => Assert.Equal(DiskImageErrorKind.Refused, await KindAsync(_folder["top.qcow2"], "nbd://server/disk"));

    [Fact]
    public async Task A_chain_that_leads_to_the_new_image_is_refused()
    {
        File.WriteAllBytes(_folder["top.raw"], new byte[65536]);
        await MakeAsync("middle.qcow2", "top.raw");
        Assert.Equal(DiskImageErrorKind.InvalidOption, await KindAsync(_folder["top.raw"], "middle.qcow2"));
    }

    [Fact]
    public async Task A_format_without_backing_images_says_so()
    {
        File.WriteAllBytes(_folder["base.raw"], new byte[1024]);
        BackingReference backing = await ResolveAsync(_folder["top.raw"], "base.raw");
        var error = Assert.Throws<DiskImageException>(() => backing.OptionsFor(_opener.Registry.Format("raw")).ToList());
        Assert.Equal(DiskImageErrorKind.Unsupported, error.Kind);
    }

    [Fact]
    public async Task A_new_image_is_written_on_its_backing_image()
    {
        byte[] old = new byte[65536];
        Array.Fill(old, (byte)7);
        File.WriteAllBytes(_folder["base.raw"], old);
        await MakeAsync("top.qcow2", "base.raw", node => node.WriteAsync(512, new byte[512]));

        await using OpenedImage top = await _opener.OpenAsync(new OpenRequest(_folder["top.qcow2"]), default);
        byte[] read = new byte[old.Length];
        await top.Node.ReadAsync(0, read);
        Array.Clear(old, 512, 512);
        Assert.Equal(old, read);
    }

    private async Task MakeAsync(string name, string backingName, Func<BlockNode, ValueTask>? write = null)
    {
        FormatDriver format = _opener.Registry.Format("qcow2");
        BackingReference backing = await ResolveAsync(_folder[name], backingName);
        object options = ((ICreatable)format).CreateOptions.Bind(backing.OptionsFor(format).Append(new("size", backing.Length)));
        await using NewImage image = await new ImageCreator(_opener).CreateAsync(
            _folder[name], format, options, replace: false, null, default);
        if (write is not null)
        {
            await write(image.Node);
        }
        await image.CompleteAsync(durable: false, default);
    }

    private ValueTask<BackingReference> ResolveAsync(string imagePath, string name, string? format = null, string? currentFolder = null)
        => BackingReference.ResolveAsync(_opener, imagePath, name, format, currentFolder, default);

    private async Task<DiskImageErrorKind> KindAsync(string imagePath, string name)
        => (await Assert.ThrowsAsync<DiskImageException>(async () => await ResolveAsync(imagePath, name))).Kind;
}
