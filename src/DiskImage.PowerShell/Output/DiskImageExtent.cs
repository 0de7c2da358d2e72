using System.Collections.Specialized;
using DiskImage.Block;

namespace DiskImage.PowerShell;

/// <summary>A run of the virtual disk that is stored in one way. Offsets and lengths are bytes.</summary>
public sealed class DiskImageExtent(
    long start, long length, int depth, bool present, bool zero, bool data, bool compressed, long? offset, string? file)
{
    /// <summary>The first byte, in the virtual disk.</summary>
    public long Start { get; } = start;

    /// <summary>Bytes.</summary>
    public long Length { get; } = length;

    /// <summary>The layer that decides: 0 the image itself, 1 its backing image, and so on.</summary>
    public int Depth { get; } = depth;

    /// <summary>Some layer decides the run's contents.</summary>
    public bool Present { get; } = present;

    /// <summary>The run reads as zeroes.</summary>
    public bool Zero { get; } = zero;

    /// <summary>The run's bytes are stored.</summary>
    public bool Data { get; } = data;

    /// <summary>They are stored compressed.</summary>
    public bool Compressed { get; } = compressed;

    /// <summary>Where <see cref="File"/> keeps the first byte; null if it has no such place.</summary>
    public long? Offset { get; } = offset;

    /// <summary>The file that holds the bytes; null if none does.</summary>
    public string? File { get; } = file;

    /// <inheritdoc/>
    public override string ToString() => $"{Start:0}+{Length:0}";

    /// <summary>
    /// The same as <c>qemu-img map --output=json</c> says it, for ConvertTo-Json: QEMU's names, in its order; offset and filename only
    /// where there are such. Spec: MapEntry, qapi/block-core.json.
    /// </summary>
    public OrderedDictionary ToQemu()
    {
        var entry = new OrderedDictionary
        {
            ["start"] = Start,
            ["length"] = Length,
            ["depth"] = Depth,
            ["present"] = Present,
            ["zero"] = Zero,
            ["data"] = Data,
            ["compressed"] = Compressed,
        };
        if (Offset is long offset)
        {
            entry["offset"] = offset;
            entry["filename"] = File;
        }
        return entry;
    }

    internal static DiskImageExtent Of(in BlockExtent extent) => new(
        extent.Offset,
        extent.Length,
        extent.Depth,
        extent.IsAllocated,
        extent.IsZero,
        extent.IsData,
        extent.IsCompressed,
        extent.HostOffset,
        extent.HostOffset is null ? null : extent.Node?.Name);
}
