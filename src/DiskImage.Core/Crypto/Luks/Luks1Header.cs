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
    private const int MostKeyBytes = 64; // no cipher has more
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

    /// <summary>What is wrong with single records, by the number of the slot.</summary>
    public IReadOnlyDictionary<int, Luks1Fault> Faults { get; private init; } = new Dictionary<int, Luks1Fault>();

    /// <summary>The bytes a slot takes: whole sectors.</summary>
    public long AreaLength(Luks1Slot slot) => Round.Up((long)Cipher.KeyLength * slot.Stripes, Sector);

    /// <summary>Where a slot's bytes end.</summary>
    public long AreaEnd(Luks1Slot slot) => slot.Offset + AreaLength(slot);

    /// <summary>Where a slot's record is.</summary>
    public static int RecordAt(int slot) => SlotsAt + (slot * Luks1Slot.Bytes);

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

    /// <summary>
    /// Reads a header and checks every field by itself and against the others. What is wrong with a slot alone is in <see cref="Faults"/>.
    /// </summary>
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
        uint iterations = BigEndian.U32(bytes, IterationsAt);
        if (iterations is 0 or > int.MaxValue)
        {
            throw area.Wrong(
                DiskImageErrorKind.Corrupt,
                $"{iterations:#,0} iterations for the key's digest; allowed: 1 to {int.MaxValue:#,0}",
                IterationsAt);
        }
        var slots = new Luks1Slot[Slots];
        uint[] states = new uint[Slots];
        for (int i = 0; i < Slots; i++)
        {
            ReadOnlySpan<byte> record = bytes.Slice(RecordAt(i), Luks1Slot.Bytes);
            (slots[i], states[i]) = (Luks1Slot.Parse(record), Luks1Slot.State(record));
        }
        var header = new Luks1Header
        {
            Cipher = cipher,
            Hash = hash,
            Payload = (long)BigEndian.U32(bytes, PayloadAt) * Sector,
            Digest = bytes.Slice(DigestAt, DigestBytes).ToArray(),
            DigestSalt = bytes.Slice(SaltAt, SaltBytes).ToArray(),
            DigestIterations = iterations,
            Uuid = Text(bytes, UuidAt, UuidBytes),
            KeySlots = slots,
        };
        return header with { Faults = Luks1Layout.Faults(header, area, states) };
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
            KeySlots[i].Write(bytes.AsSpan(RecordAt(i), Luks1Slot.Bytes));
        }
        return bytes;
    }

    /// <summary>The header with another slot.</summary>
    public Luks1Header With(int number, Luks1Slot slot) => this with { KeySlots = [.. KeySlots.Select((s, i) => i == number ? slot : s)] };

    private static string Text(ReadOnlySpan<byte> bytes, int at, int length)
    {
        ReadOnlySpan<byte> field = bytes.Slice(at, length);
        int end = field.IndexOf((byte)0);
        return Encoding.ASCII.GetString(end < 0 ? field : field[..end]);
    }
}
