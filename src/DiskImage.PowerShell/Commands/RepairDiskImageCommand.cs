using System.Management.Automation;
using DiskImage.Block;
using DiskImage.Graph;
using DiskImage.Operations;

namespace DiskImage.PowerShell;

/// <summary><c>Repair-DiskImage</c>: puts an image's structures right.</summary>
[Cmdlet(VerbsDiagnostic.Repair, "DiskImage", DefaultParameterSetName = PathSet, SupportsShouldProcess = true)]
[OutputType(typeof(DiskImageCheckResult))]
public sealed class RepairDiskImageCommand : CheckCmdlet
{
    /// <summary>What may be repaired.</summary>
    [Parameter(Position = 1)]
    public RepairMode Mode { get; set; } = RepairMode.Leaks;

    /// <inheritdoc/>
    protected override async Task ProcessImageAsync(string path, CancellationToken cancellationToken)
    {
        OpenRequest request = Request(path) with { WithBacking = false, ForRepair = true };
        (DiskImageCheckResult found, string files) = await FindAsync(request, cancellationToken).ConfigureAwait(false);
        int count = found.Findings.Count(IsRepaired);
        if (count == 0)
        {
            await VerboseAsync($"{found.Path}: there is nothing that -Mode {Mode} repairs").ConfigureAwait(false);
            await OutputAsync(await WithParentAsync(found, path, cancellationToken).ConfigureAwait(false)).ConfigureAwait(false);
            return;
        }
        if (!await ConfirmAsync(
            files, $"Repair {count:#,0} of {found.Findings.Count:#,0} findings in", [.. found.Findings.Select(Step)]).ConfigureAwait(false))
        {
            return;
        }
        DiskImageCheckResult left = await RepairAsync(request with { Writable = true }, cancellationToken).ConfigureAwait(false);
        await OutputAsync(await WithParentAsync(left, path, cancellationToken).ConfigureAwait(false)).ConfigureAwait(false);
    }

    private async Task<(DiskImageCheckResult Found, string Files)> FindAsync(OpenRequest request, CancellationToken cancellationToken)
    {
        OpenedImage image = await OpenAsync(request, cancellationToken).ConfigureAwait(false);
        await using (image.ConfigureAwait(false))
        {
            _ = image.Require<IRepairable>("cannot be repaired");
            return (await CheckAsync(image, [], cancellationToken).ConfigureAwait(false), WrittenFiles.Of(image));
        }
    }

    private async Task<DiskImageCheckResult> RepairAsync(OpenRequest request, CancellationToken cancellationToken)
    {
        OpenedImage image = await OpenAsync(request, cancellationToken).ConfigureAwait(false);
        await using (image.ConfigureAwait(false))
        {
            IRepairable repairable = image.Require<IRepairable>("cannot be repaired");
            DiskImageCheckResult result = await ReportAsync(
                image, "Repair", bytes => repairable.RepairAsync(Mode, bytes, cancellationToken), []).ConfigureAwait(false);
            await image.Node.FlushAsync(cancellationToken).ConfigureAwait(false);
            return result;
        }
    }

    /// <summary>Adds what is wrong with the parent, which no repair changes, to the result of a sound image.</summary>
    private async Task<DiskImageCheckResult> WithParentAsync(DiskImageCheckResult result, string path, CancellationToken cancellationToken)
    {
        if (!result.IsConsistent)
        {
            return result; // what is wrong may keep it from being opened at all
        }
        OpenedImage image = await OpenAsync(path, cancellationToken, withBacking: false).ConfigureAwait(false);
        await using (image.ConfigureAwait(false))
        {
            return result.With(await ParentFaultsAsync(image, path, cancellationToken).ConfigureAwait(false));
        }
    }

    private bool IsRepaired(DiskImageFinding finding)
        => finding.Repair is not null
            && (Mode == RepairMode.All || finding.Severity.Equals(nameof(CheckSeverity.Leak), StringComparison.Ordinal));

    private string Step(DiskImageFinding finding) => $"{finding.Severity}: {finding.Message.TrimEnd('.')}. " + finding switch
    {
        _ when IsRepaired(finding) => $"Would {finding.Repair}.",
        { Repair: not null } => "Left alone: -Mode All repairs it.",
        { Severity: nameof(CheckSeverity.Warning) } => "Harmless.",
        _ => "Cannot be repaired.",
    };
}
