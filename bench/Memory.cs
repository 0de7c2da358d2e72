using System.Diagnostics;
using System.Globalization;
using System.Runtime.InteropServices;

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

    /// <summary>Touches as much memory as a run may fill and gives it back: a guest whose host took its free memory pays for it first.</summary>
    public static unsafe void Warm(long size)
    {
        size += size / 2;
        void* memory = NativeMemory.Alloc((nuint)size);
        for (long at = 0; at < size; at += 4096)
        {
            ((byte*)memory)[at] = 1;
        }
        NativeMemory.Free(memory);
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
