namespace DiskImage.Formats.Qcow2;

/// <summary>What a qcow2 header says beyond the facts that all formats share.</summary>
public readonly record struct Qcow2Info()
{
    /// <summary>"0.10" for version 2, "1.1" for version 3.</summary>
    public required string Compat { get; init; }

    /// <summary>How compressed clusters are compressed.</summary>
    public required string CompressionType { get; init; }

    /// <inheritdoc/>
    public override string ToString() => $"compat {Compat}";

    /// <summary>Refcount updates may be postponed.</summary>
    public required bool LazyRefcounts { get; init; }

    /// <summary>Bits of a refcount.</summary>
    public required int RefcountBits { get; init; }

    /// <summary>The image is marked corrupt.</summary>
    public required bool Corrupt { get; init; }

    /// <summary>L2 entries have subcluster bitmaps.</summary>
    public required bool ExtendedL2 { get; init; }

    /// <summary>The external data file's name; null if the data is in the image.</summary>
    public string? DataFile { get; init; }

    /// <summary>The external data file is a raw image of the disk.</summary>
    public bool DataFileRaw { get; init; }

    /// <summary>How the data is encrypted: <c>aes</c>, or of a LUKS header what Linux calls it; null for not at all.</summary>
    public string? Encryption { get; init; }

    /// <summary>Key slots of the LUKS header that hold the key; null if there is none.</summary>
    public int? ActiveSlots { get; init; }

    internal static Qcow2Info Of(Qcow2Header header, Qcow2Encryption? encryption) => new()
    {
        Encryption = encryption is null ? null : encryption.Volume is { } volume ? $"luks {volume.Cipher}" : "aes",
        ActiveSlots = encryption?.Volume?.Slots.Count(s => s.IsActive),
        Compat = header.Version < 3 ? "0.10" : "1.1",
        CompressionType = header.CompressionType.ToString(),
        LazyRefcounts = (header.Compatible & Qcow2Compatible.LazyRefcounts) != Qcow2Compatible.None,
        RefcountBits = 1 << header.RefcountOrder,
        Corrupt = header.Has(Qcow2Incompatible.Corrupt),
        ExtendedL2 = header.Has(Qcow2Incompatible.ExtendedL2),
        DataFile = header.DataFile,
        DataFileRaw = (header.AutoClear & Qcow2AutoClear.RawExternalData) != Qcow2AutoClear.None,
    };
}
