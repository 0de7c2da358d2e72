using System.Collections.Concurrent;
using DiskImage.Block;
using DiskImage.Drivers;

namespace DiskImage.Graph;

/// <summary>The files near one image.</summary>
/// <param name="opener">Drivers and gate.</param>
/// <param name="image">The image's full path.</param>
/// <param name="starts">What was read of files so far, by name: what an operation shares among its images.</param>
/// <param name="open">Opens one to be read, past the gate.</param>
internal sealed class NearbyFiles(
    ImageOpener opener, string image, ConcurrentDictionary<string, NearbyStart> starts, ReferenceOpener open) : INearbyFiles
{
    private const int MostNearby = 2000; // files that are looked at for a parent. Ours

    public IReadOnlyList<string> Find(IReadOnlyList<string> endings)
    {
        ProtocolDriver files = opener.Registry.Protocol("file");
        IEnumerable<string> folders = opener.Policy.ParentFolders.Prepend(Path.GetDirectoryName(image) ?? image)
            .Distinct(ImagePaths.Comparer);
        return [.. folders.SelectMany(f => files.FilesIn(f, endings, MostNearby)).Take(MostNearby)];
    }

    public async ValueTask<ReadOnlyMemory<byte>> StartAsync(string name, CancellationToken cancellationToken)
    {
        if (!starts.TryGetValue(name, out NearbyStart known))
        {
            known = await ReadAsync(name, cancellationToken).ConfigureAwait(false);
            _ = starts.TryAdd(name, known);
        }
        return known.Failure is { } failure
            ? throw new DiskImageException(failure.Kind, failure.Wording, failure.Path, failure.Offset, failure)
            : known.Bytes;
    }

    private async ValueTask<NearbyStart> ReadAsync(string name, CancellationToken cancellationToken)
    {
        try
        {
            BlockNode file = await open(name, null, cancellationToken).ConfigureAwait(false);
            await using (file.ConfigureAwait(false))
            {
                byte[] bytes = new byte[INearbyFiles.StartBytes];
                await file.ReadPaddedAsync(0, bytes, cancellationToken).ConfigureAwait(false);
                return new(bytes, null);
            }
        }
        catch (DiskImageException e)
        {
            return new(null, e);
        }
    }
}

/// <summary>What reading the start of a file gave.</summary>
/// <param name="Bytes">The bytes.</param>
/// <param name="Failure">Why there are none.</param>
internal readonly record struct NearbyStart(byte[]? Bytes, DiskImageException? Failure);
