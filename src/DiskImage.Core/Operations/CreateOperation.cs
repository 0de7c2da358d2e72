using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Graph;
using DiskImage.Jobs;

namespace DiskImage.Operations;

/// <summary>Makes a new image: first looks where it is to be, then, if that is wanted, makes it.</summary>
/// <param name="front">Who asks.</param>
/// <param name="opener">Admits what the user named for the image: its backing and data file (<see cref="ImageOpener.Naming"/>).</param>
/// <param name="creator">Makes it.</param>
/// <param name="target">What it is to be.</param>
public sealed class CreateOperation(IFrontEnd front, ImageOpener opener, ImageCreator creator, CreateRequest target)
{
    /// <summary>
    /// The files that will be written, for whoever is asked to agree. Says what a replacement does to other names of a file.
    /// </summary>
    /// <exception cref="DiskImageException">AlreadyExists, AccessDenied and the like: the place cannot be taken so.</exception>
    public async Task<string> LookAsync(CancellationToken cancellationToken)
    {
        StoragePlace place = await creator.LookAsync(
            target.Path, target.Format, target.Options, target.Mode, cancellationToken).ConfigureAwait(false);
        if (place.OtherNames > 0)
        {
            await front.WarnAsync(
                $"{place.Locator}: has {place.OtherNames:#,0} other {(place.OtherNames == 1 ? "name" : "names")} (hard links). "
                + $"They keep the old image; only this name gets the new one. With {new Remedy(RemedyKind.InPlace)} all of them do.")
                .ConfigureAwait(false);
        }
        return target.Options is ICreateOptions { DataFile: { Length: > 0 } data }
            ? WrittenFiles.Text(target.Path, [opener.Policy.Admit(data, target.Path).Address])
            : target.Path;
    }

    /// <summary>Makes it, open for writing, under a name of its own until it is completed. Disposed before, it leaves nothing.</summary>
    public Task<NewImage> RunAsync(CancellationToken cancellationToken) => front.ShowAsync(
        $"Making {ByteText.Leaf(target.Path)}",
        progress => creator.CreateAsync(
            target.Path,
            target.Format,
            target.Options,
            target.Mode,
            openOptions: null,
            new ByteProgress("Claiming space", progress, (target.Options as ICreateOptions)?.Size ?? 0),
            cancellationToken).AsTask());
}

/// <summary>What a new image is to be.</summary>
/// <param name="Path">Its full path or URI.</param>
/// <param name="Format">Its format.</param>
/// <param name="Options">The record of the format's create options.</param>
/// <param name="Mode">How it takes its place.</param>
public sealed record CreateRequest(string Path, FormatDriver Format, object Options, TargetMode Mode);
