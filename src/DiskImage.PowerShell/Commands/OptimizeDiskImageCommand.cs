using System.Management.Automation;
using DiskImage.Block;
using DiskImage.Jobs;
using DiskImage.Operations;

namespace DiskImage.PowerShell;

/// <summary><c>Optimize-DiskImage</c>: makes the file of an image smaller in place.</summary>
[Cmdlet(VerbsCommon.Optimize, "DiskImage", DefaultParameterSetName = PathSet, SupportsShouldProcess = true)]
[OutputType(typeof(DiskImageInfo))]
public sealed class OptimizeDiskImageCommand : OpenImageCmdlet
{
    private const string Lack = "cannot be compacted in place; Convert-DiskImage makes a compact copy";

    /// <summary>Returns the image as it is then.</summary>
    [Parameter]
    public SwitchParameter PassThru { get; set; }

    /// <inheritdoc/>
    protected override async Task ProcessImageAsync(string path, CancellationToken cancellationToken)
    {
        (string name, string files) = await LookAsync(
            path,
            image =>
            {
                _ = image.Require<ICompactable>(Lack);
                return new ValueTask<(string, string)>((image.Path, WrittenFiles.Of(image)));
            },
            cancellationToken,
            beforeWriting: true).ConfigureAwait(false);
        if (!await ConfirmAsync(files, "Give up unused and zero space and make the file shorter").ConfigureAwait(false))
        {
            return;
        }
        long saved = await ChangeAsync(
            path,
            async image =>
            {
                ICompactable compactable = image.Require<ICompactable>(Lack);
                long length = image.Node.Length;
                return await ShowAsync(
                    $"Optimizing {Leaf(image.Path)}",
                    progress => compactable.CompactAsync(
                        new ByteProgress("Optimize", progress, length), cancellationToken).AsTask()).ConfigureAwait(false);
            },
            cancellationToken).ConfigureAwait(false);
        await VerboseAsync($"{name}: {ReadableSize.WithBytes(saved)} shorter").ConfigureAwait(false);
        if (PassThru)
        {
            await DescribeAsync(path, cancellationToken).ConfigureAwait(false);
        }
    }
}
