namespace DiskImage.Block;

/// <summary>Collects what a check finds: counts everything, lists the first <see cref="CheckReport.MaxFindings"/>.</summary>
internal sealed class CheckFindings
{
    private readonly List<CheckFinding> _list = [];

    public IReadOnlyList<CheckFinding> List => _list;

    public long Corruptions { get; private set; }

    public long Leaks { get; private set; }

    public long Errors { get; private set; }

    public void Corruption(string kind, Wording message, string? repair = null, long? guest = null, long? guestLength = null, long? host = null, long count = 1)
    {
        Corruptions += count;
        Add(new(kind, CheckSeverity.Corruption, message.ToString(), guest, guestLength, host) { Repair = repair });
    }

    public void Leak(Wording message, string repair, long host, long count)
    {
        Leaks += count;
        Add(new("Leak", CheckSeverity.Leak, message.ToString(), HostOffset: host) { Repair = repair });
    }

    public void Error(string kind, Wording message, string? repair = null, long? host = null)
    {
        Errors++;
        Add(new(kind, CheckSeverity.Error, message.ToString(), HostOffset: host) { Repair = repair });
    }

    public void Warning(string kind, Wording message, string? repair = null, long? host = null)
        => Add(new(kind, CheckSeverity.Warning, message.ToString(), HostOffset: host) { Repair = repair });

    private void Add(CheckFinding finding)
    {
        if (_list.Count < CheckReport.MaxFindings)
        {
            _list.Add(finding);
        }
    }
}
