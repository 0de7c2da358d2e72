using DiskImage.Block;

namespace DiskImage.Formats.Vhdx;

/// <summary>Collects what a check finds: counts everything, lists the first <see cref="CheckReport.MaxFindings"/>.</summary>
internal sealed class VhdxFindings
{
    private readonly List<CheckFinding> _list = [];

    public IReadOnlyList<CheckFinding> List => _list;

    public long Corruptions { get; private set; }

    public long Leaks { get; private set; }

    public long Errors { get; private set; }

    public void Corruption(string kind, string message, string? repair = null, long? guest = null, long? guestLength = null, long? host = null)
    {
        Corruptions++;
        Add(new(kind, CheckSeverity.Corruption, message, guest, guestLength, host) { Repair = repair });
    }

    public void Leak(string message, long host, long units)
    {
        Leaks += units;
        Add(new("Leak", CheckSeverity.Leak, message, HostOffset: host) { Repair = "move later blocks there and cut the file" });
    }

    public void Error(string kind, string message, long? host = null)
    {
        Errors++;
        Add(new(kind, CheckSeverity.Error, message, HostOffset: host));
    }

    public void Warning(string kind, string message, string? repair = null, long? host = null)
        => Add(new(kind, CheckSeverity.Warning, message, HostOffset: host) { Repair = repair });

    private void Add(CheckFinding finding)
    {
        if (_list.Count < CheckReport.MaxFindings)
        {
            _list.Add(finding);
        }
    }
}
