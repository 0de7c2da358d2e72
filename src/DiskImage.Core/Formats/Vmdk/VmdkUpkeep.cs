using DiskImage.Block;

namespace DiskImage.Formats.Vmdk;

/// <summary>Checks and repairs a disk extent by extent, and its descriptor against them; what is found has offsets of the disk.</summary>
/// <param name="file">The file that is named to open the disk.</param>
/// <param name="descriptor">The descriptor; null for none.</param>
/// <param name="extents">The extents in the order of the disk.</param>
internal sealed class VmdkUpkeep(BlockNode file, VmdkDescriptor? descriptor, IReadOnlyList<VmdkExtent> extents)
{
    /// <summary>What the descriptor says against what its extents are.</summary>
    public CheckFindings CheckDescriptor()
    {
        var findings = new CheckFindings();
        VmdkHeader? first = extents.Select(e => e.Node).OfType<VmdkSparseExtent>().FirstOrDefault()?.Header;
        if (descriptor is null && first is { DescriptorSector: > 0, DescriptorSectors: > 0 })
        {
            findings.Corruption("DescriptorLost",
                $"there is no descriptor at sector {first.DescriptorSector:#,0}, where the header says that it is", host: 28);
        }
        if (descriptor is not null && VmdkDescriptor.RequiredEntries.FirstOrDefault(e => descriptor.Value(e) is null) is { } lacking)
        {
            findings.Corruption(
                "DescriptorEntry",
                $"the descriptor does not say '{lacking}', and other programs refuse it;"
                    + $" {new Remedy(RemedyKind.RecordBacking)} writes parentCID",
                null);
        }
        if (descriptor is { HasParent: true, ParentHint: null })
        {
            findings.Corruption(
                "ParentUnnamed",
                $"the descriptor says that the disk stands on one with the content identifier {VmdkParent.Text(descriptor.ParentCid)},"
                    + $" and not where that is; {new Remedy(RemedyKind.RecordBacking)} says so, or that there is none",
                null);
        }
        foreach (VmdkExtent extent in extents)
        {
            if (extent.Node is VmdkFlatExtent flat && flat.Missing is > 0 and var missing)
            {
                findings.Corruption(
                    "ExtentShort",
                    $"the file '{extent.Line.FileName}' ends {missing:#,0} bytes before the extent that the descriptor has in"
                        + " it; they read as zeroes",
                    null,
                    extent.End - Math.Min(missing, extent.Node.Length),
                    Math.Min(missing, extent.Node.Length));
            }
            else if (extent.Node is VmdkSparseExtent sparse && ReferenceEquals(extent.File, file) && descriptor is not null
                && extent.Line.Length != sparse.Header.Length)
            {
                findings.Warning(
                    "DescriptorSize",
                    $"the descriptor gives the disk {extent.Line.Sectors:#,0} sectors, and the header"
                        + $" {sparse.Header.Capacity:#,0}; the header counts",
                    "write what the header says");
            }
        }
        return findings;
    }

    /// <summary>Does something with each sparse extent and adds up what it reports, with offsets of the disk.</summary>
    public async ValueTask<CheckReport> EachAsync(Func<VmdkSparseExtent, IProgress<long>?, ValueTask<CheckReport>> run,
        IProgress<long>? bytes)
    {
        var sum = new CheckReport
        {
            Findings = [], TotalClusters = 0, AllocatedClusters = 0, FragmentedClusters = 0, CompressedClusters = 0,
        };
        foreach (VmdkExtent extent in extents)
        {
            if (extent.Node is not VmdkSparseExtent sparse)
            {
                continue;
            }
            CheckReport one = await run(sparse, Shifted(bytes, extent.Start)).ConfigureAwait(false);
            bool isNamed = !ReferenceEquals(extent.File, file);
            sum = sum.With(one with { Findings = [.. one.Findings.Select(f => OfDisk(f, extent, isNamed))] });
            sum = isNamed ? sum : sum with { ImageEndOffset = one.ImageEndOffset };
        }
        bytes?.Report(extents.Count == 0 ? 0 : extents[^1].End);
        return sum;
    }

    /// <summary>A report with what else was found.</summary>
    public static CheckReport With(CheckReport report, CheckFindings more)
        => report.With(new CheckReport { Findings = more.List, Corruptions = more.Corruptions, CheckErrors = more.Errors });

    /// <summary>What was found of an extent, as it is said of the disk.</summary>
    private static CheckFinding OfDisk(CheckFinding found, VmdkExtent extent, bool isNamed)
    {
        Wording message = found.Wording ?? found.Message;
        return CheckFinding.Of(
            found.Kind,
            found.Severity,
            isNamed ? (Wording)$"{extent.Line.FileName}: {message}" : message,
            found.GuestOffset + extent.Start,
            found.GuestLength,
            found.HostOffset) with { Repair = found.Repair };
    }

    /// <summary>Progress of an extent as progress of the disk.</summary>
    public static IProgress<long>? Shifted(IProgress<long>? bytes, long start)
        => bytes is null ? null : new ShiftedProgress(bytes, start);

    private sealed class ShiftedProgress(IProgress<long> inner, long start) : IProgress<long>
    {
        public void Report(long value) => inner.Report(start + value);
    }
}
