using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Options;

namespace DiskImage.Formats.Vmdk;

/// <summary>Virtual disks of VMware. Spec: VMware, Virtual Disk Format 5.0; see SPEC.md beside this file.</summary>
internal sealed class VmdkDriver : FormatDriver, ICreatable, IMeasurable, IAmendable
{
    public const string FormatName = "vmdk";

    public override string Name => FormatName;

    public override string Description => "Virtual disk of VMware (VMDK)";

    public override IReadOnlyList<string> Roles => ["file", "backing"];

    public override IReadOnlyList<string> Extensions => [".vmdk"];

    public override IReadOnlyList<Type> NodeTypes => [typeof(VmdkNode), typeof(VmdkStreamWriter)];

    public override OptionSchema OpenOptions { get; } = OptionSchema.Of<VmdkOpenOptions>();

    public OptionSchema CreateOptions { get; } = OptionSchema.Of<VmdkCreateOptions>();

    public OptionSchema AmendOptions { get; } = OptionSchema.Of<VmdkAmendOptions>();

    public bool AmendsWithoutBacking => true;

    public bool RecordsBackingIdentity => true;

    public override int Probe(in ProbeInput input)
        => VmdkHeader.IsSigned(input.Header) || VmdkCowdHeader.IsSigned(input.Header) || VmdkSeSparseHeader.IsSigned(input.Header)
            || VmdkDescriptor.IsSigned(input.Header) ? 100 : 0;

    public override string? ForwardForm => $"{Name} with subformat=streamOptimized";

    public override bool IsWrittenForward(object createOptions)
        => createOptions is VmdkCreateOptions { Subformat: VmdkSubformat.StreamOptimized };

    public override async ValueTask<BlockNode> OpenAsync(FormatOpenContext context, CancellationToken cancellationToken)
    {
        BlockNode file = context.File;
        byte[] bytes = new byte[VmdkHeader.SectorSize];
        await file.ReadPaddedAsync(0, bytes, cancellationToken).ConfigureAwait(false);
        bool isHosted = VmdkHeader.IsSigned(bytes);
        bool isExtent = isHosted || VmdkCowdHeader.IsSigned(bytes) || VmdkSeSparseHeader.IsSigned(bytes);
        VmdkHeader? header = isHosted ? VmdkHeader.Parse(bytes, file.Name, 0) : null;
        VmdkDescriptorStore? store = header is not null
            ? await VmdkDescriptorStore.ReadEmbeddedAsync(file, header, cancellationToken).ConfigureAwait(false)
            : isExtent ? null
            : await ReadDescriptorAsync(file, cancellationToken).ConfigureAwait(false);
        if (header is not null && store is not null && !file.IsReadOnly && VmdkStreamWriter.IsBegun(file, header))
        {
            return VmdkStreamWriter.Open(file, header, store.Current);
        }
        if (store is not null)
        {
            VmdkExtents.RequireFiles(store.Current);
        }
        RequireWritable(file, header, store is not null, context.ForRepair);
        bool isStream = context.ForRepair && header is { IsStream: true, IsCompressed: true, HasMarkers: true };
        BlockNode? parent = await OpenParentAsync(context, store?.Current, cancellationToken).ConfigureAwait(false);
        try
        {
            var extents = new VmdkExtents(context, store?.Current, parent);
            IReadOnlyList<VmdkExtent> open = isExtent ? await extents.OpenOwnAsync(cancellationToken).ConfigureAwait(false)
                : await extents.OpenListedAsync(cancellationToken).ConfigureAwait(false);
            if (isStream && ((VmdkSparseExtent)open[0].Node).FirstFaultOfTables() is { } fault)
            {
                await VmdkExtents.CloseAsync(open).ConfigureAwait(false);
                throw new DiskImageException(DiskImageErrorKind.Corrupt, $"{file.Name}: {fault}", file.Name);
            }
            return new VmdkNode(
                file,
                store,
                open,
                parent,
                isExtent || context.Siblings is null ? null : new VmdkSplitFiles(extents, context.Siblings, parent));
        }
        catch (DiskImageException e) when (isStream && e.Kind == DiskImageErrorKind.Corrupt)
        {
            await Closing.FailedAsync(parent).ConfigureAwait(false);
            return new VmdkLostStream(file, header!, store?.Current, e);
        }
        catch
        {
            await Closing.FailedAsync(parent).ConfigureAwait(false);
            throw;
        }
    }

    public ValueTask CreateAsync(FormatCreateContext context, CancellationToken cancellationToken)
        => VmdkCreator.CreateAsync(context, cancellationToken);

    public ValueTask<ImageMeasurement> MeasureAsync(object options, BlockNode? source, CancellationToken cancellationToken)
        => VmdkMeasurer.MeasureAsync((VmdkCreateOptions)options, source, cancellationToken);

    public ValueTask AmendAsync(BlockNode node, object options, IProgress<long>? bytes, CancellationToken cancellationToken)
        => RequireOwn<VmdkNode>(node).AmendAsync((VmdkAmendOptions)options);

    public Wording? AmendWarning(object options) => ((VmdkAmendOptions)options).Cid is null ? null : ParentMismatch.AmendWarning;

    private static async ValueTask<BlockNode?> OpenParentAsync(FormatOpenContext context, VmdkDescriptor? descriptor,
        CancellationToken cancellationToken)
    {
        try
        {
            return await VmdkParent.OpenAsync(context, descriptor, ((VmdkOpenOptions)context.Options).IgnoreIdMismatch,
                cancellationToken).ConfigureAwait(false);
        }
        catch (DiskImageException) when (context.ForRepair)
        {
            return null; // a child can be mended without its parent: nothing is read from there
        }
    }

    private static async ValueTask<VmdkDescriptorStore> ReadDescriptorAsync(BlockNode file, CancellationToken cancellationToken)
    {
        byte[] start = new byte[(int)Math.Min(file.Length, DriverRegistry.ProbeLength)];
        await file.ReadAsync(0, start, cancellationToken).ConfigureAwait(false);
        if (!VmdkDescriptor.IsSigned(start))
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidFormat, $"{file.Name}: is no VMDK: it begins neither like a sparse extent nor with '#"
                    + " Disk DescriptorFile'", file.Name, 0);
        }
        VmdkDescriptorStore store = await VmdkDescriptorStore.ReadAsync(file, cancellationToken).ConfigureAwait(false);
        return store.Current.Extents.Count > 0 ? store : throw new DiskImageException(
            DiskImageErrorKind.Corrupt, $"{file.Name}: the descriptor lists no extents (lines like RW 8192 SPARSE"
                + " \"disk-s001.vmdk\")", file.Name);
    }

    private static void RequireWritable(BlockNode file, VmdkHeader? header, bool hasDescriptor, bool forRepair)
    {
        if (header is { DescriptorSector: > 0, DescriptorSectors: > 0 } && !hasDescriptor && !file.IsReadOnly && !forRepair)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Corrupt,
                $"{file.Name}: there is no descriptor at sector {header.DescriptorSector:#,0}, where the header says that it is;"
                    + " the disk can be read and is not written to",
                file.Name,
                28);
        }
        if (header is { IsCompressed: true } && !file.IsReadOnly && !forRepair)
        {
            throw new DiskImageException(
                DiskImageErrorKind.ReadOnly,
                $"{file.Name}: its grains are compressed (streamOptimized), and such a disk is written once. Convert it with"
                    + $" {new Remedy(RemedyKind.Convert)} to another subformat"
                    + $" (monolithicSparse) or format and change that, or put an overlay on it with {new Remedy(RemedyKind.Overlay)}.",
                file.Name);
        }
    }
}
