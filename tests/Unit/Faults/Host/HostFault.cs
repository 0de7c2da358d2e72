using System.Diagnostics;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Faults.Host;

/// <summary>System calls that fail, in a child process: what a fault of a node cannot show.</summary>
/// <param name="Path">A part of the paths of the files concerned.</param>
/// <param name="Calls">fsync, pwrite, ftruncate, fallocate; several with commas.</param>
/// <param name="Error">The error number.</param>
internal sealed record HostFault(string Path, string Calls, int Error)
{
    public const int IoError = 5, NoSpace = 28, QuotaExceeded = 122;

    private static readonly Lazy<string?> s_library = new(Compile);

    /// <summary>Calls that pass before the first one fails.</summary>
    public int Skip { get; init; }

    /// <summary>Calls that fail; null for all.</summary>
    public int? Count { get; init; }

    /// <summary>Only calls that reach past this offset fail, or count; null for all.</summary>
    public long? Limit { get; init; }

    private const int Killed = 128 + 9; // by a signal, as shells have it

    /// <summary>Why such faults cannot be had here; null if they can.</summary>
    public static string? WhyMissing()
        => !OperatingSystem.IsLinux() ? Wine.WhyNot("preloaded system calls") ?? "faults of system calls are preloaded on Linux only"
            : Programs.WhyMissing("cc") is { } noCompiler ? noCompiler
            : s_library.Value is null ? "the library of faults does not compile here"
            : null;

    /// <summary>Runs a scenario of <see cref="HostChild"/> in a process of its own; its output, line by line.</summary>
    public static Task<string[]> RunAsync(HostFault? fault, string scenario, params string[] arguments)
        => RunAsync(fault, isKilled: false, scenario, arguments);

    /// <summary>The same of one that is killed on its way.</summary>
    public static Task RunKilledAsync(string scenario, params string[] arguments) => RunAsync(null, isKilled: true, scenario, arguments);

    private static async Task<string[]> RunAsync(HostFault? fault, bool isKilled, string scenario, string[] arguments)
    {
        using var process = new Process();
        process.StartInfo = new ProcessStartInfo(
            Environment.ProcessPath!) { UseShellExecute = false, RedirectStandardOutput = true, RedirectStandardError = true };
        string[] all = ["exec", typeof(HostChild).Assembly.Location, scenario, .. arguments];
        Array.ForEach(all, process.StartInfo.ArgumentList.Add);
        if (fault is not null)
        {
            IDictionary<string, string?> environment = process.StartInfo.Environment;
            environment["LD_PRELOAD"] = s_library.Value;
            environment["HOSTFAULT_PATH"] = fault.Path;
            environment["HOSTFAULT_CALLS"] = fault.Calls;
            environment["HOSTFAULT_ERRNO"] = $"{fault.Error}";
            environment["HOSTFAULT_SKIP"] = $"{fault.Skip}";
            if (fault.Count is int count)
            {
                environment["HOSTFAULT_COUNT"] = $"{count}";
            }
            if (fault.Limit is long limit)
            {
                environment["HOSTFAULT_LIMIT"] = $"{limit}";
            }
        }
        process.Start();
        Task<string> output = process.StandardOutput.ReadToEndAsync(), errors = process.StandardError.ReadToEndAsync();
        await process.WaitForExitAsync();
        bool isAsWanted = process.ExitCode == (isKilled ? Killed : 0);
        Assert.True(isAsWanted, $"{scenario} → {process.ExitCode}\n{await output}\n{await errors}");
        return (await output).Split('\n', StringSplitOptions.RemoveEmptyEntries);
    }

    private static string? Compile()
    {
        string library = System.IO.Path.Combine(AppContext.BaseDirectory, $"hostfault-{Environment.ProcessId}.so");
        using var compiler = Process.Start(
            "cc",
            ["-shared", "-fPIC", "-O1", "-o", library, System.IO.Path.Combine(AppContext.BaseDirectory, "Native", "hostfault.c"), "-ldl"]);
        compiler.WaitForExit();
        AppDomain.CurrentDomain.ProcessExit += (_, _) => File.Delete(library);
        return compiler.ExitCode == 0 ? library : null;
    }
}

/// <summary>A fact that lets system calls fail.</summary>
public sealed class HostFaultFactAttribute : FactAttribute
{
    public HostFaultFactAttribute() => Skip = HostFault.WhyMissing();
}

/// <summary>A theory that lets system calls fail.</summary>
public sealed class HostFaultTheoryAttribute : TheoryAttribute
{
    public HostFaultTheoryAttribute() => Skip = HostFault.WhyMissing();
}
