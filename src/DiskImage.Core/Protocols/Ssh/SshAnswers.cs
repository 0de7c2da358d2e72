using System.Runtime.InteropServices;
using System.Security;
using DiskImage.Block;
using DiskImage.Crypto;
using HostIO = System.IO.File;

namespace DiskImage.Protocols.Ssh;

/// <summary>
/// Answers ssh's questions for a password and for the passphrase of a key: a script that ssh runs, and pipes that it reads from. The
/// secrets are on no command line, in no environment and in no file, and an ssh that reaches a host in between gets none of them.
/// </summary>
/// <param name="folder">A folder that nobody else may enter.</param>
internal sealed partial class SshAnswers(string folder) : IDisposable
{
    private const int Times = 3; // that one secret is asked for at most: by keyboard-interactive and by password. Ours
    private const int Longest = 1024; // bytes of one, so that all fit into a pipe. Ours
    private const string ScriptName = "ask", Password = "password", Passphrase = "passphrase";

    private const string Script = $"""
        #!/bin/sh
        [ "$PPID" = "$DISKIMAGE_SSH_PID" ] || exit 1
        case $1 in
            "Enter passphrase for "*) from={Passphrase} ;;
            *"(yes/no"*) exit 1 ;;
            *) from={Password} ;;
        esac
        from=$(dirname "$0")/$from
        [ -p "$from" ] || exit 1
        IFS= read -r answer <"$from" && printf '%s\n' "$answer"

        """;

    private readonly List<FileStream> _pipes = [];

    /// <summary>What ssh's environment needs.</summary>
    public IEnumerable<KeyValuePair<string, string>> Environment =>
    [
        new("SSH_ASKPASS", Path.Combine(folder, ScriptName)), new("SSH_ASKPASS_REQUIRE", "force"), new("DISPLAY", "none"),
    ];

    /// <summary>Prepares the answers that there are.</summary>
    /// <exception cref="DiskImageException">Unsupported: not on this system. InvalidOption: a secret cannot be a line.</exception>
    public void Prepare(string name, SecureString? password, SecureString? passphrase)
    {
        if (OperatingSystem.IsWindows())
        {
            throw new DiskImageException(
                DiskImageErrorKind.Unsupported,
                $"{name}: on Windows ssh cannot be told a password. Log in with a key, by the agent or a key file without a passphrase.",
                name);
        }
        HostIO.WriteAllText(Path.Combine(folder, ScriptName), Script);
        HostIO.SetUnixFileMode(
            Path.Combine(folder, ScriptName), UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        Prepare(name, Password, password);
        Prepare(name, Passphrase, passphrase);
    }

    /// <inheritdoc/>
    public void Dispose() => _pipes.ForEach(p => p.Dispose());

    /// <summary>A pipe that holds a secret as often as it may be asked for, as long as it is open here.</summary>
    private void Prepare(string name, string pipe, SecureString? secret)
    {
        if (secret is null)
        {
            return;
        }
        using SecretBuffer text = SecretBuffer.OfText(secret);
        if (text.Span.Length > Longest || text.Span.ContainsAny((byte)'\n', (byte)'\0'))
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption, $"{name}: a password for ssh is one line of at most {Longest:#,0} bytes.", name);
        }
        string path = Path.Combine(folder, pipe);
        if (MakePipe(path, 0x180) != 0) // for its owner only
        {
            throw new DiskImageException(
                DiskImageErrorKind.Io, $"{path}: cannot be made: {Marshal.GetLastPInvokeErrorMessage()}", path);
        }
        var held = new FileStream(path, FileMode.Open, FileAccess.ReadWrite, FileShare.ReadWrite, bufferSize: 0);
        _pipes.Add(held);
        using var lines = new SecretBuffer(Times * (text.Span.Length + 1));
        for (int i = 0; i < Times; i++)
        {
            Span<byte> line = lines.Span.Slice(i * (text.Span.Length + 1), text.Span.Length + 1);
            text.Span.CopyTo(line);
            line[^1] = (byte)'\n';
        }
        held.Write(lines.Span);
    }

    [LibraryImport("libc", EntryPoint = "mkfifo", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static partial int MakePipe(string path, uint mode);
}
