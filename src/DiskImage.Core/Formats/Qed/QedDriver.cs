using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Options;

namespace DiskImage.Formats.Qed;

/// <summary>
/// QEMU's enhanced disk: tables without reference counts. Spec: QEMU docs/interop/qed_spec; see SPEC.md beside this file.
/// </summary>
internal sealed class QedDriver : FormatDriver, ICreatable, IMeasurable
{
    public const string FormatName = "qed";

    public override string Name => FormatName;

    public override string Description => "QEMU enhanced disk";

    public override IReadOnlyList<string> Extensions => [".qed"];

    public override IReadOnlyList<Type> NodeTypes => [typeof(QedNode)];

    public OptionSchema CreateOptions { get; } = OptionSchema.Of<QedCreateOptions>();

    public override int Probe(in ProbeInput input) => QedHeader.IsSigned(input.Header) ? 100 : 0;

    public override async ValueTask<BlockNode> OpenAsync(FormatOpenContext context, CancellationToken cancellationToken)
    {
        QedHeader header = await QedHeader.ReadAsync(context.File, cancellationToken).ConfigureAwait(false);
        BlockNode? backing = await context.OpenBackingAsync(
            header.BackingFile, header.BackingFormat, cancellationToken).ConfigureAwait(false);
        try
        {
            return await QedNode.OpenAsync(context.File, backing, header, context.ForRepair, cancellationToken).ConfigureAwait(false);
        }
        catch
        {
            await Closing.FailedAsync(backing).ConfigureAwait(false);
            throw;
        }
    }

    public async ValueTask CreateAsync(FormatCreateContext context, CancellationToken cancellationToken)
    {
        var options = (QedCreateOptions)context.Options;
        BlockNode file = context.File;
        (QedHeader header, byte[] name) = Plan(options, null, file.Name).WithBacking(file.Name, options.BackingFile, options.BackingFormat);
        // the table is all zero
        await file.ResizeAsync(header.L1Offset + header.TableBytes, cancellationToken: cancellationToken).ConfigureAwait(false);
        if (name.Length > 0)
        {
            await file.WriteAsync(header.NameOffset, name, cancellationToken).ConfigureAwait(false);
        }
        await file.WriteAsync(0, header.ToBytes(), cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Exact for the tables that are needed; a cluster counts if the source does not say that all of it is zero.</summary>
    public async ValueTask<ImageMeasurement> MeasureAsync(object options, BlockNode? source, CancellationToken cancellationToken)
    {
        var given = (QedCreateOptions)options;
        DataBlocks.RequireNoParent(given.BackingFile);
        QedHeader header = Plan(given, source, "Measuring");
        (long data, long tables) = await DataBlocks.CountAsync(
            source, header.ClusterSize, header.Span, cancellationToken).ConfigureAwait(false);
        long fixedBytes = header.L1Offset + header.TableBytes;
        return new(
            fixedBytes + (tables * header.TableBytes) + (data * header.ClusterSize),
            fixedBytes + (Round.Units(header.ImageSize, header.Span) * header.TableBytes) + (
                Round.Units(header.ImageSize, header.ClusterSize) * header.ClusterSize));
    }

    /// <summary>The header of a new image: one cluster, and the L1 table behind it.</summary>
    private static QedHeader Plan(QedCreateOptions options, BlockNode? source, string name)
    {
        long size = source?.Length ?? options.Size
            ?? throw new DiskImageException(DiskImageErrorKind.InvalidOption, $"{name}: a new image needs a size.", name);
        var header = new QedHeader
        {
            ClusterSize = (int)options.ClusterSize,
            TableSize = options.TableSize,
            L1Offset = options.ClusterSize,
            ImageSize = 0,
        };
        if (header.OverflowsInQemu)
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"{name}: QEMU opens no QED image with clusters of {options.ClusterSize:#,0} bytes and tables of "
                    + $"{options.TableSize} clusters, since they reach past 2^64."
                    + " Choose a smaller cluster_size or table_size.",
                name);
        }
        return size <= header.MaxImageSize
            ? header with { ImageSize = Round.Up(size, QedHeader.SectorSize) }
            : throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"{name}: a QED image with clusters of {options.ClusterSize:#,0} bytes and tables of {options.TableSize} "
                    + $"clusters cannot have {size:#,0} bytes;"
                    + $" allowed: up to {header.MaxImageSize:#,0}. Choose a larger cluster_size or table_size.",
                name);
    }
}
