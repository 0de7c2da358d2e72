using DiskImage.Block;
using DiskImage.Drivers;

namespace DiskImage.Formats.Parallels;

/// <summary>Checks the layers of a bundle below its top one, each by itself. A repair changes the top one only.</summary>
/// <param name="context">Opens their files.</param>
/// <param name="name">The descriptor.</param>
/// <param name="images">What the descriptor says of each, from the root on; null where it says nothing.</param>
internal sealed class ParallelsLayersBelow(FormatOpenContext context, string name, IReadOnlyList<ParallelsImage?> images)
{
    /// <summary>A report with what is wrong with them.</summary>
    public async ValueTask<CheckReport> AddToAsync(CheckReport report, CancellationToken cancellationToken)
    {
        foreach (ParallelsImage? image in images)
        {
            CheckReport one = await CheckAsync(image, cancellationToken).ConfigureAwait(false);
            IEnumerable<CheckFinding> findings = one.Findings.Select(f => CheckFinding.Of(
                f.Kind, f.Severity, (Wording)$"{image?.File ?? name}: {f.Wording ?? f.Message}", f.GuestOffset, f.GuestLength,
                f.HostOffset));
            report = report.With(new CheckReport
            {
                Findings = [.. findings], Corruptions = one.Corruptions, Leaks = one.Leaks, CheckErrors = one.CheckErrors,
            });
        }
        return report;
    }

    private async ValueTask<CheckReport> CheckAsync(ParallelsImage? image, CancellationToken cancellationToken)
    {
        var findings = new CheckFindings();
        if (image is null)
        {
            findings.Corruption("Layer", "the disk descriptor has no image of one of its snapshots");
        }
        else
        {
            try
            {
                BlockNode file = await (context.OpenDataToRead ?? context.OpenData)(
                    image.File, null, cancellationToken).ConfigureAwait(false);
                if (image.IsPlain)
                {
                    await file.DisposeAsync().ConfigureAwait(false);
                    return new() { Findings = [] };
                }
                return await CheckAsync(file, cancellationToken).ConfigureAwait(false);
            }
            catch (DiskImageException e)
            {
                findings.Corruption("Layer", e.Wording, host: e.Offset);
            }
        }
        return new() { Findings = findings.List, Corruptions = findings.Corruptions };
    }

    private static async ValueTask<CheckReport> CheckAsync(BlockNode file, CancellationToken cancellationToken)
    {
        ParallelsNode layer;
        try
        {
            layer = await ParallelsNode.OpenAsync(file, backing: null, forRepair: false, cancellationToken).ConfigureAwait(false);
        }
        catch
        {
            await Closing.FailedAsync(file).ConfigureAwait(false);
            throw;
        }
        await using (layer.ConfigureAwait(false))
        {
            return await layer.CheckAsync(null, cancellationToken).ConfigureAwait(false);
        }
    }
}
