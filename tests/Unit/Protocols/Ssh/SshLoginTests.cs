using System.Security;
using System.Security.Cryptography;
using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Graph;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Protocols.Ssh;

/// <summary>Who the server is, and who logs in, with OpenSSH's own server.</summary>
[System.Runtime.Versioning.SupportedOSPlatform("linux")] // or they are skipped
public sealed class SshLoginTests : IDisposable
{
    private readonly TestFolder _folder = new();
    private readonly List<string> _warnings = [];

    public void Dispose() => _folder.Dispose();

    private async Task ReadAsync(
        SshDaemon server, string locator, string? programs = null, IReadOnlyDictionary<string, SecureString>? secrets = null)
    {
        byte[] contents = new byte[4096];
        new Random(3).NextBytes(contents);
        await File.WriteAllBytesAsync(_folder["disk.raw"], contents);
        ImageOpener opener = server.Opener(w => _warnings.Add(w.ToString()), programs: programs);
        var request = new OpenRequest(locator) { Format = "raw", Secrets = secrets ?? new Dictionary<string, SecureString>(StringComparer.Ordinal) };
        await using OpenedImage image = await opener.OpenAsync(request, CancellationToken.None);
        byte[] read = new byte[contents.Length];
        await image.Node.ReadAsync(0, read);
        Assert.Equal(contents, read);
    }

    private async Task<DiskImageException> RefusedAsync(
        SshDaemon server, string locator, string? programs = null, IReadOnlyDictionary<string, SecureString>? secrets = null)
        => await Assert.ThrowsAsync<DiskImageException>(() => ReadAsync(server, locator, programs, secrets));

#pragma warning disable CA5350, CA5351 // what QEMU knows
    private static (string Kind, string Hash) Forgeable(byte[] key, bool isMd5)
        => isMd5 ? ("md5", Colons(Convert.ToHexStringLower(MD5.HashData(key)))) : ("sha1", Convert.ToHexStringLower(SHA1.HashData(key)));
#pragma warning restore CA5350, CA5351

    private static string Colons(string hex) => string.Join(':', hex.Chunk(2).Select(pair => new string(pair)));

    private string Json(SshDaemon server, string more)
        => $$"""json:{"driver":"ssh","server.host":"127.0.0.1","server.port":"{{server.Port}}","path":"{{_folder["disk.raw"]}}",{{more}}}""";

    private static Dictionary<string, SecureString> Credential(string name, string user, string password)
        => new(StringComparer.Ordinal) { [name] = Images.Secret(password), [SecretNames.UserOf(name)] = Images.Secret(user) };

    [SshDaemonFact]
    public async Task The_server_must_be_one_that_ssh_knows_unless_it_may_be_any()
    {
        await using SshDaemon server = await SshDaemon.StartAsync(_folder);
        string uri = server.Uri(_folder["disk.raw"]);
        await ReadAsync(server, uri);
        await ReadAsync(server, $"{uri}?host_key_check=yes");
        await ReadAsync(server, Json(server, """ "host-key-check.mode":"known_hosts" """));
        int accepted = (await server.LogAsync()).Split("Accepted").Length;

        await File.WriteAllTextAsync(_folder["known"], "");
        DiskImageException unknown = await RefusedAsync(server, uri);
        Assert.Equal(DiskImageErrorKind.Refused, unknown.Kind);
        Assert.Contains("host key is known for", unknown.Message);
        await SshDaemon.KeyAsync(_folder["other"], "ed25519");
        string known = $"[127.0.0.1]:{server.Port} {await File.ReadAllTextAsync(_folder["other.pub"])}";
        await File.WriteAllTextAsync(_folder["known"], known);
        DiskImageException changed = await RefusedAsync(server, uri);
        Assert.Equal(DiskImageErrorKind.Refused, changed.Kind);
        Assert.Equal(accepted, (await server.LogAsync()).Split("Accepted").Length);

        await ReadAsync(server, $"{uri}?host_key_check=no");
        await ReadAsync(server, Json(server, """ "host-key-check.mode":"none" """));
        Assert.Equal(known, await File.ReadAllTextAsync(_folder["known"])); // what is known is the user's: nothing was added
        Assert.Empty(_warnings);
    }

    [SshDaemonFact]
    public async Task A_fingerprint_must_be_that_of_one_of_the_servers_keys_before_anybody_logs_in()
    {
        await using SshDaemon server = await SshDaemon.StartAsync(_folder, client: "RekeyLimit 64K");
        File.Delete(_folder["known"]);
        string uri = server.Uri(_folder["disk.raw"]);
        string sha256 = "";
        foreach (string type in new[] { "ed25519", "rsa", "ecdsa" })
        {
            byte[] key = await server.KeyBytesAsync(type);
            sha256 = Convert.ToHexStringLower(SHA256.HashData(key));
            await ReadAsync(server, $"{uri}?host_key_check=sha256:{(type == "rsa" ? Colons(sha256) : sha256.ToUpperInvariant())}");
            Assert.Empty(_warnings);
            (string kind, string hash) = Forgeable(key, isMd5: type == "rsa");
            await ReadAsync(server, Json(
                server, $$""" "host-key-check.mode":"hash","host-key-check.type":"{{kind}}","host-key-check.hash":"{{hash}}" """));
            Assert.Contains($"{kind.ToUpperInvariant()} can be forged", Assert.Single(_warnings));
            Assert.Contains($"sha256:{sha256}", _warnings[0]);
            _warnings.Clear();
        }
        string shown = Convert.ToBase64String(SHA256.HashData(await server.KeyBytesAsync("ed25519"))).TrimEnd('=');
        await ReadAsync(server, $"{uri}?host_key_check=sha256:{System.Uri.EscapeDataString(shown)}");

        string before = await server.LogAsync();
        foreach (string wrong in new[] { $"sha256:{new string('0', 64)}", $"md5:{new string('1', 32)}", $"sha1:{new string('2', 40)}" })
        {
            DiskImageException e = await RefusedAsync(server, $"{uri}?host_key_check={wrong}");
            Assert.Equal(DiskImageErrorKind.Refused, e.Kind);
            Assert.Contains("nobody has logged in", e.Message);
        }
        string after = (await server.LogAsync())[before.Length..];
        Assert.DoesNotContain("Accepted", after);
        Assert.DoesNotContain("authenticating", after);
    }

    /// <summary>The keys that were asked for are one server's, the server that one connects to then is another.</summary>
    [SshDaemonFact]
    public async Task A_server_that_shows_another_key_than_it_told_is_refused_before_anybody_logs_in()
    {
        await using SshDaemon server = await SshDaemon.StartAsync(_folder);
        await SshDaemon.KeyAsync(_folder["other"], "ed25519");
        string[] other = (await File.ReadAllTextAsync(_folder["other.pub"])).Split(' ');
        string hash = Convert.ToHexStringLower(SHA256.HashData(Convert.FromBase64String(other[1])));
        Directory.CreateDirectory(_folder["bin"]);
        File.CreateSymbolicLink(_folder["bin/ssh"], Programs.Find("ssh")!);
        await Script("bin/ssh-keyscan", $"echo '127.0.0.1 {other[0]} {other[1]}'");
        DiskImageException e = await RefusedAsync(
            server, server.Uri(_folder["disk.raw"], $"?host_key_check=sha256:{hash}"), programs: _folder["bin"]);
        Assert.Equal(DiskImageErrorKind.Refused, e.Kind);
        string log = await server.LogAsync();
        Assert.DoesNotContain("Accepted", log);
        Assert.DoesNotContain("authenticating", log);
    }

    /// <summary>Nobody can be asked directly there: ssh goes the way, and stops before anybody logs in.</summary>
    [SshDaemonFact]
    public async Task A_fingerprint_of_a_server_behind_another_is_that_of_the_server()
    {
        await using SshDaemon server = await SshDaemon.StartAsync(_folder);
        string way = _folder["way"];
        await File.WriteAllTextAsync(way, await File.ReadAllTextAsync(server.Config));
        using var inner = new TestFolder();
        await using (SshDaemon behind = await SshDaemon.StartAsync(
            inner,
            client: $"ProxyCommand ssh -F {way} -p {server.Port} -W %h:%p 127.0.0.1"))
        {
            string hash = Convert.ToHexStringLower(SHA256.HashData(await behind.KeyBytesAsync("ecdsa")));
            await ReadAsync(behind, behind.Uri(_folder["disk.raw"], $"?host_key_check=sha256:{hash}"));
            Assert.Single((await behind.LogAsync()).Split("Accepted publickey")[1..]);

            string before = await behind.LogAsync(), near = Convert.ToHexStringLower(SHA256.HashData(await server.KeyBytesAsync("ecdsa")));
            DiskImageException e = await RefusedAsync(behind, behind.Uri(_folder["disk.raw"], $"?host_key_check=sha256:{near}"));
            Assert.Equal(DiskImageErrorKind.Refused, e.Kind);
            Assert.Contains("nobody has logged in", e.Message);
            string after = (await behind.LogAsync())[before.Length..];
            Assert.DoesNotContain("Accepted", after);
            Assert.DoesNotContain("authenticating", after);
        }
    }

    [SshDaemonFact]
    public async Task A_fingerprint_of_a_server_that_there_is_no_way_to_is_no_answer()
    {
        await using SshDaemon server = await SshDaemon.StartAsync(_folder, client: "ProxyJump nowhere");
        DiskImageException e = await RefusedAsync(server, server.Uri(_folder["disk.raw"], $"?host_key_check=sha256:{new string('a', 64)}"));
        Assert.Equal(DiskImageErrorKind.Io, e.Kind);
        Assert.Contains("tells none of its keys", e.Message);
    }

    [SshDaemonFact]
    public async Task A_key_of_the_agent_or_of_a_file_logs_in_and_no_key_does_not()
    {
        string socket = _folder["agent"];
        await using SshDaemon server = await SshDaemon.StartAsync(_folder, client: $"IdentityAgent {socket}\nIdentityFile none");
        string uri = server.Uri(_folder["disk.raw"]);
        await File.WriteAllTextAsync(
            server.Config, (await File.ReadAllTextAsync(server.Config)).Replace($"IdentityFile {_folder["id"]}", ""));
        await using (await Nbd.NbdProcess.StartAsync("ssh-agent", socket, "-D", "-a", socket))
        {
            DiskImageException none = await RefusedAsync(server, uri);
            Assert.Equal(DiskImageErrorKind.AccessDenied, none.Kind);
            Assert.Contains("Permission denied", none.Message);
            await Programs.RunAsync("env", $"SSH_AUTH_SOCK={socket}", "ssh-add", "-q", _folder["id"]);
            await ReadAsync(server, uri);
        }
        DiskImageException gone = await RefusedAsync(server, uri);
        Assert.Equal(DiskImageErrorKind.AccessDenied, gone.Kind);
        await ReadAsync(server, Json(server, $$""" "key-file":"{{_folder["id"]}}" """));
    }

    [SshDaemonFact]
    public async Task The_passphrase_of_a_key_file_is_given_under_its_path_and_told_to_nobody()
    {
        await using SshDaemon server = await SshDaemon.StartAsync(_folder, client: "IdentityFile none");
        await SshDaemon.KeyAsync(_folder["locked"], "ed25519", passphrase: "open 'sesame");
        File.Copy(_folder["locked.pub"], _folder["authorized"], overwrite: true);
        string json = Json(server, $$""" "key-file":"{{_folder["locked"]}}" """);
        Dictionary<string, SecureString> Given(string text) => new(StringComparer.Ordinal) { [_folder["locked"]] = Images.Secret(text) };
        await ReadAsync(server, json, secrets: Given("open 'sesame"));
        foreach (Dictionary<string, SecureString>? secrets in new[] { Given("other words"), null })
        {
            DiskImageException e = await RefusedAsync(server, json, secrets: secrets);
            Assert.Equal(DiskImageErrorKind.AccessDenied, e.Kind);
            Assert.DoesNotContain("other words", e.ToString());
        }
    }

    [PamFact]
    public async Task A_password_that_is_given_for_the_server_logs_in_and_no_error_repeats_it()
    {
        await using SshDaemon server = await WithPasswordAsync("");
        string uri = server.Uri(_folder["disk.raw"]), user = Environment.UserName;
        foreach (string name in new[] { $"ssh://127.0.0.1:{server.Port}", "127.0.0.1" })
        {
            await ReadAsync(server, uri, secrets: Credential(name, user, "corr'ect %h $HOME"));
        }
        await ReadAsync(
            server,
            server.Uri(_folder["disk.raw"], user: $"{user}@"),
            secrets: Credential($"ssh://{user}@127.0.0.1:{server.Port}", user, "corr'ect %h $HOME"));
        DiskImageException e = await RefusedAsync(server, uri, secrets: Credential("127.0.0.1", user, "unfit-words"));
        Assert.Equal(DiskImageErrorKind.AccessDenied, e.Kind);
        Assert.DoesNotContain("unfit", e.ToString());
        Assert.Equal(DiskImageErrorKind.AccessDenied, (await RefusedAsync(server, uri)).Kind);
        Assert.Equal(
            DiskImageErrorKind.InvalidOption,
            (await RefusedAsync(server, uri, secrets: Credential("127.0.0.1", user, "two\nlines"))).Kind);
        Assert.Equal(
            DiskImageErrorKind.InvalidOption,
            (await RefusedAsync(
                server, server.Uri(_folder["disk.raw"], user: "else@"), secrets: Credential("127.0.0.1", user, "x"))).Kind);
    }

    [PamFact]
    public async Task A_server_that_asks_with_its_own_words_gets_the_password()
    {
        await using SshDaemon server = await WithPasswordAsync("PasswordAuthentication no\nKbdInteractiveAuthentication yes");
        await ReadAsync(
            server, server.Uri(_folder["disk.raw"]), secrets: Credential("127.0.0.1", Environment.UserName, "corr'ect %h $HOME"));
    }

    /// <summary>The password is the server's, not that of a host on the way to it, though both ask.</summary>
    [PamFact]
    public async Task A_host_on_the_way_is_not_told_the_password()
    {
        await using SshDaemon server = await WithPasswordAsync("");
        string way = _folder["way"];
        await File.WriteAllTextAsync(way, await File.ReadAllTextAsync(server.Config));
        await File.WriteAllTextAsync(
            server.Config,
            $"ProxyCommand ssh -F {way} -p {server.Port} -W 127.0.0.1:{server.Port} 127.0.0.1\n{await File.ReadAllTextAsync(way)}");
        DiskImageException e = await RefusedAsync(
            server, server.Uri(_folder["disk.raw"]), secrets: Credential("127.0.0.1", Environment.UserName, "corr'ect %h $HOME"));
        Assert.Equal(DiskImageErrorKind.AccessDenied, e.Kind);
        Assert.DoesNotContain("Accepted", await server.LogAsync());
    }

    [SshDaemonFact]
    public async Task Where_there_is_no_ssh_that_is_said()
    {
        await using SshDaemon server = await SshDaemon.StartAsync(_folder);
        Directory.CreateDirectory(_folder["empty"]);
        DiskImageException e = await RefusedAsync(server, server.Uri(_folder["disk.raw"]), programs: _folder["empty"]);
        Assert.Equal(DiskImageErrorKind.Unsupported, e.Kind);
        Assert.Contains("Install OpenSSH", e.Message);
    }

    [SshDaemonFact]
    public async Task What_ssh_says_of_a_server_that_is_not_there_stands_in_the_error()
    {
        await using SshDaemon server = await SshDaemon.StartAsync(_folder);
        DiskImageException refused = await RefusedAsync(server, $"ssh://127.0.0.1:{Nbd.NbdProcess.FreePort()}/disk.raw");
        Assert.Equal(DiskImageErrorKind.Io, refused.Kind);
        Assert.Contains("Connection refused", refused.Message);
        DiskImageException unknown = await RefusedAsync(server, "ssh://no-such-host.invalid/disk.raw");
        Assert.Equal(DiskImageErrorKind.NotFound, unknown.Kind);
        Assert.Contains("no-such-host.invalid", unknown.Message);
    }

    private async Task<SshDaemon> WithPasswordAsync(string more)
    {
        Directory.CreateDirectory(_folder["pam"]);
        string module = $"required {PamFactAttribute.Modules}/pam_matrix.so passdb={_folder["passdb"]}\n";
        await File.WriteAllTextAsync(_folder["pam/sshd"], $"auth {module}account {module}session {module}");
        File.Copy(_folder["pam/sshd"], _folder["pam/other"]);
        await File.WriteAllTextAsync(_folder["passdb"], $"{Environment.UserName}:corr'ect %h $HOME:sshd\n");
        return await SshDaemon.StartAsync(
            _folder,
            $"{more}\nUsePAM yes\nPasswordAuthentication yes\nPubkeyAuthentication no",
            environment:
            [
                ("LD_PRELOAD", "libpam_wrapper.so"), ("PAM_WRAPPER", "1"), ("PAM_WRAPPER_SERVICE_DIR", _folder["pam"]),
            ]);
    }

    private async Task Script(string name, string text)
    {
        await File.WriteAllTextAsync(_folder[name], $"#!/bin/sh\n{text}\n");
        File.SetUnixFileMode(_folder[name], UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
    }
}

/// <summary>A fact that needs a server which takes passwords: PAM, with a list of passwords of the test's own.</summary>
public sealed class PamFactAttribute : FactAttribute
{
    public const string Modules = "/usr/lib/x86_64-linux-gnu/pam_wrapper";

    public PamFactAttribute() => Skip = SshDaemon.WhyNot
        ?? (!Directory.Exists(Modules) ? "libpam-wrapper is not installed"
            : Environment.UserName != "root" ? "only root's sshd asks PAM" : null);
}
