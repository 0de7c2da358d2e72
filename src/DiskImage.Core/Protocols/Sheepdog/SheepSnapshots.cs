using DiskImage.Block;

namespace DiskImage.Protocols.Sheepdog;

/// <summary>The snapshots of a VDI: VDIs of the same name that have become read-only.</summary>
/// <remarks>
/// <para>Taking one gives the present VDI the tag, and has the cluster make the next one on it, which the name leads to from then on. A
/// crash between the two leaves a tag that means nothing yet.</para>
/// <para>Going back has the cluster make the next VDI on the snapshot: the same step makes the present one a snapshot without a tag, which
/// is deleted then. A crash between the two leaves it, so there is always a VDI that the name leads to.</para>
/// <para>Deleting gives the objects up and then the VDI, as Sheepdog's own program does: the cluster deletes none that has objects. A
/// crash between the two leaves a snapshot that reads as zeroes where objects were given up.</para>
/// </remarks>
/// <param name="name">What the VDI is called in messages.</param>
/// <param name="vdiName">What the cluster calls it.</param>
/// <param name="volume">It, open.</param>
internal sealed class SheepSnapshots(string name, string vdiName, SheepVolume volume)
{
    private SheepGateway Gateway => volume.Gateway;

    public async ValueTask<IReadOnlyList<DiskSnapshot>> ListAsync(CancellationToken cancellationToken)
        => [.. (await Gateway.SnapshotsAsync(vdiName, cancellationToken).ConfigureAwait(false)).Select(s => s.AsSnapshot())];

    public async ValueTask<DiskSnapshot> CreateAsync(string tag, CancellationToken cancellationToken)
    {
        if (tag.Length == 0 || !SheepWire.IsName(tag))
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"{name}: a snapshot cannot be called '{tag}'. Its tag has 1 to {SheepWire.NameLength - 1} bytes of UTF-8, and no NUL.",
                name);
        }
        uint kept = 0;
        await volume.AloneAsync(
            async () =>
            {
                SheepInode inode = volume.Inode;
                await Gateway.WriteInodeAsync(
                    inode, SheepInode.TagAt, SheepWire.Names(tag), "give the snapshot its tag", CancellationToken.None)
                    .ConfigureAwait(false);
                _ = await Gateway.RequireAsync(
                    SheepRequest.New(vdiName, inode.Size, inode.Vdi, keepsPresent: true, inode.Redundancy, inode.Shift),
                    "take a snapshot",
                    null,
                    CancellationToken.None).ConfigureAwait(false);
                await volume.ReloadAsync(CancellationToken.None).ConfigureAwait(false);
                kept = inode.Vdi;
            },
            cancellationToken).ConfigureAwait(false);
        return (await Gateway.InodeAsync(kept, cancellationToken).ConfigureAwait(false)).AsSnapshot();
    }

    public async ValueTask<DiskSnapshot> RestoreAsync(string idOrName, CancellationToken cancellationToken)
    {
        SheepInode snapshot = await Gateway.SnapshotAsync(vdiName, idOrName, byTagFirst: false, cancellationToken).ConfigureAwait(false);
        await volume.AloneAsync(
            async () =>
            {
                uint given = volume.Inode.Vdi;
                _ = await Gateway.RequireAsync(
                    SheepRequest.New(vdiName, snapshot.Size, snapshot.Vdi, keepsPresent: true, snapshot.Redundancy, snapshot.Shift),
                    "go back to a snapshot",
                    null,
                    CancellationToken.None).ConfigureAwait(false);
                await volume.ReloadAsync(CancellationToken.None).ConfigureAwait(false);
                SheepInode left = await Gateway.InodeAsync(given, CancellationToken.None).ConfigureAwait(false);
                if (left.IsSnapshot)
                {
                    await Gateway.DeleteAsync(vdiName, left, CancellationToken.None).ConfigureAwait(false);
                }
            },
            cancellationToken).ConfigureAwait(false);
        return snapshot.AsSnapshot();
    }

    public async ValueTask<DiskSnapshot> DeleteAsync(string nameOrId, CancellationToken cancellationToken)
        => await DeleteAsync(
            await Gateway.SnapshotAsync(vdiName, nameOrId, byTagFirst: true, cancellationToken).ConfigureAwait(false), cancellationToken)
            .ConfigureAwait(false);

    public async ValueTask<DiskSnapshot> DeleteAsync(string id, string tag, CancellationToken cancellationToken)
    {
        SheepInode found = await Gateway.SnapshotAsync(vdiName, id, byTagFirst: false, cancellationToken).ConfigureAwait(false);
        DiskSnapshot snapshot = found.AsSnapshot();
        bool isIt = snapshot.Id.Equals(id, StringComparison.Ordinal) && snapshot.Name.Equals(tag, StringComparison.Ordinal);
        return isIt ? await DeleteAsync(found, cancellationToken).ConfigureAwait(false)
            : throw new DiskImageException(
                DiskImageErrorKind.NotFound, $"{name}: has no snapshot with the number {id} and the tag '{tag}'", name);
    }

    /// <summary>The objects of a snapshot, to be read.</summary>
    public async ValueTask<SheepVolume> OpenAsync(string idOrName, CancellationToken cancellationToken)
    {
        SheepInode snapshot = await Gateway.SnapshotAsync(vdiName, idOrName, byTagFirst: false, cancellationToken).ConfigureAwait(false);
        return await SheepVolume.OpenAsync(Gateway, vdiName, snapshot, isLocked: false, cancellationToken).ConfigureAwait(false);
    }

    private async ValueTask<DiskSnapshot> DeleteAsync(SheepInode snapshot, CancellationToken cancellationToken)
    {
        await Gateway.DeleteAsync(vdiName, snapshot, cancellationToken).ConfigureAwait(false);
        return snapshot.AsSnapshot();
    }
}
