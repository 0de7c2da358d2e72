using System.Globalization;
using System.Runtime.InteropServices;
using DiskImage.Block;
using DiskImage.Graph;
using DiskImage.Locking;
using DiskImage.Platform;
using DiskImage.Tests.Support;
using Microsoft.Win32.SafeHandles;

namespace DiskImage.Tests.Locking;

/// <summary>
/// Who may have an image open at the same time: QEMU and this program exclude each other as two QEMUs do, and two of ours likewise.
/// </summary>
public sealed partial class ImageLockTests : IDisposable
{
    private readonly TestFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [OracleTheory("qemu-io")]
    [InlineData("qcow2")]
    [InlineData("raw")]
    [InlineData("vhdx")]
    [InlineData("vpc")]
    public async Task A_QEMU_that_writes_excludes_reading_and_writing(string format)
    {
        string path = await MakeAsync(format);
        using (QemuHolder holder = await QemuHolder.StartAsync(path, format, writes: true))
        {
            DiskImageException reading = await RefusedAsync(path, format, writable: false);
            Assert.Contains($"qemu-io (process {holder.ProcessId}) has the image open", reading.Message, StringComparison.Ordinal);
            Assert.Contains("may write to it", reading.Message, StringComparison.Ordinal);
            Assert.Contains(reading.Wording.Remedies, r => r.Kind == RemedyKind.ForceShare);
            DiskImageException writing = await RefusedAsync(path, format, writable: true);
            Assert.Empty(writing.Wording.Remedies);
            await ReadAsync(path, format, force: true);
        }
        await ReadAsync(path, format); // it was killed: its locks are gone
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task A_descriptor_that_a_starting_program_inherits_keeps_no_lock(bool writable)
    {
        if (OperatingSystem.IsWindows())
        {
            return; // handles are not inherited there
        }
        string path = await MakeAsync("raw");
        BlockNode node = await Images.OpenAsync(path, "raw", writable);
        int inherited = Duplicate(Directory.GetFiles("/dev/fd").Where(f => path.Equals(
            new FileInfo(f).LinkTarget,
            StringComparison.Ordinal)).Select(f => int.Parse(Path.GetFileName(f), CultureInfo.InvariantCulture)).Single());
        using var copy = new SafeFileHandle(inherited, ownsHandle: true); // as between fork and exec
        await node.DisposeAsync();
        await (await Images.OpenAsync(path, "raw", writable: true)).DisposeAsync();
    }

    [OracleTheory("qemu-io")]
    [InlineData("qcow2")]
    [InlineData("vhdx")]
    [InlineData("vpc")]
    public async Task A_QEMU_that_reads_excludes_writing_only(string format)
    {
        string path = await MakeAsync(format);
        using (await QemuHolder.StartAsync(path, format, writes: false))
        {
            await ReadAsync(path, format);
            DiskImageException writing = await RefusedAsync(path, format, writable: true);
            Assert.Contains("does not let others write to it", writing.Message, StringComparison.Ordinal);
        }
        await (await Images.OpenAsync(path, format, writable: true)).DisposeAsync();
    }

    /// <summary>The example of the report: an export, and a change of the image below it.</summary>
    [OracleFact("qemu-nbd")]
    public async Task An_exported_image_is_not_changed()
    {
        string path = await MakeAsync("qcow2");
        using (await QemuHolder.ExportAsync(path, "qcow2"))
        {
            _ = await RefusedAsync(path, "qcow2", writable: true);
            _ = await RefusedAsync(path, "qcow2", writable: false);
        }
        await (await Images.OpenAsync(path, "qcow2", writable: true)).DisposeAsync();
    }

    [OracleTheory("qemu-io")]
    [InlineData("qcow2")]
    [InlineData("vhdx")]
    [InlineData("vpc")]
    public async Task Writing_keeps_QEMU_out(string format)
    {
        string path = await MakeAsync(format);
        await using (BlockNode disk = await Images.OpenAsync(path, format, writable: true))
        {
            await QemuRefusedAsync("qemu-img", "info", "-f", format, path);
            await QemuRefusedAsync("qemu-io", "-f", format, "-c", "write 0 512", path);
            _ = await Programs.QemuImgAsync("info", "-U", "-f", format, path);
        }
        _ = await Programs.QemuImgAsync("info", "-f", format, path);
    }

    [OracleTheory("qemu-io")]
    [InlineData("qcow2")]
    [InlineData("raw")]
    [InlineData("vhdx")]
    public async Task Reading_keeps_writing_QEMUs_out(string format)
    {
        string path = await MakeAsync(format);
        await using (BlockNode disk = await Images.OpenAsync(path, format))
        {
            _ = await Programs.QemuImgAsync("info", "-f", format, path);
            await QemuRefusedAsync("qemu-io", "-f", format, "-c", "write 0 512", path);
        }
        await using (BlockNode disk = await Images.OpenAsync(path, format, policy: OpenPolicy.Default with { ForceShare = true }))
        {
            _ = await Programs.RunAsync("qemu-io", "-f", format, "-c", "write 0 512", path);
        }
    }

    [OracleFact("qemu-io")]
    public async Task Backing_images_are_in_use_too()
    {
        string backing = await MakeAsync("qcow2"), overlay = _folder["overlay.qcow2"];
        _ = await Programs.QemuImgAsync("create", "-f", "qcow2", "-b", backing, "-F", "qcow2", overlay);
        using (await QemuHolder.StartAsync(overlay, "qcow2", writes: true))
        {
            await ReadAsync(backing, "qcow2");
            _ = await RefusedAsync(backing, "qcow2", writable: true);
        }
        await using (BlockNode disk = await Images.OpenAsync(overlay, "qcow2", writable: true))
        {
            _ = await Programs.QemuImgAsync("info", "-f", "qcow2", backing);
            await QemuRefusedAsync("qemu-io", "-f", "qcow2", "-c", "write 0 512", backing);
        }
        using (await QemuHolder.StartAsync(backing, "qcow2", writes: true))
        {
            _ = await RefusedAsync(overlay, "qcow2", writable: false);
            await ReadAsync(overlay, "qcow2", force: true); // what lies below is shared as well
        }
    }

    [Fact]
    public async Task Two_of_ours_exclude_each_other()
    {
        string path = await MakeAsync("raw");
        await using (BlockNode writer = await Images.OpenAsync(path, "raw", writable: true))
        {
            _ = await RefusedAsync(path, "raw", writable: false);
            _ = await RefusedAsync(path, "raw", writable: true);
            if (!OperatingSystem.IsWindows())
            {
                await ReadAsync(path, "raw", force: true);
            }
        }
        await using (BlockNode reader = await Images.OpenAsync(path, "raw"))
        {
            await ReadAsync(path, "raw");
            _ = await RefusedAsync(path, "raw", writable: true);
        }
        await (await Images.OpenAsync(path, "raw", writable: true)).DisposeAsync();
    }

    /// <summary>A file that the runtime has locked for itself, by the means that it has.</summary>
    [Fact]
    public async Task The_runtime_s_own_sharing_is_heeded()
    {
        string path = await MakeAsync("raw");
        using (File.OpenHandle(path, FileMode.Open, FileAccess.ReadWrite, FileShare.None))
        {
            Assert.Contains(
                "another process is using it", (await RefusedAsync(path, "raw", writable: false)).Message, StringComparison.Ordinal);
        }
        await using (BlockNode writer = await Images.OpenAsync(path, "raw", writable: true))
        {
            _ = Assert.Throws<IOException>(() => File.OpenHandle(path, FileMode.Open, FileAccess.Read, FileShare.Read));
        }
    }

    /// <summary>An image that is being made is in use from its first byte on.</summary>
    [OracleFact("qemu-img")]
    public async Task An_unfinished_image_is_in_use()
    {
        await using NewImage image = await Images.BeginAsync(_folder["new.qcow2"], "qcow2", "size=1M");
        string unfinished = Directory.GetFiles(_folder.Root).Single();
        await QemuRefusedAsync("qemu-img", "info", "-f", "qcow2", unfinished);
    }

    [Fact]
    public void Byte_locks_are_shared_and_seen_by_others_only()
    {
        string path = _folder["file"];
        File.WriteAllBytes(path, new byte[10]); // the bytes need not exist
        HostFile host = HostFile.Current;
        using SafeFileHandle one = host.Open(
            path, writable: false, HostSharing.Everybody), other = host.Open(path, writable: true, HostSharing.Everybody);
        if (host.LockByte(one, 101) == ByteLockResult.Unsupported)
        {
            Assert.True(OperatingSystem.IsWindows() || OperatingSystem.IsMacOS());
            Assert.Equal(ByteLockResult.Unsupported, host.ProbeByte(other, 101));
            ImageLock.Take(one, path, Access.Writing); // claims nothing, fails nothing
            ImageLock.Take(other, path, Access.Writing);
            return;
        }
        Assert.Equal(ByteLockResult.Free, host.ProbeByte(one, 101)); // its own
        Assert.Equal(ByteLockResult.Taken, host.ProbeByte(other, 101));
        Assert.Equal(ByteLockResult.Free, host.ProbeByte(other, 102));
        Assert.Equal(ByteLockResult.Free, host.LockByte(other, 101));
        host.Close(one);
        Assert.Equal(ByteLockResult.Free, host.ProbeByte(other, 101));
    }

    private async Task<string> MakeAsync(string format)
    {
        string path = _folder[$"disk.{format}"];
        await Images.CreateAsync(path, format, "size=4M");
        await using BlockNode disk = await Images.OpenAsync(path, format, writable: true);
        await disk.WriteAsync(0, new byte[65536]);
        return path;
    }

    private static async Task ReadAsync(string path, string format, bool force = false)
    {
        await using BlockNode disk = await Images.OpenAsync(path, format, policy: OpenPolicy.Default with { ForceShare = force });
        await disk.ReadAsync(0, new byte[512]);
    }

    private static async Task<DiskImageException> RefusedAsync(string path, string format, bool writable)
    {
        DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(async () => await Images.OpenAsync(path, format, writable));
        Assert.Equal(DiskImageErrorKind.Locked, error.Kind);
        return error;
    }

    private static async Task QemuRefusedAsync(string program, params string[] arguments)
    {
        (int code, _, string errors) = await Programs.TryAsync(program, arguments);
        Assert.NotEqual(0, code);
        Assert.Contains("lock", errors, StringComparison.Ordinal);
    }

    [LibraryImport("libc", EntryPoint = "dup", SetLastError = true)]
    private static partial int Duplicate(int descriptor);
}
