using DiskImage.Binary;

namespace DiskImage.Crypto.Luks;

/// <summary>A key slot as the header has it. Spec: LUKS1, figure 2.</summary>
/// <param name="IsActive">It holds the key.</param>
/// <param name="Iterations">Of PBKDF2.</param>
/// <param name="Salt">Of PBKDF2, 32 bytes.</param>
/// <param name="Offset">Where its bytes begin, from the header's first byte.</param>
/// <param name="Stripes">Into how many the key is split.</param>
internal sealed record Luks1Slot(bool IsActive, uint Iterations, byte[] Salt, long Offset, int Stripes)
{
    public const int Bytes = 48, SaltBytes = 32, StateBytes = 4;
    public const uint Active = 0x00AC71F3, Dead = 0x0000DEAD;

    private const int SaltAt = 8, OffsetAt = 40, StripesAt = 44, IterationsAt = 4, Sector = 512;

    /// <summary>A slot without a key.</summary>
    public Luks1Slot Emptied => this with { IsActive = false, Iterations = 0, Salt = new byte[SaltBytes] };

    public static uint State(ReadOnlySpan<byte> bytes) => BigEndian.U32(bytes, 0);

    public static Luks1Slot Parse(ReadOnlySpan<byte> bytes) => new(
        State(bytes) == Active,
        BigEndian.U32(bytes, IterationsAt),
        bytes.Slice(SaltAt, SaltBytes).ToArray(),
        (long)BigEndian.U32(bytes, OffsetAt) * Sector,
        (int)Math.Min(BigEndian.U32(bytes, StripesAt), int.MaxValue));

    public void Write(Span<byte> bytes)
    {
        BigEndian.U32(bytes, 0, IsActive ? Active : Dead);
        BigEndian.U32(bytes, IterationsAt, Iterations);
        Salt.CopyTo(bytes[SaltAt..]);
        BigEndian.U32(bytes, OffsetAt, (uint)(Offset / Sector));
        BigEndian.U32(bytes, StripesAt, (uint)Stripes);
    }
}
