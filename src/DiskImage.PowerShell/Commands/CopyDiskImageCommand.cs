using System.Management.Automation;
using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Graph;
using DiskImage.Jobs;
using DiskImage.Operations;

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
            (long offset, long length) = DiskRange.Of(source.Node, BlockSize, Skip, Count);
            NewImageOptions options = OptionsOf(path, format);
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

    private async Task<ConvertResult> CopyAsync(
        OpenedImage source, long offset, long length, NewImage image, CancellationToken cancellationToken)
    {
        BlockNode range = await DiskRange.OpenAsync(Registry, source.Node, offset, length, cancellationToken).ConfigureAwait(false);
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
