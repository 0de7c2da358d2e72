using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Graph;
using DiskImage.Options;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Faults;

/// <summary>Whatever fails while an image is made, everything is closed, nothing half made is left, and what was there stays.</summary>
public sealed class NewImageFaultTests : IDisposable
{
    private const string Options = "size=4M,data_file=disk.data";

    private readonly TestFolder _folder = new();
    private readonly FailingStorage _storage = new();
    private readonly ImageCreator _creator;

    public NewImageFaultTests()
        => _creator = new ImageCreator(new ImageOpener(new DriverRegistry([.. Images.Registry.Formats], [_storage]), OpenPolicy.Default));

    public void Dispose() => _folder.Dispose();

    [Fact]
    public async Task All_files_bear_temporary_names_until_all_take_theirs()
    {
        await using (NewImage image = await BeginAsync(TargetMode.New))
        {
            await image.Node.WriteAsync(70000, new byte[] { 7 });
            Assert.Equal(2, Directory.GetFiles(_folder.Root, "diskimage-*.incomplete").Length);
            Assert.Equal(2, Directory.GetFiles(_folder.Root).Length);
            await image.CompleteAsync(durable: true, CheckAsync, CancellationToken.None);
        }
        Assert.Equal("disk.data disk.qcow2", Files());
        Assert.Equal(["disk.data", "disk.qcow2"], _storage.Published); // the one that names the other last
        await using BlockNode disk = await Images.OpenAsync(_folder["disk.qcow2"]);
        await CheckAsync(disk);

        static async ValueTask CheckAsync(BlockNode made)
        {
            byte[] read = new byte[1];
            await made.ReadAsync(70000, read);
            Assert.Equal(7, read[0]);
        }
    }

    [Theory]
    [InlineData("disk.data")]
    [InlineData("disk.qcow2")]
    public async Task A_failing_rename_takes_the_others_back(string failing)
    {
        await File.WriteAllTextAsync(_folder["disk.qcow2"], "old");
        _storage.FailingRename = failing;
        await using (NewImage image = await BeginAsync(TargetMode.Replace))
        {
            Assert.Equal(
                DiskImageErrorKind.Io,
                (await Assert.ThrowsAsync<DiskImageException>(
                    async () => await image.CompleteAsync(durable: false, CancellationToken.None))).Kind);
        }
        await RequireOldAsync();
    }

    /// <summary>What a crash leaves before each name is given is the old disk or the new one, or an error that says what to do.</summary>
    [Theory]
    [InlineData("monolithicFlat", "monolithicFlat", 3)]
    [InlineData("twoGbMaxExtentSparse", "twoGbMaxExtentSparse", 5)]
    [InlineData("twoGbMaxExtentFlat", "twoGbMaxExtentFlat", 5)]
    [InlineData("monolithicSparse", "twoGbMaxExtentSparse", 5)]
    public async Task A_crash_between_the_renames_never_leaves_a_mixture(string old, string now, int states)
    {
        if (OperatingSystem.IsWindows())
        {
            return; // the folder is copied with a program of Unix
        }
        long size = now.StartsWith("mono", StringComparison.Ordinal) ? 3 << 20 : (4L << 30) + (1 << 20);
        string path = _folder["in/disk.vmdk"];
        _ = Directory.CreateDirectory(_folder["in"]);
        await MakeAsync(new ImageCreator(Images.Opener), old, 1);
        int copies = 0;
        _storage.BeforeRename = _ => Programs.RunAsync("cp", "-a", "--sparse=always", _folder["in"], _folder[$"crash{++copies}"]);
        await MakeAsync(_creator, now, 2);
        _ = await Programs.RunAsync("cp", "-a", "--sparse=always", _folder["in"], _folder[$"crash{++copies}"]);
        Assert.Equal(states, copies);
        var seen = new List<int>();
        for (int copy = 1; copy <= copies; copy++)
        {
            string left = _folder[$"crash{copy}/disk.vmdk"];
            try
            {
                await using BlockNode disk = await Images.OpenAsync(left);
                byte[] read = new byte[3];
                for (int i = 0; i < read.Length; i++)
                {
                    await disk.ReadAsync((size - 1) * i / 2, read.AsMemory(i, 1));
                }
                Assert.Single(read.Distinct());
                seen.Add(read[0]);
            }
            catch (DiskImageException e)
            {
                Assert.Equal(DiskImageErrorKind.NotFound, e.Kind);
                Assert.Contains("cut short", e.Message, StringComparison.Ordinal);
                seen.Add(0);
                await MakeAsync(new ImageCreator(Images.Opener), now, 3, left); // as it says
                Assert.Empty(Directory.GetFiles(Path.GetDirectoryName(left)!, "*.incomplete"));
            }
        }
        Assert.Equal(2, seen[^1]);

        async Task MakeAsync(ImageCreator creator, string subformat, byte tag, string? elsewhere = null)
        {
            FormatDriver vmdk = Images.Registry.Format("vmdk");
            object options = ((ICreatable)vmdk).CreateOptions.Bind(OptionSchema.Split($"size={size},subformat={subformat}"));
            await using NewImage image = await creator.CreateAsync(
                elsewhere ?? path, vmdk, options, replace: true, openOptions: null, CancellationToken.None);
            for (int i = 0; i < 3; i++)
            {
                await image.Node.WriteAsync((size - 1) * i / 2, new[] { tag });
            }
            await image.CompleteAsync(durable: false, CancellationToken.None);
        }
    }

    [Theory]
    [InlineData("monolithicFlat", "disk-flat.vmdk", "")]
    [InlineData("twoGbMaxExtentSparse", "disk-s001.vmdk", "")]
    [InlineData("monolithicFlat", "disk-flat.vmdk", "disk-flat.vmdk")]
    [InlineData("monolithicFlat", "disk-flat.vmdk", "disk.qcow2")]
    [InlineData("twoGbMaxExtentSparse", "disk-s001.vmdk", "disk.qcow2")]
    [InlineData("twoGbMaxExtentFlat", "disk-f002.vmdk", "disk-f003.vmdk")]
    [InlineData("twoGbMaxExtentFlat", "disk-f002.vmdk", "disk-f001.vmdk")]
    public async Task Further_files_that_are_there_are_replaced_with_the_image_or_stay_with_it(string subformat, string further, string failing)
    {
        await File.WriteAllTextAsync(_folder["disk.qcow2"], "old");
        await File.WriteAllTextAsync(_folder[further], "old extent");
        if (!OperatingSystem.IsWindows())
        {
            File.SetUnixFileMode(_folder[further], UnixFileMode.UserRead | UnixFileMode.UserWrite);
        }
        string options = $"size=5G,subformat={subformat}", before = Files();
        Assert.Equal(DiskImageErrorKind.AlreadyExists, (await Assert.ThrowsAsync<DiskImageException>(()
            => BeginAsync(TargetMode.New, "vmdk", options))).Kind);
        await using (NewImage image = await BeginAsync(TargetMode.Replace, "vmdk", options))
        {
            await image.Node.WriteAsync(0, new byte[] { 7 });
            Assert.Equal("old extent", await File.ReadAllTextAsync(_folder[further])); // until the last step
            _storage.FailingRename = failing;
            if (failing.Length == 0)
            {
                await image.CompleteAsync(durable: false, CancellationToken.None);
            }
            else
            {
                _ = await Assert.ThrowsAsync<DiskImageException>(async ()
                    => await image.CompleteAsync(durable: false, CancellationToken.None));
            }
        }
        Assert.True(_storage.AllClosed);
        if (!OperatingSystem.IsWindows())
        {
            Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode(_folder[further]));
        }
        if (failing.Length > 0)
        {
            Assert.Equal(before, Files());
            Assert.Equal("old", await File.ReadAllTextAsync(_folder["disk.qcow2"]));
            Assert.Equal("old extent", await File.ReadAllTextAsync(_folder[further]));
            return;
        }
        Assert.True(_storage.FlushedBeforePublished);
        Assert.DoesNotContain("incomplete", Files(), StringComparison.Ordinal);
        await using BlockNode disk = await Images.OpenAsync(_folder["disk.qcow2"], "vmdk");
        byte[] read = new byte[1];
        await disk.ReadAsync(0, read);
        Assert.Equal((5L << 30, 7), (disk.Length, read[0]));
    }

    [Fact]
    public async Task A_further_file_that_is_in_use_is_not_replaced()
    {
        await File.WriteAllTextAsync(_folder["disk-flat.vmdk"], "in use");
        await using (BlockNode user = await Images.OpenAsync(_folder["disk-flat.vmdk"], "raw"))
        {
            Assert.Equal(DiskImageErrorKind.Locked, (await Assert.ThrowsAsync<DiskImageException>(()
                => BeginAsync(TargetMode.Replace, "vmdk", "size=1M,subformat=monolithicFlat"))).Kind);
        }
        Assert.Equal("disk-flat.vmdk", Files());
    }

    [Fact]
    public async Task A_name_that_is_taken_meanwhile_takes_the_companion_back()
    {
        await using (NewImage image = await BeginAsync(TargetMode.New))
        {
            await File.WriteAllTextAsync(_folder["disk.qcow2"], "old");
            Assert.Equal(
                DiskImageErrorKind.AlreadyExists,
                (await Assert.ThrowsAsync<DiskImageException>(
                    async () => await image.CompleteAsync(durable: false, CancellationToken.None))).Kind);
        }
        await RequireOldAsync();
    }

    [Theory]
    [InlineData(TargetMode.New)]
    [InlineData(TargetMode.Replace)]
    public async Task A_failing_close_leaves_nothing_open_and_nothing_behind(TargetMode mode)
    {
        if (mode == TargetMode.Replace)
        {
            await File.WriteAllTextAsync(_folder["disk.qcow2"], "old");
        }
        await using (NewImage image = await BeginAsync(mode))
        {
            await image.Node.WriteAsync(0, new byte[100_000]);
            _storage.FailsWrites = true; // what is cached cannot be written back
            await Assert.ThrowsAsync<DiskImageException>(async () => await image.CompleteAsync(durable: false, CancellationToken.None));
        }
        if (mode == TargetMode.Replace)
        {
            await RequireOldAsync();
        }
        Assert.True(_storage.AllClosed);
        Assert.Equal(mode == TargetMode.Replace ? "disk.qcow2" : "", Files());
    }

    [Fact]
    public async Task Given_up_with_writes_failing_it_is_removed_all_the_same()
    {
        NewImage image = await BeginAsync(TargetMode.New);
        await image.Node.WriteAsync(0, new byte[100_000]);
        _storage.FailsWrites = true;
        await image.DisposeAsync();
        Assert.True(_storage.AllClosed);
        Assert.Equal("", Files());
    }

    /// <summary>The making of an image fails at its n-th write, for every n.</summary>
    [Theory]
    [InlineData("qcow2", Options)]
    [InlineData("vhdx", "size=4M")]
    [InlineData("vpc", "size=4M")]
    public async Task Every_write_of_the_making_may_fail(string format, string options)
    {
        int failed = 0;
        for (int good = 0; ; good++, failed++)
        {
            _storage.GoodWrites = good;
            try
            {
                await using NewImage image = await BeginAsync(TargetMode.New, format, options);
                await image.CompleteAsync(durable: false, CancellationToken.None);
                break;
            }
            catch (DiskImageException e)
            {
                Assert.Equal(DiskImageErrorKind.Io, e.Kind);
                Assert.True(_storage.AllClosed, $"open after write {good} failed");
                Assert.Equal("", Files());
            }
        }
        Assert.InRange(failed, 3, 1000);
    }

    [Fact]
    public async Task Cancelled_between_the_steps_it_is_removed()
    {
        await File.WriteAllTextAsync(_folder["disk.qcow2"], "old");
        using var stop = new CancellationTokenSource();
        await using (NewImage image = await BeginAsync(TargetMode.Replace))
        {
            await Assert.ThrowsAnyAsync<OperationCanceledException>(async () => await image.CompleteAsync(
                durable: false,
                _ =>
                {
                    stop.Cancel();
                    return default;
                },
                stop.Token));
        }
        await RequireOldAsync();
    }

    [Theory]
    [InlineData("qcow2", Options, TargetMode.New, false, false)]
    [InlineData("qcow2", Options, TargetMode.New, true, true)]
    [InlineData("qcow2", Options, TargetMode.Replace, false, true)]
    [InlineData("vhdx", "size=4M", TargetMode.Replace, false, true)] // writes its last words when it is closed
    [InlineData("vpc", "size=4M", TargetMode.Replace, false, true)]
    [InlineData("raw", "size=4M", TargetMode.Replace, false, true)]
    public async Task All_files_are_flushed_before_the_image_replaces_another_and_if_it_is_to_be_durable(
        string format, string options, TargetMode mode, bool durable, bool flushed)
    {
        if (mode == TargetMode.Replace)
        {
            await File.WriteAllTextAsync(_folder["disk.qcow2"], "old");
        }
        await using (NewImage image = await BeginAsync(mode, format, options))
        {
            await image.Node.WriteAsync(70000, new byte[] { 7 });
            await image.CompleteAsync(durable, CancellationToken.None);
        }
        Assert.Equal(flushed, _storage.Flushes > 0);
        Assert.Equal(flushed, _storage.FlushedBeforePublished);
    }

    private async Task RequireOldAsync()
    {
        Assert.Equal("disk.qcow2", Files());
        Assert.Equal("old", await File.ReadAllTextAsync(_folder["disk.qcow2"]));
        Assert.True(_storage.AllClosed);
    }

    private string Files()
        => string.Join(' ', Directory.EnumerateFiles(_folder.Root).Select(f => Path.GetFileName(f)).Order(StringComparer.Ordinal));

    private async Task<NewImage> BeginAsync(TargetMode mode, string format = "qcow2", string options = Options)
    {
        FormatDriver driver = Images.Registry.Format(format);
        object record = ((ICreatable)driver).CreateOptions.Bind(OptionSchema.Split(options));
        return await _creator.CreateAsync(_folder["disk.qcow2"], driver, record, mode, openOptions: null, CancellationToken.None);
    }
}
