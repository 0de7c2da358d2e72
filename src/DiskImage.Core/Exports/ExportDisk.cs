using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Protocols.Nbd;

namespace DiskImage.Exports;

/// <summary>A disk as it is to be served, and what became of it since: every member may be asked while it is served.</summary>
/// <param name="name">By which clients ask for it.</param>
/// <param name="node">The disk. It is not closed by the server.</param>
public sealed class ExportDisk(string name, BlockNode node)
{
    private long _read, _written, _errors, _requests;
    private int _clients;

    /// <summary>By which clients ask for it.</summary>
    public string Name { get; } = name;

    /// <summary>The disk.</summary>
    public BlockNode Node { get; private set; } = node;

    /// <summary>What is told of it to people.</summary>
    public string? Description { get; init; }

    /// <summary>Nobody may change it.</summary>
    public bool IsReadOnly { get; init; }

    /// <summary>Clients at a time at most; 0 for any number.</summary>
    public int Share { get; init; }

    /// <summary>Bitmaps of the image that block status can tell of, as they are when serving begins.</summary>
    public IReadOnlyList<string> Bitmaps { get; init; } = [];

    /// <summary>
    /// The drivers by which the disk was found to be raw, since nobody said so: it never becomes anything else then (QEMU's rule). Null
    /// where the format was said, or is another.
    /// </summary>
    public DriverRegistry? ProbedBy { get; init; }

    /// <summary>What block status can tell of.</summary>
    public IReadOnlyList<string> Contexts
        => [NbdWire.AllocationContext, NbdWire.DepthContext, .. Bitmaps.Select(b => NbdWire.BitmapContext + b)];

    /// <summary>Clients that have it now.</summary>
    public int Clients => Volatile.Read(ref _clients);

    /// <summary>Bytes that clients have read.</summary>
    public long BytesRead => Interlocked.Read(ref _read);

    /// <summary>Bytes that clients have written.</summary>
    public long BytesWritten => Interlocked.Read(ref _written);

    /// <summary>Requests that were answered.</summary>
    public long Requests => Interlocked.Read(ref _requests);

    /// <summary>Requests that failed, and clients that were cut off.</summary>
    public long Errors => Interlocked.Read(ref _errors);

    /// <summary>What is dirty, by the names of bitmaps.</summary>
    internal Dictionary<string, IReadOnlyList<(long Offset, long Length)>> Dirty { get; } = new(StringComparer.Ordinal);

    /// <summary>As clients are offered it.</summary>
    internal NbdOffer Offer { get; private set; } = null!;

    /// <summary>Serves only a part of it.</summary>
    /// <exception cref="DiskImageException">OutOfRange: there is no such part.</exception>
    public void Narrow(long offset, long? length)
    {
        long room = Node.Length - offset;
        if (offset < 0 || room < 0 || length < 0 || length > room)
        {
            throw new DiskImageException(
                DiskImageErrorKind.OutOfRange,
                $"{Node.Name}: offset {offset:#,0} and length {length ?? room:#,0} reach outside its {Node.Length:#,0} bytes",
                Node.Name);
        }
        Node = new RangeNode(Node, offset, length ?? room);
    }

    /// <summary>Reads its bitmaps and settles what is offered.</summary>
    /// <exception cref="DiskImageException">NotFound, or InvalidOption: a bitmap that is not there, or changes meanwhile.</exception>
    internal async ValueTask PrepareAsync(CancellationToken cancellationToken)
    {
        foreach (string bitmap in Bitmaps)
        {
            Dirty[bitmap] = await DirtyRangesAsync(bitmap, cancellationToken).ConfigureAwait(false);
        }
        if (ProbedBy is { } registry && !IsReadOnly)
        {
            Node = new GuardedRawNode(Node, registry);
        }
        NbdExportFlags flags = NbdExportFlags.HasFlags | NbdExportFlags.SendFlush | NbdExportFlags.SendFua | NbdExportFlags.SendCache
            | NbdExportFlags.SendDontFragment;
        flags |= IsReadOnly || Node.IsReadOnly
            ? NbdExportFlags.ReadOnly
            : NbdExportFlags.SendTrim | NbdExportFlags.SendWriteZeroes | NbdExportFlags.SendFastZero;
        Offer = new NbdOffer
        {
            Name = Name,
            Description = Description,
            Length = Node.Length,
            // all clients have one node, so what one wrote another reads, and a flush is for all
            Flags = Share == 1 ? flags : flags | NbdExportFlags.CanMultiConnect,
            PreferredBlock = Math.Clamp(
                System.Numerics.BitOperations.IsPow2(Node.Limits.AllocationUnit) ? Node.Limits.AllocationUnit : 4096, 4096, 1 << 20),
            Contexts = Contexts,
        };
    }

    /// <summary>Takes a client on; why not, if it is one too many.</summary>
    internal string? TryEnter()
    {
        int clients = Interlocked.Increment(ref _clients);
        if (Share == 0 || clients <= Share)
        {
            return null;
        }
        Leave();
        return $"it has {Share} clients already, which is all it may have";
    }

    /// <summary>A client is gone.</summary>
    internal void Leave() => Interlocked.Decrement(ref _clients);

    /// <summary>Counts a request.</summary>
    internal void Count(long read, long written, bool isError)
    {
        _ = Interlocked.Add(ref _read, read);
        _ = Interlocked.Add(ref _written, written);
        _ = Interlocked.Increment(ref _requests);
        _ = isError ? Interlocked.Increment(ref _errors) : 0;
    }

    private async ValueTask<IReadOnlyList<(long Offset, long Length)>> DirtyRangesAsync(
        string bitmap, CancellationToken cancellationToken)
    {
        IBitmapList holder = Node.As<IBitmapList>() ?? throw new DiskImageException(
            DiskImageErrorKind.Unsupported, $"{Node.Name}: has no bitmaps", Node.Name);
        DiskBitmap found = (await holder.GetBitmapsAsync(cancellationToken).ConfigureAwait(false)).FirstOrDefault(
            b => b.Name.Equals(bitmap, StringComparison.Ordinal))
            ?? throw new DiskImageException(DiskImageErrorKind.NotFound, $"{Node.Name}: has no bitmap '{bitmap}'", Node.Name);
        return found.IsEnabled && !IsReadOnly
            ? throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"{Node.Name}: the bitmap '{bitmap}' records what is written, so it changes while it is served. Disable it, or serve the "
                    + "disk for reading only.",
                Node.Name)
            : await holder.GetDirtyRangesAsync(bitmap, cancellationToken).ConfigureAwait(false);
    }

    /// <summary>A run of a disk as a disk.</summary>
    private sealed class RangeNode(BlockNode disk, long start, long length) : LinearFormatNode(disk, start)
    {
        public override long Length => length;

        protected override bool OwnsChildren => false;
    }
}
