using DiskImage.Block;

namespace DiskImage.Tests.Support;

/// <summary>What was done to several files, in one order: what a crash leaves of all of them can be had at every point.</summary>
internal sealed class Timeline
{
    private readonly List<byte[]> _before = [];
    private readonly List<(int File, WriteLogEntry Request)> _requests = [];

    /// <summary>Requests so far.</summary>
    public int Count => _requests.Count;

    /// <summary>A file whose requests are kept. It owns a copy of its bytes.</summary>
    public BlockNode Add(byte[] file)
    {
        _before.Add(file);
        int index = _before.Count - 1;
        var log = new WriteLogNode(new MemoryNode((byte[])file.Clone()));
        return new Observer(log, () => _requests.AddRange(log.Entries.Skip(_requests.Count(r => r.File == index)).Select(e => (index, e))));
    }

    /// <summary>The files after every number of requests, from none to all; where the last was a flush, nothing is new.</summary>
    public async IAsyncEnumerable<(int Done, byte[][] Files)> PrefixesAsync()
    {
        MemoryNode[] files = [.. _before.Select(b => new MemoryNode((byte[])b.Clone()))];
        yield return (0, [.. files.Select(f => f.ToArray())]);
        for (int done = 1; done <= _requests.Count; done++)
        {
            (int file, WriteLogEntry request) = _requests[done - 1];
            await WriteLogNode.ReplayAsync(request, files[file]);
            if (request.Kind != WriteLogKind.Flush)
            {
                yield return (done, [.. files.Select(f => f.ToArray())]);
            }
        }
    }

    /// <summary>
    /// The files after every number of requests, if each file had lost what was written to it after its last flush: the worst that a host
    /// that reorders writes may leave.
    /// </summary>
    public async IAsyncEnumerable<(int Done, byte[][] Files)> FlushedOnlyAsync()
    {
        MemoryNode[] files = [.. _before.Select(b => new MemoryNode((byte[])b.Clone()))];
        byte[][] flushed = [.. _before];
        for (int done = 1; done <= _requests.Count; done++)
        {
            (int file, WriteLogEntry request) = _requests[done - 1];
            await WriteLogNode.ReplayAsync(request, files[file]);
            if (request.Kind == WriteLogKind.Flush)
            {
                flushed[file] = files[file].ToArray();
                yield return (done, [.. flushed]);
            }
            else
            {
                // This file kept everything, the others only what they had flushed.
                byte[][] mixed = [.. flushed];
                mixed[file] = files[file].ToArray();
                yield return (done, mixed);
            }
        }
    }

    /// <summary>Looks after every request.</summary>
    private sealed class Observer(BlockNode child, Action look) : FilterNode(child)
    {
        protected override ValueTask WriteCoreAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
            => ThenAsync(base.WriteCoreAsync(offset, buffer, cancellationToken));

        protected override ValueTask WriteZeroesCoreAsync(long offset, long length, ZeroWriteMode mode, CancellationToken cancellationToken)
            => ThenAsync(base.WriteZeroesCoreAsync(offset, length, mode, cancellationToken));

        protected override ValueTask DiscardCoreAsync(long offset, long length, CancellationToken cancellationToken)
            => ThenAsync(base.DiscardCoreAsync(offset, length, cancellationToken));

        protected override ValueTask ResizeCoreAsync(
        long length, PreallocationMode preallocation, IProgress<long>? claimed, CancellationToken cancellationToken)
            => ThenAsync(base.ResizeCoreAsync(length, preallocation, claimed, cancellationToken));

        protected override ValueTask FlushCoreAsync(CancellationToken cancellationToken)
            => ThenAsync(base.FlushCoreAsync(cancellationToken));

        private async ValueTask ThenAsync(ValueTask request)
        {
            await request;
            look();
        }
    }
}
