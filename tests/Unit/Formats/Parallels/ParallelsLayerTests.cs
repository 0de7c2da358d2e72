using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Graph;
using DiskImage.Options;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Parallels;

/// <summary>Bundles whose layers come, change and go: snapshots, sizes, storages; cut short and failing at any point.</summary>
public sealed class ParallelsLayerTests : IDisposable
{
    private const int Cluster = BundleMaker.Cluster, Size = 8 * Cluster;
    private const string Descriptor = "DiskDescriptor.xml", Fresh = "{aaaaaaaa-0000-0000-0000-000000000001}";

    private static readonly DiskFormat s_parallels = new("parallels");

    private readonly TestFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    public static TheoryData<string, bool> Changes() => new()
    {
        { "create", false }, { "restore root", false }, { "restore middle", true }, { "delete root", false }, { "delete root", true },
        { "delete middle", false }, { "delete both", true }, { "grow", false }, { "grow plain", true }, { "shrink", false },
        { "shrink split", false },
    };

    [Theory]
    [MemberData(nameof(Changes))]
    public async Task A_crash_at_any_write_leaves_the_old_or_the_new_layers(string change, bool isRootPlain)
    {
        (MemoryFolder folder, Layers before) = await MakeAsync(change, isRootPlain);
        await using (BlockNode disk = await folder.OpenDiskAsync(s_parallels, Descriptor, withBacking: true))
        {
            await ChangeAsync(disk, change);
            byte[] now = new byte[disk.Length];
            await disk.ReadAsync(0, now); // with the layers that are open
            Layers given = await LookAsync(folder.Files, "at the end");
            Assert.Equal(given.Top, now);
        }
        Layers after = await LookAsync(folder.Files, "when closed");
        RequireChanged(change, before, after, folder);
        foreach (bool onlyFlushed in new[] { false, true })
        {
            await foreach ((int done, Dictionary<string, byte[]> files) in folder.StatesAsync(onlyFlushed, torn: Descriptor))
            {
                string what = $"after {done} of {folder.Count}{(onlyFlushed ? ", flushed only" : "")}";
                Layers left = await LookAsync(files, what);
                Assert.True(left.Equals(before) || left.Equals(after) || Midway(change, before, after, left), what);
            }
        }
    }

    /// <summary>Nothing is written into the descriptor: each change is one name that leads to another file.</summary>
    [Fact]
    public async Task The_descriptor_is_replaced_in_one_step_and_stays_locked_and_as_it_was_protected()
    {
        _ = new BundleMaker(_folder, "vm.hdd").MakeChain();
        string path = _folder[$"vm.hdd/{Descriptor}"];
        if (!OperatingSystem.IsWindows())
        {
            File.SetUnixFileMode(path, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.GroupRead);
        }
        await using (BlockNode disk = await Images.OpenAsync(path, writable: true))
        {
            ISnapshots snapshots = disk.As<ISnapshots>()!;
            foreach (Func<Task> change in new Func<Task>[]
            {
                async () => _ = await snapshots.CreateSnapshotAsync(Fresh, DateTimeOffset.UtcNow, default),
                async () => await disk.ResizeAsync(Size + Cluster),
                async () => _ = await snapshots.DeleteSnapshotAsync(Fresh, default),
            })
            {
                NodeIdentity before = disk.Child("file")!.Identity!.Value;
                await change();
                Assert.NotEqual(before, disk.Child("file")!.Identity);
                Assert.Equal(path, disk.Child("file")!.Name);
                Assert.Equal(
                    DiskImageErrorKind.Locked,
                    (await Assert.ThrowsAsync<DiskImageException>(() => Images.OpenAsync(path, "raw", writable: true))).Kind);
                await disk.WriteAsync(0, new byte[] { 5 });
            }
        }
        Assert.Equal(
            [Descriptor, "middle.hds", "root.hds"], // and no temporary ones
            Directory.GetFiles(_folder["vm.hdd"]).Select(f => Path.GetFileName(f)!)
                .Where(n => n is not "top.hds" && !n.StartsWith("vm.hdd.", StringComparison.Ordinal))
                .Order(StringComparer.Ordinal),
            StringComparer.Ordinal);
        if (!OperatingSystem.IsWindows())
        {
            Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.GroupRead, File.GetUnixFileMode(path));
        }
        await using BlockNode again = await Images.OpenAsync(_folder["vm.hdd"]);
        Assert.Equal(Size + Cluster, again.Length);
        Assert.Empty((await again.As<ICheckable>()!.CheckAsync(null, default)).Findings);
    }

    [Theory]
    [MemberData(nameof(Changes))]
    public async Task Whatever_fails_the_layers_are_the_old_or_the_new_ones(string change, bool isRootPlain)
    {
        for (int number = 1; ; number++)
        {
            (MemoryFolder folder, Layers before) = await MakeAsync(change, isRootPlain);
            BlockNode disk = await folder.OpenDiskAsync(s_parallels, Descriptor, withBacking: true);
            folder.Fail(number);
            DiskImageException? error = null;
            try
            {
                await ChangeAsync(disk, change);
                folder.Fail(0);
                await disk.DisposeAsync();
            }
            catch (DiskImageException e)
            {
                error = e;
                folder.Fail(0);
                await Closing.FailedAsync(disk);
            }
            Assert.Equal(folder.HasFailed, error is not null);
            Layers left = await LookAsync(folder.Files, $"request {number}");
            Assert.Equal(left.Top.Length > before.Top.Length ? before.Top.Length : left.Top.Length, Math.Min(left.Top.Length, before.Top.Length));
            if (error is null)
            {
                Assert.True(number > 3);
                return;
            }
            if (!change.StartsWith("restore", StringComparison.Ordinal)) // whose purpose is other contents
            {
                int same = Math.Min(left.Top.Length, before.Top.Length);
                Assert.True(left.Top.AsSpan(0, same).SequenceEqual(before.Top.AsSpan(0, same)), $"request {number}");
            }
        }
    }

    [Fact]
    public async Task A_snapshot_is_taken_read_gone_back_to_and_removed()
    {
        var maker = new BundleMaker(_folder, "vm.hdd");
        (byte[] top, byte[] middle) = maker.MakeChain();
        await using (BlockNode disk = await Images.OpenAsync(maker.Folder, writable: true))
        {
            ISnapshots snapshots = disk.As<ISnapshots>()!;
            Assert.Equal([BundleMaker.Root, BundleMaker.Middle], (await snapshots.GetSnapshotsAsync(default)).Select(s => s.Id), StringComparer.Ordinal);
            DiskImageException refused = await Assert.ThrowsAsync<DiskImageException>(
                async () => await snapshots.CreateSnapshotAsync("monday", DateTimeOffset.UtcNow, default));
            Assert.Equal(DiskImageErrorKind.InvalidOption, refused.Kind);
            Assert.Equal(Fresh, (await snapshots.CreateSnapshotAsync(Fresh, DateTimeOffset.UtcNow, default)).Id);
            await disk.WriteAsync(0, Enumerable.Repeat((byte)7, Size).ToArray());
            await using (BlockNode kept = await snapshots.OpenSnapshotAsync(Fresh, default))
            {
                Assert.Equal(top, await ReadAsync(kept));
                Assert.True(kept.IsReadOnly);
            }
            await using (BlockNode older = await snapshots.OpenSnapshotAsync(BundleMaker.Middle, default))
            {
                Assert.Equal(middle, await ReadAsync(older));
            }
            _ = await snapshots.DeleteSnapshotAsync(BundleMaker.Middle, default);
            _ = await snapshots.RestoreSnapshotAsync(Fresh, default);
            Assert.Equal(top, await ReadAsync(disk));
            await disk.WriteAsync(5, new byte[] { 1, 2, 3 });
            new byte[] { 1, 2, 3 }.CopyTo(top, 5);
        }
        Assert.Equal(4, Directory.GetFiles(maker.Folder).Length); // the descriptor, the root, the snapshot, the top layer
        await using BlockNode again = await Images.OpenAsync(maker.Folder);
        Assert.Equal(top, await ReadAsync(again));
        Assert.Empty((await again.As<ICheckable>()!.CheckAsync(null, default)).Findings);
    }

    [Fact]
    public async Task A_snapshot_that_several_stand_on_goes_into_each_of_them()
    {
        (MemoryFolder folder, Layers before) = await MakeAsync("branch", isRootPlain: false);
        await using (BlockNode disk = await folder.OpenDiskAsync(s_parallels, Descriptor, withBacking: true))
        {
            _ = await disk.As<ISnapshots>()!.DeleteSnapshotAsync(BundleMaker.Root, default);
        }
        Layers after = await LookAsync(folder.Files, "");
        Assert.Equal(before.Top, after.Top);
        Assert.Equal(before.Snapshots.Count - 1, after.Snapshots.Count);
        Assert.Equal(before.Snapshots[BundleMaker.Middle], after.Snapshots[BundleMaker.Middle]);
        Assert.DoesNotContain("root.hds", folder.Files.Keys, StringComparer.Ordinal);
    }

    [Fact]
    public async Task A_new_bundle_is_a_folder_that_is_there_as_a_whole_or_not_at_all()
    {
        string path = _folder["new.hdd"];
        byte[] model = [.. Enumerable.Range(0, 3 << 20).Select(i => (byte)(i / 5000))];
        await using (NewImage left = await Images.BeginAsync(path, "parallels", "size=3M,bundle=on"))
        {
            await left.Node.WriteAsync(0, model);
        }
        Assert.False(Directory.Exists(path)); // nobody completed it
        await using (NewImage image = await Images.BeginAsync(path, "parallels", "size=3M,bundle=on,cluster_size=64k"))
        {
            await image.Node.WriteAsync(0, model);
            Assert.DoesNotContain(Directory.GetFiles(path), f => f.EndsWith(".xml", StringComparison.Ordinal));
            await image.CompleteAsync(durable: true, CancellationToken.None);
        }
        Assert.Equal(
            [Descriptor, "new.hdd.0.{5fbaabe3-6958-40ff-92a7-860e329aab41}.hds"],
            Directory.GetFiles(path).Select(Path.GetFileName).Order(StringComparer.Ordinal),
            StringComparer.Ordinal);
        await using (BlockNode disk = await Images.OpenAsync(path, writable: true))
        {
            Assert.Equal(model, await ReadAsync(disk));
            await disk.ResizeAsync(4 << 20);
        }
        await using (BlockNode disk = await Images.OpenAsync(Path.Combine(path, Descriptor)))
        {
            byte[] longer = [.. model, .. new byte[1 << 20]];
            Assert.Equal(longer, await ReadAsync(disk));
        }
        foreach (bool replace in new[] { false, true })
        {
            DiskImageException there = await Assert.ThrowsAsync<DiskImageException>(() => CreateAsync(path, replace));
            Assert.Equal(DiskImageErrorKind.InvalidOption, there.Kind); // a folder
        }
        await File.WriteAllTextAsync(_folder["file.hdd"], "");
        _ = await Assert.ThrowsAsync<DiskImageException>(() => CreateAsync(_folder["file.hdd"], replace: false));
        _ = await Assert.ThrowsAsync<DiskImageException>(() => CreateAsync(_folder["missing/new.hdd"], replace: false));
        _ = await Assert.ThrowsAsync<DiskImageException>(() => Images.CreateAsync(_folder["none.hdd"], "parallels", "size=0,bundle=on"));
        Assert.False(Directory.Exists(_folder["none.hdd"]));
    }

    /// <summary>Virtuozzo's own program reads the descriptor and passes every layer, before and after they come and go.</summary>
    [OracleFact("ploop")]
    public async Task Ploop_reads_the_descriptor_and_passes_every_image()
    {
        string path = _folder["judged.hdd"];
        await Images.CreateAsync(path, "parallels", "size=16M,bundle=on");
        await RequireAsync();
        await using (BlockNode disk = await Images.OpenAsync(path, writable: true))
        {
            await disk.WriteAsync(1000, Enumerable.Repeat((byte)3, 3 << 20).ToArray());
            ISnapshots snapshots = disk.As<ISnapshots>()!;
            _ = await snapshots.CreateSnapshotAsync(Fresh, DateTimeOffset.UtcNow, default);
            await disk.WriteAsync(5 << 20, Enumerable.Repeat((byte)4, 3 << 20).ToArray());
        }
        await RequireAsync(Fresh);
        await using (BlockNode disk = await Images.OpenAsync(path, writable: true))
        {
            await disk.ResizeAsync(32 << 20);
            _ = await disk.As<ISnapshots>()!.DeleteSnapshotAsync(Fresh, default);
        }
        await RequireAsync();

        async Task RequireAsync(params string[] snapshots)
        {
            string listed = await Programs.RunAsync("ploop", "snapshot-list", Path.Combine(path, Descriptor));
            Assert.Contains(BundleMaker.Top, listed, StringComparison.OrdinalIgnoreCase);
            Assert.Equal(snapshots.Length + 1, listed.Split('\n').Count(l => l.StartsWith('{')));
            Assert.All(snapshots, s => Assert.Contains(s, listed, StringComparison.OrdinalIgnoreCase));
            _ = await Programs.RunAsync("ploop", "check", Path.Combine(path, Descriptor)); // of all layers; it fills holes
        }
    }

    private static async Task CreateAsync(string path, bool replace)
    {
        FormatDriver driver = Images.Registry.Format("parallels");
        object record = ((ICreatable)driver).CreateOptions.Bind(OptionSchema.Split("size=1M,bundle=on"));
        await using NewImage image = await new ImageCreator(Images.Opener).CreateAsync(
            path, driver, record, replace, openOptions: null, CancellationToken.None);
    }

    private static async Task ChangeAsync(BlockNode disk, string change)
    {
        ISnapshots snapshots = disk.As<ISnapshots>()!;
        switch (change)
        {
            case "create":
                _ = await snapshots.CreateSnapshotAsync(Fresh, DateTimeOffset.UtcNow, default);
                break;
            case "restore root":
                _ = await snapshots.RestoreSnapshotAsync(BundleMaker.Root, default);
                break;
            case "restore middle":
                _ = await snapshots.RestoreSnapshotAsync(BundleMaker.Middle, default);
                break;
            case "delete root":
                _ = await snapshots.DeleteSnapshotAsync(BundleMaker.Root, default);
                break;
            case "delete middle":
                _ = await snapshots.DeleteSnapshotAsync(BundleMaker.Middle, default);
                break;
            case "delete both":
                _ = await snapshots.DeleteSnapshotAsync(BundleMaker.Root, default);
                _ = await snapshots.DeleteSnapshotAsync(BundleMaker.Middle, default);
                break;
            case "grow" or "grow plain":
                await disk.ResizeAsync(Size + (5 * Cluster) + 512);
                break;
            case "shrink":
                await disk.ResizeAsync((3 * Cluster) + 512);
                break;
            default:
                await disk.ResizeAsync(Cluster);
                break;
        }
    }

    private async Task<(MemoryFolder Folder, Layers Before)> MakeAsync(string change, bool isRootPlain)
    {
        var maker = new BundleMaker(_folder, "made.hdd");
        if (Directory.Exists(maker.Folder))
        {
            Directory.Delete(maker.Folder, recursive: true);
        }
        _ = maker.MakeChain(isRootPlain);
        if (change.StartsWith("shrink", StringComparison.Ordinal) || change is "grow plain")
        {
            bool isSplit = change.EndsWith("split", StringComparison.Ordinal);
            string type = isRootPlain ? "Plain" : "Compressed";
            maker.Image("last.hds", [null, Enumerable.Repeat((byte)3, Cluster).ToArray()]);
            File.Delete(_folder["made.hdd/middle.hds"]);
            File.Delete(_folder["made.hdd/top.hds"]);
            int sectors = Size / 512;
            maker.Describe(
                isSplit ? sectors + (2 * Cluster / 512) : sectors,
                (isSplit ? BundleMaker.Storage(sectors, sectors + (2 * Cluster / 512), (BundleMaker.Top, "Compressed", "last.hds")) : "")
                    + BundleMaker.Storage(0, sectors, (BundleMaker.Top, type, "root.hds")),
                BundleMaker.Shot(BundleMaker.Top, BundleMaker.Nothing));
        }
        else if (change is "branch")
        {
            await File.WriteAllTextAsync(
                maker.Descriptor,
                (await File.ReadAllTextAsync(maker.Descriptor)).Replace(
                    BundleMaker.Shot(BundleMaker.Top, BundleMaker.Middle),
                    BundleMaker.Shot(BundleMaker.Top, BundleMaker.Root),
                    StringComparison.Ordinal));
        }
        var folder = new MemoryFolder(
            Directory.GetFiles(maker.Folder).Select(f => (Path.GetFileName(f), File.ReadAllBytes(f))).ToList());
        return (folder, await LookAsync(folder.Files, "before"));
    }

    /// <summary>What a bundle holds. Nothing is wrong with it but that a change was cut short.</summary>
    private static async Task<Layers> LookAsync(Dictionary<string, byte[]> files, string what)
    {
        try
        {
            var folder = new MemoryFolder(files.Select(f => (f.Key, f.Value)));
            await using BlockNode disk = await folder.OpenDiskAsync(s_parallels, Descriptor, withBacking: true);
            CheckReport report = await disk.As<ICheckable>()!.CheckAsync(null, default);
            CheckFinding? wrong = report.Findings.FirstOrDefault(
                f => f.Severity is CheckSeverity.Corruption or CheckSeverity.Error && f.Kind is not "Dirty");
            Assert.True(wrong is null, $"{what}: {wrong}");
            var snapshots = new SortedDictionary<string, byte[]>(StringComparer.Ordinal);
            ISnapshots kept = disk.As<ISnapshots>()!;
            foreach (DiskSnapshot snapshot in await kept.GetSnapshotsAsync(default))
            {
                await using BlockNode shown = await kept.OpenSnapshotAsync(snapshot.Id, default);
                snapshots.Add(snapshot.Id, await ReadAsync(shown));
            }
            return new(await ReadAsync(disk), snapshots);
        }
        catch (DiskImageException e)
        {
            Assert.Fail($"{what}: {e.Message}");
            throw;
        }
    }

    private static void RequireChanged(string change, Layers before, Layers after, MemoryFolder folder)
    {
        switch (change)
        {
            case "create":
                Assert.Equal(before.Top, after.Snapshots[Fresh]);
                Assert.Equal(before.Top, after.Top);
                Assert.Equal(3, after.Snapshots.Count);
                break;
            case "restore root" or "restore middle":
                Assert.Equal(before.Snapshots[change.EndsWith("root", StringComparison.Ordinal) ? BundleMaker.Root : BundleMaker.Middle], after.Top);
                Assert.Equal(2, after.Snapshots.Count);
                Assert.Equal(4, folder.Files.Count);
                break;
            case "grow" or "grow plain":
                Assert.Equal([.. before.Top, .. new byte[(5 * Cluster) + 512]], after.Top);
                break;
            case "shrink" or "shrink split":
                Assert.Equal(before.Top[..after.Top.Length], after.Top);
                Assert.Equal(change is "shrink" ? (3 * Cluster) + 512 : Cluster, after.Top.Length);
                Assert.Equal(change is "shrink" ? 3 : 2, folder.Files.Count); // beside a file that is not the disk's
                break;
            default:
                int lost = change is "delete both" ? 2 : 1;
                Assert.Equal(before.Top, after.Top);
                Assert.Equal(before.Snapshots.Count - lost, after.Snapshots.Count);
                Assert.Equal(4 - lost, folder.Files.Count);
                break;
        }
    }

    /// <summary>Of two snapshots that go, one may be gone.</summary>
    private static bool Midway(string change, Layers before, Layers after, Layers left)
        => change is "delete both" && left.Top.AsSpan().SequenceEqual(before.Top) && left.Snapshots.Count == 1 && after.Snapshots.Count == 0
            && left.Snapshots[BundleMaker.Middle].AsSpan().SequenceEqual(before.Snapshots[BundleMaker.Middle]);

    private static async Task<byte[]> ReadAsync(BlockNode disk)
    {
        byte[] bytes = new byte[disk.Length];
        await disk.ReadAsync(0, bytes);
        return bytes;
    }

    private sealed record Layers(byte[] Top, SortedDictionary<string, byte[]> Snapshots)
    {
        public bool Equals(Layers? other)
            => other is not null && Top.AsSpan().SequenceEqual(other.Top)
                && Snapshots.Keys.SequenceEqual(other.Snapshots.Keys, StringComparer.Ordinal)
                && Snapshots.All(s => s.Value.AsSpan().SequenceEqual(other.Snapshots[s.Key]));

        public override int GetHashCode() => Top.Length;
    }
}
