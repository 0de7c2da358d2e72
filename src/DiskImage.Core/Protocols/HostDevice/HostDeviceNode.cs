using DiskImage.Block;
using DiskImage.Platform;
using Microsoft.Win32.SafeHandles;

namespace DiskImage.Protocols.HostDevice;

/// <summary>An open device: fixed length, whole sectors.</summary>
internal sealed class HostDeviceNode : BlockNode
{
    private const long ZeroedAtOnce = 1L << 30; // bytes between two looks at the cancellation. Ours

    private readonly SafeFileHandle _handle;
    private readonly HostDeviceFacts _facts;
    private readonly HostDevices _devices;
    private volatile bool _isWritten; // since the last flush

    public HostDeviceNode(
        string path, SafeFileHandle handle, HostDeviceFacts facts, HostDevices devices, bool isReadOnly, int memoryAlignment = 1)
    {
        (Name, _handle, _facts, _devices, IsReadOnly) = (path, handle, facts, devices, isReadOnly);
        Binding = new BlockBinding(facts.LogicalSector, memoryAlignment, MaximumZeroes: ZeroedAtOnce);
        Limits = new BlockLimits(facts.PhysicalSector);
    }

    public override string Name { get; }

    public override long Length => _facts.Length;

    public override bool IsReadOnly { get; }

    public override BlockLimits Limits { get; }

    public override NodeIdentity? Identity => HostNames.Current.IdentityOf(_handle);

    protected override BlockBinding Binding { get; }

    protected override ValueTask ReadCoreAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
    {
        cancellationToken.ThrowIfCancellationRequested();
        while (!buffer.IsEmpty)
        {
            int got = Try("read", offset, DiskImageErrorKind.Io, () => RandomAccess.Read(_handle, buffer.Span, offset));
            if (got == 0)
            {
                throw new DiskImageException(
                    DiskImageErrorKind.Io,
                    $"{Name}: ends before {offset + buffer.Length:#,0} bytes; was its medium changed?",
                    Name,
                    offset);
            }
            (buffer, offset) = (buffer[got..], offset + got);
        }
        return default;
    }

    protected override ValueTask WriteCoreAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
    {
        cancellationToken.ThrowIfCancellationRequested();
        _isWritten = true;
        _ = Try("write", offset, DiskImageErrorKind.WriteFailed, () =>
        {
            RandomAccess.Write(_handle, buffer.Span, offset);
            return true;
        });
        return default;
    }

    protected override ValueTask WriteZeroesCoreAsync(long offset, long length, ZeroWriteMode mode, CancellationToken cancellationToken)
    {
        cancellationToken.ThrowIfCancellationRequested();
        _isWritten = true;
        return _devices.TryZero(_handle, offset, length) ? default : base.WriteZeroesCoreAsync(offset, length, mode, cancellationToken);
    }

    protected override ValueTask DiscardCoreAsync(long offset, long length, CancellationToken cancellationToken)
    {
        cancellationToken.ThrowIfCancellationRequested();
        _isWritten = true;
        _ = _devices.TryDiscard(_handle, offset, length); // a hint
        return default;
    }

    protected override ValueTask FlushCoreAsync(CancellationToken cancellationToken)
    {
        try
        {
            _isWritten = false;
            HostFile.Current.Flush(_handle);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            DiskImageException error = HostFile.Error(e, Name, "flush it", otherwise: DiskImageErrorKind.WriteFailed);
            BreakWriting(error);
            throw error;
        }
        return default;
    }

    // A device is given away or pulled out as soon as nobody has it open: nothing is left in the host's cache.
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
            HostFile.Current.Close(_handle);
        }
    }

    private T Try<T>(string doing, long offset, DiskImageErrorKind otherwise, Func<T> action)
    {
        try
        {
            return action();
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or ArgumentException)
        {
            throw HostFile.Error(e, Name, doing, offset, otherwise);
        }
    }
}
