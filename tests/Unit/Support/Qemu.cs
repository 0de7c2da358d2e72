using System.Diagnostics;

namespace DiskImage.Tests.Support;

/// <summary>A fact that needs a program of the machine; skipped, with the reason, where it is missing.</summary>
public sealed class OracleFactAttribute : FactAttribute
{
    public OracleFactAttribute(string program = "qemu-img", string? file = null)
        => Skip = Programs.WhyMissing(program)
            ?? (file is null || File.Exists(file) ? null : Wine.WhyNot(file) ?? $"{file} is not installed");
}

/// <summary>A theory that needs a program of the machine; skipped, with the reason, where it is missing.</summary>
public sealed class OracleTheoryAttribute : TheoryAttribute
{
    public OracleTheoryAttribute(string program = "qemu-img") => Skip = Programs.WhyMissing(program);
}

/// <summary>Other people's programs, used as judges.</summary>
internal static class Programs
{
    public static string? WhyMissing(string program)
        => Find(program) is null ? Wine.WhyNot(program) ?? $"{program} is not installed" : null;

    public static string? Find(string program)
        => (Environment.GetEnvironmentVariable("PATH") ?? "").Split(Path.PathSeparator)
            .Select(folder => Path.Combine(folder, program)).FirstOrDefault(File.Exists);

    /// <summary>Runs a program; its exit code, output and errors.</summary>
    public static Task<(int Code, string Output, string Errors)> TryAsync(string program, params string[] arguments)
        => TryInAsync("", program, arguments);

    /// <summary>
    /// Runs a program in a folder; its exit code, output and errors. QEMU is asked again when it could not measure how fast the machine
    /// derives a key: on one with a coarse clock it sometimes sees no time pass.
    /// </summary>
    public static async Task<(int Code, string Output, string Errors)> TryInAsync(string folder, string program, params string[] arguments)
    {
        for (int attempt = 0; ; attempt++)
        {
            (int code, string output, string errors) = await OnceAsync(folder, program, arguments);
            if (code == 0 || attempt == 5 || !errors.Contains("Unable to get accurate CPU usage", StringComparison.Ordinal))
            {
                return (code, output, errors);
            }
        }
    }

    private static async Task<(int Code, string Output, string Errors)> OnceAsync(string folder, string program, string[] arguments)
    {
        using var process = new Process();
        process.StartInfo = new ProcessStartInfo(program, arguments)
        {
            WorkingDirectory = folder,
            UseShellExecute = false,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            RedirectStandardInput = true,
        };
        _ = process.Start();
        process.StandardInput.Close();
        Task<string> output = process.StandardOutput.ReadToEndAsync();
        Task<string> errors = process.StandardError.ReadToEndAsync();
        await process.WaitForExitAsync();
        return (process.ExitCode, await output, await errors);
    }

    /// <summary>Runs a program that must succeed; its output.</summary>
    public static async Task<string> RunAsync(string program, params string[] arguments)
    {
        (int code, string output, string errors) = await TryAsync(program, arguments);
        Assert.True(code == 0, $"{program} {string.Join(' ', arguments)} → {code}\n{output}\n{errors}");
        return output;
    }

    public static Task<string> QemuImgAsync(params string[] arguments) => RunAsync("qemu-img", arguments);

    /// <summary>qemu-img must find nothing wrong with an image.</summary>
    public static Task CheckAsync(string path, string format = "qcow2") => QemuImgAsync("check", "-f", format, path);

    /// <summary>qemu-img must read two images as the same disk.</summary>
    public static Task CompareAsync(string left, string leftFormat, string right, string rightFormat)
        => QemuImgAsync("compare", "-f", leftFormat, "-F", rightFormat, left, right);
}
