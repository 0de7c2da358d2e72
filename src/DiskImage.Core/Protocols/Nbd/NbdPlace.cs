using System.Net;

namespace DiskImage.Protocols.Nbd;

/// <summary>Where a server is, and how it is spoken to.</summary>
/// <param name="Name">What the export, or the server, is called in messages.</param>
/// <param name="Address">Where it listens.</param>
/// <param name="Tls">How connections to it are secured; null for in the clear.</param>
internal sealed record NbdPlace(string Name, EndPoint Address, INbdTls? Tls);

/// <summary>One way to secure connections.</summary>
internal interface INbdTls
{
    /// <summary>The client's side of the handshake of TLS.</summary>
    /// <param name="plain">The connection; closed by whoever opened it.</param>
    /// <param name="cancellationToken">Stops it.</param>
    /// <exception cref="System.Security.Authentication.AuthenticationException">One side does not trust the other.</exception>
    ValueTask<Stream> ConnectAsync(Stream plain, CancellationToken cancellationToken);
}

/// <summary>The same for a server.</summary>
internal interface INbdServerTls
{
    /// <summary>The server's side of the handshake of TLS.</summary>
    /// <param name="plain">The connection; closed by whoever opened it.</param>
    /// <param name="cancellationToken">Stops it.</param>
    /// <exception cref="System.Security.Authentication.AuthenticationException">One side does not trust the other.</exception>
    ValueTask<Stream> AcceptAsync(Stream plain, CancellationToken cancellationToken);
}
