using DiskImage.Block;
using FsCheck;
using FsCheck.Fluent;

namespace DiskImage.Tests.Block;

public sealed class RangeLockTests
{
    /// <summary>
    /// Any sequence of requests and releases: who holds conflicts with nobody who holds, whoever waits is kept by an earlier one, and
    /// in the end nobody waits.
    /// </summary>
    [Fact]
    public void Who_holds_and_who_waits_is_what_a_plain_model_says()
        => Prop.ForAll(
            Arb.From(Gen.ListOf(
                from start in Gen.Choose(0, 40)
                from length in Gen.Choose(1, 12)
                from exclusive in ArbMap.Default.GeneratorFor<bool>()
                from release in Gen.Choose(0, 2)
                select (start, end: start + length, exclusive, release))),
            steps =>
            {
                var ranges = new RangeLock();
                var entries = new List<(int Start, int End, bool Exclusive, Task<RangeLock.Hold> Hold)>();
                foreach ((int start, int end, bool exclusive, int release) in steps)
                {
                    entries.Add((start, end, exclusive, ranges.AcquireAsync(start, end, exclusive).AsTask()));
                    if (!Agrees(entries))
                    {
                        return false;
                    }
                    for (int i = 0; i < release; i++)
                    {
                        ReleaseOne(ranges, entries);
                        if (!Agrees(entries))
                        {
                            return false;
                        }
                    }
                }
                while (entries.Count > 0)
                {
                    ReleaseOne(ranges, entries); // fails if nobody holds although somebody waits
                }
                return true;
            }).QuickCheckThrowOnFailure();

    [Fact]
    public async Task A_wait_that_is_cancelled_holds_nothing_and_nobody_up()
    {
        var ranges = new RangeLock();
        RangeLock.Hold first = await ranges.AcquireAsync(0, 10, exclusive: false);
        using var cancel = new CancellationTokenSource();
        Task<RangeLock.Hold> waiting = ranges.AcquireAsync(5, 15, exclusive: true, cancel.Token).AsTask();
        Task<RangeLock.Hold> behind = ranges.AcquireAsync(5, 10, exclusive: false).AsTask(); // behind the one that waits
        Assert.False(waiting.IsCompleted || behind.IsCompleted);
        await cancel.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => waiting);
        RangeLock.Hold second = await behind;
        ranges.Release(first);
        ranges.Release(second);
        ranges.Release(await ranges.AcquireAsync(0, 100, exclusive: true));
        await Assert.ThrowsAnyAsync<OperationCanceledException>(async () =>
        {
            RangeLock.Hold all = await ranges.AcquireAsync(0, 100, exclusive: true, cancel.Token); // free: granted at once
            _ = ranges.AcquireAsync(0, 1, exclusive: true).AsTask();
            _ = await ranges.AcquireAsync(50, 51, exclusive: true, cancel.Token);
            ranges.Release(all);
        });
    }

    [Fact]
    public async Task What_runs_alone_waits_for_everybody_and_a_wait_for_it_can_be_cancelled()
    {
        var ranges = new RangeLock();
        RangeLock.Hold held = await ranges.AcquireAsync(1L << 50, (1L << 50) + 1, exclusive: false);
        using var cancel = new CancellationTokenSource();
        bool hasRun = false;
        Task given = ranges.AloneAsync(() => { hasRun = true; return default; }, cancel.Token).AsTask();
        Task<int> waiting = ranges.AloneAsync(() => ValueTask.FromResult(7), CancellationToken.None).AsTask();
        await cancel.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => given);
        Assert.False(hasRun || waiting.IsCompleted);
        ranges.Release(held);
        Assert.Equal(7, await waiting);
        await Assert.ThrowsAsync<InvalidOperationException>(async ()
            => await ranges.AloneAsync(() => throw new InvalidOperationException(), CancellationToken.None));
        ranges.Release(await ranges.AcquireAsync(0, 1, exclusive: true)); // who failed holds nothing
    }

    [Fact]
    public async Task Counters_under_exclusive_holds_never_lose_a_step()
    {
        const int Tasks = 8, Steps = 400, Cells = 16;
        var ranges = new RangeLock();
        int[] cells = new int[Cells];
        int[] expected = new int[Cells];
        await Task.WhenAll(Enumerable.Range(0, Tasks).Select(task => Task.Run(async () =>
        {
            var random = new Random(task);
            for (int i = 0; i < Steps; i++)
            {
                int start = random.Next(Cells), end = random.Next(start + 1, Cells + 1);
                bool exclusive = random.Next(3) != 0;
                RangeLock.Hold hold = await ranges.AcquireAsync(start, end, exclusive);
                for (int cell = start; cell < end && exclusive; cell++)
                {
                    Interlocked.Increment(ref expected[cell]);
                    int seen = Volatile.Read(ref cells[cell]);
                    if (i % 50 == 0)
                    {
                        await Task.Yield();
                    }
                    Volatile.Write(ref cells[cell], seen + 1);
                }
                ranges.Release(hold);
            }
        })));
        Assert.Equal(expected, cells);
    }

    private static void ReleaseOne(RangeLock ranges, List<(int Start, int End, bool Exclusive, Task<RangeLock.Hold> Hold)> entries)
    {
        int held = entries.FindIndex(e => IsGranted(e.Hold));
        if (held < 0 && entries.Count > 0)
        {
            throw new InvalidOperationException("Somebody waits and nobody holds.");
        }
        if (held >= 0)
        {
            Task<RangeLock.Hold> hold = entries[held].Hold;
            entries.RemoveAt(held);
            ranges.Release(hold.GetAwaiter().GetResult());
        }
    }

    private static bool Agrees(List<(int Start, int End, bool Exclusive, Task<RangeLock.Hold> Hold)> entries)
    {
        for (int i = 0; i < entries.Count; i++)
        {
            bool kept = entries.Take(i).Any(e => (e.Exclusive || entries[i].Exclusive) && e.Start < entries[i].End
                && entries[i].Start < e.End);
            if (IsGranted(entries[i].Hold) == kept)
            {
                return false;
            }
        }
        return true;
    }

    private static bool IsGranted(Task<RangeLock.Hold> hold) => hold.IsCompleted;
}
