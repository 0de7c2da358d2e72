using System.Globalization;
using DiskImage.Block;
using DiskImage.Drivers;

namespace DiskImage.Formats.Vmdk;

/// <summary>
/// Finds a disk's parent, and makes sure that it is the right one. Spec: Virtual Disk Format 5.0, "parentCID", "parentFileNameHint".
/// </summary>
internal static class VmdkParent
{
    /// <summary>The VMDK disk that a node is or passes through; null if it is none.</summary>
    public static VmdkNode? Of(BlockNode? node)
    {
        while (node is FilterNode)
        {
            node = node.Child("file");
        }
        return node as VmdkNode;
    }

    /// <summary>Opens the parent that a descriptor names.</summary>
    /// <exception cref="DiskImageException">NotFound, Corrupt, Refused; what opening says.</exception>
    public static async ValueTask<BlockNode?> OpenAsync(
        FormatOpenContext context, VmdkDescriptor? descriptor, bool ignoreIdMismatch, CancellationToken cancellationToken)
    {
        string image = context.File.Name;
        if (context.OpenBacking is not { } open || descriptor is null || (!descriptor.HasParent && !context.GivesBacking))
        {
            return descriptor is null
                ? await context.OpenBackingAsync(null, VmdkDriver.FormatName, cancellationToken).ConfigureAwait(false) : null;
        }
        IReadOnlyList<string> names = Candidates(descriptor.ParentHint);
        if (names.Count == 0 && !context.GivesBacking)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Corrupt,
                $"{image}: stands on a disk with the content identifier {Text(descriptor.ParentCid)} and does not say where that"
                    + $" is. Name it with {new Remedy(RemedyKind.SetOption, "parent_path=PATH")}.",
                image);
        }
        var found = await new ParentSearch(image, VmdkDriver.FormatName, open, context.ParentFolders)
            .OpenAsync(names.Count == 0 ? [""] : names, parent
                => Mismatch(image, descriptor, parent, ignoreIdMismatch), cancellationToken).ConfigureAwait(false);
        return found?.Parent;
    }

    /// <summary>How a content identifier is written.</summary>
    public static string Text(uint cid) => cid.ToString("x8", CultureInfo.InvariantCulture);

    /// <summary>A content identifier after another.</summary>
    public static uint NewCid(uint old, params object?[] facts)
    {
        for (int attempt = 0; ; attempt++)
        {
            byte[] bytes = NewIdentity.Of("vmdk CID", [old, attempt, .. facts]).ToByteArray();
            uint cid = BitConverter.ToUInt32(bytes, 0);
            if (cid is not (VmdkDescriptor.NoParent or VmdkDescriptor.NoParent - 1 or 0) && cid != old)
            {
                return cid;
            }
        }
    }

    /// <summary>
    /// What may be meant: the path as it stands there; the file of that name beside the disk, if the path is another system's or leads
    /// nowhere.
    /// </summary>
    private static IReadOnlyList<string> Candidates(string? hint)
    {
        if (hint is null)
        {
            return [];
        }
        string? own = WindowsPath.ToLocalFile(hint), beside = WindowsPath.ToLocalFile(WindowsPath.FileName(hint));
        return [.. new[] { own, beside }.OfType<string>().Distinct(StringComparer.Ordinal)];
    }

    private static DiskImageException? Mismatch(string image, VmdkDescriptor descriptor, BlockNode parent, bool ignoreIdMismatch)
        => Of(parent) is not { } disk ? ParentMismatch.Format(image, parent.Name, VmdkDriver.FormatName)
            : ignoreIdMismatch || !descriptor.HasParent || disk.Cid == descriptor.ParentCid || disk.Cid == descriptor.ComingParentCid ? null
            : ParentMismatch.Identity(
                image,
                parent.Name,
                "content identifier (CID)",
                Text(descriptor.ParentCid),
                Text(disk.Cid),
                "it is another disk, or was written to after this disk was made on it");
}
