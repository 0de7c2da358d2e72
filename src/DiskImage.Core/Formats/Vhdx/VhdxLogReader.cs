using DiskImage.Binary;
using DiskImage.Block;

namespace DiskImage.Formats.Vhdx;

/// <summary>An update of the log as it is found there.</summary>
/// <param name="FileOffset">Where it goes.</param>
/// <param name="Length">Bytes.</param>
/// <param name="DataAt">Where in the file the data sector lies; -1 for zeroes.</param>
/// <param name="Leading">The first eight bytes of the data.</param>
/// <param name="Trailing">The last four.</param>
internal readonly record struct VhdxLoggedUpdate(long FileOffset, long Length, long DataAt, ulong Leading, uint Trailing);

/// <summary>What a log says must be done. Spec: MS-VHDX 2.3.2.</summary>
/// <param name="Updates">The changes, in order.</param>
/// <param name="FlushedFileOffset">The file is damaged if it is shorter than this.</param>
/// <param name="LastFileOffset">The file must be at least this long afterwards.</param>
/// <param name="SequenceNumber">Of the newest entry.</param>
/// <param name="Entries">How many entries there are.</param>
internal sealed record VhdxLogSequence(
    IReadOnlyList<VhdxLoggedUpdate> Updates, long FlushedFileOffset, long LastFileOffset, ulong SequenceNumber, int Entries);

/// <summary>
/// Finds the newest complete sequence of entries in a log. Spec: MS-VHDX 2.3.3.
/// </summary>
/// <remarks>
/// Every 4 KiB may begin an entry. From each such place, entries are followed as long as their sequence numbers rise by one; the
/// run counts if its last entry's tail is one of its entries, and the run that ends with the highest number is the one to replay.
/// An entry that is torn or damaged anywhere fails its checksum and ends a run. Work is bounded: each byte of a sound log is
/// checked about once, so a log that makes more work than a few times its length is taken for an attack.
/// </remarks>
internal sealed class VhdxLogReader
{
    private const int MaxUpdates = 1 << 20, WorkFactor = 8; // ours: a log of 4 GiB; see remarks
    private const int Chunk = VhdxLayout.MiB;

    private readonly BlockNode _file;
    private readonly VhdxHeader _header;
    private readonly byte[] _sector = new byte[VhdxLayout.Sector];
    private readonly byte[] _chunk;
    private long _work;

    private VhdxLogReader(BlockNode file, VhdxHeader header)
    {
        (_file, _header) = (file, header);
        _chunk = new byte[Math.Min(Chunk, header.LogLength)];
        _work = (header.LogLength * WorkFactor) + Chunk;
    }

    /// <summary>The sequence to replay.</summary>
    /// <exception cref="DiskImageException">Corrupt: there is none, or it does not fit the file.</exception>
    public static async ValueTask<VhdxLogSequence> FindAsync(BlockNode file, VhdxHeader header, CancellationToken cancellationToken)
    {
        var reader = new VhdxLogReader(file, header);
        return await reader.FindAsync(cancellationToken).ConfigureAwait(false);
    }

    private async ValueTask<VhdxLogSequence> FindAsync(CancellationToken cancellationToken)
    {
        List<(long At, VhdxLogEntryHeader Header)> best = [];
        var hopeless = new HashSet<long>(); // entries of runs without their tail: what begins at one of them lacks it too
        for (long tail = 0; tail < _header.LogLength;)
        {
            List<(long At, VhdxLogEntryHeader Header)> run = hopeless.Contains(tail)
                ? []
                : await RunFromAsync(tail, cancellationToken).ConfigureAwait(false);
            if (run.Count == 0 || !run.Exists(e => e.At == run[^1].Header.Tail))
            {
                hopeless.UnionWith(run.Select(e => e.At));
                tail += VhdxLayout.Sector;
                continue;
            }
            if (best.Count == 0 || run[^1].Header.SequenceNumber > best[^1].Header.SequenceNumber)
            {
                best = run;
            }
            tail += run.Sum(e => e.Header.EntryLength);
        }
        if (best.Count == 0)
        {
            throw Corrupt("the header says that the log is not empty, but no complete sequence of entries is in it. The open option "
                + "discard_log=on opens the disk as it was before the lost updates");
        }
        return await ReadUpdatesAsync(best[best.FindIndex(e => e.At == best[^1].Header.Tail)..], cancellationToken).ConfigureAwait(false);
    }

    /// <summary>The entries that follow each other from a place on.</summary>
    private async ValueTask<List<(long At, VhdxLogEntryHeader Header)>> RunFromAsync(long at, CancellationToken cancellationToken)
    {
        var run = new List<(long At, VhdxLogEntryHeader Header)>();
        for (long length = 0; ;)
        {
            cancellationToken.ThrowIfCancellationRequested();
            Work(VhdxLayout.Sector);
            await ReadLogAsync(at, _sector, cancellationToken).ConfigureAwait(false);
            if (!VhdxLogEntry.TryReadHeader(_sector, _header.LogGuid, _header.LogLength, out VhdxLogEntryHeader header)
                || (run.Count > 0 && header.SequenceNumber != run[^1].Header.SequenceNumber + 1)
                || length + header.EntryLength > _header.LogLength // it would run into its own beginning
                || !await IsSoundAsync(at, header, cancellationToken).ConfigureAwait(false))
            {
                return run;
            }
            run.Add((at, header));
            length += header.EntryLength;
            at = (at + header.EntryLength) % _header.LogLength;
        }
    }

    /// <summary>True if an entry's checksum is right. The sector at hand is its first.</summary>
    private async ValueTask<bool> IsSoundAsync(long at, VhdxLogEntryHeader header, CancellationToken cancellationToken)
    {
        Work(header.EntryLength);
        uint stored = VhdxLogEntry.Checksum(_sector), state = VhdxLogEntry.AddFirst(Crc32C.Start, _sector);
        for (long done = VhdxLayout.Sector; done < header.EntryLength;)
        {
            int count = (int)Math.Min(_chunk.Length, header.EntryLength - done);
            await ReadLogAsync(at + done, _chunk.AsMemory(0, count), cancellationToken).ConfigureAwait(false);
            state = Crc32C.Add(state, _chunk.AsSpan(0, count));
            done += count;
        }
        return stored == Crc32C.Finish(state);
    }

    private async ValueTask<VhdxLogSequence> ReadUpdatesAsync(
        List<(long At, VhdxLogEntryHeader Header)> entries, CancellationToken cancellationToken)
    {
        VhdxLogEntryHeader head = entries[^1].Header;
        if (head.FlushedFileOffset > (ulong)_file.Length)
        {
            throw Corrupt($"the log was written when the file had {head.FlushedFileOffset:#,0} bytes, and now it has "
                + $"{_file.Length:#,0}: it was truncated");
        }
        if (head.LastFileOffset > (ulong)VhdxLayout.MaxFileSize)
        {
            throw Corrupt($"the log wants the file to have {head.LastFileOffset:#,0} bytes; allowed: at most {VhdxLayout.MaxFileSize:#,0}");
        }
        long total = entries.Sum(e => (long)e.Header.DescriptorCount);
        if (total > MaxUpdates)
        {
            throw Corrupt($"the log has {total:#,0} updates to replay; this program allows {MaxUpdates:#,0}");
        }
        var updates = new List<VhdxLoggedUpdate>((int)total);
        foreach ((long at, VhdxLogEntryHeader header) in entries)
        {
            await ReadEntryAsync(at, header, updates, cancellationToken).ConfigureAwait(false);
        }
        return new(updates, (long)head.FlushedFileOffset, (long)head.LastFileOffset, head.SequenceNumber, entries.Count);
    }

    private async ValueTask ReadEntryAsync(
        long at, VhdxLogEntryHeader header, List<VhdxLoggedUpdate> updates, CancellationToken cancellationToken)
    {
        byte[] descriptors = new byte[VhdxLogEntry.DescriptorSectors(header.DescriptorCount) * VhdxLayout.Sector];
        await ReadLogAsync(at, descriptors, cancellationToken).ConfigureAwait(false);
        long dataAt = descriptors.Length;
        for (int i = 0; i < header.DescriptorCount; i++)
        {
            ReadOnlyMemory<byte> descriptor = descriptors.AsMemory(
                VhdxLogEntry.HeaderBytes + (i * VhdxLogEntry.DescriptorBytes), VhdxLogEntry.DescriptorBytes);
            if (!VhdxLogEntry.TryReadDescriptor(
                descriptor.Span, header.SequenceNumber, out long fileOffset, out long length, out bool isZero))
            {
                throw Corrupt($"descriptor {i} of the log entry at {at:#,0} is not what its checksum vouches for: a signature, a "
                    + $"sequence number or an alignment is wrong");
            }
            if (length > 0 && (fileOffset < VhdxLayout.RegionTable1At || (
                fileOffset < _header.LogOffset + _header.LogLength && _header.LogOffset < fileOffset + length)))
            {
                throw Corrupt(
                    $"descriptor {i} of the log entry at {at:#,0} would overwrite the headers or the log, at offset {fileOffset:#,0}");
            }
            long host = -1;
            if (!isZero)
            {
                if (dataAt >= header.EntryLength)
                {
                    throw Corrupt($"the log entry at {at:#,0} has fewer data sectors than data descriptors");
                }
                host = _header.LogOffset + ((at + dataAt) % _header.LogLength);
                await _file.ReadAsync(host, _sector, cancellationToken).ConfigureAwait(false);
                if (!VhdxLogEntry.IsDataSector(_sector, header.SequenceNumber))
                {
                    throw Corrupt(
                        $"a data sector of the log entry at {at:#,0} does not bear the entry's sequence number {header.SequenceNumber}");
                }
                dataAt += VhdxLayout.Sector;
            }
            updates.Add(new(fileOffset, length, host, LittleEndian.U64(descriptor.Span, 8), LittleEndian.U32(descriptor.Span, 4)));
        }
    }

    /// <summary>Reads from the ring.</summary>
    private async ValueTask ReadLogAsync(long at, Memory<byte> buffer, CancellationToken cancellationToken)
    {
        at %= _header.LogLength;
        int first = (int)Math.Min(buffer.Length, _header.LogLength - at);
        await _file.ReadAsync(_header.LogOffset + at, buffer[..first], cancellationToken).ConfigureAwait(false);
        if (first < buffer.Length)
        {
            await ReadLogAsync(0, buffer[first..], cancellationToken).ConfigureAwait(false);
        }
    }

    private void Work(long bytes)
    {
        _work -= bytes;
        if (_work < 0)
        {
            throw Corrupt("the log is made of entries that overlap each other, so that looking through it would not end");
        }
    }

    private DiskImageException Corrupt(string what) => VhdxLayout.Corrupt(_file.Name, what, _header.LogOffset);
}
