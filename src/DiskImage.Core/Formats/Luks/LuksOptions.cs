using DiskImage.Block;
using DiskImage.Crypto;
using DiskImage.Crypto.Luks;
using DiskImage.Drivers;
using DiskImage.Options;

namespace DiskImage.Formats.Luks;

/// <summary>Options when a LUKS image is opened.</summary>
internal sealed record LuksOpenOptions
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
}

/// <summary>Options when a LUKS image is made. Names and defaults are QEMU's.</summary>
internal sealed record LuksCreateOptions : ICreateOptions
{
    /// <inheritdoc/>
    [DriverOption("size", "Virtual size in bytes; rounded up to 512", IsSize = true, Minimum = 0)]
    public long? Size { get; init; }

    /// <summary>The secret's name.</summary>
    [DriverOption("key-secret", "Name of the secret that is to open it, among those that are given")]
    public string? KeySecret { get; init; }

    /// <summary>The version of the format.</summary>
    [DriverOption("version", "Version of the format: 1, which QEMU reads and writes, or 2 (keys by Argon2id)", Minimum = 1, Maximum = 2)]
    public int Version { get; init; } = 1;

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

    /// <summary>The header alone.</summary>
    [DriverOption("detached-header", "Make the header alone; the data is in a file of its own")]
    public bool DetachedHeader { get; init; }

    /// <summary>Space claimed ahead of its use.</summary>
    [DriverOption("preallocation", "Space claimed ahead: off, falloc (reserved), full (written)")]
    public LuksPreallocation Preallocation { get; init; }

    /// <inheritdoc/>
    [DriverOption("nocow", "New file without copy-on-write, on file systems that can (btrfs)")]
    public bool NoCow { get; init; }

    /// <summary>The parameters that qcow2 has, too.</summary>
    public LuksParameters Parameters => new(CipherAlgorithm, CipherMode, IvGenerator, IvHash, Hash, IterationTime);
}

/// <summary>The preallocation modes of a format without tables.</summary>
internal enum LuksPreallocation
{
    /// <summary>A hole.</summary>
    Off = PreallocationMode.Off,

    /// <summary>Reserved without being written.</summary>
    Falloc = PreallocationMode.Falloc,

    /// <summary>Every byte is written.</summary>
    Full = PreallocationMode.Full,
}
