using System.Globalization;
using DiskImage.Block;

namespace DiskImage.Protocols.Sheepdog;

/// <summary>How often a VDI's objects are kept. Source: sheepdog, include/sheepdog_proto.h and lib, erasure codes.</summary>
/// <param name="Copies">Copies, or strips and parities together; 0 for what the cluster does.</param>
/// <param name="Policy">0 for copies; else half the strips in the upper four bits and the parities in the lower.</param>
internal readonly record struct SheepRedundancy(byte Copies, byte Policy)
{
    private const int MostStrips = 16, MostParities = 15;

    /// <summary>Copies (<c>3</c>), or strips and parities (<c>4:2</c>).</summary>
    /// <exception cref="DiskImageException">InvalidOption.</exception>
    public static SheepRedundancy Parse(string text)
    {
        int[] numbers = [.. text.Split(':').Select(
            t => int.TryParse(t, NumberStyles.None, CultureInfo.InvariantCulture, out int n) ? n : -1)];
        return numbers switch
        {
            [>= 1 and <= SheepWire.MostCopies and var copies] => new SheepRedundancy((byte)copies, 0),
            [2 or 4 or 8 or MostStrips, >= 1 and <= MostParities] => new SheepRedundancy(
                (byte)(numbers[0] + numbers[1]), (byte)((numbers[0] / 2 << 4) | numbers[1])),
            _ => throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"'redundancy={text}' cannot be. Allowed: copies, 1 to {SheepWire.MostCopies}; or strips:parities of an erasure code, with "
                    + $"2, 4, 8 or {MostStrips} strips and 1 to {MostParities} parities, for example 4:2."),
        };
    }

    /// <inheritdoc/>
    public override string ToString()
        => Policy == 0 ? $"{Copies}" : string.Create(CultureInfo.InvariantCulture, $"{(Policy >> 4) * 2}:{Policy & 0xF}");
}
