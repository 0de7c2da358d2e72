using DiskImage.Block;

namespace DiskImage.Formats.Parallels;

/// <summary>A plain image of a bundle: the bytes of a storage.</summary>
internal sealed class ParallelsPlainNode(BlockNode file, ParallelsFacts facts) : LinearFormatNode(file, start: 0), IDescribed
{
    public override long Length => File.Length;

    public ImageDescription Describe() => new()
    {
        Format = ParallelsDriver.FormatName,
        FormatSpecific = ParallelsInfo.Plain(facts),
    };

    protected override ValueTask ResizeCoreAsync(
        long length, PreallocationMode preallocation, IProgress<long>? claimed, CancellationToken cancellationToken)
        => File.ResizeAsync(length, preallocation, claimed, cancellationToken);
}
