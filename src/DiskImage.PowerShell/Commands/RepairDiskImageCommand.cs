using System.Management.Automation;
using DiskImage.Block;
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
        using var operation = new RepairOperation(this, Request(path));
        (CheckOutcome outcome, string files) = await operation.FindAsync(cancellationToken).ConfigureAwait(false);
        DiskImageCheckResult found = DiskImageCheckResult.Of(outcome);
        int count = found.Findings.Count(IsRepaired);
        if (count == 0)
        {
            await VerboseAsync($"{found.Path}: there is nothing that -Mode {Mode} repairs").ConfigureAwait(false);
        }
        else if (await ConfirmAsync(
            files, $"Repair {count:#,0} of {found.Findings.Count:#,0} findings in", [.. found.Findings.Select(Step)]).ConfigureAwait(false))
        {
            outcome = await operation.RunAsync(Mode, cancellationToken).ConfigureAwait(false);
        }
        else
        {
            return;
        }
        await OutputAsync(DiskImageCheckResult.Of(
            await operation.WithParentAsync(outcome, cancellationToken).ConfigureAwait(false))).ConfigureAwait(false);
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
