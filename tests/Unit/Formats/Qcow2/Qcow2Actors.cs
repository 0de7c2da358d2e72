using DiskImage.Block;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Qcow2;

/// <summary>Somebody who does to an image what a script says: this library, or QEMU's tools.</summary>
internal interface IQcow2Actor : IAsyncDisposable
{
    ValueTask WriteAsync(int offset, byte[] data);

    /// <summary>Stores a whole cluster compressed, if it can be; true if it was.</summary>
    ValueTask<bool> WriteCompressedAsync(int offset, byte[] data);

    ValueTask WriteZeroesAsync(int offset, int length);

    /// <summary>Discards a range; what it reads as afterwards.</summary>
    ValueTask<byte[]> DiscardAsync(int offset, int length);

    ValueTask ResizeAsync(int size);

    /// <summary>Takes a snapshot; false where the refcounts are too narrow for one more.</summary>
    ValueTask<bool> CreateSnapshotAsync(string name);

    /// <summary>Goes back to a snapshot; false where the refcounts are too narrow for it to be held twice meanwhile.</summary>
    ValueTask<bool> RestoreSnapshotAsync(string name);

    ValueTask DeleteSnapshotAsync(string name);

    ValueTask AddBitmapAsync(string name, int granularity);

    ValueTask ClearBitmapAsync(string name);

    ValueTask EnableBitmapAsync(string name, bool enabled);

    /// <summary>Flushes, and now and then closes the image and opens it again.</summary>
    ValueTask PauseAsync(bool reopen);
}

/// <summary>An image in the hands of this library.</summary>
internal sealed class OwnActor(string path) : IQcow2Actor
{
    private BlockNode? _disk;

    public async ValueTask WriteAsync(int offset, byte[] data) => await (await DiskAsync()).WriteAsync(offset, data);

    public async ValueTask<bool> WriteCompressedAsync(int offset, byte[] data)
    {
        var disk = (ICompressedWritable)await DiskAsync();
        byte[] packed = new byte[data.Length];
        if (disk.Compress(data, packed) is not int length)
        {
            await WriteAsync(offset, data);
            return false;
        }
        await disk.WriteCompressedAsync(offset, packed.AsMemory(0, length), CancellationToken.None);
        return true;
    }

    public async ValueTask WriteZeroesAsync(int offset, int length) => await (await DiskAsync()).WriteZeroesAsync(offset, length);

    public async ValueTask<byte[]> DiscardAsync(int offset, int length)
    {
        BlockNode disk = await DiskAsync();
        await disk.DiscardAsync(offset, length);
        byte[] now = new byte[length];
        await disk.ReadAsync(offset, now);
        return now;
    }

    public async ValueTask ResizeAsync(int size) => await (await DiskAsync()).ResizeAsync(size);

    public ValueTask<bool> CreateSnapshotAsync(string name)
        => IsPossibleAsync(disk => disk.CreateSnapshotAsync(name, DateTimeOffset.UnixEpoch, CancellationToken.None));

    public ValueTask<bool> RestoreSnapshotAsync(string name)
        => IsPossibleAsync(disk => disk.RestoreSnapshotAsync(name, CancellationToken.None));

    public async ValueTask DeleteSnapshotAsync(string name)
        => _ = await ((ISnapshots)await DiskAsync()).DeleteSnapshotAsync(name, CancellationToken.None);

    public async ValueTask AddBitmapAsync(string name, int granularity)
        => _ = await ((IBitmaps)await DiskAsync()).AddBitmapAsync(name, granularity, enabled: true, CancellationToken.None);

    public async ValueTask ClearBitmapAsync(string name)
        => await ((IBitmaps)await DiskAsync()).ClearBitmapAsync(name, CancellationToken.None);

    public async ValueTask EnableBitmapAsync(string name, bool enabled)
        => await ((IBitmaps)await DiskAsync()).EnableBitmapAsync(name, enabled, CancellationToken.None);

    public async ValueTask PauseAsync(bool reopen)
    {
        await (await DiskAsync()).FlushAsync();
        if (reopen)
        {
            await DisposeAsync();
        }
    }

    public async ValueTask DisposeAsync()
    {
        if (_disk is not null)
        {
            await _disk.DisposeAsync();
            _disk = null;
        }
    }

    private async ValueTask<bool> IsPossibleAsync(Func<ISnapshots, ValueTask<DiskSnapshot>> change)
    {
        try
        {
            _ = await change((ISnapshots)await DiskAsync());
            return true;
        }
        catch (DiskImageException e) when (e.Kind == DiskImageErrorKind.OutOfRange)
        {
            return false;
        }
    }

    private async ValueTask<BlockNode> DiskAsync() => _disk ??= await Images.OpenAsync(path, "qcow2", writable: true);
}

/// <summary>An image in the hands of qemu-io and qemu-img.</summary>
internal sealed class QemuActor(TestFolder folder, string path) : IQcow2Actor
{
    private readonly List<string> _commands = []; // for qemu-io, not yet carried out
    private int _patterns;

    public async ValueTask WriteAsync(int offset, byte[] data)
        => _commands.Add($"write -s {await PatternAsync(data)} {offset} {data.Length}");

    /// <summary>
    /// QEMU 7.2 can run into its own tables when it packs compressed clusters between plain ones; in a new process it does not pack.
    /// </summary>
    public async ValueTask<bool> WriteCompressedAsync(int offset, byte[] data)
    {
        await DisposeAsync();
        _commands.Add($"write -c -s {await PatternAsync(data)} {offset} {data.Length}");
        return true;
    }

    public ValueTask WriteZeroesAsync(int offset, int length)
    {
        _commands.Add($"write -z {(offset % 1024 == 0 ? "-u " : "")}{offset} {length}");
        return default;
    }

    public async ValueTask<byte[]> DiscardAsync(int offset, int length)
    {
        _commands.Add($"discard {offset} {length}");
        await DisposeAsync();
        await using BlockNode disk = await Images.OpenAsync(path, "qcow2");
        byte[] now = new byte[length];
        await disk.ReadAsync(offset, now);
        return now;
    }

    public ValueTask ResizeAsync(int size) => ImageAsync("resize", "-f", "qcow2", "--shrink", path, $"{size}");

    public async ValueTask<bool> CreateSnapshotAsync(string name)
    {
        await ImageAsync("snapshot", "-c", name, path);
        return true;
    }

    public async ValueTask<bool> RestoreSnapshotAsync(string name)
    {
        await ImageAsync("snapshot", "-a", name, path);
        return true;
    }

    public ValueTask DeleteSnapshotAsync(string name) => ImageAsync("snapshot", "-d", name, path);

    public ValueTask AddBitmapAsync(string name, int granularity)
        => ImageAsync("bitmap", "--add", "-g", $"{granularity}", "-f", "qcow2", path, name);

    public ValueTask ClearBitmapAsync(string name) => ImageAsync("bitmap", "--clear", "-f", "qcow2", path, name);

    public ValueTask EnableBitmapAsync(string name, bool enabled)
        => ImageAsync("bitmap", enabled ? "--enable" : "--disable", "-f", "qcow2", path, name);

    public ValueTask PauseAsync(bool reopen)
    {
        _commands.Add("flush");
        return reopen ? DisposeAsync() : default;
    }

    public async ValueTask DisposeAsync()
    {
        string[] commands = [.. _commands.SelectMany(c => new[] { "-c", c })];
        _commands.Clear();
        if (commands.Length > 0)
        {
            string output = await Programs.RunAsync("qemu-io", ["-f", "qcow2", "-d", "unmap", .. commands, path]);
            Assert.False(output.Contains("failed", StringComparison.Ordinal), output);
        }
    }

    private async ValueTask ImageAsync(params string[] arguments)
    {
        await DisposeAsync();
        _ = await Programs.QemuImgAsync(arguments);
    }

    private async ValueTask<string> PatternAsync(byte[] data)
    {
        string pattern = folder[$"pattern{_patterns++}"];
        await File.WriteAllBytesAsync(pattern, data);
        return pattern;
    }
}

/// <summary>A random sequence of requests and changes, carried out by an actor and by the model alike.</summary>
internal sealed class Qcow2Script(IQcow2Actor actor, Qcow2GuestModel model, Random random, Qcow2Script.Abilities can)
{
    private readonly List<string> _done = [];
    private int _names;

    /// <summary>What was done so far, a line for each request.</summary>
    public string Log => string.Join('\n', _done);

    /// <summary>What the image at hand allows.</summary>
    internal sealed record Abilities(bool Snapshots, bool Compression, bool Bitmaps, bool ResizeWithSnapshots);

    public async Task RunAsync(int steps)
    {
        for (int step = 1; step <= steps; step++)
        {
            await StepAsync(step);
        }
        await actor.DisposeAsync();
    }

    private async Task StepAsync(int tag)
    {
        switch (random.Next(24))
        {
            case 0 or 1 when can.Snapshots && model.Snapshots.Count < 3:
                string name = $"s{_names++}";
                Note($"snapshot {name}");
                if (await actor.CreateSnapshotAsync(name))
                {
                    model.CreateSnapshot(name);
                }
                break;
            case 2 when model.Snapshots.Count > 0 && model.Bitmaps.Count == 0: // bitmaps cannot follow a state that is brought back
                string back = model.Snapshots[random.Next(model.Snapshots.Count)].Name;
                Note($"restore {back}");
                if (await actor.RestoreSnapshotAsync(back))
                {
                    model.RestoreSnapshot(back);
                }
                break;
            case 3 when model.Snapshots.Count > 1:
                int gone = random.Next(model.Snapshots.Count);
                Note($"delete {model.Snapshots[gone].Name}");
                await actor.DeleteSnapshotAsync(model.Snapshots[gone].Name);
                model.Snapshots.RemoveAt(gone);
                break;
            case 4 when model.Snapshots.Count == 0 || can.ResizeWithSnapshots:
                int size = NewSize();
                Note($"resize {size}");
                await actor.ResizeAsync(size);
                model.Resize(size);
                break;
            case 5 when can.Bitmaps:
                await ChangeBitmapsAsync();
                break;
            case 6 or 7 or 8 when can.Compression:
                await WriteCompressedAsync(tag);
                break;
            case 9 or 10 or 11:
                (int zeroes, int zeroLength) = Range();
                Note($"zero {zeroes} {zeroLength}");
                await actor.WriteZeroesAsync(zeroes, zeroLength);
                model.WriteZeroes(zeroes, zeroLength);
                break;
            case 12 or 13:
                (int discarded, int discardLength) = Range();
                Note($"discard {discarded} {discardLength}");
                model.Discard(discarded, discardLength, await actor.DiscardAsync(discarded, discardLength));
                break;
            case 14:
                Note("flush");
                await actor.PauseAsync(reopen: random.Next(2) == 0);
                break;
            default:
                (int offset, int length) = Range();
                byte[] data = SectorModel.Data(offset / SectorModel.Bytes, length / SectorModel.Bytes, tag);
                Note($"write {offset} {length}");
                await actor.WriteAsync(offset, data);
                model.Write(offset, data);
                break;
        }
    }

    private async Task WriteCompressedAsync(int tag)
    {
        int cluster = model.Shape.ClusterSize, at = random.Next(Math.Max(1, model.Size / cluster)) * cluster;
        if (at + cluster > model.Size || (model.Shape.ByQemu && !model.CanQemuCompress(at)))
        {
            return;
        }
        Note($"write compressed {at} {cluster}");
        byte[] data = SectorModel.Data(at / SectorModel.Bytes, cluster / SectorModel.Bytes, tag);
        if (!model.Shape.ByQemu && random.Next(4) == 0)
        {
            random.NextBytes(data); // is stored plain
        }
        model.WriteCompressed(at, data, await actor.WriteCompressedAsync(at, data));
    }

    private async Task ChangeBitmapsAsync()
    {
        BitmapModel? one = model.Bitmaps.Count == 0 ? null : model.Bitmaps[random.Next(model.Bitmaps.Count)];
        switch (random.Next(3))
        {
            case 0 when one is not null:
                Note($"clear {one.Name}");
                await actor.ClearBitmapAsync(one.Name);
                one.Clear();
                break;
            case 1 when one is not null:
                Note($"enable {one.Name} {!one.IsEnabled}");
                await actor.EnableBitmapAsync(one.Name, !one.IsEnabled);
                one.IsEnabled = !one.IsEnabled;
                break;
            default:
                var added = new BitmapModel($"b{_names++}", SectorModel.Bytes << random.Next(8), enabled: true, model.Size);
                Note($"bitmap {added.Name} {added.Granularity}");
                await actor.AddBitmapAsync(added.Name, (int)added.Granularity);
                model.Bitmaps.Add(added);
                break;
        }
    }

    /// <summary>QEMU 7.2 leaves what it cuts off inside a cluster, and shows it again after growing: it cuts at clusters only.</summary>
    private int NewSize()
    {
        int size = Math.Max(4, (model.Size / SectorModel.Bytes) + random.Next(-40, 41)) * SectorModel.Bytes;
        int cluster = model.Shape.ClusterSize;
        return model.Shape.ByQemu && size < model.Size ? Math.Max(cluster, size / cluster * cluster) : size;
    }

    private void Note(string what) => _done.Add(what);

    /// <summary>Sectors at random, often whole clusters.</summary>
    private (int Offset, int Length) Range()
    {
        int unit = random.Next(3) == 0 ? model.Shape.ClusterSize : random.Next(2) == 0 ? model.Shape.UnitSize : SectorModel.Bytes;
        int units = Math.Max(1, model.Size / unit);
        int most = Math.Max(1, Math.Min(units, Math.Max(3 * model.Shape.ClusterSize, 32768) / unit));
        int count = random.Next(1, most + 1), offset = random.Next(units - count + 1) * unit;
        int length = Math.Min(count * unit, model.Size - offset);
        return random.Next(12) == 0 ? (offset, model.Size - offset) : (offset, length);
    }
}
