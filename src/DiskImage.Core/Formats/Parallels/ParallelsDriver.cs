using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Options;

namespace DiskImage.Formats.Parallels;

/// <summary>The expandable disks of Parallels and Virtuozzo. Spec: QEMU docs/interop/parallels; see SPEC.md beside this file.</summary>
internal sealed class ParallelsDriver : FormatDriver, ICreatable, IMeasurable
{
    public const string FormatName = "parallels";

    public override string Name => FormatName;

    public override string Description => "Parallels and Virtuozzo expandable disk";

    public override IReadOnlyList<string> Extensions => [".hdd", ".hds"];

    public override IReadOnlyList<Type> NodeTypes => [typeof(ParallelsNode), typeof(ParallelsSnapshots)];

    public OptionSchema CreateOptions { get; } = OptionSchema.Of<ParallelsCreateOptions>();

    public override OptionSchema OpenOptions { get; } = OptionSchema.Of<ParallelsOpenOptions>();

    public override string? FolderFile => ParallelsDescriptor.FileName;

    public override string? FolderFileOf(object createOptions)
        => ((ParallelsCreateOptions)createOptions).Bundle ? ParallelsDescriptor.FileName : null;

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
        var options = (ParallelsCreateOptions)context.Options;
        ParallelsHeader header = Plan(options, null, context.File.Name);
        if (!options.Bundle)
        {
            await header.WriteNewAsync(context.File, cancellationToken).ConfigureAwait(false);
            return;
        }
        if (context.OpenCompanion is not { } open
            || Path.GetFileName(Path.GetDirectoryName(context.File.Name)) is not { Length: > 0 } folder)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Unsupported,
                $"{context.File.Name}: a bundle is a folder with several files, which cannot be made there. Leave bundle out.",
                context.File.Name);
        }
        if (header.Sectors == 0)
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption, $"{context.File.Name}: a disk in a bundle has at least 512 bytes", context.File.Name);
        }
        string name = $"{folder}.0.{ParallelsDescriptor.UsualTop:B}.hds";
        BlockNode image = await open(name, true, cancellationToken).ConfigureAwait(false);
        await using (image.ConfigureAwait(false))
        {
            await header.WriteNewAsync(image, cancellationToken).ConfigureAwait(false);
        }
        await context.File.WriteAsync(
            0, ParallelsDescriptorEdit.New(header.Sectors, header.Tracks, name), cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Exact: a cluster counts if the source does not say that all of it is zero.</summary>
    public async ValueTask<ImageMeasurement> MeasureAsync(object options, BlockNode? source, CancellationToken cancellationToken)
    {
        ParallelsHeader header = Plan((ParallelsCreateOptions)options, source, "Measuring");
        long clusters = source is null ? 0 : await DataBlocks.CountAsync(source, header.ClusterSize, cancellationToken)
            .ConfigureAwait(false);
        return new(header.DataStart + (clusters * header.ClusterSize), header.DataStart + ((long)header.Entries * header.ClusterSize));
    }

    private static ParallelsHeader Plan(ParallelsCreateOptions options, BlockNode? source, string name)
    {
        long size = source?.Length ?? options.Size
            ?? throw new DiskImageException(DiskImageErrorKind.InvalidOption, $"{name}: a new image needs a size.", name);
        return ParallelsHeader.New(ParallelsHeader.UnitsOf(size, ParallelsHeader.SectorSize), options.ClusterSize, name);
    }
}
