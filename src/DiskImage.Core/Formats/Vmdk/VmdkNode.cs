using System.Globalization;
using DiskImage.Block;

namespace DiskImage.Formats.Vmdk;

/// <summary>A VMDK disk: extents one behind the other, a descriptor that lists them, and a parent that shows through sparse ones.</summary>
/// <remarks>
/// <para>Each extent is a node of its own over its file, with its own tables and lock; what lies in one goes there. What concerns the whole
/// disk runs alone: requests hold a lock together that it takes for itself.</para>
/// <para>The content identifier is changed, durably, before a session first changes what the disk reads as: then a child made before does
/// not fit any more, whatever happens next.</para>
/// </remarks>
internal sealed class VmdkNode
    : BlockNode, IDescribed, IRepairable, ICompactable, IRebasable, IEmptiable, IReservable, IBackingRecord
{
    private readonly BlockNode _file;
    private readonly VmdkDescriptorStore? _store;
    private readonly List<VmdkExtent> _extents;
    private readonly BlockNode? _parent;
    private readonly VmdkSplitFiles? _files;
    private readonly RangeLock _requests = new(); // shared by requests, exclusive for what concerns the whole disk
    private readonly SemaphoreSlim _descriptorGate = new(1, 1); // guards the descriptor and the two fields below
    private uint? _comingCid;
    private volatile bool _isCidChanged;
    private volatile IReadOnlyDictionary<string, BlockNode> _children;
    private long _length;

    /// <summary>A disk over its open parts, which it owns.</summary>
    /// <param name="file">The file that is named to open it.</param>
    /// <param name="store">Its descriptor; null for none.</param>
    /// <param name="extents">Its extents in the order of the disk.</param>
    /// <param name="parent">What it stands on; null for nothing, or for this layer alone.</param>
    /// <param name="files">Makes and removes the files of a split disk; null where that cannot be.</param>
    public VmdkNode(BlockNode file, VmdkDescriptorStore? store, IReadOnlyList<VmdkExtent> extents, BlockNode? parent, VmdkSplitFiles? files)
    {
        (_file, _store, _extents, _parent, _files) = (file, store, [.. extents], parent, files);
        _length = extents.Count == 0 ? 0 : extents[^1].End;
        IsReadOnly = file.IsReadOnly || (extents.Count > 0 && extents.All(e => e.Node.IsReadOnly));
        _children = FindChildren();
    }

    public override string Name => _file.Name;

    public override long Length => Volatile.Read(ref _length);

    public override bool IsReadOnly { get; }

    public override DateTimeOffset? LastWriteTime => _extents.Select(e => e.File?.LastWriteTime).Append(_file.LastWriteTime).Max();

    public override IReadOnlyDictionary<string, BlockNode> Children => _children;

    public override BlockLimits Limits
        => _extents.Count == 0 ? BlockLimits.None : _extents.MaxBy(e => e.Node.Limits.AllocationUnit)!.Node.Limits;

    /// <summary>The content identifier; 0 for a sparse extent without a descriptor.</summary>
    public uint Cid => Descriptor?.Cid ?? 0;

    /// <summary>The extents in the order of the disk.</summary>
    public IReadOnlyList<VmdkExtent> Extents => _extents;

    private VmdkDescriptor? Descriptor => _store?.Current;

    private VmdkUpkeep Upkeep => new(_file, Descriptor, _extents);

    private bool HasParent => Descriptor?.HasParent == true;

    private IEnumerable<VmdkSparseExtent> Sparse => _extents.Select(e => e.Node).OfType<VmdkSparseExtent>();

    public ImageDescription Describe()
    {
        VmdkHeader? header = Sparse.FirstOrDefault(s => !s.IsCowd)?.Header;
        return new ImageDescription
        {
            Format = VmdkDriver.FormatName,
            ClusterSize = _extents.Where(e => e.Node is FormatNode).Select(e => (long?)e.Node.Limits.AllocationUnit).FirstOrDefault(),
            BackingFile = HasParent ? Descriptor!.ParentHint : null,
            BackingFormat = HasParent ? VmdkDriver.FormatName : null,
            Compressed = Sparse.Any(s => s.Header.IsCompressed),
            Dirty = Sparse.Any(s => s.IsLeftOpen),
            Warnings = [.. Warnings()],
            FormatSpecific = new VmdkInfo
            {
                CreateType = Descriptor?.CreateType,
                Cid = VmdkParent.Text(Cid),
                ParentCid = HasParent ? VmdkParent.Text(Descriptor!.ParentCid) : null,
                LongContentId = Descriptor?.Value("ddb.longContentID"),
                Uuid = Descriptor?.Value("ddb.uuid"),
                AdapterType = Descriptor?.Value(VmdkText.AdapterKey),
                HardwareVersion = Descriptor?.Value(VmdkText.HardwareKey),
                ToolsVersion = Descriptor?.Value(VmdkText.ToolsKey),
                Encoding = Descriptor?.EncodingName,
                SparseVersion = (int?)header?.Version,
                Extents = [.. _extents.Select(e => e.Line.Text)],
            },
        };
    }

    public async ValueTask ReserveAsync(long offset, long length, CancellationToken cancellationToken)
    {
        foreach ((VmdkExtent extent, long within, long count) in Parts(offset, length))
        {
            if (extent.Node is IReservable reservable)
            {
                await BeforeChangeAsync().ConfigureAwait(false);
                await reservable.ReserveAsync(within, count, cancellationToken).ConfigureAwait(false);
            }
        }
    }

    protected override async ValueTask ReadCoreAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
    {
        RangeLock.Hold? hold = await EnterAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            foreach ((VmdkExtent extent, long within, long count) in Parts(offset, buffer.Length))
            {
                await extent.Node.ReadAsync(within, buffer[..(int)count], cancellationToken).ConfigureAwait(false);
                buffer = buffer[(int)count..];
            }
        }
        finally
        {
            Leave(hold);
        }
    }

    protected override async ValueTask WriteCoreAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
    {
        RangeLock.Hold? hold = await EnterAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            await BeforeChangeAsync().ConfigureAwait(false);
            foreach ((VmdkExtent extent, long within, long count) in Parts(offset, buffer.Length))
            {
                await extent.Node.WriteAsync(within, buffer[..(int)count], cancellationToken).ConfigureAwait(false);
                buffer = buffer[(int)count..];
            }
        }
        finally
        {
            Leave(hold);
        }
    }

    protected override ValueTask WriteZeroesCoreAsync(long offset, long length, ZeroWriteMode mode, CancellationToken cancellationToken)
        => ChangeAsync(
            offset,
            length,
            (extent, within, count)
                => extent.Line.Type == VmdkExtentType.Zero ? default : extent.Node.WriteZeroesAsync(within, count, mode, cancellationToken),
            cancellationToken);

    protected override async ValueTask<CopyOutcome> CopyFromCoreAsync(
        long offset, BlockNode source, long sourceOffset, long length, CopyOffload how, CancellationToken cancellationToken)
    {
        (CopyOutcome whole, long asked) = (default, 0);
        await ChangeAsync(
            offset,
            length,
            async (extent, within, count) =>
            {
                if (whole.Done == asked && extent.Line.Type != VmdkExtentType.Zero) // what follows a gap is left
                {
                    CopyOutcome part = await extent.Node.CopyFromAsync(
                        within, source, sourceOffset + asked, count, how, cancellationToken).ConfigureAwait(false);
                    whole = new CopyOutcome(whole.Done + part.Done, whole.Shared + part.Shared);
                }
                asked += count;
            },
            cancellationToken).ConfigureAwait(false);
        return whole;
    }

    protected override ValueTask DiscardCoreAsync(long offset, long length, CancellationToken cancellationToken)
        => ChangeAsync(
            offset,
            length,
            (extent, within, count) => extent.Node.IsReadOnly ? default : extent.Node.DiscardAsync(within, count, cancellationToken),
            cancellationToken);

    protected override async ValueTask<BlockExtent> GetExtentCoreAsync(long offset, long length, CancellationToken cancellationToken)
    {
        RangeLock.Hold? hold = await EnterAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            VmdkExtent extent = At(offset);
            long within = offset - extent.Start, count = Math.Min(length, extent.Node.Length - within);
            return await extent.Node.GetExtentAsync(within, count, cancellationToken).ConfigureAwait(false) with { Offset = offset };
        }
        finally
        {
            Leave(hold);
        }
    }

    protected override async ValueTask FlushCoreAsync(CancellationToken cancellationToken)
    {
        RangeLock.Hold? hold = await EnterAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            foreach (VmdkExtent extent in _extents)
            {
                await extent.Node.FlushAsync(cancellationToken).ConfigureAwait(false);
            }
        }
        finally
        {
            Leave(hold);
        }
    }

    protected override async ValueTask CloseCoreAsync()
    {
        try
        {
            await Closing.AllAsync(_extents.Select(e => (Func<ValueTask>)e.Node.DisposeAsync)).ConfigureAwait(false);
        }
        finally
        {
            _descriptorGate.Dispose();
        }
    }

    public ValueTask<CheckReport> CheckAsync(IProgress<long>? bytes, CancellationToken cancellationToken) => AloneAsync(async () =>
    {
        CheckReport report = await Upkeep.EachAsync((extent, progress)
            => extent.CheckAsync(progress, cancellationToken), bytes).ConfigureAwait(false);
        return VmdkUpkeep.With(report, Upkeep.CheckDescriptor());
    }, cancellationToken);

    public ValueTask<CheckReport> RepairAsync(RepairMode mode, IProgress<long>? bytes, CancellationToken cancellationToken)
        => AloneAsync(async () =>
    {
        CheckFindings before = Upkeep.CheckDescriptor();
        CheckReport report = await Upkeep.EachAsync(
            (extent, progress)
                => extent.IsReadOnly ? extent.CheckAsync(progress, cancellationToken)
                    : extent.RepairAsync(mode, progress, cancellationToken), bytes).ConfigureAwait(false);
        if (mode == RepairMode.All && before.List.Any(f => f.Repair is not null) && _store is not null
            && report is { Corruptions: 0, CheckErrors: 0 })
        {
            await _store.SetAsync(_store.Current.WithExtents(Lines())).ConfigureAwait(false);
        }
        CheckFindings after = Upkeep.CheckDescriptor();
        return VmdkUpkeep.With(report, after) with
        {
            CorruptionsFixed = report.CorruptionsFixed + Math.Max(0, before.Corruptions - after.Corruptions),
        };
    }, cancellationToken);

    public ValueTask<long> CompactAsync(IProgress<long>? bytes, CancellationToken cancellationToken) => AloneAsync(async () =>
    {
        long gained = 0;
        foreach (VmdkExtent extent in _extents)
        {
            if (extent.Node is VmdkSparseExtent { IsReadOnly: false } sparse)
            {
                gained += await sparse.CompactAsync(VmdkUpkeep.Shifted(bytes, extent.Start), cancellationToken).ConfigureAwait(false);
            }
        }
        bytes?.Report(Length);
        return gained;
    }, cancellationToken);

    public ValueTask MakeEmptyAsync(CancellationToken cancellationToken) => AloneAsync(async () =>
    {
        RequireAllSparse("emptied");
        await BeforeChangeAsync().ConfigureAwait(false);
        await EmptyAsync(cancellationToken).ConfigureAwait(false);
    }, cancellationToken);

    /// <summary>What the disk reads as does not change, so its identity stays.</summary>
    public ValueTask MakeEmptyAfterMergeAsync(CancellationToken cancellationToken) => AloneAsync(async () =>
    {
        RequireAllSparse("emptied");
        await EmptyAsync(cancellationToken).ConfigureAwait(false);
    }, cancellationToken);

    public ValueTask SetBackingAsync(string? backingFile, string? backingFormat, BlockNode? backing, CancellationToken cancellationToken)
        => AloneAsync(async () =>
    {
        VmdkDescriptorStore store = RequireDescriptor();
        if (backingFile is null)
        {
            await ChangeDescriptorAsync(store.Current.WithParent(VmdkDescriptor.NoParent, null)).ConfigureAwait(false);
            return;
        }
        RequireAllSparse("given a parent");
        VmdkNode parent = VmdkParent.Of(backing) ?? throw new DiskImageException(
            DiskImageErrorKind.InvalidOption,
            $"{Name}: the new parent '{backingFile}' must be a VMDK that can be opened: a VMDK records its parent's content"
                + " identifier. Convert it, or make it accessible.",
            Name);
        await ChangeDescriptorAsync(store.Current.WithParent(parent.Cid, backingFile)).ConfigureAwait(false);
    }, cancellationToken);

    /// <summary>
    /// The parent may have its present identity or the one that the next change gives it; with the latter this disk's own follows, if what
    /// it shows changes.
    /// </summary>
    public ValueTask ExpectBackingChangeAsync(bool changesThis, CancellationToken cancellationToken) => AloneAsync(async () =>
    {
        if (_store is null || !HasParent || VmdkParent.Of(_parent) is not { } parent)
        {
            return;
        }
        VmdkDescriptor changed = _store.Current.WithParent(_store.Current.ParentCid, _store.Current.ParentHint, parent.ComingCid);
        await ChangeDescriptorAsync(changesThis ? changed.WithCid(ComingCid) : changed).ConfigureAwait(false);
        _isCidChanged |= changesThis;
    }, cancellationToken);

    public ValueTask ConfirmBackingChangeAsync(CancellationToken cancellationToken) => AloneAsync(async () =>
    {
        if (_store is not null && HasParent && VmdkParent.Of(_parent) is { } parent
            && (_store.Current.ComingParentCid is not null || _store.Current.ParentCid != parent.Cid))
        {
            await ChangeDescriptorAsync(_store.Current.WithParent(parent.Cid, _store.Current.ParentHint)).ConfigureAwait(false);
        }
    }, cancellationToken);

    /// <summary>Changes what the descriptor says of the disk.</summary>
    public ValueTask AmendAsync(VmdkAmendOptions options)
        => AloneAsync(() => ChangeDescriptorAsync(VmdkAmendment.Of(RequireDescriptor().Current, options, Length)), CancellationToken.None);

    protected override ValueTask ResizeCoreAsync(long length, PreallocationMode preallocation, IProgress<long>? claimed,
        CancellationToken cancellationToken)
        => AloneAsync(async () =>
        {
            length = Binary.Round.Up(length, VmdkHeader.SectorSize);
            await BeforeChangeAsync().ConfigureAwait(false);
            VmdkExtent before = _extents[^1];
            try
            {
                await new VmdkResizer(this, _extents, _store, _files).RunAsync(length, preallocation, claimed,
                    cancellationToken).ConfigureAwait(false);
            }
            finally
            {
                if (!ReferenceEquals(before, _extents[^1])) // also if what came after failed
                {
                    Volatile.Write(ref _length, length);
                    _children = FindChildren();
                }
            }
        }, cancellationToken);

    private async ValueTask EmptyAsync(CancellationToken cancellationToken)
    {
        foreach (VmdkSparseExtent extent in Sparse)
        {
            await extent.MakeEmptyAsync(cancellationToken).ConfigureAwait(false);
        }
    }

    private async ValueTask ChangeDescriptorAsync(VmdkDescriptor changed)
    {
        await _descriptorGate.WaitAsync().ConfigureAwait(false);
        try
        {
            await RequireDescriptor().SetAsync(changed).ConfigureAwait(false);
        }
        finally
        {
            _ = _descriptorGate.Release();
        }
    }

    private VmdkDescriptorStore RequireDescriptor()
        => _store ?? throw new DiskImageException(
            DiskImageErrorKind.Unsupported, $"{Name}: is a sparse extent without a descriptor, which is where that would stand."
                + " Open the descriptor of the disk.", Name);

    private void RequireAllSparse(string what)
    {
        if (_extents.Any(e => e.Node is not VmdkSparseExtent { IsReadOnly: false }))
        {
            throw new DiskImageException(
                DiskImageErrorKind.Unsupported, $"{Name}: has extents that hold all of their sectors, or are not written to, so"
                    + $" it cannot be {what}", Name);
        }
    }

    /// <summary>The lines of the extents as they are.</summary>
    private IReadOnlyList<VmdkExtentLine> Lines()
        => [.. _extents.Select(e => e.Line with { Sectors = e.Node.Length / VmdkHeader.SectorSize })];

    private Dictionary<string, BlockNode> FindChildren()
    {
        var children = new Dictionary<string, BlockNode>(StringComparer.Ordinal) { ["file"] = _file };
        var seen = new HashSet<BlockNode>(ReferenceEqualityComparer.Instance) { _file };
        foreach ((int index, VmdkExtent extent) in _extents.Index())
        {
            if (extent.File is { } own && seen.Add(own))
            {
                children.Add(string.Create(CultureInfo.InvariantCulture, $"extents.{index}"), own);
            }
        }
        if (_parent is not null)
        {
            children.Add("backing", _parent);
        }
        return children;
    }

    private IEnumerable<string> Warnings()
    {
        if (Descriptor is null)
        {
            yield return "it is a sparse extent without a descriptor: part of a disk that is split into several files, perhaps;"
                + " the descriptor is the file to open then";
        }
        if (Descriptor?.TracksChanges == true)
        {
            yield return "a host tracks its changes in a file beside it (changeTrackPath), so it is not written to here";
        }
    }

    private async ValueTask ChangeAsync(
        long offset, long length, Func<VmdkExtent, long, long, ValueTask> change, CancellationToken cancellationToken)
    {
        RangeLock.Hold? hold = await EnterAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            await BeforeChangeAsync().ConfigureAwait(false);
            foreach ((VmdkExtent extent, long within, long count) in Parts(offset, length))
            {
                await change(extent, within, count).ConfigureAwait(false);
            }
        }
        finally
        {
            Leave(hold);
        }
    }

    private async ValueTask<RangeLock.Hold?> EnterAsync(CancellationToken cancellationToken)
        => IsReadOnly ? null : await _requests.AcquireAsync(0, 1, exclusive: false, cancellationToken).ConfigureAwait(false);

    private void Leave(RangeLock.Hold? hold)
    {
        if (hold is not null)
        {
            _requests.Release(hold);
        }
    }

    private ValueTask<T> AloneAsync<T>(Func<ValueTask<T>> work, CancellationToken cancellationToken)
        => _requests.AloneAsync(work, cancellationToken);

    private ValueTask AloneAsync(Func<ValueTask> work, CancellationToken cancellationToken)
        => _requests.AloneAsync(work, cancellationToken);

    /// <summary>The extent that holds an offset of the disk.</summary>
    private VmdkExtent At(long offset)
    {
        int low = 0, high = _extents.Count;
        while (low < high)
        {
            int middle = (low + high) >>> 1;
            (low, high) = _extents[middle].End <= offset ? (middle + 1, high) : (low, middle);
        }
        return _extents[low];
    }

    private IEnumerable<(VmdkExtent Extent, long Within, long Count)> Parts(long offset, long length)
    {
        for (long end = offset + length; offset < end;)
        {
            VmdkExtent extent = At(offset);
            long count = Math.Min(end, extent.End) - offset;
            yield return (extent, offset - extent.Start, count);
            offset += count;
        }
    }

    /// <summary>Changes the content identifier, durably, the first time.</summary>
    private async ValueTask BeforeChangeAsync()
    {
        if (_isCidChanged || _store is null)
        {
            return;
        }
        await _descriptorGate.WaitAsync().ConfigureAwait(false);
        try
        {
            if (!_isCidChanged)
            {
                await _store.SetAsync(_store.Current.WithCid(ComingCid)).ConfigureAwait(false);
                (_isCidChanged, _comingCid) = (true, null);
            }
        }
        finally
        {
            _ = _descriptorGate.Release();
        }
    }

    /// <summary>The content identifier that the next change gives the disk.</summary>
    private uint ComingCid => _isCidChanged ? Cid : _comingCid ??= VmdkParent.NewCid(Cid, Length);
}
