using DiskImage.Block;
using DiskImage.Graph;
using DiskImage.Jobs;
using DiskImage.Locking;
using DiskImage.Operations;
using DiskImage.Platform;
using DiskImage.Tests.Support;
using Microsoft.Win32.SafeHandles;

namespace DiskImage.Tests.Locking;

/// <summary>
/// An operation that looks at an image first and writes to it then keeps it locked in between, and while it opens it anew: somebody who asks
/// the kernel all the time never finds it free.
/// </summary>
public sealed class LockUpgradeTests : IDisposable
{
    private readonly TestFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [OracleFact("qemu-io")]
    public async Task A_repair_keeps_its_lock_between_looking_and_repairing()
    {
        if (!OperatingSystem.IsLinux())
        {
            return;
        }
        string path = await MakeAsync("disk.qcow2", "");
        await using var watch = new Watch(path);
        using (var operation = new RepairOperation(new Front(watch), new OpenRequest(path)))
        {
            _ = await operation.FindAsync(CancellationToken.None);
            await AskAsync(path);
            await watch.StartAsync();
            _ = await operation.RunAsync(RepairMode.All, CancellationToken.None);
        }
        Assert.True(watch.Looks > 0, "nobody looked");
        Assert.Equal(0, watch.Free);
        Assert.Empty(ImageHolder.Of(path));
    }

    [OracleFact("qemu-io")]
    public async Task A_resize_keeps_its_lock_between_plan_and_change()
    {
        if (!OperatingSystem.IsLinux())
        {
            return;
        }
        string path = await MakeAsync("disk.qcow2", "");
        await using var watch = new Watch(path);
        using (var operation = new ResizeOperation(new Front(watch), new OpenRequest(path), new SizeChange(8 << 20, IsRelative: false)))
        {
            ResizePlan plan = await operation.PlanAsync(mayShrink: false, CancellationToken.None);
            await AskAsync(path);
            await watch.StartAsync();
            Assert.Equal(8 << 20, await operation.RunAsync(plan, PreallocationMode.Off, CancellationToken.None));
        }
        Assert.True(watch.Looks > 0, "nobody looked");
        Assert.Equal(0, watch.Free);
        Assert.Empty(ImageHolder.Of(path));
        await (await Images.OpenAsync(path, "qcow2", writable: true)).DisposeAsync();
    }

    [OracleFact("qemu-io")]
    public async Task A_plan_that_is_not_carried_out_gives_its_lock_up()
    {
        string path = await MakeAsync("disk.qcow2", "");
        using (var operation = new ResizeOperation(new Front(null), new OpenRequest(path), new SizeChange(8 << 20, IsRelative: false)))
        {
            _ = await operation.PlanAsync(mayShrink: false, CancellationToken.None);
        }
        Assert.Empty(ImageHolder.Of(path));
        _ = await Programs.RunAsync("qemu-io", "-f", "qcow2", "-c", "write 0 512", path);
    }

    [OracleFact("qemu-io")]
    public async Task A_merge_keeps_base_and_top_locked_until_it_is_done_with_each()
    {
        if (!OperatingSystem.IsLinux())
        {
            return;
        }
        string below = await MakeAsync("base.qcow2", ""), top = await MakeAsync("top.qcow2", ",backing_file=base.qcow2,backing_fmt=qcow2");
        await using Watch watchBase = new(below), watchTop = new(top);
        var front = new Front(watchBase);
        OpenedImage opened = await front.OpenAsync(new OpenRequest(top), CancellationToken.None);
        IReadOnlyList<ChainLayer> chain = ChainLayer.Of(opened);
        using (var kept = new KeptLocks())
        {
            MergeOperation.Keep(kept, opened, 1);
            var operation = new MergeOperation(front, Images.Registry, new OpenRequest(top), chain, 1, kept);
            await opened.DisposeAsync();
            await AskAsync(below);
            await AskAsync(top);
            await watchBase.StartAsync();
            await watchTop.StartAsync();
            await operation.RunAsync(CancellationToken.None);
            await AskAsync(top);
            front.Then = watchTop; // until it is open to be emptied
            await operation.EmptyAsync(CancellationToken.None);
        }
        Assert.True(watchBase.Looks > 0 && watchTop.Looks > 0, "nobody looked");
        Assert.Equal((0, 0), (watchBase.Free, watchTop.Free));
        Assert.Empty(ImageHolder.Of(below));
        Assert.Empty(ImageHolder.Of(top));
        await Programs.CheckAsync(below);
    }

    /// <summary>Somebody takes the moment: the operation finds out, and changes nothing.</summary>
    [Fact]
    public async Task A_reader_who_came_in_between_is_heeded()
    {
        if (OperatingSystem.IsWindows())
        {
            return; // no byte locks there
        }
        string path = await MakeAsync("disk.qcow2", "");
        using var operation = new ResizeOperation(new Front(null), new OpenRequest(path), new SizeChange(8 << 20, IsRelative: false));
        ResizePlan plan = await operation.PlanAsync(mayShrink: false, CancellationToken.None);
        await using (BlockNode reader = await Images.OpenAsync(path, "qcow2"))
        {
            DiskImageException e = await Assert.ThrowsAsync<DiskImageException>(
                () => operation.RunAsync(plan, PreallocationMode.Off, CancellationToken.None));
            Assert.Equal(DiskImageErrorKind.Locked, e.Kind);
        }
        Assert.Equal(8 << 20, await operation.RunAsync(plan, PreallocationMode.Off, CancellationToken.None));
    }

    private async Task<string> MakeAsync(string name, string options)
    {
        await Images.CreateAsync(_folder[name], "qcow2", $"size=4M{options}");
        await using BlockNode disk = await Images.OpenAsync(_folder[name], "qcow2", writable: true);
        await disk.WriteAsync(0, new byte[65536]);
        return _folder[name];
    }

    /// <summary>QEMU may read it, and not write to it.</summary>
    private static async Task AskAsync(string path)
    {
        Assert.Contains(ImageHolder.Of(path), h => h is { IsThisProcess: true, Access.LetsOthersWrite: false });
        (int code, _, string errors) = await Programs.TryAsync("qemu-io", "-f", "qcow2", "-c", "write 0 512", path);
        Assert.NotEqual(0, code);
        Assert.Contains("lock", errors, StringComparison.Ordinal);
        _ = await Programs.RunAsync("qemu-io", "-r", "-f", "qcow2", "-c", "read 0 512", path);
    }

    /// <summary>Asks the kernel, over and over, by an opening of its own, whether anybody keeps others from writing.</summary>
    private sealed class Watch(string path) : IAsyncDisposable
    {
        private readonly CancellationTokenSource _stop = new();
        private SafeFileHandle? _handle;
        private Task? _looking;

        public long Looks { get; private set; }

        public long Free { get; private set; }

        /// <summary>Returns when it was looked once.</summary>
        public async Task StartAsync()
        {
            var first = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
            _handle = HostFile.Current.Open(path, writable: true, HostSharing.Everybody); // who only looks may
            _looking = Task.Run(() =>
            {
                while (!_stop.IsCancellationRequested)
                {
                    Free += HostFile.Current.ProbeByte(_handle, 201) == ByteLockResult.Free ? 1 : 0;
                    Looks++;
                    _ = first.TrySetResult();
                }
            });
            await first.Task;
        }

        /// <summary>Ends it, if it was started.</summary>
        public async Task StopAsync()
        {
            if (_looking is not null)
            {
                await _stop.CancelAsync();
                await _looking;
            }
        }

        public async ValueTask DisposeAsync()
        {
            await StopAsync();
            _handle?.Dispose();
            _stop.Dispose();
        }
    }

    /// <summary>Ends a watch while a job has the image open for writing.</summary>
    private sealed class Front(Watch? watch) : IFrontEnd
    {
        /// <summary>A watch that ends when the next image is open.</summary>
        public Watch? Then { get; set; }

        public async Task<OpenedImage> OpenAsync(OpenRequest request, CancellationToken cancellationToken)
        {
            OpenedImage image = await Images.Opener.OpenAsync(request, cancellationToken);
            await (Then?.StopAsync() ?? Task.CompletedTask);
            return image;
        }

        public ValueTask WarnAsync(Wording text) => default;

        public ValueTask ExplainAsync(Wording text) => default;

        public async Task<T> ShowAsync<T>(string activity, Func<IProgress<JobProgress>, Task<T>> job)
        {
            T result = await job(new Progress<JobProgress>());
            await (watch?.StopAsync() ?? Task.CompletedTask);
            return result;
        }
    }
}
