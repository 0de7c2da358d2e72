using System.Globalization;
using System.Security.Cryptography;
using System.Text.Json.Nodes;
using DiskImage.Binary;
using DiskImage.Block;

namespace DiskImage.Crypto.Luks;

/// <summary>LUKS version 2. Spec: LUKS2 On-Disk Format Specification 1.1.1.</summary>
/// <remarks>
/// The header is there twice, each copy with a checksum and a number; of two whole ones the newer counts. A change writes what it needs
/// outside the headers first, then the first copy, then the second, each durably: a cut leaves one whole copy, old or new, and both
/// are true.
/// </remarks>
internal sealed class Luks2Volume : LuksVolume
{
    private const int SaltBytes = 32, Stripes = 4000;
    public const long NewPayload = 16L << 20; // cryptsetup's
    private const int UsualMemoryKib = 256 << 10, UsualPasses = 4, UsualLanes = 4; // ours: a few seconds, and a quarter of what is allowed
    private const int UsualIterationTime = 2000, DigestTime = 125; // milliseconds: cryptsetup's

    private Luks2Copy _copy;
    private Luks2Metadata _metadata;

    private Luks2Volume(LuksArea area, KeyLimits limits, Luks2Copy copy, Luks2Metadata metadata, CipherSpec cipher, string? damage)
        : base(area, limits)
        => (_copy, _metadata, Cipher, Damage) = (copy, metadata, cipher, damage);

    public override int Version => 2;

    public override string Uuid => _copy.Uuid;

    public override CipherSpec Cipher { get; }

    public override string HashText => _metadata.Digests.Count > 0 ? _metadata.Digests[0].Hash.Text() : "";

    public override long Payload => _metadata.Payload;

    public override long? PayloadLength => _metadata.PayloadLength;

    public override int SectorSize => _metadata.SectorSize;

    /// <summary>What is wrong with one of the header's copies; null if both are whole and the same.</summary>
    public string? Damage { get; private set; }

    public override IReadOnlyList<string> Warnings => Damage is null ? [] : [Damage];

    public override IReadOnlyList<KeySlot> Slots => [.. Enumerable.Range(0, Luks2Metadata.MostSlots).Select(
        i => _metadata.Slots.FirstOrDefault(s => s.Number == i) is { } slot
            ? new KeySlot(
                i,
                true,
                slot.Kdf,
                slot.KdfHash?.Text(),
                slot.Iterations,
                slot.KdfHash is null ? slot.MemoryKib << 10 : null,
                slot.KdfHash is null ? slot.Lanes : null,
                slot.Stripes,
                Area.Start + slot.Offset,
                slot.Length)
            : new KeySlot(i, false, null, null, 0, null, null, 0, 0, 0))];

    protected override long FirstNumber => _metadata.FirstNumber;

    /// <summary>Opens a header of which at least one copy is whole; null, with what is wrong with both, if there is none.</summary>
    public static async ValueTask<(Luks2Volume? Volume, string Wrong)> TryOpenAsync(
        LuksArea area, KeyLimits limits, CancellationToken cancellationToken)
    {
        (Luks2Copy? first, string wrong) = await Luks2Copy.ReadAsync(area, 0, cancellationToken).ConfigureAwait(false);
        (Luks2Copy? second, string secondWrong) = (null, Luks2Copy.NotThere);
        for (int size = first?.Size ?? Luks2Copy.SmallestSize; size <= Luks2Copy.LargestSize && second is null; size *= 2)
        {
            (second, string why) = await Luks2Copy.ReadAsync(area, size, cancellationToken).ConfigureAwait(false);
            secondWrong = secondWrong is "" or Luks2Copy.NotThere ? why : secondWrong; // of the place where there is one, if it is found
            second = second?.Size == size ? second : null;
            if (first is not null)
            {
                break;
            }
        }
        Luks2Copy? newer = second is null || first?.Sequence >= second.Sequence ? first : second;
        if (newer is null)
        {
            return (null, $"both copies are damaged; the first: {wrong}; the second: {secondWrong}");
        }
        string? damage = first is null ? $"the first copy of its header is damaged ({wrong}); the second is used"
            : second is null
            ? $"the second copy of its header is damaged ({(secondWrong.Length > 0 ? secondWrong : "it has another size")})"
            : first.Sequence != second.Sequence ? $"the {(newer == first ? "second" : "first")} copy of its header is older than the other"
            : null;
        Luks2Metadata metadata = Luks2Metadata.Parse(area, newer);
        int keyLength = metadata.Holders.FirstOrDefault()?.KeyLength ?? 0;
        CipherSpec cipher = new Luks2Fields(area, (JsonObject)newer.Json["segments"]![metadata.SegmentName]!, "segments")
            .Cipher("encryption", keyLength == 0 ? 64 : keyLength);
        return (new Luks2Volume(area, limits, newer, metadata, cipher, damage), "");
    }

    /// <summary>Makes a volume with a new key in slot 0, under Argon2id. The area reads as zeroes.</summary>
    public static async ValueTask<Luks2Volume> CreateAsync(
        LuksArea area,
        CipherSpec cipher,
        HashAlgorithm hash,
        Guid uuid,
        SecretBuffer secret,
        int? iterationTime,
        CancellationToken cancellationToken)
    {
        SecretBuffer key = SecretBuffer.Random(cipher.KeyLength);
        byte[] salt = RandomNumberGenerator.GetBytes(SaltBytes), digest = new byte[hash.Length()]; // cryptsetup wants all of it
        int iterations = Calibration.Iterations(Calibration.IterationsPerSecond(hash, digest.Length), DigestTime);
        hash.Pbkdf2(key.Span, salt, iterations, digest);
        const int SlotsStart = 2 * Luks2Copy.SmallestSize;
        var json = new JsonObject
        {
            ["keyslots"] = new JsonObject(),
            ["tokens"] = new JsonObject(),
            ["segments"] = new JsonObject
            {
                ["0"] = new JsonObject
                {
                    ["type"] = "crypt",
                    ["offset"] = Text(NewPayload),
                    ["size"] = "dynamic",
                    ["iv_tweak"] = "0",
                    ["encryption"] = cipher.ToString(),
                    ["sector_size"] = 512,
                },
            },
            ["digests"] = new JsonObject
            {
                ["0"] = new JsonObject
                {
                    ["type"] = "pbkdf2",
                    ["keyslots"] = new JsonArray(),
                    ["segments"] = new JsonArray("0"),
                    ["hash"] = hash.Text(),
                    ["iterations"] = iterations,
                    ["salt"] = Convert.ToBase64String(salt),
                    ["digest"] = Convert.ToBase64String(digest),
                },
            },
            ["config"] = new JsonObject
            {
                ["json_size"] = Text(Luks2Copy.SmallestSize - Luks2Copy.FixedBytes),
                ["keyslots_size"] = Text(NewPayload - SlotsStart),
            },
        };
        Luks2Copy copy = Luks2Copy.New(json, uuid);
        var volume = new Luks2Volume(area, KeyLimits.Default, copy, Luks2Metadata.Parse(area, copy), cipher, damage: null);
        try
        {
            volume.Adopt(key);
            await volume.StoreAsync(0, secret, iterationTime, cancellationToken).ConfigureAwait(false);
            return volume;
        }
        catch
        {
            volume.Dispose();
            throw;
        }
    }

    protected override void CheckHeader(CheckFindings findings)
    {
        if (Damage is not null)
        {
            findings.Corruption("HeaderCopy", $"{Damage}", repair: "writes both copies anew from the good one", host: Area.Start);
        }
    }

    /// <summary>Writes both copies from the one that is good.</summary>
    public async ValueTask RepairAsync()
    {
        if (Damage is not null)
        {
            _copy = await _copy.WriteBothAsync(Area, _copy.Json).ConfigureAwait(false);
            Damage = null;
        }
    }

    protected override bool HoldsKey(int slot) => _metadata.Holders.Any(s => s.Number == slot);

    protected override async ValueTask<SecretBuffer?> TrySlotAsync(int slot, SecretBuffer secret, CancellationToken cancellationToken)
    {
        Luks2Slot stored = _metadata.Slots.First(s => s.Number == slot);
        string name = Text(slot), what = $"key slot {slot}";
        if (_metadata.Digests.FirstOrDefault(
            d => d.Slots.Contains(name, StringComparer.Ordinal) && d.Segments.Contains(_metadata.SegmentName, StringComparer.Ordinal))
            is not { } digest)
        {
            return null; // it holds another key
        }
        using var slotKey = new SecretBuffer(stored.Cipher.KeyLength);
        if (stored.KdfHash is { } hash)
        {
            Limits.Require(Area.Name, what, hash, stored.Iterations, slotKey.Length, Area.Start + Luks2Copy.FixedBytes);
        }
        else
        {
            Limits.RequireMemory(Area.Name, what, stored.MemoryKib << 10, stored.Iterations, Area.Start + Luks2Copy.FixedBytes);
        }
        Limits.Require(
            Area.Name, "the digest of the key", digest.Hash, digest.Iterations, digest.Digest.Length, Area.Start + Luks2Copy.FixedBytes);
        Derive(stored, secret, slotKey);
        SecretBuffer key = await ReadKeyAsync(
            stored.Offset, stored.Stripes, stored.KeyLength, stored.SplitHash, stored.Cipher, slotKey, cancellationToken)
            .ConfigureAwait(false);
        byte[] sum = new byte[digest.Digest.Length];
        digest.Hash.Pbkdf2(key.Span, digest.Salt, (int)digest.Iterations, sum);
        if (CryptographicOperations.FixedTimeEquals(sum, digest.Digest) && key.Length == Cipher.KeyLength)
        {
            return key;
        }
        key.Dispose();
        return null;
    }

    protected override async ValueTask StoreAsync(int slot, SecretBuffer secret, int? iterationTime, CancellationToken cancellationToken)
    {
        Luks2Slot next = NewSlot(slot, iterationTime);
        using var slotKey = new SecretBuffer(next.Cipher.KeyLength);
        Derive(next, secret, slotKey);
        cancellationToken.ThrowIfCancellationRequested();
        await WriteKeyAsync(next.Offset, next.Stripes, next.SplitHash, next.Cipher, slotKey).ConfigureAwait(false);
        await ChangeAsync(json =>
        {
            json["keyslots"]![Text(slot)] = SlotJson(next);
            Listed(json).Add(Text(slot));
        }).ConfigureAwait(false);
    }

    protected override async ValueTask EraseAsync(int slot)
    {
        Luks2Slot old = _metadata.Slots.First(s => s.Number == slot);
        await ChangeAsync(json =>
        {
            _ = ((JsonObject)json["keyslots"]!).Remove(Text(slot));
            foreach ((_, JsonNode? digest) in (JsonObject)json["digests"]!)
            {
                Drop((JsonArray)digest!["keyslots"]!);
            }
            foreach ((_, JsonNode? token) in json["tokens"] as JsonObject ?? [])
            {
                if (token?["keyslots"] is JsonArray users)
                {
                    Drop(users);
                }
            }
        }).ConfigureAwait(false);
        await WipeAsync(old.Offset, old.Length).ConfigureAwait(false);

        void Drop(JsonArray list)
        {
            for (int i = list.Count - 1; i >= 0; i--)
            {
                if (list[i] is JsonValue value && value.TryGetValue(out string? name) && name.Equals(Text(slot), StringComparison.Ordinal))
                {
                    list.RemoveAt(i);
                }
            }
        }
    }

    private static string Text(long number) => number.ToString(CultureInfo.InvariantCulture);

    private static void Derive(Luks2Slot slot, SecretBuffer secret, SecretBuffer slotKey)
    {
        if (slot.KdfHash is { } hash)
        {
            hash.Pbkdf2(secret.Span, slot.Salt, (int)slot.Iterations, slotKey.Span);
            return;
        }
        Argon2.Derive(
            slot.Kdf.Equals("argon2id", StringComparison.Ordinal),
            secret.Span,
            slot.Salt,
            (int)slot.Iterations,
            (int)slot.MemoryKib,
            slot.Lanes,
            slotKey.Span);
    }

    private static JsonObject SlotJson(Luks2Slot slot)
    {
        JsonObject kdf = slot.KdfHash is { } hash
            ? new() { ["type"] = slot.Kdf, ["hash"] = hash.Text(), ["iterations"] = slot.Iterations }
            : new() { ["type"] = slot.Kdf, ["time"] = slot.Iterations, ["memory"] = slot.MemoryKib, ["cpus"] = slot.Lanes };
        kdf["salt"] = Convert.ToBase64String(slot.Salt);
        return new()
        {
            ["type"] = "luks2",
            ["key_size"] = slot.KeyLength,
            ["af"] = new JsonObject { ["type"] = "luks1", ["stripes"] = slot.Stripes, ["hash"] = slot.SplitHash.Text() },
            ["area"] = new JsonObject
            {
                ["type"] = "raw",
                ["offset"] = Text(slot.Offset),
                ["size"] = Text(slot.Length),
                ["encryption"] = slot.Cipher.ToString(),
                ["key_size"] = slot.Cipher.KeyLength,
            },
            ["kdf"] = kdf,
        };
    }

    /// <summary>A slot like the others: as they derive keys, and in the first gap.</summary>
    private Luks2Slot NewSlot(int number, int? iterationTime)
    {
        Luks2Slot? like = _metadata.Holders.FirstOrDefault();
        long length = Round.Up((long)Key.Length * Stripes, Luks2Copy.FixedBytes), offset = 2L * _copy.Size;
        foreach (Luks2Slot slot in _metadata.Slots.OrderBy(s => s.Offset))
        {
            offset = slot.Offset < offset + length ? Round.Up(Math.Max(offset, slot.Offset + slot.Length), Luks2Copy.FixedBytes) : offset;
        }
        if (offset + length > Math.Min(_metadata.SlotsEnd, Payload == 0 ? long.MaxValue : Payload))
        {
            throw new DiskImageException(
                DiskImageErrorKind.NoSpace, $"{Area.Name}: there is no room for another key slot. Remove one first.", Area.Name);
        }
        HashAlgorithm hash = like?.KdfHash ?? HashAlgorithm.Sha256;
        bool isPlain = like?.KdfHash is not null;
        return new(
            number,
            Key.Length,
            Stripes,
            like?.SplitHash ?? HashAlgorithm.Sha256,
            offset,
            length,
            Cipher,
            isPlain ? "pbkdf2" : "argon2id",
            isPlain ? hash : null,
            isPlain
                ? Calibration.Iterations(
                    Calibration.IterationsPerSecond(hash, Cipher.KeyLength), iterationTime ?? UsualIterationTime)
                : UsualPasses,
            isPlain ? 0 : MemoryFor(iterationTime),
            isPlain ? 0 : UsualLanes,
            RandomNumberGenerator.GetBytes(SaltBytes));
    }

    /// <summary>Less time is less memory; the standard's least is 32 MiB here.</summary>
    private static int MemoryFor(int? iterationTime)
        => (int)Math.Clamp((long)UsualMemoryKib * (iterationTime ?? UsualIterationTime) / UsualIterationTime, 32 << 10, UsualMemoryKib);

    private JsonArray Listed(JsonObject json)
        => (JsonArray)json["digests"]![_metadata.Digests.First(
            d => d.Segments.Contains(_metadata.SegmentName, StringComparer.Ordinal)).Name]!["keyslots"]!;

    private async ValueTask ChangeAsync(Action<JsonObject> change)
    {
        var json = (JsonObject)_copy.Json.DeepClone();
        change(json);
        _copy = await _copy.WriteBothAsync(Area, json).ConfigureAwait(false);
        (_metadata, Damage) = (Luks2Metadata.Parse(Area, _copy), null);
    }
}
