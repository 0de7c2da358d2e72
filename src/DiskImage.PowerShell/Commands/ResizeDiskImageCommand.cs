using System.Management.Automation;
using DiskImage.Block;
using DiskImage.Graph;
using DiskImage.Operations;
using DiskImage.Partitions;

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
        Plan plan = await LookAsync(path, cancellationToken).ConfigureAwait(false);
        if (plan.Size < plan.Present && !Shrink && !ToMinimumSize)
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"{plan.Name}: {ReadableSize.WithBytes(plan.Size)} is less than its {ReadableSize.WithBytes(plan.Present)}, "
                + "and what lies past the new end would be lost. "
                + "Shrink the file systems in it first, then give -Shrink, or -ToMinimumSize to keep all partitions.",
                plan.Name);
        }
        if (plan.Size == plan.Present)
        {
            await VerboseAsync($"{plan.Name}: has that size already").ConfigureAwait(false);
        }
        else if (!await AgreeAsync(plan).ConfigureAwait(false))
        {
            return;
        }
        else
        {
            _ = await ChangeAsync(path, image => ResizeAsync(image, plan, cancellationToken), cancellationToken).ConfigureAwait(false);
            if (plan.Table?.Scheme == PartitionScheme.Gpt && !ToMinimumSize)
            {
                await WarnAsync(
                    $"{plan.Name}: the copy of its partition table (GPT) stood at the old end and is "
                        + $"cut off, and the table still names the "
                    + "old end, for which some systems refuse it. Put it right with 'sgdisk -e' or in "
                    + "the guest; -ToMinimumSize does so itself."
                    ).ConfigureAwait(false);
            }
        }
        if (PassThru)
        {
            await DescribeAsync(path, cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>Looks what size the disk is to get. Where partitions have a say it is opened with what it stands on.</summary>
    private async Task<Plan> LookAsync(string path, CancellationToken cancellationToken)
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
        Plan plan = await LookAsync(
            path,
            image => new ValueTask<Plan>(
                new Plan(image.Path, WrittenFiles.Of(image), image.Node.Length, Size?.From(image.Node.Length, image.Path) ?? 0, null)),
            cancellationToken,
            beforeWriting: true).ConfigureAwait(false);
        if (Size is { IsRelative: false } given && plan.Size != given.Bytes)
        {
            await VerboseAsync(
                $"{plan.Name}: {given.Bytes:#,0} bytes are rounded up to {plan.Size:#,0}, a whole number of sectors").ConfigureAwait(false);
        }
        if (!ToMinimumSize && (!Shrink || plan.Size >= plan.Present))
        {
            return plan;
        }
        OpenedImage image = await OpenAsync(path, cancellationToken).ConfigureAwait(false);
        await using (image.ConfigureAwait(false))
        {
            return ToMinimumSize ? await SmallestAsync(image, plan, cancellationToken).ConfigureAwait(false)
                : plan with { Table = await TryReadTableAsync(image, cancellationToken).ConfigureAwait(false) };
        }
    }

    private async Task<Plan> SmallestAsync(OpenedImage image, Plan plan, CancellationToken cancellationToken)
    {
        PartitionTable table = await ReadTableAsync(image, cancellationToken).ConfigureAwait(false)
            ?? throw new DiskImageException(
                DiskImageErrorKind.Unsupported,
                $"{plan.Name}: the disk has no partition table with partitions, so nothing tells how small it may become. "
                + "Give the size with -Size and -Shrink.",
                plan.Name);
        string scheme = table.IsHybrid ? "GPT and MBR" : table.Scheme == PartitionScheme.Gpt ? "GPT" : "MBR";
        await VerboseAsync(
            $"{plan.Name}: {table.Partitions.Count:#,0} partitions ({scheme}, sectors of {table.SectorSize} bytes) "
            + $"need {ReadableSize.WithBytes(table.MinimumSize)}").ConfigureAwait(false);
        return plan with { Size = Math.Min(table.MinimumSize, plan.Present), Table = table };
    }

    private async ValueTask<long> ResizeAsync(OpenedImage image, Plan plan, CancellationToken cancellationToken)
    {
        if (ToMinimumSize)
        {
            PartitionTable? table = await ReadTableAsync(image, cancellationToken).ConfigureAwait(false);
            if (table?.MinimumSize != plan.Size || image.Node.Length != plan.Present)
            {
                throw new DiskImageException(
                    DiskImageErrorKind.Io,
                    $"{plan.Name}: the disk was changed by another program while you were asked; nothing is done. Try again.",
                    plan.Name);
            }
            await table.PrepareForSizeAsync(image.Node, plan.Size, cancellationToken).ConfigureAwait(false);
        }
        return await ShowAsync(
            $"Resizing {Leaf(plan.Name)}",
            async progress =>
            {
                var claimed = new ByteProgress("Claiming space", progress, Math.Max(0, plan.Size - plan.Present));
                await image.Node.ResizeAsync(plan.Size, Preallocation, claimed, cancellationToken).ConfigureAwait(false);
                return image.Node.Length;
            }).ConfigureAwait(false);
    }

    private static ValueTask<PartitionTable?> ReadTableAsync(OpenedImage image, CancellationToken cancellationToken)
        => PartitionTable.ReadAsync(image.Node, image.Describe().LogicalSectorSize, cancellationToken);

    private static async Task<PartitionTable?> TryReadTableAsync(OpenedImage image, CancellationToken cancellationToken)
    {
        try
        {
            return await ReadTableAsync(image, cancellationToken).ConfigureAwait(false);
        }
        catch (DiskImageException)
        {
            return null; // whoever names a size does not ask what is in the disk
        }
    }

    private Task<bool> AgreeAsync(Plan plan)
    {
        string sizes = $"from {ReadableSize.WithBytes(plan.Present)} to {ReadableSize.WithBytes(plan.Size)}";
        return plan.Size >= plan.Present ? ConfirmAsync(plan.Files, $"Grow {sizes}")
            : ConfirmLossAsync(
                plan.Files,
                ToMinimumSize
                    ? $"Shrink {sizes}, where its last partition ends, and lose what lies past that"
                    : $"Shrink {sizes} and lose what lies past the new end");
    }

    /// <summary>What is to be done.</summary>
    /// <param name="Name">The image.</param>
    /// <param name="Files">The files that are written.</param>
    /// <param name="Present">The disk's size.</param>
    /// <param name="Size">The size that it is to get.</param>
    /// <param name="Table">Its partitions, where they were looked at.</param>
    private sealed record Plan(string Name, string Files, long Present, long Size, PartitionTable? Table);
}
