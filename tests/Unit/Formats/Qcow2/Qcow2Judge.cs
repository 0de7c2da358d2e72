using DiskImage.Block;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Qcow2;

/// <summary>What becomes of an image is judged by qemu-img, by the reader written from the specification, and by this library.</summary>
internal static class Qcow2Judge
{
    /// <summary>Runs a script on the image of a folder and judges what came of it; a failure says what was done.</summary>
    public static async Task PlayAsync(Qcow2Script script, TestFolder folder, Qcow2GuestModel model, int steps, string what)
    {
        try
        {
            await script.RunAsync(steps);
            await JudgeAsync(folder, model, what);
        }
        catch (Exception e) when (e is DiskImageException or Xunit.Sdk.XunitException)
        {
            Assert.Fail($"{what}: {e.Message}\n{script.Log}");
        }
    }

    private static async Task JudgeAsync(TestFolder folder, Qcow2GuestModel model, string what)
    {
        string path = folder["disk.qcow2"], twin = folder["twin.raw"];
        await Programs.CheckAsync(path);
        await File.WriteAllBytesAsync(twin, model.Contents);
        await Programs.CompareAsync(twin, "raw", path, "qcow2");
        foreach ((string name, Qcow2GuestModel state) in model.Snapshots)
        {
            _ = await Programs.QemuImgAsync(
                "convert", "-l", $"snapshot.name={name}", "-f", "qcow2", "-O", "raw", path, folder["snapshot.raw"]);
            byte[] kept = await File.ReadAllBytesAsync(folder["snapshot.raw"]);
            int both = Math.Min(kept.Length, state.Size); // qemu-img shows a snapshot in the present size
            Assert.True(state.Contents.AsSpan(0, both).SequenceEqual(kept.AsSpan(0, both)), $"{what}: snapshot {name} differs");
        }
        byte[]? data = model.Shape.HasDataFile ? await File.ReadAllBytesAsync(folder[Qcow2OptionMatrix.DataFile]) : null;
        VerifyFile(new Qcow2SpecReader(await File.ReadAllBytesAsync(path), data), model, what);
        await VerifyOwnAsync(path, model, what);
    }

    /// <summary>What lies in the file is what the model predicts.</summary>
    private static void VerifyFile(Qcow2SpecReader reader, Qcow2GuestModel model, string what)
    {
        reader.RequireSound(what);
        model.Verify(reader.Active, what);
        Assert.True(!model.Shape.DataFileIsRaw
            || model.Contents.AsSpan().SequenceEqual(reader.Data.AsSpan(0, model.Size)), $"{what}: the data file is not the disk");
        string[] names = [.. model.Snapshots.Select(s => s.Name)], found = [.. reader.Snapshots.Select(s => s.Name)];
        Assert.Equal(names, found);
        foreach (((string name, Qcow2GuestModel state), (_, _, Qcow2SpecView view)) in model.Snapshots.Zip(reader.Snapshots))
        {
            state.Verify(view, $"{what}, snapshot {name}");
        }
        string[] expected = [.. model.Bitmaps.Select(b => $"{b.Name} {b.Granularity} {b.IsEnabled} {string.Join(' ', b.Ranges())}")];
        string[] stored = [.. reader.Bitmaps.Select(b => $"{b.Name} {1L << b.GranularityBits} {b.IsAuto} {string.Join(' ', b.Dirty)}")];
        Assert.Equal(expected, stored);
    }

    /// <summary>We read the image as the model has it, and find nothing wrong.</summary>
    private static async Task VerifyOwnAsync(string path, Qcow2GuestModel model, string what)
    {
        await using BlockNode disk = await Images.OpenAsync(path, "qcow2");
        byte[] contents = new byte[disk.Length];
        await disk.ReadAsync(0, contents);
        Assert.True(model.Contents.AsSpan().SequenceEqual(contents), $"{what}: we read it otherwise");
        CheckReport report = await ((ICheckable)disk).CheckAsync(null, CancellationToken.None);
        Assert.True(report.Findings.Count == 0, $"{what}: {string.Join('\n', report.Findings.Take(5))}");
        foreach ((string name, Qcow2GuestModel state) in model.Snapshots)
        {
            await using BlockNode view = await ((ISnapshots)disk).OpenSnapshotAsync(name, CancellationToken.None);
            byte[] kept = new byte[view.Length];
            await view.ReadAsync(0, kept);
            Assert.True(state.Contents.AsSpan().SequenceEqual(kept), $"{what}: we read snapshot {name} otherwise");
        }
    }
}
