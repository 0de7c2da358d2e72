using DiskImage.Binary;
using DiskImage.Block;

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

    public ValueTask<CheckReport> RepairAsync(RepairMode mode, IProgress<long>? bytes, CancellationToken cancellationToken) => AloneAsync(async () =>
    {
        CheckReport? report = null;
        await UnderGateAsync(async () =>
        {
            if (_space is not null)
            {
                await FlushLockedAsync(cancellationToken).ConfigureAwait(false);
            }
            CheckReport before = await CheckLockedAsync(null, cancellationToken).ConfigureAwait(false);
            if (mode == RepairMode.All && before.Corruptions > 0)
            {
                await RepairStructuresAsync().ConfigureAwait(false);
                await RepairTableAsync().ConfigureAwait(false);
            }
            bool isSound = (await CheckLockedAsync(null, cancellationToken).ConfigureAwait(false)).Findings.All(f => f.Severity != CheckSeverity.Corruption);
            if (isSound)
            {
                await CompactLockedAsync(dropEmpty: false, null, cancellationToken).ConfigureAwait(false);
            }
            CheckReport after = await CheckLockedAsync(bytes, cancellationToken).ConfigureAwait(false);
            report = after with
            {
                CorruptionsFixed = Math.Max(0, before.Corruptions - after.Corruptions),
                LeaksFixed = Math.Max(0, before.Leaks - after.Leaks),
            };
        }).ConfigureAwait(false);
        return report!;
    });

    private ValueTask<CheckReport> CheckLockedAsync(IProgress<long>? bytes, CancellationToken cancellationToken)
        => new VpcChecker(File, _footers, _header, _layout, _bat, Length).RunAsync(bytes, cancellationToken);

    /// <summary>Both footers from the sound one, locators that lead nowhere dropped, the header's checksum.</summary>
    private async ValueTask RepairStructuresAsync()
    {
        byte[] footer = Footer.ToBytes();
        if (_footers.EndLength != VpcFooter.Length)
        {
            await File.WriteAsync(Round.Up(File.Length, VpcGeometry.SectorSize), footer).ConfigureAwait(false);
        }
        if (!_footers.IsCopyEqual)
        {
            await File.WriteAsync(0, footer).ConfigureAwait(false);
        }
        await File.FlushAsync().ConfigureAwait(false);
        _footers = new VpcFooters(Footer, VpcFooter.Length, Footer);
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
    private async ValueTask RepairTableAsync()
    {
        long limit = File.Length - VpcFooter.Length, end = Math.Max(limit, _layout.StructuresEnd);
        var blocks = new List<(long Place, int Block)>();
        for (int block = _bat.NextUsed(0); block < _bat.Count; block = _bat.NextUsed(block + 1))
        {
            long place = _bat.OffsetOf(block)!.Value;
            if (place >= limit)
            {
                _bitmaps.Forget(place, _layout.BitmapBytes);
                _bat[block] = VpcBat.Unused;
                continue;
            }
            blocks.Add((place, block));
            end = Math.Max(end, place + _layout.Span);
        }
        blocks.Sort();
        var homeless = new List<int>();
        long free = 0;
        foreach ((long place, int block) in blocks)
        {
            if (place < free || _layout.Overlap(place, place + _layout.Span) is not null)
            {
                homeless.Add(block);
            }
            else
            {
                free = place + _layout.Span;
            }
        }
        end = Round.Up(end, VpcGeometry.SectorSize);
        long last = end + (homeless.Count * _layout.Stride) + _layout.Stride;
        if (end > limit || homeless.Count > 0)
        {
            await File.WriteAsync(last, Footer.ToBytes()).ConfigureAwait(false);
            await File.FlushAsync().ConfigureAwait(false);
            if (blocks.Count > 0 && blocks[^1].Place + _layout.Span > limit)
            {
                await File.WriteZeroesAsync(limit, VpcFooter.Length).ConfigureAwait(false); // the footer stood inside the block that was cut
            }
        }
        foreach (int block in homeless)
        {
            long place = _layout.PlaceAt(end);
            await MoveAsync(block, place).ConfigureAwait(false);
            end = place + _layout.Span;
        }
        await _order.FlushAsync(CancellationToken.None).ConfigureAwait(false);
        _bitmaps.Clear();
        _space = null;
    }
}
