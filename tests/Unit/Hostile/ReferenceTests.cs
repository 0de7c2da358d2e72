using System.Diagnostics;
using DiskImage.Block;
using DiskImage.Graph;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Hostile;

/// <summary>Names that stand in an image: where they may lead, and what happens when they lead elsewhere.</summary>
public sealed class ReferenceTests : IDisposable
{
    private readonly TestFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public async Task An_image_that_is_its_own_backing_image()
    {
        await MakeAsync("a.qcow2", "a.qcow2");
        await ExpectAsync("a.qcow2", DiskImageErrorKind.Corrupt, "leads back");
    }

    [Theory]
    [InlineData("./a.qcow2")]
    [InlineData("../{folder}/a.qcow2")]
    [InlineData("file:a.qcow2")]
    public async Task The_same_under_another_name(string name)
    {
        await MakeAsync("a.qcow2", name.Replace("{folder}", Path.GetFileName(_folder.Root), StringComparison.Ordinal));
        await ExpectAsync("a.qcow2", DiskImageErrorKind.Corrupt, "leads back");
    }

    [NotOnWineFact("symbolic links")]
    public async Task The_same_by_way_of_a_link()
    {
        await MakeAsync("a.qcow2", "link.qcow2");
        File.CreateSymbolicLink(_folder["link.qcow2"], _folder["a.qcow2"]);
        await ExpectAsync("a.qcow2", DiskImageErrorKind.Corrupt, "leads back");
    }

    [Theory]
    [InlineData(2)]
    [InlineData(3)]
    [InlineData(50)]
    public async Task A_chain_that_bites_its_tail(int length)
    {
        for (int i = 0; i < length; i++)
        {
            await MakeAsync($"{i}.qcow2", $"{(i + 1) % length}.qcow2");
        }
        await ExpectAsync("0.qcow2", DiskImageErrorKind.Corrupt, "leads back");
    }

    [Fact]
    public async Task A_chain_as_deep_as_allowed_and_one_deeper()
    {
        int depth = OpenPolicy.Default.MaximumDepth;
        await MakeAsync("0.qcow2", null);
        for (int i = 1; i <= depth; i++)
        {
            await MakeAsync($"{i}.qcow2", $"{i - 1}.qcow2");
        }
        await using (BlockNode disk = await Images.OpenAsync(_folder[$"{depth - 1}.qcow2"]))
        {
            await disk.ReadAsync(0, new byte[1000]);
            Assert.True((await disk.GetExtentAsync(0, disk.Length)).IsZero);
        }
        await ExpectAsync($"{depth}.qcow2", DiskImageErrorKind.Refused, "a greater depth");
        await (
            await Images.OpenAsync(_folder[$"{depth}.qcow2"], policy: OpenPolicy.Default with { MaximumDepth = depth + 1 })).DisposeAsync();
        await ExpectAsync("2.qcow2", DiskImageErrorKind.Refused, "longer than 2 images", OpenPolicy.Default with { MaximumDepth = 2 });
    }

    [Fact]
    public async Task A_deep_chain_needs_no_deep_stack()
    {
        const int Depth = 400, Stack = 384 << 10; // bytes; as it is, a thread of this kind has a few times as much
        await MakeAsync("0.qcow2", null);
        for (int i = 1; i < Depth; i++)
        {
            await MakeAsync($"{i}.qcow2", $"{i - 1}.qcow2");
        }
        var done = new TaskCompletionSource();
        var thread = new Thread(
            () =>
            {
                Task work = UseAsync();
                _ = work.ContinueWith(t => done.SetFromTask(t), TaskScheduler.Default);
            },
            Stack);
        thread.Start();
        await done.Task;

        async Task UseAsync()
        {
            await using BlockNode disk = await Images.OpenAsync(
                _folder[$"{Depth - 1}.qcow2"], policy: OpenPolicy.Default with { MaximumDepth = Depth });
            await disk.ReadAsync(0, new byte[1000]);
            Assert.True((await disk.GetExtentAsync(0, disk.Length)).IsZero);
        }
    }

    [Theory]
    [InlineData("nbd://127.0.0.1:1/x")]
    [InlineData("http://127.0.0.1:1/x")]
    [InlineData("NBD://127.0.0.1/x")]
    [InlineData("json:{\"driver\":\"raw\",\"file\":{\"driver\":\"file\",\"filename\":\"base.raw\"}}")]
    [InlineData("json:{\"driver\":\"qcow2\"")]
    [InlineData("json:")]
    public async Task Protocols_and_descriptions_are_refused(string name)
    {
        await File.WriteAllBytesAsync(_folder["base.raw"], new byte[4096]);
        await MakeAsync("a.qcow2", name);
        await ExpectAsync("a.qcow2", DiskImageErrorKind.Refused, "not opened");
    }

    /// <summary>A disk of the machine is no file, however far names of files are followed; the user may name it.</summary>
    [OracleFact("mknod", "/dev/loop0")]
    public async Task Disks_of_the_machine_are_refused()
    {
        OpenPolicy files = OpenPolicy.Default with { References = ReferenceScope.LocalFiles };
        await MakeAsync("a.qcow2", "/dev/loop0");
        await ExpectAsync("a.qcow2", DiskImageErrorKind.Refused, "/dev/loop0, which is a disk of this machine", files);
        File.CreateSymbolicLink(_folder["link"], "/dev/loop0");
        await MakeAsync("b.qcow2", "link");
        await ExpectAsync("b.qcow2", DiskImageErrorKind.Refused, "not opened");
        await ExpectAsync("b.qcow2", DiskImageErrorKind.Refused, "a disk of this machine", files);
        foreach (OpenPolicy allowed in new[] { files with { References = ReferenceScope.Anywhere }, files.Naming("/dev/loop0", _folder["a.qcow2"]) })
        {
            try
            {
                await (await Images.OpenAsync(_folder["a.qcow2"], policy: allowed)).DisposeAsync();
            }
            catch (DiskImageException e)
            {
                Assert.NotEqual(DiskImageErrorKind.Refused, e.Kind); // it may have no medium
            }
        }
    }

    [Theory]
    [InlineData("missing.qcow2", DiskImageErrorKind.NotFound)]
    [InlineData("no/such/folder.qcow2", DiskImageErrorKind.NotFound)]
    [InlineData(".", DiskImageErrorKind.InvalidOption)]
    [InlineData("..", DiskImageErrorKind.InvalidOption)]
    [InlineData("/dev/zero", DiskImageErrorKind.InvalidOption)]
    [InlineData("fifo", DiskImageErrorKind.InvalidOption)]
    [InlineData("loop", DiskImageErrorKind.NotFound)]
    [InlineData("\0", DiskImageErrorKind.InvalidOption)]
    [InlineData("nul\0byte", DiskImageErrorKind.InvalidOption)]
    [InlineData("file://[", DiskImageErrorKind.InvalidOption)]
    [InlineData("file:///a%00b", DiskImageErrorKind.InvalidOption)]
    [InlineData("a.qcow2/below", DiskImageErrorKind.NotFound)]
    public async Task What_is_no_regular_file(string name, DiskImageErrorKind kind)
    {
        if (OperatingSystem.IsWindows() && name is "/dev/zero" or "fifo" or "loop")
        {
            return;
        }
        if (name is "fifo")
        {
            await Programs.RunAsync("mkfifo", _folder["fifo"]);
        }
        if (name is "loop")
        {
            File.CreateSymbolicLink(_folder["loop"], _folder["loop2"]);
            File.CreateSymbolicLink(_folder["loop2"], _folder["loop"]);
        }
        await MakeAsync("a.qcow2", name);
        long started = Stopwatch.GetTimestamp();
        await ExpectAsync("a.qcow2", kind, "", new OpenPolicy { References = ReferenceScope.LocalFiles });
        Assert.True(Stopwatch.GetElapsedTime(started) < TimeSpan.FromSeconds(20), "it waited for the other end");
    }

    /// <summary>An image that is marked dirty is repaired when it is opened for writing, but not if it cannot be opened.</summary>
    [Theory]
    [InlineData("missing.qcow2", 0, DiskImageErrorKind.NotFound)]
    [InlineData(null, 3, DiskImageErrorKind.Unsupported)]
    public async Task A_dirty_image_that_does_not_open_is_left_alone(string? backing, byte cryptMethod, DiskImageErrorKind kind)
    {
        await MakeAsync("a.qcow2", backing);
        byte[] image = await File.ReadAllBytesAsync(_folder["a.qcow2"]);
        (image[35], image[79]) = (cryptMethod, 1);
        image[(2 * 4096) + 9] = 7; // a refcount that a repair would mend
        await File.WriteAllBytesAsync(_folder["a.qcow2"], image);
        await ExpectAsync("a.qcow2", kind, "");
        (image[35], image[79]) = (0, 1);
        await File.WriteAllBytesAsync(_folder["missing.qcow2"], await MemoryDisk.NewAsync("size=1M"));
        await File.WriteAllBytesAsync(_folder["a.qcow2"], image);
        await (await Images.OpenAsync(_folder["a.qcow2"], writable: true)).DisposeAsync();
        Assert.NotEqual(image, await File.ReadAllBytesAsync(_folder["a.qcow2"]));
    }

    [Fact]
    public async Task Without_references_an_image_that_needs_one_does_not_open()
    {
        await MakeAsync("base.qcow2", null);
        await MakeAsync("a.qcow2", "base.qcow2");
        var none = new OpenPolicy { References = ReferenceScope.None };
        Assert.Equal(
            DiskImageErrorKind.Refused,
            (await Assert.ThrowsAsync<DiskImageException>(() => Images.OpenAsync(_folder["a.qcow2"], policy: none))).Kind);
        await using BlockNode alone = await Images.OpenAsync(_folder["base.qcow2"], policy: none);
        Assert.Null(alone.Child("backing"));
    }

    [Fact]
    public async Task In_its_own_folder_means_below_it()
    {
        Directory.CreateDirectory(_folder["sub"]);
        Directory.CreateDirectory(_folder["sub-other"]);
        await MakeAsync("outside.qcow2", null);
        await MakeAsync("sub-other/near.qcow2", null);
        await MakeAsync("sub/base.qcow2", null);
        var policy = new OpenPolicy { References = ReferenceScope.SameFolder };
        foreach ((string name, bool allowed) in new[]
        {
            ("base.qcow2", true), ("./base.qcow2", true), ("../sub/base.qcow2", true), (_folder["sub/base.qcow2"], true),
            ("../outside.qcow2", false), ("../sub-other/near.qcow2", false), (_folder["outside.qcow2"], false), ("/etc/hostname", false),
        })
        {
            File.Delete(_folder["sub/a.qcow2"]);
            await MakeAsync("sub/a.qcow2", name);
            if (allowed)
            {
                await (await Images.OpenAsync(_folder["sub/a.qcow2"], policy: policy)).DisposeAsync();
            }
            else
            {
                DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(
                    () => Images.OpenAsync(_folder["sub/a.qcow2"], policy: policy));
                Assert.Equal(DiskImageErrorKind.Refused, error.Kind);
            }
        }
    }

    [NotOnWineTheory("symbolic links")]
    [InlineData("link", true)]
    [InlineData("folder/../../in/near.qcow2", true)]
    [InlineData("folder/out.qcow2", false)]
    [InlineData("loop1", false)]
    public async Task Links_that_stay_in_the_folder_are_followed(string name, bool allowed)
    {
        Directory.CreateDirectory(_folder["in/deep"]);
        Directory.CreateDirectory(_folder["out"]);
        await MakeAsync("in/near.qcow2", null);
        await MakeAsync("out/out.qcow2", null);
        File.CreateSymbolicLink(_folder["in/link"], "deep/../near.qcow2");
        File.CreateSymbolicLink(_folder["in/folder"], "../out");
        File.CreateSymbolicLink(_folder["in/loop1"], "loop2");
        File.CreateSymbolicLink(_folder["in/loop2"], "loop1");
        await MakeAsync("in/a.qcow2", name);
        if (allowed)
        {
            await (await Images.OpenAsync(_folder["in/a.qcow2"])).DisposeAsync();
        }
        else
        {
            await ExpectAsync("in/a.qcow2", DiskImageErrorKind.Refused, "references as far as LocalFiles");
        }
    }

    [Fact]
    public async Task By_default_nothing_outside_the_folder_is_read_or_written()
    {
        Directory.CreateDirectory(_folder["vm"]);
        byte[] secret = new byte[1 << 20];
        new Random(7).NextBytes(secret);
        await File.WriteAllBytesAsync(_folder["secret"], secret);
        await MakeAsync("vm/a.qcow2", "../secret");
        await ExpectAsync(
            "vm/a.qcow2", DiskImageErrorKind.Refused, $"'../secret', which leads out of the image's folder ({_folder["secret"]})");
        await ExpectAsync("vm/a.qcow2", DiskImageErrorKind.Refused, "references as far as LocalFiles");

        byte[] image = await MemoryDisk.NewAsync("size=1M");
        await File.WriteAllBytesAsync(_folder["vm/d.qcow2"], WithDataFile(image, "../secret"));
        await ExpectAsync("vm/d.qcow2", DiskImageErrorKind.Refused, "names the data file '../secret'");
        await using (BlockNode disk = await Images.OpenAsync(
            _folder["vm/d.qcow2"], writable: true, policy: new OpenPolicy { References = ReferenceScope.LocalFiles }))
        {
            Assert.Equal(_folder["secret"], disk.Child("data-file")!.Name);
        }
        Assert.Equal(secret, await File.ReadAllBytesAsync(_folder["secret"]));
    }

    [Fact]
    public async Task What_the_user_names_is_opened_wherever_it_is_and_no_further()
    {
        Directory.CreateDirectory(_folder["vm"]);
        Directory.CreateDirectory(_folder["bases"]);
        await MakeAsync("far.qcow2", null);
        await MakeAsync("bases/base.qcow2", "../far.qcow2");
        await MakeAsync("vm/a.qcow2", "../bases/base.qcow2");
        await MakeAsync("vm/b.qcow2", _folder["far.qcow2"]);
        OpenPolicy named = OpenPolicy.Default.Naming("../far.qcow2", _folder["vm/b.qcow2"]);
        await (await Images.OpenAsync(_folder["vm/b.qcow2"], policy: named)).DisposeAsync();
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(() => Images.OpenAsync(
            _folder["vm/a.qcow2"], policy: OpenPolicy.Default.Naming("../bases/base.qcow2", _folder["vm/a.qcow2"])));
        // What the base names is not the user's word.
        Assert.Equal((DiskImageErrorKind.Refused, Path.GetFullPath(_folder["bases/base.qcow2"])), (error.Kind, error.Path));
        await using BlockNode whole = await Images.OpenAsync(
            _folder["vm/a.qcow2"], policy: new OpenPolicy { References = ReferenceScope.LocalFiles });
    }

    [Fact]
    public async Task A_data_file_that_is_not_opened_does_not_keep_an_image_from_being_described()
    {
        await File.WriteAllBytesAsync(_folder["d.qcow2"], WithDataFile(await MemoryDisk.NewAsync("size=1M"), "gone.data"));
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(() => Images.OpenAsync(_folder["d.qcow2"]));
        Assert.Equal(DiskImageErrorKind.NotFound, error.Kind);
        Assert.Contains("its data file 'gone.data'", error.Message, StringComparison.Ordinal);
        await using OpenedImage image = await Images.Opener.OpenAsync(
            new OpenRequest(_folder["d.qcow2"]) { ToDescribe = true }, CancellationToken.None);
        Assert.Equal(1 << 20, image.Node.Length);
        UnopenedNode data = Assert.IsType<UnopenedNode>(image.Node.Child("data-file"));
        error = await Assert.ThrowsAsync<DiskImageException>(async () => await data.ReadAsync(0, new byte[1]));
        Assert.Contains("gone.data", error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("a.img", true)]
    [InlineData("a.qcow2", false)]
    [InlineData("a", false)]
    public async Task A_raw_disk_that_begins_like_an_image_does_not_lead_on_in_silence(string name, bool isTold)
    {
        await MakeAsync("base.qcow2", null);
        await MakeAsync(name, "base.qcow2");
        var said = new List<string>();
        var opener = new ImageOpener(Images.Registry, OpenPolicy.Default, text => said.Add(text.ToString()));
        await (await opener.OpenAsync(new OpenRequest(_folder[name]), CancellationToken.None)).DisposeAsync();
        Assert.Equal(
            isTold,
            said.Any(s => s.Contains("'base.qcow2'", StringComparison.Ordinal) && s.Contains("the format raw", StringComparison.Ordinal)));
        said.Clear();
        await (await opener.OpenAsync(new OpenRequest(_folder[name]) { Format = "qcow2" }, CancellationToken.None)).DisposeAsync();
        Assert.Empty(said);
    }

    [NotOnWineFact("symbolic links")]
    public async Task In_its_own_folder_links_do_not_lead_out_of_it()
    {
        Directory.CreateDirectory(_folder["in"]);
        Directory.CreateDirectory(_folder["out"]);
        await MakeAsync("out/base.qcow2", null);
        await MakeAsync("in/near.qcow2", null);
        File.CreateSymbolicLink(_folder["in/link.qcow2"], _folder["out/base.qcow2"]);
        Directory.CreateSymbolicLink(_folder["in/folder"], _folder["out"]);
        Directory.CreateSymbolicLink(_folder["alias"], _folder["in"]);
        await MakeAsync("in/a.qcow2", "link.qcow2");
        await MakeAsync("in/b.qcow2", "folder/base.qcow2");
        await MakeAsync("in/c.qcow2", "near.qcow2");
        var policy = new OpenPolicy { References = ReferenceScope.SameFolder };
        foreach (string name in new[] { "in/a.qcow2", "in/b.qcow2" })
        {
            Assert.Equal(
                DiskImageErrorKind.Refused,
                (await Assert.ThrowsAsync<DiskImageException>(() => Images.OpenAsync(_folder[name], policy: policy))).Kind);
            await (await Images.OpenAsync(_folder[name], policy: new OpenPolicy { References = ReferenceScope.LocalFiles })).DisposeAsync();
        }
        // how the folder itself is reached is the user's business
        await (await Images.OpenAsync(_folder["alias/c.qcow2"], policy: policy)).DisposeAsync();
    }

    [Fact]
    public async Task A_backing_image_is_never_opened_for_writing()
    {
        await MakeAsync("base.qcow2", null);
        await MakeAsync("a.qcow2", "base.qcow2");
        await using BlockNode disk = await Images.OpenAsync(_folder["a.qcow2"], writable: true);
        Assert.False(disk.IsReadOnly);
        Assert.True(disk.Child("backing")!.IsReadOnly);
        Assert.True(disk.Child("backing")!.Child("file")!.IsReadOnly);
    }

    /// <summary>
    /// The image with its data in another file: the feature bit, and the header extension, which takes the place of
    /// the one behind the header.
    /// </summary>
    private static byte[] WithDataFile(byte[] image, string name)
    {
        byte[] changed = [.. image];
        changed[79] |= 4; // incompatible feature: external data file
        int at = System.Buffers.Binary.BinaryPrimitives.ReadInt32BigEndian(changed.AsSpan(100));
        System.Buffers.Binary.BinaryPrimitives.WriteUInt32BigEndian(changed.AsSpan(at), 0x44415441);
        System.Buffers.Binary.BinaryPrimitives.WriteInt32BigEndian(changed.AsSpan(at + 4), name.Length);
        changed.AsSpan(at + 8, (name.Length + 7) / 8 * 8 + 8).Clear(); // padding, and the end of the extensions
        System.Text.Encoding.UTF8.GetBytes(name, changed.AsSpan(at + 8));
        return changed;
    }

    /// <summary>A 1 MiB image with any name in it, bypassing the checks that a creator makes.</summary>
    private async Task MakeAsync(string path, string? backing)
    {
        var file = new MemoryNode();
        await MemoryDisk.CreateAsync(
            file,
            "size=1M,cluster_size=4k" + (backing is null ? "" : $",backing_file={backing.Replace(",", ",,", StringComparison.Ordinal)}"));
        await File.WriteAllBytesAsync(_folder[path], file.ToArray());
    }

    private async Task ExpectAsync(string path, DiskImageErrorKind kind, string message, OpenPolicy? policy = null)
    {
        byte[] before = await File.ReadAllBytesAsync(_folder[path]);
        foreach (bool writable in new[] { false, true })
        {
            DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(
                () => Images.OpenAsync(_folder[path], writable: writable, policy: policy));
            Assert.Equal(kind, error.Kind);
            Assert.Contains(message, error.Message, StringComparison.Ordinal);
        }
        Assert.Equal(before, await File.ReadAllBytesAsync(_folder[path]));
    }
}
