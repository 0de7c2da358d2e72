using System.Security;
using DiskImage.Block;
using DiskImage.Options;

namespace DiskImage.Crypto.Luks;

/// <summary>What becomes of a key slot.</summary>
internal enum LuksSlotState
{
    /// <summary>It gets the key, for a further secret.</summary>
    Active,

    /// <summary>It is emptied and overwritten.</summary>
    Inactive,
}

/// <summary>A change of key slots by options. Names and rules are QEMU's.</summary>
internal sealed record LuksAmendment
{
    /// <summary>What becomes of the slot; null for no change.</summary>
    [DriverOption("state", "What becomes of a key slot: active (a further secret opens the image) or inactive (emptied)")]
    public LuksSlotState? State { get; init; }

    /// <summary>The name of the further secret.</summary>
    [DriverOption("new-secret", "Name of the secret that is to open the image, too, among those that are given; with state=active")]
    public string? NewSecretName { get; init; }

    /// <summary>The name of the secret whose slots are emptied.</summary>
    [DriverOption("old-secret", "Name of the secret that is to open the image no more, among those that are given; with state=inactive")]
    public string? OldSecretName { get; init; }

    /// <summary>The slot's number.</summary>
    [DriverOption("keyslot", "Number of the key slot; if not given, the first free one, or those of old-secret", Minimum = 0, Maximum = 31)]
    public int? KeySlot { get; init; }

    /// <summary>How long opening takes.</summary>
    [DriverOption("iter-time", "How long trying the new secret is to take, in milliseconds", Minimum = 1, Maximum = 600_000)]
    public int? IterationTime { get; init; }

    /// <summary>Makes the change. All that can be refused is refused before the first write.</summary>
    /// <param name="volume">The open header.</param>
    /// <param name="secrets">What the user gave, by name.</param>
    /// <param name="path">The image, for messages.</param>
    /// <param name="cancellationToken">Stops it before the first change.</param>
    /// <exception cref="DiskImageException">InvalidOption: the options do not fit together. Refused: no slot would be left. What adding and
    /// removing a slot throws.</exception>
    public async ValueTask RunAsync(
        LuksVolume volume, IReadOnlyDictionary<string, SecureString> secrets, string path, CancellationToken cancellationToken)
    {
        if (this == new LuksAmendment())
        {
            return;
        }
        string? wrong = State switch
        {
            null => "which state the slot is to have is not said; allowed: state=active, state=inactive",
            LuksSlotState.Active => NewSecretName is null ? "state=active needs new-secret"
                : OldSecretName is not null ? "old-secret goes with state=inactive" : null,
            _ => NewSecretName is not null ? "new-secret goes with state=active"
                : IterationTime is not null ? "iter-time goes with state=active"
                : (OldSecretName is null) == (KeySlot is null) ? "state=inactive needs either keyslot or old-secret" : null,
        };
        if (wrong is not null)
        {
            throw new DiskImageException(DiskImageErrorKind.InvalidOption, $"{path}: {wrong}.", path);
        }
        if (State == LuksSlotState.Active)
        {
            _ = await volume.AddAsync(Named(NewSecretName!), KeySlot, IterationTime, cancellationToken).ConfigureAwait(false);
            return;
        }
        IReadOnlyList<int> slots = KeySlot is int one ? [one]
            : await volume.FindAllAsync(Named(OldSecretName!), cancellationToken).ConfigureAwait(false);
        if (slots.Count == 0)
        {
            throw Secrets.Wrong(path);
        }
        if (volume.Holders.All(s => slots.Contains(s.Number)))
        {
            throw new DiskImageException(
                DiskImageErrorKind.Refused,
                $"{path}: no key slot but {string.Join(", ", slots)} holds the key. If it is emptied, all data is lost. Add another first.",
                path);
        }
        foreach (int slot in slots)
        {
            await volume.RemoveAsync(slot, allowLast: false, cancellationToken).ConfigureAwait(false);
        }

        SecureString Named(string name) => secrets.GetValueOrDefault(name) ?? throw new DiskImageException(
            DiskImageErrorKind.SecretRequired,
            $"{path}: no secret of the name '{name}' is given. Give it with {new Remedy(RemedyKind.Secret)}.",
            path);
    }
}
