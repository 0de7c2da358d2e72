using DiskImage.Block;

namespace DiskImage.Formats.Raw;

/// <summary>A file, or a range of one, as a disk.</summary>
internal sealed class RawNode(BlockNode file, long start, long? size) : LinearFormatNode(file, start), IDescribed, IFastZero
{
    public override long Length => size ?? File.Length - Start;

    public override long? AllocatedLength => File.AllocatedLength;

    public ImageDescription Describe() => new() { Format = "raw" };

    public ValueTask<bool> TryZeroFastAsync(long offset, long length, CancellationToken cancellationToken)
        => offset + length <= Length && File.As<IFastZero>() is { } fast
            ? fast.TryZeroFastAsync(Start + offset, length, cancellationToken)
            : new(false);

    /// <summary>
    /// A server may keep snapshots of what it has, which are this disk's if the disk is all of it. What a format over this disk does, an
    /// error injector below may know.
    /// </summary>
    protected override T? AbilityBelow<T>()
        where T : class
        => typeof(T) == typeof(IDebugEvents) || (typeof(T) == typeof(ISnapshots) && Start == 0 && size is null) ? File.As<T>() : null;

    protected override ValueTask ResizeCoreAsync(
        long length, PreallocationMode preallocation, IProgress<long>? claimed, CancellationToken cancellationToken)
        => Start == 0 && size is null
            ? File.ResizeAsync(length, preallocation, claimed, cancellationToken)
            : throw new DiskImageException(
                DiskImageErrorKind.Unsupported, $"{Name}: opened as a range of the file, so its length cannot be changed", Name);
}
