using System.Net;
using System.Security;
using System.Security.Cryptography;
using System.Text;
using DiskImage.Block;
using DiskImage.Crypto;
using DiskImage.Drivers;
using Microsoft.Win32;

namespace DiskImage.Protocols.Iscsi;

/// <summary>Who one is to a target: the initiator's name, user and password.</summary>
internal static class IscsiIdentity
{
    private const string Prefix = "iqn.2008-11.org.linux-kvm"; // QEMU's
    private const int LongestId = 4096;

    private static readonly Lazy<string> s_initiatorName = new(() => $"{Prefix}:{MachineId()}");

    /// <summary>
    /// The name of this machine's initiator: QEMU's, with a number of the machine behind it, so that two machines are two initiators. The
    /// number is made from the machine's identifier, which is not for strangers (machine-id(5)).
    /// </summary>
    public static string InitiatorName => s_initiatorName.Value;

    /// <summary>
    /// User and password: what the options say, else what the user gave for the unit, its server or its host, else the environment
    /// (as libiscsi).
    /// </summary>
    /// <exception cref="DiskImageException">
    /// SecretRequired: there is a user and no password. InvalidOption: both sides have the same.
    /// </exception>
    public static IscsiCredentials CredentialsOf(IscsiOptions options, IReadOnlyDictionary<string, SecureString> secrets)
    {
        string name = options.Url;
        (string? user, SecretBuffer? secret) = One(
            name, options.User, options.Password, options.PasswordSecret, "LIBISCSI_CHAP_USERNAME", "LIBISCSI_CHAP_PASSWORD", secrets,
            [name, $"iscsi://{options.Address}", options.Address.Host, .. FullServer(options)]);
        (string? targetUser, SecretBuffer? targetSecret) = One(
            name, options.TargetUser, options.TargetPassword, options.TargetPasswordSecret, "LIBISCSI_CHAP_TARGET_USERNAME",
            "LIBISCSI_CHAP_TARGET_PASSWORD", secrets, []);
        var credentials = new IscsiCredentials(user, secret, targetUser, targetSecret);
        if (targetUser is not null && (user is null || secret!.Span.SequenceEqual(targetSecret!.Span)))
        {
            credentials.Dispose();
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"{name}: a target proves who it is ('{targetUser}') only to a user who does the same, and with another password "
                    + "(RFC 7143, 12.1.3)",
                name);
        }
        return credentials;
    }

    /// <summary>A server as a front end may have cut it off the unit's URL.</summary>
    private static IEnumerable<string> FullServer(IscsiOptions options)
        => [$"iscsi://{options.Portal}", options.Portal, $"iscsi://{options.User}@{options.Portal}"];

    private static (string? User, SecretBuffer? Secret) One(
        string name,
        string? user,
        SecureString? password,
        string? secretName,
        string userVariable,
        string passwordVariable,
        IReadOnlyDictionary<string, SecureString> secrets,
        string[] places)
    {
        if (user is null && Array.Find(places, p => secrets.ContainsKey(SecretNames.UserOf(p))) is { } place)
        {
            user = new NetworkCredential("", secrets[SecretNames.UserOf(place)]).Password;
            password = secrets[place];
        }
        if (user is null)
        {
            user = Environment.GetEnvironmentVariable(userVariable) is { Length: > 0 } given ? given : null;
            return user is null ? (null, null)
                : (user, Environment.GetEnvironmentVariable(passwordVariable) is { Length: > 0 } word
                    ? SecretBuffer.Of(Encoding.UTF8.GetBytes(word))
                    : throw Missing(name, user));
        }
        if (password is null && secretName is not null)
        {
            return (user, Secrets.Find(secrets, secretName, name) ?? throw Missing(name, user));
        }
        password ??= Array.ConvertAll(places, p => secrets.GetValueOrDefault(p)).FirstOrDefault(s => s is not null)
            ?? secrets.GetValueOrDefault(Secrets.ForAll);
        return (user, password is null ? throw Missing(name, user) : SecretBuffer.OfText(password));
    }

    private static DiskImageException Missing(string name, string user) => new(
        DiskImageErrorKind.SecretRequired,
        $"{name}: the password of '{user}' is not given. Give it with {new Remedy(RemedyKind.Secret)}.",
        name);

    private static string MachineId()
    {
        string? id = OperatingSystem.IsWindows()
            ? Registry.GetValue(@"HKEY_LOCAL_MACHINE\SOFTWARE\Microsoft\Cryptography", "MachineGuid", null) as string
            : FirstLine("/etc/machine-id") ?? FirstLine("/var/lib/dbus/machine-id");
        byte[] hash = HMACSHA256.HashData(Encoding.UTF8.GetBytes(id ?? Environment.MachineName), Encoding.UTF8.GetBytes(Prefix));
        return new Guid(hash.AsSpan(0, 16), bigEndian: true).ToString("D");
    }

    private static string? FirstLine(string path)
    {
        try
        {
            bool isThere = new FileInfo(path) is { Exists: true, Length: < LongestId };
            return isThere && System.IO.File.ReadLines(path).FirstOrDefault() is { Length: > 0 } line ? line : null;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return null;
        }
    }
}
