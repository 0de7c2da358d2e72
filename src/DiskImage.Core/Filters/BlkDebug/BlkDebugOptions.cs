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

    /// <summary>Errors to make; set by <see cref="Read"/>.</summary>
    internal IReadOnlyList<InjectedError> Errors { get; init; } = [];

    /// <summary>Takes the errors out of named values: <c>inject-error.0.iotype</c>, <c>inject-error.0.errno</c> and so on.</summary>
    internal static BlkDebugOptions Read(OptionSchema schema, IEnumerable<KeyValuePair<string, object?>> values)
    {
        const string Prefix = "inject-error.";
        var rest = new List<KeyValuePair<string, object?>>();
        var errors = new SortedDictionary<string, List<KeyValuePair<string, object?>>>(StringComparer.Ordinal);
        foreach (KeyValuePair<string, object?> value in values)
        {
            string[] steps = value.Key.Split('.', 3);
            if (!value.Key.StartsWith(Prefix, StringComparison.Ordinal) || steps.Length < 3)
            {
                rest.Add(value);
                continue;
            }
            if (!errors.TryGetValue(steps[1], out List<KeyValuePair<string, object?>>? error))
            {
                errors.Add(steps[1], error = []);
            }
            error.Add(new(steps[2], value.Value));
        }
        OptionSchema one = OptionSchema.Of<InjectedError>();
        return (BlkDebugOptions)schema.Bind(rest) with { Errors = [.. errors.Values.Select(e => (InjectedError)one.Bind(e))] };
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
    private const int SectorSize = 512;

    /// <summary>The requests that fail.</summary>
    [DriverOption("iotype", "Requests that fail: any, read, write, write-zeroes, discard, flush, block-status")]
    public BlkDebugRequests Requests { get; init; }

    /// <summary>The error.</summary>
    [DriverOption("errno", "Error number of Linux: 5 is an I/O error, 28 a full disk", Minimum = 1, Maximum = 4095)]
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

    /// <summary>The point in a program that arms it.</summary>
    [DriverOption("event", "The point at which it is armed; only none, from the start, is known")]
    public BlkDebugEvent Event { get; init; }

    /// <summary>True for a request of which the error is made.</summary>
    internal bool Matches(BlkDebugRequests kind, long offset, long length)
        => (Requests == kind || (Requests == BlkDebugRequests.Any && kind != BlkDebugRequests.BlockStatus))
            && (Sector < 0 || kind == BlkDebugRequests.Flush
            || (offset < (Sector + 1) * SectorSize && offset + length > Sector * SectorSize));

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

/// <summary>Points in a program at which an error is armed.</summary>
internal enum BlkDebugEvent
{
    /// <summary>From the start.</summary>
    [OptionText("none")]
    None,
}
