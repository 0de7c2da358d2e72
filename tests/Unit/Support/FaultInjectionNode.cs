using DiskImage.Block;

namespace DiskImage.Tests.Support;

/// <summary>Kinds of requests, to choose from.</summary>
[Flags]
internal enum RequestKinds
{
    None = 0,
    Read = 1,
    Write = 2,
    WriteZeroes = 4,
    Discard = 8,
    Flush = 16,
    Resize = 32,
    Map = 64,

    /// <summary>What changes the node or makes changes durable.</summary>
    Changes = Write | WriteZeroes | Discard | Flush | Resize,
    All = Read | Map | Changes,
}

/// <summary>Which request fails, and how.</summary>
/// <param name="Kinds">The kinds that count.</param>
/// <param name="Number">The first request of these kinds that fails, from 1.</param>
/// <param name="Error">What it fails with.</param>
internal sealed record Fault(RequestKinds Kinds, long Number, DiskImageErrorKind Error = DiskImageErrorKind.Io)
{
    /// <summary>Requests that fail from there on; the later ones pass again.</summary>
    public long Count { get; init; } = 1;

    /// <summary>Bytes of a failing write that reach the node below all the same.</summary>
    public int WrittenBytes { get; init; }
}

/// <summary>Passes everything through until it is told to fail: counts requests and lets the N-th of a kind fail.</summary>
internal sealed class FaultInjectionNode(BlockNode child) : FilterNode(child)
{
    private readonly Lock _sync = new(); // guards the rest
    private readonly long[] _seen = new long[7]; // requests of each kind
    private Fault? _fault;
    private long _matched;

    /// <summary>Requests of some kinds that came by since the node was made.</summary>
    public long Requests(RequestKinds kinds)
    {
        lock (_sync)
        {
            return _seen.Where((_, bit) => ((int)kinds >> bit & 1) != 0).Sum();
        }
    }

    /// <summary>Arms a fault, counted from now on, in place of any other; null disarms.</summary>
    public void Arm(Fault? fault)
    {
        lock (_sync)
        {
            (_fault, _matched) = (fault, 0);
        }
    }

    protected override ValueTask ReadCoreAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
    {
        Pass(RequestKinds.Read, offset);
        return base.ReadCoreAsync(offset, buffer, cancellationToken);
    }

    protected override async ValueTask WriteCoreAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
    {
        if (Count(RequestKinds.Write) is { } fault)
        {
            await base.WriteCoreAsync(
                offset, buffer[..Math.Min(fault.WrittenBytes, buffer.Length)], cancellationToken).ConfigureAwait(false);
            throw Failure(fault, RequestKinds.Write, offset);
        }
        await base.WriteCoreAsync(offset, buffer, cancellationToken).ConfigureAwait(false);
    }

    protected override ValueTask WriteZeroesCoreAsync(long offset, long length, ZeroWriteMode mode, CancellationToken cancellationToken)
    {
        Pass(RequestKinds.WriteZeroes, offset);
        return base.WriteZeroesCoreAsync(offset, length, mode, cancellationToken);
    }

    protected override ValueTask DiscardCoreAsync(long offset, long length, CancellationToken cancellationToken)
    {
        Pass(RequestKinds.Discard, offset);
        return base.DiscardCoreAsync(offset, length, cancellationToken);
    }

    protected override ValueTask<BlockExtent> GetExtentCoreAsync(long offset, long length, CancellationToken cancellationToken)
    {
        Pass(RequestKinds.Map, offset);
        return base.GetExtentCoreAsync(offset, length, cancellationToken);
    }

    protected override ValueTask FlushCoreAsync(CancellationToken cancellationToken)
    {
        Pass(RequestKinds.Flush, null);
        return base.FlushCoreAsync(cancellationToken);
    }

    protected override ValueTask ResizeCoreAsync(
        long length, PreallocationMode preallocation, IProgress<long>? claimed, CancellationToken cancellationToken)
    {
        Pass(RequestKinds.Resize, null);
        return base.ResizeCoreAsync(length, preallocation, claimed, cancellationToken);
    }

    private void Pass(RequestKinds kind, long? offset)
    {
        if (Count(kind) is { } fault)
        {
            throw Failure(fault, kind, offset);
        }
    }

    /// <summary>Counts a request; the fault if it is to fail.</summary>
    private Fault? Count(RequestKinds kind)
    {
        lock (_sync)
        {
            _seen[System.Numerics.BitOperations.Log2((uint)kind)]++;
            if (_fault is null || (_fault.Kinds & kind) == RequestKinds.None)
            {
                return null;
            }
            _matched++;
            return _matched >= _fault.Number && _matched - _fault.Number < _fault.Count ? _fault : null;
        }
    }

    private DiskImageException Failure(Fault fault, RequestKinds kind, long? offset)
        => new(fault.Error, $"{Name}: {kind} fails as it was told to", Name, offset);
}
