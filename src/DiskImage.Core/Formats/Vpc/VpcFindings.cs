using DiskImage.Block;

namespace DiskImage.Formats.Vpc;

/// <summary>Collects what a check finds; beyond <see cref="CheckReport.MaxFindings"/> findings are only counted.</summary>
internal sealed class VpcFindings
{
    private readonly List<CheckFinding> _findings = [];
    private long _corruptions, _leaks, _errors;

    public void Add(
        string kind, CheckSeverity severity, string message, long? guest = null, long? length = null, long? host = null, string? repair = null, long units = 1)
    {
        switch (severity)
        {
            case CheckSeverity.Corruption:
                _corruptions++;
                break;
            case CheckSeverity.Leak:
                _leaks += Math.Max(1, units);
                break;
            case CheckSeverity.Error:
                _errors++;
                break;
        }
        if (_findings.Count < CheckReport.MaxFindings)
        {
            _findings.Add(new CheckFinding(kind, severity, message, guest, length, host) { Repair = repair });
        }
    }

    public CheckReport Report() => new() { Findings = _findings, Corruptions = _corruptions, Leaks = _leaks, CheckErrors = _errors };
}
