using System.Diagnostics.CodeAnalysis;
using System.Security.Cryptography;
using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Crypto;
using DiskImage.Drivers;

namespace DiskImage.Formats.Dmg;

/// <summary>
/// The container of version 1, whose header is at the end of the file: the image from byte 0 in blocks of 4 KiB under AES-128. Layout: see
/// SPEC.md ("Encrypted images"). All numbers are big-endian.
/// </summary>
internal static class DmgEncryptionV1
{
    private const int HeaderBytes = 1276;
    private const int KdfAt = 40, IterationsAt = 48, SaltBytesAt = 52, SaltAt = 56, LengthAt = 1256;
    private const int DataKeyAt = 136, VectorKeyAt = 436, MostSalt = 32, MostWrapped = 256; // each key behind its length
    private const int Block = 4096, DataKeyBytes = 16, VectorKeyBytes = 20, WrapBytes = 24;
    private const int DesBlock = 8, LabelBytes = 4; // before a key stand four bytes of its own
    private const uint Pbkdf2 = 103;

    /// <summary>The first vector of wrapped keys. RFC 2630, 12.6.</summary>
    private static readonly byte[] s_wrapIv = [0x4A, 0xDD, 0xA2, 0x2C, 0x79, 0xE8, 0x21, 0x05];

    /// <summary>True if the last bytes of a file are those of a header.</summary>
    public static bool IsSigned(ReadOnlySpan<byte> tail) => tail.EndsWith("cdsaencr"u8);

    /// <summary>The image in its container; null if the file does not end with such a header.</summary>
    /// <exception cref="DiskImageException">SecretRequired, WrongSecret, Corrupt, Unsupported, OutOfRange.</exception>
    public static async ValueTask<BlockNode?> TryOpenAsync(FormatOpenContext context, CancellationToken cancellationToken)
    {
        BlockNode file = context.File;
        long at = file.Length - HeaderBytes;
        byte[] header = new byte[HeaderBytes];
        if (at < 0)
        {
            return null;
        }
        await file.ReadAsync(at, header, cancellationToken).ConfigureAwait(false);
        if (!IsSigned(header))
        {
            return null;
        }
        uint kdf = BigEndian.U32(header, KdfAt), iterations = BigEndian.U32(header, IterationsAt);
        uint saltBytes = BigEndian.U32(header, SaltBytesAt);
        ulong length = BigEndian.U64(header, LengthAt);
        if (kdf != Pbkdf2)
        {
            throw Wrong(DiskImageErrorKind.Unsupported, $"a key by the method {kdf}; known: {Pbkdf2}", KdfAt);
        }
        if (saltBytes > MostSalt || iterations is 0 or > int.MaxValue)
        {
            throw Wrong(
                DiskImageErrorKind.Corrupt,
                $"a salt of {saltBytes:#,0} bytes and {iterations:#,0} iterations; allowed: up to {MostSalt}, and 1 to {int.MaxValue:#,0}",
                IterationsAt);
        }
        if (length > (ulong)(at / Block * Block))
        {
            throw Wrong(DiskImageErrorKind.Corrupt, $"data of {length:#,0} bytes; before the header are {at:#,0}", LengthAt);
        }
        foreach ((int place, int least) in new[] { (DataKeyAt, DataKeyBytes), (VectorKeyAt, VectorKeyBytes) })
        {
            uint wrapped = BigEndian.U32(header, place);
            if (wrapped > MostWrapped || wrapped % DesBlock != 0 || wrapped < DesBlock + LabelBytes + least)
            {
                throw Wrong(
                    DiskImageErrorKind.Corrupt, $"a wrapped key of {wrapped:#,0} bytes; allowed: {least + 12} to {MostWrapped}", place);
            }
        }
        var options = (DmgOpenOptions)context.Options;
        new KeyLimits(options.MaxIterations, 0).Require(
            file.Name, "its key", Crypto.HashAlgorithm.Sha1, iterations, WrapBytes, at + IterationsAt);
        using SecretBuffer secret = Secrets.Find(context.Secrets, options.KeySecret, file.Name) ?? throw Secrets.Required(file.Name);
        using var wrap = new SecretBuffer(WrapBytes);
        Crypto.HashAlgorithm.Sha1.Pbkdf2(secret.Span, header.AsSpan(SaltAt, (int)saltBytes), (int)iterations, wrap.Span);
        using SecretBuffer dataKey = Unwrap(header, DataKeyAt, wrap, DataKeyBytes) ?? throw Secrets.Wrong(file.Name);
        SecretBuffer vectorKey = Unwrap(header, VectorKeyAt, wrap, VectorKeyBytes) ?? throw Secrets.Wrong(file.Name);
        return new DmgCipherNode(file, 0, (long)length, DmgEncryption.Cipher(dataKey.Span, vectorKey, Block));

        DiskImageException Wrong(DiskImageErrorKind kind, Wording what, int field)
            => new(kind, $"{file.Name}: encrypted image of version 1: {what}", file.Name, at + field);
    }

    /// <summary>
    /// A key that was wrapped twice, the second time from back to front; null if it is not this secret's. RFC 2630, 12.6, without its
    /// checksum.
    /// </summary>
    [SuppressMessage("Security", "CA5350", Justification = "The format has it so.")]
    private static SecretBuffer? Unwrap(byte[] header, int at, SecretBuffer wrap, int keyBytes)
    {
        int count = (int)BigEndian.U32(header, at);
        using var outer = new SecretBuffer(count);
        using var inner = new SecretBuffer(count);
        using var unwrap = TripleDES.Create();
        unwrap.SetKey(wrap.Span);
        try
        {
            int length = unwrap.DecryptCbc(header.AsSpan(at + 4, count), s_wrapIv, outer.Span, PaddingMode.PKCS7);
            Span<byte> turned = outer.Span[..length];
            turned.Reverse();
            if (length <= DesBlock || length % DesBlock != 0)
            {
                return null;
            }
            int key = unwrap.DecryptCbc(turned[DesBlock..], turned[..DesBlock], inner.Span, PaddingMode.PKCS7) - LabelBytes;
            return key == keyBytes ? SecretBuffer.Of(inner.Span.Slice(LabelBytes, keyBytes)) : null;
        }
        catch (CryptographicException)
        {
            return null; // the padding is not there: another secret
        }
    }
}
