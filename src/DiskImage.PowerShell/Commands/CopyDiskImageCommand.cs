using System.Management.Automation;
using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Formats.Raw;
using DiskImage.Graph;
using DiskImage.Jobs;

namespace DiskImage.PowerShell;

/// <summary><c>Copy-DiskImage</c>: copies blocks of a disk into a new image (dd).</summary>
[Cmdlet(VerbsCommon.Copy, "DiskImage", DefaultParameterSetName = PathSet, SupportsShouldProcess = true)]
[OutputType(typeof(DiskImageInfo))]
public sealed class CopyDiskImageCommand : TargetImageCmdlet
{
    /// <summary>Bytes of a block, which <see cref="Skip"/> and <see cref="Count"/> count in.</summary>
    [Parameter]
    [ByteSize]
    [Alias("bs")]
    [ValidateRange(1, int.MaxValue)]
    public long BlockSize { get; set; } = 512;

    /// <summary>Blocks of the source that are left out at its beginning.</summary>
    [Parameter]
    [ValidateRange(0, long.MaxValue)]
    public long Skip { get; set; }

    /// <summary>Blocks to copy at most; to the end of the source if absent.</summary>
    [Parameter]
    [ValidateRange(0, long.MaxValue)]
    public long? Count { get; set; }

    /// <inheritdoc/>
    protected override async Task ProcessImageAsync(string path, CancellationToken cancellationToken)
    {
        OpenedImage source = await OpenAsync(path, cancellationToken).ConfigureAwait(false);
        await using (source.ConfigureAwait(false))
        {
            (string target, FormatDriver format) = await TargetAsync().ConfigureAwait(false);
            RequireOther(source, target);
            (long offset, long length) = Range(source);
            NewImageOptions options = OptionsOf(format);
            options.Add(nameof(ICreateOptions.Size), length, nameof(Count));
            await MakeAsync(
                target,
                options,
                $"Copy {length:#,0} bytes at offset {offset:#,0} of {source.Path} to a {format.Name} image",
                async image =>
                {
                    ConvertResult result = await CopyAsync(source, offset, length, image, cancellationToken).ConfigureAwait(false);
                    await image.CompleteAsync(IsDurableByCacheMode, cancellationToken).ConfigureAwait(false);
                    return DiskImageCopyStatistics.Of(result);
                },
                cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>The bytes of the source that are copied.</summary>
    private (long Offset, long Length) Range(OpenedImage source)
    {
        if (Skip > source.Node.Length / BlockSize)
        {
            throw new DiskImageException(
                DiskImageErrorKind.OutOfRange,
                $"{source.Path}: {Skip:#,0} blocks of {BlockSize:#,0} bytes reach past its {source.Node.Length:#,0} bytes",
                source.Path);
        }
        long offset = Skip * BlockSize, room = source.Node.Length - offset;
        return (offset, Count is long count && count <= room / BlockSize ? count * BlockSize : room);
    }

    private async Task<ConvertResult> CopyAsync(
        OpenedImage source, long offset, long length, NewImage image, CancellationToken cancellationToken)
    {
        // A raw disk can be a range of what is below it, which may be a disk itself. The range borrows the source: it is not closed.
        FormatDriver raw = DiskImageCmdlet.Registry.Format("raw");
        BlockNode range = await raw.OpenAsync(
            new FormatOpenContext(
                source.Node,
                new RawOpenOptions { Offset = offset, Size = length },
                OpenBacking: null,
                (_, _, _) => throw new DiskImageException(DiskImageErrorKind.Unsupported, "A range names nothing.")),
            cancellationToken).ConfigureAwait(false);
        ConvertResult result = await ShowAsync(
            $"Copying {Leaf(source.Path)} to {Leaf(image.Path)}",
            progress => new ConvertJob(
                range,
                image.Node,
                new ConvertOptions { Workers = Workers, InOrder = image.IsSent }).RunAsync(progress,
                cancellationToken)).ConfigureAwait(false);
        await VerboseAsync($"{image.Path}: {ReadableSize.Of(result.BytesCopied)} copied, {ReadableSize.Of(result.BytesZero)} zeroes, in "
            + $"{result.Elapsed.TotalSeconds:0.0} s").ConfigureAwait(false);
        return result;
    }
}
