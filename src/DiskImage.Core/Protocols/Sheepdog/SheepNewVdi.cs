using DiskImage.Block;
using DiskImage.Drivers;

namespace DiskImage.Protocols.Sheepdog;

/// <summary>
/// A VDI that is being made. Clusters cannot rename, so it has its name from the start; disposed before it is published, it is deleted.
/// </summary>
/// <param name="place">Where it is to be.</param>
/// <param name="vdi">The same, understood.</param>
internal sealed class SheepNewVdi(StoragePlace place, SheepPlace vdi) : PendingNode(place)
{
    private SheepNode? _node;
    private uint _number; // of the VDI that was made
    private bool _isMade, _isPublished;

    public override BlockNode Node => _node!;

    /// <summary>Makes it and opens it.</summary>
    /// <exception cref="DiskImageException">AlreadyExists; what the cluster says.</exception>
    public async ValueTask BeginAsync(SheepCreateOptions options, CancellationToken cancellationToken)
    {
        SheepRedundancy redundancy = options.Redundancy is { } text ? SheepRedundancy.Parse(text) : default;
        SheepGateway gateway = await SheepDriver.ReachAsync(vdi, cancellationToken).ConfigureAwait(false);
        await using (gateway.ConfigureAwait(false))
        {
            SheepInode? model = options.BackingFile is { Length: > 0 } backing
                ? await BaseAsync(gateway, backing, options, cancellationToken).ConfigureAwait(false)
                : null;
            int shift = options.ObjectSize is long size ? System.Numerics.BitOperations.Log2((ulong)size) : 0;
            _number = await gateway.NewAsync(
                SheepRequest.New(
                    vdi.Vdi,
                    model?.Size ?? 0,
                    model?.Vdi ?? 0,
                    keepsPresent: false,
                    options.Redundancy is null && model is not null ? model.Redundancy : redundancy,
                    model?.Shift ?? shift),
                CancellationToken.None).ConfigureAwait(false);
            _isMade = true;
        }
        try
        {
            _node = await SheepDriver.OpenAsync(vdi, writable: true, cancellationToken).ConfigureAwait(false);
        }
        catch
        {
            await DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    public override async ValueTask<BlockNode> OpenAsync(bool writable, CancellationToken cancellationToken)
        => await SheepDriver.OpenAsync(vdi, writable, cancellationToken).ConfigureAwait(false);

    public override ValueTask PublishAsync(bool durable, bool revocable, CancellationToken cancellationToken)
    {
        _isPublished = true; // it has its name
        return default;
    }

    /// <summary>Waits, for a bounded time.</summary>
    public override void Withdraw()
    {
        if (_isPublished)
        {
            _isPublished = false;
            _ = Task.Run(TryRemoveAsync).Wait(TimeSpan.FromSeconds(30));
        }
    }

    public override async ValueTask DisposeAsync()
    {
        if (_node is not null)
        {
            try
            {
                await _node.DisposeAsync().ConfigureAwait(false);
            }
            catch (DiskImageException)
            {
                // The failure that led here is on its way already.
            }
        }
        if (!_isPublished)
        {
            await TryRemoveAsync().ConfigureAwait(false);
        }
    }

    /// <summary>Deletes a VDI. That there is none is no error.</summary>
    /// <param name="place">It.</param>
    /// <param name="number">Its number; null for whichever it is.</param>
    public static async ValueTask RemoveAsync(SheepPlace place, uint? number = null)
    {
        SheepGateway gateway = await SheepDriver.ReachAsync(place, CancellationToken.None).ConfigureAwait(false);
        await using (gateway.ConfigureAwait(false))
        {
            uint? found = await gateway.FindAsync(place.Vdi, "", 0, CancellationToken.None).ConfigureAwait(false);
            if (found is uint there && (number is null || number == there)
                && await gateway.InodeAsync(there, CancellationToken.None).ConfigureAwait(false) is { IsSnapshot: false } inode)
            {
                await gateway.DeleteAsync(place.Vdi, inode, CancellationToken.None).ConfigureAwait(false);
            }
        }
    }

    private async Task TryRemoveAsync()
    {
        if (!_isMade)
        {
            return;
        }
        _isMade = false;
        try
        {
            await RemoveAsync(vdi, _number).ConfigureAwait(false);
        }
        catch (DiskImageException)
        {
            // The cluster is gone; what was made stays there, and its name says what it was to be.
        }
    }

    /// <summary>The snapshot that a new VDI begins as.</summary>
    private async ValueTask<SheepInode> BaseAsync(
        SheepGateway gateway, string backing, SheepCreateOptions options, CancellationToken cancellationToken)
    {
        SheepPlace other = SheepDriver.PlaceOf(backing);
        if (other.Snapshot is null || other.Server != vdi.Server || options.ObjectSize is not null)
        {
            string wrong = other.Snapshot is null ? $"'{backing}' is no snapshot. Take one, and name it: {other.Name}#TAG"
                : other.Server != vdi.Server ? $"'{backing}' is not of the same gateway ({vdi.Server.Before}{vdi.Server.After})"
                : "'object_size' is that of the snapshot, and cannot be given";
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption, $"{vdi.Name}: cannot stand on the backing file: {wrong}.", vdi.Name);
        }
        return await gateway.SnapshotAsync(other.Vdi, other.Snapshot, byTagFirst: false, cancellationToken).ConfigureAwait(false);
    }
}
