using System.Buffers.Binary;
using DiskImage.Block;

namespace DiskImage.Protocols.Iscsi;

/// <summary>A logical unit of an iSCSI target.</summary>
/// <param name="name">Its URL, without secrets.</param>
/// <param name="identity">Which unit it is.</param>
/// <param name="link">The way to it, which is the node's.</param>
/// <param name="writable">It is opened for writing, which the unit allows.</param>
internal sealed class IscsiNode(string name, NodeIdentity identity, IscsiLink link, bool writable) : BlockNode, IFastZero
{
    private const int LongestTransfer = 8 << 20; // ours
    private const int MostShortBlocks = ushort.MaxValue; // of a command of 10 bytes
    private const long MostZeroed = 1L << 30; // in one command. Ours: a target must not be busy for long
    private const long MostDiscarded = 1L << 30;
    private const int StatusRoom = 8 + (16 * 1024); // bytes of an answer to GET LBA STATUS. Ours

    private readonly ScsiUnit _unit = link.Unit;
    private readonly byte[] _zeroBlock = new byte[link.Unit.BlockSize];
    private volatile bool _isRefusedSame, _isRefusedStatus, _isRefusedFlush; // the unit does not know the command
    private readonly ExtentMemory _known = new();

    public override string Name => name;

    public override long Length => _unit.Length;

    public override bool IsReadOnly => !writable;

    public override NodeIdentity? Identity => identity;

    public override BlockLimits Limits => new(
        OptimalTransfer: (int)Math.Clamp((long)_unit.OptimalTransfer * _unit.BlockSize, 1 << 20, LongestTransfer), InFlight: 16);

    /// <summary>What the last login agreed on.</summary>
    internal IscsiAgreement Agreed => link.Agreed;

    /// <summary>What the unit says it is.</summary>
    internal ScsiUnit Unit => _unit;

    protected override BlockBinding Binding
    {
        get
        {
            long most = LongestTransfer;
            most = _unit.MaxTransfer > 0 ? Math.Min(most, (long)_unit.MaxTransfer * _unit.BlockSize) : most;
            most = _unit.IsLong ? most : Math.Min(most, (long)MostShortBlocks * _unit.BlockSize);
            return new BlockBinding(RequestAlignment: _unit.BlockSize, MaximumTransfer: (int)most, MaximumZeroes: MostZeroed);
        }
    }

    private int Block => _unit.BlockSize;

    private bool CanGiveBack => _unit is { IsThin: true, ReadsZeroes: true, TakesUnmapSame: true } && !_isRefusedSame;

    public async ValueTask<bool> TryZeroFastAsync(long offset, long length, CancellationToken cancellationToken)
        => CanGiveBack && offset % Block == 0 && length % Block == 0
            && await TrySameAsync(offset, length, unmap: true, cancellationToken).ConfigureAwait(false);

    protected override async ValueTask ReadCoreAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
    {
        byte[] cdb = ScsiCommands.Read(_unit.IsLong, offset / Block, buffer.Length / Block);
        ScsiTask task = await RunAsync(() => ScsiTask.In(_unit.Lun, cdb, buffer), cancellationToken).ConfigureAwait(false);
        Require(task, "read", offset, buffer.Length, changes: false);
    }

    protected override ValueTask WriteCoreAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
        => WriteAsync(offset, buffer, fua: false, cancellationToken);

    protected override async ValueTask<bool> TryWriteDurablyAsync(
        long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
    {
        if (!_unit.TakesFua || offset % Block != 0 || buffer.Length % Block != 0 || buffer.Length > Binding.LargestTransfer)
        {
            return false;
        }
        await WriteAsync(offset, buffer, fua: true, cancellationToken).ConfigureAwait(false);
        return true;
    }

    protected override async ValueTask WriteZeroesCoreAsync(
        long offset, long length, ZeroWriteMode mode, CancellationToken cancellationToken)
    {
        bool unmap = mode == ZeroWriteMode.MayUnmap && CanGiveBack;
        if (!await TrySameAsync(offset, length, unmap, cancellationToken).ConfigureAwait(false))
        {
            await base.WriteZeroesCoreAsync(offset, length, mode, cancellationToken).ConfigureAwait(false);
        }
    }

    protected override async ValueTask DiscardCoreAsync(long offset, long length, CancellationToken cancellationToken)
    {
        if (!_unit.IsThin || !_unit.TakesUnmap)
        {
            if (CanGiveBack)
            {
                _ = await TrySameAsync(offset, length, unmap: true, cancellationToken).ConfigureAwait(false);
            }
            return; // a hint that is not taken
        }
        long most = Math.Clamp(_unit.MaxUnmap == 0 ? uint.MaxValue : _unit.MaxUnmap, 1, MostDiscarded / Block) * Block;
        for (long end = offset + length; offset < end; offset += most)
        {
            byte[] list = ScsiCommands.UnmapList(offset / Block, (uint)(Math.Min(most, end - offset) / Block));
            ScsiTask task = await ChangeAsync(
                () => ScsiTask.Out(_unit.Lun, ScsiCommands.Unmap(list.Length), list), cancellationToken).ConfigureAwait(false);
            if (task.IsUnknown)
            {
                return;
            }
            ScsiUnit.Require(
                Name, task, $"discard {Math.Min(most, end - offset):#,0} bytes at offset {offset:#,0}", offset, changes: true);
        }
    }

    protected override async ValueTask FlushCoreAsync(CancellationToken cancellationToken)
    {
        if (_isRefusedFlush)
        {
            return; // there is no cache, or nobody can tell
        }
        ScsiTask task = await RunAsync(
            () => ScsiTask.Plain(_unit.Lun, ScsiCommands.SynchronizeCache()), cancellationToken).ConfigureAwait(false);
        if (task.IsUnknown)
        {
            _isRefusedFlush = true;
            return;
        }
        try
        {
            ScsiUnit.Require(Name, task, "flush it", changes: true);
        }
        catch (DiskImageException e)
        {
            BreakWriting(e);
            throw;
        }
    }

    protected override async ValueTask<BlockExtent> GetExtentCoreAsync(long offset, long length, CancellationToken cancellationToken)
    {
        if (!_unit.IsThin || !_unit.ReadsZeroes || !_unit.IsLong || _isRefusedStatus)
        {
            return await base.GetExtentCoreAsync(offset, length, cancellationToken).ConfigureAwait(false);
        }
        if (_known.Find(offset) is { } known)
        {
            return known;
        }
        long mark = _known.Mark;
        byte[] buffer = [];
        byte[] cdb = ScsiCommands.GetLbaStatus(offset / Block, StatusRoom);
        ScsiTask task = await RunAsync(
            () => ScsiTask.In(_unit.Lun, cdb, buffer = new byte[StatusRoom]), cancellationToken).ConfigureAwait(false);
        if (!task.IsGood || task.Received < 24)
        {
            _isRefusedStatus = true; // a hint that there is none of: all is data
            return await base.GetExtentCoreAsync(offset, length, cancellationToken).ConfigureAwait(false);
        }
        KnownExtents status = Known(buffer.AsSpan(0, task.Received), offset / Block);
        _known.Keep(status, mark);
        return status.Find(offset) ?? await base.GetExtentCoreAsync(offset, 1, cancellationToken).ConfigureAwait(false);
    }

    /// <summary>The length is the target's.</summary>
    protected override ValueTask ResizeCoreAsync(
        long length, PreallocationMode preallocation, IProgress<long>? claimed, CancellationToken cancellationToken)
        => length == Length ? default : throw new DiskImageException(
            DiskImageErrorKind.Unsupported,
            $"{Name}: the length of a logical unit, {Length:#,0} bytes, is its target's to change, not its initiator's",
            Name);

    protected override ValueTask CloseCoreAsync() => link.DisposeAsync();

    private async ValueTask WriteAsync(long offset, ReadOnlyMemory<byte> buffer, bool fua, CancellationToken cancellationToken)
    {
        byte[] cdb = ScsiCommands.Write(_unit.IsLong, offset / Block, buffer.Length / Block, fua);
        ScsiTask task = await ChangeAsync(() => ScsiTask.Out(_unit.Lun, cdb, buffer), cancellationToken).ConfigureAwait(false);
        Require(task, "write", offset, buffer.Length, changes: true);
    }

    /// <summary>Zeroes by WRITE SAME(16).</summary>
    /// <returns>False if the unit does not know it; then some may be zeroed.</returns>
    private async ValueTask<bool> TrySameAsync(long offset, long length, bool unmap, CancellationToken cancellationToken)
    {
        if (_isRefusedSame || !_unit.IsLong)
        {
            return false;
        }
        long most = (long)Math.Clamp(_unit.MaxSame == 0 ? ulong.MaxValue : _unit.MaxSame, 1, (ulong)(MostZeroed / Block)) * Block;
        for (long end = offset + length; offset < end; offset += most)
        {
            byte[] cdb = ScsiCommands.WriteSame(offset / Block, Math.Min(most, end - offset) / Block, unmap);
            ScsiTask task = await ChangeAsync(
                () => ScsiTask.Out(_unit.Lun, cdb, _zeroBlock), cancellationToken).ConfigureAwait(false);
            if (task.IsUnknown)
            {
                _isRefusedSame = true;
                return false;
            }
            Require(task, "zero", offset, Math.Min(most, end - offset), changes: true);
        }
        return true;
    }

    private async ValueTask<ScsiTask> RunAsync(Func<ScsiTask> make, CancellationToken cancellationToken)
    {
        try
        {
            return await link.RunAsync(make, cancellationToken).ConfigureAwait(false);
        }
        catch (DiskImageException e)
        {
            Break(e);
            throw;
        }
    }

    private ValueTask<ScsiTask> ChangeAsync(Func<ScsiTask> make, CancellationToken cancellationToken)
        => _known.ChangeAsync(() => RunAsync(make, cancellationToken));

    private void Require(ScsiTask task, string doing, long offset, long length, bool changes)
    {
        ScsiUnit.Require(Name, task, $"{doing} {length:#,0} bytes at offset {offset:#,0}", offset, changes);
        if (!task.IsWhole)
        {
            throw new DiskImageException(
                changes ? DiskImageErrorKind.WriteFailed : DiskImageErrorKind.Io,
                $"{Name}: cannot {doing} {length:#,0} bytes at offset {offset:#,0}: the target says that all went well, and moved fewer "
                    + "bytes",
                Name,
                offset);
        }
    }

    /// <summary>What an answer to GET LBA STATUS told. Spec: SBC-3, provisioning status 0 mapped, 1 deallocated, 2 anchored.</summary>
    /// <param name="answer">It.</param>
    /// <param name="asked">The block that was asked about.</param>
    private KnownExtents Known(ReadOnlySpan<byte> answer, long asked)
    {
        var known = new KnownExtents();
        uint length = BinaryPrimitives.ReadUInt32BigEndian(answer);
        ReadOnlySpan<byte> rows = answer[8..(int)Math.Min(answer.Length, Math.Max(8, length + 4L))];
        long next = asked, end = Length / Block;
        for (; rows.Length >= 16 && next < end; rows = rows[16..])
        {
            ulong start = BinaryPrimitives.ReadUInt64BigEndian(rows);
            uint count = BinaryPrimitives.ReadUInt32BigEndian(rows[8..]);
            if ((known.IsEmpty ? start > (ulong)asked : start != (ulong)next) || start + count <= (ulong)next)
            {
                break; // it does not go on from there
            }
            long stop = (long)Math.Min(start + count, (ulong)end);
            bool isHole = (rows[12] & 0x0F) is 1 or 2;
            BlockStatus status = BlockStatus.Allocated | (isHole ? BlockStatus.Zero : BlockStatus.Data);
            known.Add(new BlockExtent(next * Block, (stop - next) * Block, status, this, next * Block));
            next = stop;
        }
        return known;
    }
}
