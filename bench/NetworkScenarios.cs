using System.Diagnostics;
using System.Globalization;
using System.Net.Sockets;
using DiskImage.Drivers;
using DiskImage.Exports;
using DiskImage.Graph;
using DiskImage.Jobs;

namespace DiskImage.Bench;

/// <summary>
/// The comparisons over NBD and HTTP, loopback: the same server for both sides, or both servers for the same client. Servers are started once
/// and end with the program.
/// </summary>
internal static class NetworkScenarios
{
    private const string Served = "nbd.sock", Taking = "taking.sock", Ours = "ours.sock", Theirs = "theirs.sock", Sink = "sink.raw";
    private const int WebPort = 10880;

    private static readonly string[] s_temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]; // nginx's kinds of files
    private static readonly List<Process> s_servers = [];
    private static ExportServer? s_ours;

    static NetworkScenarios() => AppDomain.CurrentDomain.ProcessExit += (_, _) => s_servers.ForEach(p => p.Kill());

    public static IReadOnlyList<Scenario> All { get; } =
    [
        FromNbd("nbd-raw", "nbd → raw", 0.7, "qemu-img", folder => ["convert", "-f", "raw", "-O", "raw", Uri(folder, Served), Their(folder)]),
        FromNbd("nbd-raw-nbdcopy", "nbd → raw, by nbdcopy", 1.0, "nbdcopy", folder => [Uri(folder, Served), Their(folder)]),
        ToNbd("raw-nbd", "raw → nbd", 0.7, "qemu-img",
            folder => ["convert", "-n", "-f", "raw", "-O", "raw", Path.Combine(folder, Scenario.Raw), Uri(folder, Taking)]),
        ToNbd("raw-nbd-nbdcopy", "raw → nbd, by nbdcopy", 1.0, "nbdcopy",
            folder => [Path.Combine(folder, Scenario.Raw), Uri(folder, Taking)]),
        new(
            "http-raw", "http → raw", 0.7,
            folder => Scenario.ConvertAsync(Web, "raw", Path.Combine(folder, "ours.raw"), "raw"),
            folder => ["convert", "-m", "1", "-f", "raw", "-O", "raw", Web, Their(folder)], // 7.2 hangs with several requests at once
            "ours.raw",
            "theirs.raw")
        {
            PrepareAsync = StartWebAsync,
            IsPossible = () => Has("nginx"),
        },
        Server("serve-nbdcopy", "nbdcopy from ours", "nbdcopy", (folder, socket) => [Uri(folder, socket), "null:"]),
        Server(
            "serve-bench", "qemu-img bench from ours", "qemu-img",
            (folder, socket) => ["bench", "-f", "raw", "-d", "16", "-s", "64k", "-c", "30000", "-t", "none", Uri(folder, socket)]),
        Server(
            "serve-fio", "fio from ours", "fio",
            (folder, socket) =>
            [
                "--name=read", "--ioengine=nbd", "--rw=randread", "--bs=64k", "--iodepth=16", "--size=1g", "--minimal",
                $"--uri={Uri(folder, socket)}",
            ]),
    ];

    private static string Web => $"http://127.0.0.1:{WebPort}/{Scenario.Raw}";

    private static Scenario FromNbd(string name, string title, double target, string program, Func<string, string[]> theirs)
        => new(
            name, title, target,
            folder => Scenario.ConvertAsync(Uri(folder, Served), "raw", Path.Combine(folder, "ours.raw"), "raw"),
            theirs,
            "ours.raw",
            "theirs.raw")
        {
            Program = program,
            PrepareAsync = folder => StartAsync(
                folder, Served, "nbdkit", "--foreground", "--read-only", "--unix", Path.Combine(folder, Served), "file",
                Path.Combine(folder, Scenario.Raw)),
            IsPossible = () => Has("nbdkit") && Has(program),
        };

    private static Scenario ToNbd(string name, string title, double target, string program, Func<string, string[]> theirs)
        => new(name, title, target, folder => IntoAsync(folder, Uri(folder, Taking)), theirs, null, null)
        {
            Program = program,
            PrepareAsync = async folder =>
            {
                await using (FileStream sink = File.Create(Path.Combine(folder, Sink)))
                {
                    sink.SetLength(new FileInfo(Path.Combine(folder, Scenario.Raw)).Length);
                }
                await StartAsync(
                    folder, Taking, "nbdkit", "--foreground", "--unix", Path.Combine(folder, Taking), "file", Path.Combine(folder, Sink));
            },
            IsPossible = () => Has("nbdkit") && Has(program),
        };

    private static Scenario Server(string name, string title, string program, Func<string, string, string[]> client)
        => new(
            name, title, 1.0,
            async folder => _ = await Comparison.RunAsync(program, client(folder, Ours)),
            folder => client(folder, Theirs),
            null,
            null)
        {
            Program = program,
            PrepareAsync = async folder =>
            {
                string raw = Path.Combine(folder, Scenario.Raw);
                await StartAsync(
                    folder, Theirs, "qemu-nbd", "--persistent", "--shared=0", "--read-only", "--format=raw", "--socket",
                    Path.Combine(folder, Theirs), raw);
                s_ours ??= await StartOursAsync(raw, Path.Combine(folder, Ours));
            },
            IsPossible = () => Has("qemu-nbd") && Has(program),
        };

    /// <summary>Serves a file, for reading only, until the standard input ends.</summary>
    public static async Task ServeAsync(string file, string socket)
    {
        await using ExportServer server = await StartOursAsync(file, socket);
        _ = await Console.In.ReadToEndAsync();
    }

    private static async Task<ExportServer> StartOursAsync(string file, string socket)
    {
        OpenedImage image = await new ImageOpener(BuiltInDrivers.CreateRegistry(), OpenPolicy.Default).OpenAsync(
            new OpenRequest(file) { Format = "raw" }, CancellationToken.None);
        return await ExportServer.StartAsync(
            new UnixDomainSocketEndPoint(socket), [new ExportDisk("", image.Node) { IsReadOnly = true }], security: null,
            CancellationToken.None);
    }

    /// <summary>Copies the mix into a place that is there.</summary>
    public static async Task IntoAsync(string folder, string uri)
    {
        var opener = new ImageOpener(BuiltInDrivers.CreateRegistry(), OpenPolicy.Default);
        await using OpenedImage source = await opener.OpenAsync(
            new OpenRequest(Path.Combine(folder, Scenario.Raw)) { Format = "raw" }, CancellationToken.None);
        FormatDriver format = opener.Registry.Format("raw");
        object options = ((ICreatable)format).CreateOptions.Bind([new("size", source.Node.Length)]);
        await using NewImage made = await new ImageCreator(opener).CreateAsync(
            uri, format, options, TargetMode.InPlace, openOptions: null, CancellationToken.None);
        await new ConvertJob(source.Node, made.Node, new ConvertOptions()).RunAsync(null, CancellationToken.None);
        await made.CompleteAsync(durable: false, CancellationToken.None);
    }

    private static async Task StartWebAsync(string folder)
    {
        string configuration = Path.Combine(folder, "nginx.conf");
        string temporary = string.Concat(s_temporary.Select(n => $"{n}_temp_path {folder}/{n}; "));
        await File.WriteAllTextAsync(
            configuration,
            $"daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/nginx.log; events {{ }}\n"
                + $"http {{ access_log off; sendfile on; keepalive_requests 1000000; {temporary} server {{ listen 127.0.0.1:{WebPort}; root {folder}; }} }}\n");
        await StartAsync(folder, "nginx.pid", "nginx", "-c", configuration, "-e", Path.Combine(folder, "nginx.log"));
    }

    /// <summary>Starts a server, once, and waits until a file is there.</summary>
    public static async Task StartAsync(string folder, string appears, string program, params string[] arguments)
    {
        string sign = Path.Combine(folder, appears);
        if (File.Exists(sign))
        {
            return;
        }
        var info = new ProcessStartInfo(program) { UseShellExecute = false };
        foreach (string argument in arguments)
        {
            info.ArgumentList.Add(argument);
        }
        // from a thread that stays: nbdkit has the kernel end it with the thread that started it
        new Thread(() =>
        {
            s_servers.Add(Process.Start(info)!);
            Thread.Sleep(Timeout.Infinite);
        }) { IsBackground = true }.Start();
        for (int i = 0; !File.Exists(sign); i++)
        {
            if (i > 1000)
            {
                throw new InvalidOperationException($"{program} does not start.");
            }
            await Task.Delay(10);
        }
    }

    public static bool Has(string program)
        => (Environment.GetEnvironmentVariable("PATH") ?? "").Split(Path.PathSeparator).Any(f => File.Exists(Path.Combine(f, program)));

    private static string Uri(string folder, string socket) => string.Create(
        CultureInfo.InvariantCulture, $"nbd+unix:///?socket={Path.Combine(folder, socket)}");

    private static string Their(string folder) => Path.Combine(folder, "theirs.raw");
}
