using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Vmdk;

/// <summary>What concerns a whole extent: check, repair, compact, resize, empty. The disk calls it while no request runs.</summary>
internal sealed partial class VmdkSparseExtent : ITrialRepair
{
    private VmdkTableCare Care => new(File, _tables, _layout);

    public ValueTask<CheckReport> CheckAsync(IProgress<long>? bytes, CancellationToken cancellationToken)
        => _session.CheckAsync(CheckAsync, bytes, Length, cancellationToken);

    public ValueTask<CheckReport> RepairAsync(RepairMode mode, IProgress<long>? bytes, CancellationToken cancellationToken)
        => StagedRepair.RunAsync(this, File, mode, CheckAsync, bytes, cancellationToken);

    /// <summary>Gives up grains of zeroes, closes the gaps, cuts the file; the bytes by which it became shorter.</summary>
    public async ValueTask<long> CompactAsync(IProgress<long>? bytes, CancellationToken cancellationToken)
    {
        long before = File.Length;
        await _session.RunAsync(
            async held =>
            {
                await MarkAsync(held).ConfigureAwait(false);
                await DropZeroesAsync(held, bytes, cancellationToken).ConfigureAwait(false);
                await CloseGapsAsync(held, cancellationToken).ConfigureAwait(false);
                await FinishAsync(held).ConfigureAwait(false);
            },
            cancellationToken).ConfigureAwait(false);
        return Math.Max(0, before - File.Length);
    }

    /// <summary>Gives up all grains.</summary>
    public ValueTask MakeEmptyAsync(CancellationToken cancellationToken) => _session.RunAsync(
        async held =>
        {
            await MarkAsync(held).ConfigureAwait(false);
            await DropFromAsync(held, 0, cancellationToken).ConfigureAwait(false);
            await CloseGapsAsync(held, CancellationToken.None).ConfigureAwait(false);
        },
        cancellationToken);

    /// <summary>Writes where the descriptor is, or how large the disk is; the header is one sector.</summary>
    public ValueTask ChangeHeaderAsync(Func<VmdkHeader, VmdkHeader> change, CancellationToken cancellationToken) => _session.RunAsync(
        async held =>
        {
            await _session.FlushAsync(held, cancellationToken).ConfigureAwait(false);
            await SetHeaderAsync(held, change(Header)).ConfigureAwait(false);
        },
        cancellationToken);

    /// <summary>Refuses to claim space for a sparse disk that grows.</summary>
    /// <exception cref="DiskImageException">InvalidOption.</exception>
    public static void RequireNoPreallocation(string name, PreallocationMode preallocation)
    {
        if (preallocation != PreallocationMode.Off)
        {
            throw new DiskImageException(DiskImageErrorKind.InvalidOption,
                $"{name}: a sparse VMDK grows without preallocation only; allowed: off", name);
        }
    }

    long ITrialRepair.Grain => AllocationUnit;

    async ValueTask<BlockNode> ITrialRepair.OpenTrialAsync(BlockNode file, bool forRepair, CancellationToken cancellationToken)
    {
        VmdkHeader header = await ReadHeaderAsync(file, cancellationToken).ConfigureAwait(false);
        return await OpenAsync(file, backing: null, header, _traits, forRepair, cancellationToken).ConfigureAwait(false);
    }

    ValueTask<CheckReport> ITrialRepair.MendAsync(RepairMode mode, CancellationToken cancellationToken)
        => _session.RunAsync(held => MendAsync(held, mode, cancellationToken), cancellationToken);

    async ValueTask<IReadOnlyList<(long Start, long End)>> ITrialRepair.ReadableAsync(CancellationToken cancellationToken)
    {
        var runs = new RunList();
        using MetadataSession.Held held = await _session.EnterAsync(cancellationToken).ConfigureAwait(false);
        for (long at = 0; at < Length;)
        {
            cancellationToken.ThrowIfCancellationRequested();
            long grain = at / AllocationUnit, unmapped = EndOfUnmapped(grain);
            long end = Math.Min(Length, unmapped > at ? unmapped : (_tables.IndexOf(grain) + 1L) * Header.Span);
            try
            {
                CachedPiece? table = unmapped > at ? null : await _tables.TableAsync(grain, cancellationToken).ConfigureAwait(false);
                AddReadable(runs, table, at, end);
            }
            catch (DiskImageException e) when (e.Kind == DiskImageErrorKind.Corrupt)
            {
                // nothing of it can be read
            }
            at = end;
        }
        return runs.Runs;
    }

    ValueTask ITrialRepair.RequireUsableAsync() => default; // opening it for writing has done that

    ValueTask ITrialRepair.ReloadAsync(CancellationToken cancellationToken) => _session.RunAsync(
        async held => await ReloadAsync(held, await ReadHeaderAsync(File, cancellationToken).ConfigureAwait(false),
            cancellationToken).ConfigureAwait(false),
        cancellationToken);

    protected override async ValueTask ResizeCoreAsync(long length, PreallocationMode preallocation, IProgress<long>? claimed,
        CancellationToken cancellationToken)
    {
        RequireNoPreallocation(Name, preallocation);
        if (IsCowd && length != Length)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Unsupported, $"{Name}: an ESX sparse extent keeps the size that it was made with, which is that of"
                    + $" what it stands on. Convert it with {new Remedy(RemedyKind.Convert)}, and resize what comes of it.", Name);
        }
        if (length > Length)
        {
            await GrowAsync(length, cancellationToken).ConfigureAwait(false);
        }
        else if (length < Length)
        {
            await _session.RunAsync(held => ShrinkAsync(held, length), cancellationToken).ConfigureAwait(false);
        }
    }

    private async ValueTask<VmdkHeader> ReadHeaderAsync(BlockNode file, CancellationToken cancellationToken)
    {
        if (IsCowd)
        {
            return await VmdkCowdHeader.ReadAsync(file, cancellationToken).ConfigureAwait(false);
        }
        byte[] bytes = new byte[VmdkHeader.SectorSize];
        await file.ReadPaddedAsync(0, bytes, cancellationToken).ConfigureAwait(false);
        return VmdkHeader.Parse(bytes, file.Name, 0);
    }

    private void AddReadable(RunList runs, CachedPiece? table, long start, long end)
    {
        if (table is null)
        {
            runs.Add(start, end);
            return;
        }
        for (long at = start; at < end; at += AllocationUnit)
        {
            VmdkEntry entry = _tables.EntryIn(table, at / AllocationUnit);
            if (!IsStored(entry) || _tables.IsGrain(entry))
            {
                runs.Add(at, Math.Min(end, at + AllocationUnit));
            }
        }
    }

    /// <summary>What is wrong with where the tables are; null for nothing.</summary>
    public string? FirstFaultOfTables()
        => _tables.IsDirectoryLost ? "the grain directory is not in the file"
            : Care.IsRedundantLost ? "the redundant grain directory is not in the file"
            : Care.Faults().Select(f => f.Message).FirstOrDefault();

    private async ValueTask SynchronizeAsync(MetadataSession.Held held, CancellationToken cancellationToken)
    {
        _session.Require(held);
        if (await Care.CompareAsync(makeAlike: true, cancellationToken).ConfigureAwait(false) > 0)
        {
            await File.FlushAsync(cancellationToken).ConfigureAwait(false);
        }
    }

    private async ValueTask<CheckReport> CheckAsync(CancellationToken cancellationToken)
    {
        var findings = new CheckFindings();
        if (_tables.IsDirectoryLost || Care.IsRedundantLost)
        {
            ulong sector = _tables.IsDirectoryLost ? Header.DirectorySector : Header.RedundantSector;
            string which = _tables.IsDirectoryLost ? "the grain directory" : "the redundant grain directory";
            findings.Corruption(
                "DirectoryOutOfFile", $"{which} is said to be at sector {sector:#,0}, and the file has {File.Length:#,0}"
                    + " bytes", "copy it from the other one", host: 56);
        }
        if (Header.Overhead * VmdkHeader.SectorSize > File.Length && !Header.IsCompressed)
        {
            findings.Corruption(
                "Overhead",
                $"the header says that grains begin behind sector {Header.Overhead:#,0}, and the file has {File.Length:#,0}"
                    + " bytes: it was cut off, or the number is wrong",
                "make the file longer, or the number right",
                host: 64);
        }
        foreach (VmdkTableFault fault in Care.Faults())
        {
            long guest = fault.Index * Header.Span;
            findings.Corruption(
                fault.Kind, fault.Message, "give the table a place of its own, with what the other copy says", guest, Math.Min(Header.Span,
                    Math.Max(0, Length - guest)));
        }
        if (await Care.CompareAsync(makeAlike: false, cancellationToken).ConfigureAwait(false) is > 0 and var differing)
        {
            findings.Warning("RedundantDiffers", $"the redundant copies of {differing:#,0} grain tables differ from the first",
                "copy the first over them");
        }
        long compressed = Header.IsCompressed ? await CheckCompressedAsync(findings, cancellationToken).ConfigureAwait(false) : 0;
        (StoredBlock[] blocks, long fragmented) = Header.IsCompressed ? ([], 0)
            : await _maintenance.StoredAsync(cancellationToken).ConfigureAwait(false);
        long end = Header.IsCompressed ? File.Length : _maintenance.Check(blocks, findings);
        if (IsCowd && !_isMarked && Header.FreeSector * VmdkHeader.SectorSize < Math.Min(end, File.Length))
        {
            findings.Warning(
                "FreeSector", $"the header says that sectors are free from {Header.FreeSector:#,0} on, and what is used ends at offset"
                    + $" {end:#,0}: a program that goes by it would overwrite", "write where what is used ends", host: 28);
        }
        if (Header.IsUnclean && !_isMarked)
        {
            findings.Warning("NotClosed", "the extent was not closed by whoever wrote to it", "clear the mark once the tables are right",
                host: 72);
        }
        return new CheckReport
        {
            Findings = findings.List,
            Corruptions = findings.Corruptions,
            Leaks = findings.Leaks,
            CheckErrors = findings.Errors,
            TotalClusters = VmdkHeader.UnitsOf(Length, AllocationUnit),
            AllocatedClusters = blocks.Length + compressed,
            FragmentedClusters = fragmented,
            CompressedClusters = compressed,
            ImageEndOffset = end,
        };
    }

    private async ValueTask<CheckReport> MendAsync(MetadataSession.Held held, RepairMode mode, CancellationToken cancellationToken)
    {
        CheckReport before = await CheckAsync(cancellationToken).ConfigureAwait(false);
        if (mode == RepairMode.All)
        {
            if (before.Corruptions > 0)
            {
                await MendDirectoriesAsync(held, cancellationToken).ConfigureAwait(false);
                await Care.MendAsync(_session, held).ConfigureAwait(false);
                await MendOverheadAsync(held).ConfigureAwait(false);
                await TakeRedundantEntriesAsync(held, cancellationToken).ConfigureAwait(false);
                _ = await _maintenance.RepairAsync(held, least: 0, cancellationToken).ConfigureAwait(false);
            }
            await SynchronizeAsync(held, cancellationToken).ConfigureAwait(false);
        }
        CheckReport after = await CheckAsync(cancellationToken).ConfigureAwait(false);
        if (after is { Corruptions: 0, CheckErrors: 0 })
        {
            await FindSpaceAsync(held, cancellationToken).ConfigureAwait(false);
            if (after.Leaks > 0)
            {
                await CloseGapsAsync(held, cancellationToken).ConfigureAwait(false);
            }
            if (Header.IsUnclean || after.Findings.Any(f => f.Kind.Equals("FreeSector", StringComparison.Ordinal)))
            {
                await SynchronizeAsync(held, cancellationToken).ConfigureAwait(false);
                await CloseHeaderAsync(held).ConfigureAwait(false);
            }
            after = await CheckAsync(cancellationToken).ConfigureAwait(false);
        }
        return after;
    }

    /// <summary>A directory that is lost is made anew from the other one: that becomes the first, and gets a copy.</summary>
    private async ValueTask MendDirectoriesAsync(MetadataSession.Held held, CancellationToken cancellationToken)
    {
        if (!_tables.IsDirectoryLost && !Care.IsRedundantLost)
        {
            return;
        }
        VmdkHeader header = _tables.IsDirectoryLost ? Header with { DirectorySector = Header.RedundantSector } : Header;
        (StoredBlock[] blocks, _) = await _maintenance.StoredAsync(cancellationToken).ConfigureAwait(false);
        await CopyDirectoryAsync(held, header, _maintenance.Gaps(blocks), isRedundant: true, cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Makes one of the two directories anew from what the first one says.</summary>
    private async ValueTask CopyDirectoryAsync(
        MetadataSession.Held held, VmdkHeader header, IEnumerable<FileRange> gaps, bool isRedundant, CancellationToken cancellationToken)
    {
        ulong sector = (ulong)(await Care.CopyAllAsync(gaps, cancellationToken).ConfigureAwait(false) / VmdkHeader.SectorSize);
        await SetHeaderAsync(held, isRedundant ? header with { RedundantSector = sector } : header with { DirectorySector = sector })
            .ConfigureAwait(false);
        await _tables.LoadAsync(cancellationToken).ConfigureAwait(false);
        _layout.Changed();
    }

    private async ValueTask MendOverheadAsync(MetadataSession.Held held)
    {
        long end = Round.Up(_layout.Structures.Max(s => s.End), AllocationUnit);
        long overhead = Math.Min(Header.Overhead * VmdkHeader.SectorSize, end);
        if (overhead < Header.Overhead * VmdkHeader.SectorSize && Header.Overhead * VmdkHeader.SectorSize > File.Length)
        {
            await SetHeaderAsync(held, Header with { Overhead = overhead / VmdkHeader.SectorSize }).ConfigureAwait(false);
        }
        if (File.Length < overhead)
        {
            await File.ResizeAsync(overhead).ConfigureAwait(false);
        }
    }

    /// <summary>What leads out of the file by the first copy of its table may not by the redundant one.</summary>
    private async ValueTask TakeRedundantEntriesAsync(MetadataSession.Held held, CancellationToken cancellationToken)
    {
        var lost = new List<long>();
        await _layout.WalkAsync(
            (grain, entry) =>
            {
                if (!_tables.IsGrain(entry))
                {
                    lost.Add(grain);
                }
            },
            cancellationToken).ConfigureAwait(false);
        foreach (long grain in lost)
        {
            VmdkEntry entry = await Care.RedundantEntryAsync(grain, cancellationToken).ConfigureAwait(false);
            if (_tables.IsGrain(entry) || _tables.IsZeroed(entry))
            {
                await _tables.SetAsync(held, grain, entry).ConfigureAwait(false);
            }
        }
        await _session.FlushAsync(held, CancellationToken.None).ConfigureAwait(false);
    }

    private async ValueTask ReloadAsync(MetadataSession.Held held, VmdkHeader header, CancellationToken cancellationToken)
    {
        _tables.Take(header);
        _layout.Changed();
        await _tables.LoadAsync(cancellationToken).ConfigureAwait(false);
        if (FirstFaultOfTables() is null)
        {
            try
            {
                await FindSpaceAsync(held, cancellationToken).ConfigureAwait(false);
            }
            catch (DiskImageException e) when (e.Kind == DiskImageErrorKind.Corrupt)
            {
                _session.Space = null; // still to be repaired
            }
        }
    }

    private async ValueTask DropZeroesAsync(MetadataSession.Held held, IProgress<long>? bytes, CancellationToken cancellationToken)
    {
        await _session.FlushAsync(held, cancellationToken).ConfigureAwait(false);
        if (HasParent && !Header.HasZeroedGrains)
        {
            return; // the parent would show
        }
        var stored = new List<(long Grain, long Place)>();
        await _layout.WalkAsync((grain, entry) => stored.Add((grain, entry.Place)), cancellationToken).ConfigureAwait(false);
        foreach ((long grain, long place) in stored)
        {
            cancellationToken.ThrowIfCancellationRequested();
            (long offset, long length) = _layout.GuestRange(grain);
            if (length == 0 || await StoredBytes.IsZeroAsync(File, place, length, cancellationToken).ConfigureAwait(false))
            {
                await _tables.SetAsync(held, grain, new(HasParent ? VmdkGrainTables.Zeroed : 0)).ConfigureAwait(false);
                Space.FreeAfterFlush(held, place, AllocationUnit);
            }
            bytes?.Report(offset + length);
        }
        await _session.FlushAsync(held, CancellationToken.None).ConfigureAwait(false);
    }

    private async ValueTask CloseGapsAsync(MetadataSession.Held held, CancellationToken cancellationToken)
    {
        try
        {
            await _maintenance.CompactAsync(held, cancellationToken).ConfigureAwait(false);
            bool isMoved = await MoveDirectoryAsync(held, isRedundant: true, cancellationToken).ConfigureAwait(false);
            if (await MoveDirectoryAsync(held, isRedundant: false, cancellationToken).ConfigureAwait(false) || isMoved)
            {
                await _maintenance.CompactAsync(held, cancellationToken).ConfigureAwait(false);
            }
        }
        finally
        {
            await _session.FlushAsync(held, CancellationToken.None).ConfigureAwait(false);
            await FindSpaceAsync(held, CancellationToken.None).ConfigureAwait(false); // what lies where has changed
        }
    }

    /// <summary>
    /// Moves a directory, with its tables, into a gap before them: a repair may have put them behind the grains, which they then keep from
    /// being moved down. False if there is no such gap.
    /// </summary>
    private async ValueTask<bool> MoveDirectoryAsync(MetadataSession.Held held, bool isRedundant, CancellationToken cancellationToken)
    {
        BlockTable<VmdkEntry> directory = isRedundant ? _tables.Redundant : _tables.Directory;
        long last = _layout.LastOf(directory);
        if (directory.Count < _tables.Count || IsCowd || Header.IsCompressed || last < Header.Overhead * VmdkHeader.SectorSize)
        {
            return false;
        }
        await _session.FlushAsync(held, cancellationToken).ConfigureAwait(false);
        (StoredBlock[] blocks, _) = await _maintenance.StoredAsync(cancellationToken).ConfigureAwait(false);
        FileRange[] before = [.. _maintenance.Gaps(blocks).Where(g => g.End <= last)];
        if (Care.GapFor(before) is null)
        {
            return false;
        }
        await CopyDirectoryAsync(held, Header, before, isRedundant, cancellationToken).ConfigureAwait(false);
        return true;
    }

    /// <summary>Gives up all grains from one on, stored or zeroed.</summary>
    private async ValueTask DropFromAsync(MetadataSession.Held held, long first, CancellationToken cancellationToken)
    {
        await _session.FlushAsync(held, cancellationToken).ConfigureAwait(false);
        for (int index = _tables.Directory.NextUsed(_tables.IndexOf(first)); index < _tables.Directory.Count; index = NextUsed(index + 1))
        {
            if (_tables.IsZeroed(_tables.Directory[index]))
            {
                continue;
            }
            long start = Math.Max(first, (long)index * Header.TableEntries), end = (index + 1L) * Header.TableEntries;
            for (long grain = start; grain < end; grain++)
            {
                VmdkEntry entry = await _tables.GetAsync(grain, cancellationToken).ConfigureAwait(false);
                if (IsStored(entry))
                {
                    Space.FreeAfterFlush(held, entry.Place, AllocationUnit);
                }
                if (entry.Value != 0)
                {
                    await _tables.SetAsync(held, grain, default).ConfigureAwait(false);
                }
            }
        }
        await _session.FlushAsync(held, CancellationToken.None).ConfigureAwait(false);

        int NextUsed(int index) => index >= _tables.Directory.Count ? index : _tables.Directory.NextUsed(index);
    }

    /// <summary>What is new reads as zeroes before it is there: the tail of the last grain, and what a parent shows behind it.</summary>
    private async ValueTask GrowAsync(long length, CancellationToken cancellationToken)
    {
        long old = Length, grainEnd = Round.Up(old, AllocationUnit);
        await _session.RunAsync(
            async held =>
            {
                await MarkAsync(held).ConfigureAwait(false);
                // what a shrink that was cut short left
                await DropFromAsync(held, grainEnd / AllocationUnit, cancellationToken).ConfigureAwait(false);
                await new VmdkGrower(File, _session, _tables, _layout, Space).RunAsync(held, length, SetHeaderAsync,
                    cancellationToken).ConfigureAwait(false);
            },
            cancellationToken).ConfigureAwait(false);
        long shown = !HasParent ? old : Backing is null ? length : Math.Clamp(Backing.Length, old, length);
        bool isTailShown = shown > old || await IsStoredAsync(old / AllocationUnit, cancellationToken).ConfigureAwait(false);
        if (old < grainEnd && isTailShown)
        {
            await WriteZeroesMappedAsync(old, grainEnd, cancellationToken).ConfigureAwait(false);
        }
        if (shown > grainEnd)
        {
            await WriteZeroesMappedAsync(grainEnd, shown, cancellationToken).ConfigureAwait(false);
        }
        await _session.RunAsync(
            async held =>
            {
                await _session.FlushAsync(held, CancellationToken.None).ConfigureAwait(false);
                await SetHeaderAsync(held, Header with { Capacity = length / VmdkHeader.SectorSize }).ConfigureAwait(false);
                Volatile.Write(ref _length, length);
            },
            CancellationToken.None).ConfigureAwait(false);
    }

    private ValueTask<bool> IsStoredAsync(long grain, CancellationToken cancellationToken) => _session.RunAsync(
        async _ => IsStored(await _tables.GetAsync(grain, cancellationToken).ConfigureAwait(false)), cancellationToken);

    private async ValueTask ShrinkAsync(MetadataSession.Held held, long length)
    {
        await MarkAsync(held).ConfigureAwait(false);
        await _session.FlushAsync(held, CancellationToken.None).ConfigureAwait(false);
        Volatile.Write(ref _length, length);
        await SetHeaderAsync(held, Header with { Capacity = length / VmdkHeader.SectorSize }).ConfigureAwait(false);
        await DropFromAsync(held, VmdkHeader.UnitsOf(length, AllocationUnit), CancellationToken.None).ConfigureAwait(false);
        await ReloadAsync(held, Header, CancellationToken.None).ConfigureAwait(false);
        long overhead = Round.Up(_layout.Structures.Max(s => s.End), AllocationUnit) / VmdkHeader.SectorSize;
        await SetHeaderAsync(held, Header with { Overhead = Math.Min(Header.Overhead, overhead) }).ConfigureAwait(false);
        await CloseGapsAsync(held, CancellationToken.None).ConfigureAwait(false);
    }
}
