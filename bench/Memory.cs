using System.Diagnostics;
using System.Globalization;

namespace DiskImage.Bench;

/// <summary>The peak of a process's resident memory.</summary>
internal static class Memory
{
    /// <summary>Prints this process's peak so that the parent can read it.</summary>
    public static void Print()
    {
        using var self = Process.GetCurrentProcess();
        Console.WriteLine(self.PeakWorkingSet64.ToString(CultureInfo.InvariantCulture));
    }

    /// <summary>Runs this program again and reads the peak it prints.</summary>
    public static async Task<long> OfChildAsync(params string[] arguments)
    {
        var start = new ProcessStartInfo(Environment.ProcessPath!) { UseShellExecute = false, RedirectStandardOutput = true };
        foreach (string argument in arguments)
        {
            start.ArgumentList.Add(argument);
        }
        using Process child = Process.Start(start)!;
        string output = await child.StandardOutput.ReadToEndAsync();
        await child.WaitForExitAsync();
        return child.ExitCode == 0
            ? long.Parse(output.AsSpan().Trim(), NumberStyles.None, CultureInfo.InvariantCulture)
            : throw new InvalidOperationException($"{string.Join(' ', arguments)} failed: exit code {child.ExitCode}.");
    }
}
