using System.Net.Security;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using DiskImage.Block;

namespace DiskImage.Protocols.Nbd;

/// <summary>
/// TLS by certificates. A folder has them under QEMU's names: <c>ca-cert.pem</c>, and <c>client-cert.pem</c> with <c>client-key.pem</c>,
/// each of which may be missing. Without a folder the system decides whom to trust.
/// </summary>
/// <param name="folder">The folder; null for none.</param>
/// <param name="host">What the server's certificate must be for.</param>
internal sealed class NbdX509(string? folder, string host) : INbdTls
{
    private readonly X509Certificate2Collection? _authorities = folder is null ? null : Authorities(folder);
    private readonly X509Certificate2? _own = folder is null ? null : Own(folder, "client");

    /// <inheritdoc/>
    public async ValueTask<Stream> ConnectAsync(Stream plain, CancellationToken cancellationToken)
    {
        var stream = new SslStream(plain, leaveInnerStreamOpen: true);
        try
        {
            await stream.AuthenticateAsClientAsync(
                new SslClientAuthenticationOptions
                {
                    TargetHost = host,
                    CertificateChainPolicy = Policy(_authorities),
                    ClientCertificateContext = _own is null ? null : SslStreamCertificateContext.Create(_own, null, offline: true),
                },
                cancellationToken).ConfigureAwait(false);
            return stream;
        }
        catch
        {
            await stream.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    /// <summary>How a chain of certificates is judged: by the given authorities alone, or by the system's.</summary>
    public static X509ChainPolicy Policy(X509Certificate2Collection? authorities)
    {
        var policy = new X509ChainPolicy { RevocationMode = X509RevocationMode.NoCheck };
        if (authorities is not null)
        {
            policy.TrustMode = X509ChainTrustMode.CustomRootTrust;
            policy.CustomTrustStore.AddRange(authorities);
        }
        return policy;
    }

    /// <summary>The authorities of a folder; null if it has none.</summary>
    /// <exception cref="DiskImageException">They cannot be read.</exception>
    public static X509Certificate2Collection? Authorities(string folder)
    {
        string path = Path.Combine(folder, "ca-cert.pem");
        if (!System.IO.File.Exists(path))
        {
            return Directory.Exists(folder)
                ? null
                : throw new DiskImageException(DiskImageErrorKind.NotFound, $"{folder}: there is no such folder of credentials", folder);
        }
        var authorities = new X509Certificate2Collection();
        Read(path, () => authorities.ImportFromPemFile(path));
        return authorities;
    }

    /// <summary>The certificate of one side, with its key; null if the folder has none.</summary>
    /// <exception cref="DiskImageException">It cannot be read.</exception>
    public static X509Certificate2? Own(string folder, string side)
    {
        string path = Path.Combine(folder, $"{side}-cert.pem");
        X509Certificate2? own = null;
        if (System.IO.File.Exists(path))
        {
            // a key that is only in memory is not taken by every platform; one that went through a PKCS #12 is
            Read(path, () =>
            {
                using X509Certificate2 pem = X509Certificate2.CreateFromPemFile(path, Path.Combine(folder, $"{side}-key.pem"));
                own = X509CertificateLoader.LoadPkcs12(pem.Export(X509ContentType.Pkcs12), null);
            });
        }
        return own;
    }

    private static void Read(string path, Action read)
    {
        try
        {
            read();
        }
        catch (Exception e) when (e is CryptographicException or IOException or UnauthorizedAccessException or ArgumentException)
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"{path}: cannot be read as a certificate with its key, in PEM: {e.Message}",
                path,
                cause: e);
        }
    }
}
