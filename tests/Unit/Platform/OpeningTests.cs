using DiskImage.Block;
using DiskImage.Graph;
using DiskImage.Platform;
using DiskImage.Tests.Support;
using Microsoft.Win32.SafeHandles;

namespace DiskImage.Tests.Platform;

/// <summary>What is no image file is refused by name, and never waited for.</summary>
public sealed class OpeningTests : IDisposable
{
    private readonly TestFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public async Task A_folder_is_no_image()
    {
        DiskImageException error = await RefusedAsync(_folder.Root);
        Assert.Equal(DiskImageErrorKind.InvalidOption, error.Kind);
        Assert.Contains("a folder, not a disk image", error.Message, StringComparison.Ordinal);
        Assert.Equal(_folder.Root, error.Path);
    }

    [NotOnWineTheory("an error of its own for a name that is too long")]
    [InlineData(300)] // one name
    [InlineData(9000)] // the path
    public async Task A_path_that_is_too_long_is_no_missing_file(int length)
    {
        string path = _folder[string.Join('/', Enumerable.Repeat(new string('x', length > 1000 ? 200 : length), 1 + (length / 1000 * 5)))];
        DiskImageException error = await RefusedAsync(path);
        Assert.Equal(DiskImageErrorKind.InvalidOption, error.Kind);
        Assert.Contains("longer than this system allows", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_missing_file_is_not_found()
    {
        Assert.Equal(DiskImageErrorKind.NotFound, (await RefusedAsync(_folder["missing"])).Kind);
        Assert.Equal(DiskImageErrorKind.NotFound, (await RefusedAsync(_folder["missing/disk"])).Kind);
        await File.WriteAllTextAsync(_folder["file"], "");
        Assert.Equal(DiskImageErrorKind.NotFound, (await RefusedAsync(_folder["file/disk"])).Kind);
    }

    [UnixFact]
    public async Task A_device_is_no_image_file()
    {
        DiskImageException error = await RefusedAsync("/dev/null");
        Assert.Equal(DiskImageErrorKind.InvalidOption, error.Kind);
        Assert.Contains("a device", error.Message, StringComparison.Ordinal);
    }

    [OracleFact("mkfifo")]
    public async Task A_pipe_is_refused_without_waiting_for_its_other_end()
    {
        _ = await Programs.RunAsync("mkfifo", _folder["pipe"]);
        DiskImageException error = await RefusedAsync(_folder["pipe"]);
        Assert.Equal(DiskImageErrorKind.InvalidOption, error.Kind);
        Assert.Contains("a pipe", error.Message, StringComparison.Ordinal);
    }

    /// <summary>
    /// A file may become a pipe between the look at its path and its opening: the opening itself must not wait, and the handle tells.
    /// </summary>
    [OracleTheory("mkfifo")]
    [InlineData(false)]
    [InlineData(true)]
    public async Task A_pipe_opens_at_once_and_is_known_by_its_handle(bool writable)
    {
        _ = await Programs.RunAsync("mkfifo", _folder["pipe"]);
        using SafeFileHandle handle = HostFile.Current.Open(_folder["pipe"], writable, HostSharing.Everybody); // would hang here
        Assert.Equal(HostFileKind.Pipe, HostFile.Current.KindOf(handle));
    }

    [Fact]
    public void Handles_tell_kinds()
    {
        File.WriteAllText(_folder["file"], "");
        using SafeFileHandle file = HostFile.Current.Open(_folder["file"], writable: true, HostSharing.Nobody);
        Assert.Equal(HostFileKind.Regular, HostFile.Current.KindOf(file));
    }

    /// <summary>As the user nobody where the tests run as root, whom no folder keeps out.</summary>
    [OracleFact("setpriv")]
    public async Task A_file_in_a_folder_that_may_not_be_entered_is_access_denied()
    {
        if (OperatingSystem.IsWindows())
        {
            return; // there is no setpriv, so this is skipped there
        }
        string closed = Directory.CreateDirectory(_folder["closed"]).FullName, path = Path.Combine(closed, "disk.raw");
        await File.WriteAllBytesAsync(path, new byte[512]);
        File.SetUnixFileMode(closed, UnixFileMode.UserRead | UnixFileMode.UserWrite);
        try
        {
            string[] asNobody = Environment.UserName.Equals("root", StringComparison.Ordinal)
                ? ["--reuid=65534", "--regid=65534", "--clear-groups"] : [];
            File.SetUnixFileMode(_folder.Root, (UnixFileMode)Convert.ToInt32("755", 8));
            string output = await Programs.RunAsync(
                "setpriv", [.. asNobody, Environment.ProcessPath!, "exec", typeof(OpeningTests).Assembly.Location, "open", path]);
            Assert.StartsWith("open AccessDenied", output, StringComparison.Ordinal);
            Assert.Contains("a folder on its path", output, StringComparison.Ordinal);
        }
        finally
        {
            File.SetUnixFileMode(closed, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        }
    }

    [NotOnWineFact("an error of its own for a file that is too large")] // it says "not enough memory"
    public async Task A_length_that_cannot_be_had_is_a_failure_to_write_in_our_words()
    {
        await File.WriteAllBytesAsync(_folder["disk.raw"], new byte[512]);
        await using BlockNode disk = await Images.OpenAsync(_folder["disk.raw"], "raw", writable: true);
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(async () => await disk.ResizeAsync(long.MaxValue - 511));
        Assert.Equal(DiskImageErrorKind.NoSpace, error.Kind);
        Assert.Contains("allows for one file", error.Message, StringComparison.Ordinal);
        Assert.DoesNotContain("Parameter", error.Message, StringComparison.Ordinal);
        Assert.Equal(512, disk.Length);
    }

    [Fact]
    public async Task Preallocation_that_is_cancelled_leaves_the_old_length()
    {
        await File.WriteAllBytesAsync(_folder["disk.raw"], new byte[512]);
        await using BlockNode disk = await Images.OpenAsync(_folder["disk.raw"], "raw", writable: true);
        foreach (PreallocationMode mode in new[] { PreallocationMode.Falloc, PreallocationMode.Full })
        {
            _ = await Assert.ThrowsAnyAsync<OperationCanceledException>(
                async () => await disk.ResizeAsync(1 << 20, mode, new CancellationToken(canceled: true)));
            Assert.Equal(512, disk.Length);
            Assert.Equal(512, new FileInfo(_folder["disk.raw"]).Length);
        }
        await disk.ResizeAsync(1 << 20, PreallocationMode.Full);
        Assert.Equal(1 << 20, new FileInfo(_folder["disk.raw"]).Length);
    }

    private static async Task<DiskImageException> RefusedAsync(string path)
        => await Assert.ThrowsAsync<DiskImageException>(
            async () => await Images.Opener.OpenFileAsync(ImageLocator.Parse(path), writable: false, folder: null, CancellationToken.None));

    /// <summary>A fact that needs Linux or macOS.</summary>
    private sealed class UnixFactAttribute : FactAttribute
    {
        public UnixFactAttribute() => Skip = Wine.WhyNotOnWindows("the devices of Unix");
    }
}
