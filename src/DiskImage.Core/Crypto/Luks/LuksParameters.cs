using DiskImage.Block;

namespace DiskImage.Crypto.Luks;

/// <summary>How a new volume is encrypted. The defaults are QEMU's.</summary>
/// <param name="Algorithm">The block cipher.</param>
/// <param name="Mode">The mode.</param>
/// <param name="Iv">What makes first vectors.</param>
/// <param name="IvHash">The hash of essiv; SHA-256 if not given.</param>
/// <param name="Hash">The hash of the header.</param>
/// <param name="IterationTime">How long opening is to take, in milliseconds.</param>
internal sealed record LuksParameters(
    CipherAlgorithm Algorithm, CipherMode Mode, IvGeneration Iv, HashAlgorithm? IvHash, HashAlgorithm Hash, int IterationTime)
{
    /// <summary>The cipher.</summary>
    /// <exception cref="DiskImageException">InvalidOption: the parts do not fit together.</exception>
    public CipherSpec Cipher(string path)
    {
        HashAlgorithm? hash = Iv == IvGeneration.Essiv ? IvHash ?? HashAlgorithm.Sha256 : null;
        var spec = new CipherSpec(Algorithm, Mode, Iv, hash);
        string? stray = IvHash is not null && Iv != IvGeneration.Essiv ? "an IV hash belongs to the generator essiv" : null;
        return (spec.Objection ?? stray) is { } why
            ? throw new DiskImageException(DiskImageErrorKind.InvalidOption, $"{path}: {why}.", path)
            : spec;
    }
}
