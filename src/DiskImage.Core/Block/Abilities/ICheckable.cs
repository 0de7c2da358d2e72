namespace DiskImage.Block;

/// <summary>How bad a finding is.</summary>
public enum CheckSeverity
{
    /// <summary>Worth knowing, harmless.</summary>
    Warning,

    /// <summary>Space that nothing uses; the contents are safe.</summary>
    Leak,

    /// <summary>Structures contradict each other: data is lost or will be.</summary>
    Corruption,

    /// <summary>Something could not be checked.</summary>
    Error,
}

/// <summary>One defect.</summary>
/// <param name="Kind">What kind, as a short stable word.</param>
/// <param name="Severity">How bad it is.</param>
/// <param name="Message">What was found and what it should be, as <see cref="Printable"/> text.</param>
/// <param name="GuestOffset">The first byte of the virtual disk that is concerned, if any is.</param>
/// <param name="GuestLength">How many bytes of it.</param>
/// <param name="HostOffset">The byte of the image file that is concerned, if one is.</param>
public sealed record CheckFinding(
    string Kind, CheckSeverity Severity, string Message, long? GuestOffset = null, long? GuestLength = null, long? HostOffset = null)
{
    /// <summary>What was found and what it should be, as <see cref="Printable"/> text.</summary>
    public string Message { get; } = Printable.Of(Message);

    /// <summary>The message, and what it says can be done as values; null where it is the message alone.</summary>
    public Wording? Wording { get; init; }

    /// <summary>What repairing would do about it; null if nothing can be done.</summary>
    public string? Repair { get; init; }

    /// <inheritdoc/>
    public override string ToString() => $"{Severity}: {Message}";

    /// <summary>Makes a finding; what its message says can be done stays with it.</summary>
    internal static CheckFinding Of(
        string kind, CheckSeverity severity, Wording message, long? guestOffset = null, long? guestLength = null, long? hostOffset = null)
        => new(kind, severity, message.ToString(), guestOffset, guestLength, hostOffset)
        {
            Wording = message.Remedies.Any() ? message : null,
        };
}

/// <summary>What a check found.</summary>
public sealed record CheckReport
{
    /// <summary>The defects, the first <see cref="MaxFindings"/> of them.</summary>
    public required IReadOnlyList<CheckFinding> Findings { get; init; }

    /// <summary>Defects that lose or endanger data.</summary>
    public long Corruptions { get; init; }

    /// <summary>Units of space that nothing uses.</summary>
    public long Leaks { get; init; }

    /// <summary>Things that could not be checked.</summary>
    public long CheckErrors { get; init; }

    /// <summary>Corruptions that a repair put right.</summary>
    public long CorruptionsFixed { get; init; }

    /// <summary>Leaks that a repair put right.</summary>
    public long LeaksFixed { get; init; }

    /// <summary>Allocation units of the virtual disk.</summary>
    public long? TotalClusters { get; init; }

    /// <summary>Those that are stored.</summary>
    public long? AllocatedClusters { get; init; }

    /// <summary>Those that do not follow their predecessor in the file.</summary>
    public long? FragmentedClusters { get; init; }

    /// <summary>Those stored compressed.</summary>
    public long? CompressedClusters { get; init; }

    /// <summary>Where the last used unit of the file ends.</summary>
    public long? ImageEndOffset { get; init; }

    /// <summary>What a check found after a repair, with what the repair put right.</summary>
    /// <param name="before">What a check found before it.</param>
    public CheckReport RepairedFrom(CheckReport before)
    {
        ArgumentNullException.ThrowIfNull(before);
        return this with
        {
            CorruptionsFixed = Math.Max(0, before.Corruptions - Corruptions),
            LeaksFixed = Math.Max(0, before.Leaks - Leaks),
        };
    }

    /// <summary>The sum of this report and that of another part of the same disk. Where the image ends stays what it is here.</summary>
    /// <param name="part">The other one.</param>
    public CheckReport With(CheckReport part)
    {
        ArgumentNullException.ThrowIfNull(part);
        return this with
        {
            Findings = part.Findings.Count == 0 ? Findings : [.. Findings.Concat(part.Findings).Take(MaxFindings)],
            Corruptions = Corruptions + part.Corruptions,
            Leaks = Leaks + part.Leaks,
            CheckErrors = CheckErrors + part.CheckErrors,
            CorruptionsFixed = CorruptionsFixed + part.CorruptionsFixed,
            LeaksFixed = LeaksFixed + part.LeaksFixed,
            TotalClusters = Sum(TotalClusters, part.TotalClusters),
            AllocatedClusters = Sum(AllocatedClusters, part.AllocatedClusters),
            FragmentedClusters = Sum(FragmentedClusters, part.FragmentedClusters),
            CompressedClusters = Sum(CompressedClusters, part.CompressedClusters),
        };

        static long? Sum(long? one, long? other) => one is null ? other : one + (other ?? 0);
    }

    /// <summary>Findings that are listed one by one; beyond that they are only counted, so that memory is bounded. Ours.</summary>
    public const int MaxFindings = 10_000;
}

/// <summary>A disk that can check its own structures.</summary>
public interface ICheckable
{
    /// <summary>Looks at everything and changes nothing.</summary>
    /// <param name="bytes">Told how many bytes of the virtual disk are looked at.</param>
    /// <param name="cancellationToken">Stops the check.</param>
    ValueTask<CheckReport> CheckAsync(IProgress<long>? bytes, CancellationToken cancellationToken);
}
