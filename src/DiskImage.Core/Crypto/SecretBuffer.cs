using System.Runtime.InteropServices;
using System.Security;
using System.Security.Cryptography;
using System.Text;

namespace DiskImage.Crypto;

/// <summary>Secret bytes: in memory that is never moved, so never copied, and cleared in the end. It shows nothing as text.</summary>
internal sealed class SecretBuffer : IDisposable
{
    private readonly byte[] _bytes;

    /// <summary>Zeroes, to be filled.</summary>
    public SecretBuffer(int length) => _bytes = GC.AllocateArray<byte>(length, pinned: true);

    /// <summary>Bytes.</summary>
    public int Length => _bytes.Length;

    /// <summary>The bytes.</summary>
    public Span<byte> Span => _bytes;

    /// <summary>The bytes, for what cannot take a span.</summary>
    public Memory<byte> Memory => _bytes;

    /// <summary>A copy of bytes, which stay the caller's to clear.</summary>
    public static SecretBuffer Of(ReadOnlySpan<byte> bytes)
    {
        var secret = new SecretBuffer(bytes.Length);
        bytes.CopyTo(secret._bytes);
        return secret;
    }

    /// <summary>Random bytes of the system.</summary>
    public static SecretBuffer Random(int length)
    {
        var secret = new SecretBuffer(length);
        RandomNumberGenerator.Fill(secret._bytes);
        return secret;
    }

    /// <summary>A passphrase as the programs that use it have it: in UTF-8.</summary>
    public static unsafe SecretBuffer OfText(SecureString text)
    {
        IntPtr plain = Marshal.SecureStringToGlobalAllocUnicode(text);
        try
        {
            var characters = new ReadOnlySpan<char>((char*)plain, text.Length);
            var secret = new SecretBuffer(Encoding.UTF8.GetByteCount(characters));
            _ = Encoding.UTF8.GetBytes(characters, secret._bytes);
            return secret;
        }
        finally
        {
            Marshal.ZeroFreeGlobalAllocUnicode(plain);
        }
    }

    /// <inheritdoc/>
    public void Dispose() => CryptographicOperations.ZeroMemory(_bytes);

    /// <inheritdoc/>
    public override string ToString() => "(secret)";
}
