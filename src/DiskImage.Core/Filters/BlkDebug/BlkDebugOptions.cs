using System.Globalization;
using DiskImage.Block;
using DiskImage.Options;

namespace DiskImage.Filters.BlkDebug;

/// <summary>Options of the error injector.</summary>
internal sealed record BlkDebugOptions
{
    /// <summary>What requests are to keep to.</summary>
    [DriverOption("align", "Requests are multiples of so many bytes", IsSize = true, Minimum = 1, Maximum = 1 << 20, PowerOfTwo = true)]
    public long Align { get; init; } = 1;

    /// <summary>The largest request.</summary>
    [DriverOption("max-transfer", "Bytes of the largest request; 0 for any", IsSize = true, Minimum = 0, Maximum = int.MaxValue)]
    public long MaxTransfer { get; init; }

    /// <summary>The largest request to write zeroes.</summary>
    [DriverOption("max-write-zero", "Bytes of the largest request to write zeroes; 0 for any", IsSize = true, Minimum = 0)]
    public long MaxWriteZero { get; init; }

    /// <summary>What zeroes are best written in.</summary>
    [DriverOption(
        "opt-write-zero", "Taken for the sake of descriptions made for QEMU: zeroes are written as they are asked for", IsSize = true)]
    public long OptWriteZero { get; init; }

    /// <summary>The largest discard.</summary>
    [DriverOption("max-discard", "Bytes of the largest discard; 0 for any", IsSize = true, Minimum = 0)]
    public long MaxDiscard { get; init; }

    /// <summary>What is best discarded.</summary>
    [DriverOption("opt-discard", "Taken for the sake of descriptions made for QEMU: what is asked for is discarded", IsSize = true)]
    public long OptDiscard { get; init; }

    /// <summary>Errors to make, in their order; set by <see cref="Read"/>.</summary>
    internal IReadOnlyList<InjectedError> Errors { get; init; } = [];

    /// <summary>Changes of state, in their order; set by <see cref="Read"/>.</summary>
    internal IReadOnlyList<StateChange> States { get; init; } = [];

    /// <summary>
    /// Takes the rules out of named values: <c>inject-error.0.iotype</c>, <c>inject-error.0.errno</c>, <c>set-state.0.event</c> and so on.
    /// </summary>
    internal static BlkDebugOptions Read(OptionSchema schema, IEnumerable<KeyValuePair<string, object?>> values)
    {
        var rest = new List<KeyValuePair<string, object?>>();
        var rules = new Dictionary<string, List<KeyValuePair<string, object?>>>(StringComparer.Ordinal);
        foreach (KeyValuePair<string, object?> value in values)
        {
            string[] steps = value.Key.Split('.', 3);
            if (steps is not [InjectedError.Rule or StateChange.Rule, _, _])
            {
                rest.Add(value);
                continue;
            }
            string rule = $"{steps[0]}.{steps[1].PadLeft(10, '0')}"; // the tenth comes behind the second
            if (!rules.TryGetValue(rule, out List<KeyValuePair<string, object?>>? members))
            {
                rules.Add(rule, members = []);
            }
            members.Add(new(steps[2], value.Value));
        }
        return (BlkDebugOptions)schema.Bind(rest) with
        {
            Errors = [.. Of<InjectedError>(InjectedError.Rule).Select(e => e with { At = BlkDebugEvents.Require(e.Event) })],
            States = [.. Of<StateChange>(StateChange.Rule).Select(c => c with { At = BlkDebugEvents.Require(c.Event) })],
        };

        IEnumerable<T> Of<T>(string rule)
            where T : class, new()
        {
            OptionSchema one = OptionSchema.Of<T>();
            return rules.Where(r => r.Key.StartsWith(rule, StringComparison.Ordinal)).OrderBy(r => r.Key, StringComparer.Ordinal)
                .Select(r => (T)one.Bind(r.Value));
        }
    }
}

/// <summary>Requests of which an error is made.</summary>
internal enum BlkDebugRequests
{
    /// <summary>All but asking for extents, as in QEMU.</summary>
    [OptionText("any")]
    Any,

    /// <summary>Reads.</summary>
    [OptionText("read")]
    Read,

    /// <summary>Writes.</summary>
    [OptionText("write")]
    Write,

    /// <summary>Writes of zeroes.</summary>
    [OptionText("write-zeroes")]
    WriteZeroes,

    /// <summary>Discards.</summary>
    [OptionText("discard")]
    Discard,

    /// <summary>Flushes.</summary>
    [OptionText("flush")]
    Flush,

    /// <summary>Asking for extents.</summary>
    [OptionText("block-status")]
    BlockStatus,
}

/// <summary>An error that is made.</summary>
internal sealed record InjectedError
{
    internal const string Rule = "inject-error";

    private const int SectorSize = 512;

    /// <summary>The requests that fail.</summary>
    [DriverOption("iotype", "Requests that fail: any, read, write, write-zeroes, discard, flush, block-status")]
    public BlkDebugRequests Requests { get; init; }

    /// <summary>The error.</summary>
    [DriverOption("errno", "Error number of Linux: 5 is an I/O error, 28 a full disk; 0 for none", Minimum = 0, Maximum = 4095)]
    public long Error { get; init; } = 5;

    /// <summary>Where.</summary>
    [DriverOption(
        "sector", "Only requests that touch this sector of 512 bytes; -1 for all", Minimum = -1, Maximum = long.MaxValue / SectorSize)]
    public long Sector { get; init; } = -1;

    /// <summary>How often.</summary>
    [DriverOption("once", "Only the first such request fails")]
    public bool Once { get; init; }

    /// <summary>When it fails; here it always fails before anything is done.</summary>
    [DriverOption("immediately", "Taken for the sake of descriptions made for QEMU: a request always fails at once")]
    public bool Immediately { get; init; }

    /// <summary>What arms it.</summary>
    [DriverOption("event", "The event that arms it, as l2_load or write_aio; none, from the start")]
    public string Event { get; init; } = "none";

    /// <summary>In which state.</summary>
    [DriverOption("state", "Only in this state is it armed; 0 for any", Minimum = 0, Maximum = int.MaxValue)]
    public long State { get; init; }

    /// <summary>The same as <see cref="Event"/>.</summary>
    internal DebugEvent At { get; init; }

    /// <summary>True for a request of which the error is made.</summary>
    internal bool Matches(BlkDebugRequests kind, long offset, long length)
        => (Requests == kind || (Requests == BlkDebugRequests.Any && kind != BlkDebugRequests.BlockStatus))
            && (Sector < 0 || (length > 0 && offset < (Sector + 1) * SectorSize && offset + length > Sector * SectorSize));

    /// <summary>The error as the library has it. Numbers: Linux, errno(3).</summary>
    internal DiskImageException Make(string name, BlkDebugRequests kind, long offset)
    {
        DiskImageErrorKind error = Error switch
        {
            28 or 122 => DiskImageErrorKind.NoSpace,
            1 or 13 => DiskImageErrorKind.AccessDenied,
            _ => DiskImageErrorKind.Io,
        };
        return new(
            error,
            string.Create(
                CultureInfo.InvariantCulture, $"{name}: {kind} at offset {offset:#,0} fails with error {Error}, as blkdebug was told"),
            name,
            offset);
    }
}

/// <summary>A change of the state that an event makes.</summary>
internal sealed record StateChange
{
    internal const string Rule = "set-state";

    /// <summary>What makes it.</summary>
    [DriverOption("event", "The event that makes the change, as l2_load or write_aio")]
    public string Event { get; init; } = "none";

    /// <summary>From which state.</summary>
    [DriverOption("state", "Only from this state; 0 for any", Minimum = 0, Maximum = int.MaxValue)]
    public long State { get; init; }

    /// <summary>To which.</summary>
    [DriverOption("new_state", "The state from then on; it is 1 at first", Minimum = 0, Maximum = int.MaxValue)]
    public long NewState { get; init; }

    /// <summary>The same as <see cref="Event"/>.</summary>
    internal DebugEvent At { get; init; }
}
