namespace DiskImage.Block;

/// <summary>What an open image says about itself.</summary>
public sealed record ImageDescription
{
    /// <summary>The format's name.</summary>
    public required string Format { get; init; }

    /// <summary>Bytes that are allocated together; null where there is no such unit.</summary>
    public long? ClusterSize { get; init; }

    /// <summary>The backing file's name as it stands in the image.</summary>
    public string? BackingFile { get; init; }

    /// <summary>The backing file's format as it stands in the image.</summary>
    public string? BackingFormat { get; init; }

    /// <summary>The contents are encrypted.</summary>
    public bool Encrypted { get; init; }

    /// <summary>New data is stored compressed.</summary>
    public bool Compressed { get; init; }

    /// <summary>The image was not closed properly.</summary>
    public bool Dirty { get; init; }

    /// <summary>Bytes of the sectors that the disk shows; null where the image does not tell.</summary>
    public int? LogicalSectorSize { get; init; }

    /// <summary>Bytes of the sectors that the disk says it has inside; null where the image does not tell.</summary>
    public int? PhysicalSectorSize { get; init; }

    /// <summary>What whoever uses the image should know, each as a sentence without its name; none if it is as it should be.</summary>
    public IReadOnlyList<string> Warnings { get; init; } = [];

    /// <summary>Further facts, as a typed object of the format.</summary>
    public object? FormatSpecific { get; init; }
}

/// <summary>A disk in an image format, which can tell about itself.</summary>
public interface IDescribed
{
    /// <summary>Tells what the image says about itself. No I/O.</summary>
    ImageDescription Describe();
}

/// <summary>A disk whose format can say that the image is not finished, so that a half-made one is never taken for good.</summary>
internal interface IUnfinished
{
    /// <summary>Sets or clears the mark, where this image's version of the format has one.</summary>
    ValueTask SetUnfinishedAsync(bool unfinished, CancellationToken cancellationToken);
}
