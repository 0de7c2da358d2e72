using DiskImage.Block;
using DiskImage.Graph;

namespace DiskImage.Operations;

/// <summary>What a disk or a format can do beyond reading and writing. No cmdlet asks for a format by name.</summary>
public static class DiskAbility
{
    /// <summary>The ability of an open disk.</summary>
    /// <typeparam name="T">The ability's interface.</typeparam>
    /// <param name="image">The image.</param>
    /// <param name="lack">What images without it cannot do, after "images of format 'raw'".</param>
    /// <exception cref="DiskImageException">Unsupported, naming the format.</exception>
    public static T Require<T>(this OpenedImage image, string lack)
        where T : class
        => image.Node.As<T>() ?? throw Lacking(image, lack);

    /// <summary>The ability of the image's format.</summary>
    /// <typeparam name="T">The ability's interface.</typeparam>
    /// <param name="image">The image.</param>
    /// <param name="lack">What images without it cannot do, after "images of format 'raw'".</param>
    /// <exception cref="DiskImageException">Unsupported, naming the format.</exception>
    public static T RequireOfFormat<T>(this OpenedImage image, string lack)
        where T : class
        => image.Format as T ?? throw Lacking(image, lack);

    /// <summary>What an image's format records about it.</summary>
    public static ImageDescription Describe(this OpenedImage image) => image.Require<IDescribed>("cannot describe themselves").Describe();

    private static DiskImageException Lacking(OpenedImage image, string lack)
        => new(DiskImageErrorKind.Unsupported, $"{image.Path}: images of format '{image.Format.Name}' {lack}", image.Path);
}
