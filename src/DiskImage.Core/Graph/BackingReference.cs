using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Options;

namespace DiskImage.Graph;

/// <summary>
/// A backing image as a new image is to name it. It is opened once before it is recorded: a name that leads nowhere or back to the
/// new image is found out before anything is written.
/// </summary>
/// <param name="Name">The name as it is to stand in the new image: relative ones are taken from the new image's folder, as QEMU does.</param>
/// <param name="Format">Its format's name. Always recorded: an image whose backing format is probed at each opening can be made to lie.</param>
/// <param name="Length">Its virtual size in bytes.</param>
/// <param name="WasProbed">True if the format was found by probing.</param>
public sealed record BackingReference(string Name, string Format, long Length, bool WasProbed)
{
    /// <summary>Opens the backing image, with all that is below it, and closes it again.</summary>
    /// <param name="opener">Opens within its policy.</param>
    /// <param name="imagePath">The full path that the new image will have.</param>
    /// <param name="name">The backing image's name.</param>
    /// <param name="format">Its format; null to probe.</param>
    /// <param name="cancellationToken">Stops the opening.</param>
    /// <exception cref="DiskImageException">What opening says; InvalidOption if the new image would be its own backing image.</exception>
    public static async ValueTask<BackingReference> ResolveAsync(
        ImageOpener opener, string imagePath, string name, string? format, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(opener);
        OpenedImage backing = await opener.OpenReferenceAsync(imagePath, name, format, [], cancellationToken).ConfigureAwait(false);
        await using (backing.ConfigureAwait(false))
        {
            for (BlockNode? node = backing.Node; node is not null; node = node.Child("backing"))
            {
                if (node.Name.Equals(imagePath, StringComparison.Ordinal))
                {
                    throw new DiskImageException(
                        DiskImageErrorKind.InvalidOption, $"{imagePath}: cannot be its own backing image (by way of '{name}'). Choose another name.", imagePath);
                }
            }
            return new BackingReference(name, backing.Format.Name, backing.Node.Length, backing.WasProbed);
        }
    }

    /// <summary>The create options that make a new image of a format name this backing image.</summary>
    /// <param name="format">The new image's format.</param>
    /// <exception cref="DiskImageException">Unsupported: the format knows no backing images.</exception>
    public IEnumerable<KeyValuePair<string, object?>> OptionsFor(FormatDriver format)
    {
        OptionSchema schema = (format as ICreatable)?.CreateOptions ?? OptionSchema.Empty;
        string file = Named(nameof(ICreateOptions.BackingFile))
            ?? throw new DiskImageException(
                DiskImageErrorKind.Unsupported, $"An image of format '{format.Name}' cannot have a backing image. Choose another format, for example qcow2.");
        yield return new(file, Name);
        if (Named(nameof(ICreateOptions.BackingFormat)) is { } formatOption)
        {
            yield return new(formatOption, Format);
        }

        string? Named(string property) => schema.Options.FirstOrDefault(o => o.PropertyName.Equals(property, StringComparison.Ordinal))?.Name;
    }
}
