using System.Buffers.Binary;
using System.Diagnostics.CodeAnalysis;
using System.Security.Cryptography;
using System.Text;
using DiskImage.Block;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.Formats.Dmg;

/// <summary>Encrypted disk images, made here with the platform's own functions from the layout alone.</summary>
public sealed class DmgEncryptionTests : IDisposable
{
    private const string Passphrase = "letmein";

    private readonly TestFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Theory]
    [InlineData(128, 4096, false)]
    [InlineData(256, 4096, true)]
    [InlineData(128, 512, true)]
    [InlineData(256, 512, false)]
    public async Task An_encrypted_image_reads_as_the_image_in_it(int keyBits, int block, bool wrapsByAes)
    {
        byte[] contents = Contents(), plain = DmgTests.Mixed(contents).Make();
        await File.WriteAllBytesAsync(_folder["a.dmg"], Encrypt(plain, keyBits, block, wrapsByAes, iterations: 1000));
        Images.UseSecret(Passphrase);
        await using (BlockNode disk = await Images.OpenAsync(_folder["a.dmg"]))
        {
            ImageDescription described = disk.As<IDescribed>()!.Describe();
            Assert.Equal(("dmg", true), (described.Format, described.Encrypted));
            byte[] read = new byte[disk.Length];
            await disk.ReadAsync(0, read);
            Assert.Equal(contents, read);
            for (long at = 0; at < disk.Length;)
            {
                BlockExtent extent = await disk.GetExtentAsync(at, disk.Length - at);
                Assert.Null(extent.HostOffset);
                at = extent.End;
            }
        }
        Images.UseSecret("wrong");
        Assert.Equal(
            DiskImageErrorKind.WrongSecret, (await Assert.ThrowsAsync<DiskImageException>(() => Images.OpenAsync(_folder["a.dmg"]))).Kind);
        Images.Secrets.Value = null;
        Assert.Equal(
            DiskImageErrorKind.SecretRequired, (await Assert.ThrowsAsync<DiskImageException>(() => Images.OpenAsync(_folder["a.dmg"]))).Kind);
    }

    [Theory]
    [InlineData(8, 1u, DiskImageErrorKind.Unsupported)] // version
    [InlineData(24, 192u, DiskImageErrorKind.Unsupported)] // bits of the key
    [InlineData(52, 0u, DiskImageErrorKind.Corrupt)] // bytes of a block
    [InlineData(52, 1u << 31, DiskImageErrorKind.Corrupt)]
    [InlineData(56, uint.MaxValue, DiskImageErrorKind.Corrupt)] // length
    [InlineData(64, 1u, DiskImageErrorKind.Corrupt)] // offset, its upper half
    [InlineData(72, 0u, DiskImageErrorKind.Corrupt)] // keys
    [InlineData(72, uint.MaxValue, DiskImageErrorKind.Corrupt)]
    [InlineData(76, 2u, DiskImageErrorKind.Unsupported)] // kind of the key
    [InlineData(80, uint.MaxValue, DiskImageErrorKind.Corrupt)] // place of the key
    [InlineData(128, 7u, DiskImageErrorKind.Unsupported)] // its derivation
    [InlineData(136, 0u, DiskImageErrorKind.Corrupt)] // iterations
    [InlineData(136, 2_000_000_000u, DiskImageErrorKind.OutOfRange)]
    [InlineData(140, 33u, DiskImageErrorKind.Corrupt)] // bytes of its salt
    [InlineData(176, 1u, DiskImageErrorKind.Corrupt)] // bytes of its vector
    [InlineData(228, 100_000u, DiskImageErrorKind.Corrupt)] // bytes of the wrapped key
    public async Task A_number_out_of_bounds_is_refused(int at, uint value, DiskImageErrorKind kind)
    {
        byte[] image = Encrypt(DmgTests.Mixed(new byte[51200]).Make(), 128, 512, wrapsByAes: false, iterations: 1000);
        BinaryPrimitives.WriteUInt32BigEndian(image.AsSpan(at), value);
        await File.WriteAllBytesAsync(_folder["a.dmg"], image);
        Images.UseSecret(Passphrase);
        Assert.Equal(kind, (await Assert.ThrowsAsync<DiskImageException>(() => Images.OpenAsync(_folder["a.dmg"]))).Kind);
    }

    [Theory]
    [InlineData(1000)]
    [InlineData(250_000)]
    public async Task An_image_of_version_1_reads_as_the_image_in_it(int iterations)
    {
        byte[] contents = Contents();
        byte[] image = DmgEncryptionV1Writer.Encrypt(DmgTests.Mixed(contents).Make(), Passphrase, iterations);
        await File.WriteAllBytesAsync(_folder["a.img"], image); // what it is shows without its name
        Images.UseSecret(Passphrase);
        await using (BlockNode disk = await Images.OpenAsync(_folder["a.img"]))
        {
            ImageDescription described = disk.As<IDescribed>()!.Describe();
            Assert.Equal(("dmg", true), (described.Format, described.Encrypted));
            byte[] read = new byte[disk.Length];
            await disk.ReadAsync(0, read);
            Assert.Equal(contents, read);
        }
        Images.UseSecret("wrong");
        Assert.Equal(
            DiskImageErrorKind.WrongSecret, (await Assert.ThrowsAsync<DiskImageException>(() => Images.OpenAsync(_folder["a.img"]))).Kind);
        Images.Secrets.Value = null;
        Assert.Equal(
            DiskImageErrorKind.SecretRequired, (await Assert.ThrowsAsync<DiskImageException>(() => Images.OpenAsync(_folder["a.img"]))).Kind);
    }

    [Theory]
    [InlineData(40, 7u, DiskImageErrorKind.Unsupported)] // derivation
    [InlineData(48, 0u, DiskImageErrorKind.Corrupt)] // iterations
    [InlineData(48, uint.MaxValue, DiskImageErrorKind.Corrupt)]
    [InlineData(48, 2_000_000_000u, DiskImageErrorKind.OutOfRange)]
    [InlineData(52, 33u, DiskImageErrorKind.Corrupt)] // bytes of the salt
    [InlineData(136, 0u, DiskImageErrorKind.Corrupt)] // bytes of the wrapped keys
    [InlineData(136, 264u, DiskImageErrorKind.Corrupt)]
    [InlineData(136, uint.MaxValue, DiskImageErrorKind.Corrupt)]
    [InlineData(136, 48u, DiskImageErrorKind.WrongSecret)]
    [InlineData(436, 41u, DiskImageErrorKind.Corrupt)]
    [InlineData(436, 40u, DiskImageErrorKind.WrongSecret)]
    [InlineData(1256, uint.MaxValue, DiskImageErrorKind.Corrupt)] // length
    [InlineData(1260, uint.MaxValue, DiskImageErrorKind.Corrupt)]
    public async Task A_number_of_version_1_out_of_bounds_is_refused(int at, uint value, DiskImageErrorKind kind)
    {
        byte[] image = DmgEncryptionV1Writer.Encrypt(DmgTests.Mixed(new byte[51200]).Make(), Passphrase, iterations: 1000);
        BinaryPrimitives.WriteUInt32BigEndian(image.AsSpan(image.Length - DmgEncryptionV1Writer.HeaderBytes + at), value);
        await File.WriteAllBytesAsync(_folder["a.dmg"], image);
        Images.UseSecret(Passphrase);
        Assert.Equal(kind, (await Assert.ThrowsAsync<DiskImageException>(() => Images.OpenAsync(_folder["a.dmg"]))).Kind);
    }

    /// <summary>
    /// It takes the one key to be at 680, and knows AES-128 wrapped by 3DES only. With the keys given it decrypts all; with the passphrase
    /// all but the first 16 bytes of each block, since it takes the key of the vectors from where that of the data stands.
    /// </summary>
    [OracleTheory("vfdecrypt")]
    [InlineData(false)]
    [InlineData(true)]
    public async Task What_the_tests_encrypt_vfdecrypt_decrypts(bool byPassphrase)
    {
        const int Block = 4096, Skipped = 16;
        byte[] plain = DmgTests.Mixed(Contents()).Make(), keys = RandomNumberGenerator.GetBytes(36);
        byte[] image = Encrypt(plain, 128, Block, wrapsByAes: false, iterations: 1000, keyAt: 680, keys);
        await File.WriteAllBytesAsync(_folder["a.dmg"], image);
        string[] secret = byPassphrase ? ["-p", Passphrase] : ["-k", Convert.ToHexString(keys)];
        _ = await Programs.RunAsync("vfdecrypt", [.. secret, "-i", _folder["a.dmg"], "-o", _folder["theirs.dmg"]]);
        byte[] theirs = await File.ReadAllBytesAsync(_folder["theirs.dmg"]);
        Assert.Equal(plain.Length, theirs.Length);
        for (int at = 0; byPassphrase && at < plain.Length; at += Block)
        {
            plain.AsSpan(at, Math.Min(Skipped, plain.Length - at)).CopyTo(theirs.AsSpan(at));
        }
        Assert.Equal(plain, theirs);
    }

    private static byte[] Contents()
    {
        byte[] contents = new byte[700 * 512];
        new Random(5).NextBytes(contents.AsSpan(0, 200_000));
        return contents;
    }

    [SuppressMessage("Security", "CA5350", Justification = "The format has it so.")]
    private static byte[] Encrypt(
        byte[] plain, int keyBits, int block, bool wrapsByAes, int iterations, int keyAt = 128, byte[]? keys = null)
    {
        const int Data = 8192;
        byte[] both = keys ?? RandomNumberGenerator.GetBytes((keyBits / 8) + 20), salt = RandomNumberGenerator.GetBytes(20);
        byte[] aesKey = both[..(keyBits / 8)], hmacKey = both[(keyBits / 8)..];
        using SymmetricAlgorithm wrap = wrapsByAes ? Aes.Create() : TripleDES.Create();
        int wrapBits = wrapsByAes ? 256 : 192;
        wrap.Key = Rfc2898DeriveBytes.Pbkdf2(
            Encoding.UTF8.GetBytes(Passphrase), salt, iterations, HashAlgorithmName.SHA1, wrapBits / 8);
        byte[] iv = RandomNumberGenerator.GetBytes(wrap.BlockSize / 8);
        byte[] wrapped = wrap.EncryptCbc((byte[])[.. aesKey, .. hmacKey, .. "CKIE"u8], iv);
        byte[] image = new byte[Data + ((plain.Length + block - 1) / block * block)];
        "encrcdsa"u8.CopyTo(image);
        foreach ((int at, uint value) in new (int, uint)[]
        {
            (8, 2), (12, 16), (16, 5), (20, 0x80000001), (24, (uint)keyBits), (28, 91), (32, 160), (52, (uint)block),
            (60, (uint)plain.Length), (68, Data), (72, 1), (76, 1), (84, (uint)keyAt), (92, 616),
            (keyAt, 103), (keyAt + 8, (uint)iterations), (keyAt + 12, 20), (keyAt + 48, (uint)iv.Length), (keyAt + 84, (uint)wrapBits),
            (keyAt + 88, wrapsByAes ? 0x80000001 : 17), (keyAt + 92, 7), (keyAt + 96, 6), (keyAt + 100, (uint)wrapped.Length),
        })
        {
            BinaryPrimitives.WriteUInt32BigEndian(image.AsSpan(at), value);
        }
        salt.CopyTo(image, keyAt + 16);
        iv.CopyTo(image, keyAt + 52);
        wrapped.CopyTo(image, keyAt + 104);
        using var aes = Aes.Create();
        aes.Key = aesKey;
        byte[] number = new byte[4], padded = new byte[block];
        for (int i = 0, at = 0; at < plain.Length; i++, at += block)
        {
            BinaryPrimitives.WriteInt32BigEndian(number, i);
            byte[] vector = HMACSHA1.HashData(hmacKey, number)[..16];
            Array.Clear(padded);
            plain.AsSpan(at, Math.Min(block, plain.Length - at)).CopyTo(padded);
            aes.EncryptCbc(padded, vector, image.AsSpan(Data + at), PaddingMode.None);
        }
        return image;
    }
}
