using DiskImage.Block;

namespace DiskImage.Metadata;

/// <summary>
/// The order in which the cached metadata of one image reaches its file. Stores are declared once, from the bottom up ("refcounts
/// before L2 tables"); whoever writes, everything declared before it is written first, with a flush between.
/// </summary>
/// <remarks>
/// Only additions need an order here. Removals are the owner's: it gives space back only after the flush that made the removal
/// durable. So no two stores ever wait for each other. Not thread-safe: the image's metadata lock guards it.
/// </remarks>
internal sealed class WriteOrder(BlockNode file)
{
    private const int Nothing = int.MaxValue, Data = -1;

    private readonly List<MetadataStore> _stores = [];
    private int _unflushed = Nothing; // lowest rank written since the last flush of the file

    /// <summary>The file that the stores write to.</summary>
    public BlockNode File { get; } = file;

    /// <summary>Told what is about to be done with the file; null where nobody listens, as almost always.</summary>
    public IDebugEvents? Debug { get; } = file.As<IDebugEvents>();

    /// <summary>Where guest data goes, if not to <see cref="File"/>.</summary>
    public BlockNode? DataFile { get; init; }

    /// <summary>
    /// Stores of a lower rank are left out: somebody has marked the image so that they are made anew after a crash. To bring them to
    /// the file, set this to 0 and flush.
    /// </summary>
    public int Postponed { get; set; }

    /// <summary>Declares the next store; returns its rank.</summary>
    public int Add(MetadataStore store)
    {
        _stores.Add(store);
        return _stores.Count - 1;
    }

    /// <summary>Guest data that metadata is about to point to, and that must not be lost behind it, was written.</summary>
    public void DataWritten() => _unflushed = Data;

    /// <summary>Tells whoever listens what is about to be done with the file.</summary>
    public ValueTask TellAsync(DebugEvent what) => Debug.TellAsync(what);

    /// <summary>Called before a store writes: brings everything below it to the disk.</summary>
    public async ValueTask BeforeAsync(int rank)
    {
        for (int below = Postponed; below < rank; below++)
        {
            await _stores[below].WriteBackAsync().ConfigureAwait(false);
        }
        if (_unflushed == Data)
        {
            await FlushDataAsync(CancellationToken.None).ConfigureAwait(false);
        }
        if (_unflushed < rank)
        {
            await File.FlushAsync().ConfigureAwait(false);
            _unflushed = Nothing;
        }
    }

    /// <summary>
    /// Makes guest data durable that is in a file of its own. If that fails, some of it may be lost, and nobody knows what: then nothing is
    /// written to <see cref="File"/> any more, since the changed tables in memory may point there.
    /// </summary>
    public async ValueTask FlushDataAsync(CancellationToken cancellationToken)
    {
        if (DataFile is null)
        {
            return;
        }
        try
        {
            await DataFile.FlushAsync(cancellationToken).ConfigureAwait(false);
        }
        catch (DiskImageException e)
        {
            File.BreakWriting(e);
            throw;
        }
    }

    /// <summary>A store has written.</summary>
    public void Wrote(int rank) => _unflushed = Math.Min(_unflushed, rank);

    /// <summary>Writes back every store in order; does not flush the file at the end.</summary>
    public async ValueTask WriteBackAsync()
    {
        for (int rank = Postponed; rank < _stores.Count; rank++)
        {
            await _stores[rank].WriteBackAsync().ConfigureAwait(false);
        }
    }

    /// <summary>Writes back every store in order and makes all of it durable.</summary>
    public async ValueTask FlushAsync(CancellationToken cancellationToken)
    {
        await WriteBackAsync().ConfigureAwait(false);
        await TellAsync(DebugEvent.FlushToDisk).ConfigureAwait(false);
        await File.FlushAsync(cancellationToken).ConfigureAwait(false);
        _unflushed = Nothing;
    }
}

/// <summary>Metadata kept in memory, with its changes not yet in the file.</summary>
internal abstract class MetadataStore
{
    private readonly WriteOrder _order;
    private readonly int _rank;

    protected MetadataStore(WriteOrder order) => (_order, _rank) = (order, order.Add(this));

    /// <summary>The file the metadata lives in.</summary>
    protected BlockNode File => _order.File;

    /// <summary>What reading some of it is called, and writing some of it; none where nobody is told.</summary>
    public (DebugEvent Load, DebugEvent Update) Events { get; init; }

    /// <summary>True if there is something to write.</summary>
    public abstract bool IsDirty { get; }

    /// <summary>Writes every change, after whatever must come before it. What fails to be written stays to be written.</summary>
    public async ValueTask WriteBackAsync()
    {
        if (IsDirty)
        {
            await _order.BeforeAsync(_rank).ConfigureAwait(false);
            _order.Wrote(_rank);
            await WriteDirtyAsync().ConfigureAwait(false);
        }
    }

    /// <summary>Tells whoever listens that some of it is about to be read, or written.</summary>
    protected ValueTask TellAsync(DebugEvent what) => _order.TellAsync(what);

    /// <summary>Writes every change.</summary>
    protected abstract ValueTask WriteDirtyAsync();
}
