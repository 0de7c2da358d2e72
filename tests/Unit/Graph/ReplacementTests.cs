using System.Runtime.Versioning;
using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Graph;
using DiskImage.Options;
using DiskImage.Platform;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Graph;

/// <summary>
/// What replaces a file takes over what belongs to that file besides its bytes; what cannot be replaced is found out
/// before anything is made.
/// </summary>
public sealed class ReplacementTests : IDisposable
{
    private const int Someone = 12345; // an owner that no account has

    private readonly TestFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [UnixTheory]
    [UnsupportedOSPlatform("windows")]
    [InlineData("600")]
    [InlineData("640")]
    [InlineData("606")]
    [InlineData("777")]
    public async Task The_mode_is_kept_and_the_unfinished_file_is_never_more_readable(string mode)
    {
        var expected = (UnixFileMode)Convert.ToInt32(mode, 8);
        string path = Old();
        File.SetUnixFileMode(path, expected);
        await using NewImage image = await BeginAsync(TargetMode.Replace);
        Assert.Equal(expected, File.GetUnixFileMode(Assert.Single(Directory.GetFiles(_folder.Root, "*.incomplete"))));
        await image.CompleteAsync(durable: true, CancellationToken.None);
        Assert.Equal(expected, File.GetUnixFileMode(path));
        await (await Images.OpenAsync(path, "qcow2")).DisposeAsync();
    }

    [LinuxFact(Root = true)]
    public async Task Owner_and_group_are_kept()
    {
        string path = Old();
        await Programs.RunAsync("chown", $"{Someone}:{Someone + 1}", path);
        await ReplaceAsync();
        Assert.Equal($"{Someone} {Someone + 1}", (await Programs.RunAsync("stat", "-c", "%u %g", path)).Trim());
    }

    [LinuxFact]
    public async Task Extended_attributes_are_kept()
    {
        string path = Old();
        ExtendedAttributes.Set(path, "user.origin", "vault 7"u8);
        ExtendedAttributes.Set(path, "user.empty", default);
        await ReplaceAsync();
        Assert.Equal("vault 7"u8.ToArray(), ExtendedAttributes.Get(path, "user.origin"));
        Assert.Empty(ExtendedAttributes.Get(path, "user.empty")!);
    }

    [LinuxFact]
    [UnsupportedOSPlatform("windows")]
    public async Task An_access_control_list_is_kept_and_that_of_the_folder_adds_nothing()
    {
        const string List = "system.posix_acl_access", Inherited = "system.posix_acl_default";
        string path = Old();
        ExtendedAttributes.Set(_folder.Root, Inherited, ExtendedAttributes.List(Someone + 1, 6));
        ExtendedAttributes.Set(path, List, ExtendedAttributes.List(Someone, 4));
        UnixFileMode mode = File.GetUnixFileMode(path);
        await ReplaceAsync();
        Assert.Equal(ExtendedAttributes.List(Someone, 4), ExtendedAttributes.Get(path, List));
        Assert.Equal(mode, File.GetUnixFileMode(path));

        ExtendedAttributes.Remove(path, List);
        File.SetUnixFileMode(path, UnixFileMode.UserRead | UnixFileMode.UserWrite);
        await ReplaceAsync();
        Assert.Null(ExtendedAttributes.Get(path, List));
        Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode(path));
    }

    [UnixTheory]
    [InlineData(TargetMode.Replace)]
    [InlineData(TargetMode.InPlace)]
    public async Task A_symbolic_link_stays_and_what_it_leads_to_is_replaced(TargetMode mode)
    {
        Directory.CreateDirectory(_folder["far"]);
        File.WriteAllText(_folder["far/real"], "old");
        File.CreateSymbolicLink(_folder["near"], Path.Combine("far", "real"));
        File.CreateSymbolicLink(_folder["disk.qcow2"], "near");
        await using (NewImage image = await BeginAsync(mode))
        {
            Assert.Equal(_folder["disk.qcow2"], image.Path);
            await image.CompleteAsync(durable: true, CancellationToken.None);
        }
        Assert.Equal("near", new FileInfo(_folder["disk.qcow2"]).LinkTarget);
        Assert.Equal(Path.Combine("far", "real"), new FileInfo(_folder["near"]).LinkTarget);
        Assert.Equal("real", Path.GetFileName(Assert.Single(Directory.GetFiles(_folder["far"]))));
        await (await Images.OpenAsync(_folder["far/real"], "qcow2")).DisposeAsync();
    }

    [UnixFact]
    public async Task A_link_that_leads_nowhere_is_a_name_that_is_taken()
    {
        File.CreateSymbolicLink(_folder["disk.qcow2"], "nowhere");
        Assert.Equal(DiskImageErrorKind.AlreadyExists, await KindAsync(TargetMode.New));
        Assert.Equal("nowhere", new FileInfo(_folder["disk.qcow2"]).LinkTarget);
        await ReplaceAsync();
        Assert.Equal("nowhere", new FileInfo(_folder["disk.qcow2"]).LinkTarget);
        Assert.True(File.Exists(_folder["nowhere"]));

        File.CreateSymbolicLink(_folder["round"], "round");
        Assert.Equal(
            DiskImageErrorKind.Io, (await Assert.ThrowsAsync<DiskImageException>(() => BeginAsync(TargetMode.Replace, "round"))).Kind);
        File.CreateSymbolicLink(_folder["out"], "no/folder");
        Assert.Equal(
            DiskImageErrorKind.NotFound, (await Assert.ThrowsAsync<DiskImageException>(() => BeginAsync(TargetMode.Replace, "out"))).Kind);
    }

    [UnixFact]
    public async Task A_link_to_a_folder_is_not_replaced()
    {
        Directory.CreateDirectory(_folder["sub"]);
        File.CreateSymbolicLink(_folder["disk.qcow2"], "sub/");
        Assert.Equal(DiskImageErrorKind.InvalidOption, await KindAsync(TargetMode.Replace));
    }

    [UnixFact]
    public async Task Other_names_of_the_file_are_told_and_keep_it()
    {
        string path = Old();
        Assert.Equal(0, (await LookAsync(TargetMode.Replace)).OtherNames);
        await Programs.RunAsync("ln", path, _folder["second"]);
        Assert.Equal(1, (await LookAsync(TargetMode.Replace)).OtherNames);
        Assert.Equal(0, (await LookAsync(TargetMode.InPlace)).OtherNames);
        await ReplaceAsync();
        Assert.Equal("old", File.ReadAllText(_folder["second"]));
    }

    [UnixFact]
    [UnsupportedOSPlatform("windows")]
    public async Task A_file_that_nobody_may_write_is_not_replaced()
    {
        string path = Old();
        File.SetUnixFileMode(path, UnixFileMode.UserRead | UnixFileMode.GroupRead);
        foreach (TargetMode mode in new[] { TargetMode.Replace, TargetMode.InPlace })
        {
            Assert.Equal(DiskImageErrorKind.AccessDenied, await KindAsync(mode));
        }
        Assert.Equal("old", File.ReadAllText(path));
        Assert.Single(Directory.GetFiles(_folder.Root));
    }

    [Fact]
    public async Task A_file_in_use_is_not_replaced()
    {
        string path = Old();
        await using (FileStream user = File.Open(path, FileMode.Open, FileAccess.ReadWrite, FileShare.Read))
        {
            foreach (TargetMode mode in new[] { TargetMode.Replace, TargetMode.InPlace })
            {
                Assert.Equal(DiskImageErrorKind.Locked, await KindAsync(mode));
                Assert.Equal(
                    DiskImageErrorKind.Locked, (await Assert.ThrowsAsync<DiskImageException>(async () => await LookAsync(mode))).Kind);
            }
        }
        Assert.Equal("old", File.ReadAllText(path));
    }

    [LinuxFact(Root = true)]
    public async Task In_a_folder_that_cannot_be_written_to_the_error_says_how_and_in_place_it_works()
    {
        string path = Old();
        await Programs.RunAsync("chattr", "+i", _folder.Root); // a folder that root cannot write to either
        try
        {
            DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(() => BeginAsync(TargetMode.Replace));
            Assert.Equal(DiskImageErrorKind.AccessDenied, error.Kind);
            Assert.Contains(error.Wording.Remedies, r => r.Kind == RemedyKind.InPlace);
            Assert.DoesNotContain(ImageCreator.IncompleteSuffix, error.Message, StringComparison.Ordinal);
            Assert.Equal("old", File.ReadAllText(path));
            error = await Assert.ThrowsAsync<DiskImageException>(() => BeginAsync(TargetMode.New, "another.qcow2"));
            Assert.Equal(DiskImageErrorKind.AccessDenied, error.Kind);
            Assert.DoesNotContain(ImageCreator.IncompleteSuffix, error.Message, StringComparison.Ordinal);
            await using NewImage image = await BeginAsync(TargetMode.InPlace);
            await image.CompleteAsync(durable: true, CancellationToken.None);
        }
        finally
        {
            await Programs.RunAsync("chattr", "-i", _folder.Root);
        }
        await (await Images.OpenAsync(path, "qcow2")).DisposeAsync();
    }

    [Fact]
    public void Errors_of_the_host_speak_of_the_name_the_file_will_have()
    {
        DiskImageException error = HostFile.Error(
            new IOException("Input/output error : '/x/diskimage-0a1b2c3d-0a1b2c3d.incomplete'", 5), "/x/disk.qcow2", "write", 512);
        Assert.Equal("/x/disk.qcow2: cannot write at offset 512: Input/output error", error.Message);
    }

    [Fact]
    public async Task In_place_the_file_stays_the_same_one()
    {
        string path = Old();
        NodeIdentity? identity = Images.Opener.IdentityOf(path);
        await using (NewImage image = await BeginAsync(TargetMode.InPlace))
        {
            Assert.Single(Directory.GetFiles(_folder.Root));
            await image.CompleteAsync(durable: true, CancellationToken.None);
        }
        Assert.Equal(identity, Images.Opener.IdentityOf(path));
        await (await Images.OpenAsync(path, "qcow2")).DisposeAsync();

        await using (NewImage image = await BeginAsync(TargetMode.InPlace, "new.qcow2")) // nothing there: a new file
        {
            await image.CompleteAsync(durable: false, CancellationToken.None);
        }
        await (await Images.OpenAsync(_folder["new.qcow2"], "qcow2")).DisposeAsync();
    }

    [Theory]
    [InlineData("raw", "size=0")]
    [InlineData("raw", "size=1k")]
    [InlineData("vpc", "size=4M")]
    [InlineData("vpc", "size=4M,subformat=fixed")]
    [InlineData("vhdx", "size=4M")]
    [InlineData("qcow2", "size=4M,preallocation=metadata")]
    public async Task In_place_nothing_of_the_old_contents_shows(string format, string options)
    {
        byte[] old = new byte[3 << 20];
        Array.Fill(old, (byte)0xAB);
        await File.WriteAllBytesAsync(_folder["disk"], old);
        await Images.CreateAsync(_folder["expected"], format, options);
        await using (NewImage image = await BeginAsync(TargetMode.InPlace, "disk", format, options))
        {
            await image.CompleteAsync(durable: false, CancellationToken.None);
        }
        Assert.Equal(new FileInfo(_folder["expected"]).Length, new FileInfo(_folder["disk"]).Length);
        await using BlockNode disk = await Images.OpenAsync(_folder["disk"], format);
        byte[] read = new byte[disk.Length];
        await disk.ReadAsync(0, read);
        Assert.True(read.AsSpan().IndexOfAnyExcept((byte)0) < 0);
    }

    [Fact]
    public async Task In_place_wrong_options_change_nothing_and_a_failure_later_leaves_an_empty_file()
    {
        string path = Old();
        await Assert.ThrowsAsync<DiskImageException>(
            () => BeginAsync(TargetMode.InPlace, options: "size=1M,lazy_refcounts=on,compat=0.10"));
        Assert.Equal("old", File.ReadAllText(path));
        await (await BeginAsync(TargetMode.InPlace)).DisposeAsync();
        Assert.Equal(0, new FileInfo(path).Length);
    }

    [Theory]
    [InlineData(TargetMode.New)]
    [InlineData(TargetMode.Replace)]
    public async Task A_file_that_takes_the_place_meanwhile_is_kept(TargetMode mode)
    {
        await using NewImage image = await BeginAsync(mode);
        File.WriteAllText(_folder["disk.qcow2"], "somebody else's");
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(
            async () => await image.CompleteAsync(durable: false, CancellationToken.None));
        Assert.Equal(DiskImageErrorKind.AlreadyExists, error.Kind);
        Assert.DoesNotContain(ImageCreator.IncompleteSuffix, error.Message, StringComparison.Ordinal);
        await image.DisposeAsync();
        Assert.Equal("somebody else's", File.ReadAllText(Assert.Single(Directory.GetFiles(_folder.Root))));
    }

    private string Old()
    {
        File.WriteAllText(_folder["disk.qcow2"], "old");
        return _folder["disk.qcow2"];
    }

    private async Task ReplaceAsync()
    {
        await using NewImage image = await BeginAsync(TargetMode.Replace);
        await image.CompleteAsync(durable: false, CancellationToken.None);
    }

    private ValueTask<StoragePlace> LookAsync(TargetMode mode)
        => new ImageCreator(Images.Opener).LookAsync(_folder["disk.qcow2"], mode, CancellationToken.None);

    private async Task<DiskImageErrorKind> KindAsync(TargetMode mode)
        => (await Assert.ThrowsAsync<DiskImageException>(() => BeginAsync(mode))).Kind;

    private async Task<NewImage> BeginAsync(
        TargetMode mode, string name = "disk.qcow2", string format = "qcow2", string options = "size=1M")
    {
        FormatDriver driver = Images.Registry.Format(format);
        object record = ((ICreatable)driver).CreateOptions.Bind(OptionSchema.Split(options));
        return await new ImageCreator(Images.Opener).CreateAsync(
            _folder[name], driver, record, mode, openOptions: null, CancellationToken.None);
    }

    private sealed class UnixFactAttribute : FactAttribute
    {
        public UnixFactAttribute() => Skip = Wine.WhyNotOnWindows("modes and links of Unix");
    }

    private sealed class UnixTheoryAttribute : TheoryAttribute
    {
        public UnixTheoryAttribute() => Skip = Wine.WhyNotOnWindows("modes and links of Unix");
    }

    /// <summary>A fact that needs Linux, and perhaps root.</summary>
    private sealed class LinuxFactAttribute : FactAttribute
    {
        private bool _root;

        public LinuxFactAttribute()
            => Skip = OperatingSystem.IsLinux() ? null : Wine.WhyNot("attributes of Linux") ?? "attributes of Linux";

        public bool Root
        {
            get => _root;
            set
            {
                _root = value;
                Skip ??= value && !string.Equals(Environment.UserName, "root", StringComparison.Ordinal)
                    ? "only root gives files away"
                    : null;
            }
        }
    }
}
