using System.Globalization;
using DiskImage.Block;
using DiskImage.Options;

namespace DiskImage.Filters.Error;

/// <summary>Errors that requests may fail with.</summary>
internal enum ErrorCode
{
    /// <summary>An I/O error.</summary>
    [OptionText("EIO")]
    Io,

    /// <summary>No space is left.</summary>
    [OptionText("ENOSPC")]
    NoSpace,

    /// <summary>Not allowed.</summary>
    [OptionText("EPERM", "EACCES")]
    AccessDenied,

    /// <summary>No memory.</summary>
    [OptionText("ENOMEM")]
    NoMemory,

    /// <summary>Not a request that it takes.</summary>
    [OptionText("EINVAL")]
    Invalid,

    /// <summary>It is about to end.</summary>
    [OptionText("ESHUTDOWN")]
    Shutdown,
}

/// <summary>
/// Options of the filter of errors: which requests fail, how often, and how. Names as nbdkit's filter of this name has them; flush and seed
/// are ours.
/// </summary>
internal sealed record ErrorOptions
{
    /// <summary>The error.</summary>
    [DriverOption("error", "The error of all requests whose own is not given")]
    public ErrorCode Code { get; init; }

    /// <summary>How often.</summary>
    [DriverOption("error-rate", "How many of all requests fail: from 0 to 1, or 0% to 100%")]
    public string Rate { get; init; } = "0";

    /// <summary>What decides which ones fail.</summary>
    [DriverOption("seed", "Which requests fail: the same ones for the same number", Minimum = 0)]
    public long Seed { get; init; }

    /// <summary>Reads.</summary>
    [DriverOptionGroup("error-pread")]
    public ErrorOfKind Read { get; init; } = new();

    /// <summary>Writes.</summary>
    [DriverOptionGroup("error-pwrite")]
    public ErrorOfKind Write { get; init; } = new();

    /// <summary>Writes of zeroes.</summary>
    [DriverOptionGroup("error-zero")]
    public ErrorOfKind Zero { get; init; } = new();

    /// <summary>Discards.</summary>
    [DriverOptionGroup("error-trim")]
    public ErrorOfKind Trim { get; init; } = new();

    /// <summary>Asking for extents.</summary>
    [DriverOptionGroup("error-extents")]
    public ErrorOfKind Extents { get; init; } = new();

    /// <summary>Flushes.</summary>
    [DriverOptionGroup("error-flush")]
    public ErrorOfKind Flush { get; init; } = new();

    /// <summary>What becomes of each kind of request.</summary>
    /// <exception cref="DiskImageException">InvalidOption: a rate that is none.</exception>
    internal IReadOnlyDictionary<RequestKind, (double Rate, ErrorCode Code)> Kinds()
        => new Dictionary<RequestKind, (double, ErrorCode)>
        {
            [RequestKind.Read] = Of("error-pread", Read),
            [RequestKind.Write] = Of("error-pwrite", Write),
            [RequestKind.WriteZeroes] = Of("error-zero", Zero),
            [RequestKind.Discard] = Of("error-trim", Trim),
            [RequestKind.Extents] = Of("error-extents", Extents),
            [RequestKind.Flush] = Of("error-flush", Flush),
        };

    private (double Rate, ErrorCode Code) Of(string name, ErrorOfKind kind) => (
        kind.Rate is { } rate ? Number($"{name}-rate", rate) : Number("error-rate", Rate), kind.Code ?? Code);

    private static double Number(string name, string text)
    {
        bool isPercent = text.EndsWith('%');
        return double.TryParse(
                isPercent ? text[..^1] : text, NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out double value)
            && value <= (isPercent ? 100 : 1)
            ? value / (isPercent ? 100 : 1)
            : throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"Option '{name}' cannot be '{text}'. Allowed: a number from 0 to 1, or from 0% to 100%.");
    }
}

/// <summary>What becomes of requests of one kind.</summary>
internal sealed record ErrorOfKind
{
    /// <summary>The error.</summary>
    [DriverOption("", "The error of these requests; that of error if absent")]
    public ErrorCode? Code { get; init; }

    /// <summary>How many fail.</summary>
    [DriverOption("-rate", "How many of these fail; error-rate if absent")]
    public string? Rate { get; init; }
}
