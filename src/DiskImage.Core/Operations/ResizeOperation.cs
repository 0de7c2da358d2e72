using DiskImage.Block;
using DiskImage.Graph;
using DiskImage.Jobs;
using DiskImage.Partitions;

namespace DiskImage.Operations;

/// <summary>What a resize is to do, as it was found before anybody agrees to it.</summary>
/// <param name="Name">The image.</param>
/// <param name="Files">The files that are written.</param>
/// <param name="Present">The disk's size in bytes.</param>
/// <param name="Size">The size in bytes that it is to get.</param>
/// <param name="Table">Its partitions, where they were looked at.</param>
public sealed record ResizePlan(string Name, string Files, long Present, long Size, PartitionTable? Table)
{
    /// <summary>Something behind the new end is lost.</summary>
    public bool Shrinks => Size < Present;
}

/// <summary>
/// Changes a disk's virtual size. From the plan on nobody else may write to the image, until it is resized or this is disposed of.
/// </summary>
/// <param name="front">Who asks.</param>
/// <param name="request">How the image is opened.</param>
/// <param name="size">The new size; null for the smallest at which the disk's partitions are in it.</param>
public sealed class ResizeOperation(IFrontEnd front, OpenRequest request, SizeChange? size) : IDisposable
{
    private readonly KeptLocks _kept = new(); // between plan and resize

    /// <summary>
    /// Looks what size the disk is to get, and whether that is allowed. Where partitions have a say it is opened with what it stands on.
    /// </summary>
    /// <param name="mayShrink">It is said that the disk may become smaller.</param>
    /// <param name="cancellationToken">Stops it.</param>
    /// <exception cref="DiskImageException">
    /// OutOfRange: no disk has that size. Unsupported: no partitions tell how small it may be. InvalidOption: it would become smaller.
    /// </exception>
    public async Task<ResizePlan> PlanAsync(bool mayShrink, CancellationToken cancellationToken)
    {
        ResizePlan plan = await LookAsync(cancellationToken).ConfigureAwait(false);
        if (size is { IsRelative: false } given && plan.Size != given.Bytes)
        {
            await front.ExplainAsync(
                $"{plan.Name}: {given.Bytes:#,0} bytes are rounded up to {plan.Size:#,0}, a whole number of sectors").ConfigureAwait(false);
        }
        if (plan.Shrinks && !mayShrink && size is not null)
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"{plan.Name}: {ByteText.WithBytes(plan.Size)} is less than its {ByteText.WithBytes(plan.Present)}, "
                + $"and what lies past the new end would be lost. Shrink the file systems in it first, then give "
                + $"{new Remedy(RemedyKind.AllowShrink)}, or {new Remedy(RemedyKind.MinimumSize)} to keep all partitions.",
                plan.Name);
        }
        if (size is not null && !plan.Shrinks)
        {
            return plan;
        }
        OpenedImage image = await front.OpenAsync(request, cancellationToken).ConfigureAwait(false);
        await using (image.ConfigureAwait(false))
        {
            return size is null ? await SmallestAsync(image, plan, cancellationToken).ConfigureAwait(false)
                : plan with { Table = await TryReadTableAsync(image, cancellationToken).ConfigureAwait(false) };
        }
    }

    /// <summary>Gives the disk its size, durably; the size it has then.</summary>
    /// <param name="plan">What was agreed to.</param>
    /// <param name="preallocation">How much of the new space is claimed ahead of its use.</param>
    /// <param name="cancellationToken">Stops it.</param>
    /// <exception cref="DiskImageException">Io: the disk is not any more what was planned for; what the format says.</exception>
    public async Task<long> RunAsync(ResizePlan plan, PreallocationMode preallocation, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(plan);
        OpenedImage image = await front.OpenAsync(
            request with { Writable = true, Kept = _kept.Locks }, cancellationToken).ConfigureAwait(false);
        await using (image.ConfigureAwait(false))
        {
            if (size is null)
            {
                await PrepareTableAsync(image, plan, cancellationToken).ConfigureAwait(false);
            }
            long resized = await front.ShowAsync(
                $"Resizing {ByteText.Leaf(plan.Name)}",
                async progress =>
                {
                    var claimed = new ByteProgress("Claiming space", progress, Math.Max(0, plan.Size - plan.Present));
                    await image.Node.ResizeAsync(plan.Size, preallocation, claimed, cancellationToken).ConfigureAwait(false);
                    return image.Node.Length;
                }).ConfigureAwait(false);
            await image.Node.FlushAsync(cancellationToken).ConfigureAwait(false);
            if (size is not null && plan.Table?.Scheme == PartitionScheme.Gpt)
            {
                await front.WarnAsync(
                    $"{plan.Name}: the copy of its partition table (GPT) stood at the old end and is cut off, and the table still names "
                    + $"the old end, for which some systems refuse it. Put it right with 'sgdisk -e' or in the guest; "
                    + $"{new Remedy(RemedyKind.MinimumSize)} does so itself.").ConfigureAwait(false);
            }
            return resized;
        }
    }

    /// <inheritdoc/>
    public void Dispose() => _kept.Dispose();

    private async Task<ResizePlan> LookAsync(CancellationToken cancellationToken)
    {
        OpenedImage image = await front.OpenAsync(
            request with { WithBacking = false, BeforeWriting = true }, cancellationToken).ConfigureAwait(false);
        await using (image.ConfigureAwait(false))
        {
            long present = image.Node.Length;
            _kept.Keep(image.Node);
            return new ResizePlan(image.Path, WrittenFiles.Of(image), present, size?.From(present, image.Path) ?? 0, null);
        }
    }

    private async Task<ResizePlan> SmallestAsync(OpenedImage image, ResizePlan plan, CancellationToken cancellationToken)
    {
        PartitionTable table = await ReadTableAsync(image, cancellationToken).ConfigureAwait(false)
            ?? throw new DiskImageException(
                DiskImageErrorKind.Unsupported,
                $"{plan.Name}: the disk has no partition table with partitions, so nothing tells how small it may become. "
                + $"Give the size, and {new Remedy(RemedyKind.AllowShrink)}.",
                plan.Name);
        string scheme = table.IsHybrid ? "GPT and MBR" : table.Scheme == PartitionScheme.Gpt ? "GPT" : "MBR";
        await front.ExplainAsync(
            $"{plan.Name}: {table.Partitions.Count:#,0} partitions ({scheme}, sectors of {table.SectorSize} bytes) "
            + $"need {ByteText.WithBytes(table.MinimumSize)}").ConfigureAwait(false);
        return plan with { Size = Math.Min(table.MinimumSize, plan.Present), Table = table };
    }

    private static async Task PrepareTableAsync(OpenedImage image, ResizePlan plan, CancellationToken cancellationToken)
    {
        PartitionTable? table = await ReadTableAsync(image, cancellationToken).ConfigureAwait(false);
        if (table?.MinimumSize != plan.Size || image.Node.Length != plan.Present)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Io,
                $"{plan.Name}: the disk was changed by another program in the meantime; nothing is done. Try again.",
                plan.Name);
        }
        await table.PrepareForSizeAsync(image.Node, plan.Size, cancellationToken).ConfigureAwait(false);
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
}
