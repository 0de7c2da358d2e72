using DiskImage.Block;

namespace DiskImage.PowerShell;

/// <summary>One defect of an image. Offsets and lengths are bytes.</summary>
public sealed class DiskImageFinding
{
    /// <summary>What kind, as a short stable word.</summary>
    public required string Kind { get; init; }

    /// <summary>How bad it is: Warning, Leak, Corruption, or Error for what could not be checked.</summary>
    public required string Severity { get; init; }

    /// <summary>What was found and what it should be.</summary>
    public required string Message { get; init; }

    /// <summary>The first byte of the virtual disk that is concerned, if any is.</summary>
    public long? GuestOffset { get; init; }

    /// <summary>How many bytes of it.</summary>
    public long? GuestLength { get; init; }

    /// <summary>The byte of the image file that is concerned, if one is.</summary>
    public long? HostOffset { get; init; }

    /// <summary>What repairing would do about it; null if nothing can be done.</summary>
    public string? Repair { get; init; }

    /// <inheritdoc/>
    public override string ToString() => Printable.Of($"{Severity}: {Message}");

    internal static DiskImageFinding Of(CheckFinding finding) => new()
    {
        Kind = finding.Kind,
        Severity = finding.Severity.ToString(),
        Message = finding.Wording is { } wording ? RemedyWords.Say(wording) : finding.Message,
        GuestOffset = finding.GuestOffset,
        GuestLength = finding.GuestLength,
        HostOffset = finding.HostOffset,
        Repair = finding.Repair,
    };
}
