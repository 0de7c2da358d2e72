using DiskImage.Block;
using DiskImage.Drivers;

namespace DiskImage.Formats;

/// <summary>A disk in a format that is read only: there is no way to change such an image in place.</summary>
internal abstract class ReadOnlyFormatNode(BlockNode file, BlockNode? backing, params (string Role, BlockNode Node)[] others)
    : FormatNode(file, backing, others)
{
    /// <summary>One that stands on nothing.</summary>
    protected ReadOnlyFormatNode(BlockNode file, params (string Role, BlockNode Node)[] others)
        : this(file, backing: null, others)
    {
    }

    public sealed override bool IsReadOnly => true;

    /// <summary>Refuses to open an image of such a format for writing.</summary>
    /// <param name="context">How it is to be opened.</param>
    /// <param name="format">The format's name.</param>
    /// <exception cref="DiskImageException">ReadOnly, with what can be done instead.</exception>
    public static void RequireReading(FormatOpenContext context, string format)
    {
        if (!context.File.IsReadOnly)
        {
            throw new DiskImageException(
                DiskImageErrorKind.ReadOnly,
                $"{context.File.Name}: the format {format} is read-only, so the image cannot be changed or repaired. Convert it "
                    + $"with {new Remedy(RemedyKind.Convert)} to"
                    + $" a format that can be written (qcow2, vhdx, raw …) and change that, or put a qcow2 overlay on it "
                    + $"with {new Remedy(RemedyKind.Overlay)}.",
                context.File.Name);
        }
    }

    protected sealed override ValueTask<WriteMapping> EnsureMappedAsync(long offset, long length, CancellationToken cancellationToken)
        => throw Refused();

    protected sealed override ValueTask CommitMappingAsync(WriteMapping mapping) => throw Refused();

    protected sealed override ValueTask AbandonMappingAsync(WriteMapping mapping) => throw Refused();

    private DiskImageException Refused() => new(DiskImageErrorKind.ReadOnly, $"{Name}: its format is read-only", Name);
}
