namespace DiskImage.Protocols.VirtualFat;

/// <summary>A run of clusters.</summary>
/// <param name="First">The first one.</param>
/// <param name="Count">How many.</param>
internal readonly record struct ClusterRun(uint First, uint Count);

/// <summary>A file or folder as a guest has written it.</summary>
/// <param name="Path">Its path from the top, with slashes.</param>
/// <param name="IsFolder">It is a folder.</param>
/// <param name="Length">Bytes of a file.</param>
/// <param name="Runs">The clusters that hold these bytes, or the folder.</param>
/// <param name="Changed">When it was last changed, UTC; null if that is not said.</param>
internal sealed record GuestItem(string Path, bool IsFolder, long Length, IReadOnlyList<ClusterRun> Runs, DateTime? Changed);

/// <summary>What cannot be brought into the folder.</summary>
/// <param name="Path">Which file or folder, from the top.</param>
/// <param name="Reason">Why.</param>
internal sealed record FatProblem(string Path, string Reason);

/// <summary>What a volume holds that a guest has written to.</summary>
/// <param name="Items">Files and folders, each folder before what is in it.</param>
/// <param name="Problems">What could not be understood. Then what is not among the items may be there all the same.</param>
internal sealed record GuestTree(IReadOnlyList<GuestItem> Items, IReadOnlyList<FatProblem> Problems);
