namespace DiskImage.Crypto;

/// <summary>A block cipher with a key: whole blocks, each by itself. Any number of threads may use it at once.</summary>
internal interface IBlockCipher : IDisposable
{
    /// <summary>Bytes of a block.</summary>
    int BlockSize { get; }

    /// <summary>Encrypts whole blocks. Input and output may be the same.</summary>
    void Encrypt(ReadOnlySpan<byte> input, Span<byte> output);

    /// <summary>Decrypts whole blocks. Input and output may be the same.</summary>
    void Decrypt(ReadOnlySpan<byte> input, Span<byte> output);
}
