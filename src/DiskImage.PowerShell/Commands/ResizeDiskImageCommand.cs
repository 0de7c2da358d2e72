using System.Management.Automation;
using DiskImage.Block;
using DiskImage.Operations;

namespace DiskImage.PowerShell;

/// <summary><c>Resize-DiskImage</c>: changes a disk's virtual size.</summary>
[Cmdlet(VerbsCommon.Resize, "DiskImage", DefaultParameterSetName = PathSet, SupportsShouldProcess = true)]
[OutputType(typeof(DiskImageInfo))]
public sealed class ResizeDiskImageCommand : OpenImageCmdlet
{
    /// <summary>The new size; with a sign, what the disk is to grow or shrink by.</summary>
    [Parameter(Position = 1)]
    [Alias("SizeBytes")]
    [SizeChange]
    [ValidateNotNull]
    public SizeChange? Size { get; set; }

    /// <summary>Shrinks the disk to the smallest size at which its partitions are in it.</summary>
    [Parameter]
    public SwitchParameter ToMinimumSize { get; set; }

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
        if (Size is null == !ToMinimumSize)
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                ToMinimumSize
                    ? $"{path}: -Size and -ToMinimumSize are two sizes. Give one of them."
                    : $"{path}: no size is given. Give -Size, or -ToMinimumSize.",
                path);
        }
        using var operation = new ResizeOperation(this, Request(path), Size);
        ResizePlan plan = await operation.PlanAsync(Shrink, cancellationToken).ConfigureAwait(false);
        if (plan.Size == plan.Present)
        {
            await VerboseAsync($"{plan.Name}: has that size already").ConfigureAwait(false);
        }
        else if (await AgreeAsync(plan).ConfigureAwait(false))
        {
            _ = await operation.RunAsync(plan, Preallocation, cancellationToken).ConfigureAwait(false);
        }
        else
        {
            return;
        }
        if (PassThru)
        {
            await DescribeAsync(path, cancellationToken).ConfigureAwait(false);
        }
    }

    private Task<bool> AgreeAsync(ResizePlan plan)
    {
        string sizes = $"from {ReadableSize.WithBytes(plan.Present)} to {ReadableSize.WithBytes(plan.Size)}";
        return !plan.Shrinks ? ConfirmAsync(plan.Files, $"Grow {sizes}")
            : ConfirmLossAsync(
                plan.Files,
                ToMinimumSize
                    ? $"Shrink {sizes}, where its last partition ends, and lose what lies past that"
                    : $"Shrink {sizes} and lose what lies past the new end");
    }
}
