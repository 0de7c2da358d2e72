using System.Runtime.CompilerServices;

namespace DiskImage.Block;

/// <summary>Collects what a check finds: counts everything, lists the first <see cref="CheckReport.MaxFindings"/>.</summary>
internal sealed class CheckFindings
{
    private readonly List<CheckFinding> _list = [];

    public IReadOnlyList<CheckFinding> List => _list;

    public long Corruptions { get; private set; }

    public long Leaks { get; private set; }

    public long Errors { get; private set; }

    /// <summary>False if another finding is only counted.</summary>
    public bool HasRoom => _list.Count < CheckReport.MaxFindings;

    public void Corruption(
        string kind,
        [InterpolatedStringHandlerArgument("")] Wording message,
        string? repair = null,
        long? guest = null,
        long? guestLength = null,
        long? host = null,
        long count = 1)
    {
        Corruptions += count;
        Add(kind, CheckSeverity.Corruption, message, repair, host, guest, guestLength);
    }

    public void Leak([InterpolatedStringHandlerArgument("")] Wording message, string repair, long host, long count)
    {
        Leaks += count;
        Add("Leak", CheckSeverity.Leak, message, repair, host);
    }

    public void Error(string kind, [InterpolatedStringHandlerArgument("")] Wording message, string? repair = null, long? host = null)
    {
        Errors++;
        Add(kind, CheckSeverity.Error, message, repair, host);
    }

    public void Warning(string kind, [InterpolatedStringHandlerArgument("")] Wording message, string? repair = null, long? host = null)
        => Add(kind, CheckSeverity.Warning, message, repair, host);

    private void Add(
        string kind, CheckSeverity severity, Wording message, string? repair, long? host, long? guest = null, long? guestLength = null)
    {
        if (HasRoom)
        {
            _list.Add(CheckFinding.Of(kind, severity, message, guest, guestLength, host) with { Repair = repair });
        }
    }
}
