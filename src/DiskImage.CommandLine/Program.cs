using System.Runtime.InteropServices;
using System.Text;

namespace DiskImage.CommandLine;

/// <summary>The program: qemu-img, or qemu-io if it is called so.</summary>
internal static class Program
{
    private const int Interrupted = 130; // as shells have it: 128 and the signal's number

    private static async Task<int> Main(string[] arguments)
    {
        using var stop = new CancellationTokenSource();
        // not by way of Console, which reads the terminal's description first
        using PosixSignalRegistration interrupt = PosixSignalRegistration.Create(PosixSignal.SIGINT, signal =>
        {
            signal.Cancel = true;
            stop.Cancel();
        });
        string name = Path.GetFileNameWithoutExtension(Environment.GetCommandLineArgs()[0]);
        string process = Path.GetFileNameWithoutExtension(Environment.ProcessPath ?? "");
        bool isIo = new[] { name, process }.Contains("qemu-io", StringComparer.OrdinalIgnoreCase);
        var encoding = new UTF8Encoding(encoderShouldEmitUTF8Identifier: false);
        // ended without await: streams of the console leave that to another thread, which there is none of yet
        using var output = new StreamWriter(Console.OpenStandardOutput(), encoding) { NewLine = "\n" };
        using var error = new StreamWriter(Console.OpenStandardError(), encoding) { NewLine = "\n", AutoFlush = true };
        var io = new ProgramIO(output, error, null) { OpenOutput = Console.OpenStandardOutput, Input = isIo ? Console.In : null };
        try
        {
            return isIo
                ? await QemuIo.RunAsync(arguments, io, stop.Token).ConfigureAwait(false)
                : await QemuImg.RunAsync(arguments, io, stop.Token).ConfigureAwait(false);
        }
        catch (OperationCanceledException) when (stop.IsCancellationRequested)
        {
            return Interrupted;
        }
    }
}
