using DiskImage.Block;
using DiskImage.Drivers;

namespace DiskImage.Graph;

/// <summary>
/// What to make of a file that was taken for raw because no format recognises it: its name may promise another format, it may be something
/// else than a disk, or a disk in a format without a driver. Only somebody who says that its bytes are the disk's gets on.
/// </summary>
/// <param name="registry">Knows the endings.</param>
/// <param name="path">The file.</param>
/// <param name="role">Which of a request's images it is.</param>
internal sealed class ProbeJudgement(DriverRegistry registry, string path, ImageRole role)
{
    private const string Raw = "raw";

    private readonly IReadOnlyList<string> _promised = registry.PromisedBy(path);

    /// <summary>True for a name that promises the bytes of a disk.</summary>
    public bool PromisesRaw => _promised.Contains(Raw, StringComparer.Ordinal);

    private bool PromisesOther => _promised.Count > 0 && !PromisesRaw;

    /// <summary>Refuses the file, or returns a warning, or null.</summary>
    /// <param name="contents">What it seems to hold.</param>
    /// <param name="forWriting">It is to be changed.</param>
    /// <exception cref="DiskImageException">Unsupported: a disk in a format without a driver; InvalidFormat: what is to be changed
    /// may be no disk.</exception>
    public Wording? Judge(FileContents contents, bool forWriting)
    {
        string what = $"{path}: is "
            + $"{contents.Description}{(PromisesOther ? $", though its name promises {string.Join(" or ", _promised)}" : "")}";
        Wording wayOut = $"If its bytes are to be taken for those of a disk, give {new Remedy(RemedyKind.Format, Raw, role)}";
        bool isForeign = contents.Kind == ContentsKind.Container || (contents.Kind == ContentsKind.Disc && PromisesOther);
        if (isForeign)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Unsupported, $"{what}; it is not opened, since this version knows no such images. {wayOut}.", path);
        }
        if (PromisesOther || contents.Kind == ContentsKind.NoDisk)
        {
            Wording more = _promised.FirstOrDefault(
                p => registry.Formats.Any(f => f.Name.Equals(p, StringComparison.Ordinal))) is { } known && PromisesOther
                ? (Wording)$"{wayOut}; if it is a damaged {known} image, {new Remedy(RemedyKind.Format, known, role)}."
                : $"{wayOut}.";
            return forWriting
                ? throw new DiskImageException(DiskImageErrorKind.InvalidFormat, $"{what}; it is not changed. {more}", path)
                : (Wording)$"{what}. {more}";
        }
        return forWriting && _promised.Count == 0 && contents.Kind != ContentsKind.PartitionedDisk
            ? throw new DiskImageException(
                DiskImageErrorKind.InvalidFormat,
                $"{what} and has neither a partition table nor a disk image's name, so it is not changed. {wayOut}.",
                path)
            : null;
    }
}
