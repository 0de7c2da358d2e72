using DiskImage.Block;
using DiskImage.Drivers;

namespace DiskImage.Graph;

/// <summary>Makes and removes files that an image names, as its protocol can.</summary>
/// <param name="opener">Drivers and gate.</param>
/// <param name="image">The image's full path.</param>
/// <param name="allowsHoles">Its files may be sparse.</param>
internal sealed class SiblingFiles(ImageOpener opener, string image, bool allowsHoles) : ISiblingFiles
{
    public async ValueTask<PendingNode?> TryBeginAsync(string name, CancellationToken cancellationToken)
    {
        (IStorage storage, string address) = Find(name);
        try
        {
            StoragePlace place = await storage.LookAsync(address, TargetMode.New, cancellationToken).ConfigureAwait(false);
            return await storage.BeginAsync(
                place, new StorageTraits(allowsHoles, NoCow: false, Like: image), cancellationToken).ConfigureAwait(false);
        }
        catch (DiskImageException e) when (e.Kind == DiskImageErrorKind.AlreadyExists)
        {
            return null;
        }
    }

    public ValueTask RemoveAsync(string name, NodeIdentity identity)
    {
        (IStorage storage, string address) = Find(name);
        return storage.RemoveAsync(address, identity);
    }

    private (IStorage Storage, string Address) Find(string name)
    {
        ImageLocator locator = opener.Policy.Admit(name, image, OpenPolicy.DataRole);
        return opener.Registry.Protocol(locator.Scheme) is IStorage storage
            ? (storage, locator.Target)
            : throw new DiskImageException(DiskImageErrorKind.Unsupported, $"{image}: '{locator.Scheme}' cannot make new files", image);
    }
}
