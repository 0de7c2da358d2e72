using DiskImage.Block;

namespace DiskImage.Formats;

/// <summary>
/// What is said when the parent that a differencing disk records is not found, or another disk in its place. The same words for every
/// format with such records, and one way out.
/// </summary>
internal static class ParentMismatch
{
    /// <summary>The open option that takes such a parent all the same; formats that check their parents have it.</summary>
    public const string IgnoreOption = "ignore_id_mismatch";

    /// <summary>What to know before a disk's identity is changed.</summary>
    public static Wording AmendWarning =>
        $"differencing disks that were made on it record its present identity and will refuse it. "
            + $"Record the new one in each with {Record}.";

    private static Remedy Record => new(RemedyKind.RecordBacking);

    private static Wording Advice =>
        $"If you know that it is the right one, pass {new Remedy(RemedyKind.IgnoreIdMismatch)} (open "
            + $"option {IgnoreOption}) to open it anyway,"
            + $" or record it anew with {Record}.";

    /// <summary>None of the recorded paths leads to the parent.</summary>
    /// <param name="imageName">The differencing disk.</param>
    /// <param name="tried">The paths, in the order in which they were tried.</param>
    /// <param name="failure">Why the first did not open: the file is not there, or something that it stands on.</param>
    /// <param name="refused">Why one was not even tried, or could not be opened; null if there was none.</param>
    public static DiskImageException Missing(
        string imageName, IEnumerable<string> tried, DiskImageException failure, DiskImageException? refused = null)
        => new(
            DiskImageErrorKind.NotFound,
            $"{imageName}: its parent cannot be found; tried "
                + $"{string.Join(", ", tried.Distinct(StringComparer.Ordinal).Select(t => $"'{t}'"))}. Put it there,"
                + $" name the folder that it is in with {new Remedy(RemedyKind.ParentSearchPath)},"
                + $" or record its new place with {new Remedy(RemedyKind.SetOption, "parent_path=PATH")}."
                + $" ({failure.Wording}{(refused is null ? "" : (Wording)$" {refused.Wording}")})",
            imageName,
            cause: failure);

    /// <summary>No disk with the recorded identity is nearby.</summary>
    /// <param name="imageName">The differencing disk.</param>
    /// <param name="what">What the format calls the identity.</param>
    /// <param name="recorded">The recorded one.</param>
    public static DiskImageException NotNear(string imageName, string what, Guid recorded)
        => new(
            DiskImageErrorKind.NotFound,
            $"{imageName}: its parent has the {what} {recorded:B}, and no file in the image's folder has it. Put "
                + $"the parent there, name its folder with"
                + $" {new Remedy(RemedyKind.ParentSearchPath)}, or record another parent with {Record}.",
            imageName);

    /// <summary>The parent is of another format.</summary>
    /// <param name="imageName">The differencing disk.</param>
    /// <param name="parentName">What was found in the parent's place.</param>
    /// <param name="format">The format that it must have.</param>
    public static DiskImageException Format(string imageName, string parentName, string format)
        => new(
            DiskImageErrorKind.Corrupt,
            $"{imageName}: its parent {parentName} is not a {format} image, and the parent of a {format} image always is one.",
            imageName);

    /// <summary>The parent has another identity than the recorded one.</summary>
    /// <param name="imageName">The differencing disk.</param>
    /// <param name="parentName">What was found in the parent's place.</param>
    /// <param name="what">What the format calls the identity.</param>
    /// <param name="recorded">The recorded one; null if none can be read.</param>
    /// <param name="found">The parent's.</param>
    /// <param name="why">What that means.</param>
    public static DiskImageException Identity(string imageName, string parentName, string what, Guid? recorded, Guid found, string why)
        => Identity(imageName, parentName, what, recorded?.ToString("B") ?? "(none recorded)", found.ToString("B"), why);

    /// <inheritdoc cref="Identity(string, string, string, Guid?, Guid, string)"/>
    public static DiskImageException Identity(string imageName, string parentName, string what, string recorded, string found, string why)
        => new(
            DiskImageErrorKind.Corrupt,
            $"{imageName}: its parent must have the {what} {recorded}, and {parentName} has {found}: {why}. {Advice}",
            imageName);

    /// <summary>The parent was changed after its time stamp was recorded.</summary>
    /// <param name="imageName">The differencing disk.</param>
    /// <param name="parentName">The parent.</param>
    /// <param name="recorded">The recorded time.</param>
    /// <param name="found">The parent's time stamp.</param>
    /// <param name="changed">When the parent's file was changed; null if that is not known.</param>
    public static DiskImageException Time(
        string imageName, string parentName, DateTimeOffset recorded, DateTimeOffset found, DateTimeOffset? changed)
        => new(
            DiskImageErrorKind.Corrupt,
            $"{imageName}: its parent must have the time stamp {recorded:u}, and {parentName} has "
                + $"{found:u} and was changed at {changed:u}: "
                + $"the parent was written to after this disk was made on it. {Advice}",
            imageName);
}
