using DiskImage.Block;

namespace DiskImage.Filters.BlkDebug;

/// <summary>
/// Passes everything through but the requests that are to fail. What a format over it is about to do arms the errors, has its state change,
/// or holds the request up (<see cref="BlkDebugRules"/>).
/// </summary>
internal sealed class BlkDebugNode : FilterNode, IDebugEvents, IBreakpoints
{
    private readonly BlkDebugOptions _options;
    private readonly BlkDebugRules _rules;

    public BlkDebugNode(BlockNode child, BlkDebugOptions options)
        : base(child)
    {
        (_options, _rules) = (options, new BlkDebugRules(options.Errors, options.States));
        Binding = new(
            (int)options.Align, MaximumTransfer: (int)Math.Max(options.MaxTransfer, options.MaxTransfer == 0 ? 0 : options.Align));
    }

    public Action<string, bool>? Told
    {
        get => _rules.Told;
        set => _rules.Told = value;
    }

    protected override BlockBinding Binding { get; }

    public ValueTask RaiseAsync(DebugEvent what) => _rules.RaiseAsync(what);

    public bool Break(string eventName, string tag)
    {
        DebugEvent? what = BlkDebugEvents.Parse(eventName);
        if (what is not null)
        {
            _rules.Break(what.Value, tag);
        }
        return what is not null;
    }

    public bool GoOn(string tag) => _rules.GoOn(tag);

    public bool Remove(string tag) => _rules.Remove(tag);

    public bool IsSuspended(string tag) => _rules.IsSuspended(tag);

    public void RemoveAll() => _rules.RemoveAll();

    protected override ValueTask ReadCoreAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
    {
        Pass(BlkDebugRequests.Read, offset, buffer.Length);
        return Below.ReadPaddedAsync(offset, buffer, cancellationToken);
    }

    protected override async ValueTask WriteCoreAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
    {
        await RaiseAsync(DebugEvent.Pwritev).ConfigureAwait(false);
        try
        {
            Pass(BlkDebugRequests.Write, offset, buffer.Length);
            await base.WriteCoreAsync(offset, GrowsOnWrite
                ? buffer
                : buffer[..(int)Math.Min(buffer.Length, Length - offset)], cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            await RaiseAsync(DebugEvent.PwritevDone).ConfigureAwait(false);
        }
    }

    protected override async ValueTask WriteZeroesCoreAsync(
        long offset, long length, ZeroWriteMode mode, CancellationToken cancellationToken)
    {
        await RaiseAsync(DebugEvent.PwritevZero).ConfigureAwait(false);
        try
        {
            length = GrowsOnWrite ? length : Math.Min(length, Length - offset);
            foreach ((long at, long count) in Parts(offset, length, _options.MaxWriteZero))
            {
                Pass(BlkDebugRequests.WriteZeroes, at, count);
                await base.WriteZeroesCoreAsync(at, count, mode, cancellationToken).ConfigureAwait(false);
            }
        }
        finally
        {
            await RaiseAsync(DebugEvent.PwritevDone).ConfigureAwait(false);
        }
    }

    protected override async ValueTask DiscardCoreAsync(long offset, long length, CancellationToken cancellationToken)
    {
        foreach ((long at, long count) in Parts(offset, Math.Min(length, Length - offset), _options.MaxDiscard))
        {
            Pass(BlkDebugRequests.Discard, at, count);
            await base.DiscardCoreAsync(at, count, cancellationToken).ConfigureAwait(false);
        }
    }

    protected override ValueTask FlushCoreAsync(CancellationToken cancellationToken)
    {
        Pass(BlkDebugRequests.Flush, 0, 0);
        return base.FlushCoreAsync(cancellationToken);
    }

    protected override ValueTask<BlockExtent> GetExtentCoreAsync(long offset, long length, CancellationToken cancellationToken)
    {
        Pass(BlkDebugRequests.BlockStatus, offset, length);
        return base.GetExtentCoreAsync(offset, length, cancellationToken);
    }

    protected override ValueTask<int> GetExtentsCoreAsync(
        long offset, long length, Memory<BlockExtent> extents, CancellationToken cancellationToken)
    {
        Pass(BlkDebugRequests.BlockStatus, offset, length);
        return base.GetExtentsCoreAsync(offset, length, extents, cancellationToken);
    }

    /// <summary>What works on the format past the filter would not fail: nothing does.</summary>
    protected override bool LetsThrough(Type ability) => false;

    /// <summary>A request in parts of so many bytes at most, which are parts of the whole disk, as QEMU has it; 0 for one part.</summary>
    private static IEnumerable<(long Offset, long Length)> Parts(long offset, long length, long most)
    {
        for (long end = offset + length; offset < end;)
        {
            long count = most == 0 ? length : Math.Min(end - offset, most - offset % most);
            yield return (offset, count);
            offset += count;
        }
    }

    private void Pass(BlkDebugRequests kind, long offset, long length)
    {
        if (_rules.ErrorOf(kind, offset, length) is { } error)
        {
            throw error.Make(Name, kind, offset);
        }
    }
}
