using System.Security;
using DiskImage.Block;

namespace DiskImage.Crypto;

/// <summary>Finds the secret of an image among those that the user gave, and says what is wrong with it.</summary>
internal static class Secrets
{
    /// <summary>The name of the secret that is for whatever has none of its own.</summary>
    public const string ForAll = "";

    /// <summary>
    /// The secret of an image: by the name that an option gives, by the image's path or file name, or the one that is for all. Null if
    /// there is none: the image can be opened for what needs no secret.
    /// </summary>
    /// <param name="secrets">What the user gave, by name or path.</param>
    /// <param name="named">The name in the option; null if it is not given.</param>
    /// <param name="path">The image.</param>
    /// <exception cref="DiskImageException">SecretRequired: there is none of the name that the option gives.</exception>
    public static SecretBuffer? Find(IReadOnlyDictionary<string, SecureString> secrets, string? named, string path)
    {
        SecureString? found = named is not null && secrets.TryGetValue(named, out SecureString? byName) ? byName
            : secrets.TryGetValue(path, out SecureString? byPath) ? byPath
            : secrets.TryGetValue(Path.GetFileName(path), out SecureString? byFile) ? byFile
            : secrets.GetValueOrDefault(ForAll);
        if (found is null && named is not null && secrets.Count > 0)
        {
            throw new DiskImageException(
                DiskImageErrorKind.SecretRequired,
                $"{path}: its secret is said to be the one called '{named}', and none of that name is given. Give it with "
                    + $"{new Remedy(RemedyKind.Secret)}.",
                path);
        }
        return found is null ? null : SecretBuffer.OfText(found);
    }

    /// <summary>The secret of an image that is to be made.</summary>
    /// <exception cref="DiskImageException">SecretRequired: there is none.</exception>
    public static SecretBuffer ForNew(IReadOnlyDictionary<string, SecureString> secrets, string? named, string path)
        => Find(secrets, named, path) ?? throw new DiskImageException(
            DiskImageErrorKind.SecretRequired,
            $"{path}: a new encrypted image needs a secret. Give it with {new Remedy(RemedyKind.NewSecret)}.",
            path);

    /// <summary>Data of an image is needed that was opened without its secret.</summary>
    public static DiskImageException Required(string path) => new(
        DiskImageErrorKind.SecretRequired,
        $"{path}: is encrypted, and its secret is not given. Give it with {new Remedy(RemedyKind.Secret)}.",
        path);

    /// <summary>The secret opens nothing.</summary>
    public static DiskImageException Wrong(string path) => new(
        DiskImageErrorKind.WrongSecret, $"{path}: the secret does not open it. Check which image it is for, and how it is typed.", path);
}
