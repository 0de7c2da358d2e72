using DiskImage.Block;
using DiskImage.Drivers;

namespace DiskImage.Formats.Vdi;

/// <summary>
/// The parent of a differencing disk. VirtualBox records two identities and no path: its list of media says where a disk is. Here the
/// parent is looked for by its identity among the VDI files near the disk.
/// </summary>
internal static class VdiParent
{
    private static readonly string[] s_endings = [".vdi"];

    /// <summary>Finds and opens the parent, by the user's word or by what is recorded. This layer alone: the name that it has, if it is
    /// found.</summary>
    /// <exception cref="DiskImageException">NotFound; Corrupt if only others were found; what opening says.</exception>
    public static async ValueTask<(BlockNode? Parent, string? Name)> OpenAsync(
        FormatOpenContext context, VdiHeader header, CancellationToken cancellationToken)
    {
        var options = (VdiOpenOptions)context.Options;
        string image = context.File.Name;
        if (context.GivesBacking && context.OpenBacking is not null)
        {
            BlockNode given = (await context.OpenBackingAsync(null, null, cancellationToken).ConfigureAwait(false))!;
            DiskImageException? wrong = header.IsDifferencing
                ? options.IgnoreIdMismatch ? null : Mismatch(image, header, given)
                : new DiskImageException(
                    DiskImageErrorKind.InvalidOption,
                    $"{image}: is no differencing disk, so it stands on no other image. Leave out what it is said to stand on.",
                    image);
            if (wrong is not null)
            {
                await Closing.FailedAsync(given).ConfigureAwait(false);
                throw wrong;
            }
            return (given, given.Name);
        }
        if (!header.IsDifferencing)
        {
            return default;
        }
        Candidates names = await FindAsync(context, header, cancellationToken).ConfigureAwait(false);
        if (context.OpenBacking is not { } open)
        {
            return (null, names.Known.Count > 0 ? Shown(image, names.Known[0]) : null);
        }
        DiskImageException? MismatchOf(BlockNode parent) => options.IgnoreIdMismatch ? null : Mismatch(image, header, parent);
        try
        {
            if (!names.HasRight
                && await OpenHeldAsync(names.Held, open, header, MismatchOf, cancellationToken).ConfigureAwait(false) is { } held)
            {
                return (held, Shown(image, held.Name));
            }
            (BlockNode Parent, string Name)? found = await new ParentSearch(image, VdiDriver.FormatName, open)
                .OpenAsync(names.Known, MismatchOf, cancellationToken).ConfigureAwait(false);
            return found is { } parent
                ? (parent.Parent, Shown(image, parent.Name))
                : throw ParentMismatch.NotNear(image, "UUID", header.LinkId);
        }
        catch (DiskImageException) when (context.ForRepair)
        {
            return default; // a child can be mended without its parent: nothing is read from there
        }
    }

    /// <summary>The header of the disk that is to be a parent.</summary>
    /// <exception cref="DiskImageException">InvalidOption: it cannot be.</exception>
    public static VdiHeader Of(string image, string name, string? format, bool isStatic, BlockNode? parent)
        => isStatic ? throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"{image}: static and backing_file exclude each other: a differencing disk is never static.",
                image)
            : (format is not null && !format.Equals(VdiDriver.FormatName, StringComparison.OrdinalIgnoreCase))
            || parent?.As<VdiNode>() is not { } disk
            ? throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"{image}: the parent '{name}' must be a VDI image that can be opened: a VDI records its parent's "
                    + $"identity. Convert it, or make it accessible.",
                image)
            : disk.Header;

    /// <summary>Why a disk is not the parent; null if it is.</summary>
    private static DiskImageException? Mismatch(string image, VdiHeader header, BlockNode parent)
        => parent.As<VdiNode>()?.Header is not { } other ? ParentMismatch.Format(image, parent.Name, VdiDriver.FormatName)
            : other.ImageId != header.LinkId
            ? ParentMismatch.Identity(image, parent.Name, "UUID", header.LinkId, other.ImageId, "it is another disk")
            : header.ParentId != Guid.Empty && other.SnapshotId != header.ParentId
            ? ParentMismatch.Identity(
                image,
                parent.Name,
                "modification UUID",
                header.ParentId,
                other.SnapshotId,
                "the parent was written to after this disk was made on it")
            : null;

    /// <summary>The files nearby that may be the parent. Only headers are read.</summary>
    private static async ValueTask<Candidates> FindAsync(FormatOpenContext context, VdiHeader header, CancellationToken cancellationToken)
    {
        var right = new List<string>();
        var changed = new List<string>();
        var held = new List<string>();
        foreach (string name in context.Nearby?.Find(s_endings) ?? [])
        {
            cancellationToken.ThrowIfCancellationRequested();
            if (name.Equals(context.File.Name, StringComparison.Ordinal))
            {
                continue;
            }
            try
            {
                ReadOnlyMemory<byte> start = await context.Nearby!.StartAsync(name, cancellationToken).ConfigureAwait(false);
                var other = VdiHeader.Parse(start.ToArray(), name, long.MaxValue);
                if (other.ImageId == header.LinkId)
                {
                    (other.SnapshotId == header.ParentId || header.ParentId == Guid.Empty ? right : changed).Add(name);
                }
            }
            catch (DiskImageException e) when (e.Kind == DiskImageErrorKind.Locked)
            {
                held.Add(name);
            }
            catch (DiskImageException)
            {
                // Not to be opened, or no VDI: another file than the one that is looked for.
            }
        }
        return new([.. right, .. changed], right.Count > 0, held);
    }

    /// <summary>Tries the files that are open for writing, as the parent is during a merge: it can be had from there. Null if it is none of
    /// them.</summary>
    private static async ValueTask<BlockNode?> OpenHeldAsync(
        IReadOnlyList<string> names,
        ReferenceOpener open,
        VdiHeader header,
        Func<BlockNode, DiskImageException?> mismatch,
        CancellationToken cancellationToken)
    {
        foreach (string name in names)
        {
            try
            {
                BlockNode parent = await open(name, VdiDriver.FormatName, cancellationToken).ConfigureAwait(false);
                if (parent.As<VdiNode>()?.Header.ImageId == header.LinkId && mismatch(parent) is null)
                {
                    return parent;
                }
                await Closing.FailedAsync(parent).ConfigureAwait(false);
            }
            catch (DiskImageException)
            {
                // Somebody else writes to it: it cannot be the parent that is to be read.
            }
        }
        return null;
    }

    /// <summary>A file of the disk's own folder is told by its name there.</summary>
    private static string Shown(string image, string name)
        => Path.GetDirectoryName(image) is { } folder && folder.Equals(Path.GetDirectoryName(name), StringComparison.Ordinal)
            ? Path.GetFileName(name) : name;

    /// <summary>Files that may be the parent.</summary>
    /// <param name="Known">Those with its identity, the ones first whose contents have the recorded one.</param>
    /// <param name="HasRight">True if the first is of these.</param>
    /// <param name="Held">Those that could not be looked at, since they are being written to.</param>
    private readonly record struct Candidates(IReadOnlyList<string> Known, bool HasRight, IReadOnlyList<string> Held);
}
