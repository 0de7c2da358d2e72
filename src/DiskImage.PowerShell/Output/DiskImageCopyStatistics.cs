using DiskImage.Jobs;
using DiskImage.Operations;

namespace DiskImage.PowerShell;

/// <summary>What a conversion did.</summary>
public sealed class DiskImageCopyStatistics(
    long bytesCopied, long bytesShared, long bytesMoved, long bytesZero, long bytesSkipped, TimeSpan elapsed)
{
    /// <summary>Bytes of data written.</summary>
    public long BytesCopied { get; } = bytesCopied;

    /// <summary>How many of these have their storage in common with the source's file (reflink).</summary>
    public long BytesShared { get; } = bytesShared;

    /// <summary>How many of them the host copied itself.</summary>
    public long BytesMoved { get; } = bytesMoved;

    /// <summary>Bytes that read as zeroes.</summary>
    public long BytesZero { get; } = bytesZero;

    /// <summary>Bytes left to the backing image.</summary>
    public long BytesSkipped { get; } = bytesSkipped;

    /// <summary>What of the source could not be read and is zeroes in the new image, in order; see -Salvage.</summary>
    public ReadableList<DiskImageBadRange> BadRanges { get; init; } = new([]);

    /// <summary>Time the copying took.</summary>
    public TimeSpan Elapsed { get; } = elapsed;

    /// <inheritdoc/>
    public override string ToString() => $"{ReadableSize.Of(BytesCopied)} copied";

    internal static DiskImageCopyStatistics Of(ConvertResult result, LostRanges? lost = null)
        => new(result.BytesCopied, result.BytesShared, result.BytesMoved, result.BytesZero, result.BytesSkipped, result.Elapsed)
        {
            BadRanges = new((lost?.Ranges ?? []).Select(r => new DiskImageBadRange(r.Offset, r.Length, RemedyWords.Say(r.Reason)))),
        };
}

/// <summary>A run of a disk that could not be read.</summary>
public sealed class DiskImageBadRange(long offset, long length, string reason)
{
    /// <summary>The first byte, in the source's disk.</summary>
    public long Offset { get; } = offset;

    /// <summary>Bytes.</summary>
    public long Length { get; } = length;

    /// <summary>Why its first bytes could not be read.</summary>
    public string Reason { get; } = reason;

    /// <inheritdoc/>
    public override string ToString() => $"{Offset:0}+{Length:0}";
}
