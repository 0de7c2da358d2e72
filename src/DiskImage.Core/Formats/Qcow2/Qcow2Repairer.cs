using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Qcow2;

/// <summary>
/// Repairs an image that nobody else uses. Whatever can be read before reads the same afterwards, in the disk and in the snapshots that are
/// kept; a repair that would end otherwise is not made.
/// </summary>
/// <remarks>
/// <para>Steps: check; put right the table entries that cannot stand (out of place: what is lost reads as zeroes, an L1 entry becomes
/// unallocated); count again; set the refcounts to the counts, in place where the structure is sound, else in a new structure at
/// the end of the file; set the "refcount is exactly one" flags; clear the dirty and corrupt marks; check once more.</para>
/// <para>All of this is done in a <see cref="StagedNode"/>. Then the contents are compared (<see cref="Qcow2ContentsComparison"/>), and
/// only then is it written, in the same order: from the first change to the last the image is marked dirty (version 3), so a repair that is
/// interrupted is begun again on the next open.</para>
/// <para>Of two tables or clusters of the disk that share a place one gets a copy, since nobody can tell whose it is; beyond as many bytes
/// as the file has they go on sharing it, with a refcount of two, and the next write gives each its own. While the active L1 table itself
/// is in doubt nothing is changed, and nothing is given back while a table that decides what is used is not sound.</para>
/// </remarks>
internal sealed class Qcow2Repairer
{
    private readonly BlockNode _original;
    private readonly Qcow2Header _found;
    private readonly Qcow2RepairImage _image;
    private readonly Qcow2SnapshotMender _snapshots;
    private readonly Qcow2RefcountMender _refcounts;

    private Qcow2Repairer(BlockNode original, Qcow2Header found, Qcow2RepairImage image)
    {
        (_original, _found, _image) = (original, found, image);
        _snapshots = new Qcow2SnapshotMender(image);
        _refcounts = new Qcow2RefcountMender(image);
    }

    private StagedNode File => _image.File;

    private Qcow2Header Header => _image.Header;

    private CancellationToken CancellationToken => _image.CancellationToken;

    /// <summary>Repairs an image and checks it again.</summary>
    /// <param name="file">The image's file.</param>
    /// <param name="header">Its header.</param>
    /// <param name="dataFile">Its external data file, if it has one.</param>
    /// <param name="mode">What may be repaired.</param>
    /// <param name="bytes">Told how many bytes of the virtual disk are looked at.</param>
    /// <param name="cancellationToken">Stops it before anything is written.</param>
    public static async ValueTask<CheckReport> RunAsync(
        BlockNode file,
        Qcow2Header header,
        BlockNode? dataFile,
        RepairMode mode,
        IProgress<long>? bytes,
        CancellationToken cancellationToken)
    {
        var staged = new StagedNode(file);
        await using (staged.ConfigureAwait(false))
        {
            var image = new Qcow2RepairImage(staged, header, dataFile, bytes, cancellationToken);
            var before = new Qcow2Checker(file, header, bytes, cancellationToken, dataFile);
            return await new Qcow2Repairer(file, header, image).RunAsync(mode, before).ConfigureAwait(false);
        }
    }

    private async ValueTask<CheckReport> RunAsync(RepairMode mode, Qcow2Checker before)
    {
        CheckReport found = await before.RunAsync().ConfigureAwait(false);
        bool isNeeded = mode == RepairMode.All
            ? found is not { Corruptions: 0, Leaks: 0, CheckErrors: 0 }
            : found.Leaks > 0 && before.LeaksAreCertain;
        if (!isNeeded || before.RootFault is not null)
        {
            return found;
        }
        if (mode == RepairMode.All)
        {
            await RepairAllAsync(before).ConfigureAwait(false);
        }
        else
        {
            await _refcounts.SetAsync(before, leaksOnly: true).ConfigureAwait(false);
        }
        await File.FlushAsync(CancellationToken).ConfigureAwait(false);
        CheckReport left = await _image.NewChecker().RunAsync().ConfigureAwait(false);
        var comparison = new Qcow2ContentsComparison(_original, _found, File, Header, _image.DataFile, CancellationToken);
        if (await comparison.FindLossAsync(_snapshots.Kept).ConfigureAwait(false) is { } loss)
        {
            return StagedRepair.Withdrawn(found, $"{loss} would not read as it does now");
        }
        if (left is { Corruptions: 0, CheckErrors: 0 } && await WhyUnusableAsync().ConfigureAwait(false) is { } fault)
        {
            return StagedRepair.Withdrawn(found, $"the image could not be opened for writing afterwards: {fault}");
        }
        await File.CommitAsync().ConfigureAwait(false);
        return left.RepairedFrom(found);
    }

    private async ValueTask<Wording?> WhyUnusableAsync()
    {
        var trial = new StagedNode(File);
        await using (trial.ConfigureAwait(false))
        {
            try
            {
                Qcow2Header header = await Qcow2Header.ReadAsync(trial, forRepair: false, CancellationToken).ConfigureAwait(false);
                BlockNode? dataFile = _image.DataFile is { } data ? new BorrowedNode(data, isReadOnly: true) : null;
                var lent = new BorrowedNode(trial, isReadOnly: false);
                Qcow2Node disk = await Qcow2Node.OpenAsync(
                    lent, dataFile, null, header, new(), encryption: null, forRepair: false, CancellationToken).ConfigureAwait(false);
                await disk.DisposeAsync().ConfigureAwait(false);
                return null;
            }
            catch (DiskImageException e) when (e.Kind is DiskImageErrorKind.Corrupt or DiskImageErrorKind.InvalidFormat)
            {
                return e.Wording;
            }
        }
    }

    private async ValueTask RepairAllAsync(Qcow2Checker before)
    {
        await _image.MarkAsync(Header.Incompatible | Qcow2Incompatible.Dirty).ConfigureAwait(false);
        if (before.HasCutTable)
        {
            // the rest of it reads as nothing
            await File.ResizeAsync(_image.FileEnd, PreallocationMode.Off, CancellationToken).ConfigureAwait(false);
        }
        await ClearUntrueRawBitAsync().ConfigureAwait(false);
        if (before.BadEndMarker is int marker)
        {
            await File.WriteAsync(marker, new byte[8], CancellationToken).ConfigureAwait(false);
        }
        HashSet<long> overlaps = before.Overlaps;
        Qcow2Header unmended = Header;
        if (before.L1Entries < Header.L1Size || before.HasHeaderFault)
        {
            Range fields = Qcow2Header.L1SizeAt..Qcow2Header.IncompatibleAt; // as they are understood, with as many L1 entries as can stand
            await _image.WriteHeaderAsync(Header with { L1Size = before.L1Entries }, fields).ConfigureAwait(false);
            overlaps = (await _image.CountAsync().ConfigureAwait(false)).Overlaps;
        }
        if (_image.ClustersOf(Header.L1TableOffset, Header.L1Size * 8L).Any(overlaps.Contains))
        {
            await MoveL1Async().ConfigureAwait(false);
        }
        await _snapshots.RunAsync(overlaps).ConfigureAwait(false);
        if (!ReferenceEquals(unmended, Header)) // where a table moved, more of what it leads to is known now
        {
            overlaps = (await _image.CountAsync().ConfigureAwait(false)).Overlaps;
        }
        var tables = new Qcow2TableMender(_image, before.BrokenClusters);
        await tables.RunAsync(Header.L1TableOffset, Header.L1Size, overlaps, isActive: true).ConfigureAwait(false);
        foreach ((_, Qcow2Snapshot snapshot) in _snapshots.Kept)
        {
            await tables.RunAsync(snapshot.L1Offset, snapshot.L1Size, overlaps, isActive: false).ConfigureAwait(false);
        }
        await new Qcow2BitmapMender(_image).RunAsync().ConfigureAwait(false);
        await File.FlushAsync(CancellationToken).ConfigureAwait(false);
        await _refcounts.RunAsync().ConfigureAwait(false);
        await _image.MarkAsync(Header.Incompatible & ~(Qcow2Incompatible.Dirty | Qcow2Incompatible.Corrupt)).ConfigureAwait(false);
        await ClearInChangeAsync().ConfigureAwait(false);
    }

    /// <summary>Takes out the mark of a version 2 image; that of version 3 is a bit.</summary>
    private async ValueTask ClearInChangeAsync()
    {
        if (Header.Version < 3 && Header.IsInChange)
        {
            await File.FlushAsync(CancellationToken).ConfigureAwait(false);
            Qcow2Extension[] others = [.. Header.Extensions.Where(e => e.Type != Qcow2Extension.InChange)];
            await _image.WriteHeaderAsync(Header with { Extensions = others }).ConfigureAwait(false);
            await File.FlushAsync(CancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>
    /// Clears the bit that says that the data file is raw where there is none, or where a backing file shows through as well.
    /// </summary>
    private async ValueTask ClearUntrueRawBitAsync()
    {
        bool isTrue = _image.IsExternal && Header.BackingFile is null;
        if (!isTrue && (Header.AutoClear & Qcow2AutoClear.RawExternalData) != Qcow2AutoClear.None)
        {
            Range field = Qcow2Header.AutoClearAt..(Qcow2Header.AutoClearAt + 8);
            await _image.WriteHeaderAsync(
                Header with { AutoClear = Header.AutoClear & ~Qcow2AutoClear.RawExternalData }, field).ConfigureAwait(false);
        }
    }

    /// <summary>Gives the L1 table a place of its own.</summary>
    private async ValueTask MoveL1Async()
    {
        long place = await _image.CopyToEndAsync(Header.L1TableOffset, Header.L1Size * 8).ConfigureAwait(false);
        await _image.WriteHeaderAsync(
            Header with { L1TableOffset = place }, Qcow2Header.L1SizeAt..Qcow2Header.RefcountTableAt).ConfigureAwait(false);
    }
}
