using System.Diagnostics.CodeAnalysis;
using System.Security.Cryptography;
using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Crypto;
using DiskImage.Drivers;

namespace DiskImage.Formats.Dmg;

/// <summary>
/// The container that an encrypted image lies in: a header, keys under secrets, and the image in blocks under AES. Layout: see SPEC.md
/// ("Encrypted images"). All numbers are big-endian.
/// </summary>
internal static class DmgEncryption
{
    private const int HeaderBytes = 76, VersionAt = 8, KeyBitsAt = 24, BlockAt = 52, LengthAt = 56, DataAt = 64, KeysAt = 72;
    private const int PointerBytes = 20, MostKeys = 64; // ours
    private const int KeyFixedBytes = 104, MostWrapped = 512, MostSalt = 32, MostIv = 32, HmacBytes = 20;
    private const int SmallestBlock = 512, LargestBlock = 1 << 20; // ours
    private const uint Passphrase = 1, Pbkdf2 = 103, TripleDes = 17, Aes = 0x8000_0001;

    /// <summary>True if a file begins as an encrypted image of version 2 does.</summary>
    public static bool IsSigned(ReadOnlySpan<byte> header) => header.StartsWith("encrcdsa"u8);

    /// <summary>The image in its container; the file itself if it is in none. The caller closes the file if this fails.</summary>
    /// <exception cref="DiskImageException">SecretRequired, WrongSecret, Corrupt, Unsupported, OutOfRange.</exception>
    public static async ValueTask<BlockNode> OpenAsync(FormatOpenContext context, CancellationToken cancellationToken)
    {
        BlockNode file = context.File;
        byte[] header = new byte[HeaderBytes];
        await file.ReadPaddedAsync(0, header, cancellationToken).ConfigureAwait(false);
        if (!IsSigned(header))
        {
            return await DmgEncryptionV1.TryOpenAsync(context, cancellationToken).ConfigureAwait(false) ?? file;
        }
        uint version = BigEndian.U32(header, VersionAt), keyBits = BigEndian.U32(header, KeyBitsAt), block = BigEndian.U32(header, BlockAt);
        ulong length = BigEndian.U64(header, LengthAt), start = BigEndian.U64(header, DataAt);
        uint keys = BigEndian.U32(header, KeysAt);
        if (version != 2 || keyBits is not (128 or 256))
        {
            throw Wrong(
                DiskImageErrorKind.Unsupported, $"version {version} with keys of {keyBits} bits; known: version 2, 128 and 256", VersionAt);
        }
        if (block is < SmallestBlock or > LargestBlock || !uint.IsPow2(block))
        {
            throw Wrong(
                DiskImageErrorKind.Corrupt,
                $"blocks of {block:#,0} bytes; allowed: powers of two from {SmallestBlock} to {LargestBlock}",
                BlockAt);
        }
        if (start > (ulong)file.Length || length > (ulong)file.Length - start)
        {
            throw Wrong(
                DiskImageErrorKind.Corrupt, $"data of {length:#,0} bytes at {start:#,0}; the file has {file.Length:#,0}", LengthAt);
        }
        if (keys is 0 or > MostKeys)
        {
            throw Wrong(DiskImageErrorKind.Corrupt, $"{keys:#,0} keys; allowed: 1 to {MostKeys}", KeysAt);
        }
        var options = (DmgOpenOptions)context.Options;
        using SecretBuffer secret = Secrets.Find(context.Secrets, options.KeySecret, file.Name) ?? throw Secrets.Required(file.Name);
        byte[] pointers = new byte[keys * PointerBytes];
        await file.ReadPaddedAsync(HeaderBytes, pointers, cancellationToken).ConfigureAwait(false);
        bool hasPassphrase = false;
        for (int i = 0; i < keys; i++)
        {
            if (BigEndian.U32(pointers, i * PointerBytes) == Passphrase)
            {
                hasPassphrase = true;
                long at = (long)Math.Min(BigEndian.U64(pointers, (i * PointerBytes) + 4), long.MaxValue / 2);
                using SecretBuffer? key = await UnwrapAsync(
                    file, at, secret, (int)keyBits / 8, options.MaxIterations, cancellationToken).ConfigureAwait(false);
                if (key is not null)
                {
                    int size = (int)keyBits / 8;
                    ISectorCipher cipher = Cipher(
                        key.Span[..size], SecretBuffer.Of(key.Span.Slice(size, HmacBytes)), (int)block);
                    return new DmgCipherNode(file, (long)start, (long)length, cipher);
                }
            }
        }
        throw hasPassphrase
            ? Secrets.Wrong(file.Name)
            : Wrong(DiskImageErrorKind.Unsupported, $"none of its {keys} keys is under a passphrase", KeysAt);

        DiskImageException Wrong(DiskImageErrorKind kind, Wording what, long offset)
            => new(kind, $"{file.Name}: encrypted image: {what}", file.Name, offset);
    }

    /// <summary>The cipher of the data, of both versions.</summary>
    /// <param name="key">Its key, which is copied.</param>
    /// <param name="vectorKey">The key of the vectors, which the cipher takes over.</param>
    /// <param name="block">Bytes of a block.</param>
    public static ISectorCipher Cipher(ReadOnlySpan<byte> key, SecretBuffer vectorKey, int block) => new SectorCipher(
        Crypto.CipherMode.Cbc,
        Ciphers.Find("aes", key.Length)!.Value.Make(key),
        tweak: null,
        new HmacIv(vectorKey, block / SmallestBlock),
        block,
        isByPlace: false,
        first: 0);

    /// <summary>The data's key and that of the vectors, one behind the other; null if it is not this secret's.</summary>
    [SuppressMessage("Security", "CA5350", Justification = "The format has it so.")]
    private static async ValueTask<SecretBuffer?> UnwrapAsync(
        BlockNode file, long at, SecretBuffer secret, int keyBytes, long maxIterations, CancellationToken cancellationToken)
    {
        byte[] blob = new byte[KeyFixedBytes + MostWrapped];
        if (at > file.Length - KeyFixedBytes)
        {
            throw Wrong(DiskImageErrorKind.Corrupt, $"a key is said to be at {at:#,0}; the file has {file.Length:#,0} bytes");
        }
        await file.ReadPaddedAsync(at, blob, cancellationToken).ConfigureAwait(false);
        uint kdf = BigEndian.U32(blob, 0), iterations = BigEndian.U32(blob, 8), saltBytes = BigEndian.U32(blob, 12);
        uint ivBytes = BigEndian.U32(blob, 48), wrapBits = BigEndian.U32(blob, 84), algorithm = BigEndian.U32(blob, 88);
        uint wrappedBytes = BigEndian.U32(blob, 100);
        int blockBytes = algorithm == Aes ? 16 : 8;
        if (kdf != Pbkdf2 || algorithm is not (Aes or TripleDes) || wrapBits is not (128 or 192 or 256)
            || (algorithm == TripleDes && wrapBits != 192))
        {
            throw Wrong(
                DiskImageErrorKind.Unsupported,
                $"a key by the methods {kdf} and {algorithm} with {wrapBits} bits; known: {Pbkdf2} with {TripleDes} and {Aes}");
        }
        if (saltBytes > MostSalt || ivBytes > MostIv || ivBytes < blockBytes || wrappedBytes > MostWrapped || wrappedBytes % blockBytes != 0
            || wrappedBytes < keyBytes + HmacBytes || iterations is 0 or > int.MaxValue)
        {
            throw Wrong(
                DiskImageErrorKind.Corrupt,
                $"a key with a salt of {saltBytes:#,0}, a vector of {ivBytes:#,0} and {wrappedBytes:#,0} bytes, after {iterations:#,0} "
                    + "iterations");
        }
        new KeyLimits(maxIterations, 0).Require(file.Name, "its key", Crypto.HashAlgorithm.Sha1, iterations, (int)wrapBits / 8, at);
        using var wrap = new SecretBuffer((int)wrapBits / 8);
        Crypto.HashAlgorithm.Sha1.Pbkdf2(secret.Span, blob.AsSpan(16, (int)saltBytes), (int)iterations, wrap.Span);
        using SymmetricAlgorithm unwrap = algorithm == Aes ? System.Security.Cryptography.Aes.Create() : TripleDES.Create();
        var plain = new SecretBuffer((int)wrappedBytes);
        try
        {
            unwrap.SetKey(wrap.Span);
            int count = unwrap.DecryptCbc(
                blob.AsSpan(KeyFixedBytes, (int)wrappedBytes), blob.AsSpan(52, blockBytes), plain.Span, PaddingMode.PKCS7);
            if (count >= keyBytes + HmacBytes)
            {
                return plain;
            }
        }
        catch (CryptographicException)
        {
            // the padding is not there: another secret
        }
        plain.Dispose();
        return null;

        DiskImageException Wrong(DiskImageErrorKind kind, Wording what)
            => new(kind, $"{file.Name}: encrypted image: {what}", file.Name, at);
    }
}
