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

    public async ValueTask ReplaceAsync(string name, NodeIdentity? identity, ReadOnlyMemory<byte> contents)
    {
        (IStorage storage, string address) = Find(name);
        StoragePlace place = await storage.LookAsync(address, TargetMode.Replace, CancellationToken.None).ConfigureAwait(false);
        if (identity is not null && place.Present != identity)
        {
            throw new DiskImageException(
                DiskImageErrorKind.AlreadyExists, $"{place.Locator}: is another file by now, or gone. It is left as it is. Open it again.",
                place.Locator);
        }
        PendingNode pending = await storage.BeginAsync(
            place, new StorageTraits(allowsHoles, NoCow: false, Like: image), CancellationToken.None).ConfigureAwait(false);
        await using (pending.ConfigureAwait(false))
        {
            await pending.Node.WriteAsync(0, contents).ConfigureAwait(false);
            await pending.Node.FlushAsync().ConfigureAwait(false);
            await pending.Node.DisposeAsync().ConfigureAwait(false);
            await pending.PublishAsync(durable: true, revocable: false, CancellationToken.None).ConfigureAwait(false);
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
