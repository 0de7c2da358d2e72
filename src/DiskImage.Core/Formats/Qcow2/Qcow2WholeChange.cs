using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Qcow2;

/// <summary>Changes that touch the counts of everything: all of them or nothing.</summary>
/// <remarks>
/// States. Marked: version 3 has the dirty bit, version 2 a header extension of ours that other programs pass over; opened for writing,
/// such an image is repaired first. Up to the commit, the one write of the header, refcounts are only raised, and the allocator keeps
/// account of it: a failure has the counts lowered again and the flags set, so that nothing is left of the attempt. Behind the commit
/// counts are lowered and flags set where they come down to one. Whatever of this fails is kept to be done again before anything relies on
/// it: at the next operation of this kind, before a check, on closing.
/// </remarks>
internal sealed class Qcow2WholeChange(Qcow2Disk disk)
{
    private readonly Qcow2L1Tables _l1Tables = new(disk);
    private bool _isChanging; // marked, and something is left to do before the mark may go

    private Qcow2RefcountAccount Account => disk.Refcounts.Account;

    /// <summary>Makes a change whose last step is a switch of the header. Everything must be settled.</summary>
    public async ValueTask RunAsync(MetadataSession.Held held, Func<ValueTask> commitAsync)
    {
        _isChanging = true;
        try
        {
            await disk.Mark.SetInChangeAsync(held, true).ConfigureAwait(false);
            Account.Keep();
            await commitAsync().ConfigureAwait(false);
            Account.Close();
        }
        catch
        {
            Account.Owe();
            await TryFinishAsync(held).ConfigureAwait(false);
            throw;
        }
        await TryFinishAsync(held).ConfigureAwait(false);
    }

    /// <summary>Does what is left to do after a change: nothing if there was none.</summary>
    public async ValueTask FinishAsync(MetadataSession.Held held)
    {
        if (!_isChanging)
        {
            return;
        }
        if (Account.Owes)
        {
            // the header may name the new tables: the old ones, before the new are given up
            await disk.Mark.SetInChangeAsync(held, true).ConfigureAwait(false);
            await Account.UndoAsync(held).ConfigureAwait(false);
        }
        await disk.FlushAsync(held, CancellationToken.None).ConfigureAwait(false);
        await _l1Tables.RefreshFlagsAsync(held).ConfigureAwait(false);
        await disk.Session.Order.FlushAsync(CancellationToken.None).ConfigureAwait(false);
        await disk.Mark.SetInChangeAsync(held, false).ConfigureAwait(false);
        _isChanging = false;
    }

    /// <summary>
    /// Does what is left to do after a change, done or not; if it fails it is kept to be done again, and what fails for good is reported
    /// then.
    /// </summary>
    private async ValueTask TryFinishAsync(MetadataSession.Held held)
    {
        try
        {
            await FinishAsync(held).ConfigureAwait(false);
        }
        catch (DiskImageException)
        {
            // _isChanging says so.
        }
    }
}
