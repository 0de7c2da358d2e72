using System.Security;

namespace DiskImage.Block;

/// <summary>A place in an encrypted image for the disk's key, encrypted with one secret.</summary>
/// <param name="Number">Its number.</param>
/// <param name="IsActive">It holds the key.</param>
/// <param name="KeyDerivation">How the secret becomes a key: <c>pbkdf2</c>, <c>argon2i</c>, <c>argon2id</c>; null if it is not in
/// use.</param>
/// <param name="Hash">The hash of that.</param>
/// <param name="Iterations">How often it is done.</param>
/// <param name="MemoryBytes">The memory it takes, where it is made to take some.</param>
/// <param name="Parallelism">Its lanes, likewise.</param>
/// <param name="Stripes">Into how many parts the stored key is split.</param>
/// <param name="Offset">Where in its file the slot's bytes begin.</param>
/// <param name="Length">How many there are.</param>
public sealed record KeySlot(
    int Number,
    bool IsActive,
    string? KeyDerivation,
    string? Hash,
    long Iterations,
    long? MemoryBytes,
    int? Parallelism,
    int Stripes,
    long Offset,
    long Length);

/// <summary>An encrypted disk whose key is stored once for each of several secrets.</summary>
public interface IKeySlots
{
    /// <summary>True if the disk's key is at hand: a right secret was given.</summary>
    bool IsUnlocked { get; }

    /// <summary>All slots, those without a key too. Needs no secret and no I/O.</summary>
    IReadOnlyList<KeySlot> GetKeySlots();

    /// <summary>The slot that a secret opens; null if it opens none.</summary>
    ValueTask<int?> FindKeySlotAsync(SecureString secret, CancellationToken cancellationToken);

    /// <summary>
    /// Stores the disk's key once more, for a further secret, in a slot that is free; returns its number. A crash leaves the slot as it
    /// was or complete.
    /// </summary>
    /// <param name="secret">The further secret.</param>
    /// <param name="slot">The slot; null for the first that is free.</param>
    /// <param name="iterationTime">How long opening it is to take, in milliseconds on this machine; null for what the format makes of
    /// it.</param>
    /// <param name="cancellationToken">Stops it before the first change.</param>
    /// <exception cref="DiskImageException">SecretRequired: no secret was given to open the image with. InvalidOption: the slot is
    /// taken, or none is free.</exception>
    ValueTask<int> AddKeySlotAsync(SecureString secret, int? slot, int? iterationTime, CancellationToken cancellationToken);

    /// <summary>Gives a slot up and overwrites it: its secret does not open the disk any more.</summary>
    /// <param name="slot">Its number.</param>
    /// <param name="allowLast">Give up also the last, with which all of the disk is lost.</param>
    /// <param name="cancellationToken">Stops it before the first change.</param>
    /// <exception cref="DiskImageException">Refused: it is the last one. NotFound: it holds no key.</exception>
    ValueTask RemoveKeySlotAsync(int slot, bool allowLast, CancellationToken cancellationToken);
}
