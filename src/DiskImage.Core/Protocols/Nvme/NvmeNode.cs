using System.Buffers.Binary;
using DiskImage.Block;

namespace DiskImage.Protocols.Nvme;

/// <summary>A namespace of an NVMe controller. Spec: NVM Command Set 1.0, section 3.2.</summary>
/// <param name="name">Its URI.</param>
/// <param name="identity">Which it is.</param>
/// <param name="lease">The use of its controller, which is the node's.</param>
/// <param name="space">What its controller says of it.</param>
/// <param name="writable">It is opened for writing.</param>
internal sealed class NvmeNode(string name, NodeIdentity identity, NvmeLease lease, NvmeNamespace space, bool writable)
    : BlockNode, IFastZero
{
    private const byte FlushCommand = 0x00, WriteCommand = 0x01, ReadCommand = 0x02, ZeroCommand = 0x08, ManageCommand = 0x09;
    private const uint Durably = 1u << 30, MayDiscard = 1u << 25; // FUA, DEAC
    private const uint Deallocate = 1 << 2; // of Dataset Management
    private const int MostZeroed = 1 << 16; // blocks of one Write Zeroes
    private const long MostDiscarded = 1L << 30; // bytes of one request: a controller must not be busy for long. Ours
    private const int RangeSize = 16;

    private readonly NvmeController _controller = lease.Controller;
    private volatile bool _isRefusedZero, _isRefusedDiscard; // the controller does not know the command, whatever it says
    private volatile bool _isWritten; // since the last flush

    public override string Name => name;

    public override long Length => space.Length;

    public override bool IsReadOnly => !writable;

    public override NodeIdentity? Identity => identity;

    public override BlockLimits Limits => new(OptimalTransfer: _controller.MostTransfer, InFlight: _controller.InFlight);

    protected override BlockBinding Binding
        => new(RequestAlignment: space.BlockSize, MaximumTransfer: _controller.MostTransfer, MaximumZeroes: MostDiscarded);

    private bool CanGiveBack
        => _controller.Identity.TakesZeroes && !_isRefusedZero && space is { ReadsZeroes: true, ZeroesMayDiscard: true };

    public async ValueTask<bool> TryZeroFastAsync(long offset, long length, CancellationToken cancellationToken)
        => CanGiveBack && offset % space.BlockSize == 0 && length % space.BlockSize == 0
            && await TryZeroAsync(offset, length, mayDiscard: true, cancellationToken).ConfigureAwait(false);

    protected override async ValueTask ReadCoreAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
    {
        NvmeCommand command = Over(ReadCommand, offset, buffer.Length) with { Into = buffer };
        NvmeStatus status = await RunAsync(command, cancellationToken).ConfigureAwait(false);
        Require(status, "read", offset, buffer.Length, changes: false);
    }

    protected override ValueTask WriteCoreAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
        => WriteAsync(offset, buffer, flags: 0, cancellationToken);

    protected override async ValueTask<bool> TryWriteDurablyAsync(
        long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
    {
        if (offset % space.BlockSize != 0 || buffer.Length % space.BlockSize != 0 || buffer.Length > Binding.LargestTransfer)
        {
            return false;
        }
        await WriteAsync(offset, buffer, Durably, cancellationToken).ConfigureAwait(false);
        return true;
    }

    protected override async ValueTask WriteZeroesCoreAsync(
        long offset, long length, ZeroWriteMode mode, CancellationToken cancellationToken)
    {
        bool mayDiscard = mode == ZeroWriteMode.MayUnmap && CanGiveBack;
        if (!await TryZeroAsync(offset, length, mayDiscard, cancellationToken).ConfigureAwait(false))
        {
            await base.WriteZeroesCoreAsync(offset, length, mode, cancellationToken).ConfigureAwait(false);
        }
    }

    protected override async ValueTask DiscardCoreAsync(long offset, long length, CancellationToken cancellationToken)
    {
        if (!_controller.Identity.TakesDiscards || _isRefusedDiscard)
        {
            return; // a hint that is not taken
        }
        byte[] range = new byte[RangeSize];
        BinaryPrimitives.WriteUInt32LittleEndian(range.AsSpan(4), (uint)(length / space.BlockSize));
        BinaryPrimitives.WriteInt64LittleEndian(range.AsSpan(8), offset / space.BlockSize);
        _isWritten = true;
        NvmeStatus status = await RunAsync(
            new NvmeCommand(ManageCommand, space.Number) { Word11 = Deallocate, From = range }, cancellationToken).ConfigureAwait(false);
        if (status.IsUnknown)
        {
            _isRefusedDiscard = true;
            return;
        }
        Require(status, "discard", offset, length, changes: true);
    }

    protected override async ValueTask FlushCoreAsync(CancellationToken cancellationToken)
    {
        _isWritten = false;
        if (!_controller.Identity.HasCache)
        {
            return; // what is written is there
        }
        NvmeStatus status = await RunAsync(new NvmeCommand(FlushCommand, space.Number), cancellationToken).ConfigureAwait(false);
        if (!status.IsGood)
        {
            var error = new DiskImageException(status.KindOf(changes: true), $"{Name}: cannot flush it: {status}", Name);
            BreakWriting(error);
            throw error;
        }
    }

    // As with every device, nothing is left in a cache when nobody has it open.
    protected override async ValueTask CloseCoreAsync()
    {
        try
        {
            if (_isWritten)
            {
                await FlushCoreAsync(CancellationToken.None).ConfigureAwait(false);
            }
        }
        finally
        {
            await lease.DisposeAsync().ConfigureAwait(false);
        }
    }

    private async ValueTask WriteAsync(long offset, ReadOnlyMemory<byte> buffer, uint flags, CancellationToken cancellationToken)
    {
        NvmeCommand command = Over(WriteCommand, offset, buffer.Length, flags) with { From = buffer };
        _isWritten = true;
        NvmeStatus status = await RunAsync(command, cancellationToken).ConfigureAwait(false);
        Require(status, "write", offset, buffer.Length, changes: true);
    }

    /// <summary>Zeroes by Write Zeroes. Returns false if the controller does not know it; then some may be zeroed.</summary>
    private async ValueTask<bool> TryZeroAsync(long offset, long length, bool mayDiscard, CancellationToken cancellationToken)
    {
        if (!_controller.Identity.TakesZeroes || _isRefusedZero)
        {
            return false;
        }
        long most = (long)MostZeroed * space.BlockSize;
        for (long end = offset + length; offset < end; offset += most)
        {
            long count = Math.Min(most, end - offset);
            _isWritten = true;
            NvmeStatus status = await RunAsync(
                Over(ZeroCommand, offset, count, mayDiscard ? MayDiscard : 0), cancellationToken).ConfigureAwait(false);
            if (status.IsUnknown)
            {
                _isRefusedZero = true;
                return false;
            }
            Require(status, "zero", offset, count, changes: true);
        }
        return true;
    }

    /// <summary>A command over a run of blocks.</summary>
    private NvmeCommand Over(byte opcode, long offset, long length, uint flags = 0)
    {
        long block = offset / space.BlockSize;
        return new NvmeCommand(opcode, space.Number)
        {
            Word10 = (uint)block, Word11 = (uint)(block >> 32), Word12 = (uint)((length / space.BlockSize) - 1) | flags,
        };
    }

    private async ValueTask<NvmeStatus> RunAsync(NvmeCommand command, CancellationToken cancellationToken)
    {
        try
        {
            return await _controller.RunAsync(command, cancellationToken).ConfigureAwait(false);
        }
        catch (DiskImageException e)
        {
            Break(e);
            throw;
        }
    }

    private void Require(NvmeStatus status, string doing, long offset, long length, bool changes)
    {
        if (!status.IsGood)
        {
            throw new DiskImageException(
                status.KindOf(changes),
                $"{Name}: cannot {doing} {length:#,0} bytes at offset {offset:#,0} (LBA {offset / space.BlockSize}): {status}",
                Name,
                offset);
        }
    }
}
