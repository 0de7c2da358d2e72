using DiskImage.Block;

namespace DiskImage.Formats.Vhdx;

/// <summary>
/// Checks an image from its first byte on: headers, region tables, log, metadata, parent locator, then every entry of the BAT with its
/// sector bitmaps, and last what no entry refers to. Spec: MS-VHDX 2.2 to 2.6.
/// </summary>
/// <remarks>
/// It reads the file and no cache, and changes nothing. What makes an image impossible to open (no header that counts, no region
/// table, required items missing) is an error of opening it, not a finding. What it proposes for entries of the BAT is what a repair
/// carries out.
/// </remarks>
internal sealed class VhdxChecker(VhdxDisk disk, IProgress<long>? bytes, CancellationToken cancellationToken)
{
    private readonly VhdxBatChecker _bat = new(disk, bytes, cancellationToken);

    /// <summary>True if a header must be written anew.</summary>
    public bool HasHeaderFault { get; private set; }

    /// <summary>True if a region table must be written anew.</summary>
    public bool HasRegionFault { get; private set; }

    /// <summary>Entries of the BAT that a repair replaces, and by what; the first <see cref="CheckReport.MaxFindings"/> of them.</summary>
    public IReadOnlyList<(long Index, BatEntry Instead)> Replacements => _bat.Replacements;

    /// <summary>Entries of the BAT whose block another entry has too: a repair gives each its own copy.</summary>
    public IReadOnlyList<long> Shared => _bat.Shared;

    private CheckFindings Findings => _bat.Findings;

    public async ValueTask<CheckReport> RunAsync()
    {
        await CheckHeadersAsync().ConfigureAwait(false);
        await CheckRegionTablesAsync().ConfigureAwait(false);
        CheckLog();
        CheckFile();
        await CheckLocatorAsync().ConfigureAwait(false);
        await _bat.RunAsync().ConfigureAwait(false);
        return new CheckReport
        {
            Findings = Findings.List,
            Corruptions = Findings.Corruptions,
            Leaks = Findings.Leaks,
            CheckErrors = Findings.Errors,
            TotalClusters = disk.Geometry.Blocks,
            AllocatedClusters = _bat.Allocated,
            FragmentedClusters = _bat.Fragmented,
            ImageEndOffset = _bat.End,
        };
    }

    private async ValueTask CheckHeadersAsync()
    {
        byte[] sector = new byte[VhdxHeader.Size];
        var faults = new List<(int Index, string Fault)>();
        for (int i = 0; i < 2; i++)
        {
            await disk.File.ReadPaddedAsync(VhdxHeader.PlaceOf(i), sector, cancellationToken).ConfigureAwait(false);
            if (VhdxHeader.TryParse(sector, out string? fault) is null)
            {
                HasHeaderFault = true;
                faults.Add((i, fault!));
            }
        }
        foreach ((int index, string fault) in faults)
        {
            string instead = faults.Count == 1 ? "the other one is in use" : "nothing else about the two contradicts the other or the file";
            Findings.Corruption("Header", $"header {index + 1} cannot be used: {fault}; {instead}", faults.Count == 1
                ? "write it anew from the other" : "write it anew", host: VhdxHeader.PlaceOf(index));
        }
    }

    private async ValueTask CheckRegionTablesAsync()
    {
        for (int i = 0; i < 2; i++)
        {
            byte[] table = new byte[VhdxRegionTable.Size];
            await disk.File.ReadPaddedAsync(VhdxRegionTable.PlaceOf(i), table, cancellationToken).ConfigureAwait(false);
            string? fault = VhdxRegionTable.TryParse(table, out string? wrong) is null ? $"cannot be used: {wrong}"
                : table.AsSpan().SequenceEqual(disk.Regions.Bytes.Span) ? null
                : "differs from the one in use";
            if (fault is not null)
            {
                HasRegionFault = true;
                Findings.Corruption(
                    "RegionTable", $"region table {i + 1} {fault}", "write it anew from the one in use", host: VhdxRegionTable.PlaceOf(i));
            }
        }
    }

    private void CheckLog()
    {
        if (disk.LostLog is { } why)
        {
            Findings.Corruption("Log", $"the updates in the log are lost: {why}", "make the log empty", host: disk.Header.LogOffset);
        }
        else if (disk.File.IsReadOnly && disk.Header.HasLog)
        {
            Findings.Warning(
                "Log",
                "the log holds updates that are not in place: the image was not closed properly. They are taken into account here",
                "replay the log",
                disk.Header.LogOffset);
        }
    }

    private void CheckFile()
    {
        if (disk.File.Length % VhdxLayout.MiB != 0)
        {
            Findings.Warning("Size", $"the file has {disk.File.Length:#,0} bytes; it should have whole MiB", host: disk.File.Length);
        }
        foreach (VhdxRegion region in disk.Regions.Regions.Where(r => r.End > disk.File.Length))
        {
            Findings.Warning(
                "Region",
                $"{region.Name} ends at {region.End:#,0}, past the end of the file's {disk.File.Length:#,0} bytes",
                host: region.Offset);
        }
    }

    private async ValueTask CheckLocatorAsync()
    {
        if (disk.Metadata.Locator is not { } locator)
        {
            return;
        }
        long at = disk.Regions.Metadata.Offset + disk.Metadata.Find(VhdxItem.ParentLocator)!.Value.Offset;
        if (locator.Type != VhdxParentLocator.VhdxType)
        {
            Findings.Error("Locator", $"the parent locator is of type {locator.Type}, which this program does not know", host: at);
            return;
        }
        if (locator.Linkage is null)
        {
            Findings.Corruption(
                "Locator", "the parent locator has no parent_linkage that is a GUID, so that the parent cannot be known", host: at);
        }
        if (!locator.Paths.Any())
        {
            Findings.Corruption("Locator", "the parent locator has no path", host: at);
        }
        if (VhdxParent.Of(disk.Backing)?.Disk is { } parent
            && await parent.CurrentDataWriteGuidAsync(cancellationToken).ConfigureAwait(false) is var id && !locator.Accepts(id))
        {
            Findings.Corruption(
                "Identity",
                $"the parent has the DataWriteGuid {id:B}; recorded is {locator.Linkage?.ToString("B") ?? "none"}: "
                    + $"it was written to, or is another disk",
                host: at);
        }
    }
}
