using System.Globalization;
using DiskImage.Block;

namespace DiskImage.Formats.Vmdk;

/// <summary>What concerns the whole disk: check, repair, compact, resize, the parent, the descriptor.</summary>
internal sealed partial class VmdkNode
{
    public ValueTask<CheckReport> CheckAsync(IProgress<long>? bytes, CancellationToken cancellationToken) => AloneAsync(async () =>
    {
        CheckReport report = await EachAsync((extent, progress) => extent.CheckAsync(progress, cancellationToken), bytes).ConfigureAwait(false);
        return With(report, CheckDescriptor());
    });

    public ValueTask<CheckReport> RepairAsync(RepairMode mode, IProgress<long>? bytes, CancellationToken cancellationToken) => AloneAsync(async () =>
    {
        CheckFindings before = CheckDescriptor();
        CheckReport report = await EachAsync(
            (extent, progress) => extent.IsReadOnly ? extent.CheckAsync(progress, cancellationToken) : extent.RepairAsync(mode, progress, cancellationToken), bytes).ConfigureAwait(false);
        if (mode == RepairMode.All && before.List.Any(f => f.Repair is not null) && _store is not null && report is { Corruptions: 0, CheckErrors: 0 })
        {
            await _store.SetAsync(_store.Current.WithExtents(Lines())).ConfigureAwait(false);
        }
        CheckFindings after = CheckDescriptor();
        return With(report, after) with { CorruptionsFixed = report.CorruptionsFixed + Math.Max(0, before.Corruptions - after.Corruptions) };
    });

    public ValueTask<long> CompactAsync(IProgress<long>? bytes, CancellationToken cancellationToken) => AloneAsync(async () =>
    {
        long gained = 0;
        foreach (VmdkExtent extent in _extents)
        {
            if (extent.Node is VmdkSparseExtent { IsReadOnly: false } sparse)
            {
                gained += await sparse.CompactAsync(Shifted(bytes, extent.Start), cancellationToken).ConfigureAwait(false);
            }
        }
        bytes?.Report(Length);
        return gained;
    });

    public ValueTask MakeEmptyAsync(CancellationToken cancellationToken) => AloneAsync(async () =>
    {
        RequireAllSparse("emptied");
        await BeforeChangeAsync().ConfigureAwait(false);
        await EmptyAsync(cancellationToken).ConfigureAwait(false);
    });

    /// <summary>What the disk reads as does not change, so its identity stays.</summary>
    public ValueTask MakeEmptyAfterMergeAsync(CancellationToken cancellationToken) => AloneAsync(async () =>
    {
        RequireAllSparse("emptied");
        await EmptyAsync(cancellationToken).ConfigureAwait(false);
    });

    public ValueTask SetBackingAsync(string? backingFile, string? backingFormat, BlockNode? backing, CancellationToken cancellationToken) => AloneAsync(async () =>
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
            $"{Name}: the new parent '{backingFile}' must be a VMDK that can be opened: a VMDK records its parent's content identifier. Convert it, or make it accessible.",
            Name);
        await ChangeDescriptorAsync(store.Current.WithParent(parent.Cid, backingFile)).ConfigureAwait(false);
    });

    /// <summary>The parent may have its present identity or the one that the next change gives it; with the latter this disk's own follows, if what it shows changes.</summary>
    public ValueTask ExpectBackingChangeAsync(bool changesThis, CancellationToken cancellationToken) => AloneAsync(async () =>
    {
        if (_store is null || !HasParent || VmdkParent.Of(_parent) is not { } parent)
        {
            return;
        }
        VmdkDescriptor changed = _store.Current.WithParent(_store.Current.ParentCid, _store.Current.ParentHint, parent.ComingCid);
        await ChangeDescriptorAsync(changesThis ? changed.WithCid(ComingCid) : changed).ConfigureAwait(false);
        _isCidChanged |= changesThis;
    });

    public ValueTask ConfirmBackingChangeAsync(CancellationToken cancellationToken) => AloneAsync(async () =>
    {
        if (_store is not null && HasParent && VmdkParent.Of(_parent) is { } parent
            && (_store.Current.ComingParentCid is not null || _store.Current.ParentCid != parent.Cid))
        {
            await ChangeDescriptorAsync(_store.Current.WithParent(parent.Cid, _store.Current.ParentHint)).ConfigureAwait(false);
        }
    });

    /// <summary>Changes what the descriptor says of the disk.</summary>
    public ValueTask AmendAsync(VmdkAmendOptions options) => AloneAsync(async () =>
    {
        VmdkDescriptorStore store = RequireDescriptor();
        VmdkDescriptor changed = store.Current;
        if (options.AdapterType is { } adapter)
        {
            changed = changed.With(VmdkText.AdapterKey, VmdkText.Of(adapter), isQuoted: true);
        }
        if (options.HardwareVersion is int hardware)
        {
            changed = changed.With(VmdkText.HardwareKey, hardware.ToString(CultureInfo.InvariantCulture), isQuoted: true);
        }
        if (options.ToolsVersion is long tools)
        {
            changed = changed.With(VmdkText.ToolsKey, tools.ToString(CultureInfo.InvariantCulture), isQuoted: true);
        }
        if (options.ParentPath is { } path)
        {
            changed = !HasParent
                ? throw new DiskImageException(
                    DiskImageErrorKind.InvalidOption, $"{Name}: has no parent, so parent_path={path} is not possible. Give it one with {new Remedy(RemedyKind.SetBacking)}.", Name)
                : changed.WithParent(changed.ParentCid, path, changed.ComingParentCid);
        }
        if (options.Cid is { } cid)
        {
            changed = changed.WithCid(CidOf(cid));
        }
        await ChangeDescriptorAsync(changed).ConfigureAwait(false);
    });

    protected override ValueTask ResizeCoreAsync(long length, PreallocationMode preallocation, IProgress<long>? claimed, CancellationToken cancellationToken)
        => AloneAsync(async () =>
        {
            length = Binary.Round.Up(length, VmdkHeader.SectorSize);
            await BeforeChangeAsync().ConfigureAwait(false);
            await new VmdkResizer(this, _extents, _store).RunAsync(length, preallocation, claimed, cancellationToken).ConfigureAwait(false);
            Volatile.Write(ref _length, length);
        });

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
            DiskImageErrorKind.Unsupported, $"{Name}: is a sparse extent without a descriptor, which is where that would stand. Open the descriptor of the disk.", Name);

    private void RequireAllSparse(string what)
    {
        if (_extents.Any(e => e.Node is not VmdkSparseExtent { IsReadOnly: false }))
        {
            throw new DiskImageException(
                DiskImageErrorKind.Unsupported, $"{Name}: has extents that hold all of their sectors, or are not written to, so it cannot be {what}", Name);
        }
    }

    private uint CidOf(string value)
        => value.Equals("new", StringComparison.OrdinalIgnoreCase) ? VmdkParent.NewCid(Cid, Length, Guid.NewGuid())
            : value.Length == 8 && uint.TryParse(value, NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out uint cid) && cid != VmdkDescriptor.NoParent ? cid
            : throw new DiskImageException(
                DiskImageErrorKind.InvalidOption, $"{Name}: cid={value} is not possible; allowed: 8 hexadecimal digits other than ffffffff, or new.", Name);

    /// <summary>The lines of the extents as they are.</summary>
    private IReadOnlyList<VmdkExtentLine> Lines() => [.. _extents.Select(e => e.Line with { Sectors = e.Node.Length / VmdkHeader.SectorSize })];

    /// <summary>What the descriptor says against what its extents are.</summary>
    private CheckFindings CheckDescriptor()
    {
        var findings = new CheckFindings();
        if (_store is null && Sparse.FirstOrDefault()?.Header is { DescriptorSector: > 0, DescriptorSectors: > 0 } header)
        {
            findings.Corruption("DescriptorLost", $"there is no descriptor at sector {header.DescriptorSector:#,0}, where the header says that it is", host: 28);
        }
        foreach (VmdkExtent extent in _extents)
        {
            if (extent.Node is VmdkFlatExtent flat && flat.Missing is > 0 and var missing)
            {
                findings.Corruption(
                    "ExtentShort",
                    $"the file '{extent.Line.FileName}' ends {missing:#,0} bytes before the extent that the descriptor has in it; they read as zeroes",
                    null,
                    extent.End - Math.Min(missing, extent.Node.Length),
                    Math.Min(missing, extent.Node.Length));
            }
            else if (extent.Node is VmdkSparseExtent sparse && ReferenceEquals(extent.File, _file) && Descriptor is not null && extent.Line.Length != sparse.Header.Length)
            {
                findings.Warning(
                    "DescriptorSize",
                    $"the descriptor gives the disk {extent.Line.Sectors:#,0} sectors, and the header {sparse.Header.Capacity:#,0}; the header counts",
                    "write what the header says");
            }
        }
        return findings;
    }

    private static CheckReport With(CheckReport report, CheckFindings more) => report with
    {
        Findings = [.. report.Findings, .. more.List],
        Corruptions = report.Corruptions + more.Corruptions,
        CheckErrors = report.CheckErrors + more.Errors,
    };

    private static ShiftedProgress? Shifted(IProgress<long>? bytes, long start) => bytes is null ? null : new ShiftedProgress(bytes, start);

    /// <summary>Does something with each sparse extent and adds up what it reports, with offsets of the disk.</summary>
    private async ValueTask<CheckReport> EachAsync(Func<VmdkSparseExtent, IProgress<long>?, ValueTask<CheckReport>> run, IProgress<long>? bytes)
    {
        var findings = new List<CheckFinding>();
        var sum = new CheckReport { Findings = findings, TotalClusters = 0, AllocatedClusters = 0, FragmentedClusters = 0, CompressedClusters = 0 };
        foreach (VmdkExtent extent in _extents)
        {
            if (extent.Node is not VmdkSparseExtent sparse)
            {
                continue;
            }
            CheckReport one = await run(sparse, Shifted(bytes, extent.Start)).ConfigureAwait(false);
            bool isNamed = !ReferenceEquals(extent.File, _file);
            foreach (CheckFinding found in one.Findings.Take(CheckReport.MaxFindings - findings.Count))
            {
                string message = isNamed ? $"{extent.Line.FileName}: {found.Message}" : found.Message;
                findings.Add(new(found.Kind, found.Severity, message, found.GuestOffset + extent.Start, found.GuestLength, found.HostOffset) { Repair = found.Repair });
            }
            sum = sum with
            {
                Corruptions = sum.Corruptions + one.Corruptions,
                Leaks = sum.Leaks + one.Leaks,
                CheckErrors = sum.CheckErrors + one.CheckErrors,
                CorruptionsFixed = sum.CorruptionsFixed + one.CorruptionsFixed,
                LeaksFixed = sum.LeaksFixed + one.LeaksFixed,
                TotalClusters = sum.TotalClusters + one.TotalClusters,
                AllocatedClusters = sum.AllocatedClusters + one.AllocatedClusters,
                FragmentedClusters = sum.FragmentedClusters + one.FragmentedClusters,
                CompressedClusters = sum.CompressedClusters + one.CompressedClusters,
                ImageEndOffset = isNamed ? sum.ImageEndOffset : one.ImageEndOffset,
            };
        }
        bytes?.Report(Length);
        return sum;
    }

    private sealed class ShiftedProgress(IProgress<long> inner, long start) : IProgress<long>
    {
        public void Report(long value) => inner.Report(start + value);
    }
}
