using System.Text;
using DiskImage.Binary;
using DiskImage.Block;

namespace DiskImage.Crypto.Luks;

/// <summary>The header of LUKS version 1. Spec: LUKS On-Disk Format Specification 1.2.3. All numbers are big-endian.</summary>
internal sealed record Luks1Header
{
    public const int Bytes = 592, Slots = 8, SlotsAt = 208, DigestBytes = 20, SaltBytes = 32;

    /// <summary>Stripes of new slots. Spec, "Constants".</summary>
    public const int UsualStripes = 4000;

    private const int Sector = 512, NameBytes = 32, UuidBytes = 40;
    private const int VersionAt = 6, CipherAt = 8, ModeAt = 40, HashAt = 72, PayloadAt = 104, KeyBytesAt = 108;
    private const int DigestAt = 112, SaltAt = 132, IterationsAt = 164, UuidAt = 168;
    private const int MostKeyBytes = 64, MostStripes = 1 << 16; // no cipher has more; ours
    private const int AreaAlignment = 4096; // of new slots: QEMU's

    public required CipherSpec Cipher { get; init; }

    public required HashAlgorithm Hash { get; init; }

    /// <summary>Where the data begins, from the header's first byte; 0 if it is in another file.</summary>
    public required long Payload { get; init; }

    public required byte[] Digest { get; init; }

    public required byte[] DigestSalt { get; init; }

    public required uint DigestIterations { get; init; }

    public required string Uuid { get; init; }

    public required IReadOnlyList<Luks1Slot> KeySlots { get; init; }

    /// <summary>Bytes of a slot's split key.</summary>
    public int SplitLength(Luks1Slot slot) => Cipher.KeyLength * slot.Stripes;

    /// <summary>The bytes a slot takes: whole sectors.</summary>
    public int AreaLength(Luks1Slot slot) => (int)Round.Up(SplitLength(slot), Sector);

    /// <summary>True if bytes begin as a header of any version does.</summary>
    public static bool IsSigned(ReadOnlySpan<byte> bytes)
        => bytes.Length >= 8 && bytes.StartsWith("LUKS"u8) && bytes[4] == 0xBA && bytes[5] == 0xBE;

    /// <summary>The version; <see cref="IsSigned"/> must be true.</summary>
    public static int Version(ReadOnlySpan<byte> bytes) => (bytes[VersionAt] << 8) | bytes[VersionAt + 1];

    /// <summary>A header with eight empty slots behind it, as QEMU lays them out.</summary>
    public static Luks1Header New(CipherSpec cipher, HashAlgorithm hash, Guid uuid, bool isDetached)
    {
        long area = Round.Up((long)cipher.KeyLength * UsualStripes, AreaAlignment);
        return new()
        {
            Cipher = cipher,
            Hash = hash,
            Payload = isDetached ? 0 : AreaAlignment + (Slots * area),
            Digest = new byte[DigestBytes],
            DigestSalt = new byte[SaltBytes],
            DigestIterations = 0,
            Uuid = uuid.ToString(),
            KeySlots = [.. Enumerable.Range(0, Slots)
                .Select(i => new Luks1Slot(false, 0, new byte[Luks1Slot.SaltBytes], AreaAlignment + (i * area), UsualStripes))],
        };
    }

    /// <summary>Where the last slot ends.</summary>
    public long AreasEnd => KeySlots.Max(s => s.Offset + AreaLength(s));

    /// <summary>Reads a header and checks every field by itself and against the others.</summary>
    /// <exception cref="DiskImageException">InvalidFormat, Corrupt or Unsupported.</exception>
    public static Luks1Header Parse(ReadOnlySpan<byte> bytes, LuksArea area)
    {
        if (!IsSigned(bytes) || Version(bytes) != 1)
        {
            throw area.Wrong(DiskImageErrorKind.InvalidFormat, "the magic of version 1 is missing", 0);
        }
        uint keyBytes = BigEndian.U32(bytes, KeyBytesAt);
        if (keyBytes is 0 or > MostKeyBytes)
        {
            throw area.Wrong(DiskImageErrorKind.Corrupt, $"a key of {keyBytes:#,0} bytes; allowed: 1 to {MostKeyBytes}", KeyBytesAt);
        }
        (string family, string mode) = (Text(bytes, CipherAt, NameBytes), Text(bytes, ModeAt, NameBytes));
        CipherSpec cipher = CipherSpec.Parse(family, mode, (int)keyBytes, out string why)
            ?? throw area.Wrong(DiskImageErrorKind.Unsupported, why, CipherAt);
        string hashName = Text(bytes, HashAt, NameBytes);
        HashAlgorithm hash = Hashes.Find(hashName) ?? throw area.Wrong(
            DiskImageErrorKind.Unsupported,
            $"the hash '{hashName}'; known: {string.Join(", ", Enum.GetValues<HashAlgorithm>().Select(h => h.Text()))}",
            HashAt);
        var slots = new Luks1Slot[Slots];
        for (int i = 0; i < Slots; i++)
        {
            int at = SlotsAt + (i * Luks1Slot.Bytes);
            uint state = Luks1Slot.State(bytes[at..]);
            if (state is not (Luks1Slot.Active or Luks1Slot.Dead))
            {
                throw area.Wrong(
                    DiskImageErrorKind.Corrupt,
                    $"key slot {i} is in the state {state:x8}; allowed: {Luks1Slot.Active:x8} (active), {Luks1Slot.Dead:x8} (not)",
                    at);
            }
            slots[i] = Luks1Slot.Parse(bytes.Slice(at, Luks1Slot.Bytes));
        }
        var header = new Luks1Header
        {
            Cipher = cipher,
            Hash = hash,
            Payload = (long)BigEndian.U32(bytes, PayloadAt) * Sector,
            Digest = bytes.Slice(DigestAt, DigestBytes).ToArray(),
            DigestSalt = bytes.Slice(SaltAt, SaltBytes).ToArray(),
            DigestIterations = BigEndian.U32(bytes, IterationsAt),
            Uuid = Text(bytes, UuidAt, UuidBytes),
            KeySlots = slots,
        };
        header.RequireSound(area);
        return header;
    }

    /// <summary>The header's bytes.</summary>
    public byte[] ToBytes()
    {
        byte[] bytes = new byte[Bytes];
        ReadOnlySpan<byte> magic = [(byte)'L', (byte)'U', (byte)'K', (byte)'S', 0xBA, 0xBE, 0, 1];
        magic.CopyTo(bytes);
        _ = Encoding.ASCII.GetBytes(Cipher.Algorithm.Family(), bytes.AsSpan(CipherAt, NameBytes));
        _ = Encoding.ASCII.GetBytes(Cipher.ModeText, bytes.AsSpan(ModeAt, NameBytes));
        _ = Encoding.ASCII.GetBytes(Hash.Text(), bytes.AsSpan(HashAt, NameBytes));
        BigEndian.U32(bytes, PayloadAt, (uint)(Payload / Sector));
        BigEndian.U32(bytes, KeyBytesAt, (uint)Cipher.KeyLength);
        Digest.CopyTo(bytes, DigestAt);
        DigestSalt.CopyTo(bytes, SaltAt);
        BigEndian.U32(bytes, IterationsAt, DigestIterations);
        _ = Encoding.ASCII.GetBytes(Uuid, bytes.AsSpan(UuidAt, UuidBytes - 1));
        for (int i = 0; i < Slots; i++)
        {
            KeySlots[i].Write(bytes.AsSpan(SlotsAt + (i * Luks1Slot.Bytes), Luks1Slot.Bytes));
        }
        return bytes;
    }

    /// <summary>The header with another slot.</summary>
    public Luks1Header With(int number, Luks1Slot slot) => this with { KeySlots = [.. KeySlots.Select((s, i) => i == number ? slot : s)] };

    private void RequireSound(LuksArea area)
    {
        if (DigestIterations == 0 || DigestIterations > int.MaxValue)
        {
            throw area.Wrong(
                DiskImageErrorKind.Corrupt,
                $"{DigestIterations:#,0} iterations for the key's digest; allowed: 1 to {int.MaxValue:#,0}",
                IterationsAt);
        }
        long end = Payload == 0 ? area.Length : Math.Min(Payload, area.Length);
        var taken = new List<(long Start, long End, string What)> { (0, Bytes, "the header") };
        for (int i = 0; i < Slots; i++)
        {
            Luks1Slot slot = KeySlots[i];
            int at = SlotsAt + (i * Luks1Slot.Bytes);
            if (slot.Stripes is 0 or > MostStripes)
            {
                throw area.Wrong(
                    DiskImageErrorKind.Corrupt, $"key slot {i} has {slot.Stripes:#,0} stripes; allowed: 1 to {MostStripes:#,0}", at);
            }
            if (slot.IsActive && (slot.Iterations == 0 || slot.Iterations > int.MaxValue))
            {
                throw area.Wrong(
                    DiskImageErrorKind.Corrupt,
                    $"key slot {i} has {slot.Iterations:#,0} iterations; allowed: 1 to {int.MaxValue:#,0}",
                    at);
            }
            (long Start, long End, string What) mine = (slot.Offset, slot.Offset + AreaLength(slot), $"key slot {i}");
            if (mine.End > end)
            {
                throw area.Wrong(
                    DiskImageErrorKind.Corrupt,
                    $"key slot {i} lies at {mine.Start:#,0} to {mine.End:#,0}; allowed: up to {end:#,0}, where the data begins",
                    at);
            }
            if (taken.Find(t => t.Start < mine.End && mine.Start < t.End) is { What: not null } other)
            {
                throw area.Wrong(
                    DiskImageErrorKind.Corrupt,
                    $"key slot {i} at {mine.Start:#,0} to {mine.End:#,0} overlaps {other.What} at {other.Start:#,0} to {other.End:#,0}",
                    at);
            }
            taken.Add(mine);
        }
    }

    private static string Text(ReadOnlySpan<byte> bytes, int at, int length)
    {
        ReadOnlySpan<byte> field = bytes.Slice(at, length);
        int end = field.IndexOf((byte)0);
        return Encoding.ASCII.GetString(end < 0 ? field : field[..end]);
    }
}
