using DiskImage.Block;

namespace DiskImage.Crypto.Luks;

/// <summary>What is wrong with one slot's record, where the rest of the header is right: nothing is written to such a slot.</summary>
/// <param name="What">It, with the number of the slot.</param>
/// <param name="CanBeTried">Its fields are in bounds, so a secret may be tried on it: the digest says whether the key is right.</param>
internal sealed record Luks1Fault(Wording What, bool CanBeTried);
