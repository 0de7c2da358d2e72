using System.Xml.Linq;
using DiskImage.Block;
using DiskImage.Drivers;

namespace DiskImage.Formats.Parallels;

/// <summary>The disk of a bundle: its storages one behind the other, each a layer over those that it stands on.</summary>
/// <remarks>
/// What changes the layers themselves (size, snapshots) runs alone: requests wait until it is done, and then meet the new ones.
/// </remarks>
internal sealed class ParallelsBundleNode : BlockNode, IDescribed, IRepairable, ICompactable, IReservable
{
    private readonly ParallelsBundle _bundle;
    private readonly Guid _layer;
    private readonly RangeLock _alone = new(); // shared by requests; whoever has it alone may change the fields below
    private readonly ParallelsSnapshots _snapshots;
    private readonly ParallelsResizer _resizer;
    private readonly ISiblingFiles? _siblings;
    private BlockNode _file; // the descriptor; another one after each change of it
    private IReadOnlyList<ParallelsPart> _parts;
    private IReadOnlyDictionary<string, BlockNode> _children;
    private bool _isClosed; // the parts are, and new ones could not be opened

    /// <summary>Takes over the descriptor's file and the parts.</summary>
    public ParallelsBundleNode(
        ParallelsBundle bundle,
        BlockNode file,
        ParallelsDescriptor descriptor,
        Guid layer,
        IReadOnlyList<ParallelsPart> parts,
        ISiblingFiles? siblings)
    {
        (_bundle, _file, Descriptor, _layer, _parts, _siblings) = (bundle, file, descriptor, layer, parts, siblings);
        _children = ChildrenOf(parts);
        (_snapshots, _resizer) = (new(this, bundle, siblings), new(this, siblings));
    }

    public override string Name => _file.Name;

    public override long Length => _parts[^1].End;

    public override bool IsReadOnly => _file.IsReadOnly || _parts.Any(p => p.Node.IsReadOnly);

    public override IReadOnlyDictionary<string, BlockNode> Children => _children;

    public override BlockLimits Limits => new(_parts.Max(p => p.Node.Limits.AllocationUnit));

    /// <summary>What the descriptor says.</summary>
    public ParallelsDescriptor Descriptor { get; private set; }

    /// <summary>The descriptor's file.</summary>
    public BlockNode File => _file;

    /// <summary>The storages. Those who have the disk alone may close some and give it others.</summary>
    public IReadOnlyList<ParallelsPart> Parts => _parts;

    public ImageDescription Describe() => _parts is [{ Node: IDescribed only }] ? only.Describe()
        : new() { Format = ParallelsDriver.FormatName, FormatSpecific = ParallelsInfo.Plain(new(Descriptor, null)) };

    public ValueTask<CheckReport> CheckAsync(IProgress<long>? bytes, CancellationToken cancellationToken)
        => SumAsync(bytes, part => part.As<ICheckable>()?.CheckAsync(null, cancellationToken));

    /// <summary>Repairs the layer that is open; those below are checked only.</summary>
    public ValueTask<CheckReport> RepairAsync(RepairMode mode, IProgress<long>? bytes, CancellationToken cancellationToken)
        => SumAsync(bytes, part => part.As<IRepairable>()?.RepairAsync(mode, null, cancellationToken));

    public async ValueTask<long> CompactAsync(IProgress<long>? bytes, CancellationToken cancellationToken)
    {
        long saved = 0;
        foreach (ParallelsPart part in _parts)
        {
            saved += part.Node.As<ICompactable>() is { } can ? await can.CompactAsync(null, cancellationToken).ConfigureAwait(false) : 0;
            bytes?.Report(part.End);
        }
        return saved;
    }

    public ValueTask ReserveAsync(long offset, long length, CancellationToken cancellationToken)
        => EachAsync(
            offset,
            length,
            (node, at, _, count) => node.As<IReservable>()?.ReserveAsync(at, count, cancellationToken) ?? default,
            cancellationToken);

    /// <summary>Runs a change of the layers while no request runs. It is flushed first.</summary>
    public ValueTask AloneAsync(Func<ValueTask> work, CancellationToken cancellationToken) => _alone.AloneAsync(
        async () =>
        {
            await FlushPartsAsync(cancellationToken).ConfigureAwait(false);
            await work().ConfigureAwait(false);
        },
        cancellationToken);

    /// <summary>Closes all layers, changes them and the descriptor, and opens them as it says then.</summary>
    /// <param name="change">Gives the descriptor that is in the file afterwards, the present one if it fails before.</param>
    public async ValueTask ReopenAsync(Func<ValueTask<ParallelsDescriptor>> change)
    {
        await ClosePartsAsync().ConfigureAwait(false);
        try
        {
            Descriptor = await change().ConfigureAwait(false);
        }
        finally
        {
            await OpenAsync().ConfigureAwait(false);
        }
    }

    /// <summary>
    /// Gives the bundle another descriptor, which is known to be sound before the old one goes: it is written whole beside that, and
    /// renamed. The disk is held alone.
    /// </summary>
    /// <remarks>
    /// The file is closed for it, and opened again under its name; the top layer's file is open meanwhile, so that nobody else opens the
    /// bundle. Where it fails <see cref="Descriptor"/> is what is there then.
    /// </remarks>
    /// <exception cref="DiskImageException">Corrupt: nothing reads such a descriptor: the old one stays; what the file says.</exception>
    public async ValueTask<ParallelsDescriptor> DescribeAsync(XDocument document)
    {
        byte[] bytes = ParallelsDescriptorEdit.ToBytes(document);
        ParallelsDescriptor next = ParallelsDescriptor.Parse(_file, bytes);
        if (_siblings is null)
        {
            await ParallelsDescriptorEdit.WriteInPlaceAsync(_file, bytes).ConfigureAwait(false);
            return next;
        }
        BlockNode? guard = _isClosed ? await _bundle.OpenFileAsync(Descriptor.Storages[0].Images[Descriptor.Top].File).ConfigureAwait(false)
            : null;
        try
        {
            (string name, NodeIdentity? identity) = (_file.Name, _file.HolderIdentity());
            await _file.DisposeAsync().ConfigureAwait(false);
            try
            {
                await _siblings.ReplaceAsync(name, identity, bytes).ConfigureAwait(false);
            }
            catch
            {
                await OpenFileAsync(name).ConfigureAwait(false);
                Descriptor = await ParallelsDescriptor.ReadAsync(_file, CancellationToken.None).ConfigureAwait(false);
                throw;
            }
            await OpenFileAsync(name).ConfigureAwait(false);
            return next;
        }
        finally
        {
            if (guard is not null)
            {
                await guard.DisposeAsync().ConfigureAwait(false);
            }
        }
    }

    /// <summary>The disk consists of these from now on.</summary>
    public void Set(ParallelsDescriptor descriptor, IReadOnlyList<ParallelsPart> parts)
        => (Descriptor, _parts, _children) = (descriptor, parts, ChildrenOf(parts));

    protected override T? AbilityBelow<T>()
        where T : class
        => _snapshots as T;

    protected override ValueTask ReadCoreAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
        => EachAsync(
            offset,
            buffer.Length,
            (node, at, done, count) => node.ReadAsync(at, buffer.Slice((int)done, (int)count), cancellationToken),
            cancellationToken);

    protected override ValueTask WriteCoreAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
        => EachAsync(
            offset,
            buffer.Length,
            (node, at, done, count) => node.WriteAsync(at, buffer.Slice((int)done, (int)count), cancellationToken),
            cancellationToken);

    protected override ValueTask WriteZeroesCoreAsync(long offset, long length, ZeroWriteMode mode, CancellationToken cancellationToken)
        => EachAsync(offset, length, (node, at, _, count) => node.WriteZeroesAsync(at, count, mode, cancellationToken), cancellationToken);

    protected override ValueTask DiscardCoreAsync(long offset, long length, CancellationToken cancellationToken)
        => EachAsync(offset, length, (node, at, _, count) => node.DiscardAsync(at, count, cancellationToken), cancellationToken);

    protected override async ValueTask<BlockExtent> GetExtentCoreAsync(long offset, long length, CancellationToken cancellationToken)
    {
        RangeLock.Hold hold = await _alone.AcquireAsync(offset, offset + length, exclusive: false, cancellationToken).ConfigureAwait(false);
        try
        {
            ParallelsPart part = PartOf(offset);
            BlockExtent extent = await part.Node.GetExtentAsync(
                offset - part.Start, Math.Min(length, part.End - offset), cancellationToken).ConfigureAwait(false);
            return extent with { Offset = offset };
        }
        finally
        {
            _alone.Release(hold);
        }
    }

    protected override ValueTask FlushCoreAsync(CancellationToken cancellationToken)
        => _alone.WithinAsync(0, long.MaxValue, exclusive: false, () => FlushPartsAsync(cancellationToken), cancellationToken);

    protected override ValueTask ResizeCoreAsync(
        long length, PreallocationMode preallocation, IProgress<long>? claimed, CancellationToken cancellationToken)
        => AloneAsync(() => _resizer.RunAsync(length, preallocation, claimed, cancellationToken), cancellationToken);

    private Dictionary<string, BlockNode> ChildrenOf(IReadOnlyList<ParallelsPart> parts)
    {
        var children = new Dictionary<string, BlockNode>(StringComparer.Ordinal) { ["file"] = _file };
        for (int i = 0; i < parts.Count; i++)
        {
            children.Add($"storage.{i}", parts[i].Node);
        }
        return children;
    }

    private async ValueTask ClosePartsAsync()
    {
        _isClosed = true;
        _children = ChildrenOf([]);
        await Closing.AllAsync(_parts.Select(p => (Func<ValueTask>)p.Node.DisposeAsync)).ConfigureAwait(false);
    }

    private async ValueTask OpenFileAsync(string name)
    {
        try
        {
            _file = await _bundle.OpenFileAsync(name).ConfigureAwait(false);
            _children = ChildrenOf(_isClosed ? [] : _parts);
        }
        catch (DiskImageException e)
        {
            Break(e);
            throw;
        }
    }

    private async ValueTask OpenAsync()
    {
        try
        {
            Set(Descriptor, await _bundle.OpenPartsAsync(
                Descriptor, _layer, toRead: false, CancellationToken.None).ConfigureAwait(false));
            _isClosed = false;
        }
        catch (DiskImageException e)
        {
            Break(e);
            throw;
        }
    }

    private async ValueTask FlushPartsAsync(CancellationToken cancellationToken)
    {
        foreach (ParallelsPart part in _isClosed ? [] : _parts)
        {
            await part.Node.FlushAsync(cancellationToken).ConfigureAwait(false);
        }
    }

    private async ValueTask<CheckReport> SumAsync(IProgress<long>? bytes, Func<BlockNode, ValueTask<CheckReport>?> ask)
    {
        var all = new CheckReport { Findings = [], TotalClusters = 0, AllocatedClusters = 0, FragmentedClusters = 0 };
        foreach (ParallelsPart part in _parts)
        {
            if (ask(part.Node) is { } asked)
            {
                all = all.With(await asked.ConfigureAwait(false));
            }
            if (_layer == Descriptor.Top && part.Node.Length > part.Most)
            {
                var findings = new CheckFindings();
                findings.Warning(
                    "Length",
                    $"{part.Node.Name}: has {part.Node.Length:#,0} bytes, and the disk descriptor says {part.Most:#,0}: a change of the "
                        + $"disk's size was cut short. The next one puts it right.");
                all = all.With(new() { Findings = findings.List });
            }
            bytes?.Report(part.End);
        }
        return all;
    }

    private ParallelsPart PartOf(long offset)
    {
        int low = 0, high = _parts.Count - 1;
        while (low < high)
        {
            int middle = (low + high + 1) / 2;
            (low, high) = _parts[middle].Start <= offset ? (middle, high) : (low, middle - 1);
        }
        return _parts[low];
    }

    private async ValueTask EachAsync(
        long offset, long length, Func<BlockNode, long, long, long, ValueTask> work, CancellationToken cancellationToken)
    {
        RangeLock.Hold hold = await _alone.AcquireAsync(offset, offset + length, exclusive: false, cancellationToken).ConfigureAwait(false);
        try
        {
            for (long done = 0; done < length;)
            {
                ParallelsPart part = PartOf(offset + done);
                long at = offset + done - part.Start, count = Math.Min(length - done, part.Length - at);
                await work(part.Node, at, done, count).ConfigureAwait(false);
                done += count;
            }
        }
        finally
        {
            _alone.Release(hold);
        }
    }
}
