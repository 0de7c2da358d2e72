using DiskImage.Block;
using DiskImage.Operations;

namespace DiskImage.PowerShell;

/// <summary>What a check of an image's structures found.</summary>
public sealed class DiskImageCheckResult
{
    /// <summary>The image's full path, or its URI.</summary>
    public required string Path { get; init; }

    /// <summary>The format's name; null if the image cannot even be opened.</summary>
    public string? Format { get; init; }

    /// <summary>Nothing is wrong: no corruption, no leak, nothing left unchecked, and the image is finished and was closed.</summary>
    public bool IsConsistent { get; init; }

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

    /// <summary>Where the last used unit of the file ends, in bytes.</summary>
    public long? ImageEndOffset { get; init; }

    /// <summary>One object per defect.</summary>
    public ReadableList<DiskImageFinding> Findings { get; init; } = new([]);

    /// <summary>Why the service or program of a profile would refuse the image. That is nothing wrong with the image itself.</summary>
    public ReadableList<string> ProfileRefusals { get; private set; } = new([]);

    /// <inheritdoc/>
    public override string ToString() => Printable.Of($"{Path}: {(IsConsistent ? "consistent" : "not consistent")}");

    /// <summary>What a check or repair came to.</summary>
    internal static DiskImageCheckResult Of(CheckOutcome outcome) => new()
    {
        Path = outcome.Path,
        Format = outcome.Format,
        IsConsistent = outcome.IsConsistent,
        Corruptions = outcome.Corruptions,
        Leaks = outcome.Report.Leaks,
        CheckErrors = outcome.CheckErrors,
        CorruptionsFixed = outcome.Report.CorruptionsFixed,
        LeaksFixed = outcome.Report.LeaksFixed,
        TotalClusters = outcome.Report.TotalClusters,
        AllocatedClusters = outcome.Report.AllocatedClusters,
        FragmentedClusters = outcome.Report.FragmentedClusters,
        CompressedClusters = outcome.Report.CompressedClusters,
        ImageEndOffset = outcome.Report.ImageEndOffset,
        Findings = new(outcome.Findings.Select(DiskImageFinding.Of)),
    };

    /// <summary>The same with what a profile has against the image.</summary>
    internal DiskImageCheckResult RefusedFor(IEnumerable<string> refusals)
    {
        var result = (DiskImageCheckResult)MemberwiseClone();
        result.ProfileRefusals = new(refusals);
        return result;
    }
}
