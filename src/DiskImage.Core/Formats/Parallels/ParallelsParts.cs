using DiskImage.Block;

namespace DiskImage.Formats.Parallels;

/// <summary>A plain image of a bundle: the disk's bytes.</summary>
internal sealed class ParallelsPlainNode : LinearFormatNode, IDescribed
{
    private readonly BlockNode? _descriptor;
    private readonly ParallelsFacts _facts;

    /// <summary>Takes over the file, and the descriptor if there is one.</summary>
    public ParallelsPlainNode(BlockNode file, BlockNode? descriptor, ParallelsFacts facts, long length)
        : base(file, start: 0)
    {
        (_descriptor, _facts, Length) = (descriptor, facts, Math.Min(length, file.Length));
        if (descriptor is not null)
        {
            Children = new Dictionary<string, BlockNode>(base.Children, StringComparer.Ordinal) { [ParallelsFacts.Role] = descriptor };
        }
    }

    public override long Length { get; }

    public override string Name => _descriptor?.Name ?? base.Name;

    public override IReadOnlyDictionary<string, BlockNode> Children => field ?? base.Children;

    public ImageDescription Describe() => new()
    {
        Format = ParallelsDriver.FormatName,
        FormatSpecific = ParallelsInfo.Plain(_facts),
    };
}

/// <summary>A split image: storages that follow each other on the disk, each with files of its own.</summary>
internal sealed class ParallelsSplitNode : BlockNode, IDescribed, ICheckable
{
    private readonly BlockNode _descriptor;
    private readonly ParallelsFacts _facts;
    private readonly (long Start, BlockNode Node)[] _parts;

    /// <summary>Takes over the descriptor and the parts.</summary>
    public ParallelsSplitNode(BlockNode descriptor, IReadOnlyList<BlockNode> parts, ParallelsFacts facts)
    {
        (_descriptor, _facts) = (descriptor, facts);
        var children = new Dictionary<string, BlockNode>(StringComparer.Ordinal);
        _parts = new (long, BlockNode)[parts.Count];
        for (int i = 0; i < parts.Count; i++)
        {
            children.Add($"storage.{i}", parts[i]);
            _parts[i] = (Length, parts[i]);
            Length += parts[i].Length;
        }
        children.Add(ParallelsFacts.Role, descriptor);
        Children = children;
    }

    public override string Name => _descriptor.Name;

    public override long Length { get; }

    public override bool IsReadOnly => _parts.Any(p => p.Node.IsReadOnly);

    public override IReadOnlyDictionary<string, BlockNode> Children { get; }

    public override BlockLimits Limits => new(_parts.Max(p => p.Node.Limits.AllocationUnit));

    public ImageDescription Describe() => new() { Format = ParallelsDriver.FormatName, FormatSpecific = ParallelsInfo.Plain(_facts) };

    public async ValueTask<CheckReport> CheckAsync(IProgress<long>? bytes, CancellationToken cancellationToken)
    {
        var all = new CheckReport { Findings = [], TotalClusters = 0, AllocatedClusters = 0, FragmentedClusters = 0 };
        foreach ((long start, BlockNode part) in _parts)
        {
            if (part.As<ICheckable>() is { } checkable)
            {
                all = all.With(await checkable.CheckAsync(null, cancellationToken).ConfigureAwait(false));
            }
            bytes?.Report(start + part.Length);
        }
        return all;
    }

    protected override ValueTask ReadCoreAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
        => EachAsync(
            offset, buffer.Length, (node, at, done, count) => node.ReadAsync(at, buffer.Slice((int)done, (int)count), cancellationToken));

    protected override ValueTask WriteCoreAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
        => EachAsync(
            offset, buffer.Length, (node, at, done, count) => node.WriteAsync(at, buffer.Slice((int)done, (int)count), cancellationToken));

    protected override ValueTask WriteZeroesCoreAsync(long offset, long length, ZeroWriteMode mode, CancellationToken cancellationToken)
        => EachAsync(offset, length, (node, at, _, count) => node.WriteZeroesAsync(at, count, mode, cancellationToken));

    protected override ValueTask DiscardCoreAsync(long offset, long length, CancellationToken cancellationToken)
        => EachAsync(offset, length, (node, at, _, count) => node.DiscardAsync(at, count, cancellationToken));

    protected override async ValueTask<BlockExtent> GetExtentCoreAsync(long offset, long length, CancellationToken cancellationToken)
    {
        (long start, BlockNode node) = PartOf(offset);
        BlockExtent extent = await node.GetExtentAsync(offset - start, Math.Min(length, start + node.Length - offset), cancellationToken)
            .ConfigureAwait(false);
        return extent with { Offset = offset };
    }

    protected override async ValueTask FlushCoreAsync(CancellationToken cancellationToken)
    {
        foreach ((_, BlockNode node) in _parts)
        {
            await node.FlushAsync(cancellationToken).ConfigureAwait(false);
        }
    }

    private (long Start, BlockNode Node) PartOf(long offset)
    {
        int low = 0, high = _parts.Length - 1;
        while (low < high)
        {
            int middle = (low + high + 1) / 2;
            (low, high) = _parts[middle].Start <= offset ? (middle, high) : (low, middle - 1);
        }
        return _parts[low];
    }

    private async ValueTask EachAsync(long offset, long length, Func<BlockNode, long, long, long, ValueTask> work)
    {
        for (long done = 0; done < length;)
        {
            (long start, BlockNode node) = PartOf(offset + done);
            long at = offset + done - start, count = Math.Min(length - done, node.Length - at);
            await work(node, at, done, count).ConfigureAwait(false);
            done += count;
        }
    }
}
