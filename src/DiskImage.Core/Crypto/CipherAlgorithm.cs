using DiskImage.Options;

namespace DiskImage.Crypto;

/// <summary>A block cipher with the length of its key. The spellings are QEMU's.</summary>
internal enum CipherAlgorithm
{
    /// <summary>AES with 128 bits.</summary>
    [OptionText("aes-128")]
    Aes128,

    /// <summary>AES with 192 bits.</summary>
    [OptionText("aes-192")]
    Aes192,

    /// <summary>AES with 256 bits.</summary>
    [OptionText("aes-256")]
    Aes256,

    /// <summary>CAST5 with 128 bits.</summary>
    [OptionText("cast5-128")]
    Cast5128,

    /// <summary>Serpent with 128 bits.</summary>
    [OptionText("serpent-128")]
    Serpent128,

    /// <summary>Serpent with 192 bits.</summary>
    [OptionText("serpent-192")]
    Serpent192,

    /// <summary>Serpent with 256 bits.</summary>
    [OptionText("serpent-256")]
    Serpent256,

    /// <summary>Twofish with 128 bits.</summary>
    [OptionText("twofish-128")]
    Twofish128,

    /// <summary>Twofish with 192 bits.</summary>
    [OptionText("twofish-192")]
    Twofish192,

    /// <summary>Twofish with 256 bits.</summary>
    [OptionText("twofish-256")]
    Twofish256,

    /// <summary>SM4.</summary>
    [OptionText("sm4")]
    Sm4,
}

/// <summary>How the blocks of a sector hang together.</summary>
internal enum CipherMode
{
    /// <summary>They do not: equal blocks look equal.</summary>
    Ecb,

    /// <summary>Each is mixed with the one before it.</summary>
    Cbc,

    /// <summary>Each by its place, with a second key. IEEE 1619.</summary>
    Xts,

    /// <summary>A counter makes a stream, which is added.</summary>
    Ctr,
}

/// <summary>What makes a sector's first vector.</summary>
internal enum IvGeneration
{
    /// <summary>The sector's number in 32 bits.</summary>
    Plain,

    /// <summary>The sector's number in 64 bits.</summary>
    Plain64,

    /// <summary>The sector's number, encrypted with a hash of the key.</summary>
    Essiv,
}

/// <summary>A hash function. The spellings are QEMU's.</summary>
internal enum HashAlgorithm
{
    /// <summary>MD5.</summary>
    Md5,

    /// <summary>SHA-1.</summary>
    Sha1,

    /// <summary>SHA-224.</summary>
    Sha224,

    /// <summary>SHA-256.</summary>
    Sha256,

    /// <summary>SHA-384.</summary>
    Sha384,

    /// <summary>SHA-512.</summary>
    Sha512,

    /// <summary>RIPEMD-160.</summary>
    Ripemd160,

    /// <summary>SM3.</summary>
    Sm3,
}
