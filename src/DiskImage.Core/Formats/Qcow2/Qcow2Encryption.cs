using System.Security;
using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Crypto;
using DiskImage.Crypto.Luks;

namespace DiskImage.Formats.Qcow2;

/// <summary>The encryption of an image's data. Spec: qcow2, "crypt_method", "Full disk encryption header pointer".</summary>
/// <remarks>
/// Method 2 has a LUKS header inside the image, and sectors are encrypted by the place they have in their file. Method 1 is QEMU's old
/// one: AES with the passphrase itself as the key, by the offset that the disk shows, and nothing by which a wrong secret shows.
/// </remarks>
internal sealed class Qcow2Encryption : IDisposable
{
    public const uint AesMethod = 1, LuksMethod = 2;

    /// <summary>Bytes of the header extension: where the LUKS header is, and its length.</summary>
    public const int ExtensionBytes = 16;

    private const long MostHeaderBytes = 64 << 20; // ours

    private bool _isLent;

    private Qcow2Encryption(ISectorCipher cipher, LuksVolume? volume, IReadOnlyDictionary<string, SecureString> secrets)
        => (Cipher, Volume, Given) = (cipher, volume, secrets);

    /// <summary>Between the disk and its places.</summary>
    public ISectorCipher Cipher { get; }

    /// <summary>The LUKS header; null for the old method.</summary>
    public LuksVolume? Volume { get; }

    /// <summary>The secrets that the user gave, by name.</summary>
    public IReadOnlyDictionary<string, SecureString> Given { get; }

    /// <summary>The part of the file that holds the LUKS header; null if there is none.</summary>
    public static (long Offset, long Length)? PlaceOf(Qcow2Header header)
        => header.CryptMethod == LuksMethod && header.Extension(Qcow2Extension.Encryption) is { Length: >= ExtensionBytes } pointer
            && BigEndian.U64(pointer, 0) is var offset && BigEndian.U64(pointer, 8) is var length
            && offset <= long.MaxValue && length <= MostHeaderBytes
            ? ((long)offset, (long)length)
            : null;

    /// <summary>The encryption of an image; null if it has none.</summary>
    /// <exception cref="DiskImageException">Unsupported, Corrupt, InvalidOption; WrongSecret.</exception>
    public static async ValueTask<Qcow2Encryption?> OpenAsync(
        BlockNode file,
        Qcow2Header header,
        Qcow2OpenOptions options,
        IReadOnlyDictionary<string, SecureString> secrets,
        CancellationToken cancellationToken)
    {
        string path = file.Name;
        Qcow2EncryptionFormat? found = header.CryptMethod switch
        {
            0 => null,
            AesMethod => Qcow2EncryptionFormat.Aes,
            LuksMethod => Qcow2EncryptionFormat.Luks,
            uint other => throw new DiskImageException(
                DiskImageErrorKind.Unsupported, $"{path}: is encrypted by the method {other}; known: 1 (aes), 2 (luks)", path, 32),
        };
        if (options.EncryptFormat is { } said && said != found)
        {
            string now = found is null ? "is not encrypted" : $"is encrypted with {found.ToString()!.ToLowerInvariant()}";
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"{path}: encrypt.format is {said.ToString().ToLowerInvariant()}, and the image {now}. Leave the option out.",
                path);
        }
        if (found is null)
        {
            return null;
        }
        if (header.Size % 512 != 0)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Corrupt, $"{path}: an encrypted disk of {header.Size:#,0} bytes; allowed: multiples of 512", path, 24);
        }
        using SecretBuffer? secret = Secrets.Find(secrets, options.Encrypt.KeySecret, path);
        if (found == Qcow2EncryptionFormat.Aes)
        {
            return new(secret is null ? new LockedCipher(path, 512, isByPlace: false) : LegacyAes.Make(secret), null, secrets);
        }
        (long offset, long length) = PlaceOf(header) ?? throw new DiskImageException(
            DiskImageErrorKind.Corrupt, $"{path}: is encrypted with luks, but no header extension says where its LUKS header is", path);
        if (offset % header.ClusterSize != 0 || offset > file.Length || length > file.Length - offset)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Corrupt,
                $"{path}: its LUKS header is said to be at {offset:#,0}, {length:#,0} bytes long; allowed: whole clusters inside the file "
                    + $"of {file.Length:#,0} bytes",
                path,
                offset);
        }
        LuksVolume volume = await LuksVolume.OpenAsync(
            new LuksArea(file, offset, length), options.Encrypt.Limits, cancellationToken)
            .ConfigureAwait(false);
        try
        {
            if (secret is not null)
            {
                await volume.UnlockAsync(secret, cancellationToken).ConfigureAwait(false);
            }
            return new(volume.MakeCipher(isByPlace: true), volume, secrets);
        }
        catch
        {
            volume.Dispose();
            throw;
        }
    }

    /// <summary>The same for a state of the disk that is closed before it: it clears nothing.</summary>
    public Qcow2Encryption Lend() => new(Cipher, Volume, Given) { _isLent = true };

    /// <inheritdoc/>
    public void Dispose()
    {
        if (!_isLent)
        {
            Cipher.Dispose();
            Volume?.Dispose();
        }
    }
}
