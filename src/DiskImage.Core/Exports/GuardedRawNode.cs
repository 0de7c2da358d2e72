using DiskImage.Block;
using DiskImage.Drivers;

namespace DiskImage.Exports;

/// <summary>
/// A disk that was taken for raw because nothing else recognised it. A guest that could write another format's first sector would choose
/// what is opened next time, so such a write is refused: QEMU's rule, for every place that formats are recognised by.
/// </summary>
internal sealed class GuardedRawNode(BlockNode disk, DriverRegistry registry) : FilterNode(disk)
{
    private readonly SemaphoreSlim _gate = new(1, 1); // held while what is recognised is looked at and written

    protected override bool OwnsChildren => false;

    private long TailStart => Math.Max(0, Length - DriverRegistry.ProbeTailLength);

    protected override async ValueTask WriteCoreAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
    {
        long end = offset + buffer.Length;
        if (offset >= DriverRegistry.ProbeLength && end <= TailStart)
        {
            await base.WriteCoreAsync(offset, buffer, cancellationToken).ConfigureAwait(false);
            return;
        }
        await _gate.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            byte[] head = await AfterAsync(0, DriverRegistry.ProbeLength, offset, buffer, cancellationToken).ConfigureAwait(false);
            byte[] tail = await AfterAsync(
                TailStart, DriverRegistry.ProbeTailLength, offset, buffer, cancellationToken).ConfigureAwait(false);
            if (registry.Recognise(head, tail, Length, Name) is { } format)
            {
                throw new DiskImageException(
                    DiskImageErrorKind.Refused,
                    $"{Name}: was found to be raw, and a write at offset {offset:#,0} would make it look like {format.Name}. "
                        + $"Name the format with {new Remedy(RemedyKind.Format, registry.Formats[0].Name)} to allow it.",
                    Name,
                    offset);
            }
            await base.WriteCoreAsync(offset, buffer, cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            _ = _gate.Release();
        }
    }

    /// <summary>Zeroes, too, may complete what is recognised: where that could be they are written, and looked at.</summary>
    protected override async ValueTask WriteZeroesCoreAsync(
        long offset, long length, ZeroWriteMode mode, CancellationToken cancellationToken)
    {
        long end = offset + length, free = Math.Clamp(DriverRegistry.ProbeLength, offset, end), last = Math.Clamp(TailStart, free, end);
        foreach ((long from, long to) in new[] { (offset, free), (last, end) })
        {
            if (from < to)
            {
                byte[] zeroes = new byte[to - from];
                await WriteCoreAsync(from, zeroes, cancellationToken).ConfigureAwait(false);
            }
        }
        if (free < last)
        {
            await base.WriteZeroesCoreAsync(free, last - free, mode, cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>A hint that is not taken where it could matter.</summary>
    protected override ValueTask DiscardCoreAsync(long offset, long length, CancellationToken cancellationToken)
    {
        long from = Math.Max(offset, DriverRegistry.ProbeLength), to = Math.Min(offset + length, TailStart);
        return from < to ? base.DiscardCoreAsync(from, to - from, cancellationToken) : default;
    }

    protected override bool LetsThrough(Type ability) => ability != typeof(IFastZero);

    protected override ValueTask CloseCoreAsync()
    {
        _gate.Dispose();
        return base.CloseCoreAsync();
    }

    /// <summary>What a range would hold after a write.</summary>
    private async ValueTask<byte[]> AfterAsync(
        long start, int length, long offset, ReadOnlyMemory<byte> written, CancellationToken cancellationToken)
    {
        byte[] bytes = new byte[(int)Math.Min(length, Length - start)];
        await Below.ReadAsync(start, bytes, cancellationToken).ConfigureAwait(false);
        long from = Math.Max(start, offset), to = Math.Min(start + bytes.Length, offset + written.Length);
        if (from < to)
        {
            written.Span[(int)(from - offset)..(int)(to - offset)].CopyTo(bytes.AsSpan((int)(from - start)));
        }
        return bytes;
    }
}
