using DiskImage.Block;

namespace DiskImage.Crypto;

/// <summary>How sectors are encrypted: cipher, mode, first vectors. As text it is what Linux calls it: <c>aes-xts-plain64</c>.</summary>
/// <param name="Algorithm">The block cipher.</param>
/// <param name="Mode">The mode.</param>
/// <param name="Iv">What makes first vectors; null where nothing is said (ECB has none).</param>
/// <param name="IvHash">The hash of <see cref="IvGeneration.Essiv"/>.</param>
internal sealed record CipherSpec(CipherAlgorithm Algorithm, CipherMode Mode, IvGeneration? Iv, HashAlgorithm? IvHash)
{
    private const int XtsBlock = 16; // IEEE 1619

    /// <summary>Bytes of the key, both halves where there are two.</summary>
    public int KeyLength => Algorithm.KeyLength() * (Mode == CipherMode.Xts ? 2 : 1);

    /// <summary>The mode with its first vectors, as headers of LUKS have it: <c>cbc-essiv:sha256</c>.</summary>
    public string ModeText
        => $"{Lower(Mode)}{(Iv is null ? "" : $"-{Lower(Iv)}")}{(IvHash is { } hash ? $":{hash.Text()}" : "")}";

    /// <summary>What is wrong with it: such a cipher cannot be made; null if nothing is.</summary>
    public string? Objection
        => Mode == CipherMode.Xts && Algorithm.BlockLength() != XtsBlock
            ? $"xts needs blocks of {XtsBlock} bytes, and {Algorithm.Family()} has {Algorithm.BlockLength()}"
            : Mode == CipherMode.Ecb ? null // whatever is said of vectors: there are none
            : Iv is null ? $"{Lower(Mode)} needs an IV generator: plain, plain64 or essiv"
            : Iv != IvGeneration.Essiv ? null
            : IvHash is not { } hash ? "essiv needs a hash"
            : Essiv(hash) is null
                ? $"essiv needs a cipher {Algorithm.Family()} with a key as long as its hash, and {hash.Text()} has {hash.Length()} bytes"
            : null;

    /// <summary>A specification from the names in a header; null, with what it says, if there is none such here.</summary>
    /// <param name="family">The cipher's name.</param>
    /// <param name="mode">Mode and first vectors.</param>
    /// <param name="keyLength">Bytes of the key.</param>
    /// <param name="objection">What is not known or does not fit.</param>
    public static CipherSpec? Parse(string family, string mode, int keyLength, out string objection)
    {
        string[] parts = mode.Split('-', 2);
        string[] iv = parts.Length == 2 ? parts[1].Split(':', 2) : [];
        objection = "";
        if (!Enum.TryParse(parts[0], ignoreCase: true, out CipherMode known) || !Lower(known).Equals(parts[0], StringComparison.Ordinal))
        {
            objection = $"the mode '{parts[0]}'; known: ecb, cbc, xts, ctr";
            return null;
        }
        IvGeneration? generation = iv.Length == 0 ? null : Enum.GetValues<IvGeneration>().Cast<IvGeneration?>()
            .FirstOrDefault(g => Lower(g).Equals(iv[0], StringComparison.Ordinal));
        if (iv.Length > 0 && generation is null)
        {
            objection = $"the IV generator '{iv[0]}'; known: plain, plain64, essiv";
            return null;
        }
        HashAlgorithm? hash = iv.Length == 2 ? Hashes.Find(iv[1]) : null;
        if (iv.Length == 2 && hash is null)
        {
            objection = $"the IV hash '{iv[1]}'; known: {string.Join(", ", Enum.GetValues<HashAlgorithm>().Select(h => h.Text()))}";
            return null;
        }
        bool isTwice = known == CipherMode.Xts;
        if (Ciphers.Find(family, isTwice ? keyLength / 2 : keyLength) is not { } algorithm || (isTwice && keyLength % 2 != 0))
        {
            objection = $"the cipher '{family}' with a key of {keyLength} bytes; known: aes, serpent and twofish of 128, 192 and 256 bits, "
                + "cast5 and sm4 of 128, twice that for xts";
            return null;
        }
        // a hash belongs to essiv alone
        var spec = new CipherSpec(algorithm, known, generation, generation == IvGeneration.Essiv ? hash : null);
        objection = spec.Objection ?? "";
        return objection.Length == 0 ? spec : null;
    }

    /// <summary>The cipher with a key, which is copied.</summary>
    /// <param name="key">Of <see cref="KeyLength"/> bytes.</param>
    /// <param name="sectorSize">Bytes of a sector.</param>
    /// <param name="isByPlace">See <see cref="ISectorCipher.IsByPlace"/>.</param>
    /// <param name="first">The number of the sector at offset 0, in units of 512 bytes.</param>
    public ISectorCipher Make(ReadOnlySpan<byte> key, int sectorSize = 512, bool isByPlace = false, long first = 0)
    {
        int length = Algorithm.KeyLength();
        return new SectorCipher(
            Mode,
            Algorithm.Make(key[..length]),
            Mode == CipherMode.Xts ? Algorithm.Make(key[length..]) : null,
            Iv is { } iv && Mode != CipherMode.Ecb
                ? new NumberIv(iv == IvGeneration.Plain, iv == IvGeneration.Essiv ? Salted(key) : null)
                : null,
            sectorSize,
            isByPlace,
            first);
    }

    /// <inheritdoc/>
    public override string ToString() => $"{Algorithm.Family()}-{ModeText}";

    private IBlockCipher Salted(ReadOnlySpan<byte> key)
    {
        HashAlgorithm hash = IvHash!.Value;
        using var salt = new SecretBuffer(hash.Length());
        hash.Hash(key, default, salt.Span);
        return Essiv(hash)!.Value.Make(salt.Span);
    }

    private CipherAlgorithm? Essiv(HashAlgorithm hash)
        => Algorithm.BlockLength() == XtsBlock ? Ciphers.Find(Algorithm.Family(), hash.Length()) : null;

    private static string Lower<T>(T value) => value!.ToString()!.ToLowerInvariant();
}
