using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Graph;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Graph;

/// <summary>
/// A file is the same whatever it is called: by way of a linked folder, a link, a hard link, another case where that does not matter.
/// </summary>
public sealed class SameFileTests : IDisposable
{
    private readonly TestFolder _folder = new();

    public SameFileTests()
    {
        Directory.CreateDirectory(_folder["d1"]);
        File.WriteAllBytes(_folder["d1/base.raw"], new byte[65536]);
    }

    public static TheoryData<string> Names => ["d1/./base.raw", "d1/../d1/base.raw", "d2/base.raw", "link.raw", "hard.raw", "far.raw"];

    public void Dispose() => _folder.Dispose();

    [LinksTheory]
    [MemberData(nameof(Names))]
    public async Task One_file_has_one_identity(string name)
    {
        MakeLinks();
        NodeIdentity? identity = Images.Opener.IdentityOf(_folder["d1/base.raw"]);
        Assert.NotNull(identity);
        Assert.Equal(identity, Images.Opener.IdentityOf(_folder[name]));
        await using BlockNode node = await Images.OpenAsync(_folder[name], "raw");
        Assert.Equal(identity, node.HolderIdentity());
        Assert.Equal(identity, node.FindSame(identity)?.Identity);

        File.WriteAllBytes(_folder["d1/other.raw"], new byte[65536]);
        Assert.NotEqual(identity, Images.Opener.IdentityOf(_folder["d1/other.raw"]));
        Assert.Null(Images.Opener.IdentityOf(_folder["d1/nowhere.raw"]));
        Assert.Null(node.FindSame(null));
    }

    [LinksTheory]
    [MemberData(nameof(Names))]
    public async Task An_image_cannot_be_its_own_backing_image(string name)
    {
        MakeLinks();
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(async () =>
            await BackingReference.ResolveAsync(Images.Opener, _folder[name], _folder["d1/base.raw"], null, null, CancellationToken.None));
        Assert.Equal(DiskImageErrorKind.InvalidOption, error.Kind);
    }

    [LinksTheory]
    [MemberData(nameof(Names))]
    public async Task Nor_can_its_backing_images_data_file_be_it(string name)
    {
        MakeLinks();
        File.Delete(_folder["d1/base.raw"]);
        await Images.CreateAsync(_folder["d1/top.qcow2"], "qcow2", "size=64k,data_file=base.raw,data_file_raw=on");
        if (name.Equals("hard.raw", StringComparison.Ordinal))
        {
            await Programs.RunAsync("ln", "-f", _folder["d1/base.raw"], _folder[name]); // the one that was made is another file
        }
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(async () =>
            await BackingReference.ResolveAsync(Images.Opener, _folder[name], _folder["d1/top.qcow2"], null, null, CancellationToken.None));
        Assert.Equal(DiskImageErrorKind.InvalidOption, error.Kind);
    }

    [LinksTheory]
    [InlineData("d2/a.qcow2")]
    [InlineData("hard.qcow2")]
    [InlineData("d1/./a.qcow2")]
    public async Task A_chain_that_leads_back_by_another_name_has_no_contents(string name)
    {
        MakeLinks();
        await Images.CreateAsync(_folder["d1/a.qcow2"], "qcow2", "size=64k");
        await Programs.RunAsync("ln", _folder["d1/a.qcow2"], _folder["hard.qcow2"]);
        await Images.CreateAsync(_folder["b.qcow2"], "qcow2", $"size=64k,backing_file={name},backing_fmt=qcow2");
        await using (BlockNode a = await Images.OpenAsync(_folder["d1/a.qcow2"], writable: true))
        {
            await ((IRebasable)a).SetBackingAsync("../b.qcow2", "qcow2", null, CancellationToken.None);
        }
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(() => Images.OpenAsync(
            _folder["d1/a.qcow2"], policy: new OpenPolicy { References = ReferenceScope.LocalFiles }));
        Assert.Contains("leads back", error.Message, StringComparison.Ordinal);
    }

    [LinksTheory]
    [InlineData("d2/disk.qcow2", "")]
    [InlineData("hard.qcow2", ",data_file_raw=on,keep_data_file=on")]
    [InlineData("d1/disk.qcow2", ",data_file_raw=on,keep_data_file=on")]
    public async Task An_image_cannot_be_its_own_data_file(string name, string options)
    {
        MakeLinks();
        byte[] old = new byte[70000];
        old[5] = 5;
        await File.WriteAllBytesAsync(_folder["d1/disk.qcow2"], old);
        await Programs.RunAsync("ln", _folder["d1/disk.qcow2"], _folder["hard.qcow2"]);
        FormatDriver format = Images.Registry.Format("qcow2");
        object record = ((ICreatable)format).CreateOptions.Bind(
            DiskImage.Options.OptionSchema.Split($"size=64k,data_file={_folder[name]}{options}"));
        await Assert.ThrowsAsync<DiskImageException>(async () => await new ImageCreator(Images.Opener).CreateAsync(
            _folder["d1/disk.qcow2"], format, record, TargetMode.Replace, null, CancellationToken.None));
        Assert.Equal(old, await File.ReadAllBytesAsync(_folder["d1/disk.qcow2"]));
        Assert.Equal(2, Directory.GetFiles(_folder["d1"]).Length);
    }

    private void MakeLinks()
    {
        Directory.CreateSymbolicLink(_folder["d2"], _folder["d1"]);
        File.CreateSymbolicLink(_folder["link.raw"], _folder["d1/base.raw"]);
        Directory.CreateDirectory(_folder["deep/down"]);
        Directory.CreateSymbolicLink(_folder["in"], _folder["deep/down"]);
        File.CreateSymbolicLink(_folder["deep/near.raw"], Path.Combine("..", "d1", "base.raw"));
        File.CreateSymbolicLink(_folder["far.raw"], Path.Combine("in", "..", "near.raw")); // .. of where the linked folder leads
        Programs.RunAsync("ln", _folder["d1/base.raw"], _folder["hard.raw"]).GetAwaiter().GetResult();
    }

    /// <summary>A theory that makes links of both kinds.</summary>
    private sealed class LinksTheoryAttribute : TheoryAttribute
    {
        public LinksTheoryAttribute() => Skip = Wine.WhyNotOnWindows("links that every user may make");
    }
}
