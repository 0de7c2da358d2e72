using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Vpc;

/// <summary>Puts right what a check of a dynamic disk finds. It runs on the trial of a repair: see <see cref="StagedRepair"/>.</summary>
internal sealed class VpcRepairer(VpcDisk disk, VpcCompactor compactor)
{
    /// <summary>Repairs what the mode allows; returns what is left.</summary>
    public async ValueTask<CheckReport> RunAsync(MetadataSession.Held held, RepairMode mode, CancellationToken cancellationToken)
    {
        var checker = new VpcChecker(disk);
        CheckReport before = await checker.RunAsync(null, cancellationToken).ConfigureAwait(false);
        bool mayMove = true;
        if (mode == RepairMode.All && before.Corruptions > 0 && checker.IsHeaderBelieved)
        {
            await RepairStructuresAsync(
                held, before.Findings.Any(f => f.Kind.StartsWith("Batmap", StringComparison.Ordinal))).ConfigureAwait(false);
            mayMove = !await RepairTableAsync(held, cancellationToken).ConfigureAwait(false);
        }
        // Where an entry was wrong, the block that it meant may still be in what nothing refers to: that is left for the user to look at.
        if (mayMove && (await CheckAsync(cancellationToken).ConfigureAwait(false)).Corruptions == 0)
        {
            await compactor.RunAsync(held, dropEmpty: false, null, cancellationToken).ConfigureAwait(false);
        }
        return await CheckAsync(cancellationToken).ConfigureAwait(false);
    }

    private ValueTask<CheckReport> CheckAsync(CancellationToken cancellationToken)
        => new VpcChecker(disk).RunAsync(null, cancellationToken);

    /// <summary>Both footers from the sound one, locators that lead nowhere dropped, the header's checksum.</summary>
    private async ValueTask RepairStructuresAsync(MetadataSession.Held held, bool isBatmapWrong)
    {
        await disk.RepairFootersAsync(held).ConfigureAwait(false);
        if (isBatmapWrong)
        {
            disk.Batmap.ClearAll();
            await disk.Batmap.WriteBackAsync().ConfigureAwait(false);
        }
        VpcLocator[] locators = [.. disk.Header.Locators.Select(
            l => l.IsUsed && l.IsKnown && l.Fault(disk.File.Length) is not null ? default : l)];
        if (!disk.Header.IsChecksumRight || !locators.SequenceEqual(disk.Header.Locators))
        {
            await disk.WriteHeaderAsync(held, disk.Header with { Locators = locators }).ConfigureAwait(false);
        }
        disk.Session.Space = null;
    }

    /// <summary>Copies go behind the end of the file: what lies before it may be what a wrong entry meant.</summary>
    private async ValueTask<bool> RepairTableAsync(MetadataSession.Held held, CancellationToken cancellationToken)
    {
        disk.ForgetStale(held);
        bool isWrong = await disk.Maintenance.RepairAsync(held, disk.FooterOffset, cancellationToken).ConfigureAwait(false);
        disk.Bitmaps.Clear();
        disk.Session.Space = null;
        return isWrong;
    }
}
