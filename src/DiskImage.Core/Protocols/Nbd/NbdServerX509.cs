using System.Net.Security;
using System.Security.Cryptography.X509Certificates;
using DiskImage.Block;

namespace DiskImage.Protocols.Nbd;

/// <summary>The server's side of TLS by certificates, from a folder as QEMU has it.</summary>
internal sealed class NbdServerX509 : INbdServerTls
{
    private readonly X509Certificate2 _own;
    private readonly X509Certificate2Collection? _authorities;

    /// <summary>Reads the folder.</summary>
    /// <exception cref="DiskImageException">It has no certificate of a server, or one that cannot be read.</exception>
    public NbdServerX509(string folder)
    {
        _authorities = NbdX509.Authorities(folder);
        _own = NbdX509.Own(folder, "server") ?? throw new DiskImageException(
            DiskImageErrorKind.NotFound, $"{folder}: has no server-cert.pem, with server-key.pem beside it", folder);
    }

    /// <inheritdoc/>
    public async ValueTask<Stream> AcceptAsync(Stream plain, CancellationToken cancellationToken)
    {
        var stream = new SslStream(plain, leaveInnerStreamOpen: true);
        try
        {
            await stream.AuthenticateAsServerAsync(
                new SslServerAuthenticationOptions
                {
                    ServerCertificateContext = SslStreamCertificateContext.Create(_own, null, offline: true),
                    ClientCertificateRequired = _authorities is not null,
                    CertificateChainPolicy = _authorities is null ? null : NbdX509.Policy(_authorities),
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
}
