using System.Diagnostics;
using System.Globalization;
using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Graph;
using DiskImage.Protocols.Ssh;
using DiskImage.Tests.Protocols.Nbd;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Protocols.Ssh;

/// <summary>
/// OpenSSH's own server on this machine's loopback, with its own configuration, keys and port, and a configuration of ssh for it: nothing
/// of whoever runs the test is read or written. It ends with this.
/// </summary>
internal sealed class SshDaemon : IAsyncDisposable
{
    /// <summary>The program that serves SFTP, for a wrapper around it.</summary>
    public const string SftpServer = "/usr/lib/openssh/sftp-server";

    private readonly Process _process;

    private SshDaemon(TestFolder folder, int port, Process process) => (Folder, Port, _process) = (folder, port, process);

    /// <summary>Where its files and keys are.</summary>
    public TestFolder Folder { get; }

    public int Port { get; }

    /// <summary>What it says.</summary>
    public string Log => Folder["sshd.log"];

    /// <summary>The configuration of ssh for it.</summary>
    public string Config => Folder["config"];

    public static string? WhyNot
        => !OperatingSystem.IsLinux() ? "sshd of Debian"
            : Programs.WhyMissing("ssh") ?? (File.Exists("/usr/sbin/sshd") ? null : "openssh-server is not installed")
                ?? (File.Exists(SftpServer) ? null : "openssh-sftp-server is not installed");

    /// <summary>Starts it.</summary>
    /// <param name="folder">A folder for all that it needs.</param>
    /// <param name="more">Lines of its configuration that come before the others, and so count more.</param>
    /// <param name="sftp">The command of its SFTP.</param>
    /// <param name="client">Lines of the client's configuration that come before the others.</param>
    /// <param name="environment">What is added to its environment.</param>
    public static async Task<SshDaemon> StartAsync(
        TestFolder folder, string more = "", string? sftp = null, string client = "", params (string Name, string Value)[] environment)
    {
        Directory.CreateDirectory("/run/sshd"); // where root's server locks its children in; empty
        int port = NbdProcess.FreePort();
        foreach (string type in new[] { "ed25519", "rsa", "ecdsa" })
        {
            await KeyAsync(folder[$"host_{type}"], type);
        }
        await KeyAsync(folder["id"], "ed25519");
        File.Copy(folder["id.pub"], folder["authorized"], overwrite: true);
        string known = $"[127.0.0.1]:{port} {await File.ReadAllTextAsync(folder["host_ed25519.pub"])}";
        await File.WriteAllTextAsync(folder["known"], known);
        await File.WriteAllTextAsync(
            folder["sshd_config"],
            $"""
            {more}
            Port {port}
            ListenAddress 127.0.0.1
            HostKey {folder["host_ed25519"]}
            HostKey {folder["host_rsa"]}
            HostKey {folder["host_ecdsa"]}
            AuthorizedKeysFile {folder["authorized"]}
            PidFile none
            StrictModes no
            UsePAM no
            PasswordAuthentication no
            KbdInteractiveAuthentication no
            PermitRootLogin yes
            LogLevel VERBOSE
            Subsystem sftp {sftp ?? "internal-sftp"}

            """);
        await File.WriteAllTextAsync(
            folder["config"],
            $"""
            {client}
            UserKnownHostsFile {folder["known"]}
            GlobalKnownHostsFile none
            IdentityFile {folder["id"]}
            IdentityAgent none
            KexAlgorithms curve25519-sha256

            """);
        var info = new ProcessStartInfo("/usr/sbin/sshd") { UseShellExecute = false };
        foreach (string argument in new[] { "-D", "-f", folder["sshd_config"], "-E", folder["sshd.log"] })
        {
            info.ArgumentList.Add(argument);
        }
        foreach ((string name, string value) in environment)
        {
            info.Environment[name] = value;
        }
        var daemon = new SshDaemon(folder, port, Process.Start(info)!);
        for (int i = 0; !File.Exists(daemon.Log) || !(await daemon.LogAsync()).Contains("Server listening", StringComparison.Ordinal); i++)
        {
            Assert.False(daemon._process.HasExited || i > 1000, $"sshd does not start: {await daemon.LogAsync()}");
            await Task.Delay(10);
        }
        return daemon;
    }

    /// <summary>A file as a URI.</summary>
    public string Uri(string path, string more = "", string user = "")
        => string.Create(CultureInfo.InvariantCulture, $"ssh://{user}127.0.0.1:{Port}{path}{more}");

    /// <summary>Opens and makes images by a configuration of ssh.</summary>
    public ImageOpener Opener(Action<Wording>? warn = null, string? config = null, string? programs = null, OpenPolicy? policy = null)
        => new(RegistryOf(config ?? Config, programs), policy ?? OpenPolicy.Default, warn);

    /// <summary>The drivers, with ssh by a configuration of its own.</summary>
    public static DriverRegistry RegistryOf(string? config, string? programs = null)
    {
        DriverRegistry all = BuiltInDrivers.CreateRegistry();
        return new(
            all.Formats,
            [.. all.Protocols.Select(p => p is SshDriver ? new SshDriver(new SshProgram(config, programs)) : p)],
            all.Filters);
    }

    /// <summary>What it has said so far.</summary>
    public async Task<string> LogAsync()
    {
        if (!File.Exists(Log))
        {
            return "";
        }
        await using var file = new FileStream(Log, FileMode.Open, FileAccess.Read, FileShare.ReadWrite);
        using var reader = new StreamReader(file);
        return await reader.ReadToEndAsync();
    }

    /// <summary>The fingerprint of one of its keys, as ssh-keygen has it.</summary>
    public async Task<byte[]> KeyBytesAsync(string type)
        => Convert.FromBase64String((await File.ReadAllTextAsync(Folder[$"host_{type}.pub"])).Split(' ')[1]);

    /// <summary>Has it read its configuration again.</summary>
    public async Task ReloadAsync()
    {
        await Programs.RunAsync("kill", "-HUP", $"{_process.Id}");
        for (int i = 0; (await LogAsync()).Split("Server listening").Length < 3; i++)
        {
            Assert.False(i > 1000, "sshd does not start again");
            await Task.Delay(10);
        }
    }

    /// <summary>Ends all that serves connections: they are cut.</summary>
    public async Task CutAsync()
    {
        foreach (string process in await BelowAsync())
        {
            await Programs.TryAsync("kill", "-9", process);
        }
    }

    /// <summary>The processes below it.</summary>
    public async Task<string[]> BelowAsync()
    {
        var found = new List<string>();
        var left = new Queue<string>([_process.Id.ToString(CultureInfo.InvariantCulture)]);
        while (left.TryDequeue(out string? parent))
        {
            foreach (string child in (await Programs.TryAsync("pgrep", "-P", parent)).Output.Split('\n', StringSplitOptions.RemoveEmptyEntries))
            {
                left.Enqueue(child);
                found.Add(child);
            }
        }
        return [.. found];
    }

    public async ValueTask DisposeAsync()
    {
        await CutAsync();
        if (!_process.HasExited)
        {
            _process.Kill();
            await _process.WaitForExitAsync();
        }
        _process.Dispose();
    }

    public static async Task KeyAsync(string path, string type, string passphrase = "")
    {
        if (!File.Exists(path))
        {
            await Programs.RunAsync("ssh-keygen", "-q", "-t", type, "-N", passphrase, "-C", "test", "-f", path);
        }
    }
}
