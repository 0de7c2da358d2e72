using DiskImage.Block;
using DiskImage.Drivers;

namespace DiskImage.Formats.Parallels;

/// <summary>Opens a bundle, a folder with a descriptor and the files of each layer, as a disk that stands on its snapshots.</summary>
internal static class ParallelsBundle
{
    /// <summary>Opens the layers of a snapshot, of the top one if none is named. Only the top is written to.</summary>
    /// <exception cref="DiskImageException">What the descriptor says cannot be opened.</exception>
    public static async ValueTask<BlockNode> OpenAsync(FormatOpenContext context, Guid? snapshot, CancellationToken cancellationToken)
    {
        BlockNode file = context.File;
        ParallelsDescriptor descriptor = await ParallelsDescriptor.ReadAsync(file, cancellationToken).ConfigureAwait(false);
        Guid top = snapshot ?? descriptor.Top;
        if (!descriptor.Parents.ContainsKey(top))
        {
            throw new DiskImageException(
                snapshot is null ? DiskImageErrorKind.Corrupt : DiskImageErrorKind.InvalidOption,
                $"{file.Name}: there is no snapshot {top:B}; there are: "
                    + $"{string.Join(", ", descriptor.Parents.Keys.Select(p => p.ToString("B")))}",
                file.Name);
        }
        if (top != descriptor.Top && !file.IsReadOnly)
        {
            throw new DiskImageException(
                DiskImageErrorKind.ReadOnly,
                $"{file.Name}: a snapshot is not written to; only the top layer is, {descriptor.Top:B}",
                file.Name);
        }
        IReadOnlyList<Guid> chain = descriptor.ChainTo(file, top);
        var parts = new List<BlockNode>();
        try
        {
            foreach (ParallelsStorage storage in descriptor.Storages)
            {
                bool isWhole = descriptor.Storages.Count == 1;
                parts.Add(await OpenAsync(context, descriptor, storage, chain, isWhole, cancellationToken).ConfigureAwait(false));
            }
            return parts.Count == 1 ? parts[0] : new ParallelsSplitNode(file, parts, Facts(descriptor));
        }
        catch
        {
            await Closing.FailedAsync(parts).ConfigureAwait(false); // one that owns the descriptor is never among them
            throw;
        }
    }

    private static ParallelsFacts Facts(ParallelsDescriptor descriptor)
        => new(descriptor.Storages.Count, [.. descriptor.Parents.Keys.Where(k => k != descriptor.Top).Select(k => k.ToString("B"))]);

    /// <summary>Opens the layers of one storage, from the root on.</summary>
    private static async ValueTask<BlockNode> OpenAsync(
        FormatOpenContext context,
        ParallelsDescriptor descriptor,
        ParallelsStorage storage,
        IReadOnlyList<Guid> chain,
        bool isWhole,
        CancellationToken cancellationToken)
    {
        string name = context.File.Name;
        long length = (storage.End - storage.Start) * ParallelsHeader.SectorSize;
        BlockNode? below = null;
        string? belowName = null;
        for (int i = context.OpenBacking is null ? chain.Count - 1 : 0; i < chain.Count; i++) // this layer alone, or all
        {
            bool isTop = i == chain.Count - 1;
            BlockNode? bytes = null;
            try
            {
                ParallelsImage image = storage.Images.GetValueOrDefault(chain[i])
                    ?? throw new DiskImageException(
                        DiskImageErrorKind.Corrupt, $"{name}: the disk descriptor has no image of the snapshot {chain[i]:B}", name);
                ReferenceOpener open = isTop ? context.OpenData : context.OpenDataToRead ?? context.OpenData;
                bytes = await open(image.File, null, cancellationToken).ConfigureAwait(false);
                if (image.IsPlain && i > 0)
                {
                    throw new DiskImageException(
                        DiskImageErrorKind.Corrupt,
                        $"{name}: the image '{image.File}' is plain, so it cannot hold the changes to another",
                        name);
                }
                belowName = i == 0 ? null : storage.Images.GetValueOrDefault(chain[i - 1])?.File;
                BlockNode? descriptorFile = isTop && isWhole ? context.File : null;
                ParallelsFacts facts = Facts(descriptor) with { Parent = belowName };
                below = image.IsPlain
                    ? new ParallelsPlainNode(bytes, descriptorFile, facts, length)
                    : await ParallelsNode.OpenAsync(
                        bytes, below, context.ForRepair && isTop, cancellationToken,
                        new(descriptorFile, facts, Below(isTop))).ConfigureAwait(false);
                bytes = null;
                if (isTop && below.Length != length)
                {
                    throw new DiskImageException(
                        DiskImageErrorKind.Corrupt,
                        $"{name}: the image '{image.File}' has {below.Length:#,0} bytes, and the disk descriptor says {length:#,0}", name);
                }
            }
            catch
            {
                await Closing.FailedAsync(bytes).ConfigureAwait(false);
                await CloseAsync(below, context.File).ConfigureAwait(false);
                throw;
            }
        }
        return below!;

        ParallelsLayersBelow? Below(bool isTop)
            => !isTop || chain.Count == 1 ? null
                : new(context, name, [.. chain.SkipLast(1).Select(l => storage.Images.GetValueOrDefault(l))]);
    }

    /// <summary>Closes what was opened, but not the descriptor, which is the caller's.</summary>
    private static async ValueTask CloseAsync(BlockNode? disk, BlockNode descriptor)
    {
        if (disk is not null)
        {
            await Closing.FailedAsync(disk.Children.Values.Where(c => !ReferenceEquals(c, descriptor))).ConfigureAwait(false);
        }
    }
}

/// <summary>What a descriptor says of the disk that an image is a part of.</summary>
/// <param name="Storages">How many parts it has.</param>
/// <param name="Snapshots">The snapshots beside the top layer.</param>
internal sealed record ParallelsFacts(int Storages, IReadOnlyList<string> Snapshots)
{
    /// <summary>What a descriptor is called among the children of a disk.</summary>
    public const string Role = "descriptor";

    /// <summary>The file of the layer below; null for none.</summary>
    public string? Parent { get; init; }
}

/// <summary>What an image belongs to.</summary>
/// <param name="Descriptor">The descriptor, if the disk is to own it.</param>
/// <param name="Facts">What it says; null for an image that stands alone.</param>
/// <param name="Below">Checks the layers below, for the top one; null for none.</param>
internal readonly record struct ParallelsOwner(BlockNode? Descriptor, ParallelsFacts? Facts, ParallelsLayersBelow? Below = null);
