using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Options;

namespace DiskImage.Formats.Bochs;

/// <summary>Redologs of Bochs. Layout: see SPEC.md beside this file.</summary>
internal sealed class BochsDriver : FormatDriver, ICreatable, IMeasurable
{
    public const string FormatName = "bochs";

    public override string Name => FormatName;

    public override string Description => "Bochs growing disk, undoable and volatile redologs";

    public override IReadOnlyList<string> Extensions => [".bochs", ".redolog"];

    public override IReadOnlyList<Type> NodeTypes => [typeof(BochsNode)];

    public override OptionSchema OpenOptions { get; } = OptionSchema.Of<BochsOpenOptions>();

    public OptionSchema CreateOptions { get; } = OptionSchema.Of<BochsCreateOptions>();

    public override int Probe(in ProbeInput input) => BochsHeader.IsSigned(input.Header) ? 100 : 0;

    public override async ValueTask<BlockNode> OpenAsync(FormatOpenContext context, CancellationToken cancellationToken)
    {
        var options = (BochsOpenOptions)context.Options;
        string name = context.File.Name;
        BochsHeader header = await BochsHeader.ReadAsync(context.File, cancellationToken).ConfigureAwait(false);
        bool hasBase = options.Base is not null || context.GivesBacking;
        if (hasBase && header.Subtype == BochsSubtype.Growing)
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"{name}: is a growing disk, which stands on no other image. Leave out what it is said to stand on (base, backing).",
                name);
        }
        if (!hasBase && header.Subtype != BochsSubtype.Growing && context.OpenBacking is not null)
        {
            string suggestion = name.EndsWith(".redolog", StringComparison.OrdinalIgnoreCase)
                ? Path.GetFileName(name[..^".redolog".Length]) : "disk.img";
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"{name}: is a redolog of the kind '{header.Subtype}', which holds only the changes to "
                    + $"another image and does not say to which."
                    + $" Name that image with the open option base, as in base={suggestion}, or describe it as its backing image.",
                name);
        }
        BlockNode? backing = hasBase && context.OpenBacking is { } open
            ? await open(options.Base ?? "", options.BaseFormat, cancellationToken).ConfigureAwait(false)
            : null;
        try
        {
            return await BochsNode.OpenAsync(
                context.File, backing, header, options.Base, context.ForRepair, cancellationToken).ConfigureAwait(false);
        }
        catch
        {
            await Closing.FailedAsync(backing).ConfigureAwait(false);
            throw;
        }
    }

    public async ValueTask CreateAsync(FormatCreateContext context, CancellationToken cancellationToken)
    {
        var options = (BochsCreateOptions)context.Options;
        BochsHeader header = BochsHeader.Plan(SizeOf(options, null, context.File.Name), context.File.Name);
        byte[] catalog = new byte[header.Catalog * sizeof(uint)];
        catalog.AsSpan().Fill(0xFF);
        await context.File.WriteAsync(header.CatalogOffset, catalog, cancellationToken).ConfigureAwait(false);
        await context.File.WriteAsync(0, header.ToBytes(), cancellationToken).ConfigureAwait(false);
    }

    public async ValueTask<ImageMeasurement> MeasureAsync(object options, BlockNode? source, CancellationToken cancellationToken)
    {
        BochsHeader header = BochsHeader.Plan(SizeOf((BochsCreateOptions)options, source, "Measuring"), "Measuring");
        long blocks = source is null ? 0 : await DataBlocks.CountAsync(source, header.Extent, cancellationToken).ConfigureAwait(false);
        return new(
            header.DataOffset + (blocks * header.BlockBytes),
            header.DataOffset + (Round.Units(header.DiskSize, header.Extent) * header.BlockBytes));
    }

    private static long SizeOf(BochsCreateOptions options, BlockNode? source, string name)
        => source?.Length ?? options.Size
            ?? throw new DiskImageException(DiskImageErrorKind.InvalidOption, $"{name}: a new image needs a size.", name);
}
