using DiskImage.Block;
namespace DiskImage.Formats.Vhdx;
internal sealed class VhdxChecker(BlockNode file, VhdxNode node, IProgress<long>? bytes, CancellationToken cancellationToken)
{
    public ValueTask<CheckReport> RunAsync() { _ = (file, node, bytes, cancellationToken); return new(new CheckReport { Findings = [] }); }
}
