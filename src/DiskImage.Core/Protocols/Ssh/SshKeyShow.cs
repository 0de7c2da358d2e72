using DiskImage.Block;
using HostIO = System.IO.File;

namespace DiskImage.Protocols.Ssh;

/// <summary>
/// Keys of a server that is reached by way of others: ssh goes there, hands each key to a command of ours (KnownHostsCommand of OpenSSH
/// 8.5), is told of no host that it knows, and gives up before anybody logs in.
/// </summary>
internal static class SshKeyShow
{
    private const string Script = """
        #!/bin/sh
        [ "$1" = HOSTNAME ] && printf '%s %s %s\n' "$1" "$2" "$3" >>"$(dirname "$0")/keys"
        exit 0

        """;

    // One connection each, side by side: a server shows one key at a time.
    private static readonly string[] s_kinds =
        ["ssh-ed25519", "ecdsa-sha2-nistp256,ecdsa-sha2-nistp384,ecdsa-sha2-nistp521", "rsa-sha2-512,rsa-sha2-256"];

    /// <summary>Asks a server.</summary>
    /// <returns>A line for each key, as ssh-keyscan writes it, and what ssh said.</returns>
    /// <exception cref="DiskImageException">Unsupported: not on this system.</exception>
    public static async ValueTask<(string Output, SshWords? Words)> AskAsync(
        SshProgram program, SshPlace place, CancellationToken cancellationToken)
    {
        if (OperatingSystem.IsWindows())
        {
            throw new DiskImageException(
                DiskImageErrorKind.Unsupported,
                $"{place.Address}: ssh's configuration has it reached by way of another host, where on Windows a server cannot be asked "
                    + "for its keys before somebody logs in. Add its key to the known hosts, and use host_key_check=yes.",
                place.Address);
        }
        DirectoryInfo folder = Directory.CreateTempSubdirectory("diskimage-ssh-"); // which nobody else may enter
        try
        {
            string script = Path.Combine(folder.FullName, "show"), keys = Path.Combine(folder.FullName, "keys");
            await HostIO.WriteAllTextAsync(script, Script, cancellationToken).ConfigureAwait(false);
            HostIO.SetUnixFileMode(script, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
            (string Output, SshWords? Words)[] told = await Task.WhenAll(s_kinds.Select(
                kind => SshProcess.AskAsync(program.Find("ssh"), Arguments(program, place, script, kind), cancellationToken).AsTask()))
                .ConfigureAwait(false);
            string shown = HostIO.Exists(keys) ? await HostIO.ReadAllTextAsync(keys, cancellationToken).ConfigureAwait(false) : "";
            return (shown, told[0].Words);
        }
        finally
        {
            folder.Delete(recursive: true);
        }
    }

    private static IEnumerable<string> Arguments(SshProgram program, SshPlace place, string script, string kind)
    {
        IEnumerable<string> settings =
        [
            .. SshLogin.Settings(answers: false),
            "StrictHostKeyChecking=yes",
            $"HostKeyAlgorithms={kind}",
            $"UserKnownHostsFile={SshLogin.Nothing}",
            $"GlobalKnownHostsFile={SshLogin.Nothing}",
            $"KnownHostsCommand=\"{SshLogin.Quoted(script)}\" %I %t %K",
            "VerifyHostKeyDNS=no",
            "ControlPath=none",
        ];
        return [.. settings.SelectMany(s => (string[])["-o", s]), "-T", .. program.Destination(place)];
    }
}
