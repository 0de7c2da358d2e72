using DiskImage.Block;

namespace DiskImage.Formats.Qcow2;

/// <summary>Changes that touch the counts of everything: all of them or nothing.</summary>
/// <remarks>
/// States. Marked: version 3 has the dirty bit, version 2 a header extension of ours that other programs pass over; opened for writing, such
/// an image is repaired first. Up to the commit, the one write of the header, refcounts are only raised, and the allocator keeps account of
/// it: a failure has the counts lowered again and the flags set, so that nothing is left of the attempt. Behind the commit counts are lowered
/// and flags set where they come down to one. Whatever of this fails is kept to be done again before anything relies on it: at the next
/// operation of this kind, before a check, on closing.
/// </remarks>
internal sealed partial class Qcow2Node
{
    private bool _isChanging; // marked, and something is left to do before the mark may go. Under the gate

    /// <summary>Makes a change whose last step is a switch of the header. Everything must be settled.</summary>
    private async ValueTask ChangeWholeAsync(Func<ValueTask> commitAsync)
    {
        _isChanging = true;
        try
        {
            await MarkAsync(true).ConfigureAwait(false);
            _refcounts.KeepAccount();
            await commitAsync().ConfigureAwait(false);
            _refcounts.CloseAccount();
        }
        catch
        {
            _refcounts.OweAccount();
            await TryFinishChangeAsync().ConfigureAwait(false);
            throw;
        }
        await TryFinishChangeAsync().ConfigureAwait(false);
    }

    /// <summary>Does what is left to do after a change, done or not; if it fails it is kept to be done again, and what fails for good is reported then.</summary>
    private async ValueTask TryFinishChangeAsync()
    {
        try
        {
            await FinishChangeAsync().ConfigureAwait(false);
        }
        catch (DiskImageException)
        {
            // _isChanging says so.
        }
    }

    /// <summary>Does what is left to do after a change: nothing if there was none.</summary>
    private async ValueTask FinishChangeAsync()
    {
        if (!_isChanging)
        {
            return;
        }
        if (_refcounts.Owes)
        {
            await MarkAsync(true).ConfigureAwait(false); // the header may name the new tables: the old ones, before the new are given up
            await _refcounts.UndoAsync().ConfigureAwait(false);
        }
        await FlushLockedAsync(CancellationToken.None).ConfigureAwait(false);
        await RefreshFlagsAsync().ConfigureAwait(false);
        await _order.FlushAsync(CancellationToken.None).ConfigureAwait(false);
        await MarkAsync(false).ConfigureAwait(false);
        _isChanging = false;
    }

    /// <summary>
    /// Sets or clears the mark of an image in the middle of a change. The header is written in any case: after a failure nobody knows what
    /// the file has.
    /// </summary>
    private async ValueTask MarkAsync(bool marked)
    {
        if (_header.Version >= 3)
        {
            bool isDirty = marked || _isUnfinished || _order.Postponed > 0;
            Qcow2Incompatible flags = isDirty ? _header.Incompatible | Qcow2Incompatible.Dirty : _header.Incompatible & ~Qcow2Incompatible.Dirty;
            await UpdateHeaderAsync(_header with { Incompatible = flags }).ConfigureAwait(false);
            return;
        }
        Qcow2Extension[] others = [.. _header.Extensions.Where(e => e.Type != Qcow2Extension.InChange)];
        Qcow2Header header = _header with { Extensions = marked ? [.. others, new(Qcow2Extension.InChange, [])] : others };
        await SwitchHeaderAsync(header.Fits ? header : _header).ConfigureAwait(false); // clusters of 512 bytes may have no room for it
    }
}
