using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Options;

namespace DiskImage.Formats.Parallels;

/// <summary>The expandable disks of Parallels and Virtuozzo. Spec: QEMU docs/interop/parallels; see SPEC.md beside this file.</summary>
internal sealed class ParallelsDriver : FormatDriver, ICreatable, IMeasurable
{
    public const string FormatName = "parallels";

    private const uint Heads = 16, SectorsPerTrack = 32; // QEMU's geometry: nothing uses it

    public override string Name => FormatName;

    public override string Description => "Parallels and Virtuozzo expandable disk";

    public override IReadOnlyList<string> Extensions => [".hdd", ".hds"];

    public override IReadOnlyList<Type> NodeTypes => [typeof(ParallelsNode)];

    public OptionSchema CreateOptions { get; } = OptionSchema.Of<ParallelsCreateOptions>();

    public override OptionSchema OpenOptions { get; } = OptionSchema.Of<ParallelsOpenOptions>();

    public override string? FolderFile => ParallelsDescriptor.FileName;

    public override int Probe(in ProbeInput input)
        => ParallelsHeader.IsSigned(input.Header) || ParallelsDescriptor.IsSigned(input.Header) ? 100 : 0;

    public override async ValueTask<BlockNode> OpenAsync(FormatOpenContext context, CancellationToken cancellationToken)
    {
        var options = (ParallelsOpenOptions)context.Options;
        byte[] start = new byte[(int)Math.Min(context.File.Length, DriverRegistry.ProbeLength)];
        await context.File.ReadAsync(0, start, cancellationToken).ConfigureAwait(false);
        Guid? snapshot = options.Snapshot is { } text ? IdentifierOption.Parse(context.File.Name, "snapshot", text) : null;
        return ParallelsDescriptor.IsSigned(start)
            ? await ParallelsBundle.OpenAsync(context, snapshot, cancellationToken).ConfigureAwait(false)
            : snapshot is null
            ? await ParallelsNode.OpenAsync(context.File, backing: null, context.ForRepair, cancellationToken).ConfigureAwait(false)
            : throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"{context.File.Name}: snapshots are in the descriptor of a bundle, and this is one image of it, "
                    + $"or stands alone. Open the descriptor.",
                context.File.Name);
    }

    public async ValueTask CreateAsync(FormatCreateContext context, CancellationToken cancellationToken)
    {
        ParallelsHeader header = Plan((ParallelsCreateOptions)context.Options, null, context.File.Name);
        await context.File.ResizeAsync(header.DataStart, cancellationToken: cancellationToken).ConfigureAwait(false); // the BAT is all zero
        await context.File.WriteAsync(0, header.ToBytes(), cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Exact: a cluster counts if the source does not say that all of it is zero.</summary>
    public async ValueTask<ImageMeasurement> MeasureAsync(object options, BlockNode? source, CancellationToken cancellationToken)
    {
        ParallelsHeader header = Plan((ParallelsCreateOptions)options, source, "Measuring");
        long clusters = source is null ? 0 : await DataBlocks.CountAsync(source, header.ClusterSize, cancellationToken)
            .ConfigureAwait(false);
        return new(header.DataStart + (clusters * header.ClusterSize), header.DataStart + ((long)header.Entries * header.ClusterSize));
    }

    /// <summary>The header of a new image, as QEMU makes it: the data begin at a whole cluster.</summary>
    private static ParallelsHeader Plan(ParallelsCreateOptions options, BlockNode? source, string name)
    {
        long size = source?.Length ?? options.Size
            ?? throw new DiskImageException(DiskImageErrorKind.InvalidOption, $"{name}: a new image needs a size.", name);
        long tracks = ParallelsHeader.UnitsOf(options.ClusterSize, ParallelsHeader.SectorSize);
        long sectors = ParallelsHeader.UnitsOf(size, ParallelsHeader.SectorSize), entries = ParallelsHeader.UnitsOf(sectors, tracks);
        var header = new ParallelsHeader
        {
            Heads = Heads,
            Cylinders = (uint)Math.Min(uint.MaxValue, sectors / (Heads * SectorsPerTrack)),
            Tracks = (uint)tracks,
            Entries = (int)Math.Min(entries, int.MaxValue),
            Sectors = sectors,
        };
        return entries <= ParallelsHeader.MaximumEntries
            ? header with { DataOffset = header.SoundDataOffset }
            : throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"{name}: a Parallels disk with clusters of {header.ClusterSize:#,0} bytes cannot have {size:#,0} bytes;"
                    + $" allowed: up to {(long)ParallelsHeader.MaximumEntries * header.ClusterSize:#,0}. Choose a larger cluster_size.",
                name);
    }
}
