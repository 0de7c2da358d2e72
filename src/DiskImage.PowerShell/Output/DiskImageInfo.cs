using DiskImage.Block;
using DiskImage.Graph;
using DiskImage.Partitions;

namespace DiskImage.PowerShell;

/// <summary>What an image says about itself. Sizes are bytes.</summary>
public sealed class DiskImageInfo
{
    /// <summary>The image's full path, or its URI.</summary>
    public required string Path { get; init; }

    /// <summary>The format's name.</summary>
    public required string Format { get; init; }

    /// <summary>Bytes of the disk.</summary>
    public required long VirtualSize { get; init; }

    /// <summary>Bytes of host storage that the image takes, without its backing images; null where the host does not tell.</summary>
    public long? ActualSize { get; init; }

    /// <summary>Bytes that are allocated together; null where the format has no such unit.</summary>
    public long? ClusterSize { get; init; }

    /// <summary>The backing image's name as it stands in the image.</summary>
    public string? BackingFile { get; init; }

    /// <summary>The backing image's full path.</summary>
    public string? FullBackingFile { get; init; }

    /// <summary>The backing image's format as it stands in the image.</summary>
    public string? BackingFormat { get; init; }

    /// <summary>The contents are encrypted.</summary>
    public bool Encrypted { get; init; }

    /// <summary>New data is stored compressed.</summary>
    public bool Compressed { get; init; }

    /// <summary>The image was not closed properly.</summary>
    public bool DirtyFlag { get; init; }

    /// <summary>The snapshots inside the image, oldest first.</summary>
    public ReadableList<DiskImageSnapshot> Snapshots { get; init; } = new([]);

    /// <summary>The dirty bitmaps inside the image.</summary>
    public ReadableList<DiskImageBitmap> Bitmaps { get; init; } = new([]);

    /// <summary>
    /// The smallest size that the disk's partitions leave it; null where there is no partition table that can be read, and for a disk that
    /// is open without its backing image.
    /// </summary>
    public long? MinimumSize { get; init; }

    /// <summary>
    /// Of the stored blocks, the percentage that does not lie right behind the stored block before; null where the format does not tell.
    /// </summary>
    public int? FragmentationPercentage { get; init; }

    /// <summary>Further facts, as an object of the format's own type.</summary>
    public object? FormatSpecific { get; init; }

    /// <summary>The nodes that the image stands on.</summary>
    public ReadableList<DiskImageChild> Children { get; init; } = new([]);

    /// <summary>What a conversion did to make this image; null if it was not made by one.</summary>
    public DiskImageCopyStatistics? Statistics { get; internal set; }

    /// <inheritdoc/>
    public override string ToString() => Printable.Of(Path);

    /// <summary>Describes an open image.</summary>
    /// <param name="node">The image.</param>
    /// <param name="cancellationToken">Stops it.</param>
    /// <param name="statistics">What a conversion did to make it.</param>
    /// <exception cref="DiskImageException">What its snapshots or bitmaps say that cannot be read.</exception>
    internal static async Task<DiskImageInfo> OfAsync(
        BlockNode node, CancellationToken cancellationToken, DiskImageCopyStatistics? statistics = null)
    {
        ImageDescription described = node.As<IDescribed>()?.Describe()
            ?? throw new DiskImageException(
                DiskImageErrorKind.Unsupported, $"{node.Name}: is not a disk image that can describe itself", node.Name);
        IReadOnlyList<DiskSnapshot> snapshots = node.As<ISnapshots>() is { } keeper
            ? await keeper.GetSnapshotsAsync(cancellationToken).ConfigureAwait(false) : [];
        IReadOnlyList<DiskBitmap> bitmaps = node.As<IBitmapList>() is { } recorder
            ? await recorder.GetBitmapsAsync(cancellationToken).ConfigureAwait(false) : [];
        return new DiskImageInfo
        {
            Path = node.Name,
            Format = described.Format,
            VirtualSize = node.Length,
            ActualSize = AllocatedLength(node),
            ClusterSize = described.ClusterSize,
            BackingFile = described.BackingFile,
            FullBackingFile = FullName(described.BackingFile, node.Name),
            BackingFormat = described.BackingFormat,
            Encrypted = described.Encrypted,
            Compressed = described.Compressed,
            DirtyFlag = described.Dirty,
            Snapshots = new(snapshots.Select(s => DiskImageSnapshot.Of(node.Name, s))),
            Bitmaps = new(bitmaps.Select(b => DiskImageBitmap.Of(node.Name, b))),
            MinimumSize = await MinimumSizeAsync(node, described, cancellationToken).ConfigureAwait(false),
            FragmentationPercentage = node is IFragmented scattered
                ? await scattered.GetFragmentationAsync(cancellationToken).ConfigureAwait(false) : null,
            FormatSpecific = described.FormatSpecific,
            Children = new(node.Children.Where(c => c.Value is not UnopenedNode).Select(
                c => new DiskImageChild(c.Key, c.Value.Name, c.Value.Length, c.Value.AllocatedLength))),
            Statistics = statistics,
        };
    }

    /// <summary>Reads the partition table. What keeps it from being read is no reason not to describe the image.</summary>
    private static async Task<long?> MinimumSizeAsync(BlockNode node, ImageDescription described, CancellationToken cancellationToken)
    {
        if (described.BackingFile is not null && node.Child("backing") is null)
        {
            return null;
        }
        try
        {
            return (
                await PartitionTable.ReadAsync(node, described.LogicalSectorSize, cancellationToken).ConfigureAwait(false))?.MinimumSize;
        }
        catch (DiskImageException)
        {
            return null;
        }
    }

    /// <summary>Of the files of this layer.</summary>
    private static long? AllocatedLength(BlockNode node)
    {
        long? sum = null;
        foreach ((string role, BlockNode child) in node.Children)
        {
            if (!role.Equals("backing", StringComparison.Ordinal) && child.AllocatedLength is long length)
            {
                sum = (sum ?? 0) + length;
            }
        }
        return sum;
    }

    /// <summary>The name comes from the image, so it may be anything; one that is no path stays as it is.</summary>
    private static string? FullName(string? reference, string imagePath)
    {
        try
        {
            return reference is not null && ImageLocator.Parse(reference) is { IsPlainPath: true } locator
                ? System.IO.Path.GetFullPath(locator.From(System.IO.Path.GetDirectoryName(imagePath) ?? ".").Address)
                : reference;
        }
        catch (Exception e) when (e is DiskImageException or ArgumentException or PathTooLongException or NotSupportedException)
        {
            return reference;
        }
    }
}

/// <summary>A node that an image stands on.</summary>
public sealed class DiskImageChild(string role, string path, long length, long? allocatedLength)
{
    /// <summary>What it is to the image: file, backing, data-file.</summary>
    public string Role { get; } = role;

    /// <summary>Its path or URI.</summary>
    public string Path { get; } = path;

    /// <summary>Its length in bytes.</summary>
    public long Length { get; } = length;

    /// <summary>Bytes of host storage that it takes itself; null where that is not known.</summary>
    public long? AllocatedLength { get; } = allocatedLength;

    /// <inheritdoc/>
    public override string ToString() => Printable.Of($"{Role}: {Path}");
}
