using System.Collections;
using System.Management.Automation;
using System.Net;
using System.Security;
using System.Text;
using DiskImage.Block;
using DiskImage.Drivers;

namespace DiskImage.PowerShell;

/// <summary>The secrets that users give: one for all images, or a dictionary of them by name or path. None is ever text.</summary>
internal static class GivenSecrets
{
    /// <summary>The name of the secret that is for whatever has none of its own.</summary>
    public const string ForAll = "";

    private const int MostBytes = 64 << 10; // of a file; ours
    private const UnixFileMode Open = UnixFileMode.GroupRead | UnixFileMode.GroupWrite | UnixFileMode.OtherRead | UnixFileMode.OtherWrite;

    /// <summary>The secrets in a parameter's argument.</summary>
    /// <param name="argument">SecureString, PSCredential, or a dictionary of these by name or path; null for none.</param>
    /// <param name="parameter">The parameter.</param>
    /// <param name="folder">Where relative paths among the names are taken from.</param>
    /// <exception cref="DiskImageException">InvalidOption: it is something else.</exception>
    public static Dictionary<string, SecureString> Of(object? argument, string parameter, string? folder)
    {
        var secrets = new Dictionary<string, SecureString>(StringComparer.Ordinal);
        switch (Bare(argument))
        {
            case null:
                break;
            case IDictionary dictionary:
                foreach (DictionaryEntry entry in dictionary)
                {
                    string name = entry.Key.ToString() ?? ForAll;
                    secrets[name] = One(entry.Value, parameter);
                    if (Bare(entry.Value) is PSCredential { UserName: { Length: > 0 } user })
                    {
                        secrets[SecretNames.UserOf(name)] = new NetworkCredential("", user).SecurePassword;
                    }
                    if (name.Length > 0 && folder is not null && !name.Contains("://", StringComparison.Ordinal))
                    {
                        _ = secrets.TryAdd(System.IO.Path.GetFullPath(name, folder), secrets[name]);
                    }
                }
                break;
            case object single:
                secrets[ForAll] = One(single, parameter);
                break;
        }
        return secrets;
    }

    /// <summary>The secret in a file: its bytes as UTF-8, without the end of its last line.</summary>
    /// <param name="path">The file.</param>
    /// <param name="warn">Told what speaks against the file.</param>
    /// <exception cref="DiskImageException">NotFound, AccessDenied, InvalidOption.</exception>
    public static SecureString OfFile(string path, Action<string> warn)
    {
        byte[] bytes = GC.AllocateArray<byte>(MostBytes + 1, pinned: true);
        char[] text = GC.AllocateArray<char>(MostBytes + 1, pinned: true);
        try
        {
            using FileStream file = System.IO.File.OpenRead(path);
            if (!OperatingSystem.IsWindows() && (System.IO.File.GetUnixFileMode(file.SafeFileHandle) & Open) != 0)
            {
                warn($"{path}: others than its owner may read or change this file, and it holds a secret. Take that from them: chmod 600.");
            }
            int count = file.ReadAtLeast(bytes, bytes.Length, throwOnEndOfStream: false);
            if (count > MostBytes)
            {
                throw new DiskImageException(
                    DiskImageErrorKind.InvalidOption, $"{path}: has more than the {MostBytes:#,0} bytes that a secret may have.", path);
            }
            count -= count > 0 && bytes[count - 1] == '\n' ? 1 : 0;
            count -= count > 0 && bytes[count - 1] == '\r' ? 1 : 0;
            int length = Encoding.UTF8.GetChars(bytes, 0, count, text, 0);
            var secret = new SecureString();
            foreach (char character in text.AsSpan(0, length))
            {
                secret.AppendChar(character);
            }
            secret.MakeReadOnly();
            return secret;
        }
        catch (Exception e) when (e is (IOException and not DiskImageException) or UnauthorizedAccessException)
        {
            throw new DiskImageException(
                e is FileNotFoundException or DirectoryNotFoundException ? DiskImageErrorKind.NotFound : DiskImageErrorKind.AccessDenied,
                $"{path}: the file with the secret cannot be read: {e.Message}",
                path,
                cause: e);
        }
        finally
        {
            Array.Clear(bytes);
            Array.Clear(text);
        }
    }

    private static SecureString One(object? given, string parameter) => Bare(given) switch
    {
        SecureString secret => secret,
        PSCredential credential => credential.Password,
        _ => throw new DiskImageException(
            DiskImageErrorKind.InvalidOption,
            $"-{parameter} takes a SecureString, a PSCredential, or a dictionary of these by name or path: from Read-Host -AsSecureString, "
                + "Get-Credential or Get-Secret. Text would stay in the history and in memory."),
    };

    private static object? Bare(object? given) => given is PSObject wrapped ? wrapped.BaseObject : given;
}
