using System.Buffers;
using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Vmdk;

/// <summary>Something wrong with where a grain table is said to be.</summary>
/// <param name="Kind">A short stable word.</param>
/// <param name="IsRedundant">It is the redundant copy.</param>
/// <param name="Index">Its number in the directory.</param>
/// <param name="Message">What is wrong.</param>
internal readonly record struct VmdkTableFault(string Kind, bool IsRedundant, int Index, string Message);

/// <summary>
/// Finds what is wrong with the directories and tables of a sparse extent, puts it right, and keeps the two copies alike.
/// </summary>
/// <remarks>It works on the file as it is, so nothing may be waiting to be written.</remarks>
internal sealed class VmdkTableCare(BlockNode file, VmdkGrainTables tables, VmdkLayout layout)
{
    private const int ReadBytes = 1 << 20;

    private VmdkHeader Header => tables.Header;

    /// <summary>True if the header speaks of a redundant directory that is not in the file as a whole.</summary>
    public bool IsRedundantLost => Header.HasRedundant && !tables.IsDirectoryLost && tables.Redundant.Count < tables.Count;

    /// <summary>Tables that are said to be where they cannot be: out of the file, or on something else.</summary>
    public IEnumerable<VmdkTableFault> Faults()
    {
        var places = new List<(long Place, int Index, bool IsRedundant)>();
        foreach (bool isRedundant in new[] { false, true })
        {
            BlockTable<VmdkEntry> directory = isRedundant ? tables.Redundant : tables.Directory;
            foreach ((int index, VmdkEntry table) in directory.Used())
            {
                if (tables.IsTable(table) && !tables.IsZeroed(table))
                {
                    places.Add((table.Place, index, isRedundant));
                }
                else if (!tables.IsZeroed(table))
                {
                    yield return new(
                        "TableOutOfFile",
                        isRedundant,
                        index,
                        $"{NameOf(index, isRedundant)} is at sector {table.Value:#,0}, and the file has {file.Length:#,0} bytes");
                }
            }
        }
        places.Sort();
        IReadOnlyList<FileRange> structures = layout.FixedStructures();
        long end = 0;
        (int Index, bool IsRedundant) before = default;
        foreach ((long place, int index, bool isRedundant) in places)
        {
            string? obstacle = structures.Where(s => s.Meets(place, place + tables.TableBytes)).Select(s => s.What).FirstOrDefault()
                ?? (place < end ? NameOf(before.Index, before.IsRedundant) : null);
            if (obstacle is not null)
            {
                yield return new("TableOverlap", isRedundant, index,
                    $"{NameOf(index, isRedundant)} at offset {place:#,0} overlaps {obstacle}");
            }
            else
            {
                (end, before) = (place + tables.TableBytes, (index, isRedundant));
            }
        }
    }

    /// <summary>Counts the tables whose two copies differ, or makes the redundant ones alike.</summary>
    public async ValueTask<long> CompareAsync(bool makeAlike, CancellationToken cancellationToken)
    {
        long differing = 0;
        byte[] first = ArrayPool<byte>.Shared.Rent(ReadBytes), second = ArrayPool<byte>.Shared.Rent(ReadBytes);
        int most = Math.Max(1, ReadBytes / tables.TableBytes);
        try
        {
            for (int index = 0; index < tables.Redundant.Count;)
            {
                cancellationToken.ThrowIfCancellationRequested();
                if (!IsPair(index))
                {
                    index = Math.Max(index + 1, Math.Min(tables.Directory.NextUsed(index), tables.Redundant.NextUsed(index)));
                    continue;
                }
                int count = 1;
                while (count < most && index + count < tables.Redundant.Count && IsPair(index + count)
                    && Follows(tables.Directory, index, count) && Follows(tables.Redundant, index, count))
                {
                    count++;
                }
                differing += await CompareRunAsync(index, count, first, second, makeAlike, cancellationToken).ConfigureAwait(false);
                index += count;
            }
            return differing;
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(first);
            ArrayPool<byte>.Shared.Return(second);
        }

        bool IsPair(int index)
            => tables.IsTable(tables.Directory[index]) && tables.IsTable(tables.Redundant[index])
                && !tables.IsZeroed(tables.Directory[index]);

        bool Follows(BlockTable<VmdkEntry> directory, int index, int count)
            => directory[index + count].Place == directory[index].Place + ((long)count * tables.TableBytes);
    }

    /// <summary>
    /// Gives each table that is wrong a place of its own at the end of the file, with what the other copy says, or itself if that is wrong
    /// as well.
    /// </summary>
    public async ValueTask MendAsync(MetadataSession session, MetadataSession.Held held)
    {
        VmdkTableFault[] faults = [.. Faults()];
        StagedRepair.RequireFewCopies(file, faults.Length, tables.TableBytes);
        HashSet<(int, bool)> wrong = [.. faults.Select(f => (f.Index, f.IsRedundant))];
        long end = Round.Up(file.Length, VmdkHeader.SectorSize);
        await file.ResizeAsync(end + (faults.Length * Round.Up(tables.TableBytes, VmdkHeader.SectorSize))).ConfigureAwait(false);
        foreach (VmdkTableFault fault in faults)
        {
            BlockTable<VmdkEntry> own = fault.IsRedundant ? tables.Redundant : tables.Directory;
            BlockTable<VmdkEntry> others = fault.IsRedundant ? tables.Directory : tables.Redundant;
            VmdkEntry other = fault.Index < others.Count ? others[fault.Index] : default;
            VmdkEntry from = tables.IsTable(other) && !wrong.Contains((fault.Index, !fault.IsRedundant)) ? other : own[fault.Index];
            if (tables.IsTable(from))
            {
                await StoredBytes.CopyAsync(file, from.Place, end, tables.TableBytes, CancellationToken.None).ConfigureAwait(false);
                tables.Forget(end, tables.TableBytes);
                session.Order.DataWritten();
                own.Set(held, fault.Index, VmdkEntry.At(end));
                end += Round.Up(tables.TableBytes, VmdkHeader.SectorSize);
            }
            else
            {
                own.Set(held, fault.Index, default);
            }
            _ = wrong.Remove((fault.Index, fault.IsRedundant));
        }
        await session.FlushAsync(held, CancellationToken.None).ConfigureAwait(false);
        layout.Changed();
    }

    /// <summary>Where a directory with all its tables has room in the first gap that holds it; null if none does.</summary>
    public long? GapFor(IEnumerable<FileRange> gaps)
    {
        long all = DirectoryBytes + (Used().Count() * Round.Up(tables.TableBytes, VmdkHeader.SectorSize));
        return gaps.Select(g => (Start: Round.Up(g.Start, VmdkHeader.SectorSize), g.End))
            .Where(g => g.End - g.Start >= all).Select(g => (long?)g.Start).FirstOrDefault();
    }

    /// <summary>
    /// Writes a redundant directory anew, with a copy of each table, into the first gap that holds it or at the end of the file; returns
    /// its place.
    /// </summary>
    /// <param name="gaps">What nothing uses.</param>
    /// <param name="cancellationToken">Stops it before anything is written.</param>
    public async ValueTask<long> CopyAllAsync(IEnumerable<FileRange> gaps, CancellationToken cancellationToken)
    {
        (int Index, VmdkEntry Table)[] used = [.. Used()];
        StagedRepair.RequireFewCopies(file, used.Length, tables.TableBytes);
        long length = DirectoryBytes, step = Round.Up(tables.TableBytes, VmdkHeader.SectorSize), all = length + (used.Length * step);
        long place = GapFor(gaps) ?? Round.Up(file.Length, VmdkHeader.SectorSize);
        long at = place + length;
        byte[] directory = new byte[length];
        tables.Directory.Bytes.Span.CopyTo(directory); // entries for tables of zeroed grains, too
        await file.ResizeAsync(Math.Max(file.Length, place + all), cancellationToken: cancellationToken).ConfigureAwait(false);
        foreach ((int index, VmdkEntry table) in used)
        {
            await StoredBytes.CopyAsync(file, table.Place, at, tables.TableBytes, CancellationToken.None).ConfigureAwait(false);
            VmdkEntry.At(at).Write(directory.AsSpan(index * sizeof(uint)));
            at += step;
        }
        await file.WriteAsync(place, directory, CancellationToken.None).ConfigureAwait(false);
        await file.FlushAsync(CancellationToken.None).ConfigureAwait(false);
        return place;
    }

    /// <summary>The redundant entry of a grain; none if there is no such table.</summary>
    public async ValueTask<VmdkEntry> RedundantEntryAsync(long grain, CancellationToken cancellationToken)
    {
        int index = tables.IndexOf(grain);
        VmdkEntry table = index < tables.Redundant.Count ? tables.Redundant[index] : default;
        if (!tables.IsTable(table))
        {
            return default;
        }
        byte[] bytes = new byte[sizeof(uint)];
        await file.ReadAsync(table.Place + (grain % Header.TableEntries * sizeof(uint)), bytes, cancellationToken).ConfigureAwait(false);
        return VmdkEntry.Read(bytes);
    }

    private long DirectoryBytes => Round.Up(tables.Count * (long)sizeof(uint), VmdkHeader.SectorSize);

    /// <summary>The tables of the first directory that are there.</summary>
    private IEnumerable<(int Index, VmdkEntry Table)> Used() => tables.Directory.Used()
        .Where(t => tables.IsTable(t.Entry) && !tables.IsZeroed(t.Entry)).Select(t => (t.Block, t.Entry));

    private static string NameOf(int index, bool isRedundant)
        => isRedundant ? $"the redundant copy of grain table {index:#,0}" : $"grain table {index:#,0}";

    private async ValueTask<long> CompareRunAsync(int index, int count, byte[] first, byte[] second, bool makeAlike,
        CancellationToken cancellationToken)
    {
        int bytes = count * tables.TableBytes;
        long from = tables.Directory[index].Place, to = tables.Redundant[index].Place;
        if (await IsHoleAsync(from, bytes, cancellationToken).ConfigureAwait(false)
            && await IsHoleAsync(to, bytes, cancellationToken).ConfigureAwait(false))
        {
            return 0;
        }
        await file.ReadAsync(from, first.AsMemory(0, bytes), cancellationToken).ConfigureAwait(false);
        await file.ReadAsync(to, second.AsMemory(0, bytes), cancellationToken).ConfigureAwait(false);
        long differing = 0;
        for (int at = 0; at < bytes; at += tables.TableBytes)
        {
            ReadOnlyMemory<byte> right = first.AsMemory(at, tables.TableBytes);
            if (!right.Span.SequenceEqual(second.AsSpan(at, tables.TableBytes)))
            {
                differing++;
                if (makeAlike)
                {
                    await file.WriteAsync(to + at, right, CancellationToken.None).ConfigureAwait(false);
                    tables.Forget(to + at, tables.TableBytes);
                }
            }
        }
        return differing;
    }

    private async ValueTask<bool> IsHoleAsync(long offset, long length, CancellationToken cancellationToken)
        => await file.GetExtentAsync(offset, length, cancellationToken).ConfigureAwait(false) is { IsZero: true } extent
            && extent.Length >= length;
}
