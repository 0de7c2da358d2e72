using DiskImage.Block;

namespace DiskImage.Metadata;

/// <summary>
/// Tries the repair of a disk of blocks in a <see cref="StagedNode"/>, and makes it only if everything that could be read before reads the
/// same and the disk still opens, for writing as well if nothing is said to be wrong any more.
/// </summary>
/// <remarks>
/// The trial is a second disk on the staged file, so what the first knows of its file holds until the changes are made; then it reads the
/// file again. The comparison goes by blocks of the table that can be read, so its time follows the table and what the repair has touched.
/// What a repair copies is bounded by the file, too: a table may name one place a million times.
/// </remarks>
internal static class StagedRepair
{
    private const long LeastCopied = 64 << 20; // bytes that a repair may always copy. Ours

    /// <summary>Repairs a disk, and says what was found and what of it is put right.</summary>
    /// <param name="disk">The disk.</param>
    /// <param name="file">Its file.</param>
    /// <param name="mode">What may be repaired.</param>
    /// <param name="check">Writes what is left to write and checks the disk; called before and after.</param>
    /// <param name="bytes">Told of the progress of the check after.</param>
    /// <param name="cancellationToken">Stops it before anything is written.</param>
    public static async ValueTask<CheckReport> RunAsync(
        ITrialRepair disk,
        BlockNode file,
        RepairMode mode,
        Func<IProgress<long>?, CancellationToken, ValueTask<CheckReport>> check,
        IProgress<long>? bytes,
        CancellationToken cancellationToken)
    {
        CheckReport before = await check(null, cancellationToken).ConfigureAwait(false);
        if (await RunAsync(disk, file, mode, cancellationToken).ConfigureAwait(false) is { } why)
        {
            return Withdrawn(before, why);
        }
        CheckReport after = await check(bytes, cancellationToken).ConfigureAwait(false);
        return after.RepairedFrom(before);
    }

    /// <summary>Repairs a disk that has nothing left to write.</summary>
    /// <param name="disk">The disk.</param>
    /// <param name="file">Its file.</param>
    /// <param name="mode">What may be repaired.</param>
    /// <param name="cancellationToken">Stops it before anything is written.</param>
    /// <returns>Why nothing was changed; null if the repair was made, or nothing was to be done.</returns>
    public static async ValueTask<Wording?> RunAsync(
        ITrialRepair disk, BlockNode file, RepairMode mode, CancellationToken cancellationToken)
    {
        var staged = new StagedNode(file);
        await using (staged.ConfigureAwait(false))
        {
            CheckReport left;
            try
            {
                var lent = new BorrowedNode(staged, isReadOnly: false);
                BlockNode trial = await disk.OpenTrialAsync(lent, forRepair: true, cancellationToken).ConfigureAwait(false);
                await using (trial.ConfigureAwait(false))
                {
                    left = await ((ITrialRepair)trial).MendAsync(mode, cancellationToken).ConfigureAwait(false);
                }
            }
            catch (DiskImageException e) when (IsDamage(e))
            {
                return (Wording)$"it came to an end before it was done: {e.Wording}";
            }
            if (!staged.HasChanges)
            {
                return null;
            }
            bool isClean = left is { Corruptions: 0, CheckErrors: 0 };
            if (await LossAsync(disk, file, staged, isClean, cancellationToken).ConfigureAwait(false) is { } loss)
            {
                return loss;
            }
            await staged.CommitAsync().ConfigureAwait(false);
        }
        await disk.ReloadAsync(cancellationToken).ConfigureAwait(false);
        return null;
    }

    /// <summary>What was found, and that it stays: nothing was written.</summary>
    public static CheckReport Withdrawn(CheckReport found, Wording why) => found with
    {
        CheckErrors = found.CheckErrors + 1,
        Findings =
        [
            CheckFinding.Of(
                "RepairWithdrawn", CheckSeverity.Error, $"The repair was tried beside the image and not made: {why}. Nothing was changed."),
            .. found.Findings,
        ],
    };

    /// <summary>Refuses copies that would take far more than the file has.</summary>
    /// <exception cref="DiskImageException">Corrupt.</exception>
    public static void RequireFewCopies(BlockNode file, long blocks, long blockBytes)
    {
        long most = Math.Max(LeastCopied, file.Length);
        if (blocks > most / blockBytes)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Corrupt,
                $"{file.Name}: {blocks:#,0} blocks of {blockBytes:#,0} bytes lie on something else; copies of them would take more than the"
                    + $" {most:#,0} bytes that a repair of this file may add. Save what can be read with {new Remedy(RemedyKind.Convert)}",
                file.Name);
        }
    }

    private static async ValueTask<Wording?> LossAsync(
        ITrialRepair disk, BlockNode file, StagedNode staged, bool isClean, CancellationToken cancellationToken)
    {
        BlockNode Lent(BlockNode node) => new BorrowedNode(node, isReadOnly: true);
        (BlockNode? after, Wording? fault) = await TryOpenAsync(
            disk, Lent(staged), forRepair: false, cancellationToken).ConfigureAwait(false);
        if (after is null && !isClean && !await OpensAsync(disk, file, cancellationToken).ConfigureAwait(false))
        {
            (after, fault) = await TryOpenAsync(disk, Lent(staged), forRepair: true, cancellationToken).ConfigureAwait(false);
        }
        if (after is null)
        {
            return (Wording)$"the image could not be opened afterwards: {fault!}";
        }
        await using (after.ConfigureAwait(false))
        {
            BlockNode before = await disk.OpenTrialAsync(Lent(file), forRepair: true, cancellationToken).ConfigureAwait(false);
            await using (before.ConfigureAwait(false))
            {
                var comparison = new LayerComparison(before, after, staged, disk.Grain);
                foreach ((long start, long end) in await ((ITrialRepair)before).ReadableAsync(cancellationToken).ConfigureAwait(false))
                {
                    if (await comparison.FirstLossAsync(start, end, cancellationToken).ConfigureAwait(false) is long lost)
                    {
                        return (Wording)$"guest offset {lost:#,0} would not read as it does now";
                    }
                }
            }
        }
        return isClean && await WhyUnusableAsync(disk, staged, cancellationToken).ConfigureAwait(false) is { } why
            ? (Wording)$"the image could not be opened for writing afterwards: {why}"
            : null;
    }

    private static async ValueTask<bool> OpensAsync(ITrialRepair disk, BlockNode file, CancellationToken cancellationToken)
    {
        var lent = new BorrowedNode(file, isReadOnly: true);
        (BlockNode? now, _) = await TryOpenAsync(disk, lent, forRepair: false, cancellationToken).ConfigureAwait(false);
        if (now is null)
        {
            return false;
        }
        await now.DisposeAsync().ConfigureAwait(false);
        return true;
    }

    private static async ValueTask<Wording?> WhyUnusableAsync(ITrialRepair disk, BlockNode staged, CancellationToken cancellationToken)
    {
        var trial = new StagedNode(staged);
        await using (trial.ConfigureAwait(false))
        {
            var lent = new BorrowedNode(trial, isReadOnly: false);
            (BlockNode? opened, Wording? fault) = await TryOpenAsync(disk, lent, forRepair: false, cancellationToken).ConfigureAwait(false);
            if (opened is null)
            {
                return fault;
            }
            try
            {
                await using (opened.ConfigureAwait(false))
                {
                    await ((ITrialRepair)opened).RequireUsableAsync().ConfigureAwait(false);
                }
                return null;
            }
            catch (DiskImageException e) when (IsDamage(e))
            {
                return e.Wording;
            }
        }
    }

    private static async ValueTask<(BlockNode? Disk, Wording? Fault)> TryOpenAsync(
        ITrialRepair disk, BlockNode file, bool forRepair, CancellationToken cancellationToken)
    {
        try
        {
            return (await disk.OpenTrialAsync(file, forRepair, cancellationToken).ConfigureAwait(false), null);
        }
        catch (DiskImageException e) when (IsDamage(e))
        {
            return (null, e.Wording);
        }
    }

    private static bool IsDamage(DiskImageException e) => e.Kind is DiskImageErrorKind.Corrupt or DiskImageErrorKind.InvalidFormat;
}

/// <summary>Joins runs that follow each other.</summary>
internal sealed class RunList
{
    private readonly List<(long Start, long End)> _runs = [];

    /// <summary>The runs, in the order they came in.</summary>
    public IReadOnlyList<(long Start, long End)> Runs => _runs;

    /// <summary>Adds a run; an empty one is none.</summary>
    public void Add(long start, long end)
    {
        if (start >= end)
        {
            return;
        }
        if (_runs.Count > 0 && _runs[^1].End == start)
        {
            _runs[^1] = (_runs[^1].Start, end);
            return;
        }
        _runs.Add((start, end));
    }
}
