using System.Buffers;
using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Compression;
using DiskImage.Metadata;

namespace DiskImage.Formats.Qcow;

/// <summary>
/// Looks at all tables of an image as it is in its file: entries outside the file, two uses of one place, clusters that do not decompress,
/// space that nothing uses. One bit of memory a cluster of the file.
/// </summary>
/// <remarks>
/// Compressed clusters share units of the file with each other, but not with anything else. A table that several L1
/// entries lead to is read once.
/// </remarks>
internal sealed class QcowChecker(BlockNode file, QcowHeader header, PointerTable l1)
{
    private const long MostUnits = 1L << 32; // of a file: 512 MiB of memory a map. Ours

    private readonly SpaceMap _plain = NewMap(file, header), _all = NewMap(file, header);
    private long _allocated, _compressed, _fragmented, _next = -1;

    /// <summary>True if an L1 entry leads to a table that is in the file.</summary>
    public static bool IsTable(ulong place, QcowHeader header, long fileLength)
        => place >= QcowHeader.Length && place % QcowHeader.EntryBytes == 0 && place <= (ulong)Math.Max(0, fileLength - header.L2Bytes);

    /// <summary>Refuses an entry that leads out of the file.</summary>
    public static void RequirePlace(QcowEntry entry, long cluster, QcowHeader header, BlockNode file)
    {
        if (!IsCluster(entry, header, file.Length))
        {
            (long host, int length) = entry.Range(header.ClusterBits);
            throw new DiskImageException(
                DiskImageErrorKind.Corrupt,
                $"{file.Name}: the cluster for guest offset {cluster << header.ClusterBits:#,0} is said to be at offset {host:#,0}, "
                    + $"{length:#,0} bytes long; allowed: behind the header,"
                    + $" in the file of {file.Length:#,0} bytes. Look at all of it with {new Remedy(RemedyKind.Check)}.",
                file.Name,
                host);
        }
    }

    /// <summary>
    /// True if an entry leads to a cluster that is in the file. QEMU leaves the last one short, which then ends in zeroes.
    /// </summary>
    public static bool IsCluster(QcowEntry entry, QcowHeader header, long fileLength)
    {
        (long host, int length) = entry.Range(header.ClusterBits);
        return host >= QcowHeader.Length && length > 0
            && (entry.IsCompressed ? host <= fileLength - length : host % QcowHeader.SectorSize == 0 && host < fileLength);
    }

    /// <summary>Decompresses a cluster; false if it is not in the file or damaged.</summary>
    public static async ValueTask<bool> TryDecodeAsync(
        BlockNode file, QcowEntry entry, QcowHeader header, Memory<byte> output, CancellationToken cancellationToken)
    {
        if (!IsCluster(entry, header, file.Length))
        {
            return false;
        }
        (long host, int length) = entry.Range(header.ClusterBits);
        byte[] packed = ArrayPool<byte>.Shared.Rent(length);
        try
        {
            await file.ReadAsync(host, packed.AsMemory(0, length), cancellationToken).ConfigureAwait(false);
            return DeflateCodec.Instance.TryDecompress(packed.AsSpan(0, length), output.Span);
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(packed);
        }
    }

    /// <summary>Checks everything.</summary>
    /// <param name="findings">Where it is said.</param>
    /// <param name="bytes">Told how far it is.</param>
    /// <param name="decode">True to decompress every compressed cluster.</param>
    /// <param name="cancellationToken">Stops it.</param>
    public async ValueTask<CheckReport> RunAsync(
        CheckFindings findings, IProgress<long>? bytes, bool decode, CancellationToken cancellationToken)
    {
        Mark(_plain, 0, QcowHeader.Length);
        foreach ((long start, long length) in Fixed())
        {
            Mark(_plain, start, length);
        }
        var seen = new HashSet<long>();
        byte[] table = new byte[header.L2Bytes];
        for (int index = l1.NextUsed(0); index < l1.Count; index = l1.NextUsed(index + 1))
        {
            cancellationToken.ThrowIfCancellationRequested();
            ulong place = l1[index];
            long guest = index * header.Span;
            if (!IsTable(place, header, file.Length))
            {
                findings.Corruption(
                    "OutOfFile",
                    $"L2 table {index:#,0} is said to be at offset {place:#,0}, outside the file of {file.Length:#,0} bytes",
                    null,
                    guest,
                    header.Span,
                    (long)(place & long.MaxValue));
                continue;
            }
            if (!MarkNew(seen, (long)place))
            {
                findings.Corruption(
                    "Overlap",
                    $"L2 table {index:#,0} at offset {place:#,0} overlaps something else",
                    null,
                    guest,
                    header.Span,
                    (long)place);
                continue;
            }
            if (await file.GetExtentAsync((long)place, header.L2Bytes, cancellationToken).ConfigureAwait(false) is { IsZero: true } hole
                && hole.Length == header.L2Bytes)
            {
                continue;
            }
            await file.ReadAsync((long)place, table, cancellationToken).ConfigureAwait(false);
            await CheckTableAsync(table, guest, findings, decode, cancellationToken).ConfigureAwait(false);
            bytes?.Report(Math.Min(header.Size, guest + header.Span));
        }
        await CheckPackedAsync(seen, findings, cancellationToken).ConfigureAwait(false);
        ReportGaps(findings);
        return new CheckReport
        {
            Findings = findings.List,
            Corruptions = findings.Corruptions,
            Leaks = findings.Leaks,
            CheckErrors = findings.Errors,
            TotalClusters = Round.Units(header.Size, header.ClusterSize),
            AllocatedClusters = _allocated,
            FragmentedClusters = _fragmented,
            CompressedClusters = _compressed,
            ImageEndOffset = Math.Min(file.Length, _all.End),
        };
    }

    private static SpaceMap NewMap(BlockNode file, QcowHeader header)
        => new(header.ClusterSize, header.ClusterSize * MostUnits, end => new DiskImageException(
            DiskImageErrorKind.Unsupported,
            $"{file.Name}: something ends at offset {end:#,0}; files of up to {header.ClusterSize * MostUnits:#,0} bytes "
                + $"are looked at here. Convert it to qcow2.",
            file.Name,
            end));

    /// <summary>The L1 table and the backing file's name, which may lie in units of their own.</summary>
    private IEnumerable<(long Start, long Length)> Fixed()
    {
        yield return (header.L1Offset, (long)header.L1Entries * QcowHeader.EntryBytes);
        if (header.BackingFile is { } name)
        {
            yield return (header.NameOffset, System.Text.Encoding.UTF8.GetByteCount(name));
        }
    }

    private void Mark(SpaceMap map, long start, long length)
    {
        if (length > 0)
        {
            _ = map.TryMark(start, length);
            _ = _all.TryMark(start, length);
        }
    }

    private bool MarkNew(HashSet<long> seen, long place)
    {
        bool isNew = seen.Add(place);
        _ = _all.TryMark(place, header.L2Bytes);
        return _plain.TryMark(place, header.L2Bytes) && isNew;
    }

    private bool MarkPlain(long start, long length)
    {
        _ = _all.TryMark(start, length);
        return _plain.TryMark(start, length);
    }

    private async ValueTask CheckTableAsync(
        byte[] table, long guest, CheckFindings findings, bool decode, CancellationToken cancellationToken)
    {
        var packed = new List<(QcowEntry Entry, long Guest)>();
        for (int i = 0; i < header.L2Entries; i++)
        {
            var entry = new QcowEntry(BigEndian.U64(table, i * QcowHeader.EntryBytes));
            if (entry.IsNowhere)
            {
                continue;
            }
            long at = guest + ((long)i << header.ClusterBits);
            (long host, int length) = entry.Range(header.ClusterBits);
            _allocated++;
            _fragmented += _next >= 0 && host != _next ? 1 : 0;
            _next = host + length;
            if (!IsCluster(entry, header, file.Length))
            {
                findings.Corruption(
                    "OutOfFile",
                    $"the cluster for guest offset {at:#,0} is said to be at offset {host:#,0}, {length:#,0} "
                        + $"bytes long, in a file of {file.Length:#,0}",
                    null,
                    at,
                    header.ClusterSize,
                    host);
            }
            else if (entry.IsCompressed)
            {
                _compressed++;
                Mark(_all, host, length);
                packed.Add((entry, at));
            }
            else if (!MarkPlain(host, Math.Min(length, file.Length - host)))
            {
                findings.Corruption(
                    "Overlap",
                    $"the cluster for guest offset {at:#,0} at offset {host:#,0} overlaps something else",
                    null,
                    at,
                    header.ClusterSize,
                    host);
            }
        }
        if (decode)
        {
            await DecodeAsync(packed, findings, cancellationToken).ConfigureAwait(false);
        }
    }

    private Task DecodeAsync(List<(QcowEntry Entry, long Guest)> packed, CheckFindings findings, CancellationToken cancellationToken)
        => Parallel.ForEachAsync(packed, cancellationToken, async (cluster, token) =>
        {
            byte[] buffer = ArrayPool<byte>.Shared.Rent(header.ClusterSize);
            try
            {
                if (!await TryDecodeAsync(file, cluster.Entry, header, buffer.AsMemory(0, header.ClusterSize), token).ConfigureAwait(false))
                {
                    lock (findings)
                    {
                        findings.Corruption(
                            "BadCluster",
                            $"the compressed cluster for guest offset {cluster.Guest:#,0} does not "
                                + $"decompress to {header.ClusterSize:#,0} bytes",
                            null,
                            cluster.Guest,
                            header.ClusterSize,
                            cluster.Entry.Range(header.ClusterBits).Host);
                    }
                }
            }
            finally
            {
                ArrayPool<byte>.Shared.Return(buffer);
            }
        });

    /// <summary>Now that all plain clusters are known: no compressed one may lie in theirs.</summary>
    private async ValueTask CheckPackedAsync(HashSet<long> tables, CheckFindings findings, CancellationToken cancellationToken)
    {
        byte[] table = new byte[header.L2Bytes];
        for (int index = l1.NextUsed(0); _compressed > 0 && index < l1.Count; index = l1.NextUsed(index + 1))
        {
            cancellationToken.ThrowIfCancellationRequested();
            if (!tables.Remove((long)l1[index]))
            {
                continue;
            }
            await file.ReadAsync((long)l1[index], table, cancellationToken).ConfigureAwait(false);
            for (int i = 0; i < header.L2Entries; i++)
            {
                var entry = new QcowEntry(BigEndian.U64(table, i * QcowHeader.EntryBytes));
                (long host, int length) = entry.Range(header.ClusterBits);
                if (entry.IsCompressed && IsCluster(entry, header, file.Length) && OverlapsPlain(host, length))
                {
                    long at = (index * header.Span) + ((long)i << header.ClusterBits);
                    findings.Corruption(
                        "Overlap",
                        $"the compressed cluster for guest offset {at:#,0} at offset {host:#,0} overlaps something else",
                        null,
                        at,
                        header.ClusterSize,
                        host);
                }
            }
        }
    }

    /// <summary>
    /// Structures at the beginning of the file share units with the first compressed clusters; they are looked at byte by byte.
    /// </summary>
    private bool OverlapsPlain(long host, int length)
    {
        long fixedEnd = Fixed().Select(f => f.Start + f.Length).Where(e => e <= host).DefaultIfEmpty(0).Max();
        bool touchesFixed = Fixed().Any(f => host < f.Start + f.Length && f.Start < host + length);
        long start = fixedEnd > Round.Down(host, header.ClusterSize) ? Round.Up(host, header.ClusterSize) : host;
        return touchesFixed || (start < host + length && _plain.IsUsed(start, host + length - start));
    }

    private void ReportGaps(CheckFindings findings)
    {
        long end = _all.End;
        foreach (FileRange gap in _all.Gaps())
        {
            findings.Leak(
                $"{gap.Length:#,0} bytes at offset {gap.Start:#,0} are not used",
                "convert the image: this format has no way to use them again",
                gap.Start,
                gap.Length / header.ClusterSize);
        }
        if (file.Length - end >= header.ClusterSize)
        {
            findings.Leak(
                $"{file.Length - end:#,0} bytes at the end, from offset {end:#,0} on, are not used",
                "convert the image",
                end,
                (file.Length - end) / header.ClusterSize);
        }
    }
}
