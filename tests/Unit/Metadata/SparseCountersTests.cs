using DiskImage.Metadata;

namespace DiskImage.Tests.Metadata;

/// <summary>Counters of units, against a dictionary.</summary>
public sealed class SparseCountersTests
{
    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    public void Runs_and_single_units_count_alike(int seed)
    {
        var random = new Random(seed);
        var counters = new SparseCounters("a");
        var model = new Dictionary<long, ulong>();
        for (int i = 0; i < 2000; i++)
        {
            long first = random.Next(4) * 100_000 + random.Next(900);
            int count = random.Next(3) == 0 ? 1 : random.Next(1, 700);
            ulong times = count == 1 ? (ulong)random.Next(1, 400) : 1;
            if (count == 1)
            {
                Assert.Equal(model.GetValueOrDefault(first) + times, counters.Add(first, times));
            }
            else
            {
                counters.AddRun(first, count);
            }
            for (long unit = first; unit < first + count; unit++)
            {
                model[unit] = model.GetValueOrDefault(unit) + times;
            }
        }
        Assert.Contains(model.Values, v => v > 300);
        foreach ((long unit, ulong count) in model)
        {
            Assert.Equal(count, counters[unit]);
        }
        Assert.Equal(model.Keys.Max() + 1, counters.End);
    }

    [Fact]
    public void A_run_is_alike_as_far_as_its_units_are()
    {
        var counters = new SparseCounters("a");
        counters.AddRun(200, 1000);
        Assert.True(counters.AreAll(200, 1000, 1));
        Assert.False(counters.AreAll(199, 1001, 1));
        Assert.False(counters.AreAll(200, 1001, 1));
        Assert.True(counters.AreAll(1200, 100_000, 0));
        _ = counters.Add(700);
        Assert.False(counters.AreAll(200, 1000, 1));
        Assert.True(counters.AreAll(700, 1, 2));
        Assert.True(counters.AreAll(200, 500, 1));
        Assert.False(counters.AreAll(100, 200, 0));
    }
}
