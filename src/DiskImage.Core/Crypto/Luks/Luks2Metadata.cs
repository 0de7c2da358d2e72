using System.Globalization;
using DiskImage.Block;

namespace DiskImage.Crypto.Luks;

/// <summary>A key slot of LUKS2.</summary>
internal sealed record Luks2Slot(
    int Number,
    int KeyLength,
    int Stripes,
    HashAlgorithm SplitHash,
    long Offset,
    long Length,
    CipherSpec Cipher,
    string Kdf,
    HashAlgorithm? KdfHash,
    long Iterations,
    long MemoryKib,
    int Lanes,
    byte[] Salt);

/// <summary>What says which key is right.</summary>
internal sealed record Luks2Digest(
    string Name,
    IReadOnlyList<string> Slots,
    IReadOnlyList<string> Segments,
    HashAlgorithm Hash,
    long Iterations,
    byte[] Salt,
    byte[] Digest);

/// <summary>The parts of a LUKS2 header's JSON text that are used here, each bounded. Spec: LUKS2 1.1.1, chapter 3.</summary>
/// <param name="Slots">The key slots.</param>
/// <param name="Digests">The digests of keys.</param>
/// <param name="SlotsEnd">Where the area for key slots ends.</param>
/// <param name="Payload">Where the data begins.</param>
/// <param name="PayloadLength">Bytes of it; null for all there is.</param>
/// <param name="FirstNumber">The first sector's number.</param>
/// <param name="SectorSize">Bytes of a sector.</param>
/// <param name="SegmentName">What the segment is called.</param>
/// <param name="Encryption">How it is encrypted, as text.</param>
internal sealed record Luks2Metadata(
    IReadOnlyList<Luks2Slot> Slots,
    IReadOnlyList<Luks2Digest> Digests,
    long SlotsEnd,
    long Payload,
    long? PayloadLength,
    long FirstNumber,
    int SectorSize,
    string SegmentName,
    string Encryption)
{
    /// <summary>Slots at most. Spec.</summary>
    public const int MostSlots = 32;

    /// <summary>The slots that hold the key of the segment: others may hold keys of something else (unbound ones).</summary>
    public IEnumerable<Luks2Slot> Holders
        => Slots.Where(s => Digests.Any(d => d.Segments.Contains(SegmentName, StringComparer.Ordinal)
            && d.Slots.Contains(s.Number.ToString(CultureInfo.InvariantCulture), StringComparer.Ordinal)));

    private const int MostKeyBytes = 512, MostStripes = 1 << 16, MostDigestBytes = 256, MostLanes = 64; // ours

    /// <summary>Takes a header's text apart.</summary>
    /// <exception cref="DiskImageException">Corrupt or Unsupported.</exception>
    public static Luks2Metadata Parse(LuksArea area, Luks2Copy copy)
    {
        var root = new Luks2Fields(area, copy.Json, "");
        Luks2Fields config = root.Object("config");
        RequireNothingElse(area, config);
        long slotsStart = 2L * copy.Size, slotsEnd = slotsStart + config.Number("keyslots_size", 0, 128 << 20);
        var slots = new List<Luks2Slot>();
        foreach ((string name, Luks2Fields fields) in root.Object("keyslots").All)
        {
            if (fields.Text("type") is var type and not "luks2")
            {
                throw type.Equals("reencrypt", StringComparison.Ordinal) ? Reencryption(area) : fields.Unsupported("type", type);
            }
            slots.Add(Slot(Number(area, name), fields, slotsStart, slotsEnd));
        }
        (string, Luks2Fields)[] segments = [.. root.Object("segments").All];
        if (segments.Length != 1)
        {
            throw area.Wrong(
                DiskImageErrorKind.Unsupported, $"it has {segments.Length} segments ({string.Join(", ", segments.Select(s => s.Item1))}); "
                    + "only images of one are opened", Luks2Copy.FixedBytes);
        }
        (string segmentName, Luks2Fields segment) = segments[0];
        if (segment.Text("type") is var kind and not "crypt")
        {
            throw segment.Unsupported("type", kind);
        }
        if (segment.Has("integrity"))
        {
            throw area.Wrong(
                DiskImageErrorKind.Unsupported, $"its data has integrity tags, which this version does not have", Luks2Copy.FixedBytes);
        }
        int sector = (int)segment.Number("sector_size", 512, 4096);
        if (!int.IsPow2(sector))
        {
            throw segment.Unsupported("sector_size", $"{sector}");
        }
        long payload = segment.Number("offset", 0, long.MaxValue / 2);
        if (payload != 0 && payload < slotsEnd)
        {
            throw area.Wrong(
                DiskImageErrorKind.Corrupt,
                $"the data at {payload:#,0} lies in the area of key slots, which ends at {slotsEnd:#,0}",
                Luks2Copy.FixedBytes);
        }
        return new(
            slots,
            [.. root.Object("digests").All.Select(d => Digest(d.Name, d.Fields))],
            slotsEnd,
            payload,
            segment.Text("size").Equals("dynamic", StringComparison.Ordinal) ? null : segment.Number("size", 0, long.MaxValue / 2),
            segment.Number("iv_tweak", 0, long.MaxValue / 2),
            sector,
            segmentName,
            segment.Text("encryption"));
    }

    private static Luks2Slot Slot(int number, Luks2Fields fields, long start, long end)
    {
        Luks2Fields split = fields.Object("af"), place = fields.Object("area"), kdf = fields.Object("kdf");
        int keyLength = (int)fields.Number("key_size", 1, MostKeyBytes), stripes = (int)split.Number("stripes", 1, MostStripes);
        long offset = place.Number("offset", start, end), length = place.Number("size", 0, end - offset);
        if (split.Text("type") is var splitter and not "luks1")
        {
            throw split.Unsupported("type", splitter);
        }
        if (place.Text("type") is var storage and not "raw")
        {
            throw place.Unsupported("type", storage);
        }
        _ = place.Number("size", Binary.Round.Up((long)keyLength * stripes, 512), end - offset);
        string how = kdf.Text("type");
        bool isPlain = how.Equals("pbkdf2", StringComparison.Ordinal);
        if (!isPlain && how is not ("argon2i" or "argon2id"))
        {
            throw kdf.Unsupported("type", how);
        }
        return new(
            number,
            keyLength,
            stripes,
            split.Hash("hash"),
            offset,
            length,
            place.Cipher("encryption", (int)place.Number("key_size", 1, MostKeyBytes)),
            how,
            isPlain ? kdf.Hash("hash") : null,
            isPlain ? kdf.Number("iterations", 1, int.MaxValue) : kdf.Number("time", 1, int.MaxValue),
            isPlain ? 0 : kdf.Number("memory", 8, int.MaxValue),
            isPlain ? 0 : (int)kdf.Number("cpus", 1, MostLanes),
            kdf.Bytes("salt", MostDigestBytes));
    }

    private static Luks2Digest Digest(string name, Luks2Fields fields)
        => fields.Text("type") is var type and not "pbkdf2"
            ? throw fields.Unsupported("type", type)
            : new(
                name,
                fields.Texts("keyslots"),
                fields.Texts("segments"),
                fields.Hash("hash"),
                fields.Number("iterations", 1, int.MaxValue),
                fields.Bytes("salt", MostDigestBytes),
                fields.Bytes("digest", MostDigestBytes));

    private static void RequireNothingElse(LuksArea area, Luks2Fields config)
    {
        if (!config.Has("requirements") || !config.Object("requirements").Has("mandatory"))
        {
            return;
        }
        IReadOnlyList<string> needed = config.Object("requirements").Texts("mandatory");
        if (needed.Any(n => n.Contains("reencrypt", StringComparison.Ordinal)))
        {
            throw Reencryption(area);
        }
        if (needed.Count > 0)
        {
            throw area.Wrong(
                DiskImageErrorKind.Unsupported,
                $"it needs what this version does not have: {string.Join(", ", needed)}",
                Luks2Copy.FixedBytes);
        }
    }

    private static int Number(LuksArea area, string name)
        => int.TryParse(name, NumberStyles.None, CultureInfo.InvariantCulture, out int number)
            && number < MostSlots
            ? number
            : throw area.Wrong(
                DiskImageErrorKind.Corrupt, $"keyslots.{name} has no number; allowed: 0 to {MostSlots - 1}", Luks2Copy.FixedBytes);

    private static DiskImageException Reencryption(LuksArea area) => area.Wrong(
        DiskImageErrorKind.Unsupported,
        $"it is being encrypted anew (reencryption in progress). Let the program that does it come to its end.",
        Luks2Copy.FixedBytes);
}
