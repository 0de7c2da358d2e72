using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Qed;

/// <summary>What concerns the whole image: check, repair, compact, resize, rebase, empty.</summary>
internal sealed partial class QedNode
{
    public ValueTask<CheckReport> CheckAsync(IProgress<long>? bytes, CancellationToken cancellationToken)
        => AloneAsync(() => CheckedAsync(bytes, cancellationToken), cancellationToken);

    /// <summary>Everything is tried beside the file first: see <see cref="StagedRepair"/>.</summary>
    public ValueTask<CheckReport> RepairAsync(RepairMode mode, IProgress<long>? bytes, CancellationToken cancellationToken)
        => AloneAsync(() => StagedRepair.RunAsync(this, File, mode, CheckedAsync, bytes, cancellationToken), cancellationToken);

    long ITrialRepair.Grain => AllocationUnit;

    async ValueTask<BlockNode> ITrialRepair.OpenTrialAsync(BlockNode file, bool forRepair, CancellationToken cancellationToken)
    {
        QedHeader header = await QedHeader.ReadAsync(file, cancellationToken).ConfigureAwait(false);
        return await OpenAsync(file, backing: null, header, forRepair, _isOpening, cancellationToken).ConfigureAwait(false);
    }

    ValueTask<CheckReport> ITrialRepair.MendAsync(RepairMode mode, CancellationToken cancellationToken)
        => _session.RunAsync(held => MendAsync(held, mode, cancellationToken), cancellationToken);

    /// <summary>All of the disk but what entries lead to that are no places.</summary>
    async ValueTask<IReadOnlyList<(long Start, long End)>> ITrialRepair.ReadableAsync(CancellationToken cancellationToken)
    {
        var runs = new RunList();
        var lost = new List<(long Offset, long Length)>();
        await _layout.WalkAsync(
            (index, entry, length) =>
            {
                if (!_tables.IsPlace(entry, length))
                {
                    lost.Add(_layout.GuestRange(index));
                }
            },
            cancellationToken).ConfigureAwait(false);
        long readable = 0;
        foreach ((long offset, long length) in lost.OrderBy(l => l.Offset))
        {
            runs.Add(readable, offset);
            readable = Math.Max(readable, offset + length);
        }
        runs.Add(readable, Length);
        return runs.Runs;
    }

    ValueTask ITrialRepair.RequireUsableAsync() => default; // opening it for writing has done that

    ValueTask ITrialRepair.ReloadAsync(CancellationToken cancellationToken) => _session.RunAsync(
        async held =>
        {
            await _tables.ReloadAsync(
                await QedHeader.ReadAsync(File, cancellationToken).ConfigureAwait(false), cancellationToken).ConfigureAwait(false);
            (_isMarked, _gaveUp) = (false, false);
            _reserved.Clear();
            if (await FindSpaceAsync(held, cancellationToken).ConfigureAwait(false) is not null)
            {
                _session.Space = null; // not to be written to
            }
        },
        cancellationToken);

    public ValueTask<long> CompactAsync(IProgress<long>? bytes, CancellationToken cancellationToken)
        => AloneAsync(() => CompactAloneAsync(bytes, cancellationToken), cancellationToken);

    private async ValueTask<long> CompactAloneAsync(IProgress<long>? bytes, CancellationToken cancellationToken)
    {
        long before = File.Length;
        await _session.RunAsync(
            async held =>
            {
                await MarkAsync(held).ConfigureAwait(false);
                if (Header.BackingFile is null) // else it would show through
                {
                    await Compactor.DropZeroesAsync(held, bytes, cancellationToken).ConfigureAwait(false);
                }
                await Compactor.RunAsync(held, cancellationToken).ConfigureAwait(false);
            },
            cancellationToken).ConfigureAwait(false);
        return Math.Max(0, before - File.Length);
    }

    public ValueTask SetBackingAsync(string? backingFile, string? backingFormat, BlockNode? backing, CancellationToken cancellationToken)
        => AloneAsync(
        () => _session.RunAsync(held => SetBackingAsync(held, backingFile, backingFormat), cancellationToken), cancellationToken);

    public ValueTask MakeEmptyAsync(CancellationToken cancellationToken) => AloneAsync(
        () => _session.RunAsync(
            async held =>
            {
                await MarkAsync(held).ConfigureAwait(false);
                await _session.FlushAsync(held, cancellationToken).ConfigureAwait(false);
                await DropFromAsync(held, 0, cancellationToken).ConfigureAwait(false);
                await Compactor.RunAsync(held, CancellationToken.None).ConfigureAwait(false);
            },
            cancellationToken),
        cancellationToken);

    protected override async ValueTask ResizeCoreAsync(
        long length, PreallocationMode preallocation, IProgress<long>? claimed, CancellationToken cancellationToken)
    {
        if (preallocation != PreallocationMode.Off)
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption, $"{Name}: a QED image grows without preallocation only; allowed: off", Name);
        }
        if (length > Header.MaxImageSize)
        {
            throw new DiskImageException(
                DiskImageErrorKind.OutOfRange,
                $"{Name}: with clusters of {Header.ClusterSize:#,0} bytes and tables of {Header.TableSize} "
                    + $"clusters it cannot have {length:#,0} bytes;"
                    + $" allowed: up to {Header.MaxImageSize:#,0}. Convert it to an image with a larger cluster_size or table_size.",
                Name);
        }
        length = Round.Up(length, QedHeader.SectorSize);
        await AloneAsync(() => length < Length
            ? ShrinkAsync(length, cancellationToken)
            : GrowAsync(length, cancellationToken), cancellationToken).ConfigureAwait(false);
    }

    /// <summary>
    /// What is new reads as zeroes before it is there: the tail of the last cluster, and what a backing image shows behind it.
    /// </summary>
    private async ValueTask GrowAsync(long length, CancellationToken cancellationToken)
    {
        long old = Length, clusterEnd = Round.Up(old, AllocationUnit);
        await _session.RunAsync(
            async held =>
            {
                await MarkAsync(held).ConfigureAwait(false);
                await _session.FlushAsync(held, cancellationToken).ConfigureAwait(false);
                // what a shrink that was cut short left
                await DropFromAsync(held, clusterEnd / AllocationUnit, cancellationToken).ConfigureAwait(false);
                int needed = (int)Round.Units(length, Header.Span);
                if (needed > _tables.L1.Count)
                {
                    _tables.L1.SetCount(held, needed);
                }
            },
            cancellationToken).ConfigureAwait(false);
        long shown = Header.BackingFile is null ? old : Backing is null ? length : Math.Clamp(Backing.Length, old, length);
        if (old < clusterEnd)
        {
            await ZeroTailAsync(old, clusterEnd, shown > old, cancellationToken).ConfigureAwait(false);
        }
        if (shown > clusterEnd)
        {
            await WriteZeroesMappedAsync(clusterEnd, shown, cancellationToken).ConfigureAwait(false);
        }
        await _session.RunAsync(
            async held =>
            {
                await _session.FlushAsync(held, CancellationToken.None).ConfigureAwait(false);
                await _tables.SetHeaderAsync(held, Header with { ImageSize = length }).ConfigureAwait(false);
            },
            CancellationToken.None).ConfigureAwait(false);
    }

    private async ValueTask ZeroTailAsync(long old, long clusterEnd, bool isShown, CancellationToken cancellationToken)
    {
        ulong entry = await _session.RunAsync(
            _ => _tables.GetAsync(old / AllocationUnit, cancellationToken), cancellationToken).ConfigureAwait(false);
        if (entry == QedTables.Zero || (entry == QedTables.Nowhere && !isShown))
        {
            return;
        }
        await WriteZeroesMappedAsync(old, clusterEnd, cancellationToken).ConfigureAwait(false);
    }

    private ValueTask ShrinkAsync(long length, CancellationToken cancellationToken) => _session.RunAsync(
        async held =>
        {
            await MarkAsync(held).ConfigureAwait(false);
            await _session.FlushAsync(held, cancellationToken).ConfigureAwait(false);
            await _tables.SetHeaderAsync(held, Header with { ImageSize = length }).ConfigureAwait(false);
            await DropFromAsync(held, Round.Units(length, AllocationUnit), CancellationToken.None).ConfigureAwait(false);
            await Compactor.RunAsync(held, CancellationToken.None).ConfigureAwait(false);
        },
        cancellationToken);

    /// <summary>Gives up all clusters from one on, and the tables that hold no others.</summary>
    private async ValueTask DropFromAsync(MetadataSession.Held held, long cluster, CancellationToken cancellationToken)
    {
        var dropped = new List<(long Index, long Place, long Length)>();
        await _layout.WalkAsync(
            (index, entry, length) =>
            {
                long first = QedLayout.IsTable(index) ? (long)QedLayout.L1Index(index) * Header.TableEntries : index;
                if (first >= cluster)
                {
                    dropped.Add((index, (long)entry, length));
                }
            },
            cancellationToken).ConfigureAwait(false);
        long firstTable = Round.Units(cluster, Header.TableEntries);
        foreach ((long index, long place, long length) in dropped)
        {
            if (QedLayout.IsTable(index))
            {
                _tables.DropTable(held, QedLayout.L1Index(index));
                _zeroFrom = Math.Max(_zeroFrom, place + length);
                _gaveUp = true;
            }
            else if (index / Header.TableEntries >= firstTable)
            {
                GiveUp(held, place, length, isLinked: true); // its table goes as well
            }
            else
            {
                await ReplaceAsync(held, index, QedTables.Nowhere).ConfigureAwait(false);
            }
        }
        for (long at = cluster; at % Header.TableEntries != 0 && _tables.L1[_tables.L1Index(at)].Value != 0; at++)
        {
            await _tables.SetAsync(held, at, QedTables.Nowhere).ConfigureAwait(false); // also what only reads as zeroes
        }
        await _session.FlushAsync(held, CancellationToken.None).ConfigureAwait(false);
    }

    private async ValueTask<CheckReport> CheckAsync(CancellationToken cancellationToken)
    {
        var findings = new CheckFindings();
        await _layout.WalkAsync(
            (index, entry, _) =>
            {
                if (entry % (ulong)AllocationUnit != 0)
                {
                    (long guest, long guestLength) = _layout.GuestRange(index);
                    findings.Corruption(
                        "Misaligned",
                        $"{_layout.NameOf(index)} is said to be at offset {entry:#,0}, which is no multiple of {AllocationUnit:#,0}",
                        "forget the entry: it leads to nothing",
                        guest,
                        guestLength,
                        (long)(entry & long.MaxValue));
                }
            },
            cancellationToken).ConfigureAwait(false);
        (StoredBlock[] blocks, long fragmented) = await _maintenance.StoredAsync(cancellationToken).ConfigureAwait(false);
        long end = _maintenance.Check(blocks, findings);
        if (Header.NeedsCheck && !_isMarked)
        {
            findings.Warning(
                "NeedsCheck", "the image was not closed by whoever wrote to it", "clear the mark once the tables are right", host: 16);
        }
        return new CheckReport
        {
            Findings = findings.List,
            Corruptions = findings.Corruptions,
            Leaks = findings.Leaks,
            CheckErrors = findings.Errors,
            TotalClusters = Round.Units(Length, AllocationUnit),
            AllocatedClusters = blocks.Count(b => !QedLayout.IsTable(b.Index)),
            FragmentedClusters = fragmented,
            CompressedClusters = 0,
            ImageEndOffset = end,
        };
    }

    private ValueTask<CheckReport> CheckedAsync(IProgress<long>? bytes, CancellationToken cancellationToken)
        => _session.CheckAsync(CheckAsync, bytes, Length, cancellationToken);

    /// <summary>
    /// Repairs the tables first, since clusters are found by them, then the clusters; then closes the gaps. Returns what is left.
    /// </summary>
    private async ValueTask<CheckReport> MendAsync(MetadataSession.Held held, RepairMode mode, CancellationToken cancellationToken)
    {
        CheckReport after = await CheckAsync(cancellationToken).ConfigureAwait(false);
        if (after.Corruptions > 0 && mode == RepairMode.All)
        {
            await RepairTablesAsync(held, cancellationToken).ConfigureAwait(false);
            await DropMisalignedAsync(held, cancellationToken).ConfigureAwait(false);
            _ = await _maintenance.RepairAsync(held, least: 0, cancellationToken).ConfigureAwait(false);
            after = await CheckAsync(cancellationToken).ConfigureAwait(false);
        }
        if (after.Corruptions == 0 && after.CheckErrors == 0)
        {
            await RequireSpaceAsync(held, cancellationToken).ConfigureAwait(false);
            if (after.Leaks > 0 && !_isOpening)
            {
                await Compactor.RunAsync(held, cancellationToken).ConfigureAwait(false);
            }
            if (Header.NeedsCheck)
            {
                await _tables.SetHeaderAsync(
                    held, Header with { Features = Header.Features & ~QedFeatures.NeedCheck }).ConfigureAwait(false);
                _isMarked = false;
            }
            after = await CheckAsync(cancellationToken).ConfigureAwait(false);
        }
        return after;
    }

    /// <summary>
    /// Drops tables that are not there, makes the file longer for one that was cut, and gives one that lies on something
    /// else a place of its own.
    /// </summary>
    private async ValueTask RepairTablesAsync(MetadataSession.Held held, CancellationToken cancellationToken)
    {
        List<FileRange> taken = [.. _layout.Structures];
        var homeless = new List<(int Index, long Place)>();
        long end = Round.Up(File.Length, AllocationUnit), bytes = Header.TableBytes;
        foreach ((int index, QedEntry table) in _tables.L1.Used().OrderBy(t => t.Entry.Value).ThenBy(t => t.Block).ToArray())
        {
            long place = (long)Math.Min(table.Value, long.MaxValue);
            if (place % AllocationUnit != 0 || place >= File.Length)
            {
                _tables.L1.Set(held, index, default);
            }
            else if (place < taken[^1].End || _layout.Structures.Any(s => s.Meets(place, place + bytes))) // in the order of places
            {
                homeless.Add((index, place));
            }
            else
            {
                taken.Add(new(place, place + bytes));
                end = Math.Max(end, place + bytes);
            }
        }
        StagedRepair.RequireFewCopies(File, homeless.Count, bytes);
        await File.ResizeAsync(end + (homeless.Count * bytes), cancellationToken: cancellationToken).ConfigureAwait(false);
        foreach ((int index, long place) in homeless)
        {
            cancellationToken.ThrowIfCancellationRequested();
            await StoredBytes.CopyAsync(File, place, end, bytes, CancellationToken.None).ConfigureAwait(false);
            _session.Order.DataWritten();
            _tables.MoveTable(held, index, end);
            end += bytes;
        }
        await _session.FlushAsync(held, CancellationToken.None).ConfigureAwait(false);
        await _tables.ReloadAsync(Header, cancellationToken).ConfigureAwait(false);
    }

    private async ValueTask DropMisalignedAsync(MetadataSession.Held held, CancellationToken cancellationToken)
    {
        var misaligned = new List<long>();
        await _layout.WalkAsync(
            (index, entry, _) =>
            {
                if (entry % (ulong)AllocationUnit != 0)
                {
                    misaligned.Add(index);
                }
            },
            cancellationToken).ConfigureAwait(false);
        foreach (long index in misaligned)
        {
            await _layout.DropAsync(held, index).ConfigureAwait(false);
        }
        await _session.FlushAsync(held, CancellationToken.None).ConfigureAwait(false);
    }
}
