using DiskImage.Block;
using DiskImage.Drivers;

namespace DiskImage.Formats.Cloop;

/// <summary>Compressed loop images. Layout: see SPEC.md beside this file.</summary>
internal sealed class CloopDriver : FormatDriver
{
    public const string FormatName = "cloop";

    public override string Name => FormatName;

    public override string Description => "Compressed loop image (read-only)";

    public override IReadOnlyList<string> Extensions => [".cloop"];

    public override IReadOnlyList<Type> NodeTypes => [typeof(CloopNode)];

    /// <summary>A script is a weak signature: any other format's goes first.</summary>
    public override int Probe(in ProbeInput input) => CloopHeader.IsSigned(input.Header) ? 20 : 0;

    public override async ValueTask<BlockNode> OpenAsync(FormatOpenContext context, CancellationToken cancellationToken)
    {
        CloopHeader header = await CloopHeader.ReadAsync(context.File, cancellationToken).ConfigureAwait(false);
        ReadOnlyFormatNode.RequireReading(context, FormatName);
        return await CloopNode.OpenAsync(context.File, header, cancellationToken).ConfigureAwait(false);
    }
}
