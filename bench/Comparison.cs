using System.Diagnostics;
using System.Globalization;
using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Graph;
using DiskImage.Jobs;
using DiskImage.Options;

namespace DiskImage.Bench;

/// <summary>What to compare.</summary>
internal sealed record ComparisonOptions
{
    /// <summary>Bytes of the disk.</summary>
    public long Size { get; init; } = 2L << 30;

    /// <summary>Runs that count, after one that does not.</summary>
    public int Runs { get; init; } = 5;

    /// <summary>Where the files go; a folder of its own is made in it and removed.</summary>
    public string Folder { get; init; } = Path.GetTempPath();

    /// <summary>Part of the names of the scenarios to run.</summary>
    public string Only { get; init; } = "";

    /// <summary>A folder for the results as JSON and Markdown; none if empty.</summary>
    public string Output { get; init; } = "";

    public static ComparisonOptions Parse(string[] arguments)
    {
        var options = new ComparisonOptions();
        for (int i = 0; i + 1 < arguments.Length; i += 2)
        {
            string value = arguments[i + 1];
            options = arguments[i] switch
            {
                "--size" when SizeText.TryParse(value, out long size) => options with { Size = size },
                "--runs" => options with { Runs = int.Parse(value, CultureInfo.InvariantCulture) },
                "--folder" => options with { Folder = value },
                "--only" => options with { Only = value },
                "--output" => options with { Output = value },
                _ => throw new ArgumentException(
                    $"{arguments[i]} {value}: not understood. --size, --runs, --folder, --only, --output.", nameof(arguments)),
            };
        }
        return options;
    }
}

/// <summary>Runs ours and qemu-img in turns on the same files and prints medians and their ratio.</summary>
internal static class Comparison
{
    private const long HugeSize = 16L << 40;

    public static async Task<int> RunAsync(ComparisonOptions options)
    {
        string folder = Path.Combine(options.Folder, $"diskimage-bench-{Environment.ProcessId}");
        Directory.CreateDirectory(folder);
        try
        {
            Console.WriteLine($"{SizeText.Format(options.Size)} mix, {options.Runs} runs each in turns after a warm-up, "
                + $"{Environment.ProcessorCount} processors");
            await MakeSourcesAsync(folder, options);
            long bare = await Memory.OfChildAsync("bare");
            Console.WriteLine($"{"",-24}{"ours ms: median",16}{"min",8}{"max",8}{"qemu-img: median",20}{"min",8}{"max",8}{"ratio",8}{"wanted",8}{"memory MiB",12}");
            var results = new List<Result>();
            foreach (Scenario scenario in Scenario.All.Where(
                s => (s.IsWanted?.Invoke(options.Only) ?? true) && s.Name.Contains(options.Only, StringComparison.Ordinal) && s.IsPossible()))
            {
                await (scenario.PrepareAsync?.Invoke(folder) ?? Task.CompletedTask);
                results.Add(await MeasureAsync(scenario, folder, Math.Min(options.Runs, scenario.MostRuns), bare));
            }
            List<Floor> floors = await FloorsAsync(folder, options.Runs);
            if (options.Output.Length > 0)
            {
                await new Report(options.Size, results, floors).WriteAsync(options.Output);
            }
            await HugeAsync(folder);
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
        return 0;
    }

    /// <summary>Repeats ours on the files that a folder holds, made if need be, and prints each time.</summary>
    public static async Task ProfileAsync(string name, string folder, int runs)
    {
        if (!File.Exists(Path.Combine(folder, Scenario.Raw)))
        {
            await MakeSourcesAsync(folder, new ComparisonOptions());
        }
        Scenario scenario = Scenario.All.Single(s => s.Name.Equals(name, StringComparison.Ordinal));
        await (scenario.PrepareAsync?.Invoke(folder) ?? Task.CompletedTask);
        for (int run = 0; run < runs; run++)
        {
            await (scenario.BeforeAsync?.Invoke(folder) ?? Task.CompletedTask);
            Console.WriteLine($"{await OursAsync(scenario, folder, isChecked: false):0} ms");
            Remove(folder, scenario.QemuMakes);
        }
    }

    private static async Task MakeSourcesAsync(string folder, ComparisonOptions options)
    {
        string raw = Path.Combine(folder, Scenario.Raw);
        Mix.Write(raw, options.Size);
        _ = await QemuImgAsync(["convert", "-f", "raw", "-O", "qcow2", raw, Path.Combine(folder, Scenario.Qcow2)]);
        if ("packed-raw".Contains(options.Only, StringComparison.Ordinal))
        {
            _ = await QemuImgAsync(["convert", "-c", "-f", "raw", "-O", "qcow2", raw, Path.Combine(folder, Scenario.Packed)]);
        }
    }

    private static async Task<Result> MeasureAsync(Scenario scenario, string folder, int runs, long bare)
    {
        var ours = new List<double>();
        var theirs = new List<double>();
        for (int run = -1; run < runs; run++)
        {
            await (scenario.BeforeAsync?.Invoke(folder) ?? Task.CompletedTask);
            double mine, other;
            if (run % 2 == 0) // neither always runs after the other
            {
                (mine, other) = (await OursAsync(scenario, folder, isChecked: run < 0), await TheirsAsync(scenario, folder));
            }
            else
            {
                (other, mine) = (await TheirsAsync(scenario, folder), await OursAsync(scenario, folder, isChecked: run < 0));
            }
            await (scenario.AfterAsync?.Invoke(folder) ?? Task.CompletedTask);
            if (run >= 0)
            {
                ours.Add(mine);
                theirs.Add(other);
            }
        }
        await (scenario.BeforeAsync?.Invoke(folder) ?? Task.CompletedTask);
        long peak = await Memory.OfChildAsync("once", scenario.Name, folder);
        Remove(folder, scenario.OursMakes);
        Remove(folder, scenario.QemuMakes);
        var result = new Result(scenario.Name, scenario.Title, [.. ours], [.. theirs], scenario.Program, scenario.Target, peak - bare);
        Console.WriteLine(string.Create(
            CultureInfo.InvariantCulture,
            $"{scenario.Title,-24}{Result.Median(result.Ours),16:0}{ours.Min(),8:0}{ours.Max(),8:0}{Result.Median(result.Theirs),20:0}"
                + $"{theirs.Min(),8:0}{theirs.Max(),8:0}{result.Ratio,8:0.00}{scenario.Target,8:0.00}{result.MemoryBytes / 1048576.0,12:0}"));
        return result;
    }

    /// <summary>Milliseconds that ours takes; what it makes is gone then.</summary>
    private static async Task<double> OursAsync(Scenario scenario, string folder, bool isChecked)
    {
        Warm(folder);
        long start = Stopwatch.GetTimestamp();
        await scenario.OursAsync(folder);
        double time = Stopwatch.GetElapsedTime(start).TotalMilliseconds;
        if (isChecked && scenario is { OursMakes: { } made, BeforeAsync: null })
        {
            _ = await QemuImgAsync(["compare", "-f", "raw", "-F", Path.GetExtension(made)[1..], Path.Combine(
                folder, Scenario.Raw), Path.Combine(folder, made)]);
        }
        Remove(folder, scenario.OursMakes);
        return time;
    }

    /// <summary>Milliseconds that the other program takes; what it makes is gone then.</summary>
    private static async Task<double> TheirsAsync(Scenario scenario, string folder)
    {
        Warm(folder);
        double time = await RunAsync(scenario.Program, scenario.QemuImg(folder));
        Remove(folder, scenario.QemuMakes);
        return time;
    }

    private static void Warm(string folder) => Memory.Warm(new FileInfo(Path.Combine(folder, Scenario.Raw)).Length);

    /// <summary>What bounds the rest: the host's own copy, and the disk read once into memory.</summary>
    private static async Task<List<Floor>> FloorsAsync(string folder, int runs)
    {
        string raw = Path.Combine(folder, Scenario.Raw), copy = Path.Combine(folder, "copy.raw");
        (string Title, string[] Arguments)[] programs =
        [
            ("cp", ["cp", "--reflink=never", "--sparse=auto", raw, copy]),
            ("reading it (dd to nowhere, by 1 MiB)", ["dd", "status=none", "bs=1M", $"if={raw}", "of=/dev/null"]),
        ];
        var floors = new List<Floor>();
        foreach ((string title, string[] arguments) in OperatingSystem.IsWindows() ? [] : programs)
        {
            double[] times = new double[runs];
            for (int run = -1; run < runs; run++)
            {
                Warm(folder);
                double time = await RunAsync(arguments[0], arguments[1..]);
                times[Math.Max(run, 0)] = time;
                Remove(folder, "copy.raw");
            }
            floors.Add(new Floor(title, times));
            Console.WriteLine(string.Create(
                CultureInfo.InvariantCulture, $"{title,-24}{Result.Median(times),16:0}{times.Min(),8:0}{times.Max(),8:0}"));
        }
        return floors;
    }

    /// <summary>A 16 TiB disk without contents: made, described, mapped.</summary>
    private static async Task HugeAsync(string folder)
    {
        string path = Path.Combine(folder, "huge.qcow2");
        DriverRegistry registry = BuiltInDrivers.CreateRegistry();
        var opener = new ImageOpener(registry, OpenPolicy.Default);
        long start = Stopwatch.GetTimestamp();
        FormatDriver format = registry.Format("qcow2");
        object options = ((ICreatable)format).CreateOptions.Bind(OptionSchema.Split($"size={HugeSize}"));
        await using (NewImage made = await new ImageCreator(opener).CreateAsync(
            path, format, options, replace: false, openOptions: null, CancellationToken.None))
        {
            await made.CompleteAsync(durable: false, CancellationToken.None);
        }
        int extents = 0;
        await using (OpenedImage image = await opener.OpenAsync(new OpenRequest(path), CancellationToken.None))
        {
            _ = ((IDescribed)image.Node).Describe();
            await foreach (BlockExtent extent in MapJob.ExtentsAsync(image.Node, 0, image.Node.Length, CancellationToken.None))
            {
                extents++;
            }
        }
        Console.WriteLine($"16 TiB empty qcow2: made, described and mapped ({extents} extent) in "
            + $"{Stopwatch.GetElapsedTime(start).TotalMilliseconds:0} ms (wanted: 1000)");
    }

    /// <summary>Runs qemu-img for its effect.</summary>
    public static Task RunQemuImgAsync(string[] arguments) => QemuImgAsync(arguments);

    /// <summary>Milliseconds that qemu-img takes.</summary>
    private static Task<double> QemuImgAsync(string[] arguments) => RunAsync("qemu-img", arguments);

    /// <summary>Milliseconds that a program takes.</summary>
    public static async Task<double> RunAsync(string program, string[] arguments)
    {
        long start = Stopwatch.GetTimestamp();
        var info = new ProcessStartInfo(program) { UseShellExecute = false, RedirectStandardOutput = true };
        foreach (string argument in arguments)
        {
            info.ArgumentList.Add(argument);
        }
        using Process process = Process.Start(info)!;
        string output = await process.StandardOutput.ReadToEndAsync();
        await process.WaitForExitAsync();
        // of which 7.2 says 1, for no reason
        bool isWhole = process.ExitCode == 0
            || (arguments.Contains("-c", StringComparer.Ordinal) && arguments.Contains("qcow", StringComparer.Ordinal));
        return isWhole
            ? Stopwatch.GetElapsedTime(start).TotalMilliseconds
            : throw new InvalidOperationException($"{program} {string.Join(' ', arguments)} failed: {output}");
    }

    private static void Remove(string folder, string? file)
    {
        if (file is not null)
        {
            File.Delete(Path.Combine(folder, file));
        }
    }
}
