using System.Xml.Linq;
using DiskImage.Block;
using DiskImage.Drivers;

namespace DiskImage.Formats.Parallels;

/// <summary>
/// The snapshots of a bundle: layers that the descriptor names, each in files of its own. They have identifiers and no names.
/// </summary>
/// <remarks>
/// New files are complete and durable, their names too, before the descriptor names them; one that it does not name any more is removed
/// after that. The descriptor is the one step between: a crash leaves the old or the new snapshots, and files that nothing names at most.
/// A snapshot is removed by giving what stands on it the clusters that it read from there, which changes nothing of what either reads as.
/// The top layer keeps its identifier, since there are programs that know it by that alone.
/// </remarks>
/// <param name="disk">The disk.</param>
/// <param name="bundle">Opens its layers.</param>
/// <param name="siblings">Makes and removes files; null where that cannot be.</param>
internal sealed class ParallelsSnapshots(ParallelsBundleNode disk, ParallelsBundle bundle, ISiblingFiles? siblings)
    : ISnapshots
{
    private const int Chunk = 1 << 20;

    private ParallelsDescriptor Descriptor => disk.Descriptor;

    /// <summary>True if a file lies in the bundle's folder and no image that the descriptor has is in it.</summary>
    public static bool IsOwn(ParallelsDescriptor descriptor, string name)
        => name.AsSpan().IndexOfAny('/', '\\') < 0
            && !descriptor.Storages.SelectMany(s => s.Images.Values).Any(i => i.File.Equals(name, StringComparison.OrdinalIgnoreCase));

    public ValueTask<IReadOnlyList<DiskSnapshot>> GetSnapshotsAsync(CancellationToken cancellationToken)
        => new([.. Descriptor.Snapshots().Select(Told)]);

    public async ValueTask<DiskSnapshot> CreateSnapshotAsync(string name, DateTimeOffset taken, CancellationToken cancellationToken)
    {
        Guid id = Guid.TryParse(name, out Guid given) ? given : throw new DiskImageException(
            DiskImageErrorKind.InvalidOption,
            $"{disk.Name}: the snapshots of such a disk have no names but GUIDs, and '{name}' is none. Give one, such as "
                + $"{Guid.NewGuid():B}.",
            disk.Name);
        if (id == Guid.Empty || Descriptor.Parents.ContainsKey(id))
        {
            throw new DiskImageException(
                DiskImageErrorKind.AlreadyExists, $"{disk.Name}: {id:B} is taken. Choose another GUID.", disk.Name);
        }
        await disk.AloneAsync(
            () => NewTopAsync(files => ParallelsDescriptorEdit.Kept(Descriptor, id, files), cancellationToken),
            cancellationToken).ConfigureAwait(false);
        return Told(id);
    }

    public async ValueTask<DiskSnapshot> RestoreSnapshotAsync(string idOrName, CancellationToken cancellationToken)
    {
        Guid id = Find(idOrName);
        await disk.AloneAsync(
            async () =>
            {
                if (Descriptor.Parents.Values.Contains(Descriptor.Top))
                {
                    throw new DiskImageException(
                        DiskImageErrorKind.Unsupported,
                        $"{disk.Name}: a snapshot stands on the top layer, so that cannot be given up. Convert the snapshot.", disk.Name);
                }
                string[] given = [.. Descriptor.Storages.Select(s => s.Images[Descriptor.Top].File)];
                await NewTopAsync(files => ParallelsDescriptorEdit.Restored(Descriptor, id, files), cancellationToken)
                    .ConfigureAwait(false);
                await RemoveAsync(given).ConfigureAwait(false);
            },
            cancellationToken).ConfigureAwait(false);
        return Told(id);
    }

    public async ValueTask<DiskSnapshot> DeleteSnapshotAsync(string nameOrId, CancellationToken cancellationToken)
    {
        Guid id = Find(nameOrId);
        DiskSnapshot told = Told(id);
        await disk.AloneAsync(() => DeleteAsync(id, cancellationToken), cancellationToken).ConfigureAwait(false);
        return told;
    }

    public ValueTask<DiskSnapshot> DeleteSnapshotAsync(string id, string name, CancellationToken cancellationToken)
        => DeleteSnapshotAsync(id, cancellationToken);

    public async ValueTask<BlockNode> OpenSnapshotAsync(string idOrName, CancellationToken cancellationToken)
    {
        Guid id = Find(idOrName);
        IReadOnlyList<ParallelsPart> parts = await bundle.OpenPartsAsync(Descriptor, id, toRead: true, cancellationToken)
            .ConfigureAwait(false);
        return new ParallelsBundleNode(bundle, new BorrowedNode(disk.File, isReadOnly: true), Descriptor, id, parts, siblings: null);
    }

    private DiskSnapshot Told(Guid id) => new() { Id = id.ToString("B"), Name = id.ToString("B"), VirtualSize = disk.Length };

    private Guid Find(string idOrName)
        => Guid.TryParse(idOrName, out Guid id) && id != Descriptor.Top && Descriptor.Parents.ContainsKey(id) ? id
            : throw new DiskImageException(DiskImageErrorKind.NotFound, $"{disk.Name}: has no snapshot '{idOrName}'", disk.Name);

    private ISiblingFiles RequireSiblings() => siblings ?? throw new DiskImageException(
        DiskImageErrorKind.Unsupported, $"{disk.Name}: files cannot be made or removed where it is, so neither can snapshots", disk.Name);

    /// <summary>Gives the disk a top layer in new files, which hold nothing, under what a descriptor with their names says.</summary>
    private async ValueTask NewTopAsync(Func<IReadOnlyList<string>, XDocument> describe, CancellationToken cancellationToken)
    {
        var made = new List<(PendingNode File, string Name)>();
        bool isDescribed = false;
        try
        {
            foreach ((ParallelsStorage storage, ParallelsPart part) in Descriptor.Storages.Zip(disk.Parts))
            {
                made.Add(await MakeAsync(storage, part, made.Count, cancellationToken).ConfigureAwait(false));
            }
            foreach ((PendingNode pending, _) in made)
            {
                await pending.PublishAsync(durable: true, revocable: true, CancellationToken.None).ConfigureAwait(false);
            }
            XDocument next = describe([.. made.Select(m => m.Name)]);
            await disk.ReopenAsync(() =>
            {
                isDescribed = true; // by now it may be
                return disk.DescribeAsync(next);
            }).ConfigureAwait(false);
        }
        catch when (!isDescribed)
        {
            made.ForEach(m => m.File.Withdraw());
            throw;
        }
        finally
        {
            foreach ((PendingNode pending, _) in made)
            {
                await pending.DisposeAsync().ConfigureAwait(false);
            }
        }
    }

    private async ValueTask<(PendingNode File, string Name)> MakeAsync(
        ParallelsStorage storage, ParallelsPart part, int index, CancellationToken cancellationToken)
    {
        string bundleName = Path.GetFileName(Path.GetDirectoryName(disk.Name)) is { Length: > 0 } folder ? folder : "disk.hdd";
        string name = $"{bundleName}.{index}.{Guid.NewGuid():B}.hds";
        long cluster = (part.Node as ParallelsNode)?.ClusterSize ?? ParallelsCreateOptions.UsualClusterSize;
        ParallelsHeader header = ParallelsHeader.New(storage.End - storage.Start, cluster, disk.Name);
        PendingNode pending = await RequireSiblings().TryBeginAsync(name, cancellationToken).ConfigureAwait(false)
            ?? throw new DiskImageException(DiskImageErrorKind.AlreadyExists, $"{disk.Name}: '{name}' is there already", disk.Name);
        try
        {
            await header.WriteNewAsync(pending.Node, cancellationToken).ConfigureAwait(false);
            await pending.Node.FlushAsync(cancellationToken).ConfigureAwait(false);
            await pending.Node.DisposeAsync().ConfigureAwait(false);
            return (pending, name);
        }
        catch
        {
            await pending.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    private async ValueTask DeleteAsync(Guid id, CancellationToken cancellationToken)
    {
        _ = RequireSiblings();
        Guid[] above = [.. Descriptor.Parents.Where(p => p.Value == id).Select(p => p.Key)];
        string[] given = [.. Descriptor.Storages.Select(s => s.Images.GetValueOrDefault(id)?.File).OfType<string>()];
        await disk.ReopenAsync(async () =>
        {
            foreach (ParallelsStorage storage in Descriptor.Storages)
            {
                foreach (Guid layer in above)
                {
                    await TakeOverAsync(storage, layer, isRoot: Descriptor.Parents[id] == Guid.Empty, cancellationToken)
                        .ConfigureAwait(false);
                }
            }
            return await disk.DescribeAsync(ParallelsDescriptorEdit.Removed(Descriptor, id)).ConfigureAwait(false);
        }).ConfigureAwait(false);
        await RemoveAsync(given).ConfigureAwait(false);
    }

    /// <summary>Writes into a layer what it reads from the one below it. Where that is the root, what is nowhere stays there.</summary>
    private async ValueTask TakeOverAsync(ParallelsStorage storage, Guid layer, bool isRoot, CancellationToken cancellationToken)
    {
        BlockNode node = await bundle.OpenChainAsync(Descriptor, storage, layer, cancellationToken).ConfigureAwait(false);
        await using (node.ConfigureAwait(false))
        {
            byte[] buffer = GC.AllocateUninitializedArray<byte>(Chunk);
            for (long offset = 0; offset < node.Length;)
            {
                BlockExtent extent = await node.GetExtentAsync(offset, node.Length - offset, cancellationToken).ConfigureAwait(false);
                long length = extent.Length;
                if (extent is { Depth: 1, IsAllocated: true, IsZero: false })
                {
                    length = Math.Min(length, Chunk);
                    await node.ReadAsync(offset, buffer.AsMemory(0, (int)length), cancellationToken).ConfigureAwait(false);
                    await node.WriteAsync(offset, buffer.AsMemory(0, (int)length), cancellationToken).ConfigureAwait(false);
                }
                else if (!isRoot && extent is { Depth: 1, IsAllocated: true } or { Depth: 0, IsAllocated: false }) // or behind its end
                {
                    await node.WriteZeroesAsync(offset, length, cancellationToken: cancellationToken).ConfigureAwait(false);
                }
                offset += length;
            }
            await node.FlushAsync(CancellationToken.None).ConfigureAwait(false);
        }
    }

    /// <summary>Removes files that no layer is in any more.</summary>
    private async ValueTask RemoveAsync(IEnumerable<string> names)
    {
        foreach (string name in names.Where(n => IsOwn(Descriptor, n)))
        {
            if (await bundle.IdentityOfAsync(name).ConfigureAwait(false) is { } identity)
            {
                await RequireSiblings().RemoveAsync(name, identity).ConfigureAwait(false);
            }
        }
    }
}
