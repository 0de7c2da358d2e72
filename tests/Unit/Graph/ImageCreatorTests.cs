using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Graph;
using DiskImage.Options;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Graph;

/// <summary>A new image takes its name in one step, or leaves nothing behind.</summary>
public sealed class ImageCreatorTests : IDisposable
{
    private readonly TestFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public async Task Until_it_is_complete_it_bears_another_name_and_is_marked()
    {
        await using NewImage image = await BeginAsync();
        Assert.Matches("^diskimage-[0-9a-f]{8}-[0-9a-f]{8}[.]incomplete$", Files());
        await image.Node.WriteAsync(0, new byte[] { 1, 2, 3 });
        await image.Node.FlushAsync();
        await File.WriteAllBytesAsync(_folder["copy"], await ReadSharedAsync()); // what a killed process leaves
        await using (BlockNode left = await Images.OpenAsync(_folder["copy"], "qcow2"))
        {
            Assert.True(((IDescribed)left).Describe().Dirty);
            Assert.NotEqual(0, (await ((ICheckable)left).CheckAsync(null, CancellationToken.None)).CheckErrors);
        }
        await image.CompleteAsync(durable: true, CancellationToken.None);
        Assert.Equal("copy disk.qcow2", Files());
        Assert.Equal(_folder["disk.qcow2"], image.Path);
        await using BlockNode disk = await Images.OpenAsync(_folder["disk.qcow2"]);
        Assert.False(((IDescribed)disk).Describe().Dirty);
        byte[] read = new byte[3];
        await disk.ReadAsync(0, read);
        Assert.Equal([1, 2, 3], read);

        async Task<byte[]> ReadSharedAsync()
        {
            byte[] all = new byte[image.Node.Child("file")!.Length];
            await image.Node.Child("file")!.ReadAsync(0, all);
            return all;
        }
    }

    [Fact]
    public async Task Given_up_it_leaves_nothing()
    {
        NewImage image = await BeginAsync();
        await image.Node.WriteAsync(0, new byte[100]);
        await image.DisposeAsync();
        await image.DisposeAsync();
        Assert.Equal("", Files());
    }

    [Fact]
    public async Task An_existing_image_stays_until_the_new_one_is_complete()
    {
        await File.WriteAllTextAsync(_folder["disk.qcow2"], "old");
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(() => BeginAsync());
        Assert.Equal(DiskImageErrorKind.AlreadyExists, error.Kind);
        Assert.Equal("disk.qcow2", Files());
        await (await BeginAsync(replace: true)).DisposeAsync();
        Assert.Equal("old", await File.ReadAllTextAsync(_folder["disk.qcow2"]));
        Assert.Equal("disk.qcow2", Files());
        await using (NewImage image = await BeginAsync(replace: true))
        {
            Assert.Equal("old", await File.ReadAllTextAsync(_folder["disk.qcow2"]));
            await image.CompleteAsync(durable: false, CancellationToken.None);
        }
        Assert.Equal("disk.qcow2", Files());
        await (await Images.OpenAsync(_folder["disk.qcow2"], "qcow2")).DisposeAsync();
    }

    [Fact]
    public async Task One_that_appears_meanwhile_is_not_overwritten()
    {
        NewImage image = await BeginAsync();
        await File.WriteAllTextAsync(_folder["disk.qcow2"], "somebody else's");
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(
            async () => await image.CompleteAsync(durable: false, CancellationToken.None));
        Assert.Equal(DiskImageErrorKind.AlreadyExists, error.Kind);
        await image.DisposeAsync();
        Assert.Equal("disk.qcow2", Files());
        Assert.Equal("somebody else's", await File.ReadAllTextAsync(_folder["disk.qcow2"]));
    }

    [Fact]
    public async Task What_a_dead_process_left_is_removed_by_the_next_run_for_that_name_and_what_is_in_use_is_not()
    {
        await using NewImage living = await BeginAsync();
        string inUse = Files();
        string dead = inUse[..^"00000000.incomplete".Length] + "0a1b2c3d.incomplete";
        string empty = dead.Replace("0a1b2c3d", "00000000", StringComparison.Ordinal);
        await File.WriteAllTextAsync(_folder[dead], "left by somebody who died");
        await File.WriteAllTextAsync(_folder[empty], ""); // perhaps made this moment
        string[] others = ["disk.qcow2.incomplete", "diskimage-00000000-0a1b2c3d.incomplete", dead.Replace(
            "0a1b", "", StringComparison.Ordinal), dead.Replace("0a1b2c3d", "0a1b2c3g", StringComparison.Ordinal)];
        if (OperatingSystem.IsLinux())
        {
            others = [.. others, dead.Replace("0a1b2c3d", "0A1B2C3D", StringComparison.Ordinal)]; // elsewhere the same name
        }
        foreach (string other in others)
        {
            await File.WriteAllTextAsync(_folder[other], "somebody else's");
        }
        await using (NewImage image = await BeginAsync())
        {
            await image.CompleteAsync(durable: false, CancellationToken.None);
        }
        Assert.Equal(string.Join(' ', others.Append(inUse).Append(empty).Append("disk.qcow2").Order(StringComparer.Ordinal)), Files());
    }

    [Fact]
    public async Task A_name_as_long_as_the_system_allows_can_be_made_and_replaced()
    {
        string path = _folder[new string('x', 255 - ".qcow2".Length) + ".qcow2"];
        foreach (bool replace in new[] { false, true })
        {
            await using NewImage image = await BeginAsync(replace, path: path);
            await image.CompleteAsync(durable: false, CancellationToken.None);
        }
        Assert.Equal(Path.GetFileName(path), Files());
    }

    [Fact]
    public async Task A_folder_is_never_replaced()
    {
        Directory.CreateDirectory(_folder["disk.qcow2"]);
        foreach (bool replace in new[] { false, true })
        {
            Assert.Equal(DiskImageErrorKind.InvalidOption, (await Assert.ThrowsAsync<DiskImageException>(() => BeginAsync(replace))).Kind);
        }
        Assert.True(Directory.Exists(_folder["disk.qcow2"]));
        Assert.Equal("", Files());
    }

    [Theory]
    [InlineData("size=1M,refcount_bits=8,compat=0.10", DiskImageErrorKind.InvalidOption)]
    [InlineData("size=1M,lazy_refcounts=on,compat=0.10", DiskImageErrorKind.InvalidOption)]
    [InlineData("cluster_size=4k", DiskImageErrorKind.InvalidOption)]
    [InlineData("size=7E,cluster_size=512", DiskImageErrorKind.InvalidOption)]
    [InlineData("size=9223372036854775807", DiskImageErrorKind.InvalidOption)]
    [InlineData("size=1M,backing_file=missing.raw,backing_fmt=raw", DiskImageErrorKind.NotFound)]
    [InlineData("size=1M,backing_file=base.raw,backing_fmt=raw,preallocation=full", DiskImageErrorKind.InvalidOption)]
    [InlineData("size=1M,backing_fmt=raw", DiskImageErrorKind.InvalidOption)]
    [InlineData("size=1M,backing_file=disk.qcow2,backing_fmt=raw", DiskImageErrorKind.Corrupt)]
    public async Task What_cannot_be_made_leaves_nothing(string options, DiskImageErrorKind kind)
    {
        await File.WriteAllBytesAsync(_folder["base.raw"], new byte[1000]);
        await File.WriteAllTextAsync(_folder["disk.qcow2"], "old");
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(() => BeginAsync(replace: true, options: options));
        Assert.Equal(kind, error.Kind);
        Assert.DoesNotContain(ImageCreator.IncompleteSuffix, error.Message, StringComparison.Ordinal);
        Assert.DoesNotContain("..", error.Message, StringComparison.Ordinal);
        Assert.Equal("base.raw disk.qcow2", Files());
        Assert.Equal("old", await File.ReadAllTextAsync(_folder["disk.qcow2"]));
    }

    [Fact]
    public async Task A_name_of_1023_bytes_fits_and_a_longer_one_does_not()
    {
        foreach ((int length, bool fits) in new[] { (1023, true), (1024, false) })
        {
            var file = new MemoryNode();
            Task made = MemoryDisk.CreateAsync(file, $"size=1M,backing_file={new string('x', length)}").AsTask();
            if (fits)
            {
                await made;
                await using BlockNode disk = await MemoryDisk.OpenAsync(file);
                Assert.Equal(length, ((IDescribed)disk).Describe().BackingFile!.Length);
            }
            else
            {
                Assert.Equal(DiskImageErrorKind.OutOfRange, (await Assert.ThrowsAsync<DiskImageException>(() => made)).Kind);
            }
        }
    }

    [Fact]
    public async Task A_missing_folder_and_an_unknown_protocol()
    {
        Assert.Equal(
            DiskImageErrorKind.NotFound,
            (await Assert.ThrowsAsync<DiskImageException>(() => BeginAsync(path: _folder["no/such/disk.qcow2"]))).Kind);
        Assert.Equal(
            DiskImageErrorKind.Unsupported,
            (await Assert.ThrowsAsync<DiskImageException>(() => BeginAsync(path: "gopher://x/disk.qcow2"))).Kind);
    }

    private string Files()
        => string.Join(' ', Directory.EnumerateFiles(_folder.Root).Select(f => Path.GetFileName(f)).Order(StringComparer.Ordinal));

    private async Task<NewImage> BeginAsync(bool replace = false, string options = "size=1M", string? path = null)
    {
        FormatDriver driver = Images.Registry.Format("qcow2");
        object record = ((ICreatable)driver).CreateOptions.Bind(OptionSchema.Split(options));
        return await new ImageCreator(Images.Opener).CreateAsync(path
            ?? _folder["disk.qcow2"], driver, record, replace, openOptions: null, CancellationToken.None);
    }
}
