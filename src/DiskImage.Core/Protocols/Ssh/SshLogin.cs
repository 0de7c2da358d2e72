using System.Net;
using System.Security;
using DiskImage.Block;
using DiskImage.Drivers;

namespace DiskImage.Protocols.Ssh;

/// <summary>Logs in to a server and has its SFTP begin.</summary>
/// <param name="program">The system's OpenSSH.</param>
/// <param name="place">What is to be opened there.</param>
/// <param name="secrets">What the user gave, by name.</param>
/// <param name="warn">Told what the user should know.</param>
/// <param name="connections">Those that are not used.</param>
internal sealed class SshLogin(
    SshProgram program, SshPlace place, IReadOnlyDictionary<string, SecureString> secrets, Action<Wording> warn, SshConnections connections)
{
    internal const string Nothing = "/dev/null"; // to ssh, on every system

    /// <summary>Logs in, unless there is a connection that was left for a moment.</summary>
    /// <exception cref="DiskImageException">What ssh says, or the server is not the one that it must be.</exception>
    public async ValueTask<SshServer> OpenAsync(CancellationToken cancellationToken)
    {
        (SshPlace at, SecureString? password) = Credential();
        SecureString? passphrase = place.KeyFile is { } keyFile ? secrets.GetValueOrDefault(keyFile) : null;
        var way = new SshWay(program, at with { Path = "" }, password, passphrase);
        return new SshServer(
            await connections.TryTakeAsync(way, place.Address, cancellationToken).ConfigureAwait(false)
                ?? await ConnectAsync(at, password, passphrase, cancellationToken).ConfigureAwait(false),
            place.Address,
            c => connections.LeaveAsync(way, c));
    }

    private async ValueTask<SftpConnection> ConnectAsync(
        SshPlace at, SecureString? password, SecureString? passphrase, CancellationToken cancellationToken)
    {
        bool answers = (password ?? passphrase) is not null;
        SshConfiguration configured = await SshConfiguration.ReadAsync(program, at, cancellationToken).ConfigureAwait(false);
        string? ciphers = await SshCiphers.ChooseAsync(program, at, configured, cancellationToken).ConfigureAwait(false);
        SshHostKey? key = place.Key is null ? null : await SshHostKey.FindAsync(
            program, at, configured, warn, cancellationToken).ConfigureAwait(false);
        DirectoryInfo? folder = answers || key is not null ? Directory.CreateTempSubdirectory("diskimage-ssh-") : null;
        using SshAnswers? asked = answers ? new SshAnswers(folder!.FullName) : null;
        try
        {
            asked?.Prepare(place.Address, password, passphrase);
            IEnumerable<string> settings = [
                .. Settings(answers), .. KeyCheck(key, folder), .. ciphers is null ? (string[])[] : [$"Ciphers={ciphers}"]];
            var process = SshProcess.Start(
                program.Find("ssh"),
                [.. settings.SelectMany(s => (string[])["-o", s]), .. Identity(), "-s", .. program.Destination(at), "sftp"],
                asked?.Environment ?? []);
            return await SftpConnection.OpenAsync(process, place.Address, cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            folder?.Delete(recursive: true);
        }
    }

    /// <summary>Who logs in, and the password that was given for it: under the name of the server, of nobody else.</summary>
    private (SshPlace Place, SecureString? Password) Credential()
    {
        string? found = Array.Find(
            [place.Name, place.Address, place.Server, (place with { User = null }).Server, place.Host],
            n => secrets.ContainsKey(SecretNames.UserOf(n)));
        if (found is null)
        {
            return (place, null);
        }
        string user = new NetworkCredential("", secrets[SecretNames.UserOf(found)]).Password;
        return place.User is null || place.User.Equals(user, StringComparison.Ordinal)
            ? (place.For(user), secrets[found])
            : throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"{place.Address}: the password that is given is of the user '{user}'. Leave out the user's name before the server's, or "
                    + "give the password of that one.",
                place.Address);
    }

    /// <summary>What is not left to ssh's configuration: it asks nobody, starts nothing, and notices when the server is gone.</summary>
    internal static IEnumerable<string> Settings(bool answers) =>
    [
        $"BatchMode={(answers ? "no" : "yes")}",
        .. answers ? (string[])["NumberOfPasswordPrompts=1", "ControlPath=none"] : [],
        "LogLevel=ERROR",
        "ConnectTimeout=30",
        "ServerAliveInterval=15",
        "ServerAliveCountMax=3",
        "ControlMaster=no",
        "ForwardX11=no",
        "ForwardAgent=no",
        "ClearAllForwardings=yes",
        "PermitLocalCommand=no",
        "RemoteCommand=none",
        "RequestTTY=no",
        "UpdateHostKeys=no",
    ];

    private IEnumerable<string> KeyCheck(SshHostKey? key, DirectoryInfo? folder)
    {
        if (place.IsUnchecked)
        {
            return ["StrictHostKeyChecking=no", $"UserKnownHostsFile={Nothing}", $"GlobalKnownHostsFile={Nothing}", "ControlPath=none"];
        }
        if (key is null)
        {
            return ["StrictHostKeyChecking=yes"];
        }
        string known = Path.Combine(folder!.FullName, "known");
        System.IO.File.WriteAllText(known, key.Line);
        return
        [
            "StrictHostKeyChecking=yes",
            $"HostKeyAlgorithms={key.Algorithms}",
            $"UserKnownHostsFile=\"{Quoted(known)}\"",
            $"GlobalKnownHostsFile={Nothing}",
            "CheckHostIP=no",
            "VerifyHostKeyDNS=no",
            "ControlPath=none",
            .. key.IsBesideOthers ? (string[])["KnownHostsCommand=none"] : [],
        ];
    }

    private IEnumerable<string> Identity() => place.KeyFile is null ? [] : ["-o", "IdentitiesOnly=yes", "-i", Quoted(place.KeyFile)];

    /// <summary>ssh puts other things in the place of what begins with a percent sign.</summary>
    internal static string Quoted(string path) => path.Replace("%", "%%", StringComparison.Ordinal);
}
