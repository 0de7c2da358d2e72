using DiskImage.Block;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Faults;

/// <summary>
/// The power goes at some point of a workload: what reached the file is a part of the log of writes. The image must open, leak at
/// most, show what was flushed, and be fit for further use.
/// </summary>
public sealed class CrashTests
{
    private const int Checked = 150, CheckedByQemu = 20;

    public static TheoryData<string> Workloads() => [.. Workload.Names];

    [Theory]
    [MemberData(nameof(Workloads))]
    public async Task Any_prefix_of_the_writes_leaves_a_sound_image(string name)
    {
        (Workload workload, IReadOnlyList<WriteLogEntry> log, List<(
            GuestOperation Operation, int Began, int Done)> history) = await RunAsync(name);
        Assert.True(log.Count > 50, $"only {log.Count} requests");
        using var folder = new TestFolder();
        await PlaceBackingAsync(folder, workload);
        var file = new MemoryNode((byte[])workload.Image.Clone());
        SectorModel model = workload.NewModel();
        int step = Math.Max(1, log.Count / Checked), qemuStep = Math.Max(1, log.Count / CheckedByQemu);
        int began = 0, done = 0;
        for (int prefix = 0; prefix <= log.Count; prefix++)
        {
            if (prefix > 0)
            {
                await WriteLogNode.ReplayAsync(log[prefix - 1], file);
            }
            for (; began < history.Count && history[began].Began < prefix; began++)
            {
                for (; done < began && history[done].Done <= prefix; done++)
                {
                    model.Done(history[done].Operation);
                }
                model.Began(history[began].Operation);
            }
            for (; done < began && history[done].Done <= prefix; done++)
            {
                model.Done(history[done].Operation);
            }
            if (prefix % step == 0 || prefix == log.Count)
            {
                string what = $"{name}, {prefix} of {log.Count} requests";
                await SoundAsync(workload, file.ToArray(), model, null, what);
                if (prefix % qemuStep < step)
                {
                    await QemuAgreesAsync(folder, file.ToArray(), what);
                }
            }
        }
    }

    [Theory]
    [MemberData(nameof(Workloads))]
    public async Task Any_part_of_the_writes_since_a_flush_leaves_a_sound_image(string name)
    {
        (Workload workload, IReadOnlyList<WriteLogEntry> log, List<(
            GuestOperation Operation, int Began, int Done)> history) = await RunAsync(name);
        using var folder = new TestFolder();
        await PlaceBackingAsync(folder, workload);
        var random = new Random(1);
        var file = new MemoryNode((byte[])workload.Image.Clone()); // as of the last flush
        for (int start = 0, tested = 0; start < log.Count;)
        {
            int end = start;
            while (end < log.Count && log[end].Kind != WriteLogKind.Flush)
            {
                end++;
            }
            for (int attempt = 0; attempt < 4 && end - start > 1; attempt++, tested++)
            {
                var crashed = new MemoryNode(file.ToArray());
                foreach (WriteLogEntry entry in log.Take(start..end).Where(_ => random.Next(attempt + 2) == 0))
                {
                    if (entry.Kind != WriteLogKind.Discard || entry.Offset + entry.Length <= crashed.Length)
                    {
                        await WriteLogNode.ReplayAsync(entry, crashed);
                    }
                }
                SectorModel model = workload.NewModel();
                var unsure = new HashSet<int>(); // a place may be theirs already and its data not yet there
                foreach ((GuestOperation operation, int began, int done) in history.Where(h => h.Began < end))
                {
                    model.Began(operation);
                    if (done <= start)
                    {
                        model.Done(operation);
                    }
                    else
                    {
                        unsure.UnionWith(Enumerable.Range(operation.Sector, operation.Count));
                    }
                }
                string what = $"{name}, a part of requests {start} to {end}, attempt {attempt}";
                await SoundAsync(workload, crashed.ToArray(), model, unsure, what);
                if (tested % 12 == 0)
                {
                    await QemuAgreesAsync(folder, crashed.ToArray(), what);
                }
            }
            for (; start <= end && start < log.Count; start++)
            {
                await WriteLogNode.ReplayAsync(log[start], file);
            }
        }
    }

    /// <summary>Runs a workload over a log. Operation by operation: how many requests were logged before and after it.</summary>
    private static async Task<(
        Workload Workload,
        IReadOnlyList<WriteLogEntry> Log,
        List<(GuestOperation Operation, int Began, int Done)> History)> RunAsync(string name)
    {
        Workload workload = await Workload.MakeAsync(name);
        var log = new WriteLogNode(new MemoryNode((byte[])workload.Image.Clone()));
        var history = new List<(GuestOperation Operation, int Began, int Done)>();
        SectorModel model = workload.NewModel();
        await using (BlockNode disk = await workload.OpenAsync(log))
        {
            foreach (GuestOperation operation in workload.Operations)
            {
                int began = log.Count;
                await operation.RunAsync(disk);
                model.Done(operation);
                history.Add((operation, began, log.Count));
            }
            await model.VerifyAsync(disk, crashed: false);
        }
        return (workload, log.Entries, history);
    }

    private static async Task SoundAsync(Workload workload, byte[] image, SectorModel model, HashSet<int>? unsure, string what)
    {
        try
        {
            await using (BlockNode disk = await workload.OpenAsync(new MemoryNode(image, readOnly: true)))
            {
                await model.VerifyAsync(disk, crashed: true, unsure);
            }
            await MemoryDisk.LeaksAtMostAsync(image, what);
            var file = new MemoryNode(image);
            await using (BlockNode disk = await workload.OpenAsync(file)) // and life goes on
            {
                foreach (GuestOperation operation in GuestOperation.Sequence(
                    77, model.Sectors, 8, 50, GuestAction.Write, GuestAction.Discard, GuestAction.WriteZeroes))
                {
                    await operation.RunAsync(disk);
                }
            }
            await MemoryDisk.LeaksAtMostAsync(file.ToArray(), what + ", used again");
        }
        catch (DiskImageException e)
        {
            Assert.Fail($"{what}: {e.Message}");
        }
        catch (Xunit.Sdk.XunitException e)
        {
            Assert.Fail($"{what}: {e.Message}");
        }
    }

    private static async Task PlaceBackingAsync(TestFolder folder, Workload workload)
    {
        if (workload.Backing is not null)
        {
            await File.WriteAllBytesAsync(folder["base.raw"], workload.Backing);
        }
    }

    private static async Task QemuAgreesAsync(TestFolder folder, byte[] image, string what)
    {
        if (Programs.WhyMissing("qemu-img") is null)
        {
            await File.WriteAllBytesAsync(folder["crashed.qcow2"], image);
            await MemoryDisk.QemuLeaksAtMostAsync(folder["crashed.qcow2"], what);
        }
    }
}
