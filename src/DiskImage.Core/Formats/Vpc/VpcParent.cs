using System.Text;
using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Drivers;

namespace DiskImage.Formats.Vpc;

/// <summary>
/// The parent of a differencing disk: finding it, making sure that it is the one, and recording it. Spec: "Implementing a Differencing
/// Hard Disk". Names are tried in this order: W2ru, W2ku, MacX, Wi2r, Wi2k, then in the disk's own folder the recorded parent name and
/// the file names of the absolute paths. A name that leads nowhere, or to another disk, gives way to the next.
/// </summary>
/// <remarks>
/// The parent's time stamp: programs differ in whether they record the stamp of its footer or the time at which its file was changed. Both
/// are taken here. Ours is the footer's: it outlives a copy of the chain and a merge into the parent.
/// </remarks>
internal static class VpcParent
{
    /// <summary>The format of a parent that has no identity.</summary>
    private const string Raw = "raw";

    /// <summary>FAT keeps times to two seconds.</summary>
    private const long TimeTolerance = 2;

    /// <summary>The names in a header, as their platforms write them.</summary>
    public static async ValueTask<IReadOnlyList<VpcParentLocatorInfo>> ReadLocatorsAsync(
        BlockNode file, VpcHeader header, CancellationToken cancellationToken)
    {
        var texts = new List<VpcParentLocatorInfo>();
        foreach (VpcLocator locator in header.Locators.Where(l => l.IsUsed))
        {
            texts.Add(
                new VpcParentLocatorInfo(locator.PlatformText, await locator.ReadTextAsync(file, cancellationToken).ConfigureAwait(false)));
        }
        return texts;
    }

    /// <summary>
    /// Paths for this machine to try, in order. They are always paths: what looks like a URI in a locator is not one here.
    /// </summary>
    public static IReadOnlyList<string> Candidates(IReadOnlyList<VpcParentLocatorInfo> locators, string parentName)
    {
        var paths = new List<string>();
        var names = new List<string> { parentName };
        foreach (uint platform in VpcLocator.Readable)
        {
            string code = new VpcLocator(platform, 0, 0, 0).PlatformText;
            foreach (string text in locators.Where(
                l => l.PlatformCode.Equals(code, StringComparison.Ordinal)).Select(l => l.Text).OfType<string>())
            {
                string path = platform == VpcLocator.MacX ? FileUrl.ToPath(text, hasDrives: true) ?? "" : text;
                bool isElsewhere = platform == VpcLocator.MacX && !OperatingSystem.IsWindows() && FileUrl.OtherHost(text) is not null;
                if (!isElsewhere && WindowsPath.ToLocalFile(path) is { } here)
                {
                    paths.Add(here);
                }
                names.Add(path);
            }
        }
        foreach (string name in names)
        {
            string file = WindowsPath.FileName(name);
            if (file is not ("" or "." or "..") && WindowsPath.ToLocalFile(file) is { } here)
            {
                paths.Add(here);
            }
        }
        return [.. paths.Distinct(StringComparer.Ordinal)];
    }

    /// <summary>Opens the parent.</summary>
    /// <returns>The parent and the name that led to it.</returns>
    /// <exception cref="DiskImageException">NotFound with all that was tried; Corrupt if only other disks were found.</exception>
    public static async ValueTask<(BlockNode Parent, string Name)> OpenAsync(
        string path,
        VpcHeader header,
        IReadOnlyList<string> candidates,
        ReferenceOpener open,
        IReadOnlyList<string> folders,
        bool ignoreMismatch,
        CancellationToken cancellationToken)
    {
        string format = FormatOf(header);
        (BlockNode Parent, string Name)? found = await SearchAsync(format).ConfigureAwait(false);
        if (found is { } raw && IsRaw(header) && await BeginsAsVhdAsync(raw.Parent, cancellationToken).ConfigureAwait(false))
        {
            // to show its bytes as the disk's would be wrong, and to believe them would let a guest choose
            await raw.Parent.DisposeAsync().ConfigureAwait(false);
            found = ignoreMismatch ? await SearchAsync(VpcDriver.FormatName).ConfigureAwait(false) : throw new DiskImageException(
                DiskImageErrorKind.Corrupt,
                $"{path}: records no identifier of its parent, which stands for a raw disk, but {raw.Parent.Name} begins as a VHD."
                    + $" If that is the parent, pass {new Remedy(RemedyKind.IgnoreIdMismatch)} (open option {ParentMismatch.IgnoreOption}),"
                    + $" or record it with {new Remedy(RemedyKind.RecordBacking)}.",
                path);
        }
        return found
            ?? throw new DiskImageException(
                DiskImageErrorKind.NotFound,
                $"{path}: a differencing disk that does not name its parent. Give it one with {new Remedy(RemedyKind.RecordBacking)}.",
                path);

        ValueTask<(BlockNode Parent, string Name)?> SearchAsync(string asFormat) => new ParentSearch(path, asFormat, open, folders)
            .OpenAsync(candidates, parent => ignoreMismatch || asFormat.Equals(Raw, StringComparison.Ordinal)
                ? null
                : Mismatch(path, header, parent), cancellationToken);
    }

    /// <summary>
    /// True if the parent is a raw disk: XenServer makes such children, and records no identifier, the time at which the file was changed
    /// and its name. Source: what its programs write; the specification knows no such disks.
    /// </summary>
    public static bool IsRaw(VpcHeader header) => header.ParentUniqueId == Guid.Empty;

    /// <summary>The format of the parent.</summary>
    public static string FormatOf(VpcHeader header) => IsRaw(header) ? Raw : VpcDriver.FormatName;

    /// <summary>What to know of a disk whose parent cannot be recognised; null if it can.</summary>
    public static string? Warning(VpcHeader header, BlockNode? parent)
    {
        if (!IsRaw(header) || InfoOf(parent) is not null)
        {
            return null;
        }
        uint recorded = header.ParentTimeStamp;
        string when = recorded != 0 && parent?.LastWriteTime is { } changed
            && Math.Abs((long)VpcFooter.Seconds(changed) - recorded) > TimeTolerance
            ? $" Its file was changed at {changed.ToUniversalTime():u}, and at {VpcFooter.Time(recorded):u} when this disk was made" : "";
        return $"its parent is the raw disk {parent?.Name ?? header.ParentName}, which has no identity, so nothing tells whether it is "
            + $"the one that this disk was made on, or was written to since."
            + (when.Length > 0 ? when : " Make sure that it is");
    }

    private static async ValueTask<bool> BeginsAsVhdAsync(BlockNode parent, CancellationToken cancellationToken)
    {
        byte[] bytes = new byte[VpcFooter.Length];
        await parent.ReadPaddedAsync(0, bytes, cancellationToken).ConfigureAwait(false);
        return VpcFooter.HasCookie(bytes);
    }

    /// <summary>The error that says why a disk is not the parent that was recorded; null if it is.</summary>
    public static DiskImageException? Mismatch(string path, VpcHeader header, BlockNode parent)
    {
        if (InfoOf(parent) is not { } info)
        {
            return ParentMismatch.Format(path, parent.Name, VpcDriver.FormatName);
        }
        if (info.UniqueId != header.ParentUniqueId)
        {
            return ParentMismatch.Identity(
                path, parent.Name, "identifier", header.ParentUniqueId, info.UniqueId, "it is another disk, or got a new identifier");
        }
        uint recorded = header.ParentTimeStamp;
        bool isSame = recorded == 0 || recorded == VpcFooter.Seconds(new DateTimeOffset(info.Created))
            || parent.LastWriteTime is not { } changed
            || Math.Abs((long)VpcFooter.Seconds(changed) - recorded) <= TimeTolerance;
        return isSame ? null
            : ParentMismatch.Time(path, parent.Name, VpcFooter.Time(recorded), new DateTimeOffset(info.Created), parent.LastWriteTime);
    }

    /// <summary>A header that records a parent's identity.</summary>
    /// <param name="header">The header so far.</param>
    /// <param name="path">The child's full path.</param>
    /// <param name="parent">The parent, open.</param>
    /// <param name="mayBeRaw">The parent may be a raw disk, as the user said or the header says.</param>
    /// <exception cref="DiskImageException">InvalidOption: it is not a VHD.</exception>
    public static VpcHeader Identify(VpcHeader header, string path, BlockNode parent, bool mayBeRaw = false)
        => InfoOf(parent) is { } info
            ? header with { ParentUniqueId = info.UniqueId, ParentTimeStamp = VpcFooter.Seconds(new DateTimeOffset(info.Created)) }
            : mayBeRaw && parent.As<IDescribed>()?.Describe().Format is Raw
            ? header with { ParentUniqueId = Guid.Empty, ParentTimeStamp = parent.LastWriteTime is { } changed
            ? VpcFooter.Seconds(changed) : 0 }
            : throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"{path}: {parent.Name} is not a VHD, and only a VHD can be the parent of one. Choose qcow2 for a child of other formats.",
                path);

    /// <summary>A header that records a parent's names, and the locator data that goes with it: whole sectors.</summary>
    /// <param name="header">The header so far.</param>
    /// <param name="names">The names.</param>
    /// <param name="dataOffset">Where the locator data is to be written: a multiple of the sector.</param>
    public static (VpcHeader Header, byte[] Data) Name(VpcHeader header, ParentNames names, long dataOffset)
    {
        var locators = new VpcLocator[VpcHeader.LocatorCount];
        using var data = new MemoryStream();
        int count = 0;
        foreach ((uint platform, string? text) in new[] { (VpcLocator.W2ru, names.Relative), (VpcLocator.W2ku, names.Absolute) })
        {
            if (text is null)
            {
                continue;
            }
            byte[] bytes = Encoding.Unicode.GetBytes(text);
            int space = (int)Round.Up(bytes.Length, VpcGeometry.SectorSize);
            // bytes, as Windows writes it
            locators[count++] = new VpcLocator(platform, (uint)space, (uint)bytes.Length, (ulong)(dataOffset + data.Length));
            data.Write(bytes);
            data.SetLength(Round.Up(data.Length, VpcGeometry.SectorSize));
            data.Position = data.Length;
        }
        return (header with { ParentName = names.FileName, Locators = locators }, data.ToArray());
    }

    /// <summary>What a VHD says about itself; null if the node is none.</summary>
    public static VpcInfo? InfoOf(BlockNode? node) => node?.As<IDescribed>()?.Describe().FormatSpecific as VpcInfo?;
}
