using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Vpc;

/// <summary>
/// A dynamic or differencing disk as a node: guest offset → block → table → sector bitmap → file. What it is made of is
/// <see cref="VpcDisk"/>. Spec: "Dynamic Hard Disk Image", "Differencing Hard Disk Image".
/// </summary>
/// <remarks>
/// A sector whose bit is not set was never written: it is the parent's, or zero. QEMU takes every sector of a block that is there; so
/// places for blocks read as zeroes before their first bit is set, and both see the same.
/// </remarks>
internal sealed class VpcNode
    : FormatNode, IDescribed, IRepairable, ITrialRepair, ICompactable, IRebasable, IEmptiable, IFragmented, IBackingRecord
{
    private readonly VpcDisk _disk;
    private readonly MetadataSession _session;
    private readonly VpcCompactor _compactor;
    private readonly VpcParentRecord _parentRecord;
    private readonly bool _isSparse;

    private VpcNode(VpcDisk disk)
        : base(disk.File, disk.Backing)
    {
        (_disk, _session) = (disk, disk.Session);
        _compactor = new VpcCompactor(disk);
        _parentRecord = new VpcParentRecord(disk);
        _isSparse = File.AllocatedLength < File.Length - (File.Length / 8);
        IsReadOnly = File.IsReadOnly;
    }

    public override long Length => _disk.Length;

    public override bool IsReadOnly { get; }

    /// <summary>Data is found and stored by the sector; 4096 spares the callers what the host would not thank them for.</summary>
    public override BlockLimits Limits => new(4096);

    // The table is changed under the lock and a block's bits by the sector, so requests in one block need not wait for each other.
    protected override int AllocationUnit => VpcGeometry.SectorSize;

    protected override bool DataMayBeSparse => _isSparse;

    private bool HasParent => _disk.HasParent;

    private long BlockSize => _disk.BlockSize;

    /// <summary>Opens the table of a disk. The children are the node's on success.</summary>
    public static async ValueTask<VpcNode> OpenAsync(
        BlockNode file,
        VpcFooters footers,
        VpcHeader header,
        VpcOpenOptions options,
        BlockNode? backing,
        string? parentName,
        CancellationToken cancellationToken)
    {
        var disk = new VpcDisk(file, backing, footers, header, options.ForceSizeCalculation, parentName);
        await disk.LoadAsync(cancellationToken).ConfigureAwait(false);
        return new VpcNode(disk);
    }

    public ImageDescription Describe()
    {
        VpcInfo info = VpcInfo.Of(
            _disk.Footers, _disk.Calculation) with { BlockSize = BlockSize, HeaderDamaged = !_disk.Header.IsChecksumRight };
        if (HasParent)
        {
            info = info with
            {
                ParentUniqueId = _disk.Header.ParentUniqueId,
                ParentModified = VpcFooter.Time(_disk.Header.ParentTimeStamp).UtcDateTime,
                ParentName = _disk.Header.ParentName,
                ParentLocators = _disk.Locators,
            };
        }
        return new()
        {
            Format = VpcDriver.FormatName,
            ClusterSize = BlockSize,
            BackingFile = HasParent ? _disk.ParentName : null,
            BackingFormat = HasParent ? VpcParent.FormatOf(_disk.Header) : null,
            Warnings = [.. new[] { _disk.SizeWarning, HasParent ? VpcParent.Warning(_disk.Header, Backing) : null }.OfType<string>()],
            FormatSpecific = info,
        };
    }

    public ValueTask<int?> GetFragmentationAsync(CancellationToken cancellationToken) => _session.RunAsync<int?>(
        _ =>
        {
            var fragments = new FragmentCounter();
            int end = Math.Min(_disk.Bat.Count, _disk.Blocks);
            for (int block = _disk.Bat.NextUsed(0); block < end; block = _disk.Bat.NextUsed(block + 1))
            {
                fragments.Add(_disk.PlaceOf(block)!.Value.Value, _disk.Layout.Span);
            }
            return new(fragments.Percentage);
        },
        cancellationToken);

    public ValueTask<CheckReport> CheckAsync(IProgress<long>? bytes, CancellationToken cancellationToken)
        => AloneAsync(() => CheckedAsync(bytes, cancellationToken));

    /// <summary>Everything is tried beside the file first: see <see cref="StagedRepair"/>.</summary>
    public ValueTask<CheckReport> RepairAsync(RepairMode mode, IProgress<long>? bytes, CancellationToken cancellationToken)
        => AloneAsync(() => StagedRepair.RunAsync(this, File, mode, CheckedAsync, bytes, cancellationToken));

    long ITrialRepair.Grain => BlockSize;

    ValueTask<BlockNode> ITrialRepair.OpenTrialAsync(BlockNode file, bool forRepair, CancellationToken cancellationToken)
        => VpcDriver.OpenAloneAsync(file, _disk.Calculation, forRepair, cancellationToken);

    ValueTask<CheckReport> ITrialRepair.MendAsync(RepairMode mode, CancellationToken cancellationToken)
        => _session.RunAsync(held => new VpcRepairer(_disk, _compactor).RunAsync(held, mode, cancellationToken), cancellationToken);

    ValueTask<IReadOnlyList<(long Start, long End)>> ITrialRepair.ReadableAsync(CancellationToken cancellationToken)
    {
        var runs = new RunList();
        for (int block = 0, blocks = _disk.Blocks; block < blocks;)
        {
            int used = Math.Min(_disk.Bat.NextUsed(block), blocks);
            runs.Add(block * BlockSize, Math.Min(used * BlockSize, Length));
            if (used < blocks && _disk.PlaceOf(used) is { Value: >= VpcFooter.Length } place
                && _disk.Layout.Span <= _disk.FooterOffset - place.Value)
            {
                runs.Add(used * BlockSize, Math.Min((used + 1) * BlockSize, Length));
            }
            block = used + 1;
        }
        return new(runs.Runs);
    }

    ValueTask ITrialRepair.RequireUsableAsync() => _session.RunAsync(
        async held =>
        {
            _ = await _disk.SpaceAsync(held).ConfigureAwait(false);
        },
        CancellationToken.None);

    ValueTask ITrialRepair.ReloadAsync(CancellationToken cancellationToken)
        => _session.RunAsync(held => _disk.ReloadAsync(held, cancellationToken), cancellationToken);

    public async ValueTask<long> CompactAsync(IProgress<long>? bytes, CancellationToken cancellationToken)
    {
        long old = File.Length;
        await ChangeAsync(held => _compactor.RunAsync(held, dropEmpty: true, bytes, cancellationToken)).ConfigureAwait(false);
        return Math.Max(0, old - File.Length);
    }

    public ValueTask MakeEmptyAsync(CancellationToken cancellationToken)
        => ChangeAsync(held => _compactor.EmptyAsync(held, cancellationToken));

    public ValueTask SetBackingAsync(string? backingFile, string? backingFormat, BlockNode? backing, CancellationToken cancellationToken)
        => ChangeAsync(held => _parentRecord.SetAsync(held, backingFile, backingFormat, backing, cancellationToken));

    public ValueTask ExpectBackingChangeAsync(bool changesThis, CancellationToken cancellationToken)
        => ChangeAsync(held => _parentRecord.ExpectChangeAsync(held, cancellationToken));

    public ValueTask ConfirmBackingChangeAsync(CancellationToken cancellationToken) => default;

    /// <summary>Changes the disk's identity, its parent's path, or both. A crash leaves each of them old or new.</summary>
    public ValueTask AmendAsync(VpcAmendOptions options, CancellationToken cancellationToken)
    {
        Guid? id = options.UniqueId is { } text ? IdentifierOption.Parse(Name, VpcAmendOptions.UniqueIdName, text) : null;
        ParentNames? names = options.ParentPath is { } path ? ParentNames.OfOption(Name, HasParent, path) : null;
        return ChangeAsync(held => _parentRecord.AmendAsync(held, id, names, cancellationToken));
    }

    protected override async ValueTask<BlockExtent> MapAsync(long offset, long length, CancellationToken cancellationToken)
    {
        using MetadataSession.Held held = await _session.EnterAsync(cancellationToken).ConfigureAwait(false);
        var guest = new GuestOffset(offset);
        int block = _disk.BlockOf(guest);
        if (_disk.PlaceOf(block) is not { } place)
        {
            return new(offset, Math.Min(Length, _disk.Bat.NextUsed(block) * BlockSize) - offset, BlockStatus.None);
        }
        _disk.RequireInside(block, place);
        long within = _disk.InBlock(guest);
        (bool isSet, long run) = await _disk.RunAsync(place, within, length, cancellationToken).ConfigureAwait(false);
        return isSet
            ? new(offset, run, BlockStatus.Allocated | BlockStatus.Data, File, _disk.DataAt(place, within).Value)
            : new(offset, run, BlockStatus.None);
    }

    protected override async ValueTask<WriteMapping> EnsureMappedAsync(long offset, long length, CancellationToken cancellationToken)
    {
        using MetadataSession.Held held = await _session.EnterAsync(cancellationToken).ConfigureAwait(false);
        var guest = new GuestOffset(offset);
        VpcSpace space = await _disk.SpaceAsync(held).ConfigureAwait(false);
        HostOffset place = await _disk.PlaceOfAsync(held, space, _disk.BlockOf(guest)).ConfigureAwait(false);
        long within = _disk.InBlock(guest), host = _disk.DataAt(place, within).Value;
        (bool isSet, long run) = await _disk.RunAsync(place, within, length, cancellationToken).ConfigureAwait(false);
        long end = offset + Math.Min(length, run);
        return isSet
            ? WriteMapping.InPlace(offset, end - offset, File, host)
            : new(
                offset,
                end - offset,
                File,
                host,
                IsNew: true,
                SectorStart(offset),
                SectorStart(end + VpcGeometry.SectorSize - 1),
                HostReadsZero: false);
    }

    protected override ValueTask CommitMappingAsync(WriteMapping mapping)
        => SetBitsAsync(mapping.CopyStart, mapping.CopyEnd - mapping.CopyStart);

    /// <summary>The block stays where it is, with these sectors' bits not set: it reads as before.</summary>
    protected override ValueTask AbandonMappingAsync(WriteMapping mapping) => default;

    protected override async ValueTask FlushCoreAsync(CancellationToken cancellationToken)
    {
        using MetadataSession.Held held = await _session.EnterAsync(cancellationToken).ConfigureAwait(false);
        await _session.FlushAsync(held, cancellationToken).ConfigureAwait(false);
    }

    /// <summary>
    /// There is no zero state. Without a parent a whole block is dropped; else the bytes in the file are zeroed (holes, where the host has
    /// them), and where a parent could show through, or one to come, their sectors are marked as this disk's own, with a new block if need
    /// be: its place reads as zeroes.
    /// </summary>
    protected override async ValueTask<long> ZeroUnitsAsync(
        long offset, long length, ZeroWriteMode mode, CancellationToken cancellationToken)
    {
        var guest = new GuestOffset(offset);
        long within = _disk.InBlock(guest), count = Math.Min(length, BlockSize - within);
        bool mustDecide = HasParent || mode == ZeroWriteMode.KeepAllocated;
        if (mode == ZeroWriteMode.MayUnmap && HasParent && Backing is not null
            && await ReadsAsZeroAsync(offset, offset + count, cancellationToken).ConfigureAwait(false))
        {
            return count;
        }
        int block = _disk.BlockOf(guest);
        HostOffset? place;
        using (MetadataSession.Held held = await _session.EnterAsync(cancellationToken).ConfigureAwait(false))
        {
            place = _disk.PlaceOf(block);
            if (place is null && !mustDecide)
            {
                return Math.Min(length, (_disk.Bat.NextUsed(block) * BlockSize) - offset);
            }
            VpcSpace space = await _disk.SpaceAsync(held).ConfigureAwait(false);
            if (place is null)
            {
                _ = await _disk.PlaceOfAsync(held, space, block).ConfigureAwait(false);
                await _disk.SetBitsAsync(held, guest, count).ConfigureAwait(false);
                return count;
            }
            if (!mustDecide && IsWhole(offset, count))
            {
                _disk.Drop(held, space, block);
                return count;
            }
        }
        await File.WriteZeroesAsync(_disk.DataAt(place.Value, within).Value, count, mode, cancellationToken).ConfigureAwait(false);
        if (mustDecide)
        {
            await SetBitsAsync(offset, count).ConfigureAwait(false);
        }
        return count;
    }

    /// <summary>
    /// Without a parent whole blocks are dropped. Else the host may have the space back; the bits stay, so no parent's data comes up.
    /// </summary>
    protected override async ValueTask DiscardUnitsAsync(long offset, long length, CancellationToken cancellationToken)
    {
        for (long end = offset + length; offset < end;)
        {
            var guest = new GuestOffset(offset);
            long within = _disk.InBlock(guest), count = Math.Min(end - offset, BlockSize - within);
            int block = _disk.BlockOf(guest);
            HostOffset? place;
            using (MetadataSession.Held held = await _session.EnterAsync(cancellationToken).ConfigureAwait(false))
            {
                place = _disk.PlaceOf(block);
                if (place is null)
                {
                    count = Math.Min(end, _disk.Bat.NextUsed(block) * BlockSize) - offset;
                }
                else if (await _disk.SpaceAsync(held).ConfigureAwait(false) is var space && !HasParent && IsWhole(offset, count))
                {
                    _disk.Drop(held, space, block);
                    place = null;
                }
            }
            if (place is { } present)
            {
                await File.DiscardAsync(_disk.DataAt(present, within).Value, count, cancellationToken).ConfigureAwait(false);
            }
            offset += count;
        }
    }

    protected override ValueTask ResizeCoreAsync(
        long length, PreallocationMode preallocation, IProgress<long>? claimed, CancellationToken cancellationToken)
        => ChangeAsync(held => new VpcResizer(_disk, _compactor).RunAsync(held, length, preallocation, claimed, cancellationToken));

    protected override async ValueTask CloseCoreAsync()
    {
        try
        {
            if (!IsReadOnly)
            {
                await _session.RunAsync(
                    held => FlushAndTrimAsync(held, CancellationToken.None), CancellationToken.None).ConfigureAwait(false);
            }
        }
        finally
        {
            _session.Dispose();
        }
    }

    private static long SectorStart(long offset) => offset & ~(long)(VpcGeometry.SectorSize - 1);

    private bool IsWhole(long offset, long count)
        => _disk.InBlock(new(offset)) == 0 && (count == BlockSize || offset + count >= _disk.ClaimedEnd);

    private async ValueTask SetBitsAsync(long offset, long length)
    {
        using MetadataSession.Held held = await _session.EnterAsync(CancellationToken.None).ConfigureAwait(false);
        await _disk.SetBitsAsync(held, new(offset), length).ConfigureAwait(false);
    }

    /// <summary>Runs a change of the whole disk: with no other request, and under the lock.</summary>
    private ValueTask ChangeAsync(Func<MetadataSession.Held, ValueTask> change)
        => AloneAsync(() => _session.RunAsync(change, CancellationToken.None));

    private ValueTask<CheckReport> CheckedAsync(IProgress<long>? bytes, CancellationToken cancellationToken) => _session.RunAsync(
        async held =>
        {
            await FlushAndTrimAsync(held, cancellationToken).ConfigureAwait(false);
            return await new VpcChecker(_disk).RunAsync(bytes, cancellationToken).ConfigureAwait(false);
        },
        cancellationToken);

    /// <summary>Writes what is to be written, and cuts off what the file has grown ahead; nothing, if nothing was changed.</summary>
    private async ValueTask FlushAndTrimAsync(MetadataSession.Held held, CancellationToken cancellationToken)
    {
        if (_session.Space is VpcSpace space)
        {
            await _session.FlushAsync(held, cancellationToken).ConfigureAwait(false);
            await space.TrimAsync(held).ConfigureAwait(false);
        }
    }
}
