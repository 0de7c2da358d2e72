using DiskImage.Block;

namespace DiskImage.Protocols.Sheepdog;

/// <summary>A VDI of a Sheepdog cluster, or a snapshot of one.</summary>
/// <param name="name">Its URI.</param>
/// <param name="vdiName">What the cluster calls it.</param>
/// <param name="identity">Which one it is.</param>
/// <param name="volume">Its objects.</param>
/// <param name="writable">It is open for writing, and locked.</param>
/// <param name="ownsGateway">The connection ends with the node.</param>
internal sealed class SheepNode(
    string name, string vdiName, NodeIdentity identity, SheepVolume volume, bool writable, bool ownsGateway) : BlockNode, ISnapshots
{
    private const int LongestTransfer = 4 << 20; // ours

    private static readonly byte[] s_zeroes = new byte[1 << 20];

    private readonly SheepSnapshots _snapshots = new(name, vdiName, volume);
    private volatile bool _isWrittenThrough; // the gateway holds nothing back

    public override string Name => name;

    public override long Length => volume.Inode.Size;

    public override bool IsReadOnly => !writable;

    public override bool GrowsOnWrite => writable;

    public override NodeIdentity? Identity => identity;

    public override long? AllocatedLength => volume.OwnLength;

    public override BlockLimits Limits => new(AllocationUnit: (int)Math.Min(volume.Inode.ObjectSize, 1 << 30), InFlight: 8);

    /// <summary>What the inode says.</summary>
    internal SheepInode Inode => volume.Inode;

    protected override BlockBinding Binding => new(MaximumTransfer: LongestTransfer);

    public ValueTask<IReadOnlyList<DiskSnapshot>> GetSnapshotsAsync(CancellationToken cancellationToken)
        => _snapshots.ListAsync(cancellationToken);

    public async ValueTask<DiskSnapshot> CreateSnapshotAsync(string name, DateTimeOffset taken, CancellationToken cancellationToken)
    {
        await ChangeableAsync(cancellationToken).ConfigureAwait(false);
        return await WholeAsync(() => _snapshots.CreateAsync(name, cancellationToken)).ConfigureAwait(false);
    }

    public async ValueTask<DiskSnapshot> RestoreSnapshotAsync(string idOrName, CancellationToken cancellationToken)
    {
        await ChangeableAsync(cancellationToken).ConfigureAwait(false);
        return await WholeAsync(() => _snapshots.RestoreAsync(idOrName, cancellationToken)).ConfigureAwait(false);
    }

    public async ValueTask<DiskSnapshot> DeleteSnapshotAsync(string nameOrId, CancellationToken cancellationToken)
    {
        CheckWritable();
        return await WholeAsync(() => _snapshots.DeleteAsync(nameOrId, cancellationToken)).ConfigureAwait(false);
    }

    public async ValueTask<DiskSnapshot> DeleteSnapshotAsync(string id, string name, CancellationToken cancellationToken)
    {
        CheckWritable();
        return await WholeAsync(() => _snapshots.DeleteAsync(id, name, cancellationToken)).ConfigureAwait(false);
    }

    public async ValueTask<BlockNode> OpenSnapshotAsync(string idOrName, CancellationToken cancellationToken)
    {
        SheepVolume kept = await _snapshots.OpenAsync(idOrName, cancellationToken).ConfigureAwait(false);
        return new SheepNode(name, vdiName, SheepPlace.IdentityOf(kept.Inode.Vdi, identity), kept, writable: false, ownsGateway: false);
    }

    protected override ValueTask ReadCoreAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
        => WholeAsync(() => volume.ReadAsync(offset, buffer, cancellationToken));

    protected override ValueTask WriteCoreAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
        => WholeAsync(async () =>
        {
            await ReachAsync(offset + buffer.Length, cancellationToken).ConfigureAwait(false);
            await volume.WriteAsync(offset, buffer, cancellationToken).ConfigureAwait(false);
        });

    protected override ValueTask<BlockExtent> GetExtentCoreAsync(long offset, long length, CancellationToken cancellationToken)
    {
        BlockStatus status = BlockStatus.Allocated | (volume.IsKept(offset) ? BlockStatus.Data : BlockStatus.Zero);
        return new(new BlockExtent(offset, volume.RunFrom(offset, length), status, this, offset));
    }

    /// <summary>Whole objects are given up if space may be; of what is not kept anyway nothing is written.</summary>
    protected override ValueTask WriteZeroesCoreAsync(
        long offset, long length, ZeroWriteMode mode, CancellationToken cancellationToken)
        => WholeAsync(async () =>
        {
            long end = offset + length;
            await ReachAsync(end, cancellationToken).ConfigureAwait(false);
            (long Start, long End) gone = mode == ZeroWriteMode.MayUnmap
                ? await volume.GiveUpAsync(offset, length, cancellationToken).ConfigureAwait(false)
                : (end, end);
            await ZeroAsync(offset, gone.Start, cancellationToken).ConfigureAwait(false);
            await ZeroAsync(gone.End, end, cancellationToken).ConfigureAwait(false);
        });

    protected override ValueTask DiscardCoreAsync(long offset, long length, CancellationToken cancellationToken)
        => WholeAsync(async () =>
        {
            _ = await volume.GiveUpAsync(offset, length, cancellationToken).ConfigureAwait(false);
        });

    protected override ValueTask FlushCoreAsync(CancellationToken cancellationToken)
        => WholeAsync(async () =>
        {
            if (_isWrittenThrough)
            {
                return;
            }
            SheepRequest flushed = await volume.Gateway.RunAsync(
                SheepRequest.Flush(volume.Inode.Vdi), cancellationToken).ConfigureAwait(false);
            if (flushed.Result == SheepResult.InvalidParameters)
            {
                _isWrittenThrough = true; // it has no cache of objects: what it has answered is on the disks
            }
            else if (flushed.Result != SheepResult.Success)
            {
                DiskImageException error = volume.Gateway.Error(flushed, "flush it");
                var lost = new DiskImageException(DiskImageErrorKind.WriteFailed, error.Wording, Name);
                BreakWriting(lost);
                throw lost;
            }
        });

    protected override ValueTask ResizeCoreAsync(
        long length, PreallocationMode preallocation, IProgress<long>? claimed, CancellationToken cancellationToken)
        => WholeAsync(async () =>
        {
            long old = Length;
            if (length < old)
            {
                long ending = Math.Min(old, (long)volume.Inode.ObjectsOf(length) << volume.Inode.Shift);
                await ZeroAsync(length, ending, cancellationToken).ConfigureAwait(false);
            }
            await volume.ResizeAsync(length, mayShrink: true, cancellationToken).ConfigureAwait(false);
            if (preallocation == PreallocationMode.Falloc)
            {
                await volume.ReserveAsync(old, length, claimed, cancellationToken).ConfigureAwait(false);
            }
            for (long at = old; at < length && preallocation == PreallocationMode.Full;)
            {
                int count = (int)Math.Min(s_zeroes.Length, length - at);
                await volume.WriteAsync(at, s_zeroes.AsMemory(0, count), cancellationToken).ConfigureAwait(false);
                at += count;
                claimed?.Report(at - old);
            }
        });

    protected override async ValueTask CloseCoreAsync()
    {
        try
        {
            if (writable && volume.Gateway.Broken is null)
            {
                using var stop = new CancellationTokenSource(TimeSpan.FromSeconds(5)); // for a goodbye. Ours
                await volume.Gateway.ReleaseAsync(vdiName, volume.Inode.Vdi, stop.Token).ConfigureAwait(false);
            }
        }
        catch (Exception e) when (e is DiskImageException or OperationCanceledException)
        {
            // It holds nothing of ours but the lock, and cannot be told.
        }
        finally
        {
            if (ownsGateway)
            {
                await volume.Gateway.DisposeAsync().ConfigureAwait(false);
            }
        }
    }

    private async ValueTask ChangeableAsync(CancellationToken cancellationToken)
    {
        CheckWritable();
        await FlushAsync(cancellationToken).ConfigureAwait(false);
    }

    private ValueTask ReachAsync(long end, CancellationToken cancellationToken)
        => end <= Length ? default : volume.ResizeAsync(end, mayShrink: false, cancellationToken);

    private async ValueTask ZeroAsync(long from, long to, CancellationToken cancellationToken)
    {
        while (from < to)
        {
            long run = Math.Min(volume.RunFrom(from, to - from), s_zeroes.Length);
            if (volume.IsKept(from))
            {
                await volume.WriteAsync(from, s_zeroes.AsMemory(0, (int)run), cancellationToken).ConfigureAwait(false);
            }
            from += run;
        }
    }

    private async ValueTask WholeAsync(Func<ValueTask> work)
        => _ = await WholeAsync(async () =>
        {
            await work().ConfigureAwait(false);
            return true;
        }).ConfigureAwait(false);

    /// <summary>Does something, after whose failure the node is broken if the connection is.</summary>
    private async ValueTask<T> WholeAsync<T>(Func<ValueTask<T>> work)
    {
        try
        {
            return await work().ConfigureAwait(false);
        }
        catch (DiskImageException e) when (volume.Gateway.Broken is not null)
        {
            Break(e);
            throw;
        }
    }
}
