using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Options;

namespace DiskImage.Formats.Vpc;

/// <summary>
/// Virtual Hard Disk of Virtual PC, Hyper-V and Azure. Spec: Virtual Hard Disk Image Format Specification 1.0; see SPEC.md.
/// </summary>
internal sealed class VpcDriver : FormatDriver, ICreatable, IMeasurable, IAmendable
{
    public const string FormatName = "vpc";

    public override string Name => FormatName;

    public override IReadOnlyList<string> Aliases => ["vhd"];

    public override string Description => "Virtual Hard Disk (VHD) of Virtual PC, Hyper-V and Azure";

    public override IReadOnlyList<string> Extensions => [".vhd", ".avhd"];

    public override IReadOnlyList<Type> NodeTypes => [typeof(VpcNode), typeof(VpcFixedNode)];

    public override string? ForwardForm => $"{Name} with subformat=fixed";

    public override OptionSchema OpenOptions { get; } = OptionSchema.Of<VpcOpenOptions>();

    public OptionSchema CreateOptions { get; } = OptionSchema.Of<VpcCreateOptions>();

    public OptionSchema AmendOptions { get; } = OptionSchema.Of<VpcAmendOptions>();

    public bool AmendsWithoutBacking => true;

    public bool RecordsBackingIdentity => true;

    public bool AllowsSparseFile => false; // Hyper-V refuses such a file

    /// <summary>
    /// A fixed disk is known by its end alone. QEMU does not look there, and what is in the last sector of a raw disk is its user's: so
    /// everything must fit, and whatever is recognised by its beginning comes first.
    /// </summary>
    public override int Probe(in ProbeInput input)
        => VpcFooter.HasCookie(input.Header) ? 100
            : VpcFooters.ParseEnd(input.Tail) is ({ DiskType: VpcDiskType.Fixed, FormatVersion: VpcFooter.Version1 } footer, var length)
                && footer.CurrentSize == input.FileLength - length ? 50 : 0;

    public override bool IsWrittenForward(object createOptions) => createOptions is VpcCreateOptions { Subformat: VpcSubformat.Fixed };

    public override async ValueTask<BlockNode> OpenAsync(FormatOpenContext context, CancellationToken cancellationToken)
    {
        BlockNode file = context.File;
        var options = (VpcOpenOptions)context.Options;
        VpcFooters footers = await VpcFooters.ReadAsync(file, context.ForRepair, cancellationToken).ConfigureAwait(false);
        if (!footers.Best.IsDynamic)
        {
            return VpcFixedNode.Open(file, footers, options);
        }
        VpcHeader header = await VpcHeader.ReadAsync(file, footers.Best, cancellationToken).ConfigureAwait(false);
        if (!footers.IsSealed && !header.IsChecksumRight)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Corrupt,
                $"{file.Name}: the checksums of both footers and of the dynamic header are wrong, so nothing says what the disk is",
                file.Name,
                0);
        }
        BlockNode? parent = null;
        string? name = null;
        if (footers.Best.DiskType == VpcDiskType.Differencing)
        {
            IReadOnlyList<VpcParentLocatorInfo> locators = await VpcParent.ReadLocatorsAsync(
                file, header, cancellationToken).ConfigureAwait(false);
            IReadOnlyList<string> candidates = VpcParent.Candidates(locators, header.ParentName);
            name = candidates.Count > 0 ? candidates[0] : header.ParentName;
            if (context.OpenBacking is { } open)
            {
                try
                {
                    (parent, name) = await VpcParent.OpenAsync(
                        file.Name, header, candidates, open, context.ParentFolders, options.IgnoreIdMismatch,
                        cancellationToken).ConfigureAwait(false);
                }
                catch (DiskImageException) when (context.ForRepair)
                {
                    // A child can be mended without its parent: nothing is read from there.
                }
            }
            name = WindowsPath.Shown(name);
        }
        try
        {
            return await VpcNode.OpenAsync(file, footers, header, options, parent, name, cancellationToken).ConfigureAwait(false);
        }
        catch
        {
            await Closing.FailedAsync(parent).ConfigureAwait(false);
            throw;
        }
    }

    /// <summary>Opens one layer without its parent, for the trial of a repair.</summary>
    internal static ValueTask<BlockNode> OpenAloneAsync(
        BlockNode file, VpcSizeCalculation calculation, bool forRepair, CancellationToken cancellationToken)
        => new VpcDriver().OpenAsync(
            new FormatOpenContext(
                file,
                new VpcOpenOptions { ForceSizeCalculation = calculation },
                OpenBacking: null,
                (name, _, _) => throw new InvalidOperationException(name),
                forRepair),
            cancellationToken);

    public ValueTask CreateAsync(FormatCreateContext context, CancellationToken cancellationToken)
        => VpcCreator.CreateAsync(context.File, (VpcCreateOptions)context.Options, context.Backing, cancellationToken);

    public ValueTask<ImageMeasurement> MeasureAsync(object options, BlockNode? source, CancellationToken cancellationToken)
        => VpcMeasurer.MeasureAsync((VpcCreateOptions)options, source, cancellationToken);

    public ValueTask AmendAsync(BlockNode node, object options, IProgress<long>? bytes, CancellationToken cancellationToken)
        => node.As<VpcFixedNode>() is { } whole
            ? whole.AmendAsync((VpcAmendOptions)options)
            : RequireOwn<VpcNode>(node).AmendAsync((VpcAmendOptions)options, cancellationToken);

    public Wording? AmendWarning(object options) => ((VpcAmendOptions)options).UniqueId is null ? null : ParentMismatch.AmendWarning;
}
