using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Options;

namespace DiskImage.Formats.Qcow2;

/// <summary>QEMU's own format, versions 2 and 3. Spec: QEMU docs/interop/qcow2; see SPEC.md beside this file.</summary>
internal sealed class Qcow2Driver : FormatDriver, ICreatable, IMeasurable
{
    public const string FormatName = "qcow2";

    public override string Name => FormatName;

    public override string Description => "QEMU copy-on-write version 2 and 3";

    public override IReadOnlyList<string> Extensions => [".qcow2", ".qc2"];

    public override OptionSchema OpenOptions { get; } = OptionSchema.Of<Qcow2OpenOptions>();

    public OptionSchema CreateOptions { get; } = OptionSchema.Of<Qcow2CreateOptions>();

    public override int Probe(ReadOnlySpan<byte> header, string fileName)
        => header.Length >= 8 && BigEndian.U32(header, 0) == Qcow2Header.Magic && BigEndian.U32(header, 4) >= 2 ? 100 : 0;

    public override async ValueTask<BlockNode> OpenAsync(FormatOpenContext context, CancellationToken cancellationToken)
    {
        Qcow2Header header = await Qcow2Header.ReadAsync(context.File, context.ForRepair, cancellationToken).ConfigureAwait(false);
        header.RequireKnownFeatures(context.File.Name);
        if (!context.ForRepair && !context.File.IsReadOnly && header.Has(Qcow2Incompatible.Dirty) && !header.Has(Qcow2Incompatible.Corrupt))
        {
            _ = await new Qcow2Repairer(context.File, header, null, cancellationToken).RunAsync(RepairMode.All).ConfigureAwait(false);
            header = await Qcow2Header.ReadAsync(context.File, forRepair: false, cancellationToken).ConfigureAwait(false);
        }
        if (header.CryptMethod != 0)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Unsupported, $"{context.File.Name}: the image is encrypted (crypt_method {header.CryptMethod}), which this version cannot read", context.File.Name, 32);
        }
        if (header.Has(Qcow2Incompatible.ExternalDataFile))
        {
            throw new DiskImageException(
                DiskImageErrorKind.Unsupported, $"{context.File.Name}: its data is in another file ({header.DataFile}), which this version cannot read", context.File.Name, Qcow2Header.IncompatibleAt);
        }
        BlockNode? backing = header.BackingFile is { } name && context.OpenBacking is { } open
            ? await open(name, header.BackingFormat, cancellationToken).ConfigureAwait(false)
            : null;
        try
        {
            return await Qcow2Node.OpenAsync(context.File, dataFile: null, backing, header, (Qcow2OpenOptions)context.Options, context.ForRepair, cancellationToken).ConfigureAwait(false);
        }
        catch
        {
            if (backing is not null)
            {
                await backing.DisposeAsync().ConfigureAwait(false);
            }
            throw;
        }
    }

    public ValueTask CreateAsync(FormatCreateContext context, CancellationToken cancellationToken)
        => Qcow2Creator.CreateAsync(context.File, (Qcow2CreateOptions)context.Options, cancellationToken);

    public ValueTask<ImageMeasurement> MeasureAsync(object options, BlockNode? source, CancellationToken cancellationToken)
        => Qcow2Measurer.MeasureAsync((Qcow2CreateOptions)options, source, cancellationToken);
}
