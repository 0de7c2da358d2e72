using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Options;

namespace DiskImage.Formats.Qcow2;

/// <summary>QEMU's own format, versions 2 and 3. Spec: QEMU docs/interop/qcow2; see SPEC.md beside this file.</summary>
internal sealed class Qcow2Driver : FormatDriver, ICreatable, IMeasurable, IAmendable
{
    public const string FormatName = "qcow2";

    public override string Name => FormatName;

    public override string Description => "QEMU copy-on-write version 2 and 3";

    public override IReadOnlyList<string> Extensions => [".qcow2", ".qc2"];

    public override IReadOnlyList<Type> NodeTypes => [typeof(Qcow2Node)];

    public override OptionSchema OpenOptions { get; } = OptionSchema.Of<Qcow2OpenOptions>();

    public OptionSchema AmendOptions { get; } = OptionSchema.Of<Qcow2AmendOptions>();

    public OptionSchema CreateOptions { get; } = OptionSchema.Of<Qcow2CreateOptions>();

    public override int Probe(in ProbeInput input)
        => input.Header.Length >= 8 && BigEndian.U32(input.Header, 0) == Qcow2Header.Magic && BigEndian.U32(input.Header, 4) >= 2 ? 100 : 0;

    public override async ValueTask<BlockNode> OpenAsync(FormatOpenContext context, CancellationToken cancellationToken)
    {
        Qcow2Header header = await Qcow2Header.ReadAsync(context.File, context.ForRepair, cancellationToken).ConfigureAwait(false);
        header.RequireKnownFeatures(context.File.Name);
        var options = (Qcow2OpenOptions)context.Options;
        Qcow2Encryption? encryption = await Qcow2Encryption.OpenAsync(
            context.File, header, options, context.Secrets, cancellationToken).ConfigureAwait(false);
        try
        {
            return await OpenAsync(context, header, encryption, cancellationToken).ConfigureAwait(false);
        }
        catch
        {
            encryption?.Dispose();
            throw;
        }
    }

    private static async ValueTask<BlockNode> OpenAsync(
        FormatOpenContext context, Qcow2Header header, Qcow2Encryption? encryption, CancellationToken cancellationToken)
    {
        BlockNode? backing = await context.OpenBackingAsync(
            header.BackingFile, header.BackingFormat, cancellationToken).ConfigureAwait(false);
        BlockNode? dataFile = null;
        try
        {
            dataFile = await OpenDataFileAsync(context, header, cancellationToken).ConfigureAwait(false);
            if (!context.ForRepair && !context.File.IsReadOnly && header.IsInChange && !header.Has(Qcow2Incompatible.Corrupt))
            {
                // After everything else that can be refused: a failed open modifies nothing.
                _ = await Qcow2Repairer.RunAsync(
                    context.File, header, dataFile, RepairMode.All, null, cancellationToken).ConfigureAwait(false);
                header = await Qcow2Header.ReadAsync(context.File, forRepair: false, cancellationToken).ConfigureAwait(false);
            }
            var options = (Qcow2OpenOptions)context.Options;
            return await Qcow2Node.OpenAsync(
                context.File, dataFile, backing, header, options, encryption, context.ForRepair, cancellationToken).ConfigureAwait(false);
        }
        catch
        {
            await Closing.FailedAsync(dataFile, backing).ConfigureAwait(false);
            throw;
        }
    }

    public ValueTask CreateAsync(FormatCreateContext context, CancellationToken cancellationToken)
        => Qcow2Creator.CreateAsync(context, (Qcow2CreateOptions)context.Options, cancellationToken);

    public ValueTask<ImageMeasurement> MeasureAsync(object options, BlockNode? source, CancellationToken cancellationToken)
        => Qcow2Measurer.MeasureAsync((Qcow2CreateOptions)options, source, cancellationToken);

    public ValueTask AmendAsync(BlockNode node, object options, IProgress<long>? bytes, CancellationToken cancellationToken)
        => RequireOwn<Qcow2Node>(node).AmendAsync((Qcow2AmendOptions)options, cancellationToken);

    private static async ValueTask<BlockNode?> OpenDataFileAsync(
        FormatOpenContext context, Qcow2Header header, CancellationToken cancellationToken)
    {
        if (!header.Has(Qcow2Incompatible.ExternalDataFile))
        {
            return null;
        }
        if (string.IsNullOrEmpty(header.DataFile))
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidFormat, $"{context.File.Name}: its data is in another file,"
                    + $" but no header extension names it", context.File.Name, Qcow2Header.IncompatibleAt);
        }
        return await context.OpenData(header.DataFile, null, cancellationToken).ConfigureAwait(false);
    }
}
