using System.Security.Cryptography;
using System.Text;
using DiskImage.Block;
using Org.BouncyCastle.Tls;
using Org.BouncyCastle.Tls.Crypto.Impl.BC;

namespace DiskImage.Protocols.Nbd;

/// <summary>
/// TLS by a key that both sides know, which no stream of the runtime has: TLS 1.2 with ECDHE-PSK and its like. A file has the keys, a line
/// each, <c>name:hexadecimal digits</c>, as GnuTLS and QEMU have it.
/// </summary>
internal static class NbdPsk
{
    /// <summary>The file of keys in a folder, as QEMU calls it.</summary>
    public const string FileName = "keys.psk";

    private const int LongestFile = 1 << 20, LongestKey = 512; // ours

    /// <summary>A client that is known by a name.</summary>
    /// <exception cref="DiskImageException">The file cannot be read, or has no key of that name.</exception>
    public static INbdTls Client(string file, string user)
    {
        Dictionary<string, byte[]> keys = Read(file);
        return keys.TryGetValue(user, out byte[]? key)
            ? new PskClient(user, key)
            : throw new DiskImageException(
                DiskImageErrorKind.NotFound, $"{file}: has no key of '{user}'. Name another with tls-username.", file);
    }

    /// <summary>A server for all who have one of the keys.</summary>
    /// <exception cref="DiskImageException">The file cannot be read.</exception>
    public static INbdServerTls Server(string file) => new PskServer(Read(file));

    private static Dictionary<string, byte[]> Read(string file)
    {
        try
        {
            if (new FileInfo(file).Length > LongestFile)
            {
                throw new FormatException($"it is longer than {LongestFile:#,0} bytes");
            }
            var keys = new Dictionary<string, byte[]>(StringComparer.Ordinal);
            foreach (string line in System.IO.File.ReadLines(file).Select(l => l.Trim()).Where(l => l.Length > 0 && l[0] != '#'))
            {
                int colon = line.LastIndexOf(':');
                byte[] key = colon > 0 ? Convert.FromHexString(line.AsSpan(colon + 1)) : [];
                if (key.Length is 0 or > LongestKey)
                {
                    throw new FormatException("a line is not 'name:hexadecimal digits'");
                }
                keys[line[..colon]] = key;
            }
            return keys;
        }
        catch (Exception e) when (e is IOException and not DiskImageException or UnauthorizedAccessException or FormatException)
        {
            // what a line holds is a secret, so no line is told
            throw new DiskImageException(
                e is FileNotFoundException or DirectoryNotFoundException ? DiskImageErrorKind.NotFound : DiskImageErrorKind.InvalidOption,
                $"{file}: cannot be read as a file of keys: "
                    + (e is FormatException ? "a line is not 'name:hexadecimal digits'" : e.Message),
                file);
        }
    }

    private static BcTlsCrypto Crypto() => new(new Org.BouncyCastle.Security.SecureRandom());

    private sealed class PskClient(string user, byte[] key) : INbdTls
    {
        public async ValueTask<Stream> ConnectAsync(Stream plain, CancellationToken cancellationToken)
        {
            var protocol = new TlsClientProtocol();
            var stream = new NbdPskStream(plain, protocol);
            await stream.HandshakeAsync(
                () => protocol.Connect(new Peer(new BasicTlsPskIdentity(user, key))), cancellationToken).ConfigureAwait(false);
            return stream;
        }

        private sealed class Peer(TlsPskIdentity identity) : PskTlsClient(Crypto(), identity)
        {
            protected override ProtocolVersion[] GetSupportedVersions() => ProtocolVersion.TLSv12.Only();
        }
    }

    private sealed class PskServer(Dictionary<string, byte[]> keys) : INbdServerTls, TlsPskIdentityManager
    {
        public async ValueTask<Stream> AcceptAsync(Stream plain, CancellationToken cancellationToken)
        {
            var protocol = new TlsServerProtocol();
            var stream = new NbdPskStream(plain, protocol);
            await stream.HandshakeAsync(() => protocol.Accept(new Peer(this)), cancellationToken).ConfigureAwait(false);
            return stream;
        }

        public byte[]? GetHint() => null;

        /// <summary>Of a name that nobody has, a key that nobody has: so names cannot be found out.</summary>
        public byte[] GetPsk(byte[] identity)
            => keys.GetValueOrDefault(Encoding.UTF8.GetString(identity)) is { } key ? [.. key] : RandomNumberGenerator.GetBytes(32);

        private sealed class Peer(TlsPskIdentityManager identities) : PskTlsServer(Crypto(), identities)
        {
            protected override ProtocolVersion[] GetSupportedVersions() => ProtocolVersion.TLSv12.Only();
        }
    }
}
