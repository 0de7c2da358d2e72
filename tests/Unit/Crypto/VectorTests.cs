using DiskImage.Block;
using DiskImage.Crypto;

namespace DiskImage.Tests.Crypto;

/// <summary>Ciphers, hashes and key derivations against what their standards publish, or another program computed.</summary>
public sealed class VectorTests
{
    /// <summary>IEEE 1619-2007, annex B: vectors 1, 2 (of one 32-byte unit) and the beginning of 10 (512 bytes, 256-bit keys).</summary>
    [Theory]
    [InlineData(
        "0000000000000000000000000000000000000000000000000000000000000000",
        0L,
        "0000000000000000000000000000000000000000000000000000000000000000",
        "917cf69ebd68b2ec9b9fe9a3eadda692cd43d2f59598ed858c02c2652fbf922e")]
    [InlineData(
        "1111111111111111111111111111111122222222222222222222222222222222",
        0x3333333333L,
        "4444444444444444444444444444444444444444444444444444444444444444",
        "c454185e6a16936e39334038acef838bfb186fff7480adc4289382ecd6d394f0")]
    [InlineData(
        "27182818284590452353602874713526624977572470936999595749669676273141592653589793238462643383279502884197169399375105820974944592",
        0xffL,
        null,
        "1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b5d31e276f8fe4a8d66b317f9ac683f44680a86ac35adfc3345befecb4bb188fd")]
    public void Xts_is_as_IEEE_1619_has_it(string key, long sector, string? plain, string expected)
    {
        byte[] data = plain is null ? [.. Enumerable.Range(0, 512).Select(i => (byte)i)] : Convert.FromHexString(plain);
        byte[] before = (byte[])data.Clone();
        byte[] bytes = Convert.FromHexString(key);
        CipherAlgorithm algorithm = bytes.Length == 32 ? CipherAlgorithm.Aes128 : CipherAlgorithm.Aes256;
        using ISectorCipher cipher = new CipherSpec(algorithm, CipherMode.Xts, IvGeneration.Plain64, null)
            .Make(bytes, data.Length, first: sector);
        cipher.Encrypt(data, 0);
        Assert.StartsWith(expected, Convert.ToHexStringLower(data), StringComparison.Ordinal);
        cipher.Decrypt(data, 0);
        Assert.Equal(before, data);
    }

    /// <summary>RFC 6070 for SHA-1; the others as Python's hashlib has them.</summary>
    [Theory]
    [InlineData("Sha1", "salt", 4096, "4b007901b765489abead49d926f721d065a429c1")]
    [InlineData("Md5", "saltSALTsaltSALT", 500, "103284af09cfc8b34fcb1f64b77563ab069795f36c97a5159712ae14727196a4e66e0435caa8fe902f3006040f515aa1")]
    [InlineData("Sha224", "saltSALTsaltSALT", 500, "622f1bb5d238605eee7290c230d3c2dde1089c82327aed520b7cdc2461e5118e2570af8966de4ad54bf454c04022d69c")]
    [InlineData("Sha256", "saltSALTsaltSALT", 500, "81ee4ab826e51612d815a614716b6df6a5f26596bdd480672f9a6b8233d176e31a48de09615febc37e7a8ab475ebab78")]
    [InlineData("Sha384", "saltSALTsaltSALT", 500, "1f2f066e8898bff52d59968006eb87fbc67043b8f39ab9e3df0dc73044d3e1d2de9b4cad318ce98169e79a5f2c7a6810")]
    [InlineData("Sha512", "saltSALTsaltSALT", 500, "4613e33d4aaf72b4e9b889ebc7da45f93b76f863507638c906bb9bdb81209a47cb6445c51c883688115b2daedd26ae8e")]
    [InlineData("Ripemd160", "saltSALTsaltSALT", 500, "48217ebb1e311c2b153e0ceb3e5d35cb7c881527e42b19627177fcddf305c7c04a0bfd6d8ace09aa45eb6bbe16398825")]
    [InlineData("Sm3", "saltSALTsaltSALT", 500, "9ef5fee716c11b1507188a1166a807805a5e891f65b9604bc5bedca892678b8dc87f6883bc1ae7f671352778ee11a82e")]
    public void Pbkdf2_is_as_published(string hash, string salt, int iterations, string expected)
    {
        byte[] key = new byte[expected.Length / 2];
        Enum.Parse<HashAlgorithm>(hash).Pbkdf2("password"u8, System.Text.Encoding.ASCII.GetBytes(salt), iterations, key);
        Assert.Equal(expected, Convert.ToHexStringLower(key));
        Hashes.Pbkdf2Portably(
            Enum.Parse<HashAlgorithm>(hash), "password"u8, System.Text.Encoding.ASCII.GetBytes(salt), iterations, key);
        Assert.Equal(expected, Convert.ToHexStringLower(key)); // where the platform has none
    }

    /// <summary>RFC 9106, 5.2 and 5.3.</summary>
    [Theory]
    [InlineData(false, "c814d9d1dc7f37aa13f0d77f2494bda1c8de6b016dd388d29952a4c4672b6ce8")]
    [InlineData(true, "0d640df58d78766c08c037a34a8b53c9d01ef0452d75b65eb52520e96b01e659")]
    public void Argon2_is_as_RFC_9106_has_it(bool isHybrid, string expected)
    {
        byte[] key = new byte[32];
        Argon2.Derive(
            isHybrid,
            Enumerable.Repeat((byte)1, 32).ToArray(),
            Enumerable.Repeat((byte)2, 16).ToArray(),
            passes: 3,
            memoryKib: 32,
            lanes: 4,
            key,
            Enumerable.Repeat((byte)3, 8).ToArray(),
            Enumerable.Repeat((byte)4, 12).ToArray());
        Assert.Equal(expected, Convert.ToHexStringLower(key));
    }

    /// <summary>The merged keys were computed by a few lines of Python from the specification.</summary>
    [Theory]
    [InlineData("Sha1", 32, "27fa8600ea0c14668eea72326b95cbcca385ce87bac88dfbb15abffc89891f90")]
    [InlineData("Sha256", 64, "1c5325e11b4c3c0c4dada55ec872dd834e8e2b0aaa5ef463462520270f75ce718a3c8f28fe0b413fbb143fb1904321ca21ed4fe4fe2fce46d92870925c7d91b8")]
    [InlineData("Sha512", 24, "5417f99cf77f6ec766fb2e735053b279b2b4be80e4121508")]
    public void A_split_key_is_merged_as_specified(string hash, int length, string expected)
    {
        byte[] split = [.. Enumerable.Range(0, length * 5).Select(i => (byte)((i * 7) + (i / 256)))], key = new byte[length];
        AntiForensic.Merge(Enum.Parse<HashAlgorithm>(hash), split, key);
        Assert.Equal(expected, Convert.ToHexStringLower(key));
        AntiForensic.Split(Enum.Parse<HashAlgorithm>(hash), key, split);
        byte[] again = new byte[length];
        AntiForensic.Merge(Enum.Parse<HashAlgorithm>(hash), split, again);
        Assert.Equal(key, again);
        split[3] ^= 1; // any stripe is needed
        AntiForensic.Merge(Enum.Parse<HashAlgorithm>(hash), split, again);
        Assert.NotEqual(key, again);
    }

    public static TheoryData<string> Specifications
    {
        get
        {
            var data = new TheoryData<string>();
            foreach (CipherAlgorithm algorithm in Enum.GetValues<CipherAlgorithm>())
            {
                foreach (CipherMode mode in Enum.GetValues<CipherMode>())
                {
                    foreach (IvGeneration iv in Enum.GetValues<IvGeneration>())
                    {
                        HashAlgorithm? hash = iv == IvGeneration.Essiv ? HashAlgorithm.Sha256 : null;
                        if (new CipherSpec(algorithm, mode, iv, hash) is { Objection: null } spec)
                        {
                            data.Add($"{algorithm}/{spec.ModeText}");
                        }
                    }
                }
            }
            return data;
        }
    }

    /// <summary>In one request or in many, from any sector on: the bytes are the same, and come back.</summary>
    [Theory]
    [MemberData(nameof(Specifications))]
    public void Sectors_are_encrypted_each_by_itself(string name)
    {
        string[] parts = name.Split('/');
        CipherAlgorithm algorithm = Enum.Parse<CipherAlgorithm>(parts[0]);
        int length = algorithm.KeyLength() * (parts[1].StartsWith("xts", StringComparison.Ordinal) ? 2 : 1);
        CipherSpec spec = CipherSpec.Parse(algorithm.Family(), parts[1], length, out string why) ?? throw new InvalidOperationException(why);
        byte[] key = [.. Enumerable.Range(3, length).Select(i => (byte)(i * 5))];
        using ISectorCipher cipher = spec.Make(key);
        byte[] data = new byte[160 << 9];
        new Random(4).NextBytes(data);
        byte[] whole = (byte[])data.Clone(), piecewise = (byte[])data.Clone();
        cipher.Encrypt(whole, 7 << 9);
        Assert.NotEqual(data, whole);
        for (int at = 0, count = 1; at < data.Length; at += count << 9, count = (count * 3) % 31)
        {
            count = Math.Min(count, (data.Length - at) >> 9);
            cipher.Encrypt(piecewise.AsSpan(at, count << 9), (7 << 9) + at);
        }
        Assert.Equal(whole, piecewise);
        Parallel.For(0, 20, i => cipher.Decrypt(whole.AsSpan(i << 12, 1 << 12), (7 << 9) + (i << 12)));
        Assert.Equal(data, whole);
    }

    [Theory]
    [InlineData("cast5", "xts-plain64", 32, "xts needs blocks")]
    [InlineData("aes", "cbc-essiv:sha1", 32, "essiv needs a cipher aes")]
    [InlineData("aes", "cbc-essiv", 32, "essiv needs a hash")]
    [InlineData("aes", "cbc", 32, "needs an IV generator")]
    [InlineData("aes", "cbc-benbi", 32, "the IV generator 'benbi'")]
    [InlineData("aes", "gcm-plain64", 32, "the mode 'gcm'")]
    [InlineData("aes", "1-plain64", 32, "the mode '1'")]
    [InlineData("rot13", "cbc-plain", 32, "the cipher 'rot13'")]
    [InlineData("aes", "xts-plain64", 33, "with a key of 33 bytes")]
    public void What_does_not_fit_is_refused_by_name(string family, string mode, int keyLength, string says)
    {
        Assert.Null(CipherSpec.Parse(family, mode, keyLength, out string objection));
        Assert.Contains(says, objection, StringComparison.Ordinal);
    }

    [Fact]
    public void A_secret_shows_nothing_and_is_cleared()
    {
        var secret = SecretBuffer.Of("geheim"u8);
        Assert.DoesNotContain("geheim", $"{secret}", StringComparison.Ordinal);
        secret.Dispose();
        Assert.All(secret.Span.ToArray(), b => Assert.Equal(0, b));
    }
}
