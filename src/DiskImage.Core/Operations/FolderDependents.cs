using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Graph;

namespace DiskImage.Operations;

/// <summary>Images that stand on others in their folders, which these do not know of: who changes one changes what they read as.</summary>
public static class FolderDependents
{
    private const int MostFiles = 1000; // of a folder; ours: it is a courtesy, not an inventory

    private static readonly string[] s_anyEnding = [""];

    /// <summary>The images in the folders of some layers whose backing image is one of the layers.</summary>
    /// <param name="registry">The drivers.</param>
    /// <param name="layers">The layers.</param>
    /// <param name="chain">Images that are not to be told of: the chain itself.</param>
    /// <param name="cancellationToken">Stops the search.</param>
    public static async Task<IReadOnlyList<(string Image, string Layer)>> FindAsync(
        DriverRegistry registry, IReadOnlyList<ChainLayer> layers, IReadOnlyList<ChainLayer> chain, CancellationToken cancellationToken)
    {
        string[] folders = [.. layers.Select(l => Path.GetDirectoryName(l.Path)).OfType<string>().Distinct(StringComparer.Ordinal)];
        OpenPolicy policy = OpenPolicy.Default with { References = ReferenceScope.None, ForceShare = true, ParentFolders = folders };
        var opener = new ImageOpener(registry, policy);
        ProtocolDriver files = registry.Protocol("file");
        var found = new List<(string, string)>();
        foreach (string file in folders.SelectMany(f => files.FilesIn(f, s_anyEnding, MostFiles)))
        {
            cancellationToken.ThrowIfCancellationRequested();
            if (await BackingOfAsync(opener, file, chain, cancellationToken).ConfigureAwait(false) is { } backing
                && layers.FirstOrDefault(l => l.Identity == backing) is { } layer)
            {
                found.Add((file, layer.Path));
            }
        }
        return found;
    }

    /// <summary>
    /// Which file an image says that it stands on; null for none, for what cannot be opened, and for images of the chain.
    /// </summary>
    private static async Task<NodeIdentity?> BackingOfAsync(
        ImageOpener opener, string file, IReadOnlyList<ChainLayer> chain, CancellationToken cancellationToken)
    {
        try
        {
            if (chain.Any(c => c.Identity == opener.IdentityOf(file)))
            {
                return null;
            }
            OpenedImage image = await opener.OpenAsync(
                new OpenRequest(file) { WithBacking = false, ToDescribe = true }, cancellationToken).ConfigureAwait(false);
            await using (image.ConfigureAwait(false))
            {
                return image.Node.As<IDescribed>()?.Describe().BackingFile is { } name
                    && ImageLocator.Parse(name) is { IsFile: true } locator
                    ? opener.IdentityOf(locator.From(Path.GetDirectoryName(file)!).FullPath)
                    : null;
            }
        }
        catch (DiskImageException)
        {
            return null;
        }
    }
}
