using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Vhdx;

/// <summary>Putting right what a check finds. Opening for writing has replayed the log already.</summary>
internal sealed partial class VhdxNode : IRepairable, ITrialRepair
{
    /// <summary>Why the log could not be replayed; null if it could, or was empty.</summary>
    internal string? LostLog { get; private set; }

    /// <summary>Everything is tried beside the file first: see <see cref="StagedRepair"/>.</summary>
    public ValueTask<CheckReport> RepairAsync(RepairMode mode, IProgress<long>? bytes, CancellationToken cancellationToken) => AloneAsync(async () =>
    {
        RequireWritable();
        await UnderGateAsync(async () =>
        {
            await FlushLockedAsync(cancellationToken).ConfigureAwait(false);
            await EndAsync().ConfigureAwait(false);
        }).ConfigureAwait(false);
        CheckReport before = await new VhdxChecker(File, this, null, cancellationToken).RunAsync().ConfigureAwait(false);
        if (await StagedRepair.RunAsync(this, File, mode, cancellationToken).ConfigureAwait(false) is { } why)
        {
            return StagedRepair.Withdrawn(before, why);
        }
        CheckReport after = await new VhdxChecker(File, this, bytes, cancellationToken).RunAsync().ConfigureAwait(false);
        return after with
        {
            CorruptionsFixed = Math.Max(0, before.Corruptions - after.Corruptions),
            LeaksFixed = Math.Max(0, before.Leaks - after.Leaks),
        };
    });

    long ITrialRepair.Grain => _geometry.BlockSize;

    async ValueTask<BlockNode> ITrialRepair.OpenTrialAsync(BlockNode file, bool forRepair, CancellationToken cancellationToken)
    {
        VhdxImage image = await VhdxImage.ReadAsync(file, _options.DiscardLog || forRepair, forRepair, cancellationToken).ConfigureAwait(false);
        return await OpenAsync(file, backing: null, image, _options, cancellationToken).ConfigureAwait(false);
    }

    async ValueTask<CheckReport> ITrialRepair.MendAsync(RepairMode mode, CancellationToken cancellationToken)
    {
        var checker = new VhdxChecker(File, this, null, cancellationToken);
        CheckReport before = await checker.RunAsync().ConfigureAwait(false), after = before;
        bool hasLost = false;
        if (mode == RepairMode.All && (before.Corruptions > 0 || checker.Replacements.Count > 0))
        {
            await UnderGateAsync(() => RepairLockedAsync(checker, cancellationToken)).ConfigureAwait(false);
            after = await CheckAgainAsync().ConfigureAwait(false);
            hasLost = checker.Replacements.Count > 0 || checker.Shared.Count > 0;
        }
        // Where an entry was wrong, the block that it meant may still be in what nothing refers to: that is left for the user to look at.
        if (!hasLost && after.Corruptions == 0 && after.Leaks > 0)
        {
            await UnderGateAsync(async () =>
            {
                await BeginAsync(isVisible: false).ConfigureAwait(false);
                _ = await SpaceAsync().ConfigureAwait(false);
            }).ConfigureAwait(false);
            await MoveDownAndCutAsync(cancellationToken).ConfigureAwait(false);
            after = await CheckAgainAsync().ConfigureAwait(false);
        }
        return after;

        async ValueTask<CheckReport> CheckAgainAsync() => await new VhdxChecker(File, this, null, cancellationToken).RunAsync().ConfigureAwait(false);
    }

    async ValueTask<IReadOnlyList<(long Start, long End)>> ITrialRepair.ReadableAsync(CancellationToken cancellationToken)
    {
        var runs = new RunList();
        var partial = new List<long>(); // blocks of the chunk at hand that need its bitmap
        await EachBatPartAsync(EntriesInUse, (first, entries) => Show(first, entries.Span), cancellationToken).ConfigureAwait(false);
        return runs.Runs;

        void Show(long index, ReadOnlySpan<byte> entries)
        {
            for (int at = 0; at < entries.Length; at += VhdxGeometry.EntryBytes, index++)
            {
                var entry = new BatEntry(LittleEndian.U64(entries, at));
                if (!_geometry.IsInUse(index, _metadata.HasParent))
                {
                    continue;
                }
                if (_geometry.IsBitmapIndex(index))
                {
                    if (entry.State == BlockState.FullyPresent && IsPlace(entry.FileOffset, VhdxLayout.BitmapBlockSize))
                    {
                        partial.ForEach(Add);
                    }
                    partial.Clear();
                    continue;
                }
                long block = _geometry.BlockAt(index);
                if (entry.State is BlockState.NotPresent or BlockState.Zero or BlockState.Unmapped or BlockState.UnmappedOld or BlockState.Undefined)
                {
                    Add(block);
                }
                else if (entry.IsStored && IsPlace(entry.FileOffset, _geometry.BytesOf(block)))
                {
                    if (entry.State == BlockState.FullyPresent)
                    {
                        Add(block);
                    }
                    else if (_metadata.HasParent)
                    {
                        partial.Add(block);
                    }
                }
            }
        }

        void Add(long block) => runs.Add(_geometry.StartOf(block), _geometry.StartOf(block) + _geometry.BytesOf(block));
    }

    ValueTask ITrialRepair.RequireUsableAsync() => UnderGateAsync(async () => _ = await SpaceAsync().ConfigureAwait(false));

    ValueTask ITrialRepair.ReloadAsync(CancellationToken cancellationToken) => UnderGateAsync(async () =>
    {
        VhdxImage image = await VhdxImage.ReadAsync(File, discardLog: true, forRepair: true, cancellationToken).ConfigureAwait(false);
        (_header, _headerIndex, _regions, _metadata, LostLog) = (image.Headers.Current, image.Headers.CurrentIndex, image.Regions, image.Metadata, image.LostLog);
        _geometry = new VhdxGeometry(_metadata.BlockSize, _metadata.LogicalSectorSize, _metadata.VirtualSize);
        _cache.Clear();
        _space = null;
    });

    private bool IsPlace(long offset, long length)
        => offset >= VhdxLayout.MiB && offset <= File.Length - length && StructureAt(offset, length) is null;

    private async ValueTask RepairLockedAsync(VhdxChecker checker, CancellationToken cancellationToken)
    {
        bool isVisible = checker.Replacements.Count > 0 || LostLog is not null;
        await BeginAsync(isVisible).ConfigureAwait(false); // writes both headers, and empties a lost log
        LostLog = null;
        if (checker.HasRegionFault)
        {
            var patch = new VhdxPatch(File);
            for (int i = 0; i < 2; i++)
            {
                await patch.PutAsync(VhdxRegionTable.PlaceOf(i), _regions.Bytes).ConfigureAwait(false);
            }
            await _log!.WriteAsync(patch.Updates).ConfigureAwait(false);
        }
        foreach ((long index, BatEntry instead) in checker.Replacements)
        {
            await SetEntryAsync(index, instead).ConfigureAwait(false);
        }
        await FlushLockedAsync(cancellationToken).ConfigureAwait(false);
        _space = null;
        if (checker.Shared.Count == 0)
        {
            return;
        }
        StagedRepair.RequireFewCopies(File, checker.Shared.Count, _geometry.BlockSize);
        _space = await MapSpaceAsync(isStrict: false).ConfigureAwait(false);
        foreach (long index in checker.Shared)
        {
            BatEntry entry = await EntryAsync(index, cancellationToken).ConfigureAwait(false);
            if (entry.IsStored)
            {
                long place = await AllocateAsync(_geometry.BlockSize).ConfigureAwait(false);
                await CopyAsync(entry.FileOffset, place, _geometry.BytesOf(_geometry.BlockAt(index)), cancellationToken).ConfigureAwait(false);
                await SetEntryAsync(index, new BatEntry(entry.State, place)).ConfigureAwait(false);
            }
        }
        await FlushLockedAsync(cancellationToken).ConfigureAwait(false);
        _space = null; // made anew, strictly, when it is next needed
    }
}
