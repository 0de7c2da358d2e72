using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Vhdx;

/// <summary>
/// What an open VHDX disk is made of: headers, regions, metadata, BAT, log and space, and what surrounds every change of it. Spec: MS-VHDX
/// 2.2.2.1, 2.3.
/// </summary>
/// <remarks>
/// <para>The session's lock guards all of it. The session's flush is the log's: the BAT and the bitmaps reach their
/// places by way of it.</para>
/// <para>Changing begins with the first change, not with the opening: first one header with new identifiers and still without log, then
/// the first log entry, then both headers naming the log. So at any time the header that counts names a log that has a valid entry,
/// or none. It ends, when the disk is closed, with both headers saying that the log is empty.</para>
/// </remarks>
internal sealed class VhdxDisk
{
    /// <summary>Space that waits for a flush before it can be used again; beyond this the flush is not left to the user. Ours.</summary>
    private const long MaxWaiting = 1L << 30;

    private int _headerIndex;
    private VhdxLog? _log;
    private bool _isNewData; // the DataWriteGuid is this session's
    private Guid? _comingData; // the one that the first change in sight will bring, once it has been told to children

    public VhdxDisk(BlockNode file, BlockNode? backing, VhdxImage image, VhdxOpenOptions options)
    {
        (File, Backing, Options) = (file, backing, options);
        (Creator, HadLog) = (image.Creator, image.Log is not null || image.LostLog is not null);
        (Header, _headerIndex, Regions, Metadata, LostLog) = (
            image.Headers.Current, image.Headers.CurrentIndex, image.Regions, image.Metadata, image.LostLog);
        Geometry = new VhdxGeometry(Metadata.BlockSize, Metadata.LogicalSectorSize, Metadata.VirtualSize);
        Session = new MetadataSession(file, FlushAsync, ReleasedAsync);
        Cache = new MetadataCache(Session.Order, VhdxLayout.Sector, options.MetadataCacheSize, JournalAsync);
        Bat = new VhdxBat(this);
    }

    public BlockNode File { get; }

    public BlockNode? Backing { get; }

    public VhdxOpenOptions Options { get; }

    public string Name => File.Name;

    /// <summary>The program that made the file, as it says.</summary>
    public string Creator { get; }

    /// <summary>The image was opened with something in its log.</summary>
    public bool HadLog { get; }

    /// <summary>Why the log could not be replayed; null if it could, or was empty.</summary>
    public string? LostLog { get; private set; }

    public MetadataSession Session { get; }

    /// <summary>Pieces of the BAT and of the sector bitmaps.</summary>
    public MetadataCache Cache { get; }

    public VhdxBat Bat { get; }

    public VhdxHeader Header { get; private set; }

    public VhdxRegionTable Regions { get; private set; }

    public VhdxMetadata Metadata { get; private set; }

    public VhdxGeometry Geometry { get; private set; }

    public bool HasParent => Metadata.HasParent;

    /// <summary>The log; there is one once a change has begun.</summary>
    public VhdxLog Log => _log!;

    /// <summary>Which MiB of the file are in use; known once <see cref="SpaceAsync(MetadataSession.Held)"/> was asked.</summary>
    public SpaceMap Space => (SpaceMap)Session.Space!;

    /// <summary>The identity that the contents have after the next change that a reader can see.</summary>
    private Guid ComingDataWriteGuid
        => _isNewData ? Header.DataWriteGuid : _comingData ??= NewIdentity.Of("vhdx data after", Header.DataWriteGuid);

    private Guid NextFileWriteGuid => NewIdentity.Of("vhdx file after", Header.FileWriteGuid, Header.SequenceNumber);

    /// <summary>A map of a VHDX file's space, with nothing in it.</summary>
    public static SpaceMap EmptySpace(string path) => new(
        VhdxLayout.MiB,
        VhdxLayout.MaxFileSize,
        end => VhdxLayout.Corrupt(path, $"a block reaches offset {end:#,0}; allowed: at most {VhdxLayout.MaxFileSize:#,0}"));

    /// <summary>Carries out what the log says; called before anything else.</summary>
    public async ValueTask ReplayAsync(VhdxLogSequence log, CancellationToken cancellationToken)
    {
        await UpdateHeaderAsync(Header with { FileWriteGuid = NextFileWriteGuid }).ConfigureAwait(false); // spec: 2.2.2, before playback
        await VhdxReplay.ApplyAsync(File, log, cancellationToken).ConfigureAwait(false);
        await UpdateHeadersAsync(Header with { LogGuid = Guid.Empty }).ConfigureAwait(false);
    }

    /// <summary>Reads the file again, which has changed below.</summary>
    public async ValueTask ReloadAsync(MetadataSession.Held held, CancellationToken cancellationToken)
    {
        Session.Require(held);
        VhdxImage image = await VhdxImage.ReadAsync(File, discardLog: true, forRepair: true, cancellationToken).ConfigureAwait(false);
        (Header, _headerIndex, Regions, Metadata, LostLog) = (
            image.Headers.Current, image.Headers.CurrentIndex, image.Regions, image.Metadata, image.LostLog);
        Geometry = new VhdxGeometry(Metadata.BlockSize, Metadata.LogicalSectorSize, Metadata.VirtualSize);
        Cache.Clear();
        Session.Space = null;
    }

    /// <summary>The log that could not be replayed is empty now.</summary>
    public void ForgetLostLog(MetadataSession.Held held)
    {
        Session.Require(held);
        LostLog = null;
    }

    public void RequireWritable()
    {
        if (File.IsReadOnly)
        {
            throw new DiskImageException(DiskImageErrorKind.ReadOnly, $"{Name}: opened read-only, so it cannot be changed", Name);
        }
    }

    /// <summary>Called before anything in the file changes.</summary>
    /// <param name="held">The lock.</param>
    /// <param name="isVisible">The change is one that a reader of the disk can see.</param>
    public async ValueTask BeginAsync(MetadataSession.Held held, bool isVisible)
    {
        Session.Require(held);
        if (_log is null)
        {
            Guid data = isVisible ? ComingDataWriteGuid : Header.DataWriteGuid;
            await UpdateHeaderAsync(
                Header with
                {
                    FileWriteGuid = NextFileWriteGuid,
                    DataWriteGuid = data,
                    LogGuid = Guid.Empty,
                    LogVersion = VhdxHeader.SupportedLogVersion,
                }).ConfigureAwait(false);
            var log = new VhdxLog(File, Header);
            await log.BeginAsync().ConfigureAwait(false);
            await NameLogAsync(log).ConfigureAwait(false);
            (_log, _isNewData) = (log, isVisible);
        }
        else if (isVisible && !_isNewData)
        {
            await UpdateHeadersAsync(Header with { DataWriteGuid = ComingDataWriteGuid }).ConfigureAwait(false);
            _isNewData = true;
        }
    }

    /// <summary>Called before what the disk shows changes: blocks that share a place are found before one is written to.</summary>
    /// <param name="held">The lock.</param>
    /// <param name="cancellationToken">Stops the reading of the BAT, which the first change asks for; nothing has changed then.</param>
    public async ValueTask BeginChangeAsync(MetadataSession.Held held, CancellationToken cancellationToken)
    {
        _ = await SpaceAsync(held, isStrict: true, cancellationToken).ConfigureAwait(false);
        await BeginAsync(held, isVisible: true).ConfigureAwait(false);
    }

    /// <summary>Makes all changes durable and the log empty.</summary>
    public async ValueTask EndAsync(MetadataSession.Held held)
    {
        if (_log is null)
        {
            return;
        }
        await Session.FlushAsync(held, CancellationToken.None).ConfigureAwait(false);
        await _log.FlushAsync().ConfigureAwait(false); // the last updates are in place, durably
        await UpdateHeadersAsync(Header with { LogGuid = Guid.Empty }).ConfigureAwait(false);
        _log = null;
        (_isNewData, _comingData) = (false, null);
    }

    /// <summary>The identity of the contents as the file says it now: it may have been written to by way of another opening.</summary>
    public async ValueTask<Guid> CurrentDataWriteGuidAsync(CancellationToken cancellationToken)
        => File.IsReadOnly
            ? (await VhdxHeaderPair.ReadAsync(File, cancellationToken).ConfigureAwait(false)).Current.DataWriteGuid
            : Header.DataWriteGuid;

    /// <summary>The identity that the contents have after the next change that a reader can see.</summary>
    public ValueTask<Guid> ComingDataWriteGuidAsync(CancellationToken cancellationToken)
        => Session.RunAsync(_ => new ValueTask<Guid>(ComingDataWriteGuid), cancellationToken);

    /// <summary>The space map, made when it is first needed. Nothing in the BAT may have changed before.</summary>
    public ValueTask<SpaceMap> SpaceAsync(MetadataSession.Held held) => SpaceAsync(held, isStrict: true, CancellationToken.None);

    /// <inheritdoc cref="SpaceAsync(MetadataSession.Held)"/>
    public async ValueTask<SpaceMap> SpaceAsync(MetadataSession.Held held, bool isStrict, CancellationToken cancellationToken)
    {
        Session.Require(held);
        if (Session.Space is SpaceMap known)
        {
            return known;
        }
        SpaceMap space = EmptySpace(Name);
        MarkStructures(space);
        await Bat.MarkAsync(space, isStrict, cancellationToken).ConfigureAwait(false);
        Session.Space = space;
        return space;
    }

    /// <summary>Takes the places of everything but blocks.</summary>
    public void MarkStructures(SpaceMap space)
    {
        _ = space.TryMark(0, VhdxLayout.HeaderSection);
        _ = space.TryMark(Header.LogOffset, Header.LogLength);
        foreach (VhdxRegion region in Regions.Regions)
        {
            _ = space.TryMark(region.Offset, region.Length);
        }
    }

    /// <summary>Space in the file that reads as zeroes.</summary>
    public async ValueTask<HostOffset> AllocateAsync(
        MetadataSession.Held held, long length, PreallocationMode growth = PreallocationMode.Off)
    {
        SpaceMap space = await SpaceAsync(held).ConfigureAwait(false);
        await FlushIfMuchWaitsAsync(held, CancellationToken.None).ConfigureAwait(false);
        long host = space.Allocate(held, length);
        try
        {
            if (host < File.Length)
            {
                await File.WriteZeroesAsync(host, Math.Min(length, File.Length - host)).ConfigureAwait(false);
            }
            if (host + length > File.Length)
            {
                await File.ResizeAsync(host + length, growth).ConfigureAwait(false);
            }
        }
        catch
        {
            space.Free(held, host, length);
            throw;
        }
        return new(host);
    }

    /// <summary>Flushes where so much waits for it that new blocks would go to the end of the file for want of it.</summary>
    public async ValueTask FlushIfMuchWaitsAsync(MetadataSession.Held held, CancellationToken cancellationToken)
    {
        if (Space.Waiting > MaxWaiting)
        {
            await Session.FlushAsync(held, cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>
    /// Cuts off what lies past the last used MiB. A fixed disk keeps the room that all of its blocks need. Spec: 2.6.2.1.
    /// </summary>
    public async ValueTask TruncateAsync(MetadataSession.Held held, CancellationToken cancellationToken)
    {
        Session.Require(held);
        long end = Space.End;
        if (Metadata.IsFixed)
        {
            end += (Geometry.Blocks - await Bat.CountStoredAsync(cancellationToken).ConfigureAwait(false)) * Geometry.BlockSize;
        }
        if (end < File.Length)
        {
            await Log.AnnounceLengthAsync(end).ConfigureAwait(false);
            await File.ResizeAsync(end, PreallocationMode.Off, CancellationToken.None).ConfigureAwait(false);
        }
    }

    /// <summary>The structure of the file that a range meets; null for none.</summary>
    public string? StructureAt(long offset, long length)
    {
        if (offset < Header.LogOffset + Header.LogLength && Header.LogOffset < offset + length)
        {
            return "the log";
        }
        IReadOnlyList<VhdxRegion> regions = Regions.Regions;
        for (int i = 0; i < regions.Count; i++)
        {
            if (regions[i].Overlaps(offset, length))
            {
                return regions[i].Name;
            }
        }
        return null;
    }

    /// <summary>True if a block can lie at an offset, as far as the file and its structures go.</summary>
    public bool IsPlace(long offset, long length)
        => offset >= VhdxLayout.MiB && offset <= File.Length - length && StructureAt(offset, length) is null;

    /// <summary>Refuses a block that lies outside the file or on one of its structures.</summary>
    public void RequirePlace(long offset, long length, string what)
    {
        if (offset < VhdxLayout.MiB || offset > File.Length - length)
        {
            throw VhdxLayout.Corrupt(
                Name,
                $"the BAT puts {what} at offset {offset:#,0}; allowed: after the first MiB, its {length:#,0} "
                    + $"bytes inside the file's {File.Length:#,0}",
                offset);
        }
        if (StructureAt(offset, length) is { } structure)
        {
            throw VhdxLayout.Corrupt(Name, $"the BAT puts {what} at offset {offset:#,0}, where {structure} lies", offset);
        }
    }

    /// <summary>Counts in blocks as a disk of another size does. What the metadata say is another step.</summary>
    public void SetGeometry(MetadataSession.Held held, VhdxGeometry geometry)
    {
        Session.Require(held);
        Geometry = geometry;
    }

    /// <summary>Writes both region tables, through the log, and goes by them.</summary>
    public async ValueTask WriteRegionsAsync(MetadataSession.Held held, VhdxRegionTable regions)
    {
        Session.Require(held);
        var patch = new VhdxPatch(File);
        for (int i = 0; i < 2; i++)
        {
            await patch.PutAsync(VhdxRegionTable.PlaceOf(i), regions.Bytes).ConfigureAwait(false);
        }
        await Log.WriteAsync(patch.Updates).ConfigureAwait(false);
        Regions = regions;
    }

    /// <summary>The metadata region has changed: reads it.</summary>
    public async ValueTask ReadMetadataAsync(MetadataSession.Held held, CancellationToken cancellationToken)
    {
        Session.Require(held);
        Metadata = await VhdxMetadata.ReadAsync(File, Regions.Metadata, cancellationToken).ConfigureAwait(false);
    }

    private async ValueTask FlushAsync(MetadataSession.Held held, CancellationToken cancellationToken)
    {
        if (Cache.IsDirty)
        {
            await Cache.WriteBackAsync().ConfigureAwait(false);
        }
        else if (_log is not null)
        {
            await _log.FlushAsync().ConfigureAwait(false);
        }
        else
        {
            await File.FlushAsync(cancellationToken).ConfigureAwait(false);
        }
    }

    private async ValueTask ReleasedAsync(FileRange free, CancellationToken cancellationToken)
    {
        Cache.Forget(free.Start, free.Length);
        if (Options.Discard == VhdxDiscardMode.Unmap && free.Start < File.Length)
        {
            await File.DiscardAsync(free.Start, Math.Min(free.End, File.Length) - free.Start, cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>
    /// Brings changed pieces of the BAT and the bitmaps to the file: bitmaps first, then the BAT from its end. See the remarks on the node.
    /// </summary>
    private ValueTask JournalAsync(IReadOnlyList<CachedPiece> changed)
    {
        VhdxRegion bat = Regions.Bat;
        return Log.WriteAsync(
        [
            .. changed.Where(p => !bat.Overlaps(p.HostOffset, 1)).Concat(changed.Where(p => bat.Overlaps(p.HostOffset, 1)).Reverse())
                .Select(p => VhdxLogUpdate.Sector(p.HostOffset, p.Bytes)),
        ]);
    }

    /// <summary>Makes both headers name the log; none if that fails and the host lets it.</summary>
    private async ValueTask NameLogAsync(VhdxLog log)
    {
        try
        {
            await UpdateHeadersAsync(Header with { LogGuid = log.Id }).ConfigureAwait(false);
        }
        catch (DiskImageException)
        {
            try
            {
                await UpdateHeadersAsync(Header with { LogGuid = Guid.Empty }).ConfigureAwait(false);
            }
            catch (DiskImageException)
            {
                // What went wrong first is on its way; the log that a header may name is complete, and says nothing.
            }
            throw;
        }
    }

    /// <summary>Writes the header that does not count, which makes it the one that does.</summary>
    private async ValueTask UpdateHeaderAsync(VhdxHeader header)
    {
        header = header with { SequenceNumber = Header.SequenceNumber + 1 };
        await File.WriteAsync(VhdxHeader.PlaceOf(1 - _headerIndex), header.ToBytes()).ConfigureAwait(false);
        await File.FlushAsync().ConfigureAwait(false);
        (Header, _headerIndex) = (header, 1 - _headerIndex);
    }

    /// <summary>Writes one header, then the other, so that either will do.</summary>
    private async ValueTask UpdateHeadersAsync(VhdxHeader header)
    {
        await UpdateHeaderAsync(header).ConfigureAwait(false);
        await UpdateHeaderAsync(header).ConfigureAwait(false);
    }
}
