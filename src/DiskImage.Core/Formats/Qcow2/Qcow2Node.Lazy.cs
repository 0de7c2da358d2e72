namespace DiskImage.Formats.Qcow2;

/// <summary>Lazy refcounts. Spec: qcow2, "Dirty bit", "Lazy refcounts bit".</summary>
/// <remarks>
/// Before the first change the image is marked dirty, and from then on the refcounts are not written before the tables that rely on
/// them: a flush has one barrier less. They reach the file when the cache needs room, and all of them when the image is closed, or
/// before anything that reads them from the file; then the mark goes. After a crash the mark has the refcounts built anew on opening.
/// </remarks>
internal sealed partial class Qcow2Node
{
    private const int RefcountStores = 2; // refcount blocks and refcount table, the first that are declared

    private bool _isUnfinished; // marked dirty for another reason

    private bool MustPostpone => _order.Postponed == 0 && (_lazyOption ?? (_header.Compatible & Qcow2Compatible.LazyRefcounts) != 0);

    private async ValueTask PostponeRefcountsAsync()
    {
        if (!_header.Has(Qcow2Incompatible.Dirty))
        {
            await UpdateHeaderAsync(_header with { Incompatible = _header.Incompatible | Qcow2Incompatible.Dirty }).ConfigureAwait(false);
        }
        _order.Postponed = RefcountStores;
    }

    /// <summary>Makes everything durable, the refcounts included.</summary>
    private async ValueTask SettleRefcountsAsync(CancellationToken cancellationToken)
    {
        await FinishChangeAsync().ConfigureAwait(false);
        bool isMarked = _order.Postponed > 0;
        _order.Postponed = 0;
        await FlushLockedAsync(cancellationToken).ConfigureAwait(false);
        if (isMarked && !_isUnfinished)
        {
            await _order.FlushAsync(cancellationToken).ConfigureAwait(false); // what the flush before gave back
            await UpdateHeaderAsync(_header with { Incompatible = _header.Incompatible & ~Qcow2Incompatible.Dirty }).ConfigureAwait(false);
        }
    }
}
