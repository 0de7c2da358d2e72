using DiskImage.Block;
using DiskImage.Options;

namespace DiskImage.Crypto.Luks;

/// <summary>How a new volume is encrypted. Names and defaults are QEMU's.</summary>
internal sealed record LuksParameters
{
    /// <summary>The secret's name.</summary>
    [DriverOption("key-secret", "Name of the secret that is to open it, among those that are given")]
    public string? KeySecret { get; init; }

    /// <summary>The block cipher.</summary>
    [DriverOption("cipher-alg", "Block cipher with the length of its key")]
    public CipherAlgorithm CipherAlgorithm { get; init; } = CipherAlgorithm.Aes256;

    /// <summary>The mode.</summary>
    [DriverOption("cipher-mode", "Mode of the cipher")]
    public CipherMode CipherMode { get; init; } = CipherMode.Xts;

    /// <summary>What makes first vectors.</summary>
    [DriverOption("ivgen-alg", "What makes each sector's first vector")]
    public IvGeneration IvGenerator { get; init; } = IvGeneration.Plain64;

    /// <summary>The hash of essiv.</summary>
    [DriverOption("ivgen-hash-alg", "Hash of the generator essiv; sha256 if not given")]
    public HashAlgorithm? IvHash { get; init; }

    /// <summary>The hash of the header.</summary>
    [DriverOption("hash-alg", "Hash by which secrets become keys")]
    public HashAlgorithm Hash { get; init; } = HashAlgorithm.Sha256;

    /// <summary>How long opening takes.</summary>
    [DriverOption("iter-time", "How long trying a secret is to take on this machine, in milliseconds", Minimum = 1, Maximum = 600_000)]
    public int IterationTime { get; init; } = 2000;

    /// <summary>The cipher.</summary>
    /// <exception cref="DiskImageException">InvalidOption: the parts do not fit together.</exception>
    public CipherSpec Cipher(string path)
    {
        HashAlgorithm? hash = IvGenerator == IvGeneration.Essiv ? IvHash ?? HashAlgorithm.Sha256 : null;
        var spec = new CipherSpec(CipherAlgorithm, CipherMode, IvGenerator, hash);
        string? stray = IvHash is not null && hash is null ? "an IV hash belongs to the generator essiv" : null;
        return (spec.Objection ?? stray) is { } why
            ? throw new DiskImageException(DiskImageErrorKind.InvalidOption, $"{path}: {why}.", path)
            : spec;
    }
}

/// <summary>How a volume is opened.</summary>
internal sealed record LuksOpening
{
    /// <summary>The secret's name.</summary>
    [DriverOption("key-secret", "Name of the secret that opens it, among those that are given")]
    public string? KeySecret { get; init; }

    /// <summary>Iterations of a key derivation at most.</summary>
    [DriverOption("max-iterations", "Most iterations with which a secret is tried: an image may ask for hours", Minimum = 1)]
    public long MaxIterations { get; init; } = KeyLimits.DefaultIterations;

    /// <summary>Memory of a key derivation at most.</summary>
    [DriverOption("max-memory", "Most memory with which a secret is tried (Argon2 of LUKS2)", IsSize = true, Minimum = 1)]
    public long MaxMemory { get; init; } = KeyLimits.DefaultMemory;

    /// <summary>What making a key may take.</summary>
    public KeyLimits Limits => new(MaxIterations, MaxMemory);
}
