using System.Security;
using DiskImage.Binary;
using DiskImage.Block;

namespace DiskImage.Crypto.Luks;

/// <summary>
/// An open LUKS header with its key slots: which secret opens which slot, and the key of the disk once one has. The data is somebody
/// else's: a file of its own format, or the clusters of another.
/// </summary>
internal abstract class LuksVolume(LuksArea area, KeyLimits limits) : IDisposable
{
    private const int Sector = 512;

    private SecretBuffer? _key;

    /// <summary>The version of the format, 1 or 2.</summary>
    public abstract int Version { get; }

    /// <summary>The volume's identifier, as text.</summary>
    public abstract string Uuid { get; }

    /// <summary>How the data is encrypted.</summary>
    public abstract CipherSpec Cipher { get; }

    /// <summary>The hash of the header.</summary>
    public abstract string HashText { get; }

    /// <summary>Where the data begins, from the header's first byte; 0 if it is in another file.</summary>
    public abstract long Payload { get; }

    /// <summary>Bytes of data; null for all there is room for.</summary>
    public virtual long? PayloadLength => null;

    /// <summary>Bytes that are encrypted together.</summary>
    public virtual int SectorSize => 512;

    /// <summary>The number of the first sector, for its vector, in units of 512 bytes.</summary>
    protected virtual long FirstNumber => 0;

    /// <summary>All slots.</summary>
    public abstract IReadOnlyList<KeySlot> Slots { get; }

    /// <summary>The slots of which one at least must stay: those that hold the key of the disk.</summary>
    public IEnumerable<KeySlot> Holders => Slots.Where(s => s.IsActive && HoldsKey(s.Number) && FaultOf(s.Number) is null);

    /// <summary>What whoever uses the image should know.</summary>
    public virtual IReadOnlyList<string> Warnings => [];

    /// <summary>The key is known.</summary>
    public bool IsUnlocked => _key is not null;

    protected LuksArea Area { get; } = area;

    protected KeyLimits Limits { get; } = limits;

    /// <summary>The key of the disk.</summary>
    /// <exception cref="DiskImageException">SecretRequired: it is not known.</exception>
    protected SecretBuffer Key => _key ?? throw Secrets.Required(Area.Name);

    /// <summary>Reads a header of either version.</summary>
    /// <exception cref="DiskImageException">InvalidFormat, Corrupt or Unsupported.</exception>
    public static async ValueTask<LuksVolume> OpenAsync(LuksArea area, KeyLimits limits, CancellationToken cancellationToken)
    {
        byte[] bytes = new byte[Luks1Header.Bytes];
        await area.ReadAsync(0, bytes, cancellationToken).ConfigureAwait(false);
        int version = Luks1Header.IsSigned(bytes) ? Luks1Header.Version(bytes) : 0;
        if (version == 1)
        {
            return new Luks1Volume(area, limits, Luks1Header.Parse(bytes, area));
        }
        (Luks2Volume? second, string wrong) = await Luks2Volume.TryOpenAsync(area, limits, cancellationToken).ConfigureAwait(false);
        return second ?? throw (version switch
        {
            0 => area.Wrong(DiskImageErrorKind.InvalidFormat, "the magic at offset 0 is missing", 0),
            2 => area.Wrong(DiskImageErrorKind.Corrupt, wrong, 0),
            _ => area.Wrong(DiskImageErrorKind.Unsupported, $"version {version}; known: 1 and 2", 6),
        });
    }

    /// <summary>Finds the key with a secret.</summary>
    /// <exception cref="DiskImageException">WrongSecret; Corrupt: so it may be, but a slot that is damaged may be its own as well;
    /// OutOfRange: a slot would take too long or too much.</exception>
    public async ValueTask UnlockAsync(SecretBuffer secret, CancellationToken cancellationToken)
    {
        if (await TryOpenAsync(secret, cancellationToken).ConfigureAwait(false) is { } found)
        {
            Adopt(found.Key);
            return;
        }
        throw Slots.Select(s => FaultOf(s.Number)).FirstOrDefault(f => f is not null) is { } fault
            ? Area.Wrong(DiskImageErrorKind.Corrupt, $"{fault}; and the secret opens none of the other slots", 0)
            : Secrets.Wrong(Area.Name);
    }

    /// <summary>The slot that a secret opens; null if it opens none.</summary>
    public async ValueTask<int?> FindAsync(SecureString secret, CancellationToken cancellationToken)
    {
        using SecretBuffer text = SecretBuffer.OfText(secret);
        if (await TryOpenAsync(text, cancellationToken).ConfigureAwait(false) is not { } found)
        {
            return null;
        }
        found.Key.Dispose();
        return found.Slot;
    }

    /// <summary>All slots that a secret opens.</summary>
    public async ValueTask<IReadOnlyList<int>> FindAllAsync(SecureString secret, CancellationToken cancellationToken)
    {
        using SecretBuffer text = SecretBuffer.OfText(secret);
        var found = new List<int>();
        foreach (KeySlot slot in Slots.Where(s => s.IsActive && CanBeTried(s.Number)))
        {
            cancellationToken.ThrowIfCancellationRequested();
            using SecretBuffer? key = await TrySlotAsync(slot.Number, text, cancellationToken).ConfigureAwait(false);
            if (key is not null)
            {
                found.Add(slot.Number);
            }
        }
        return found;
    }

    /// <summary>The cipher of the data; one that only says what is missing while the key is not known.</summary>
    /// <param name="isByPlace">See <see cref="ISectorCipher.IsByPlace"/>.</param>
    public ISectorCipher MakeCipher(bool isByPlace)
        => _key is null ? new LockedCipher(Area.Name, SectorSize, isByPlace) : Cipher.Make(_key.Span, SectorSize, isByPlace, FirstNumber);

    /// <inheritdoc cref="IKeySlots.AddKeySlotAsync"/>
    public async ValueTask<int> AddAsync(SecureString secret, int? slot, int? iterationTime, CancellationToken cancellationToken)
    {
        _ = Key;
        int number = slot ?? Slots.FirstOrDefault(s => !s.IsActive && FaultOf(s.Number) is null)?.Number
            ?? throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"{Area.Name}: all of its {Slots.Count} key slots are in use. Remove one first.",
                Area.Name);
        KeySlot chosen = Require(number);
        RequireSound(number);
        if (chosen.IsActive)
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"{Area.Name}: key slot {number} is in use. Choose another, or remove it first.",
                Area.Name);
        }
        using SecretBuffer text = SecretBuffer.OfText(secret);
        await StoreAsync(number, text, iterationTime, cancellationToken).ConfigureAwait(false);
        return number;
    }

    /// <inheritdoc cref="IKeySlots.RemoveKeySlotAsync"/>
    public async ValueTask RemoveAsync(int slot, bool allowLast, CancellationToken cancellationToken)
    {
        if (!Require(slot).IsActive)
        {
            throw new DiskImageException(
                DiskImageErrorKind.NotFound, $"{Area.Name}: key slot {slot} holds no key, so there is nothing to remove", Area.Name);
        }
        RequireSound(slot);
        if (!allowLast && Holders.All(s => s.Number == slot))
        {
            throw new DiskImageException(
                DiskImageErrorKind.Refused,
                $"{Area.Name}: key slot {slot} is the last one that holds the key. Without it all data is lost. Add another first; if the "
                    + $"data is to be lost, say so with {new Remedy(RemedyKind.Force)}.",
                Area.Name);
        }
        cancellationToken.ThrowIfCancellationRequested();
        await EraseAsync(slot).ConfigureAwait(false);
    }

    /// <summary>Damage of the header and of its slots, as far as it shows without a secret.</summary>
    public async ValueTask<CheckReport> CheckAsync(CancellationToken cancellationToken)
    {
        var findings = new CheckFindings();
        CheckHeader(findings);
        foreach (KeySlot slot in Slots)
        {
            if (FaultOf(slot.Number) is { } fault)
            {
                findings.Corruption("KeySlotRecord", $"{fault}: the slot is not used{LastResort}", host: Area.Start);
            }
        }
        if (!Slots.Any(s => s.IsActive))
        {
            findings.Corruption("NoKeySlot", $"no key slot holds the key, so nothing opens the disk{LastResort}", host: Area.Start);
        }
        foreach (KeySlot slot in Slots.Where(s => s.IsActive && FaultOf(s.Number) is null))
        {
            await CheckSlotAsync(slot, findings, cancellationToken).ConfigureAwait(false);
        }
        return new CheckReport { Findings = findings.List, Corruptions = findings.Corruptions };
    }

    /// <inheritdoc/>
    public void Dispose() => _key?.Dispose();

    /// <summary>What helps where nothing here does, to follow a finding.</summary>
    protected virtual string LastResort => "";

    /// <summary>Damage of the header itself.</summary>
    protected virtual void CheckHeader(CheckFindings findings)
    {
    }

    /// <summary>What is wrong with a slot's record: nothing is then written to the slot. Null if nothing is.</summary>
    protected virtual Wording? FaultOf(int slot) => null;

    /// <summary>A secret may be tried on an active slot.</summary>
    protected virtual bool CanBeTried(int slot) => true;

    /// <summary>An active slot holds the key of the disk, and not another one.</summary>
    protected virtual bool HoldsKey(int slot) => true;

    /// <summary>Takes over the key.</summary>
    protected void Adopt(SecretBuffer key)
    {
        _key?.Dispose();
        _key = key;
    }

    /// <summary>Opens one active slot with a secret; null if it is not its secret.</summary>
    protected abstract ValueTask<SecretBuffer?> TrySlotAsync(int slot, SecretBuffer secret, CancellationToken cancellationToken);

    /// <summary>Stores the key in an empty slot, durably: first the key, then what says that it is there.</summary>
    protected abstract ValueTask StoreAsync(int slot, SecretBuffer secret, int? iterationTime, CancellationToken cancellationToken);

    /// <summary>Empties a slot, durably: first what says that the key is there, then the key is overwritten.</summary>
    protected abstract ValueTask EraseAsync(int slot);

    /// <summary>Reads a slot's bytes, decrypts and merges them.</summary>
    protected async ValueTask<SecretBuffer> ReadKeyAsync(
        long offset,
        int stripes,
        int keyLength,
        HashAlgorithm hash,
        CipherSpec cipher,
        SecretBuffer slotKey,
        CancellationToken cancellationToken)
    {
        int split = keyLength * stripes;
        using var bytes = new SecretBuffer((int)Round.Up(split, Sector));
        await Area.ReadAsync(offset, bytes.Memory, cancellationToken).ConfigureAwait(false);
        using (ISectorCipher decryptor = cipher.Make(slotKey.Span))
        {
            decryptor.Decrypt(bytes.Span, 0);
        }
        var key = new SecretBuffer(keyLength);
        AntiForensic.Merge(hash, bytes.Span[..split], key.Span);
        return key;
    }

    /// <summary>Splits, encrypts and writes the key.</summary>
    protected async ValueTask WriteKeyAsync(long offset, int stripes, HashAlgorithm hash, CipherSpec cipher, SecretBuffer slotKey)
    {
        int split = Key.Length * stripes;
        using var bytes = new SecretBuffer((int)Round.Up(split, Sector));
        AntiForensic.Split(hash, Key.Span, bytes.Span[..split]);
        using (ISectorCipher encryptor = cipher.Make(slotKey.Span))
        {
            encryptor.Encrypt(bytes.Span, 0);
        }
        await Area.WriteDurablyAsync(offset, bytes.Memory).ConfigureAwait(false);
    }

    /// <summary>Overwrites what a slot held.</summary>
    protected async ValueTask WipeAsync(long offset, long length)
    {
        using SecretBuffer noise = SecretBuffer.Random((int)length);
        await Area.WriteDurablyAsync(offset, noise.Memory).ConfigureAwait(false);
    }

    private async ValueTask<(SecretBuffer Key, int Slot)?> TryOpenAsync(SecretBuffer secret, CancellationToken cancellationToken)
    {
        foreach (KeySlot slot in Slots.Where(s => s.IsActive && CanBeTried(s.Number)))
        {
            cancellationToken.ThrowIfCancellationRequested();
            if (await TrySlotAsync(slot.Number, secret, cancellationToken).ConfigureAwait(false) is { } key)
            {
                return (key, slot.Number);
            }
        }
        return null;
    }

    /// <summary>
    /// What is stored of a key looks random, and all of it is needed: a sector of one value throughout was overwritten, and the
    /// slot is lost.
    /// </summary>
    private async ValueTask CheckSlotAsync(KeySlot slot, CheckFindings findings, CancellationToken cancellationToken)
    {
        byte[] stored = new byte[Math.Min(slot.Length, (long)Cipher.KeyLength * slot.Stripes)];
        await Area.ReadAsync(slot.Offset - Area.Start, stored, cancellationToken).ConfigureAwait(false);
        int count = 0, first = -1;
        for (int at = 0; at + Sector <= stored.Length; at += Sector)
        {
            if (!stored.AsSpan(at, Sector).ContainsAnyExcept(stored[at]))
            {
                count++;
                first = first < 0 ? at : first;
            }
        }
        if (count > 0)
        {
            findings.Corruption(
                "KeySlotData",
                $"{count:#,0} of the {stored.Length / Sector:#,0} sectors of key slot {slot.Number} are overwritten, and all are needed: "
                    + $"its secret does not open the disk any more{LastResort}",
                host: slot.Offset + first);
        }
    }

    private void RequireSound(int slot)
    {
        if (FaultOf(slot) is { } fault)
        {
            throw Area.Wrong(DiskImageErrorKind.Corrupt, $"{fault}; so nothing is written to it. Choose another slot.", 0);
        }
    }

    private KeySlot Require(int number)
        => Slots.FirstOrDefault(s => s.Number == number) ?? throw new DiskImageException(
            DiskImageErrorKind.InvalidOption,
            $"{Area.Name}: there is no key slot {number}; allowed: {Slots[0].Number} to {Slots[^1].Number}",
            Area.Name);
}
