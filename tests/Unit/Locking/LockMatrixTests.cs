using System.Globalization;
using DiskImage.Block;
using DiskImage.Graph;
using DiskImage.Locking;
using DiskImage.Platform;
using DiskImage.Tests.Support;
using Microsoft.Win32.SafeHandles;

namespace DiskImage.Tests.Locking;

/// <summary>How an image is used.</summary>
public enum ImageUse
{
    Read,
    Write,

    /// <summary>Reading beside writers: force-share, qemu-io -U.</summary>
    Share,
}

/// <summary>Every use of an image by us beside every use by QEMU, either coming first, and who is told to hold it.</summary>
public sealed class LockMatrixTests : IDisposable
{
    private readonly TestFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [OracleTheory("qemu-io")]
    [InlineData(ImageUse.Read, ImageUse.Read, true)]
    [InlineData(ImageUse.Read, ImageUse.Write, false)]
    [InlineData(ImageUse.Read, ImageUse.Share, true)]
    [InlineData(ImageUse.Write, ImageUse.Read, false)]
    [InlineData(ImageUse.Write, ImageUse.Write, false)]
    [InlineData(ImageUse.Write, ImageUse.Share, true)]
    [InlineData(ImageUse.Share, ImageUse.Read, true)]
    [InlineData(ImageUse.Share, ImageUse.Write, true)]
    [InlineData(ImageUse.Share, ImageUse.Share, true)]
    public async Task Ours_and_theirs_go_together_or_exclude_each_other_whoever_comes_first(ImageUse ours, ImageUse theirs, bool together)
    {
        string path = await MakeAsync();
        await using (BlockNode disk = await OpenAsync(path, ours))
        {
            ImageHolder own = Assert.Single(ImageHolder.Of(path));
            Assert.True(own.IsThisProcess);
            Assert.Equal(AccessOf(ours), own.Access);
            Assert.True(await ListedAsync(path) >= 1);
            (int code, _, string errors) = await QemuAsync(path, theirs);
            Assert.True(together == (code == 0), errors);
            Assert.Equal(!together, errors.Contains("lock", StringComparison.Ordinal));
        }
        using (QemuHolder holder = await QemuHolder.StartAsync(
            path, "qcow2", theirs == ImageUse.Write, theirs == ImageUse.Share))
        {
            ImageHolder their = Assert.Single(ImageHolder.Of(path));
            Assert.Equal((holder.ProcessId, "qemu-io"), (their.ProcessId, their.ProcessName));
            Assert.Equal(theirs == ImageUse.Write, their.Access!.Value.Writes);
            if (together)
            {
                await (await OpenAsync(path, ours)).DisposeAsync();
                return;
            }
            DiskImageException refused = await Assert.ThrowsAsync<DiskImageException>(() => OpenAsync(path, ours));
            Assert.Equal(DiskImageErrorKind.Locked, refused.Kind);
            Assert.Contains($"qemu-io (process {holder.ProcessId})", refused.Message, StringComparison.Ordinal);
            await (await OpenAsync(path, ours, OpenPolicy.Default with { Locking = ImageLocking.Off })).DisposeAsync();
        }
        await (await OpenAsync(path, ours)).DisposeAsync(); // it was killed
    }

    [OracleFact("qemu-nbd")]
    public async Task Of_three_processes_each_that_stands_in_the_way_is_named()
    {
        string path = await MakeAsync();
        using QemuHolder one = await QemuHolder.StartAsync(path, "qcow2", writes: false);
        using QemuHolder two = await QemuHolder.StartAsync(path, "qcow2", writes: false);
        await using (BlockNode disk = await OpenAsync(path, ImageUse.Read))
        {
            Assert.Equal(3, ImageHolder.Of(path).Count);
            one.Dispose();
            Assert.NotEqual(0, (await QemuAsync(path, ImageUse.Write)).Code);
            DiskImageException refused = await Assert.ThrowsAsync<DiskImageException>(() => OpenAsync(path, ImageUse.Write));
            Assert.Contains($"process {two.ProcessId}", refused.Message, StringComparison.Ordinal);
            two.Dispose();
            Assert.NotEqual(0, (await QemuAsync(path, ImageUse.Write)).Code); // ours is left
            Assert.True(Assert.Single(ImageHolder.Of(path)).IsThisProcess);
        }
        Assert.Empty(ImageHolder.Of(path));
        Assert.Equal(0, (await QemuAsync(path, ImageUse.Write)).Code);
        using QemuHolder export = await QemuHolder.ExportAsync(path, "qcow2");
        DiskImageException exported = await Assert.ThrowsAsync<DiskImageException>(() => OpenAsync(path, ImageUse.Read));
        Assert.Contains($"qemu-nbd (process {export.ProcessId})", exported.Message, StringComparison.Ordinal);
    }

    /// <summary>Where there are no locks of open files, the older ones that belong to the process serve against other processes.</summary>
    [OracleFact("qemu-io")]
    public async Task Locks_of_the_process_keep_QEMU_out_and_say_what_they_are()
    {
        if (!OperatingSystem.IsLinux())
        {
            return;
        }
        string path = await MakeAsync();
        var host = new LinuxFile(hasOpenFileLocks: false);
        Assert.True(host.LocksEndWithAnyClose);
        using (SafeFileHandle handle = host.Open(path, writable: true, HostSharing.Everybody))
        {
            Assert.Equal(ByteLockResult.Free, host.LockByte(handle, 101));
            Assert.Equal(ByteLockResult.Free, host.LockByte(handle, 201));
            Assert.NotEqual(0, (await QemuAsync(path, ImageUse.Write)).Code);
            ImageHolder own = Assert.Single(ImageHolder.Of(path));
            Assert.Equal((Permissions.Write, Permissions.All & ~Permissions.Write), (own.Access!.Value.Needs, own.Access.Value.Lets));
            File.OpenHandle(path, share: FileShare.ReadWrite).Dispose(); // any opening of the process
            Assert.Empty(ImageHolder.Of(path));
        }
        using (QemuHolder holder = await QemuHolder.StartAsync(path, "qcow2", writes: true))
        using (SafeFileHandle handle = host.Open(path, writable: false, HostSharing.Everybody))
        {
            Assert.Equal(ByteLockResult.Taken, host.ProbeByte(handle, 101));
        }
    }

    [Fact]
    public void A_proc_of_another_time_is_read_as_it_is_meant()
    {
        string root = _folder["proc"];
        void Write(string name, string text)
        {
            Directory.CreateDirectory(Path.GetDirectoryName(Path.Combine(root, name))!);
            File.WriteAllText(Path.Combine(root, name), text);
        }
        Write("locks", """
            1: OFDLCK ADVISORY  READ -1 fd:00:255 100 101
            2: OFDLCK ADVISORY  READ -1 fd:00:255 201 201
            3: FLOCK  ADVISORY  WRITE 77 fd:00:255 0 EOF
            3: -> FLOCK  ADVISORY  READ 78 fd:00:255 0 EOF
            4: POSIX  ADVISORY  WRITE 79 fd:00:256 0 EOF
            5: OFDLCK ADVISORY  READ -1 fd:00:255 203 203
            """);
        Write("40/fdinfo/9", "pos:\t0\nflags:\t0100002\nlock:\t1: OFDLCK ADVISORY  READ -1 fd:00:255 100 101\nlock:\t2: "
            + "OFDLCK ADVISORY  READ -1 fd:00:255 201 201\n");
        Write("40/comm", "qemu-system-x86\n");
        Write("40/cmdline", "/usr/bin/qemu-system-x86_64\0-m\0");
        Write("41/fdinfo/3", "pos:\t0\nflags:\t0100000\n");
        Write("77/comm", "dotnet\n");
        var file = new HostEntry(HostFileKind.Regular, new NodeIdentity("file:fd:0:ff"), 1, IsProtected: false);
        IReadOnlyList<HostHolder> found = new LinuxProcesses(root, p => p.EndsWith("disk", StringComparison.Ordinal) ? file : null)
            .HoldersOf("disk");
        Assert.Equal(
            ["qemu-system-x86_64 (process 40)", "dotnet (process 77)", "a process that is not shown to you"],
            found.Select(h => ImageHolder.Of(h).ToString()).ToArray());
        Assert.Equal(
            new Access(Permissions.ConsistentRead | Permissions.Write, Permissions.All & ~Permissions.Write),
            ImageHolder.Of(found[0]).Access);
        Assert.True(found[1].IsWhole);
        Assert.Equal(Permissions.Resize, Permissions.All & ~ImageHolder.Of(found[2]).Access!.Value.Lets);
        Assert.Empty(new LinuxProcesses(root, _ => null).HoldersOf("disk"));
        Assert.Empty(new LinuxProcesses(_folder["none"], _ => file).HoldersOf("disk"));
    }

    [Fact]
    public void Windows_users_of_a_file_are_holders_that_say_nothing()
    {
        HostProcesses windows = new WindowsProcesses(new RecordedManager());
        ImageHolder[] holders = [.. windows.HoldersOf(@"C:\disk.vhdx").Select(ImageHolder.Of)];
        Assert.Equal(["Virtual Machine Worker Process (process 4711)", "process 12"], holders.Select(h => h.ToString()).ToArray());
        Assert.All(holders, h => Assert.Null(h.Access));
        Assert.Empty(windows.HoldersOf(@"C:\other.vhdx"));
    }

    private async Task<string> MakeAsync()
    {
        string path = _folder["disk.qcow2"];
        await Images.CreateAsync(path, "qcow2", "size=4M");
        await using BlockNode disk = await Images.OpenAsync(path, "qcow2", writable: true);
        await disk.WriteAsync(0, new byte[65536]);
        return path;
    }

    private static Task<BlockNode> OpenAsync(string path, ImageUse use, OpenPolicy? policy = null) => Images.OpenAsync(
        path, "qcow2", use == ImageUse.Write, policy: (policy ?? OpenPolicy.Default) with { ForceShare = use == ImageUse.Share });

    private static Access AccessOf(ImageUse use) => Access.To(use == ImageUse.Write, use == ImageUse.Share);

    private static Task<(int Code, string Output, string Errors)> QemuAsync(string path, ImageUse use) => use switch
    {
        ImageUse.Write => Programs.TryAsync("qemu-io", "-f", "qcow2", "-c", "write 0 512", path),
        ImageUse.Share => Programs.TryAsync("qemu-io", "-r", "-U", "-f", "qcow2", "-c", "read 0 512", path),
        _ => Programs.TryAsync("qemu-io", "-r", "-f", "qcow2", "-c", "read 0 512", path),
    };

    /// <summary>How many locks of a file lslocks lists in QEMU's two ranges.</summary>
    private static async Task<int> ListedAsync(string path)
    {
        if (Programs.Find("lslocks") is null)
        {
            return int.MaxValue;
        }
        string inode = (await Programs.RunAsync("stat", "-c", "%i", path)).Trim();
        string list = await Programs.RunAsync("lslocks", "-n", "-r", "-o", "TYPE,INODE,START");
        return list.Split('\n').Select(l => l.Split(' ', StringSplitOptions.RemoveEmptyEntries)).Count(
            f => f.Length == 3 && f[0] == "OFDLCK" && f[1] == inode
                && int.Parse(f[2], CultureInfo.InvariantCulture) is (>= 100 and <= 103) or (>= 200 and <= 203));
    }

    private sealed class RecordedManager : IRestartManager
    {
        public IReadOnlyList<FileUser> UsersOf(string path)
            => path == @"C:\disk.vhdx" ? [new(4711, "Virtual Machine Worker Process"), new(12, "")] : [];
    }
}
