using DiskImage.Block;
using DiskImage.Operations;

namespace DiskImage.Tests.Operations;

/// <summary>What is lost is told once, joined and in order, whoever tells it how often.</summary>
public sealed class LostRangesTests
{
    private static readonly DiskImageException s_reason = new(DiskImageErrorKind.Io, "broken");

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    public void Ranges_are_those_of_the_sectors(int seed)
    {
        var random = new Random(seed);
        var lost = new LostRanges();
        bool[] bad = new bool[400];
        for (int i = 0; i < 150; i++)
        {
            int at = random.Next(bad.Length - 5), length = random.Next(1, 5);
            bad.AsSpan(at, length).Fill(true);
            lost.Add(at * 512L, length * 512L, s_reason);
        }
        var expected = new List<(long, long)>();
        for (int at = 0; at < bad.Length; at++)
        {
            int end = at;
            while (end < bad.Length && bad[end])
            {
                end++;
            }
            if (end > at)
            {
                expected.Add((at * 512L, (end - at) * 512L));
                at = end;
            }
        }
        Assert.Equal(expected, lost.Ranges.Select(r => (r.Offset, r.Length)));
        Assert.All(lost.Ranges, r => Assert.Equal("broken", r.Reason.ToString()));
    }

    [Fact]
    public void However_many_there_are_memory_is_bounded_and_none_is_left_out()
    {
        var lost = new LostRanges();
        const int Count = LostRanges.Most + 5000;
        for (long i = 0; i < Count; i++)
        {
            lost.Add((i * 7919 % Count) * 1024, 512, s_reason);
        }
        Assert.InRange(lost.Ranges.Count, 1, LostRanges.Most);
        long end = -1;
        foreach (LostRange range in lost.Ranges)
        {
            Assert.True(range.Offset > end);
            end = range.End;
        }
        Assert.Equal(0, lost.Ranges[0].Offset);
        Assert.Equal(((Count - 1) * 1024L) + 512, end);
        Assert.True(lost.Ranges.Sum(r => r.Length) >= Count * 512L);
    }
}
