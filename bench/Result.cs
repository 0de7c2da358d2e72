using System.Globalization;
using System.Runtime.InteropServices;
using System.Text;
using System.Text.Json;

namespace DiskImage.Bench;

/// <summary>What one line of the comparison gave. Times are milliseconds.</summary>
/// <param name="Name">The scenario's word.</param>
/// <param name="Title">What was done.</param>
/// <param name="Ours">Each of our runs.</param>
/// <param name="Theirs">Each run beside it of <paramref name="Program"/>.</param>
/// <param name="Program">The other program.</param>
/// <param name="Wanted">The ratio to reach.</param>
/// <param name="MemoryBytes">Our peak beyond a bare process.</param>
internal sealed record Result(
    string Name, string Title, double[] Ours, double[] Theirs, string Program, double Wanted, long MemoryBytes)
{
    public double Ratio => Median(Ours) / Median(Theirs);

    public static double Median(double[] values)
    {
        double[] sorted = [.. values.Order()];
        return sorted.Length % 2 == 1 ? sorted[sorted.Length / 2] : (sorted[(sorted.Length / 2) - 1] + sorted[sorted.Length / 2]) / 2;
    }

    /// <summary>A median with its spread.</summary>
    public static string Spread(double[] values)
        => string.Create(CultureInfo.InvariantCulture, $"{Median(values):0} ({values.Min():0} to {values.Max():0})");
}

/// <summary>A time that nothing which moves the same bytes can be expected to beat by much.</summary>
/// <param name="Title">What moves them.</param>
/// <param name="Runs">Milliseconds of each run.</param>
internal sealed record Floor(string Title, double[] Runs);

/// <summary>One comparison, written as JSON and as Markdown.</summary>
/// <param name="Disk">Bytes of the disk.</param>
/// <param name="Results">The lines.</param>
/// <param name="Floors">What bounds them.</param>
internal sealed record Report(long Disk, IReadOnlyList<Result> Results, IReadOnlyList<Floor> Floors)
{
    private static readonly JsonSerializerOptions s_json = new() { WriteIndented = true };

    public string Machine { get; } = $"{Processor()}, {Environment.ProcessorCount} processors, {RuntimeInformation.OSDescription}, "
        + $"{RuntimeInformation.FrameworkDescription}";

    public DateTimeOffset Date { get; } = DateTimeOffset.UtcNow;

    public async Task WriteAsync(string folder)
    {
        _ = Directory.CreateDirectory(folder);
        await File.WriteAllTextAsync(Path.Combine(folder, "comparison.json"), JsonSerializer.Serialize(this, s_json) + "\n");
        await File.WriteAllTextAsync(Path.Combine(folder, "comparison.md"), Markdown());
    }

    private string Markdown()
    {
        var text = new StringBuilder();
        _ = text.Append(CultureInfo.InvariantCulture, $"{Machine}\n\nA disk of {Disk >> 20:#,0} MiB. Milliseconds: median (least to most).\n\n")
            .Append("| | ours | beside it | program | ratio | wanted | memory MiB |\n|---|---|---|---|---|---|---|\n");
        foreach (Result r in Results)
        {
            _ = text.Append(
                CultureInfo.InvariantCulture,
                $"| {r.Title} | {Result.Spread(r.Ours)} | {Result.Spread(r.Theirs)} | {r.Program} | {r.Ratio:0.00} | {r.Wanted:0.00} | "
                    + $"{r.MemoryBytes / 1048576.0:0} |\n");
        }
        _ = text.Append("\n| what bounds it | |\n|---|---|\n");
        foreach (Floor floor in Floors)
        {
            _ = text.Append(CultureInfo.InvariantCulture, $"| {floor.Title} | {Result.Spread(floor.Runs)} |\n");
        }
        return text.ToString();
    }

    private static string Processor()
    {
        const string Key = "model name";
        string? line = File.Exists("/proc/cpuinfo")
            ? File.ReadLines("/proc/cpuinfo").FirstOrDefault(l => l.StartsWith(Key, StringComparison.Ordinal))
            : null;
        return line?[(line.IndexOf(':', StringComparison.Ordinal) + 1)..].Trim() ?? RuntimeInformation.ProcessArchitecture.ToString();
    }
}
