using System.Security;
using DiskImage.Block;
using DiskImage.Crypto;
using DiskImage.Crypto.Luks;

namespace DiskImage.Formats.Luks;

/// <summary>What a LUKS header says beyond the facts that all formats share.</summary>
public readonly record struct LuksInfo()
{
    /// <summary>The version of the format.</summary>
    public required int Version { get; init; }

    /// <summary>The volume's identifier.</summary>
    public required string Uuid { get; init; }

    /// <summary>How the data is encrypted, as Linux calls it.</summary>
    public required string Cipher { get; init; }

    /// <summary>Bits of the data's key.</summary>
    public required int KeyBits { get; init; }

    /// <summary>The hash of the header.</summary>
    public required string Hash { get; init; }

    /// <summary>Where the data begins.</summary>
    public required long PayloadOffset { get; init; }

    /// <summary>Bytes that are encrypted together.</summary>
    public required int SectorSize { get; init; }

    /// <summary>Key slots that hold the key.</summary>
    public required int ActiveSlots { get; init; }

    /// <summary>The header is in a file of its own.</summary>
    public required bool DetachedHeader { get; init; }

    /// <inheritdoc/>
    public override string ToString()
        => $"LUKS{Version} {Cipher}, {KeyBits} bits, {ActiveSlots} key {(ActiveSlots == 1 ? "slot" : "slots")} in use";
}

/// <summary>A LUKS volume as a disk: one run of its file under the cipher.</summary>
/// <remarks>
/// A header whose data is in another file, opened without that, is a disk of no bytes: its key slots can be seen to, and there is nothing
/// to be read.
/// </remarks>
internal sealed class LuksNode : CipherNode, IDescribed, IKeySlots, ICheckable, IRepairable
{
    private readonly LuksVolume _volume;
    private readonly IReadOnlyDictionary<string, SecureString> _secrets;
    private readonly bool _isDetached;
    private readonly Dictionary<string, BlockNode> _children;

    /// <summary>Takes over the nodes and the volume.</summary>
    /// <param name="file">Holds the data.</param>
    /// <param name="header">Holds the header, if that is another file.</param>
    /// <param name="volume">The header.</param>
    /// <param name="secrets">What the user gave, by name, for changes of key slots.</param>
    public LuksNode(BlockNode file, BlockNode? header, LuksVolume volume, IReadOnlyDictionary<string, SecureString> secrets)
        : base(file, volume.Payload, volume.MakeCipher(isByPlace: false))
    {
        (_volume, _isDetached, _secrets) = (volume, header is not null, secrets);
        _children = new(StringComparer.Ordinal) { ["file"] = file };
        if (header is not null)
        {
            _children.Add("header", header);
        }
    }

    public override IReadOnlyDictionary<string, BlockNode> Children => _children;

    public override long Length => IsHeaderAlone ? 0
        : _volume.PayloadLength ?? Math.Max(0, (File.Length - Start) / _volume.SectorSize * _volume.SectorSize);

    private bool IsHeaderAlone => !_isDetached && Start == 0;

    private static Wording Alone
        => $"is a header alone, whose data is in another file: open that with the format luks, and this as its node 'header'";

    public bool IsUnlocked => _volume.IsUnlocked;

    public ImageDescription Describe() => new()
    {
        Format = LuksDriver.FormatName,
        Encrypted = true,
        Warnings = IsHeaderAlone ? [.. _volume.Warnings, Alone.ToString()] : _volume.Warnings,
        FormatSpecific = new LuksInfo
        {
            Version = _volume.Version,
            Uuid = _volume.Uuid,
            Cipher = _volume.Cipher.ToString(),
            KeyBits = _volume.Cipher.KeyLength * 8,
            Hash = _volume.HashText,
            PayloadOffset = Start,
            SectorSize = _volume.SectorSize,
            ActiveSlots = _volume.Slots.Count(s => s.IsActive),
            DetachedHeader = _isDetached,
        },
    };

    public IReadOnlyList<KeySlot> GetKeySlots() => _volume.Slots;

    public ValueTask<int?> FindKeySlotAsync(SecureString secret, CancellationToken cancellationToken)
        => _volume.FindAsync(secret, cancellationToken);

    public ValueTask<int> AddKeySlotAsync(SecureString secret, int? slot, int? iterationTime, CancellationToken cancellationToken)
        => _volume.AddAsync(secret, slot, iterationTime, cancellationToken);

    public ValueTask RemoveKeySlotAsync(int slot, bool allowLast, CancellationToken cancellationToken)
        => _volume.RemoveAsync(slot, allowLast, cancellationToken);

    public ValueTask AmendAsync(LuksAmendment change, CancellationToken cancellationToken)
        => change.RunAsync(_volume, _secrets, Name, cancellationToken);

    public async ValueTask<CheckReport> CheckAsync(IProgress<long>? bytes, CancellationToken cancellationToken)
    {
        CheckReport report = await _volume.CheckAsync(cancellationToken).ConfigureAwait(false);
        bytes?.Report(Length);
        return report with { ImageEndOffset = Start + Length };
    }

    public async ValueTask<CheckReport> RepairAsync(RepairMode mode, IProgress<long>? bytes, CancellationToken cancellationToken)
    {
        CheckReport before = await CheckAsync(null, cancellationToken).ConfigureAwait(false);
        if (mode == RepairMode.All && _volume is Luks2Volume second)
        {
            await second.RepairAsync().ConfigureAwait(false);
        }
        return (await CheckAsync(bytes, cancellationToken).ConfigureAwait(false)).RepairedFrom(before);
    }

    protected override ValueTask ResizeCoreAsync(
        long length, PreallocationMode preallocation, IProgress<long>? claimed, CancellationToken cancellationToken)
        => IsHeaderAlone ? throw new DiskImageException(DiskImageErrorKind.Unsupported, $"{Name}: {Alone}", Name)
            : _volume.PayloadLength is null
            ? GrowAsync(Binary.Round.Up(length, _volume.SectorSize), preallocation, claimed, cancellationToken)
            : throw new DiskImageException(
                DiskImageErrorKind.Unsupported,
                $"{Name}: its header fixes its length, so it cannot be changed; only images of dynamic size can",
                Name);

    protected override async ValueTask CloseCoreAsync()
    {
        await base.CloseCoreAsync().ConfigureAwait(false);
        _volume.Dispose();
    }

    /// <summary>What is new reads as zeroes, so zeroes are written: a hole would read as noise.</summary>
    private async ValueTask GrowAsync(
        long length, PreallocationMode preallocation, IProgress<long>? claimed, CancellationToken cancellationToken)
    {
        long old = Length;
        if (length > old && !IsUnlocked)
        {
            throw Secrets.Required(Name);
        }
        await File.ResizeAsync(Start + length, preallocation, claimed, cancellationToken).ConfigureAwait(false);
        long from = Binary.Round.Up(old, _volume.SectorSize);
        if (length > from)
        {
            // whoever resizes has the whole disk to itself already, so this is no request of its own
            await WriteZeroesCoreAsync(from, length - from, ZeroWriteMode.KeepAllocated, cancellationToken).ConfigureAwait(false);
        }
    }
}
