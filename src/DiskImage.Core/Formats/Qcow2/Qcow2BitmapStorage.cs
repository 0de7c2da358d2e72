using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Qcow2;

/// <summary>
/// The bitmaps of an image that is open for writing: taking them in, having them record, storing them. Spec: qcow2, "Bitmaps extension",
/// "Bitmap directory".
/// </summary>
/// <remarks>
/// <para>States. Settled: the file has them as they are, none is marked in use by us. Before the first request that changes the disk, every
/// enabled one is marked in use in its directory entry, in place, and that is flushed: from here on a crash leaves bitmaps that say of
/// themselves that they cannot be relied on. Writes then set bits in memory only. Closing, every operation on bitmaps, and whatever reads
/// the image anew settles them again.</para>
/// <para>Order of writes when settling: bits, tables and directory to new clusters; refcounts; flush; one write of the header, which
/// switches to the new directory, whose entries are not in use; flush; then the old clusters are given back. When no bit has changed, only
/// the flags are cleared in place. An operation is stored as a whole or, after a crash or failure, not at all.</para>
/// <para>The session's lock guards it.</para>
/// </remarks>
internal sealed class Qcow2BitmapStorage(Qcow2Disk disk)
{
    private const long MaxRecordedBytes = 1 << 30; // ours: bits of all enabled bitmaps of an image

    private Qcow2Bitmap[] _recording = []; // those that must take note of writes; replaced as a whole

    /// <summary>All of them; null if the image is not open for writing.</summary>
    public IReadOnlyList<Qcow2Bitmap>? All { get; private set; }

    /// <summary>True if some take note of writes. Asked without the lock: they come and go only while no request is in flight.</summary>
    public bool AreRecording => _recording.Length > 0;

    /// <summary>The image has bitmaps that belong to its present contents.</summary>
    public bool AreHeld => (Header.AutoClear & Qcow2AutoClear.Bitmaps) != 0 && Header.Extension(Qcow2Extension.Bitmaps) is not null;

    private Qcow2Header Header => disk.Header;

    private Qcow2Geometry Geometry => disk.Geometry;

    /// <summary>The bitmaps as they are: those in memory, else those of the file.</summary>
    public async ValueTask<IReadOnlyList<Qcow2Bitmap>> CurrentAsync(CancellationToken cancellationToken)
    {
        if (All is not null || !AreHeld)
        {
            return All ?? [];
        }
        Qcow2BitmapDirectory directory = await Qcow2BitmapDirectory.ReadAsync(disk.File, Header, cancellationToken).ConfigureAwait(false);
        return Of(directory);
    }

    /// <summary>Takes in the bitmaps of an image that is being opened for writing; drops those that belong to other contents.</summary>
    public async ValueTask LoadAsync(MetadataSession.Held held, CancellationToken cancellationToken)
    {
        Qcow2BitmapDirectory directory = AreHeld
            ? await Qcow2BitmapDirectory.ReadAsync(disk.File, Header, cancellationToken).ConfigureAwait(false)
            : Qcow2BitmapDirectory.Empty;
        disk.Guard.BitmapDirectory = default;
        if (directory.Length > 0 && disk.Guard.Overlap(directory.Place, directory.Length) is { } what)
        {
            throw disk.Corrupt($"the bitmap directory at host offset {directory.Place.Value:#,0} lies on {what}", directory.Place.Value);
        }
        TakeIn(directory, Of(directory));
        if (!AreHeld && Header.Extension(Qcow2Extension.Bitmaps) is not null)
        {
            await disk.SwitchHeaderAsync(held, Header with { Extensions = WithoutBitmaps() }).ConfigureAwait(false);
        }
        else if (!AreHeld && (Header.AutoClear & Qcow2AutoClear.Bitmaps) != 0)
        {
            await disk.UpdateHeaderAsync(
                held, Header with { AutoClear = Header.AutoClear & ~Qcow2AutoClear.Bitmaps }).ConfigureAwait(false);
        }
    }

    /// <summary>Notes, in every enabled bitmap, that a range is about to change.</summary>
    public async ValueTask RecordAsync(MetadataSession.Held held, GuestOffset offset, long length)
    {
        foreach (Qcow2Bitmap bitmap in _recording)
        {
            if (!bitmap.IsMarked)
            {
                await MarkInUseAsync(held, _recording).ConfigureAwait(false);
            }
            if (bitmap.IsUsable)
            {
                await bitmap.SetAsync(offset, length).ConfigureAwait(false);
            }
        }
    }

    /// <summary>Writes into the directory that bitmaps are in use, and waits until that is durable.</summary>
    public async ValueTask MarkInUseAsync(MetadataSession.Held held, IReadOnlyCollection<Qcow2Bitmap> which)
    {
        if (which.Where(b => b.IsUsable).Sum(b => b.BitsBytes) is > MaxRecordedBytes and var needed)
        {
            throw new DiskImageException(
                DiskImageErrorKind.OutOfRange,
                $"{disk.Name}: its bitmaps have {needed:#,0} bytes of bits in all; allowed when they change:"
                    + $" at most {MaxRecordedBytes:#,0}."
                    + $" Disable or remove some of them.",
                disk.Name);
        }
        await WriteDirectoryAsync(held, b => b.IsMarked || which.Contains(b)).ConfigureAwait(false);
        foreach (Qcow2Bitmap bitmap in which)
        {
            bitmap.IsMarked = true;
            if (!bitmap.IsUsable)
            {
                // for good: it will not record the change
                bitmap.Entry = bitmap.Entry with { Flags = bitmap.Entry.Flags | Qcow2BitmapFlags.InUse };
            }
        }
    }

    /// <summary>Stores what has changed; afterwards no bitmap is in use by us.</summary>
    public async ValueTask SettleAsync(MetadataSession.Held held)
    {
        if (All is not null && All.Any(b => b.IsMarked || b.IsChanged))
        {
            await StoreAsync(held, All).ConfigureAwait(false);
        }
    }

    /// <summary>Makes a list of bitmaps the image's.</summary>
    public async ValueTask StoreAsync(MetadataSession.Held held, IReadOnlyList<Qcow2Bitmap> bitmaps)
    {
        if (bitmaps.SequenceEqual(All!) && !bitmaps.Any(b => b.IsChanged))
        {
            await ClearMarksAsync(held, bitmaps).ConfigureAwait(false);
            return;
        }
        var taken = new List<(HostOffset Place, long Length)>();
        var unused = new List<(HostOffset Place, long Length)>();
        var stored = new List<Qcow2Bitmap>();
        Qcow2BitmapDirectory directory;
        Qcow2Header header;
        try
        {
            foreach (Qcow2Bitmap bitmap in bitmaps)
            {
                Qcow2BitmapEntry entry = bitmap.Entry;
                if (bitmap.BitsChanged)
                {
                    Qcow2Bitmap.PreparedTable table = await bitmap.PrepareAsync(TakeAsync).ConfigureAwait(false);
                    entry = entry with { TableOffset = table.Place.Value, TableSize = table.Table.Length };
                    unused.AddRange(await bitmap.UnusedAsync(table).ConfigureAwait(false));
                }
                stored.Add(bitmap.AsStored(entry));
            }
            foreach (Qcow2Bitmap removed in All!.Except(bitmaps))
            {
                unused.AddRange(await SpaceOfRemovedAsync(removed).ConfigureAwait(false));
            }
            directory = await WriteNewDirectoryAsync([.. stored.Select(b => b.Entry)], TakeAsync).ConfigureAwait(false);
            header = WithDirectory(directory);
            await disk.Session.Order.FlushAsync(CancellationToken.None).ConfigureAwait(false);
        }
        catch (DiskImageException)
        {
            foreach ((HostOffset place, long length) in taken)
            {
                await disk.Refcounts.AddAsync(held, place, length, -1).ConfigureAwait(false);
            }
            throw;
        }
        await disk.SwitchHeaderAsync(held, header).ConfigureAwait(false);
        if (disk.Guard.BitmapDirectory is { Length: > 0 } old)
        {
            unused.Add(old);
        }
        TakeIn(directory, stored);
        unused.ForEach(r => disk.Refcounts.FreeAfterFlush(held, r.Place, r.Length));
        await disk.FlushAsync(held, CancellationToken.None).ConfigureAwait(false);

        async ValueTask<HostOffset> TakeAsync(int clusters)
        {
            HostOffset place = clusters == 1
                ? (await disk.Allocator.AllocateAsync(held, 1).ConfigureAwait(false)).Place
                : await disk.Allocator.AllocateContiguousAsync(held, clusters).ConfigureAwait(false);
            long length = (long)clusters << Geometry.ClusterBits;
            taken.Add((place, length));
            await disk.RequireNotMetadataAsync(held, place, length).ConfigureAwait(false);
            return place;
        }
    }

    /// <summary>The directory was copied to another place.</summary>
    public async ValueTask MoveDirectoryAsync(MetadataSession.Held held, HostOffset place)
    {
        long length = disk.Guard.BitmapDirectory.Length;
        Qcow2Extension extension = Qcow2BitmapDirectory.ToExtension(All!.Count, place.Value, length);
        Qcow2Extension[] extensions = [.. Header.Extensions.Select(e => e.Type == Qcow2Extension.Bitmaps ? extension : e)];
        await disk.SwitchHeaderAsync(held, Header with { Extensions = extensions }).ConfigureAwait(false);
        disk.Guard.BitmapDirectory = (place, length);
    }

    /// <summary>No bit has changed: only what says that bitmaps are in use goes.</summary>
    private async ValueTask ClearMarksAsync(MetadataSession.Held held, IReadOnlyList<Qcow2Bitmap> bitmaps)
    {
        if (!bitmaps.Any(b => b.IsMarked))
        {
            return;
        }
        await WriteDirectoryAsync(held, static _ => false).ConfigureAwait(false);
        foreach (Qcow2Bitmap bitmap in bitmaps)
        {
            bitmap.IsMarked = false;
        }
    }

    private List<Qcow2Bitmap> Of(Qcow2BitmapDirectory directory)
        => [.. directory.Entries.Select(e => new Qcow2Bitmap(disk.File, Geometry, e, disk.Length))];

    private void TakeIn(Qcow2BitmapDirectory directory, List<Qcow2Bitmap> bitmaps)
    {
        All = bitmaps;
        _recording = [.. bitmaps.Where(b => b.IsEnabled && (b.Entry.Flags & Qcow2BitmapFlags.InUse) == 0)];
        disk.Guard.BitmapDirectory = (directory.Place, directory.Length);
        foreach (Qcow2Bitmap bitmap in bitmaps)
        {
            disk.Guard.AddTables(new(bitmap.Entry.TableOffset), bitmap.Entry.TableSize * 8L);
        }
    }

    /// <summary>Writes the directory in place. Nothing but flags differs, so a write that is cut short does no harm.</summary>
    private async ValueTask WriteDirectoryAsync(MetadataSession.Held held, Func<Qcow2Bitmap, bool> isInUse)
    {
        disk.Session.Require(held);
        byte[] bytes = Qcow2BitmapDirectory.ToBytes(
            All!.Select(b => isInUse(b) ? b.Entry with { Flags = b.Entry.Flags | Qcow2BitmapFlags.InUse } : b.Entry));
        await disk.File.WriteAsync(disk.Guard.BitmapDirectory.Place.Value, bytes).ConfigureAwait(false);
        await disk.File.FlushAsync().ConfigureAwait(false);
    }

    /// <summary>What a removed bitmap occupied; without what a broken table may have pointed to.</summary>
    private static async ValueTask<IReadOnlyList<(HostOffset Place, long Length)>> SpaceOfRemovedAsync(Qcow2Bitmap removed)
    {
        try
        {
            return await removed.UnusedAsync(newer: null).ConfigureAwait(false);
        }
        catch (DiskImageException e) when (e.Kind == DiskImageErrorKind.Corrupt)
        {
            return [];
        }
    }

    private async ValueTask<Qcow2BitmapDirectory> WriteNewDirectoryAsync(
        Qcow2BitmapEntry[] entries, Func<int, ValueTask<HostOffset>> allocate)
    {
        if (entries.Length == 0)
        {
            return Qcow2BitmapDirectory.Empty;
        }
        byte[] bytes = Qcow2BitmapDirectory.ToBytes(entries);
        if (entries.Length > Qcow2BitmapDirectory.MaxBitmaps || bytes.Length > Qcow2BitmapDirectory.MaxDirectoryBytes)
        {
            throw new DiskImageException(
                DiskImageErrorKind.OutOfRange,
                $"{disk.Name}: {entries.Length} bitmaps take a directory of {bytes.Length:#,0} bytes; allowed:"
                    + $" {Qcow2BitmapDirectory.MaxBitmaps} bitmaps"
                    + $" and {Qcow2BitmapDirectory.MaxDirectoryBytes:#,0} bytes",
                disk.Name);
        }
        HostOffset place = await allocate((int)Geometry.Clusters(bytes.Length)).ConfigureAwait(false);
        await disk.File.WriteAsync(place.Value, bytes).ConfigureAwait(false);
        return new(place, bytes.Length, entries);
    }

    /// <summary>
    /// The header with an extension that points to a directory; if need be without the names of features, which are optional.
    /// </summary>
    private Qcow2Header WithDirectory(Qcow2BitmapDirectory directory)
    {
        if (directory.Entries.Count == 0)
        {
            return Header with { Extensions = WithoutBitmaps(), AutoClear = Header.AutoClear & ~Qcow2AutoClear.Bitmaps };
        }
        Qcow2Extension extension = Qcow2BitmapDirectory.ToExtension(directory.Entries.Count, directory.Place.Value, directory.Length);
        Qcow2Header header = Header with
        {
            Extensions = [.. WithoutBitmaps(), extension],
            AutoClear = Header.AutoClear | Qcow2AutoClear.Bitmaps,
        };
        if (!header.Fits)
        {
            header = header with { Extensions = [.. header.Extensions.Where(e => e.Type != Qcow2Extension.FeatureNames)] };
        }
        _ = header.ToCluster(disk.Name); // refuses what does not fit before anything is written
        return header;
    }

    private Qcow2Extension[] WithoutBitmaps() => [.. Header.Extensions.Where(e => e.Type != Qcow2Extension.Bitmaps)];
}
