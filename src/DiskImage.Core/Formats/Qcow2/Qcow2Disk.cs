using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Qcow2;

/// <summary>
/// What an open qcow2 image is made of: header, refcounts, tables, bitmaps, the session that keeps them in step, and what surrounds every
/// change of it. Spec: qcow2.
/// </summary>
/// <remarks>
/// <para>The session's lock guards all of it, and is held for look-ups and updates in memory and for the metadata I/O they cause, never for
/// guest data, except while the image is compacted.</para>
/// <para>Order of writes: refcount blocks, refcount table, L2 tables, L1 table, each behind a flush of the former. What loses its last
/// reference is given back after a flush. So a crash leaks space at most.</para>
/// </remarks>
internal sealed class Qcow2Disk
{
    private readonly Qcow2OpenOptions _options;
    private readonly long _lengthAtOpen;

    /// <summary>Of an image whose header is checked; nothing is read yet.</summary>
    public Qcow2Disk(
        BlockNode file, BlockNode? dataFile, BlockNode? backing, Qcow2Header header, Qcow2OpenOptions options, Qcow2Encryption? encryption)
    {
        Encryption = encryption;
        (File, DataNode, Backing, Header, _options, _lengthAtOpen) = (file, dataFile ?? file, backing, header, options, file.Length);
        (IsExternal, RequiresAll) = (dataFile is not null, options.MissingClusters == Qcow2MissingClusters.Error);
        Geometry = new Qcow2Geometry(header);
        Session = new MetadataSession(
            file, FlushStoresAsync, options.Discard == Qcow2DiscardMode.Unmap ? null : static (_, _) => default, dataFile);
        Guard = new Qcow2Guard(file.Name, Geometry, options.OverlapCheck);
        Allocator = new Qcow2Allocator(this);
        (long tables, long refcounts) = options.Caches();
        Refcounts = new Qcow2Refcounts(this, refcounts); // before the tables: the order of the writes
        Tables = new Qcow2Tables(this, tables);
        Extents = new Qcow2Extents(this);
        Writer = new Qcow2Writer(this);
        Eraser = new Qcow2Eraser(this);
        Compressed = new Qcow2CompressedClusters(this);
        Mark = new Qcow2DirtyMark(this, options.LazyRefcounts);
        Change = new Qcow2WholeChange(this);
        Bitmaps = new Qcow2BitmapStorage(this);
    }

    public BlockNode File { get; }

    /// <summary>Where guest data is: the external data file, or the image's own.</summary>
    public BlockNode DataNode { get; }

    public BlockNode? Backing { get; }

    /// <summary>What the data is encrypted with; null for nothing, or where only places are looked at.</summary>
    public Qcow2Encryption? Encryption { get; }

    public string Name => File.Name;

    public bool IsReadOnly => File.IsReadOnly;

    public MetadataSession Session { get; }

    public Qcow2Guard Guard { get; }

    public Qcow2Allocator Allocator { get; }

    public Qcow2Refcounts Refcounts { get; }

    public Qcow2Tables Tables { get; }

    public Qcow2Extents Extents { get; }

    public Qcow2Writer Writer { get; }

    public Qcow2Eraser Eraser { get; }

    public Qcow2CompressedClusters Compressed { get; }

    public Qcow2DirtyMark Mark { get; }

    public Qcow2WholeChange Change { get; }

    public Qcow2BitmapStorage Bitmaps { get; }

    /// <summary>The header as the file has it, but for the place of the refcounts, which their own structure knows.</summary>
    public Qcow2Header Header { get; private set; }

    public Qcow2Geometry Geometry { get; private set; }

    /// <summary>The disk's length.</summary>
    public long Length => Math.Max(Header.Size, GrownTo);

    /// <summary>While the disk grows: its length to be.</summary>
    public long GrownTo { get; set; }

    public BlockNode? DataFile => IsExternal ? DataNode : null;

    /// <summary>Guest data lies in an external data file, where it has no refcounts.</summary>
    public bool IsExternal { get; }

    /// <summary>What the tables say to be past the end of its file is an error, not zeroes.</summary>
    public bool RequiresAll { get; }

    /// <summary>
    /// The external data file reads like the disk itself, and must go on doing so. Over a backing file it cannot, whatever the bit says.
    /// </summary>
    public bool IsRawData => (Header.AutoClear & Qcow2AutoClear.RawExternalData) != Qcow2AutoClear.None && Header.BackingFile is null;

    /// <summary>Reads the tables of an image whose header is checked, and prepares it for changes if it is open for them.</summary>
    public async ValueTask LoadAsync(MetadataSession.Held held, bool forRepair, CancellationToken cancellationToken)
    {
        await Tables.L1.LoadAsync(Header.L1TableOffset, Header.L1Size, cancellationToken).ConfigureAwait(false);
        if (forRepair)
        {
            return;
        }
        Tables.RequireRoot();
        if (!File.IsReadOnly)
        {
            await PrepareForWritingAsync(held, cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>
    /// Forgets what is cached: the file was changed underneath. There must be nothing left to write. Never cancelled: half of the new and
    /// half of the old would be worse than either.
    /// </summary>
    public async ValueTask ReloadAsync(MetadataSession.Held held, bool forWriting)
    {
        Header = await Qcow2Header.ReadAsync(File, forRepair: true, CancellationToken.None).ConfigureAwait(false);
        Geometry = new Qcow2Geometry(Header); // a repair may have widened the refcounts
        Refcounts.Restart();
        Tables.L2.Clear();
        await Tables.L1.LoadAsync(Header.L1TableOffset, Header.L1Size, CancellationToken.None).ConfigureAwait(false);
        if (forWriting && !Header.Has(Qcow2Incompatible.Corrupt | Qcow2Incompatible.Dirty))
        {
            await PrepareForWritingAsync(held, CancellationToken.None).ConfigureAwait(false);
        }
    }

    /// <summary>Reads the header again: what the file has of it is not known.</summary>
    public async ValueTask ReloadHeaderAsync(MetadataSession.Held held)
    {
        Session.Require(held);
        Header = await Qcow2Header.ReadAsync(File, forRepair: false, CancellationToken.None).ConfigureAwait(false);
    }

    /// <summary>
    /// Called before what the disk shows changes: notes it in the bitmaps, and marks the image where its refcounts may be late.
    /// </summary>
    public async ValueTask BeforeChangeAsync(MetadataSession.Held held, GuestOffset offset, long length)
    {
        if (Mark.MustPostpone)
        {
            await Mark.PostponeAsync(held).ConfigureAwait(false);
        }
        await Bitmaps.RecordAsync(held, offset, length).ConfigureAwait(false);
    }

    /// <summary>Writes everything back in its order and makes it durable; only then is what it gave up free.</summary>
    public ValueTask FlushAsync(MetadataSession.Held held, CancellationToken cancellationToken)
        => Session.FlushAsync(held, cancellationToken);

    /// <summary>
    /// Makes everything durable, late refcounts and bitmaps included: the file is what it would be if the image were closed.
    /// </summary>
    public async ValueTask SettleAsync(MetadataSession.Held held, CancellationToken cancellationToken)
    {
        await Mark.SettleAsync(held, cancellationToken).ConfigureAwait(false);
        await Bitmaps.SettleAsync(held).ConfigureAwait(false);
    }

    /// <summary>Cuts the file behind the last cluster in use. Everything must be flushed.</summary>
    public async ValueTask TrimAsync(MetadataSession.Held held, CancellationToken cancellationToken)
    {
        Session.Require(held);
        await Session.Order.WriteBackAsync().ConfigureAwait(false);
        HostOffset end = await Refcounts.UsedEndAsync().ConfigureAwait(false);
        if (end.Value < File.Length)
        {
            await File.ResizeAsync(end.Value, PreallocationMode.Off, cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>Makes everything durable for good; what can be is, whatever else fails.</summary>
    public ValueTask CloseAsync(MetadataSession.Held held) => Closing.AllAsync(
        [() => Mark.SettleAsync(held, CancellationToken.None), () => Bitmaps.SettleAsync(held), EndOnClusterAsync]);

    /// <summary>Writes the fixed fields of the header, whose variable parts have not changed.</summary>
    public async ValueTask UpdateHeaderAsync(MetadataSession.Held held, Qcow2Header header)
    {
        Session.Require(held);
        header = WithRefcounts(header); // they may have moved
        byte[] cluster = header.ToCluster(Name);
        int end = header.Version < 3 ? Qcow2Header.V2Length : 96;
        await File.WriteAsync(Qcow2Header.SizeAt, cluster.AsMemory(Qcow2Header.SizeAt..end)).ConfigureAwait(false);
        await File.FlushAsync().ConfigureAwait(false);
        Header = header;
    }

    /// <summary>Writes, in one write, the part of the header cluster that changes.</summary>
    public async ValueTask SwitchHeaderAsync(MetadataSession.Held held, Qcow2Header header)
    {
        byte[] old = new byte[Geometry.ClusterSize], next = WithRefcounts(header).ToCluster(Name);
        await File.ReadPaddedAsync(0, old).ConfigureAwait(false);
        int first = old.AsSpan().CommonPrefixLength(next), end = next.Length;
        while (end > first && old[end - 1] == next[end - 1])
        {
            end--;
        }
        await File.WriteAsync(first, next.AsMemory(first..end)).ConfigureAwait(false);
        await File.FlushAsync().ConfigureAwait(false);
        await ReloadHeaderAsync(held).ConfigureAwait(false);
    }

    /// <summary>Refuses a write that would land on the image's own structures, and marks the image corrupt, as QEMU does.</summary>
    public async ValueTask RequireNotMetadataAsync(MetadataSession.Held held, HostOffset place, long length)
    {
        if (IsExternal || Guard.Overlap(place, length) is null)
        {
            return;
        }
        if (Header.Version >= 3)
        {
            await UpdateHeaderAsync(
                held, Header with { Incompatible = Header.Incompatible | Qcow2Incompatible.Corrupt }).ConfigureAwait(false);
        }
        Guard.Require(place, length);
    }

    /// <summary>Tells whoever listens what is about to be done with the file.</summary>
    public ValueTask TellAsync(DebugEvent what) => Session.Order.TellAsync(what);

    /// <summary>True if an entry's host cluster belongs to this entry alone.</summary>
    public bool IsOurs(L2Entry entry) => entry is { IsCompressed: false, IsCopied: true } && (entry.HasPlace || IsExternal);

    /// <summary>A cluster has lost its last reference: nothing in memory may take it for what it was.</summary>
    public void Freed(long cluster)
    {
        HostOffset place = Geometry.PlaceOf(cluster);
        Allocator.Freed(cluster);
        Guard.RemoveTable(place);
        Tables.L2.Forget(place.Value, Geometry.ClusterSize);
    }

    public DiskImageException Corrupt(Wording what, long offset)
        => new(DiskImageErrorKind.Corrupt, $"{Name}: {what}. Look at all of it with {new Remedy(RemedyKind.Check)}.", Name, offset);

    /// <summary>Something that the tables say is there lies past the end of its file.</summary>
    public static DiskImageException Missing(string what, GuestOffset guest, BlockNode file, HostOffset place) => new(
        DiskImageErrorKind.Corrupt,
        $"{file.Name}: the {what} for guest offset {guest.Value:#,0} is at host offset {place.Value:#,0},"
            + $" but the file has only {file.Length:#,0} bytes."
            + $" If this is a copy that was cut short, copy the image again."
            + $" With {new Remedy(RemedyKind.Repair)} what is missing reads as zeroes for good;"
            + $" the open option missing-clusters=zero only reads it so, as QEMU does.",
        file.Name,
        place.Value);

    private Qcow2Header WithRefcounts(Qcow2Header header)
        => header with { RefcountTableOffset = Refcounts.TablePlace.Value, RefcountTableClusters = Refcounts.TableClusters };

    private async ValueTask FlushStoresAsync(MetadataSession.Held held, CancellationToken cancellationToken)
    {
        await Writer.GiveBackReservedAsync(held).ConfigureAwait(false);
        await Session.Order.FlushDataAsync(cancellationToken).ConfigureAwait(false);
        await Session.Order.FlushAsync(cancellationToken).ConfigureAwait(false);
        if (Refcounts.TablePlace.Value != 0 && Refcounts.TablePlace.Value != Header.RefcountTableOffset)
        {
            Header = WithRefcounts(Header); // they have grown, and the file says so
        }
    }

    /// <summary>Bits of features that are not kept right here are cleared before anything changes. Spec: "Autoclear".</summary>
    private async ValueTask PrepareForWritingAsync(MetadataSession.Held held, CancellationToken cancellationToken)
    {
        RequireWritable();
        Guard.Clear();
        await Refcounts.LoadAsync(Header, cancellationToken).ConfigureAwait(false);
        Session.Space = Refcounts;
        Guard.Protect(Header, Tables.L1);
        if (Qcow2Encryption.PlaceOf(Header) is { } keys)
        {
            Guard.AddTables(new(keys.Offset), keys.Length);
        }
        IReadOnlyList<Qcow2Snapshot> snapshots = await Qcow2Snapshot.ReadAllAsync(File, Header, cancellationToken).ConfigureAwait(false);
        Guard.SnapshotTable = (new(Header.SnapshotsOffset), Qcow2Snapshot.StoredTableLength(snapshots));
        await ProtectAsync(snapshots, cancellationToken).ConfigureAwait(false);
        await Bitmaps.LoadAsync(held, cancellationToken).ConfigureAwait(false);
        Qcow2AutoClear kept = Qcow2AutoClear.Bitmaps | (IsRawData ? Qcow2AutoClear.RawExternalData : Qcow2AutoClear.None);
        if ((Header.AutoClear & ~kept) != Qcow2AutoClear.None)
        {
            await UpdateHeaderAsync(held, Header with { AutoClear = Header.AutoClear & kept }).ConfigureAwait(false);
        }
    }

    private void RequireWritable()
    {
        if (Header.Has(Qcow2Incompatible.Corrupt))
        {
            throw new DiskImageException(
                DiskImageErrorKind.Corrupt,
                $"{Name}: the image is marked corrupt, so it is opened read-only or not at all."
                    + $" Repair it with {new Remedy(RemedyKind.Repair)}.",
                Name);
        }
        if (Header.Has(Qcow2Incompatible.Dirty))
        {
            throw new DiskImageException(
                DiskImageErrorKind.Corrupt,
                $"{Name}: the image was not closed properly or not completed, so its refcounts cannot be relied on."
                    + $" Repair it before it is written to.",
                Name);
        }
        if (_options.LazyRefcounts == true && Header.Version < 3)
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"{Name}: lazy-refcounts=on needs a version 3 image (compat=1.1), and this one is version {Header.Version}",
                Name);
        }
    }

    /// <summary>Has the guard know the tables of snapshots: their L1 tables, and if all is to be looked up, what those lead to.</summary>
    private async ValueTask ProtectAsync(IReadOnlyList<Qcow2Snapshot> snapshots, CancellationToken cancellationToken)
    {
        if (_options.OverlapCheck < Qcow2OverlapCheck.Cached)
        {
            return;
        }
        if (snapshots.Sum(s => s.L1Size * 8L) is var total && total > File.Length)
        {
            throw Corrupt(
                $"the L1 tables of its snapshots have {total:#,0} bytes; allowed:"
                    + $" at most the {File.Length:#,0} of the file", Header.SnapshotsOffset);
        }
        foreach (Qcow2Snapshot snapshot in snapshots)
        {
            Guard.AddTables(new(snapshot.L1Offset), snapshot.L1Size * 8L);
            if (_options.OverlapCheck < Qcow2OverlapCheck.All)
            {
                continue;
            }
            byte[] l1 = new byte[snapshot.L1Size * 8];
            await File.ReadPaddedAsync(snapshot.L1Offset, l1, cancellationToken).ConfigureAwait(false);
            for (int i = 0; i < snapshot.L1Size; i++)
            {
                if (L2Entry.OffsetOf(BigEndian.U64(l1, i * 8)) is > 0 and var l2)
                {
                    Guard.AddTable(new(l2));
                }
            }
        }
    }

    /// <summary>A file that was made longer ends with a whole cluster, as programs expect that go by clusters or sectors.</summary>
    private async ValueTask EndOnClusterAsync()
    {
        long length = File.Length;
        if (length == _lengthAtOpen || Geometry.InCluster(length) == 0 || !File.GrowsOnWrite)
        {
            return;
        }
        try
        {
            await File.ResizeAsync(Round.Up(length, Geometry.ClusterSize)).ConfigureAwait(false);
        }
        catch (DiskImageException e) when (e.Kind == DiskImageErrorKind.NoSpace)
        {
            // What is there is whole without it.
        }
    }
}
