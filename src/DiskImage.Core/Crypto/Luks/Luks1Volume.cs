using System.Security.Cryptography;
using DiskImage.Block;

namespace DiskImage.Crypto.Luks;

/// <summary>LUKS version 1. Spec: LUKS On-Disk Format Specification 1.2.3.</summary>
/// <remarks>
/// A slot's record changes in two steps, each durable: everything but the word that says that it holds the key, and that word, which no
/// power cut can tear. So a slot is whole or not there.
/// </remarks>
internal sealed class Luks1Volume(LuksArea area, KeyLimits limits, Luks1Header header) : LuksVolume(area, limits)
{
    private const int UsualIterationTime = 2000; // milliseconds: QEMU's
    private const int DigestShare = 8; // the digest takes so much less time than a slot: QEMU's and the standard's

    private Luks1Header _header = header;

    public override int Version => 1;

    public override string Uuid => _header.Uuid;

    public override CipherSpec Cipher => _header.Cipher;

    public override string HashText => _header.Hash.Text();

    public override long Payload => _header.Payload;

    public override IReadOnlyList<KeySlot> Slots => [.. _header.KeySlots.Select((s, i) => new KeySlot(
        i,
        s.IsActive,
        s.IsActive ? "pbkdf2" : null,
        s.IsActive ? _header.Hash.Text() : null,
        s.IsActive ? s.Iterations : 0,
        null,
        null,
        s.Stripes,
        Area.Start + s.Offset,
        _header.AreaLength(s)))];

    public override IReadOnlyList<string> Warnings => [.. _header.Faults.OrderBy(f => f.Key).Select(f => f.Value.What.ToString())];

    protected override string LastResort
        => ". Version 1 keeps no second copy of its header: only a backup of it brings back what is lost";

    /// <summary>Bytes of a new header with its slots, up to where the data begins.</summary>
    public static long NewLength(CipherSpec cipher)
        => Luks1Header.New(cipher, HashAlgorithm.Sha256, Guid.Empty, isDetached: false).Payload;

    /// <summary>Makes a volume with a new key in slot 0. The area reads as zeroes; nothing is durable yet but the key.</summary>
    /// <param name="area">Where it is to be.</param>
    /// <param name="cipher">How the data is to be encrypted.</param>
    /// <param name="hash">The hash of the header.</param>
    /// <param name="isDetached">The data will be in another file.</param>
    /// <param name="uuid">Its identifier.</param>
    /// <param name="secret">The secret of slot 0.</param>
    /// <param name="iterationTime">How long opening slot 0 is to take, in milliseconds.</param>
    /// <param name="cancellationToken">Stops it.</param>
    public static async ValueTask<Luks1Volume> CreateAsync(
        LuksArea area,
        CipherSpec cipher,
        HashAlgorithm hash,
        bool isDetached,
        Guid uuid,
        SecretBuffer secret,
        int iterationTime,
        CancellationToken cancellationToken)
    {
        Luks1Header header = Luks1Header.New(cipher, hash, uuid, isDetached);
        SecretBuffer key = SecretBuffer.Random(cipher.KeyLength);
        byte[] salt = RandomNumberGenerator.GetBytes(Luks1Header.SaltBytes), digest = new byte[Luks1Header.DigestBytes];
        int iterations = Calibration.Iterations(
            Calibration.IterationsPerSecond(hash, Luks1Header.DigestBytes), iterationTime / DigestShare);
        hash.Pbkdf2(key.Span, salt, iterations, digest);
        header = header with { Digest = digest, DigestSalt = salt, DigestIterations = (uint)iterations };
        var volume = new Luks1Volume(area, KeyLimits.Default, header);
        try
        {
            volume.Adopt(key);
            await area.WriteDurablyAsync(0, header.ToBytes()).ConfigureAwait(false);
            await volume.StoreAsync(0, secret, iterationTime, cancellationToken).ConfigureAwait(false);
            return volume;
        }
        catch
        {
            volume.Dispose();
            throw;
        }
    }

    protected override Wording? FaultOf(int slot) => _header.Faults.GetValueOrDefault(slot)?.What;

    protected override bool CanBeTried(int slot) => _header.Faults.GetValueOrDefault(slot)?.CanBeTried != false;

    protected override async ValueTask<SecretBuffer?> TrySlotAsync(int slot, SecretBuffer secret, CancellationToken cancellationToken)
    {
        Luks1Slot stored = _header.KeySlots[slot];
        int at = Luks1Header.RecordAt(slot);
        Limits.Require(Area.Name, $"key slot {slot}", _header.Hash, stored.Iterations, Cipher.KeyLength, Area.Start + at);
        Limits.Require(
            Area.Name, "the digest of the key", _header.Hash, _header.DigestIterations, Luks1Header.DigestBytes, Area.Start);
        using var slotKey = new SecretBuffer(Cipher.KeyLength);
        _header.Hash.Pbkdf2(secret.Span, stored.Salt, (int)stored.Iterations, slotKey.Span);
        SecretBuffer key = await ReadKeyAsync(
            stored.Offset, stored.Stripes, Cipher.KeyLength, _header.Hash, Cipher, slotKey, cancellationToken).ConfigureAwait(false);
        byte[] digest = new byte[Luks1Header.DigestBytes];
        _header.Hash.Pbkdf2(key.Span, _header.DigestSalt, (int)_header.DigestIterations, digest);
        if (CryptographicOperations.FixedTimeEquals(digest, _header.Digest))
        {
            return key;
        }
        key.Dispose();
        return null;
    }

    protected override async ValueTask StoreAsync(int slot, SecretBuffer secret, int? iterationTime, CancellationToken cancellationToken)
    {
        Luks1Slot old = _header.KeySlots[slot];
        int iterations = Calibration.Iterations(
            Calibration.IterationsPerSecond(_header.Hash, Cipher.KeyLength), iterationTime ?? UsualIterationTime);
        Luks1Slot next = old with
        {
            Iterations = (uint)iterations, Salt = RandomNumberGenerator.GetBytes(Luks1Slot.SaltBytes), Stripes = Luks1Header.UsualStripes,
        };
        if (_header.AreaLength(next) > _header.AreaLength(old))
        {
            next = next with { Stripes = old.Stripes }; // somebody chose fewer, and there is no room for more
        }
        using var slotKey = new SecretBuffer(Cipher.KeyLength);
        _header.Hash.Pbkdf2(secret.Span, next.Salt, iterations, slotKey.Span);
        cancellationToken.ThrowIfCancellationRequested();
        await WriteKeyAsync(next.Offset, next.Stripes, _header.Hash, Cipher, slotKey).ConfigureAwait(false);
        await WriteRecordAsync(slot, next).ConfigureAwait(false);
        await WriteStateAsync(slot, next with { IsActive = true }).ConfigureAwait(false);
    }

    protected override async ValueTask EraseAsync(int slot)
    {
        Luks1Slot old = _header.KeySlots[slot];
        await WriteStateAsync(slot, old with { IsActive = false }).ConfigureAwait(false);
        await WipeAsync(old.Offset, _header.AreaLength(old)).ConfigureAwait(false);
        await WriteRecordAsync(slot, old.Emptied).ConfigureAwait(false);
    }

    /// <summary>Writes a record that does not hold the key.</summary>
    private ValueTask WriteRecordAsync(int slot, Luks1Slot record) => WriteAsync(slot, record, Luks1Slot.Bytes);

    private ValueTask WriteStateAsync(int slot, Luks1Slot record) => WriteAsync(slot, record, Luks1Slot.StateBytes);

    private async ValueTask WriteAsync(int slot, Luks1Slot record, int length)
    {
        byte[] bytes = new byte[Luks1Slot.Bytes];
        record.Write(bytes);
        await Area.WriteDurablyAsync(Luks1Header.RecordAt(slot), bytes.AsMemory(0, length)).ConfigureAwait(false);
        _header = _header.With(slot, record);
    }
}
