using System.Diagnostics;
using System.Globalization;

namespace DiskImage.Bench;

/// <summary>
/// The comparisons over SSH, loopback: OpenSSH's server with keys of the comparison's own, which ends with the program. Both sides are given
/// the same server; qemu-img logs in by an agent of the comparison's own.
/// </summary>
internal static class SshScenarios
{
    private const int Port = 10822; // known to the child processes, too
    private const string Daemon = "/usr/sbin/sshd", Ours = "far.ours.raw", Theirs = "far.theirs.raw";

    private static readonly List<Process> s_servers = [];
    private static bool s_isStarted;

    static SshScenarios() => AppDomain.CurrentDomain.ProcessExit += (_, _) => s_servers.ForEach(p => p.Kill());

    public static IReadOnlyList<Scenario> All { get; } =
    [
        new(
            "ssh-raw", "ssh → raw", 0.7,
            folder => Scenario.ConvertAsync(Uri(folder, Scenario.Raw), "raw", Path.Combine(folder, "ours.raw"), "raw"),
            folder => ["convert", "-f", "raw", "-O", "raw", Uri(folder, Scenario.Raw), Path.Combine(folder, "theirs.raw")],
            "ours.raw",
            "theirs.raw")
        {
            PrepareAsync = StartAsync, IsPossible = IsPossible, MostRuns = 5,
        },
        new(
            "raw-ssh", "raw → ssh", 0.7,
            folder => Scenario.ConvertAsync(Path.Combine(folder, Scenario.Raw), "raw", Uri(folder, Ours), "raw"),
            folder => ["convert", "-f", "raw", "-O", "raw", Path.Combine(folder, Scenario.Raw), Uri(folder, Theirs)],
            Ours,
            Theirs)
        {
            PrepareAsync = StartAsync, IsPossible = IsPossible, MostRuns = 5,
        },
    ];

    private static bool IsPossible() => File.Exists(Daemon);

    private static string Uri(string folder, string file) => string.Create(
        CultureInfo.InvariantCulture,
        $"ssh://{Environment.UserName}@127.0.0.1:{Port}{Path.Combine(Path.GetFullPath(folder), file)}?host_key_check=no");

    private static async Task StartAsync(string folder)
    {
        if (s_isStarted)
        {
            return;
        }
        s_isStarted = true;
        folder = Path.GetFullPath(folder);
        string At(string name) => Path.Combine(folder, name);
        Directory.CreateDirectory("/run/sshd"); // where root's server locks its children in
        foreach (string key in new[] { "ssh-host", "ssh-id" })
        {
            _ = await Comparison.RunAsync("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", At(key)]);
        }
        await File.WriteAllTextAsync(
            At("sshd_config"),
            $"""
            Port {Port}
            ListenAddress 127.0.0.1
            HostKey {At("ssh-host")}
            AuthorizedKeysFile {At("ssh-id.pub")}
            PidFile none
            StrictModes no
            UsePAM no
            PermitRootLogin yes
            Subsystem sftp internal-sftp

            """);
        await File.WriteAllTextAsync(At("ssh_config"), $"IdentityFile {At("ssh-id")}\nIdentityAgent none\n");
        Start(Daemon, "-D", "-f", At("sshd_config"), "-E", At("sshd.log"));
        Start("ssh-agent", "-D", "-a", At("ssh-agent"));
        await UntilAsync(() => File.Exists(At("ssh-agent")) && File.Exists(At("sshd.log")));
        Environment.SetEnvironmentVariable("DISKIMAGE_SSH_CONFIG", At("ssh_config"));
        Environment.SetEnvironmentVariable("SSH_AUTH_SOCK", At("ssh-agent"));
        _ = await Comparison.RunAsync("ssh-add", ["-q", At("ssh-id")]);
    }

    private static void Start(string program, params string[] arguments)
    {
        var info = new ProcessStartInfo(program) { UseShellExecute = false, RedirectStandardOutput = true };
        foreach (string argument in arguments)
        {
            info.ArgumentList.Add(argument);
        }
        s_servers.Add(Process.Start(info)!);
    }

    private static async Task UntilAsync(Func<bool> isReady)
    {
        for (int i = 0; !isReady(); i++)
        {
            if (i > 1000)
            {
                throw new InvalidOperationException("OpenSSH's server does not start.");
            }
            await Task.Delay(10);
        }
    }
}
