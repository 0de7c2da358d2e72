using DiskImage.Block;

namespace DiskImage.PowerShell;

/// <summary>A place in an encrypted image for the disk's key, encrypted with one secret.</summary>
public sealed class DiskImageKeySlot
{
    /// <summary>The image's full path, or its URI.</summary>
    public required string Path { get; init; }

    /// <summary>Its number.</summary>
    public required int Slot { get; init; }

    /// <summary>It holds the key.</summary>
    public required bool IsActive { get; init; }

    /// <summary>How the secret becomes a key: <c>pbkdf2</c>, <c>argon2i</c>, <c>argon2id</c>; null if it holds none.</summary>
    public string? KeyDerivation { get; init; }

    /// <summary>The hash of that.</summary>
    public string? Hash { get; init; }

    /// <summary>How often it is done.</summary>
    public required long Iterations { get; init; }

    /// <summary>Bytes of memory it takes; null where it is not made to take any.</summary>
    public long? Memory { get; init; }

    /// <summary>Its lanes, likewise.</summary>
    public int? Parallelism { get; init; }

    /// <summary>Into how many parts the stored key is split.</summary>
    public required int Stripes { get; init; }

    /// <summary>Where in the file the slot's bytes begin.</summary>
    public required long Offset { get; init; }

    /// <summary>How many there are.</summary>
    public required long Length { get; init; }

    /// <inheritdoc/>
    public override string ToString() => $"{Slot}: {(IsActive ? KeyDerivation : "empty")}";

    internal static DiskImageKeySlot Of(string path, KeySlot slot) => new()
    {
        Path = path,
        Slot = slot.Number,
        IsActive = slot.IsActive,
        KeyDerivation = slot.KeyDerivation,
        Hash = slot.Hash,
        Iterations = slot.Iterations,
        Memory = slot.MemoryBytes,
        Parallelism = slot.Parallelism,
        Stripes = slot.Stripes,
        Offset = slot.Offset,
        Length = slot.Length,
    };
}
