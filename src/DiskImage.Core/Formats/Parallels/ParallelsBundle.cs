using DiskImage.Block;
using DiskImage.Drivers;

namespace DiskImage.Formats.Parallels;

/// <summary>Opens the layers of a bundle: a folder with a descriptor, and files for each layer of each storage.</summary>
/// <param name="context">The descriptor's file, and what opens the others.</param>
internal sealed class ParallelsBundle(FormatOpenContext context)
{
    private string Name => context.File.Name;

    /// <summary>Opens a snapshot, the top layer if none is named. Only the top layer is written to.</summary>
    /// <exception cref="DiskImageException">What the descriptor says cannot be opened.</exception>
    public static async ValueTask<BlockNode> OpenAsync(FormatOpenContext context, Guid? snapshot, CancellationToken cancellationToken)
    {
        BlockNode file = context.File;
        ParallelsDescriptor descriptor = await ParallelsDescriptor.ReadAsync(file, cancellationToken).ConfigureAwait(false);
        Guid layer = snapshot ?? descriptor.Top;
        if (!descriptor.Parents.ContainsKey(layer))
        {
            throw new DiskImageException(
                snapshot is null ? DiskImageErrorKind.Corrupt : DiskImageErrorKind.InvalidOption,
                $"{file.Name}: there is no snapshot {layer:B}; there are: "
                    + $"{string.Join(", ", descriptor.Parents.Keys.Select(p => p.ToString("B")))}",
                file.Name);
        }
        if (layer != descriptor.Top && !file.IsReadOnly)
        {
            throw new DiskImageException(
                DiskImageErrorKind.ReadOnly,
                $"{file.Name}: a snapshot is not written to; only the top layer is, {descriptor.Top:B}",
                file.Name);
        }
        var bundle = new ParallelsBundle(context);
        IReadOnlyList<ParallelsPart> parts = await bundle.OpenPartsAsync(descriptor, layer, toRead: false, cancellationToken)
            .ConfigureAwait(false);
        return new ParallelsBundleNode(bundle, file, descriptor, layer, parts, context.Siblings);
    }

    /// <summary>Opens a layer of every storage, over those that it stands on unless this layer alone is wanted.</summary>
    /// <param name="descriptor">What the bundle consists of.</param>
    /// <param name="layer">The layer.</param>
    /// <param name="toRead">It is only read, whatever the bundle is open for.</param>
    /// <param name="cancellationToken">Stops it.</param>
    public async ValueTask<IReadOnlyList<ParallelsPart>> OpenPartsAsync(
        ParallelsDescriptor descriptor, Guid layer, bool toRead, CancellationToken cancellationToken)
    {
        IReadOnlyList<Guid> chain = descriptor.ChainTo(context.File, layer);
        int first = context.OpenBacking is null ? chain.Count - 1 : 0;
        var parts = new List<ParallelsPart>();
        try
        {
            foreach (ParallelsStorage storage in descriptor.Storages)
            {
                BlockNode node = await OpenAsync(descriptor, storage, chain, first, toRead, cancellationToken).ConfigureAwait(false);
                parts.Add(new(storage.Start * ParallelsHeader.SectorSize, storage.Length, node));
                Require(descriptor, layer, parts[^1], storage);
            }
            return parts;
        }
        catch
        {
            await Closing.FailedAsync(parts.Select(p => p.Node)).ConfigureAwait(false);
            throw;
        }
    }

    /// <summary>Opens one storage's chain to a layer, whole, with that layer open for writing where the bundle is.</summary>
    public ValueTask<BlockNode> OpenChainAsync(
        ParallelsDescriptor descriptor, ParallelsStorage storage, Guid layer, CancellationToken cancellationToken)
        => OpenAsync(descriptor, storage, descriptor.ChainTo(context.File, layer), 0, toRead: false, cancellationToken);

    /// <summary>Opens a file of the bundle, for writing where the bundle is.</summary>
    public ValueTask<BlockNode> OpenFileAsync(string file) => context.OpenData(file, null, CancellationToken.None);

    /// <summary>Which file a layer is; null where it cannot be opened.</summary>
    public async ValueTask<NodeIdentity?> IdentityOfAsync(string file)
    {
        try
        {
            BlockNode node = await (context.OpenDataToRead ?? context.OpenData)(file, null, CancellationToken.None).ConfigureAwait(false);
            await using (node.ConfigureAwait(false))
            {
                return node.Identity;
            }
        }
        catch (DiskImageException)
        {
            return null;
        }
    }

    private async ValueTask<BlockNode> OpenAsync(
        ParallelsDescriptor descriptor,
        ParallelsStorage storage,
        IReadOnlyList<Guid> chain,
        int first,
        bool toRead,
        CancellationToken cancellationToken)
    {
        BlockNode? below = null;
        for (int i = first; i < chain.Count; i++)
        {
            bool isLast = i == chain.Count - 1, isTop = isLast && chain[i] == descriptor.Top;
            BlockNode? bytes = null;
            try
            {
                ParallelsImage image = storage.Images.GetValueOrDefault(chain[i])
                    ?? throw new DiskImageException(
                        DiskImageErrorKind.Corrupt, $"{Name}: the disk descriptor has no image of the snapshot {chain[i]:B}", Name);
                ReferenceOpener open = isLast && !toRead ? context.OpenData : context.OpenDataToRead ?? context.OpenData;
                bytes = await open(image.File, null, cancellationToken).ConfigureAwait(false);
                if (image.IsPlain && i > 0)
                {
                    throw new DiskImageException(
                        DiskImageErrorKind.Corrupt,
                        $"{Name}: the image '{image.File}' is plain, so it cannot hold the changes to another",
                        Name);
                }
                var facts = new ParallelsFacts(descriptor, i == 0 ? null : storage.Images.GetValueOrDefault(chain[i - 1])?.File);
                ParallelsLayersBelow? others = !isTop || i == 0 ? null
                    : new(context, Name, [.. chain.SkipLast(1).Select(l => storage.Images.GetValueOrDefault(l))]);
                below = image.IsPlain
                    ? new ParallelsPlainNode(bytes, facts)
                    : await ParallelsNode.OpenAsync(
                        bytes, below, context.ForRepair && isLast, cancellationToken, new(facts, others)).ConfigureAwait(false);
                bytes = null;
            }
            catch
            {
                await Closing.FailedAsync(bytes, below).ConfigureAwait(false);
                throw;
            }
        }
        return below!;
    }

    /// <summary>
    /// The top layer has at least the storage's bytes: more where a change of its size was cut short. A snapshot may be of another size.
    /// </summary>
    private void Require(ParallelsDescriptor descriptor, Guid layer, ParallelsPart part, ParallelsStorage storage)
    {
        bool mayBeShort = layer != descriptor.Top && ReferenceEquals(storage, descriptor.Storages[^1]);
        if (part.Node.Length < storage.Length && !mayBeShort)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Corrupt,
                $"{Name}: the image '{storage.Images[layer].File}' has {part.Node.Length:#,0} bytes, and the disk descriptor says "
                    + $"{storage.Length:#,0}",
                Name);
        }
    }
}

/// <summary>An open storage of a bundle.</summary>
/// <param name="Start">Where on the disk it begins, in bytes.</param>
/// <param name="Most">Its bytes, by the descriptor.</param>
/// <param name="Node">Its layer, over those below.</param>
internal sealed record ParallelsPart(long Start, long Most, BlockNode Node)
{
    /// <summary>Bytes of the disk in it.</summary>
    public long Length => Math.Min(Most, Node.Length);

    /// <summary>The byte behind its last.</summary>
    public long End => Start + Length;
}

/// <summary>What a descriptor says of the disk that an image is a part of.</summary>
/// <param name="Descriptor">It.</param>
/// <param name="Parent">The file of the layer below; null for none.</param>
internal sealed record ParallelsFacts(ParallelsDescriptor Descriptor, string? Parent)
{
    /// <summary>How many parts the disk has.</summary>
    public int Storages => Descriptor.Storages.Count;

    /// <summary>The snapshots beside the top layer.</summary>
    public IReadOnlyList<string> Snapshots => [.. Descriptor.Snapshots().Select(k => k.ToString("B"))];
}

/// <summary>What an image belongs to.</summary>
/// <param name="Facts">What its descriptor says; null for an image that stands alone.</param>
/// <param name="Below">Checks the layers below, for the top one; null for none.</param>
internal readonly record struct ParallelsOwner(ParallelsFacts? Facts, ParallelsLayersBelow? Below = null);
