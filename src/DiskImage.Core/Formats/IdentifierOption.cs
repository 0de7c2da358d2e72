using DiskImage.Block;

namespace DiskImage.Formats;

/// <summary>The value of an option that sets an identifier: a GUID in any of .NET's spellings, or <c>new</c> for a random one.</summary>
internal static class IdentifierOption
{
    /// <summary>The identifier that a value stands for.</summary>
    /// <param name="imageName">The image, for the error.</param>
    /// <param name="option">The option's name.</param>
    /// <param name="value">Its value.</param>
    /// <exception cref="DiskImageException">InvalidOption.</exception>
    public static Guid Parse(string imageName, string option, string value)
        => value.Equals("new", StringComparison.OrdinalIgnoreCase) ? Guid.NewGuid()
            : Guid.TryParse(value, out Guid given) ? given
            : throw new DiskImageException(
                DiskImageErrorKind.InvalidOption, $"{imageName}: {option}={value} is not possible; allowed: a GUID, or new.", imageName);
}
