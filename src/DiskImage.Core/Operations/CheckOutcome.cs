using DiskImage.Block;

namespace DiskImage.Operations;

/// <summary>What is known of an image's structures.</summary>
/// <param name="Path">The image's full path, or its URI.</param>
/// <param name="Format">The format's name; null if the image cannot even be opened.</param>
/// <param name="Report">What the format's check or repair says.</param>
/// <param name="Also">What is seen beside it: of what the image stands on, of its further files, of its marks.</param>
public sealed record CheckOutcome(string Path, string? Format, CheckReport Report, IReadOnlyList<CheckFinding> Also)
{
    /// <summary>Nothing is wrong: no corruption, no leak, nothing left unchecked, and the image is finished and was closed.</summary>
    public bool IsConsistent
        => Also.All(f => f.Severity == CheckSeverity.Warning) && Report is { Corruptions: 0, Leaks: 0, CheckErrors: 0 };

    /// <summary>Defects that lose or endanger data.</summary>
    public long Corruptions => Report.Corruptions + Also.Count(f => f.Severity == CheckSeverity.Corruption);

    /// <summary>Things that could not be checked.</summary>
    public long CheckErrors => Report.CheckErrors + Also.Count(f => f.Severity == CheckSeverity.Error);

    /// <summary>All of it, what was seen beside the check first.</summary>
    public IEnumerable<CheckFinding> Findings => Also.Concat(Report.Findings);
}
