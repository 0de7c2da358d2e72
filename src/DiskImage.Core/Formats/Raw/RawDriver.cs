using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Options;

namespace DiskImage.Formats.Raw;

/// <summary>Options when a raw image is opened.</summary>
public sealed record RawOpenOptions
{
    /// <summary>Where the disk begins in the file.</summary>
    [DriverOption("offset", "Where the disk begins in the file", IsSize = true, Minimum = 0)]
    public long Offset { get; init; }

    /// <summary>The disk's length.</summary>
    [DriverOption("size", "Bytes of the file that are the disk; to its end if not given", IsSize = true, Minimum = 0)]
    public long? Size { get; init; }
}

/// <summary>Options when a raw image is made.</summary>
internal sealed record RawCreateOptions : ICreateOptions
{
    /// <inheritdoc/>
    [DriverOption("size", "Virtual size in bytes", IsSize = true, Minimum = 0)]
    public long? Size { get; init; }

    /// <summary>Space claimed ahead of its use.</summary>
    [DriverOption("preallocation", "Space claimed ahead: off, falloc (reserved), full (written)")]
    public RawPreallocation Preallocation { get; init; }

    /// <inheritdoc/>
    [DriverOption("nocow", "New file without copy-on-write, on file systems that can (btrfs)")]
    public bool NoCow { get; init; }
}

/// <summary>The preallocation modes of a format without tables.</summary>
internal enum RawPreallocation
{
    /// <summary>A hole.</summary>
    Off = PreallocationMode.Off,

    /// <summary>Reserved without being written.</summary>
    Falloc = PreallocationMode.Falloc,

    /// <summary>Every byte is written.</summary>
    Full = PreallocationMode.Full,
}

/// <summary>The disk's bytes and nothing else.</summary>
internal sealed class RawDriver : FormatDriver, ICreatable, IMeasurable
{
    public override string Name => "raw";

    public override string Description => "The disk's bytes and nothing else";

    public override IReadOnlyList<string> Extensions => [".raw", ".img", ".iso", ".bin", ".dd", ".ima", ".flp", ".vfd", ".dsk"];

    public override IReadOnlyList<Type> NodeTypes => [typeof(RawNode)];

    public override OptionSchema OpenOptions { get; } = OptionSchema.Of<RawOpenOptions>();

    public OptionSchema CreateOptions { get; } = OptionSchema.Of<RawCreateOptions>();

    public override string? ForwardForm => Name;

    public override int Probe(in ProbeInput input) => 1;

    public override bool IsWrittenForward(object createOptions) => true;

    public override ValueTask<BlockNode> OpenAsync(FormatOpenContext context, CancellationToken cancellationToken)
    {
        var options = (RawOpenOptions)context.Options;
        long room = context.File.Length - options.Offset;
        if (room < 0 || options.Size > room)
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"{context.File.Name}: offset {options.Offset:#,0} and size "
                    + $"{options.Size?.ToString("#,0", System.Globalization.CultureInfo.InvariantCulture) ?? "(to the end)"} reach "
                    + $"past its {context.File.Length:#,0} bytes",
                context.File.Name);
        }
        return new(new RawNode(context.File, options.Offset, options.Size));
    }

    public ValueTask CreateAsync(FormatCreateContext context, CancellationToken cancellationToken)
    {
        var options = (RawCreateOptions)context.Options;
        return options.Size is long size
            ? context.File.ResizeAsync(size, (PreallocationMode)options.Preallocation, context.Claimed, cancellationToken)
            : throw new DiskImageException(
                DiskImageErrorKind.InvalidOption, $"{context.File.Name}: a new image needs a size.", context.File.Name);
    }

    public ValueTask<ImageMeasurement> MeasureAsync(object options, BlockNode? source, CancellationToken cancellationToken)
    {
        long size = source?.Length ?? ((RawCreateOptions)options).Size
            ?? throw new DiskImageException(DiskImageErrorKind.InvalidOption, "Measuring needs a size or a source image.");
        return new(new ImageMeasurement(size, size));
    }
}
