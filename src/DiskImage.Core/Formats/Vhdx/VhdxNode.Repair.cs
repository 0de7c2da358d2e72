using DiskImage.Block;

namespace DiskImage.Formats.Vhdx;

/// <summary>Putting right what a check finds. Opening for writing has replayed the log already.</summary>
internal sealed partial class VhdxNode : IRepairable
{
    /// <summary>Why the log could not be replayed; null if it could, or was empty.</summary>
    internal string? LostLog { get; private set; }

    public ValueTask<CheckReport> RepairAsync(RepairMode mode, IProgress<long>? bytes, CancellationToken cancellationToken) => AloneAsync(async () =>
    {
        RequireWritable();
        await UnderGateAsync(() => FlushLockedAsync(cancellationToken)).ConfigureAwait(false);
        var checker = new VhdxChecker(File, this, bytes, cancellationToken);
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
        return after with
        {
            CorruptionsFixed = Math.Max(0, before.Corruptions - after.Corruptions),
            LeaksFixed = Math.Max(0, before.Leaks - after.Leaks),
        };

        async ValueTask<CheckReport> CheckAgainAsync() => await new VhdxChecker(File, this, null, cancellationToken).RunAsync().ConfigureAwait(false);
    });

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
