using System.Diagnostics;
using System.Globalization;

namespace DiskImage.CommandLine;

/// <summary>Says what a request of qemu-io did, and how quickly.</summary>
/// <param name="io">Where it is said.</param>
/// <param name="arguments">Whether it is said briefly (<c>-C</c>) or not at all (<c>-q</c>).</param>
internal sealed class IoReport(ProgramIO io, CommandArguments arguments)
{
    private readonly long _started = Stopwatch.GetTimestamp();

    /// <summary>Says it.</summary>
    /// <param name="verb">What was done.</param>
    /// <param name="done">Bytes.</param>
    /// <param name="offset">Where.</param>
    /// <param name="requests">In how many requests.</param>
    public void Say(string verb, long done, long offset, int requests = 1)
    {
        if (arguments.Has("q"))
        {
            return;
        }
        double seconds = Math.Max(Stopwatch.GetElapsedTime(_started).TotalSeconds, 1e-6);
        string rate = QemuSize.Exact(done / seconds), often = (requests / seconds).ToString("0.0000", CultureInfo.InvariantCulture);
        if (arguments.Has("C"))
        {
            io.Output.WriteLine(string.Create(
                CultureInfo.InvariantCulture, $"{done},{requests},{seconds:0.000000000},{done / seconds:0},{often}"));
            return;
        }
        lock (io.Saying) // of requests that are under way at once, each says its lines together
        {
            io.Output.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{verb} {done}/{done} bytes at offset {offset}"));
            io.Output.WriteLine($"{QemuSize.Exact(done)}, {requests.ToString(CultureInfo.InvariantCulture)} ops; {Time(seconds)} "
                + $"({rate}/sec and {often} ops/sec)");
        }
    }

    private static string Time(double seconds)
    {
        var time = TimeSpan.FromSeconds(seconds);
        return time.TotalMinutes < 1
            ? seconds.ToString("00.00", CultureInfo.InvariantCulture) + " sec"
            : string.Create(
                CultureInfo.InvariantCulture, $"{(int)time.TotalHours}:{time.Minutes:00}:{time.Seconds:00}.{time.Milliseconds / 10:00}");
    }
}
