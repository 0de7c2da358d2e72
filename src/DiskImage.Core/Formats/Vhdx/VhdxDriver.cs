using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Options;

namespace DiskImage.Formats.Vhdx;

/// <summary>Hyper-V's format, version 2 of Microsoft's virtual disks. Spec: MS-VHDX; see SPEC.md beside this file.</summary>
internal sealed class VhdxDriver : FormatDriver, ICreatable, IMeasurable, IAmendable
{
    public const string FormatName = "vhdx";

    public override string Name => FormatName;

    public override string Description => "Microsoft Hyper-V virtual disk, version 2";

    public override IReadOnlyList<string> Extensions => [".vhdx", ".avhdx"];

    public override IReadOnlyList<Type> NodeTypes => [typeof(VhdxNode)];

    public override OptionSchema OpenOptions { get; } = OptionSchema.Of<VhdxOpenOptions>();

    public OptionSchema CreateOptions { get; } = OptionSchema.Of<VhdxCreateOptions>();

    public OptionSchema AmendOptions { get; } = OptionSchema.Of<VhdxAmendOptions>();

    public bool AmendsWithoutBacking => true;

    public bool RecordsBackingIdentity => true;

    public bool AllowsSparseFile => false; // Hyper-V refuses a file that NTFS marks sparse

    public override int Probe(in ProbeInput input) => input.Header.StartsWith(VhdxLayout.FileSignature) ? 100 : 0;

    public override async ValueTask<BlockNode> OpenAsync(FormatOpenContext context, CancellationToken cancellationToken)
    {
        var options = (VhdxOpenOptions)context.Options;
        VhdxImage image = await VhdxImage.ReadAsync(context.File, options.DiscardLog
            || context.ForRepair, context.ForRepair, cancellationToken).ConfigureAwait(false);
        BlockNode? parent = image.Metadata.Locator is { } locator && context.OpenBacking is { } open
            ? await VhdxParent.OpenAsync(
                context.File,
                locator,
                image.Metadata.LogicalSectorSize,
                open,
                context.ParentFolders,
                options.IgnoreIdMismatch,
                cancellationToken).ConfigureAwait(false)
            : null;
        try
        {
            return await VhdxNode.OpenAsync(context.File, parent, image, options, cancellationToken).ConfigureAwait(false);
        }
        catch
        {
            await Closing.FailedAsync(parent).ConfigureAwait(false);
            throw;
        }
    }

    public ValueTask CreateAsync(FormatCreateContext context, CancellationToken cancellationToken)
        => VhdxCreator.CreateAsync(context.File, (VhdxCreateOptions)context.Options, context.Backing, cancellationToken);

    public ValueTask AmendAsync(BlockNode node, object options, IProgress<long>? bytes, CancellationToken cancellationToken)
        => RequireOwn<VhdxNode>(node).AmendAsync((VhdxAmendOptions)options);

    public Wording? AmendWarning(object options)
        => options is VhdxAmendOptions { VirtualDiskId: null, PhysicalSectorSize: null } ? null : ParentMismatch.AmendWarning;

    public ValueTask<ImageMeasurement> MeasureAsync(object options, BlockNode? source, CancellationToken cancellationToken)
    {
        VhdxCreateOptions wanted = (VhdxCreateOptions)options;
        DataBlocks.RequireNoParent(wanted.BackingFile);
        VhdxMetadata plan = VhdxCreator.Plan("Measuring", wanted with { Size = source?.Length ?? wanted.Size }, parent: null);
        return VhdxMeasurer.MeasureAsync(plan, wanted.LogSize, source, cancellationToken);
    }
}
