using DiskImage.Block;
using DiskImage.Options;

namespace DiskImage.Filters.Throttle;

/// <summary>
/// Options of the throttle: limits per second, 0 for none, with bursts. Names as QEMU's throttle groups have them (qapi, ThrottleLimits).
/// </summary>
internal sealed record ThrottleOptions
{
    private const long Most = 1_000_000_000_000_000; // QEMU's limit, of rates and of what a burst may come to

    private const long LongestBurst = uint.MaxValue; // seconds; QEMU's limit

    private static readonly string[] s_prefixes = ["limits.", "x-", "throttling."]; // object, object of old, and drive of QEMU

    /// <summary>The group that has the limits; empty for none: the node has its own.</summary>
    [DriverOption("throttle-group", "Name of a group: its nodes share the limits, which one of them gives")]
    public string Group { get; init; } = "";

    /// <summary>Bytes read and written.</summary>
    [DriverOption(
        "bps-total", "Bytes a second, read and written together; 0 for no limit", IsSize = true, Minimum = 0, Maximum = Most)]
    public long BytesTotal { get; init; }

    /// <summary>Bytes read.</summary>
    [DriverOption("bps-read", "Bytes read a second; 0 for no limit", IsSize = true, Minimum = 0, Maximum = Most)]
    public long BytesRead { get; init; }

    /// <summary>Bytes written.</summary>
    [DriverOption("bps-write", "Bytes written a second; 0 for no limit", IsSize = true, Minimum = 0, Maximum = Most)]
    public long BytesWrite { get; init; }

    /// <summary>Requests.</summary>
    [DriverOption("iops-total", "Requests a second, reads and writes together; 0 for no limit", Minimum = 0, Maximum = Most)]
    public long RequestsTotal { get; init; }

    /// <summary>Requests that read.</summary>
    [DriverOption("iops-read", "Reads a second; 0 for no limit", Minimum = 0, Maximum = Most)]
    public long RequestsRead { get; init; }

    /// <summary>Requests that write.</summary>
    [DriverOption("iops-write", "Writes a second; 0 for no limit", Minimum = 0, Maximum = Most)]
    public long RequestsWrite { get; init; }

    /// <summary>Bytes read and written in a burst.</summary>
    [DriverOption("bps-total-max", "Bytes a second in a burst; 0 for none", IsSize = true, Minimum = 0, Maximum = Most)]
    public long BytesTotalMax { get; init; }

    /// <summary>Bytes read in a burst.</summary>
    [DriverOption("bps-read-max", "Bytes read a second in a burst; 0 for none", IsSize = true, Minimum = 0, Maximum = Most)]
    public long BytesReadMax { get; init; }

    /// <summary>Bytes written in a burst.</summary>
    [DriverOption("bps-write-max", "Bytes written a second in a burst; 0 for none", IsSize = true, Minimum = 0, Maximum = Most)]
    public long BytesWriteMax { get; init; }

    /// <summary>Requests in a burst.</summary>
    [DriverOption("iops-total-max", "Requests a second in a burst; 0 for none", Minimum = 0, Maximum = Most)]
    public long RequestsTotalMax { get; init; }

    /// <summary>Reads in a burst.</summary>
    [DriverOption("iops-read-max", "Reads a second in a burst; 0 for none", Minimum = 0, Maximum = Most)]
    public long RequestsReadMax { get; init; }

    /// <summary>Writes in a burst.</summary>
    [DriverOption("iops-write-max", "Writes a second in a burst; 0 for none", Minimum = 0, Maximum = Most)]
    public long RequestsWriteMax { get; init; }

    /// <summary>Seconds of a burst of bytes.</summary>
    [DriverOption("bps-total-max-length", "Seconds that a burst of bytes lasts", Minimum = 1, Maximum = LongestBurst)]
    public long BytesTotalSeconds { get; init; } = 1;

    /// <summary>Seconds of a burst of bytes read.</summary>
    [DriverOption("bps-read-max-length", "Seconds that a burst of bytes read lasts", Minimum = 1, Maximum = LongestBurst)]
    public long BytesReadSeconds { get; init; } = 1;

    /// <summary>Seconds of a burst of bytes written.</summary>
    [DriverOption("bps-write-max-length", "Seconds that a burst of bytes written lasts", Minimum = 1, Maximum = LongestBurst)]
    public long BytesWriteSeconds { get; init; } = 1;

    /// <summary>Seconds of a burst of requests.</summary>
    [DriverOption("iops-total-max-length", "Seconds that a burst of requests lasts", Minimum = 1, Maximum = LongestBurst)]
    public long RequestsTotalSeconds { get; init; } = 1;

    /// <summary>Seconds of a burst of reads.</summary>
    [DriverOption("iops-read-max-length", "Seconds that a burst of reads lasts", Minimum = 1, Maximum = LongestBurst)]
    public long RequestsReadSeconds { get; init; } = 1;

    /// <summary>Seconds of a burst of writes.</summary>
    [DriverOption("iops-write-max-length", "Seconds that a burst of writes lasts", Minimum = 1, Maximum = LongestBurst)]
    public long RequestsWriteSeconds { get; init; } = 1;

    /// <summary>What one request is at most.</summary>
    [DriverOption(
        "iops-size", "A request of more bytes counts as so many as it has times these; 0: each counts as one", IsSize = true,
        Minimum = 0, Maximum = Most)]
    public long RequestSize { get; init; }

    /// <summary>The limits by what they are of.</summary>
    internal IReadOnlyList<ThrottleLimit> Limits =>
    [
        new("bps-total", ThrottleUse.Bytes | ThrottleUse.Reads | ThrottleUse.Writes, BytesTotal, BytesTotalMax, BytesTotalSeconds),
        new("bps-read", ThrottleUse.Bytes | ThrottleUse.Reads, BytesRead, BytesReadMax, BytesReadSeconds),
        new("bps-write", ThrottleUse.Bytes | ThrottleUse.Writes, BytesWrite, BytesWriteMax, BytesWriteSeconds),
        new("iops-total", ThrottleUse.Reads | ThrottleUse.Writes, RequestsTotal, RequestsTotalMax, RequestsTotalSeconds),
        new("iops-read", ThrottleUse.Reads, RequestsRead, RequestsReadMax, RequestsReadSeconds),
        new("iops-write", ThrottleUse.Writes, RequestsWrite, RequestsWriteMax, RequestsWriteSeconds),
    ];

    /// <summary>It says something of limits, and not only whose they are.</summary>
    internal bool HasLimits => this with { Group = "" } != new ThrottleOptions();

    /// <summary>
    /// Takes the names that QEMU has for these options elsewhere: <c>limits.bps-read</c> and <c>x-bps-read</c> of the object
    /// throttle-group, <c>throttling.bps-read</c> and <c>throttling.group</c> of a drive.
    /// </summary>
    /// <exception cref="DiskImageException">InvalidOption: unknown, not allowed, said twice, or in contradiction.</exception>
    internal static ThrottleOptions Read(OptionSchema schema, IEnumerable<KeyValuePair<string, object?>> values)
    {
        var said = new Dictionary<string, KeyValuePair<string, object?>>(StringComparer.OrdinalIgnoreCase);
        foreach (KeyValuePair<string, object?> value in values)
        {
            string? prefix = Array.Find(s_prefixes, p => value.Key.StartsWith(p, StringComparison.OrdinalIgnoreCase));
            string name = prefix is null ? value.Key : value.Key[prefix.Length..];
            name = value.Key.Equals("throttling.group", StringComparison.OrdinalIgnoreCase) ? "throttle-group" : name;
            name = schema.Find(name) is null ? value.Key : name; // the error names it as it was written
            if (!said.TryAdd(name, new(name, value.Value)))
            {
                throw new DiskImageException(
                    DiskImageErrorKind.InvalidOption, $"Option '{name}' of the throttle is said twice, as '{value.Key}' too. Say it once.");
            }
        }
        var options = (ThrottleOptions)schema.Bind(said.Values);
        options.Check();
        return options;
    }

    private void Check()
    {
        foreach (ThrottleLimit[] three in Limits.Chunk(3))
        {
            if (three[0].IsSaid && (three[1].IsSaid ? three[1] : three[2]) is { IsSaid: true } part)
            {
                throw Wrong($"'{three[0].Name}' and '{part.Name}' cannot be used together: give a limit for reads and writes together, or "
                    + "one for each");
            }
            foreach (ThrottleLimit limit in three)
            {
                limit.Check();
            }
        }
        if (RequestSize > 0 && RequestsTotal == 0 && RequestsRead == 0 && RequestsWrite == 0)
        {
            throw Wrong("'iops-size' says how requests are counted, and there is no limit of requests. Give iops-total, iops-read or "
                + "iops-write too");
        }
    }

    internal static DiskImageException Wrong(string what) => new(DiskImageErrorKind.InvalidOption, $"The limits of the throttle: {what}.");

    /// <summary>One limit.</summary>
    /// <param name="Name">The option that gives the rate.</param>
    /// <param name="Use">What counts.</param>
    /// <param name="Average">Bytes or requests a second; 0 for no limit.</param>
    /// <param name="Burst">The same in a burst; 0 for none.</param>
    /// <param name="Seconds">How long a burst may last.</param>
    internal sealed record ThrottleLimit(string Name, ThrottleUse Use, long Average, long Burst, long Seconds)
    {
        public bool IsSaid => Average > 0 || Burst > 0;

        /// <summary>The rules are QEMU's.</summary>
        public void Check()
        {
            if (Burst > 0 && Average == 0)
            {
                throw Wrong($"'{Name}-max' is the rate of a burst, and '{Name}' is missing, the rate that holds after it");
            }
            if (Burst > 0 && Burst < Average)
            {
                throw Wrong($"'{Name}-max' is {Burst:#,0}, less than '{Name}', which is {Average:#,0}. A burst is at least as fast");
            }
            if (Seconds > 1 && Burst == 0)
            {
                throw Wrong($"'{Name}-max-length' is the length of a burst, and '{Name}-max' is missing, its rate");
            }
            if (Burst > 0 && Seconds > Most / Burst)
            {
                throw Wrong($"'{Name}-max-length' is {Seconds:#,0} seconds; with '{Name}-max' of {Burst:#,0} at most {Most / Burst:#,0} "
                    + "are allowed");
            }
        }
    }
}

/// <summary>What a limit counts.</summary>
[Flags]
internal enum ThrottleUse
{
    /// <summary>Nothing.</summary>
    None = 0,

    /// <summary>Reads count.</summary>
    Reads = 1,

    /// <summary>Writes, zeroes and discards count.</summary>
    Writes = 2,

    /// <summary>Bytes are counted, and not requests.</summary>
    Bytes = 4,
}
