using System.Management.Automation;
using DiskImage.Block;

namespace DiskImage.PowerShell;

/// <summary><c>Resize-DiskImage</c>: changes a disk's virtual size.</summary>
[Cmdlet(VerbsCommon.Resize, "DiskImage", DefaultParameterSetName = PathSet, SupportsShouldProcess = true)]
[OutputType(typeof(DiskImageInfo))]
public sealed class ResizeDiskImageCommand : OpenImageCmdlet
{
    /// <summary>The new size; with a sign, what the disk is to grow or shrink by.</summary>
    [Parameter(Mandatory = true, Position = 1)]
    [Alias("SizeBytes")]
    [SizeChange]
    [ValidateNotNull]
    public SizeChange Size { get; set; } = new(0, IsRelative: true);

    /// <summary>Allows the disk to become smaller: what lies past the new end is lost.</summary>
    [Parameter]
    public SwitchParameter Shrink { get; set; }

    /// <summary>How much of the new space is claimed ahead of its use.</summary>
    [Parameter]
    public PreallocationMode Preallocation { get; set; } = PreallocationMode.Off;

    /// <summary>Returns the image as it is then.</summary>
    [Parameter]
    public SwitchParameter PassThru { get; set; }

    /// <inheritdoc/>
    protected override async Task ProcessImageAsync(string path, CancellationToken cancellationToken)
    {
        (string name, string files, long present) = await LookAsync(
            path,
            image => new ValueTask<(string, string, long)>((image.Path, WrittenFiles.Of(image), image.Node.Length)),
            cancellationToken,
            beforeWriting: true).ConfigureAwait(false);
        long size = Size.From(present, name);
        if (!Size.IsRelative && size != Size.Bytes)
        {
            await VerboseAsync($"{name}: {Size.Bytes:#,0} bytes are rounded up to {size:#,0}, a whole number of sectors").ConfigureAwait(false);
        }
        if (size < present && !Shrink)
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"{name}: {ReadableSize.WithBytes(size)} is less than its {ReadableSize.WithBytes(present)}, and what lies past the new end would be lost. Shrink the file systems in it first, then give -Shrink.",
                name);
        }
        if (size == present)
        {
            await VerboseAsync($"{name}: has that size already").ConfigureAwait(false);
        }
        else if (!await AgreeAsync(files, present, size).ConfigureAwait(false))
        {
            return;
        }
        else
        {
            _ = await ChangeAsync(
                path,
                async image =>
                {
                    await image.Node.ResizeAsync(size, Preallocation, cancellationToken).ConfigureAwait(false);
                    return image.Node.Length;
                },
                cancellationToken).ConfigureAwait(false);
        }
        if (PassThru)
        {
            await DescribeAsync(path, cancellationToken).ConfigureAwait(false);
        }
    }

    private Task<bool> AgreeAsync(string name, long present, long size)
    {
        string sizes = $"from {ReadableSize.WithBytes(present)} to {ReadableSize.WithBytes(size)}";
        return size < present
            ? ConfirmLossAsync(name, $"Shrink {sizes} and lose what lies past the new end")
            : ConfirmAsync(name, $"Grow {sizes}");
    }
}
