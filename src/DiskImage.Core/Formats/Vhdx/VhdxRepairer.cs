using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Vhdx;

/// <summary>
/// Puts right what a check of a disk finds. It runs on the trial of a repair (see <see cref="StagedRepair"/>), whose opening for writing
/// has replayed the log already.
/// </summary>
internal sealed class VhdxRepairer(VhdxDisk disk, VhdxCompactor compactor)
{
    /// <summary>Repairs what the mode allows; returns what is left.</summary>
    public async ValueTask<CheckReport> RunAsync(MetadataSession.Held held, RepairMode mode, CancellationToken cancellationToken)
    {
        var checker = new VhdxChecker(disk, null, cancellationToken);
        CheckReport before = await checker.RunAsync().ConfigureAwait(false), after = before;
        bool hasLost = false;
        if (mode == RepairMode.All && (before.Corruptions > 0 || checker.Replacements.Count > 0))
        {
            await RepairAsync(held, checker, cancellationToken).ConfigureAwait(false);
            after = await CheckAgainAsync().ConfigureAwait(false);
            hasLost = checker.Replacements.Count > 0 || checker.Shared.Count > 0;
        }
        // Where an entry was wrong, the block that it meant may still be in what nothing refers to: that is left for the user to look at.
        if (!hasLost && after.Corruptions == 0 && after.Leaks > 0)
        {
            await disk.BeginAsync(held, isVisible: false).ConfigureAwait(false);
            _ = await disk.SpaceAsync(held).ConfigureAwait(false);
            await compactor.MoveDownAndCutAsync(held, cancellationToken).ConfigureAwait(false);
            after = await CheckAgainAsync().ConfigureAwait(false);
        }
        return after;

        ValueTask<CheckReport> CheckAgainAsync() => new VhdxChecker(disk, null, cancellationToken).RunAsync();
    }

    /// <summary>The runs of a disk whose entries in the BAT can stand.</summary>
    public static async ValueTask<IReadOnlyList<(long Start, long End)>> ReadableAsync(VhdxDisk disk, CancellationToken cancellationToken)
    {
        VhdxGeometry geometry = disk.Geometry;
        var runs = new RunList();
        var partial = new List<long>(); // blocks of the chunk at hand that need its bitmap
        await disk.Bat.EachPartAsync(
            disk.Bat.EntriesInUse, (first, entries) => Show(first, entries.Span), cancellationToken).ConfigureAwait(false);
        return runs.Runs;

        void Show(long index, ReadOnlySpan<byte> entries)
        {
            for (int at = 0; at < entries.Length; at += VhdxGeometry.EntryBytes, index++)
            {
                var entry = new BatEntry(LittleEndian.U64(entries, at));
                if (!geometry.IsInUse(index, disk.HasParent))
                {
                    continue;
                }
                if (geometry.IsBitmapIndex(index))
                {
                    if (entry.State == BlockState.FullyPresent && disk.IsPlace(entry.FileOffset, VhdxLayout.BitmapBlockSize))
                    {
                        partial.ForEach(Add);
                    }
                    partial.Clear();
                    continue;
                }
                long block = geometry.BlockAt(index);
                if (entry.State == BlockState.NotPresent || entry.ReadsZero)
                {
                    Add(block);
                }
                else if (entry.IsStored && disk.IsPlace(entry.FileOffset, geometry.BytesOf(block)))
                {
                    if (entry.State == BlockState.FullyPresent)
                    {
                        Add(block);
                    }
                    else if (disk.HasParent)
                    {
                        partial.Add(block);
                    }
                }
            }
        }

        void Add(long block) => runs.Add(geometry.StartOf(block), geometry.StartOf(block) + geometry.BytesOf(block));
    }

    private async ValueTask RepairAsync(MetadataSession.Held held, VhdxChecker checker, CancellationToken cancellationToken)
    {
        bool isVisible = checker.Replacements.Count > 0 || disk.LostLog is not null;
        await disk.BeginAsync(held, isVisible).ConfigureAwait(false); // writes both headers, and empties a lost log
        disk.ForgetLostLog(held);
        if (checker.HasRegionFault)
        {
            await disk.WriteRegionsAsync(held, disk.Regions).ConfigureAwait(false);
        }
        foreach ((long index, BatEntry instead) in checker.Replacements)
        {
            await disk.Bat.SetAsync(held, index, instead).ConfigureAwait(false);
        }
        await disk.Session.FlushAsync(held, cancellationToken).ConfigureAwait(false);
        disk.Session.Space = null;
        if (checker.Shared.Count == 0)
        {
            return;
        }
        StagedRepair.RequireFewCopies(disk.File, checker.Shared.Count, disk.Geometry.BlockSize);
        _ = await disk.SpaceAsync(held, isStrict: false, CancellationToken.None).ConfigureAwait(false);
        foreach (long index in checker.Shared)
        {
            BatEntry entry = await disk.Bat.EntryAsync(index, cancellationToken).ConfigureAwait(false);
            if (entry.IsStored)
            {
                HostOffset place = await disk.AllocateAsync(held, disk.Geometry.BlockSize).ConfigureAwait(false);
                int length = disk.Geometry.BytesOf(disk.Geometry.BlockAt(index));
                await StoredBytes.CopyAsync(disk.File, entry.FileOffset, place.Value, length, cancellationToken).ConfigureAwait(false);
                await disk.Bat.SetAsync(held, index, new BatEntry(entry.State, place)).ConfigureAwait(false);
            }
        }
        await disk.Session.FlushAsync(held, cancellationToken).ConfigureAwait(false);
        disk.Session.Space = null; // made anew, strictly, when it is next needed
    }
}
