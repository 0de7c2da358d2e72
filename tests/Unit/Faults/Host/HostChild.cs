using System.Diagnostics;
using System.Globalization;
using System.Runtime.InteropServices;
using System.Security.Cryptography;
using DiskImage.Block;
using DiskImage.Graph;
using DiskImage.Tests.Protocols.VirtualFat;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Faults.Host;

/// <summary>
/// The program that a test runs as a child process, with faults preloaded or limits set: <c>dotnet exec DiskImage.Tests.dll scenario …</c>.
/// A scenario prints what happened; the test judges.
/// </summary>
internal static partial class HostChild
{
    private const int FileSizeLimit = 1; // RLIMIT_FSIZE

    /// <summary>Runs one scenario.</summary>
    public static async Task<int> Main(string[] arguments)
    {
        CultureInfo.DefaultThreadCurrentCulture = CultureInfo.CurrentCulture = CultureInfo.InvariantCulture;
        switch (arguments)
        {
            case ["write-on", var path, var format]:
                await WriteOnAsync(path, format);
                return 0;
            case ["resize", var path, var format, var size, var preallocation]:
                await ResizeAsync(
                    path, format, long.Parse(size, CultureInfo.InvariantCulture), Enum.Parse<PreallocationMode>(preallocation));
                return 0;
            case ["limit", var path, var limit]:
                await LimitAsync(path, long.Parse(limit, CultureInfo.InvariantCulture));
                return 0;
            case ["open", var path]:
                await TryAsync("open", async () => await (await Images.OpenAsync(path, "raw")).DisposeAsync());
                return 0;
            case ["fat", var tree, var image, var changed, var step]:
                await BringInAsync(tree, image, changed, int.Parse(step, CultureInfo.InvariantCulture));
                return 0;
            case ["proxied", var proxy, var direct, var url]:
                await ProxiedAsync(proxy, direct, url);
                return 0;
            default:
                await Console.Error.WriteLineAsync($"no such scenario: {string.Join(' ', arguments)}");
                return 2;
        }
    }

    /// <summary>Writes and flushes until a flush fails, then tries everything that could change the file.</summary>
    private static async Task WriteOnAsync(string path, string format)
    {
        byte[] data = new byte[100_000];
        Array.Fill(data, (byte)7);
        BlockNode disk = await Images.OpenAsync(path, format, writable: true);
        bool hasFailed = false;
        for (int i = 0; i < 20 && !hasFailed; i++)
        {
            hasFailed = !await TryAsync("first", async () =>
            {
                await disk.WriteAsync(i * 300_000, data);
                await disk.WriteZeroesAsync((i * 300_000) + 50_000, 20_000);
                await disk.FlushAsync();
            });
        }
        string before = await HashAsync(path);
        await TryAsync("flush", async () => await disk.FlushAsync());
        await TryAsync("write", async () =>
        {
            await disk.WriteAsync(7_000_000, data);
            await disk.FlushAsync();
        });
        await TryAsync("zero", async () =>
        {
            await disk.WriteZeroesAsync(0, 4 << 20);
            await disk.FlushAsync();
        });
        await TryAsync("discard", async () =>
        {
            await disk.DiscardAsync(0, 4 << 20);
            await disk.FlushAsync();
        });
        await TryAsync("resize", async () => await disk.ResizeAsync(disk.Length * 2));
        byte[] read = new byte[1000];
        await TryAsync("read", async () => await disk.ReadAsync(0, read));
        await TryAsync("close", async () => await disk.DisposeAsync());
        Console.WriteLine(before.Equals(await HashAsync(path), StringComparison.Ordinal) ? "file unchanged" : "file changed");
    }

    private static async Task ResizeAsync(string path, string format, long size, PreallocationMode preallocation)
    {
        BlockNode disk = await Images.OpenAsync(path, format, writable: true);
        await TryAsync("resize", async () =>
        {
            await disk.ResizeAsync(size, preallocation);
            await disk.FlushAsync();
        });
        Console.WriteLine($"length {disk.Length}");
        await TryAsync("close", async () => await disk.DisposeAsync());
    }

    /// <summary>Writes past the limit for files that the process sets itself.</summary>
    private static async Task LimitAsync(string path, long limit)
    {
        await using BlockNode file = await Images.OpenAsync(path, "raw", writable: true);
        var limits = new Limits { Current = (ulong)limit, Most = (ulong)limit };
        if (SetLimit(FileSizeLimit, in limits) != 0)
        {
            throw new InvalidOperationException("setrlimit");
        }
        await TryAsync("inside", async () => await file.ResizeAsync(limit));
        await TryAsync("resize", async () => await file.ResizeAsync(limit + 1));
        await TryAsync("preallocate", async () => await file.ResizeAsync(limit + 4096, PreallocationMode.Full));
        await TryAsync("write", async () => await file.Child("file")!.WriteAsync(limit, new byte[4096]));
        using Process child = Process.Start(
            new ProcessStartInfo("grep", ["^SigIgn", "/proc/self/status"]) { UseShellExecute = false, RedirectStandardOutput = true })!;
        string ignored = (await child.StandardOutput.ReadToEndAsync()).Split(':')[1].Trim();
        const int FileSizeSignalBit = 24;
        Console.WriteLine((ulong.Parse(ignored, NumberStyles.HexNumber, CultureInfo.InvariantCulture) >> FileSizeSignalBit & 1) == 0
            ? "child unharmed" : "child ignores the signal");
    }

    /// <summary>Writes a changed copy of a folder's disk to it, and is killed before a step of bringing that into the folder.</summary>
    private static async Task BringInAsync(string tree, string image, string changed, int step)
    {
        FatSession session = await FatSession.OpenAsync($"fat:rw:{tree}", image, "8M");
        File.Copy(changed, image, overwrite: true);
        await session.SendAsync();
        session.Node.OnStep = _ =>
        {
            if (step-- == 0)
            {
                using var self = Process.GetCurrentProcess();
                self.Kill();
                Thread.Sleep(Timeout.Infinite); // it is a signal on its way
            }
        };
        await session.DisposeAsync();
    }

    /// <summary>Reads an object of a web server by way of the proxy that the environment names: once in a process it is looked at.</summary>
    private static async Task ProxiedAsync(string proxy, string direct, string url)
    {
        Environment.SetEnvironmentVariable("http_proxy", proxy);
        Environment.SetEnvironmentVariable("no_proxy", direct);
        string locator = $$"""json:{"driver":"http","url":"{{url}}","proxy-username":"door","proxy-password-secret":"p"}""";
        var secrets = new Dictionary<string, System.Security.SecureString>(StringComparer.Ordinal)
        {
            ["p"] = new System.Net.NetworkCredential("", "0pen").SecurePassword,
        };
        await TryAsync("open", async () =>
        {
            await using OpenedImage image = await Images.Opener.OpenAsync(
                new OpenRequest(locator) { Format = "raw", Secrets = secrets }, CancellationToken.None);
            byte[] bytes = new byte[image.Node.Length];
            await image.Node.ReadAsync(0, bytes);
            Console.WriteLine(Convert.ToHexString(SHA256.HashData(bytes)));
        });
    }

    private static async Task<bool> TryAsync(string what, Func<Task> action)
    {
        try
        {
            await action();
            Console.WriteLine($"{what} done");
            return true;
        }
        catch (DiskImageException e)
        {
            Console.WriteLine($"{what} {e.Kind} {e.Message}");
            return false;
        }
    }

    private static async Task<string> HashAsync(string path)
    {
        await using BlockNode file = await Images.OpenAsync(path, "raw", policy: OpenPolicy.Default with { ForceShare = true });
        byte[] bytes = new byte[file.Length];
        await file.ReadAsync(0, bytes);
        return Convert.ToHexString(SHA256.HashData(bytes));
    }

    [LibraryImport("libc", EntryPoint = "setrlimit")]
    private static partial int SetLimit(int resource, in Limits limits);

    private struct Limits
    {
        public ulong Current, Most;
    }
}
