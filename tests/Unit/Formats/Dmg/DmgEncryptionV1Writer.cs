using System.Buffers.Binary;
using System.Diagnostics.CodeAnalysis;
using System.Security.Cryptography;
using System.Text;

namespace DiskImage.Tests.Formats.Dmg;

/// <summary>Makes encrypted images of version 1 with the platform's own functions, from the layout alone. No program at hand reads them.</summary>
internal static class DmgEncryptionV1Writer
{
    public const int HeaderBytes = 1276;

    private const int Block = 4096;

    [SuppressMessage("Security", "CA5350", Justification = "The format has it so.")]
    public static byte[] Encrypt(byte[] plain, string passphrase, int iterations)
    {
        int at = (plain.Length + Block - 1) / Block * Block;
        byte[] aesKey = RandomNumberGenerator.GetBytes(16), hmacKey = RandomNumberGenerator.GetBytes(20);
        byte[] salt = RandomNumberGenerator.GetBytes(20), image = new byte[at + HeaderBytes];
        byte[] wrap = Rfc2898DeriveBytes.Pbkdf2(Encoding.UTF8.GetBytes(passphrase), salt, iterations, HashAlgorithmName.SHA1, 24);
        byte[] wrappedAes = Wrap(wrap, aesKey), wrappedHmac = Wrap(wrap, hmacKey);
        foreach ((int field, uint value) in new (int, uint)[]
        {
            (16, Block), (40, 103), (48, (uint)iterations), (52, (uint)salt.Length), (136, (uint)wrappedAes.Length),
            (436, (uint)wrappedHmac.Length), (1260, (uint)plain.Length),
        })
        {
            BinaryPrimitives.WriteUInt32BigEndian(image.AsSpan(at + field), value);
        }
        salt.CopyTo(image, at + 56);
        wrappedAes.CopyTo(image, at + 140);
        wrappedHmac.CopyTo(image, at + 440);
        "cdsaencr"u8.CopyTo(image.AsSpan(at + HeaderBytes - 8));
        using var aes = Aes.Create();
        aes.Key = aesKey;
        byte[] number = new byte[4], padded = new byte[Block];
        for (int i = 0, from = 0; from < plain.Length; i++, from += Block)
        {
            BinaryPrimitives.WriteInt32BigEndian(number, i);
            Array.Clear(padded);
            plain.AsSpan(from, Math.Min(Block, plain.Length - from)).CopyTo(padded);
            _ = aes.EncryptCbc(padded, HMACSHA1.HashData(hmacKey, number).AsSpan(0, 16), image.AsSpan(from), PaddingMode.None);
        }
        return image;
    }

    /// <summary>The key with four bytes before it, under 3DES; that with its vector before it, turned round, once more.</summary>
    [SuppressMessage("Security", "CA5350", Justification = "The format has it so.")]
    private static byte[] Wrap(byte[] wrap, byte[] key)
    {
        using var des = TripleDES.Create();
        des.Key = wrap;
        byte[] iv = RandomNumberGenerator.GetBytes(8);
        byte[] turned = [.. iv, .. des.EncryptCbc((byte[])[0, 0, 0, 0, .. key], iv)];
        Array.Reverse(turned);
        return des.EncryptCbc(turned, (byte[])[0x4A, 0xDD, 0xA2, 0x2C, 0x79, 0xE8, 0x21, 0x05]);
    }
}
