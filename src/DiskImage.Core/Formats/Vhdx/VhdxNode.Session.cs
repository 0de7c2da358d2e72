using System.Buffers;
using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Vhdx;

/// <summary>What surrounds writing: headers, log, flushing, closing. Spec: MS-VHDX 2.2.2.1, 2.3.</summary>
/// <remarks>
/// A session begins with the first change, not with the opening: first one header with new identifiers and still without log, then
/// the first log entry, then both headers naming the log. So at any time the header that counts names a log that has a valid entry,
/// or none. It ends, when the disk is closed, with both headers saying that the log is empty.
/// </remarks>
internal sealed partial class VhdxNode
{
    private VhdxLog? _log;
    private VhdxSpace? _space;
    private bool _isNewData; // the DataWriteGuid is this session's
    private Guid? _comingData; // the one that the first change in sight will bring, once it has been told to children

    /// <summary>The identity that the contents have after the next change that a reader can see. The metadata lock guards it.</summary>
    private Guid ComingDataWriteGuid => _isNewData ? _header.DataWriteGuid : _comingData ??= NewIdentity.Of("vhdx data after", _header.DataWriteGuid);

    private Guid NextFileWriteGuid => NewIdentity.Of("vhdx file after", _header.FileWriteGuid, _header.SequenceNumber);

    protected override ValueTask FlushCoreAsync(CancellationToken cancellationToken)
        => UnderGateAsync(() => FlushLockedAsync(cancellationToken));

    protected override async ValueTask CloseCoreAsync()
    {
        try
        {
            if (!IsReadOnly)
            {
                await UnderGateAsync(EndAsync).ConfigureAwait(false);
            }
        }
        finally
        {
            _gate.Dispose();
        }
    }

    /// <summary>Called before anything in the file changes.</summary>
    /// <param name="isVisible">The change is one that a reader of the disk can see.</param>
    private async ValueTask BeginAsync(bool isVisible)
    {
        if (_log is null)
        {
            Guid data = isVisible ? ComingDataWriteGuid : _header.DataWriteGuid;
            await UpdateHeaderAsync(_header with { FileWriteGuid = NextFileWriteGuid, DataWriteGuid = data, LogGuid = Guid.Empty, LogVersion = VhdxHeader.SupportedLogVersion }).ConfigureAwait(false);
            var log = new VhdxLog(File, _header);
            await log.BeginAsync().ConfigureAwait(false);
            await NameLogAsync(log).ConfigureAwait(false);
            (_log, _isNewData) = (log, isVisible);
        }
        else if (isVisible && !_isNewData)
        {
            await UpdateHeadersAsync(_header with { DataWriteGuid = ComingDataWriteGuid }).ConfigureAwait(false);
            _isNewData = true;
        }
    }

    /// <summary>Makes both headers name the log; none if that fails and the host lets it.</summary>
    private async ValueTask NameLogAsync(VhdxLog log)
    {
        try
        {
            await UpdateHeadersAsync(_header with { LogGuid = log.Id }).ConfigureAwait(false);
        }
        catch (DiskImageException)
        {
            try
            {
                await UpdateHeadersAsync(_header with { LogGuid = Guid.Empty }).ConfigureAwait(false);
            }
            catch (DiskImageException)
            {
                // What went wrong first is on its way; the log that a header may name is complete, and says nothing.
            }
            throw;
        }
    }

    private async ValueTask EndAsync()
    {
        if (_log is null)
        {
            return;
        }
        await FlushLockedAsync(CancellationToken.None).ConfigureAwait(false);
        await _log.FlushAsync().ConfigureAwait(false); // the last updates are in place, durably
        await UpdateHeadersAsync(_header with { LogGuid = Guid.Empty }).ConfigureAwait(false);
        _log = null;
        (_isNewData, _comingData) = (false, null);
    }

    private async ValueTask ReplayAsync(VhdxLogSequence log, CancellationToken cancellationToken)
    {
        await UpdateHeaderAsync(_header with { FileWriteGuid = NextFileWriteGuid }).ConfigureAwait(false); // spec: 2.2.2, before playback
        await VhdxReplay.ApplyAsync(File, log, cancellationToken).ConfigureAwait(false);
        await UpdateHeadersAsync(_header with { LogGuid = Guid.Empty }).ConfigureAwait(false);
    }

    /// <summary>Writes the header that does not count, which makes it the one that does.</summary>
    private async ValueTask UpdateHeaderAsync(VhdxHeader header)
    {
        header = header with { SequenceNumber = _header.SequenceNumber + 1 };
        await File.WriteAsync(VhdxHeader.PlaceOf(1 - _headerIndex), header.ToBytes()).ConfigureAwait(false);
        await File.FlushAsync().ConfigureAwait(false);
        (_header, _headerIndex) = (header, 1 - _headerIndex);
    }

    /// <summary>Writes one header, then the other, so that either will do.</summary>
    private async ValueTask UpdateHeadersAsync(VhdxHeader header)
    {
        await UpdateHeaderAsync(header).ConfigureAwait(false);
        await UpdateHeaderAsync(header).ConfigureAwait(false);
    }

    private async ValueTask FlushLockedAsync(CancellationToken cancellationToken)
    {
        if (_cache.IsDirty)
        {
            await _cache.WriteBackAsync().ConfigureAwait(false);
        }
        else if (_log is not null)
        {
            await _log.FlushAsync().ConfigureAwait(false);
        }
        else
        {
            await File.FlushAsync(cancellationToken).ConfigureAwait(false);
        }
        if (_space is null)
        {
            return;
        }
        foreach ((long offset, long length) in _space.Release())
        {
            _cache.Forget(offset, length);
            if (_options.Discard == VhdxDiscardMode.Unmap && offset < File.Length)
            {
                await File.DiscardAsync(offset, Math.Min(length, File.Length - offset), cancellationToken).ConfigureAwait(false);
            }
        }
    }

    /// <summary>Brings changed pieces of the BAT and the bitmaps to the file: bitmaps first, then the BAT from its end. See the remarks on the disk.</summary>
    private ValueTask JournalAsync(IReadOnlyList<CachedPiece> changed)
    {
        VhdxRegion bat = _regions.Bat;
        return _log!.WriteAsync(
        [
            .. changed.Where(p => !bat.Overlaps(p.HostOffset, 1)).Concat(changed.Where(p => bat.Overlaps(p.HostOffset, 1)).Reverse())
                .Select(p => VhdxLogUpdate.Sector(p.HostOffset, p.Bytes)),
        ]);
    }

    /// <summary>The space map, made when it is first needed. Nothing in the BAT may have changed before.</summary>
    private async ValueTask<VhdxSpace> SpaceAsync()
    {
        if (_space is not null)
        {
            return _space;
        }
        return _space = await MapSpaceAsync(isStrict: true).ConfigureAwait(false);
    }

    /// <summary>The places of everything but blocks.</summary>
    internal void MarkStructures(VhdxSpace space)
    {
        _ = space.TryMark(0, VhdxLayout.HeaderSection);
        _ = space.TryMark(_header.LogOffset, _header.LogLength);
        foreach (VhdxRegion region in _regions.Regions)
        {
            _ = space.TryMark(region.Offset, region.Length);
        }
    }

    private async ValueTask<VhdxSpace> MapSpaceAsync(bool isStrict)
    {
        var space = new VhdxSpace(Name);
        MarkStructures(space);
        await EachBatPartAsync(EntriesInUse, (firstIndex, entries) =>
        {
            if (space.MarkEntries(entries.Span, firstIndex, _geometry, File.Length, isStrict) is (long index, string why))
            {
                throw VhdxLayout.Corrupt(
                    Name, $"BAT entry {index} {why}, so no place can be chosen for new data. Nothing was written; Repair-DiskImage -Mode All may put it right", _regions.Bat.Offset + (index * VhdxGeometry.EntryBytes));
            }
        }, CancellationToken.None).ConfigureAwait(false);
        await EachStaleEntryAsync((_, entry) => MarkStale(space, entry), CancellationToken.None).ConfigureAwait(false);
        return space;
    }

    /// <summary>Keeps the place that a stale entry names from being used, unless it is in use: else it would come to name something that lives.</summary>
    internal void MarkStale(VhdxSpace space, BatEntry entry)
    {
        if (IsStalePlace(entry) && !space.IsUsed(entry.FileOffset, _geometry.BlockSize))
        {
            _ = space.TryMark(entry.FileOffset, _geometry.BlockSize);
        }
    }

    /// <summary>True if a block could lie where a stale entry says.</summary>
    internal bool IsStalePlace(BatEntry entry) => entry.FileOffset >= VhdxLayout.MiB && entry.FileOffset <= File.Length - _geometry.BlockSize;

    /// <summary>Shows the entries behind the last block that name a place, as they are in the file. They mean nothing; holes are not read.</summary>
    internal async ValueTask EachStaleEntryAsync(Action<long, BatEntry> visit, CancellationToken cancellationToken)
    {
        byte[] buffer = ArrayPool<byte>.Shared.Rent(VhdxLayout.MiB);
        try
        {
            long at = _regions.Bat.Offset + (_geometry.EntriesWithoutBitmaps * VhdxGeometry.EntryBytes), end = Math.Min(_regions.Bat.End, File.Length);
            while (at < end)
            {
                BlockExtent extent = await File.GetExtentAsync(at, end - at, cancellationToken).ConfigureAwait(false);
                if (extent.IsZero)
                {
                    at = Binary.Round.Down(extent.End, VhdxGeometry.EntryBytes) is var next && next > at ? next : at + VhdxGeometry.EntryBytes;
                    continue;
                }
                Memory<byte> part = buffer.AsMemory(0, (int)Math.Min(VhdxLayout.MiB, Math.Max(VhdxGeometry.EntryBytes, Binary.Round.Down(extent.Length, VhdxGeometry.EntryBytes))));
                await File.ReadPaddedAsync(at, part, cancellationToken).ConfigureAwait(false);
                ShowStale(part.Span, (at - _regions.Bat.Offset) / VhdxGeometry.EntryBytes, visit);
                at += part.Length;
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }
    }

    private void ShowStale(ReadOnlySpan<byte> entries, long firstIndex, Action<long, BatEntry> visit)
    {
        for (int at = 0; at < entries.Length; at += VhdxGeometry.EntryBytes)
        {
            int skipped = entries[at..].IndexOfAnyExcept((byte)0);
            if (skipped < 0)
            {
                return;
            }
            at += (int)Binary.Round.Down(skipped, VhdxGeometry.EntryBytes);
            var entry = new BatEntry(Binary.LittleEndian.U64(entries, at));
            long index = firstIndex + (at / VhdxGeometry.EntryBytes);
            if (entry.FileOffset != 0 && !_geometry.IsInUse(index, _metadata.HasParent))
            {
                visit(index, entry);
            }
        }
    }

    /// <summary>Called before what the disk shows changes: blocks that share a place are found before one is written to.</summary>
    private async ValueTask BeginChangeAsync()
    {
        _ = await SpaceAsync().ConfigureAwait(false);
        await BeginAsync(isVisible: true).ConfigureAwait(false);
    }

    /// <summary>Entries of the BAT that mean something: with those of bitmap blocks if the disk has a parent and the region has the room.</summary>
    internal long EntriesInUse => _metadata.HasParent
        ? Math.Min(_geometry.EntriesWithBitmaps, _regions.Bat.Length / VhdxGeometry.EntryBytes)
        : _geometry.EntriesWithoutBitmaps;

    /// <summary>Shows a number of entries of the BAT, a part at a time, as they are in the file.</summary>
    private async ValueTask EachBatPartAsync(long entries, Action<long, ReadOnlyMemory<byte>> visit, CancellationToken cancellationToken)
    {
        byte[] buffer = ArrayPool<byte>.Shared.Rent(VhdxLayout.MiB);
        try
        {
            long total = entries * VhdxGeometry.EntryBytes;
            for (long done = 0; done < total; done += VhdxLayout.MiB)
            {
                Memory<byte> part = buffer.AsMemory(0, (int)Math.Min(VhdxLayout.MiB, total - done));
                await File.ReadPaddedAsync(_regions.Bat.Offset + done, part, cancellationToken).ConfigureAwait(false);
                visit(done / VhdxGeometry.EntryBytes, part);
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }
    }
}
