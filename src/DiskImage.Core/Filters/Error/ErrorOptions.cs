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

    /// <summary>The error of reads.</summary>
    [DriverOption("error-pread", "The error of reads")]
    public ErrorCode? ReadCode { get; init; }

    /// <summary>How many reads fail.</summary>
    [DriverOption("error-pread-rate", "How many reads fail; error-rate if absent")]
    public string? ReadRate { get; init; }

    /// <summary>The error of writes.</summary>
    [DriverOption("error-pwrite", "The error of writes")]
    public ErrorCode? WriteCode { get; init; }

    /// <summary>How many writes fail.</summary>
    [DriverOption("error-pwrite-rate", "How many writes fail; error-rate if absent")]
    public string? WriteRate { get; init; }

    /// <summary>The error of writes of zeroes.</summary>
    [DriverOption("error-zero", "The error of writes of zeroes")]
    public ErrorCode? ZeroCode { get; init; }

    /// <summary>How many writes of zeroes fail.</summary>
    [DriverOption("error-zero-rate", "How many writes of zeroes fail; error-rate if absent")]
    public string? ZeroRate { get; init; }

    /// <summary>The error of discards.</summary>
    [DriverOption("error-trim", "The error of discards")]
    public ErrorCode? TrimCode { get; init; }

    /// <summary>How many discards fail.</summary>
    [DriverOption("error-trim-rate", "How many discards fail; error-rate if absent")]
    public string? TrimRate { get; init; }

    /// <summary>The error of asking for extents.</summary>
    [DriverOption("error-extents", "The error of asking for extents")]
    public ErrorCode? ExtentsCode { get; init; }

    /// <summary>How many times asking for extents fails.</summary>
    [DriverOption("error-extents-rate", "How often asking for extents fails; error-rate if absent")]
    public string? ExtentsRate { get; init; }

    /// <summary>The error of flushes.</summary>
    [DriverOption("error-flush", "The error of flushes")]
    public ErrorCode? FlushCode { get; init; }

    /// <summary>How many flushes fail.</summary>
    [DriverOption("error-flush-rate", "How many flushes fail; error-rate if absent")]
    public string? FlushRate { get; init; }

    /// <summary>What becomes of each kind of request.</summary>
    /// <exception cref="DiskImageException">InvalidOption: a rate that is none.</exception>
    internal IReadOnlyDictionary<ErrorRequests, (double Rate, ErrorCode Code)> Kinds()
        => new Dictionary<ErrorRequests, (double, ErrorCode)>
        {
            [ErrorRequests.Read] = (Number("error-pread-rate", ReadRate), ReadCode ?? Code),
            [ErrorRequests.Write] = (Number("error-pwrite-rate", WriteRate), WriteCode ?? Code),
            [ErrorRequests.WriteZeroes] = (Number("error-zero-rate", ZeroRate), ZeroCode ?? Code),
            [ErrorRequests.Discard] = (Number("error-trim-rate", TrimRate), TrimCode ?? Code),
            [ErrorRequests.Extents] = (Number("error-extents-rate", ExtentsRate), ExtentsCode ?? Code),
            [ErrorRequests.Flush] = (Number("error-flush-rate", FlushRate), FlushCode ?? Code),
        };

    private double Number(string name, string? text)
    {
        (name, text) = text is null ? ("error-rate", Rate) : (name, text);
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

/// <summary>Kinds of requests.</summary>
internal enum ErrorRequests
{
    /// <summary>A read.</summary>
    Read,

    /// <summary>A write.</summary>
    Write,

    /// <summary>A write of zeroes.</summary>
    WriteZeroes,

    /// <summary>A discard.</summary>
    Discard,

    /// <summary>Asking for extents.</summary>
    Extents,

    /// <summary>A flush.</summary>
    Flush,
}
