using DiskImage.Metadata;

namespace DiskImage.Formats.Qcow2;

/// <summary>
/// The bit that has an image's refcounts counted anew, and who needs it set. Spec: qcow2, "Dirty bit", "Lazy refcounts bit".
/// </summary>
/// <remarks>
/// <para>Lazy refcounts. Before the first change the image is marked dirty, and from then on the refcounts are not written before the
/// tables that rely on them: a flush has one barrier less. They reach the file when the cache needs room, and all of them when the image is
/// closed, or before anything that reads them from the file; then the mark goes. After a crash the mark has the refcounts built anew on
/// opening.</para>
/// <para>The others who need it: an image that is not complete yet, and one in the middle of a change of everything
/// (<see cref="Qcow2WholeChange"/>). What is to be done before the mark may go is kept here until it is done, whatever fails or is
/// cancelled on the way; so it is done on closing at the latest.</para>
/// </remarks>
internal sealed class Qcow2DirtyMark(Qcow2Disk disk, bool? lazyOption)
{
    private const int RefcountStores = 2; // refcount blocks and refcount table, the first that are declared

    private bool _isUnfinished;
    private bool _isLate; // marked for refcounts that may be late; until they are there and the mark is gone

    /// <summary>True if refcounts are to be late and are not yet.</summary>
    public bool MustPostpone
        => disk.Session.Order.Postponed == 0 && (lazyOption ?? (disk.Header.Compatible & Qcow2Compatible.LazyRefcounts) != 0);

    /// <summary>Marks the image, and lets its refcounts be late.</summary>
    public async ValueTask PostponeAsync(MetadataSession.Held held)
    {
        _isLate = true;
        if (!disk.Header.Has(Qcow2Incompatible.Dirty))
        {
            await WriteAsync(held, isDirty: true).ConfigureAwait(false);
        }
        disk.Session.Order.Postponed = RefcountStores;
    }

    /// <summary>Makes everything durable, the refcounts included, and finishes a change that was not.</summary>
    public async ValueTask SettleAsync(MetadataSession.Held held, CancellationToken cancellationToken)
    {
        await disk.Change.FinishAsync(held).ConfigureAwait(false);
        disk.Session.Order.Postponed = 0;
        await disk.FlushAsync(held, cancellationToken).ConfigureAwait(false);
        if (_isLate && !_isUnfinished)
        {
            await disk.Session.Order.FlushAsync(cancellationToken).ConfigureAwait(false); // what the flush before gave back
            await WriteAsync(held, isDirty: false).ConfigureAwait(false);
        }
        _isLate = false;
    }

    /// <summary>Sets or clears the mark of an image that is not complete.</summary>
    public async ValueTask SetUnfinishedAsync(MetadataSession.Held held, bool unfinished, CancellationToken cancellationToken)
    {
        if (disk.Header.Version < 3)
        {
            return;
        }
        _isUnfinished = unfinished;
        if (!unfinished)
        {
            await SettleAsync(held, cancellationToken).ConfigureAwait(false);
        }
        await WriteAsync(held, isDirty: unfinished).ConfigureAwait(false);
    }

    /// <summary>
    /// Sets or clears the mark of an image in the middle of a change; version 2 has a header extension of ours for it. The header is
    /// written in any case: after a failure nobody knows what the file has.
    /// </summary>
    public async ValueTask SetInChangeAsync(MetadataSession.Held held, bool marked)
    {
        if (disk.Header.Version >= 3)
        {
            await WriteAsync(held, marked || _isUnfinished || _isLate).ConfigureAwait(false);
            return;
        }
        Qcow2Extension[] others = [.. disk.Header.Extensions.Where(e => e.Type != Qcow2Extension.InChange)];
        Qcow2Header header = disk.Header with { Extensions = marked ? [.. others, new(Qcow2Extension.InChange, [])] : others };
        // clusters of 512 bytes may have no room for it
        await disk.SwitchHeaderAsync(held, header.Fits ? header : disk.Header).ConfigureAwait(false);
    }

    private ValueTask WriteAsync(MetadataSession.Held held, bool isDirty)
    {
        Qcow2Incompatible others = disk.Header.Incompatible & ~Qcow2Incompatible.Dirty;
        return disk.UpdateHeaderAsync(held, disk.Header with { Incompatible = isDirty ? others | Qcow2Incompatible.Dirty : others });
    }
}
