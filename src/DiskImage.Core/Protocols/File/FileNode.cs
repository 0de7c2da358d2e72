using DiskImage.Block;
using DiskImage.Platform;
using Microsoft.Win32.SafeHandles;

namespace DiskImage.Protocols.File;

/// <summary>
/// A regular file of the host. Positioned I/O only: there is no shared file pointer, so requests may overlap freely, and each
/// completes before it returns. Callers that want parallel I/O call from several workers.
/// </summary>
internal sealed class FileNode : BlockNode
{
    private readonly SafeFileHandle _handle;
    private readonly object _growing = new(); // guards _length against going back when two writes grow the file
    private long _length;
    private volatile bool _holesUnknown; // the file system cannot tell: do not ask for every extent again

    public FileNode(string path, SafeFileHandle handle, bool isReadOnly)
    {
        (Name, _handle, IsReadOnly) = (path, handle, isReadOnly);
        _length = RandomAccess.GetLength(handle);
    }

    public override string Name { get; }

    public override bool IsReadOnly { get; }

    public override bool GrowsOnWrite => !IsReadOnly;

    public override long Length => Volatile.Read(ref _length);

    public override long? AllocatedLength => HostFile.Current.AllocatedLength(_handle);

    protected override ValueTask ReadCoreAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
    {
        cancellationToken.ThrowIfCancellationRequested();
        while (!buffer.IsEmpty)
        {
            int got;
            try
            {
                got = RandomAccess.Read(_handle, buffer.Span, offset);
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException)
            {
                throw HostFile.Error(e, Name, "read", offset);
            }
            if (got == 0)
            {
                throw new DiskImageException(
                    DiskImageErrorKind.Io, $"{Name}: the file became shorter than {offset + buffer.Length:#,0} bytes while it was read", Name, offset);
            }
            (buffer, offset) = (buffer[got..], offset + got);
        }
        return default;
    }

    protected override ValueTask WriteCoreAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
    {
        cancellationToken.ThrowIfCancellationRequested();
        try
        {
            RandomAccess.Write(_handle, buffer.Span, offset);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw HostFile.Error(e, Name, "write", offset);
        }
        Grow(offset + buffer.Length);
        return default;
    }

    protected override ValueTask<BlockExtent> GetExtentCoreAsync(long offset, long length, CancellationToken cancellationToken)
    {
        long end = Length;
        bool isData = true;
        if (!_holesUnknown && !HostFile.Current.TryFindExtent(_handle, offset, end, out isData, out end))
        {
            (_holesUnknown, isData, end) = (true, true, Length);
        }
        BlockStatus status = isData ? BlockStatus.Allocated | BlockStatus.Data : BlockStatus.Allocated | BlockStatus.Zero;
        return new(new BlockExtent(offset, end - offset, status, this, offset));
    }

    protected override async ValueTask WriteZeroesCoreAsync(long offset, long length, ZeroWriteMode mode, CancellationToken cancellationToken)
    {
        long end = offset + length;
        long inside = Math.Min(end, Length);
        if (end > inside)
        {
            SetLength(end); // what a file grows by reads as zeroes
        }
        if (offset >= inside)
        {
            return;
        }
        bool done = mode == ZeroWriteMode.MayUnmap
            ? HostFile.Current.TryPunchHole(_handle, offset, inside - offset)
            : HostFile.Current.TryZeroRange(_handle, offset, inside - offset);
        if (!done)
        {
            await base.WriteZeroesCoreAsync(offset, inside - offset, mode, cancellationToken).ConfigureAwait(false);
        }
    }

    protected override ValueTask DiscardCoreAsync(long offset, long length, CancellationToken cancellationToken)
    {
        _ = HostFile.Current.TryPunchHole(_handle, offset, length);
        return default;
    }

    protected override ValueTask FlushCoreAsync(CancellationToken cancellationToken)
    {
        try
        {
            RandomAccess.FlushToDisk(_handle);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw HostFile.Error(e, Name, "flush");
        }
        return default;
    }

    protected override async ValueTask ResizeCoreAsync(long length, PreallocationMode preallocation, CancellationToken cancellationToken)
    {
        long old = Length;
        if (length <= old || preallocation is PreallocationMode.Off or PreallocationMode.Metadata)
        {
            SetLength(length);
            return;
        }
        try
        {
            bool reserved = preallocation == PreallocationMode.Falloc && Reserve(old, length - old);
            if (!reserved)
            {
                await base.WriteZeroesCoreAsync(old, length - old, ZeroWriteMode.KeepAllocated, cancellationToken).ConfigureAwait(false);
            }
        }
        catch
        {
            SetLength(old); // a failed resize leaves the file as it was
            throw;
        }
    }

    protected override ValueTask CloseCoreAsync()
    {
        _handle.Dispose();
        return default;
    }

    private bool Reserve(long offset, long length)
    {
        try
        {
            bool reserved = HostFile.Current.TryAllocate(_handle, offset, length);
            if (reserved)
            {
                Grow(offset + length);
            }
            return reserved;
        }
        catch (IOException e)
        {
            throw HostFile.Error(e, Name, $"reserve {length:#,0} bytes", offset);
        }
    }

    private void SetLength(long length)
    {
        lock (_growing)
        {
            try
            {
                RandomAccess.SetLength(_handle, length);
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException or ArgumentException)
            {
                throw HostFile.Error(e, Name, $"make it {length:#,0} bytes long");
            }
            Volatile.Write(ref _length, length);
        }
    }

    private void Grow(long end)
    {
        if (end > Volatile.Read(ref _length))
        {
            lock (_growing)
            {
                Volatile.Write(ref _length, Math.Max(_length, end));
            }
        }
    }
}
