using System.Security.Cryptography;

namespace DiskImage.Crypto;

/// <summary>AES of the platform, which has the processor do it. A request costs about a microsecond, so requests are long.</summary>
internal sealed class PlatformAes : IBlockCipher
{
    private readonly Aes _aes = Aes.Create();

    /// <summary>With a key of 16, 24 or 32 bytes.</summary>
    public PlatformAes(ReadOnlySpan<byte> key) => _aes.SetKey(key);

    public int BlockSize => 16;

    public void Encrypt(ReadOnlySpan<byte> input, Span<byte> output) => _ = _aes.EncryptEcb(input, output, PaddingMode.None);

    public void Decrypt(ReadOnlySpan<byte> input, Span<byte> output) => _ = _aes.DecryptEcb(input, output, PaddingMode.None);

    public void Dispose() => _aes.Dispose();
}
