using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Vpc;

/// <summary>Checking and repairing.</summary>
internal sealed partial class VpcNode
{
    public ValueTask<CheckReport> CheckAsync(IProgress<long>? bytes, CancellationToken cancellationToken) => AloneAsync(async () =>
    {
        CheckReport? report = null;
        await UnderGateAsync(async () =>
        {
            if (_space is not null)
            {
                await FlushLockedAsync(cancellationToken).ConfigureAwait(false);
                await _space.TrimAsync(Footer).ConfigureAwait(false); // what the file has grown ahead is no leak
            }
            report = await CheckLockedAsync(bytes, cancellationToken).ConfigureAwait(false);
        }).ConfigureAwait(false);
        return report!;
    });

    /// <summary>Everything is tried beside the file first: see <see cref="StagedRepair"/>.</summary>
    public ValueTask<CheckReport> RepairAsync(RepairMode mode, IProgress<long>? bytes, CancellationToken cancellationToken) => AloneAsync(async () =>
    {
        CheckReport before = null!;
        await UnderGateAsync(async () =>
        {
            if (_space is not null)
            {
                await FlushLockedAsync(cancellationToken).ConfigureAwait(false);
                await _space.TrimAsync(Footer).ConfigureAwait(false);
                _space = null;
            }
            before = await CheckLockedAsync(null, cancellationToken).ConfigureAwait(false);
        }).ConfigureAwait(false);
        if (await StagedRepair.RunAsync(this, File, mode, cancellationToken).ConfigureAwait(false) is { } why)
        {
            return StagedRepair.Withdrawn(before, why);
        }
        CheckReport after = null!;
        await UnderGateAsync(async () => after = await CheckLockedAsync(bytes, cancellationToken).ConfigureAwait(false)).ConfigureAwait(false);
        return after with
        {
            CorruptionsFixed = Math.Max(0, before.Corruptions - after.Corruptions),
            LeaksFixed = Math.Max(0, before.Leaks - after.Leaks),
        };
    });

    long ITrialRepair.Grain => BlockSize;

    ValueTask<BlockNode> ITrialRepair.OpenTrialAsync(BlockNode file, bool forRepair, CancellationToken cancellationToken)
        => VpcDriver.OpenAloneAsync(file, _calculation, forRepair, cancellationToken);

    async ValueTask<CheckReport> ITrialRepair.MendAsync(RepairMode mode, CancellationToken cancellationToken)
    {
        CheckReport after = null!;
        await UnderGateAsync(async () =>
        {
            VpcChecker checker = Checker();
            CheckReport before = await checker.RunAsync(null, cancellationToken).ConfigureAwait(false);
            bool mayMove = true;
            if (mode == RepairMode.All && before.Corruptions > 0 && checker.IsHeaderBelieved)
            {
                await RepairStructuresAsync(before.Findings.Any(f => f.Kind.StartsWith("Batmap", StringComparison.Ordinal))).ConfigureAwait(false);
                mayMove = !await RepairTableAsync().ConfigureAwait(false);
            }
            // Where an entry was wrong, the block that it meant may still be in what nothing refers to: that is left for the user to look at.
            if (mayMove && (await CheckLockedAsync(null, cancellationToken).ConfigureAwait(false)).Corruptions == 0)
            {
                await CompactLockedAsync(dropEmpty: false, null, cancellationToken).ConfigureAwait(false);
            }
            after = await CheckLockedAsync(null, cancellationToken).ConfigureAwait(false);
        }).ConfigureAwait(false);
        return after;
    }

    ValueTask<IReadOnlyList<(long Start, long End)>> ITrialRepair.ReadableAsync(CancellationToken cancellationToken)
    {
        var runs = new RunList();
        long limit = _footers.EndOffset(File.Length);
        for (int block = 0; block < DiskBlocks;)
        {
            int used = Math.Min(_bat.NextUsed(block), DiskBlocks);
            runs.Add(block * BlockSize, Math.Min(used * BlockSize, Length));
            if (used < DiskBlocks && _bat.OffsetOf(used) is >= VpcFooter.Length and var place && _layout.Span <= limit - place)
            {
                runs.Add(used * BlockSize, Math.Min((used + 1) * BlockSize, Length));
            }
            block = used + 1;
        }
        return new(runs.Runs);
    }

    ValueTask ITrialRepair.RequireUsableAsync() => UnderGateAsync(async () => _ = await SpaceAsync().ConfigureAwait(false));

    ValueTask ITrialRepair.ReloadAsync(CancellationToken cancellationToken) => UnderGateAsync(async () =>
    {
        _footers = await VpcFooters.ReadAsync(File, forRepair: true, cancellationToken).ConfigureAwait(false);
        _header = await VpcHeader.ReadAsync(File, Footer, cancellationToken).ConfigureAwait(false);
        Volatile.Write(ref _length, VpcSize.Of(Footer, _calculation));
        _bitmaps.Clear();
        _space = null;
        await LoadAsync(cancellationToken).ConfigureAwait(false);
    });

    private ValueTask<CheckReport> CheckLockedAsync(IProgress<long>? bytes, CancellationToken cancellationToken)
        => Checker().RunAsync(bytes, cancellationToken);

    private VpcChecker Checker() => new(File, _footers, _header, _layout, _bat, _batmap, _stale, Length, VpcSize.Warning(Footer, _calculation));

    /// <summary>Both footers from the sound one, locators that lead nowhere dropped, the header's checksum.</summary>
    private async ValueTask RepairStructuresAsync(bool isBatmapWrong)
    {
        byte[] footer = Footer.ToBytes();
        if (_footers.EndLength != VpcFooter.Length)
        {
            await File.WriteAsync(Round.Up(File.Length, VpcGeometry.SectorSize), footer).ConfigureAwait(false);
        }
        else if (!_footers.IsSealed)
        {
            await File.WriteAsync(_footers.EndOffset(File.Length), footer).ConfigureAwait(false);
        }
        if (!_footers.IsCopyEqual || !_footers.IsSealed)
        {
            await File.WriteAsync(0, footer).ConfigureAwait(false);
        }
        await File.FlushAsync().ConfigureAwait(false);
        _footers = new VpcFooters(Footer, VpcFooter.Length, Footer);
        if (isBatmapWrong)
        {
            _batmap.ClearAll();
            await _batmap.WriteBackAsync().ConfigureAwait(false);
        }
        VpcLocator[] locators = [.. _header.Locators.Select(l => l.IsUsed && l.IsKnown && l.Fault(File.Length) is not null ? default : l)];
        if (!_header.IsChecksumRight || !locators.SequenceEqual(_header.Locators))
        {
            await WriteHeaderAsync(_header with { Locators = locators }).ConfigureAwait(false);
        }
        _space = null;
    }

    /// <summary>
    /// Forgets blocks outside the file, makes the file longer for cut ones, and gives those that overlap something a place of their own at the end.
    /// </summary>
    /// <returns>True if an entry was wrong, so that what it meant may be in the file without anything that leads there.</returns>
    private async ValueTask<bool> RepairTableAsync()
    {
        ForgetStale();
        long limit = File.Length - VpcFooter.Length, end = Math.Max(limit, _layout.StructuresEnd);
        bool isForgotten = false;
        var blocks = new List<(long Place, int Block)>();
        for (int block = _bat.NextUsed(0); block < _bat.Count; block = _bat.NextUsed(block + 1))
        {
            long place = _bat.OffsetOf(block)!.Value;
            if (place >= limit)
            {
                _bitmaps.Forget(place, _layout.BitmapBytes);
                _batmap.Clear(block);
                _bat[block] = VpcBat.Unused;
                isForgotten = true;
                continue;
            }
            blocks.Add((place, block));
            end = Math.Max(end, place + _layout.Span);
        }
        blocks.Sort();
        end = Round.Up(end, VpcGeometry.SectorSize);
        long free = 0, last = end;
        var homeless = new List<(int Block, long Place)>();
        foreach ((long place, int block) in blocks)
        {
            if (place < free || _layout.Overlap(place, place + _layout.Span) is not null)
            {
                homeless.Add((block, _layout.PlaceAt(last)));
                last = homeless[^1].Place + _layout.Span;
            }
            else
            {
                free = place + _layout.Span;
            }
        }
        StagedRepair.RequireFewCopies(File, homeless.Count, _layout.Stride);
        if (last > limit)
        {
            await File.WriteAsync(last, Footer.ToBytes()).ConfigureAwait(false);
            await File.FlushAsync().ConfigureAwait(false);
            long zeroed = Math.Min(last, limit + VpcFooter.Length) - limit; // the footer stood where a block is to be, or inside the one that was cut
            await File.WriteZeroesAsync(limit, zeroed).ConfigureAwait(false);
        }
        foreach ((int block, long place) in homeless)
        {
            await MoveAsync(block, place).ConfigureAwait(false);
        }
        await _order.FlushAsync(CancellationToken.None).ConfigureAwait(false);
        _bitmaps.Clear();
        _space = null;
        return isForgotten || homeless.Count > 0;
    }
}
