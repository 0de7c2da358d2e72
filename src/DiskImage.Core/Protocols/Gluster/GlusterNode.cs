using DiskImage.Block;

namespace DiskImage.Protocols.Gluster;

/// <summary>A file of a GlusterFS volume.</summary>
/// <param name="name">The file as a URI.</param>
/// <param name="volume">The volume.</param>
/// <param name="file">The file, open there.</param>
/// <param name="stat">What it was like when it was opened.</param>
/// <param name="identity">Which file it is.</param>
/// <param name="writable">It is open for writing.</param>
/// <param name="ownsVolume">The connection ends with the node.</param>
internal sealed class GlusterNode(
    string name,
    GlusterVolume volume,
    GlusterFile file,
    GlusterStat stat,
    NodeIdentity identity,
    bool writable,
    bool ownsVolume) : BlockNode, IFastZero
{
    private const int LongestTransfer = 4 << 20; // ours
    private const long MostZeroed = 1L << 30; // in one call. Ours: a brick writes them where its file system cannot do better
    private const int NoSuchAddress = 6; // ENXIO: nothing more of what is looked for

    private readonly RangeLock _sizing = new(); // writes share it, a change of the length excludes them
    private readonly ExtentMemory _known = new();
    private volatile bool _isRefusedSeek, _isRefusedZero, _isRefusedDiscard; // the volume does not know the call
    private long _length = stat.Length;

    public override string Name => name;

    public override long Length => Interlocked.Read(ref _length);

    public override bool IsReadOnly => !writable;

    public override bool GrowsOnWrite => true;

    public override NodeIdentity? Identity => identity;

    public override long? AllocatedLength => stat.Blocks * 512;

    public override DateTimeOffset? LastWriteTime => DateTimeOffset.FromUnixTimeSeconds(stat.Modified);

    public override BlockLimits Limits => new(InFlight: GlusterVolume.Threads);

    protected override BlockBinding Binding => new(MaximumTransfer: LongestTransfer, MaximumZeroes: MostZeroed);

    public async ValueTask<bool> TryZeroFastAsync(long offset, long length, CancellationToken cancellationToken)
        => offset + length <= Length && await TryDiscardAsync(offset, length, cancellationToken).ConfigureAwait(false);

    protected override async ValueTask ReadCoreAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
    {
        while (!buffer.IsEmpty)
        {
            int count = await file.ReadAsync(offset, buffer, cancellationToken).ConfigureAwait(false);
            if (count == 0)
            {
                throw new DiskImageException(
                    DiskImageErrorKind.Io, $"{Name}: ends at offset {offset:#,0}: it has become shorter since it was opened", Name, offset);
            }
            (offset, buffer) = (offset + count, buffer[count..]);
        }
    }

    protected override ValueTask WriteCoreAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
        => ChangeAsync(offset, buffer.Length, async () =>
        {
            await file.WriteAsync(offset, buffer, cancellationToken).ConfigureAwait(false);
            Reaches(offset + buffer.Length);
        }, cancellationToken);

    /// <summary>What lies behind the end is zeroes when the file becomes longer.</summary>
    protected override async ValueTask WriteZeroesCoreAsync(
        long offset, long length, ZeroWriteMode mode, CancellationToken cancellationToken)
    {
        long end = offset + length, inside = Math.Clamp(Length, offset, end);
        if (end > inside)
        {
            await GrowAsync(end, cancellationToken).ConfigureAwait(false);
        }
        bool isDone = inside == offset
            || (mode == ZeroWriteMode.MayUnmap && await TryDiscardAsync(offset, inside - offset, cancellationToken).ConfigureAwait(false))
            || await TryZeroAsync(offset, inside - offset, cancellationToken).ConfigureAwait(false);
        if (!isDone)
        {
            await base.WriteZeroesCoreAsync(offset, inside - offset, mode, cancellationToken).ConfigureAwait(false);
        }
    }

    protected override async ValueTask DiscardCoreAsync(long offset, long length, CancellationToken cancellationToken)
        => _ = await TryDiscardAsync(offset, length, cancellationToken).ConfigureAwait(false);

    protected override async ValueTask FlushCoreAsync(CancellationToken cancellationToken)
    {
        GlusterResult flushed = await file.CallAsync((library, f) => library.Flush(f), cancellationToken).ConfigureAwait(false);
        if (!flushed.IsGood)
        {
            DiskImageException said = volume.Error(flushed, "flush it", DiskImageErrorKind.WriteFailed);
            BreakWriting(said); // what the library held back is lost
            throw said;
        }
    }

    /// <summary>Data and holes, where all bricks' file systems tell.</summary>
    protected override async ValueTask<BlockExtent> GetExtentCoreAsync(long offset, long length, CancellationToken cancellationToken)
    {
        if (_known.Find(offset) is { } known)
        {
            return known;
        }
        long mark = _known.Mark, end = Length;
        long data = await SeekAsync(offset, GlusterFile.SeekData, end, cancellationToken).ConfigureAwait(false);
        long hole = data > offset ? data
            : data < 0 ? end
            : await SeekAsync(offset, GlusterFile.SeekHole, end, cancellationToken).ConfigureAwait(false);
        bool isHole = data > offset;
        if (hole <= offset || hole > end)
        {
            (hole, isHole) = (end, false); // an answer that cannot be: all is data
        }
        BlockStatus status = BlockStatus.Allocated | (isHole ? BlockStatus.Zero : BlockStatus.Data);
        var told = new KnownExtents();
        told.Add(new BlockExtent(offset, hole - offset, status, this, offset));
        _known.Keep(told, mark);
        return told.Find(offset)!.Value;
    }

    protected override async ValueTask ResizeCoreAsync(
        long length, PreallocationMode preallocation, IProgress<long>? claimed, CancellationToken cancellationToken)
    {
        long old = Length;
        await ChangeAsync(0, long.MaxValue, () => SetLengthAsync(length, cancellationToken), cancellationToken, isAlone: true)
            .ConfigureAwait(false);
        for (long at = old; at < length && preallocation is PreallocationMode.Falloc or PreallocationMode.Full;)
        {
            long start = at, count = Math.Min(MostZeroed, length - at);
            if (preallocation == PreallocationMode.Falloc)
            {
                await RequireAsync(
                    (library, f) => library.Allocate(f, start, count), $"reserve {count:#,0} bytes for it", cancellationToken)
                    .ConfigureAwait(false);
            }
            else if (!await TryZeroAsync(start, count, cancellationToken).ConfigureAwait(false))
            {
                await base.WriteZeroesCoreAsync(start, count, ZeroWriteMode.KeepAllocated, cancellationToken).ConfigureAwait(false);
            }
            at += count;
            claimed?.Report(at - old);
        }
    }

    protected override async ValueTask CloseCoreAsync()
    {
        GlusterResult closed = await file.CloseAsync().ConfigureAwait(false);
        if (ownsVolume)
        {
            await volume.DisposeAsync().ConfigureAwait(false);
        }
        if (!closed.IsGood && writable)
        {
            throw volume.Error(closed, "close it", DiskImageErrorKind.WriteFailed); // what was held back may be lost
        }
    }

    private async ValueTask<long> SeekAsync(long offset, int what, long end, CancellationToken cancellationToken)
    {
        if (_isRefusedSeek)
        {
            return what == GlusterFile.SeekData ? offset : end;
        }
        GlusterResult found = await file.CallAsync((library, f) => library.Seek(f, offset, what), cancellationToken).ConfigureAwait(false);
        if (found.IsGood)
        {
            return found.Value;
        }
        if (found.Error == NoSuchAddress)
        {
            return end;
        }
        _isRefusedSeek = true;
        return what == GlusterFile.SeekData ? offset : end;
    }

    private async ValueTask<bool> TryDiscardAsync(long offset, long length, CancellationToken cancellationToken)
        => !_isRefusedDiscard && (await TryAsync(
            offset, length, (library, f) => library.Discard(f, offset, length), "discard", cancellationToken).ConfigureAwait(false)
            || !(_isRefusedDiscard = true));

    private async ValueTask<bool> TryZeroAsync(long offset, long length, CancellationToken cancellationToken)
        => !_isRefusedZero && (await TryAsync(
            offset, length, (library, f) => library.Zero(f, offset, length), "zero", cancellationToken).ConfigureAwait(false)
            || !(_isRefusedZero = true));

    /// <summary>Calls what a volume may not know. Returns false if it does not; then nothing has changed.</summary>
    private async ValueTask<bool> TryAsync(
        long offset, long length, Func<IGlusterLibrary, nint, GlusterResult> call, string doing, CancellationToken cancellationToken)
    {
        GlusterResult result = default;
        await ChangeAsync(
            offset,
            length,
            async () => result = await file.CallAsync(call, cancellationToken).ConfigureAwait(false),
            cancellationToken).ConfigureAwait(false);
        return result.IsGood || (result.Error is 95 or 38 or 22 ? false // EOPNOTSUPP, ENOSYS, EINVAL
            : throw volume.Error(
                result, $"{doing} {length:#,0} bytes at offset {offset:#,0}", DiskImageErrorKind.WriteFailed, offset));
    }

    private ValueTask GrowAsync(long end, CancellationToken cancellationToken) => ChangeAsync(
        0,
        long.MaxValue,
        () => end > Length ? SetLengthAsync(end, cancellationToken) : default,
        cancellationToken,
        isAlone: true);

    private async ValueTask SetLengthAsync(long length, CancellationToken cancellationToken)
    {
        if (length != Length)
        {
            await RequireAsync(
                (library, f) => library.SetLength(f, length), $"make it {length:#,0} bytes long", cancellationToken).ConfigureAwait(false);
            _ = Interlocked.Exchange(ref _length, length);
        }
    }

    private async ValueTask RequireAsync(
        Func<IGlusterLibrary, nint, GlusterResult> call, Wording doing, CancellationToken cancellationToken)
    {
        GlusterResult result = await file.CallAsync(call, cancellationToken).ConfigureAwait(false);
        if (!result.IsGood)
        {
            throw volume.Error(result, doing, DiskImageErrorKind.WriteFailed);
        }
    }

    private async ValueTask ChangeAsync(
        long offset, long length, Func<ValueTask> change, CancellationToken cancellationToken, bool isAlone = false)
        => _ = await _known.ChangeAsync(async () =>
        {
            await _sizing.WithinAsync(
                offset, isAlone ? long.MaxValue : offset + length, isAlone, change, cancellationToken).ConfigureAwait(false);
            return true;
        }).ConfigureAwait(false);

    private void Reaches(long end)
    {
        for (long length = Length; end > length;)
        {
            long found = Interlocked.CompareExchange(ref _length, end, length);
            length = found == length ? end : found;
        }
    }
}
