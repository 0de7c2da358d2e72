using DiskImage.Block;
using DiskImage.Locking;
using DiskImage.Platform;
using Microsoft.Win32.SafeHandles;
using HostIO = System.IO.File;

namespace DiskImage.Protocols.File;

/// <summary>
/// A regular file of the host. Positioned I/O only: there is no shared file pointer, so requests may overlap freely, and each
/// completes before it returns. Callers that want parallel I/O call from several workers.
/// </summary>
internal sealed class FileNode : BlockNode, ISharing, IFastZero, ILocked
{
    private const long ReservedAtOnce = 1L << 30; // bytes between two looks at the cancellation. Ours
    private const int ZeroesAtOnce = 1 << 20;
    private const int LongWrite = 128 << 10; // one at a time from here on. Ours, measured

    private readonly SafeFileHandle _handle;
    private readonly int _unit, _memory; // what requests are multiples of, where the host's cache is gone round; else 1
    private readonly ReaderWriterLockSlim _sizing = new(); // shared: a write that may grow the file; exclusive: setting its length
    private readonly SemaphoreSlim? _turn; // of long writes where the system lets one through at a time, and has the others spin
    private long _length; // goes up under the shared lock, anywhere under the exclusive one
    private readonly bool _hasFixedLength, _isLocked;
    private volatile bool _isClaimed; // space was, for this opening: sharing another's would give it up
    private volatile bool _holesUnknown; // the file system cannot tell: do not ask for every extent again

    /// <summary>A node on an open file, which it owns.</summary>
    /// <param name="path">Its path.</param>
    /// <param name="file">The file.</param>
    /// <param name="isReadOnly">It is open for reading.</param>
    /// <param name="hasFixedLength">Others write to it as well and rely on its length.</param>
    /// <param name="isLocked">It is claimed by locks of the open file.</param>
    public FileNode(string path, OpenFile file, bool isReadOnly, bool hasFixedLength = false, bool isLocked = false)
    {
        (Name, _handle, IsReadOnly, _hasFixedLength, _isLocked) = (path, file.Handle, isReadOnly, hasFixedLength, isLocked);
        (_unit, _memory) = (file.RequestAlignment, file.MemoryAlignment);
        _turn = _unit == 1 && !OperatingSystem.IsWindows() ? new SemaphoreSlim(1, 1) : null;
        _length = RandomAccess.GetLength(_handle);
    }

    public override string Name { get; }

    public override bool IsReadOnly { get; }

    public override bool GrowsOnWrite => !IsReadOnly && !_hasFixedLength;

    public override long Length => Volatile.Read(ref _length);

    public override DateTimeOffset? LastWriteTime => new DateTimeOffset(HostIO.GetLastWriteTimeUtc(_handle));

    public override NodeIdentity? Identity => HostNames.Current.IdentityOf(_handle);

    public override long? AllocatedLength => HostFile.Current.AllocatedLength(_handle);

    /// <inheritdoc/>
    public IKeptLock? KeepLock() => _isLocked && Identity is { } identity ? FileLock.Of(Name, identity) : null;

    protected override BlockBinding Binding => new(_unit, _memory);

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
            if (_unit > 1 && offset + got >= Length)
            {
                buffer.Span[got..].Clear(); // the last unit reaches past the end
                break;
            }
            if (got == 0)
            {
                throw new DiskImageException(
                    DiskImageErrorKind.Io,
                    $"{Name}: the file became shorter than {offset + buffer.Length:#,0} bytes while it was read",
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
        if (_turn is not null && buffer.Length >= LongWrite)
        {
            return WriteInTurnAsync(_turn, offset, buffer, cancellationToken);
        }
        WriteGrowing(offset, buffer.Span);
        return default;
    }

    private async ValueTask WriteInTurnAsync(
        SemaphoreSlim turn, long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
    {
        await turn.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            WriteGrowing(offset, buffer.Span);
        }
        finally
        {
            _ = turn.Release();
        }
    }

    public bool MayShareWith(ISharing other)
        => !_isClaimed && other is FileNode file && HostFile.Current.MayShare(file._handle, _handle);

    protected override ValueTask<CopyOutcome> CopyFromCoreAsync(
        long offset, BlockNode source, long sourceOffset, long length, CopyOffload how, CancellationToken cancellationToken)
    {
        if (source is not FileNode from)
        {
            return default;
        }
        cancellationToken.ThrowIfCancellationRequested();
        _sizing.EnterReadLock();
        try
        {
            bool isAligned = ((offset | sourceOffset) & (ISharing.Unit - 1)) == 0;
            long whole = isAligned && !_isClaimed ? length & -ISharing.Unit : 0;
            bool isShared = whole > 0 && HostFile.Current.TryShare(from._handle, sourceOffset, _handle, offset, whole);
            long done = isShared ? whole
                : how == CopyOffload.ShareOrMove ? HostFile.Current.Move(from._handle, sourceOffset, _handle, offset, length)
                : 0;
            Grow(done == 0 ? 0 : offset + done);
            return new(new CopyOutcome(done, isShared ? done : 0));
        }
        catch (IOException e)
        {
            throw HostFile.Error(e, Name, $"copy {length:#,0} bytes of {from.Name}", offset, DiskImageErrorKind.WriteFailed);
        }
        finally
        {
            _sizing.ExitReadLock();
        }
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

    protected override async ValueTask WriteZeroesCoreAsync(
        long offset, long length, ZeroWriteMode mode, CancellationToken cancellationToken)
    {
        long end = offset + length;
        long inside = Math.Min(end, Length);
        if (end > inside)
        {
            SetLength(end, onlyUp: true); // what a file grows by reads as zeroes
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

    /// <inheritdoc/>
    public ValueTask<bool> TryZeroFastAsync(long offset, long length, CancellationToken cancellationToken)
    {
        CheckWritable();
        return new(offset + length <= Length && HostFile.Current.TryPunchHole(_handle, offset, length));
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
            HostFile.Current.Flush(_handle);
        }
        catch (IOException e)
        {
            DiskImageException error = HostFile.Error(e, Name, "make what was written durable", otherwise: DiskImageErrorKind.WriteFailed);
            BreakWriting(error); // the host reports it once, and takes what it could not write for written
            throw error;
        }
        return default;
    }

    protected override ValueTask ResizeCoreAsync(
        long length, PreallocationMode preallocation, IProgress<long>? claimed, CancellationToken cancellationToken)
    {
        if (_hasFixedLength)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Unsupported,
                $"{Name}: opened beside other writers (share-rw=on), who rely on its length, so that cannot be changed. Open it alone.",
                Name);
        }
        long old = Length;
        if (length == old)
        {
            return default; // and no truncation to 0 of an empty file: ext4 would take it for a rewrite and write all of it out on closing
        }
        if (length < old || preallocation is PreallocationMode.Off or PreallocationMode.Metadata)
        {
            SetLength(length);
            return default;
        }
        Extend(length, preallocation, claimed, cancellationToken);
        return default;
    }

    protected override ValueTask CloseCoreAsync()
    {
        HostFile.Current.Close(_handle);
        _sizing.Dispose();
        _turn?.Dispose();
        return default;
    }

    private void WriteGrowing(long offset, ReadOnlySpan<byte> bytes)
    {
        long end = offset + bytes.Length;
        if (end <= Length)
        {
            Write(offset, bytes);
            return;
        }
        _sizing.EnterReadLock(); // or setting the length could cut off what is being written
        try
        {
            Write(offset, bytes);
            Grow(end);
        }
        finally
        {
            _sizing.ExitReadLock();
        }
    }

    private void Write(long offset, ReadOnlySpan<byte> bytes)
    {
        try
        {
            RandomAccess.Write(_handle, bytes, offset);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or ArgumentException)
        {
            throw HostFile.Error(e, Name, "write", offset, DiskImageErrorKind.WriteFailed);
        }
    }

    /// <summary>
    /// Makes the file longer with its space claimed. Nobody else changes the length meanwhile. If it fails or is
    /// cancelled, the file is as it was.
    /// </summary>
    private void Extend(long length, PreallocationMode preallocation, IProgress<long>? claimed, CancellationToken cancellationToken)
    {
        _sizing.EnterWriteLock();
        long old = _length;
        try
        {
            bool isReserved = preallocation == PreallocationMode.Falloc;
            for (long at = old; at < length && isReserved; at += ReservedAtOnce)
            {
                cancellationToken.ThrowIfCancellationRequested();
                isReserved = Reserve(at, Math.Min(ReservedAtOnce, length - at));
                claimed?.Report(isReserved ? Math.Min(ReservedAtOnce, length - at) + at - old : 0);
            }
            if (!isReserved)
            {
                WriteZeroes(old, length, claimed, cancellationToken);
            }
            Volatile.Write(ref _length, Math.Max(old, length));
            _isClaimed = true;
        }
        catch
        {
            Restore(old);
            throw;
        }
        finally
        {
            _sizing.ExitWriteLock();
        }
    }

    private bool Reserve(long offset, long length)
    {
        try
        {
            return HostFile.Current.TryAllocate(_handle, offset, length);
        }
        catch (IOException e)
        {
            throw HostFile.Error(e, Name, $"reserve {length:#,0} bytes", offset, DiskImageErrorKind.WriteFailed);
        }
    }

    private void WriteZeroes(long offset, long end, IProgress<long>? claimed, CancellationToken cancellationToken)
    {
        long start = offset, whole = Up(offset), wholeEnd = Up(end);
        if (whole > offset)
        {
            HostFile.Current.SetLength(_handle, Math.Min(whole, end)); // the rest of a unit that has its space
        }
        using var zeroes = new AlignedBuffer((int)Math.Clamp(wholeEnd - whole, 1, ZeroesAtOnce), _memory);
        zeroes.Memory.Span.Clear();
        for (offset = whole; offset < end; offset += zeroes.Memory.Length)
        {
            cancellationToken.ThrowIfCancellationRequested();
            int count = (int)Math.Min(zeroes.Memory.Length, wholeEnd - offset);
            Write(offset, zeroes.Memory.Span[..count]);
            claimed?.Report(Math.Min(offset + count, end) - start);
        }
        if (wholeEnd > end)
        {
            HostFile.Current.SetLength(_handle, end);
        }
    }

    private long Up(long offset) => (offset + _unit - 1) / _unit * _unit;

    /// <summary>Puts the length back after a failure, which is what the caller hears of.</summary>
    private void Restore(long length)
    {
        try
        {
            HostFile.Current.SetLength(_handle, length);
        }
        catch (IOException)
        {
            // What is past the end as this node knows it is zeroes, and leaked.
        }
    }

    private void SetLength(long length, bool onlyUp = false)
    {
        _sizing.EnterWriteLock();
        try
        {
            if (!onlyUp || length > _length)
            {
                HostFile.Current.SetLength(_handle, length);
                Volatile.Write(ref _length, length);
            }
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or ArgumentException)
        {
            throw HostFile.Error(e, Name, $"make it {length:#,0} bytes long", otherwise: DiskImageErrorKind.WriteFailed);
        }
        finally
        {
            _sizing.ExitWriteLock();
        }
    }

    /// <summary>Under the shared lock: others may raise the length at the same time.</summary>
    private void Grow(long end)
    {
        long seen;
        while (end > (seen = Length) && Interlocked.CompareExchange(ref _length, end, seen) != seen)
        {
        }
    }
}
