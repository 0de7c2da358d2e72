using DiskImage.Block;
using DiskImage.Options;

namespace DiskImage.Filters.Throttle;

/// <summary>
/// Options of the throttle: limits per second, 0 for none, with bursts. Names as QEMU's throttle groups have them (qapi, ThrottleLimits).
/// </summary>
internal sealed record ThrottleOptions
{
    private static readonly string[] s_prefixes = ["limits.", "x-", "throttling."]; // object, object of old, and drive of QEMU

    /// <summary>The group that has the limits; empty for none: the node has its own.</summary>
    [DriverOption("throttle-group", "Name of a group: its nodes share the limits, which one of them gives")]
    public string Group { get; init; } = "";

    /// <summary>Bytes read and written.</summary>
    [DriverOptionGroup("bps-total")]
    public ByteRate BytesTotal { get; init; } = new();

    /// <summary>Bytes read.</summary>
    [DriverOptionGroup("bps-read")]
    public ByteRate BytesRead { get; init; } = new();

    /// <summary>Bytes written.</summary>
    [DriverOptionGroup("bps-write")]
    public ByteRate BytesWrite { get; init; } = new();

    /// <summary>Requests.</summary>
    [DriverOptionGroup("iops-total")]
    public RequestRate RequestsTotal { get; init; } = new();

    /// <summary>Requests that read.</summary>
    [DriverOptionGroup("iops-read")]
    public RequestRate RequestsRead { get; init; } = new();

    /// <summary>Requests that write.</summary>
    [DriverOptionGroup("iops-write")]
    public RequestRate RequestsWrite { get; init; } = new();

    /// <summary>What one request is at most.</summary>
    [DriverOption(
        "iops-size", "A request of more bytes counts as so many as it has times these; 0: each counts as one", IsSize = true,
        Minimum = 0, Maximum = ThrottleRate.Most)]
    public long RequestSize { get; init; }

    /// <summary>The limits by what they are of.</summary>
    internal IReadOnlyList<ThrottleLimit> Limits =>
    [
        new("bps-total", ThrottleUse.Bytes | ThrottleUse.Reads | ThrottleUse.Writes, BytesTotal),
        new("bps-read", ThrottleUse.Bytes | ThrottleUse.Reads, BytesRead),
        new("bps-write", ThrottleUse.Bytes | ThrottleUse.Writes, BytesWrite),
        new("iops-total", ThrottleUse.Reads | ThrottleUse.Writes, RequestsTotal),
        new("iops-read", ThrottleUse.Reads, RequestsRead),
        new("iops-write", ThrottleUse.Writes, RequestsWrite),
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
        if (RequestSize > 0 && RequestsTotal.Average == 0 && RequestsRead.Average == 0 && RequestsWrite.Average == 0)
        {
            throw Wrong("'iops-size' says how requests are counted, and there is no limit of requests. Give iops-total, iops-read or "
                + "iops-write too");
        }
    }

    internal static DiskImageException Wrong(string what) => new(DiskImageErrorKind.InvalidOption, $"The limits of the throttle: {what}.");
}

/// <summary>A rate, of what is counted in a second, and the burst that is let pass before it holds.</summary>
internal abstract record ThrottleRate
{
    internal const long Most = 1_000_000_000_000_000; // QEMU's limit, of rates and of what a burst may come to

    private const long LongestBurst = uint.MaxValue; // seconds; QEMU's limit

    /// <summary>The rate; 0 for no limit.</summary>
    public abstract long Average { get; init; }

    /// <summary>The rate in a burst; 0 for none.</summary>
    public abstract long Burst { get; init; }

    /// <summary>How long a burst may last.</summary>
    [DriverOption("-max-length", "Seconds that a burst lasts", Minimum = 1, Maximum = LongestBurst)]
    public long Seconds { get; init; } = 1;
}

/// <summary>Bytes in a second.</summary>
internal sealed record ByteRate : ThrottleRate
{
    /// <inheritdoc/>
    [DriverOption("", "Bytes a second; 0 for no limit", IsSize = true, Minimum = 0, Maximum = Most)]
    public override long Average { get; init; }

    /// <inheritdoc/>
    [DriverOption("-max", "Bytes a second in a burst; 0 for none", IsSize = true, Minimum = 0, Maximum = Most)]
    public override long Burst { get; init; }
}

/// <summary>Requests in a second.</summary>
internal sealed record RequestRate : ThrottleRate
{
    /// <inheritdoc/>
    [DriverOption("", "Requests a second; 0 for no limit", Minimum = 0, Maximum = Most)]
    public override long Average { get; init; }

    /// <inheritdoc/>
    [DriverOption("-max", "Requests a second in a burst; 0 for none", Minimum = 0, Maximum = Most)]
    public override long Burst { get; init; }
}

/// <summary>One limit.</summary>
/// <param name="Name">The option that gives the rate.</param>
/// <param name="Use">What counts.</param>
/// <param name="Rate">How much may pass.</param>
internal sealed record ThrottleLimit(string Name, ThrottleUse Use, ThrottleRate Rate)
{
    public bool IsSaid => Rate.Average > 0 || Rate.Burst > 0;

    /// <summary>The rules are QEMU's.</summary>
    /// <exception cref="DiskImageException">InvalidOption.</exception>
    public void Check()
    {
        (long average, long burst, long seconds) = (Rate.Average, Rate.Burst, Rate.Seconds);
        if (burst > 0 && average == 0)
        {
            throw ThrottleOptions.Wrong($"'{Name}-max' is the rate of a burst, and '{Name}' is missing, the rate that holds after it");
        }
        if (burst > 0 && burst < average)
        {
            throw ThrottleOptions.Wrong(
                $"'{Name}-max' is {burst:#,0}, less than '{Name}', which is {average:#,0}. A burst is at least as fast");
        }
        if (seconds > 1 && burst == 0)
        {
            throw ThrottleOptions.Wrong($"'{Name}-max-length' is the length of a burst, and '{Name}-max' is missing, its rate");
        }
        if (burst > 0 && seconds > ThrottleRate.Most / burst)
        {
            throw ThrottleOptions.Wrong(
                $"'{Name}-max-length' is {seconds:#,0} seconds; with '{Name}-max' of {burst:#,0} at most {ThrottleRate.Most / burst:#,0} "
                    + "are allowed");
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
