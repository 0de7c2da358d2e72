using DiskImage.Block;

namespace DiskImage.Tests.Support;

/// <summary>What a logged request did.</summary>
internal enum WriteLogKind
{
    Write,
    WriteZeroes,
    Discard,
    Resize,
    Flush,
}

/// <summary>A logged request.</summary>
/// <param name="Kind">What it did.</param>
/// <param name="Offset">Where; 0 for a resize or flush.</param>
/// <param name="Length">How many bytes; for a resize the new length.</param>
/// <param name="Data">The bytes of a write; else empty.</param>
internal sealed record WriteLogEntry(WriteLogKind Kind, long Offset, long Length, ReadOnlyMemory<byte> Data);

/// <summary>
/// Passes everything through and keeps, in memory, every request that changes the node below or makes changes durable, in the order
/// in which they were made. What a crash leaves can be had by replaying a part of the log onto a copy from before.
/// </summary>
internal sealed class WriteLogNode(BlockNode child) : FilterNode(child)
{
    private readonly List<WriteLogEntry> _entries = []; // also the lock that guards it

    /// <summary>Requests so far.</summary>
    public int Count
    {
        get
        {
            lock (_entries)
            {
                return _entries.Count;
            }
        }
    }

    /// <summary>The log as it is now.</summary>
    public IReadOnlyList<WriteLogEntry> Entries
    {
        get
        {
            lock (_entries)
            {
                return [.. _entries];
            }
        }
    }

    /// <summary>Does a logged request again, on another node. A write past its end makes it longer if it is of that kind.</summary>
    public static ValueTask ReplayAsync(WriteLogEntry entry, BlockNode onto, CancellationToken cancellationToken = default)
        => entry.Kind switch
    {
        WriteLogKind.Write => onto.WriteAsync(entry.Offset, entry.Data, cancellationToken),
        WriteLogKind.WriteZeroes => onto.WriteZeroesAsync(entry.Offset, entry.Length, ZeroWriteMode.MayUnmap, cancellationToken),
        WriteLogKind.Discard => onto.DiscardAsync(entry.Offset, entry.Length, cancellationToken),
        WriteLogKind.Resize => onto.ResizeAsync(entry.Length, PreallocationMode.Off, cancellationToken),
        _ => onto.FlushAsync(cancellationToken),
    };

    protected override ValueTask WriteCoreAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
    {
        Log(new(WriteLogKind.Write, offset, buffer.Length, buffer.ToArray()));
        return base.WriteCoreAsync(offset, buffer, cancellationToken);
    }

    protected override ValueTask WriteZeroesCoreAsync(long offset, long length, ZeroWriteMode mode, CancellationToken cancellationToken)
    {
        Log(new(WriteLogKind.WriteZeroes, offset, length, default));
        return base.WriteZeroesCoreAsync(offset, length, mode, cancellationToken);
    }

    protected override ValueTask DiscardCoreAsync(long offset, long length, CancellationToken cancellationToken)
    {
        Log(new(WriteLogKind.Discard, offset, length, default));
        return base.DiscardCoreAsync(offset, length, cancellationToken);
    }

    protected override ValueTask ResizeCoreAsync(
        long length, PreallocationMode preallocation, IProgress<long>? claimed, CancellationToken cancellationToken)
    {
        Log(new(WriteLogKind.Resize, 0, length, default));
        return base.ResizeCoreAsync(length, preallocation, claimed, cancellationToken);
    }

    protected override async ValueTask FlushCoreAsync(CancellationToken cancellationToken)
    {
        await base.FlushCoreAsync(cancellationToken).ConfigureAwait(false);
        Log(new(WriteLogKind.Flush, 0, 0, default)); // logged when it is done: what came before it is durable from here on
    }

    private void Log(WriteLogEntry entry)
    {
        lock (_entries)
        {
            _entries.Add(entry);
        }
    }
}
