using System.Diagnostics;
using System.Globalization;
using System.Text;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.RealInput;

/// <summary>GRUB's rescue disks, made by somebody else: they survive the way there and back, and boot from the way.</summary>
public sealed class RescueDiskTests
{
    private const string Cdrom = "/usr/lib/grub-rescue/grub-rescue-cdrom.iso", Floppy = "/usr/lib/grub-rescue/grub-rescue-floppy.img";
    private const string MenuEntry = "GNU/Linux"; // drawn after everything else

    [OracleFact(file: Cdrom)]
    public async Task The_cdrom_is_the_same_there_and_back() => await ThereAndBackAsync(Cdrom);

    [OracleFact(file: Floppy)]
    public async Task The_floppy_is_the_same_there_and_back() => await ThereAndBackAsync(Floppy);

    [OracleFact("qemu-system-x86_64", Cdrom)]
    public async Task The_converted_disk_boots_to_its_menu()
    {
        using var folder = new TestFolder();
        await Images.ConvertAsync(Cdrom, "raw", folder["disk.qcow2"], "qcow2");
        Assert.Contains("GNU GRUB", await BootAsync(folder, "disk.qcow2", MenuEntry), StringComparison.Ordinal);
        await Images.ConvertAsync(Cdrom, "raw", folder["packed.qcow2"], "qcow2", "cluster_size=4k", new() { Compress = true });
        Assert.Contains("GNU GRUB", await BootAsync(folder, "packed.qcow2", MenuEntry), StringComparison.Ordinal);
    }

    private static async Task ThereAndBackAsync(string path)
    {
        using var folder = new TestFolder();
        byte[] original = await File.ReadAllBytesAsync(path);
        foreach (
            (string options, bool compress) in new[] { ("", false), ("compat=0.10,cluster_size=512", false), ("cluster_size=2M", true) })
        {
            await Images.ConvertAsync(path, "raw", folder["disk.qcow2"], "qcow2", options, new() { Compress = compress });
            await Programs.CheckAsync(folder["disk.qcow2"]);
            await Programs.CompareAsync(path, "raw", folder["disk.qcow2"], "qcow2");
            await Images.ConvertAsync(folder["disk.qcow2"], null, folder["back.raw"], "raw");
            byte[] back = await File.ReadAllBytesAsync(folder["back.raw"]);
            Assert.True(original.AsSpan().SequenceEqual(back));
            File.Delete(folder["disk.qcow2"]);
            File.Delete(folder["back.raw"]);
        }
    }

    /// <summary>Starts a machine on a disk and waits until its text screen shows something; returns the screen.</summary>
    private static async Task<string> BootAsync(TestFolder folder, string disk, string awaited)
    {
        const int Columns = 80, Rows = 25, CellBytes = 2;
        string[] arguments =
        [
            "-machine", "pc,accel=tcg", "-m", "64", "-display", "none", "-vga", "std", "-serial", "none", "-parallel", "none", "-nic",
            "none", "-monitor", "stdio",
            "-drive", $"file={folder[disk]},format=qcow2,if=ide,media=disk", "-snapshot",
        ];
        using var machine = new Process();
        machine.StartInfo = new ProcessStartInfo("qemu-system-x86_64", arguments)
        {
            UseShellExecute = false, RedirectStandardInput =
                true, RedirectStandardOutput = true, RedirectStandardError = true, WorkingDirectory = folder.Root,
        };
        machine.Start();
        try
        {
            Task<string> output = machine.StandardOutput.ReadToEndAsync(), errors = machine.StandardError.ReadToEndAsync();
            string screen = "";
            for (int attempt = 0; attempt < 240 && !machine.HasExited && !screen.Contains(awaited, StringComparison.Ordinal); attempt++)
            {
                await Task.Delay(500);
                string name = string.Create(CultureInfo.InvariantCulture, $"screen{attempt}");
                // the text screen of a PC
                await machine.StandardInput.WriteLineAsync($"pmemsave 0xb8000 {Columns * Rows * CellBytes} {name}");
                await machine.StandardInput.FlushAsync();
                // the one before it is complete
                string previous = folder[string.Create(CultureInfo.InvariantCulture, $"screen{attempt - 1}")];
                if (File.Exists(previous))
                {
                    byte[] cells = await File.ReadAllBytesAsync(previous);
                    screen = Encoding.Latin1.GetString([.. cells.Where((_, at) => at % CellBytes == 0)]);
                    File.Delete(previous);
                }
            }
            if (!machine.HasExited)
            {
                await machine.StandardInput.WriteLineAsync("quit");
                machine.StandardInput.Close();
                await machine.WaitForExitAsync().WaitAsync(TimeSpan.FromSeconds(60));
            }
            _ = await output;
            Assert.True(screen.Contains(awaited, StringComparison.Ordinal), $"the screen shows: {screen.Trim('\0', ' ')}\n{await errors}");
            return screen;
        }
        finally
        {
            if (!machine.HasExited)
            {
                machine.Kill(entireProcessTree: true);
            }
        }
    }
}
