using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Options;

namespace DiskImage.Formats.Vdi;

/// <summary>VirtualBox's format. Layout: see SPEC.md beside this file.</summary>
internal sealed class VdiDriver : FormatDriver, ICreatable, IMeasurable, IAmendable
{
    public const string FormatName = "vdi";

    private const long MapOffset = VdiHeader.Length;

    public override string Name => FormatName;

    public override string Description => "Oracle VirtualBox virtual disk";

    public override IReadOnlyList<string> Extensions => [".vdi"];

    public override IReadOnlyList<Type> NodeTypes => [typeof(VdiNode)];

    public override OptionSchema OpenOptions { get; } = OptionSchema.Of<VdiOpenOptions>();

    public OptionSchema AmendOptions { get; } = OptionSchema.Of<VdiAmendOptions>();

    public bool AmendsWithoutBacking => true;

    public bool RecordsBackingIdentity => true;

    public OptionSchema CreateOptions { get; } = OptionSchema.Of<VdiCreateOptions>();

    public override int Probe(in ProbeInput input) => VdiHeader.IsSigned(input.Header) ? 100 : 0;

    public override async ValueTask<BlockNode> OpenAsync(FormatOpenContext context, CancellationToken cancellationToken)
    {
        VdiHeader header = await VdiHeader.ReadAsync(context.File, cancellationToken).ConfigureAwait(false);
        (BlockNode? parent, string? name) = await VdiParent.OpenAsync(context, header, cancellationToken).ConfigureAwait(false);
        try
        {
            return await VdiNode.OpenAsync(context.File, header, context.ForRepair, cancellationToken, parent, name).ConfigureAwait(false);
        }
        catch
        {
            await Closing.FailedAsync(parent).ConfigureAwait(false);
            throw;
        }
    }

    public Wording? AmendWarning(object options) => ((VdiAmendOptions)options).Uuid is null ? null : ParentMismatch.AmendWarning;

    public ValueTask AmendAsync(BlockNode node, object options, IProgress<long>? bytes, CancellationToken cancellationToken)
        => RequireOwn<VdiNode>(node).AmendAsync((VdiAmendOptions)options, cancellationToken);

    public async ValueTask CreateAsync(FormatCreateContext context, CancellationToken cancellationToken)
    {
        var options = (VdiCreateOptions)context.Options;
        string name = context.File.Name;
        VdiHeader header = Plan(options, null, name, context.Backing);
        if (options.BackingFile is { } backing)
        {
            header = header.On(name, VdiParent.Of(name, backing, options.BackingFormat, options.Static, context.Backing));
        }
        header = header.WithComment(name, options.Comment ?? "");
        byte[] map = new byte[header.MapEnd - MapOffset];
        map.AsSpan().Fill(0xFF);
        for (int block = 0; block < header.Allocated; block++)
        {
            LittleEndian.U32(map, block * sizeof(uint), (uint)block);
        }
        await context.File.WriteAsync(MapOffset, map, cancellationToken).ConfigureAwait(false);
        await context.File.ResizeAsync(
            header.DataOffset + ((long)header.Allocated * header.BlockSize), cancellationToken: cancellationToken)
            .ConfigureAwait(false);
        await context.File.WriteAsync(0, header.ToBytes(), cancellationToken).ConfigureAwait(false);
    }

    public async ValueTask<ImageMeasurement> MeasureAsync(object options, BlockNode? source, CancellationToken cancellationToken)
    {
        DataBlocks.RequireNoParent(((VdiCreateOptions)options).BackingFile);
        VdiHeader header = Plan((VdiCreateOptions)options, source, "Measuring");
        long blocks = header.Type == VdiImageType.Static ? header.Blocks
            : source is null ? 0 : await DataBlocks.CountAsync(source, header.BlockSize, cancellationToken).ConfigureAwait(false);
        return new(header.DataOffset + (blocks * header.BlockSize), header.DataOffset + ((long)header.Blocks * header.BlockSize));
    }

    /// <summary>The header of a new image. The data begin at a whole block, as VirtualBox does it: that keeps blocks aligned to whatever
    /// the host likes.</summary>
    private static VdiHeader Plan(VdiCreateOptions options, BlockNode? source, string name, BlockNode? parent = null)
    {
        long size = source?.Length ?? options.Size ?? parent?.Length
            ?? throw new DiskImageException(DiskImageErrorKind.InvalidOption, $"{name}: a new image needs a size.", name);
        long blocks = Round.Units(size, options.BlockSize);
        if (blocks > VdiHeader.MaximumBlocks)
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"{name}: a VDI cannot have {size:#,0} bytes; allowed: up to {VdiHeader.MaximumBlocks * options.BlockSize:#,0}.",
                name);
        }
        long dataOffset = Round.Up(MapOffset + (blocks * sizeof(uint)), options.BlockSize);
        return VdiHeader.New(
            options.Static ? VdiImageType.Static : VdiImageType.Dynamic,
            Round.Up(size, VdiHeader.SectorSize),
            (int)options.BlockSize,
            (int)blocks,
            MapOffset,
            dataOffset);
    }
}
