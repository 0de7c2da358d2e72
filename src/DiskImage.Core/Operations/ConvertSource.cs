using DiskImage.Block;
using DiskImage.Graph;

namespace DiskImage.Operations;

/// <summary>
/// What a conversion reads: the disk of an image, a snapshot in it, or the disks of several images one behind the other. Disposing it
/// closes the images.
/// </summary>
public sealed class ConvertSource : IAsyncDisposable
{
    private readonly List<OpenedImage> _images = [];
    private DiskState? _state; // of the one image; null for several
    private BlockNode? _disk;

    /// <summary>The images, in order.</summary>
    public IReadOnlyList<OpenedImage> Images => _images;

    /// <summary>The image, or the first of several: what a copy keeps beside the bytes is taken from it.</summary>
    public OpenedImage First => _images[0];

    /// <summary>What is read; there is one after <see cref="SelectAsync"/>.</summary>
    public BlockNode Disk => _disk ?? throw new InvalidOperationException("No disk is selected.");

    /// <summary>What it is called in messages.</summary>
    public string Name => string.Join(" and ", _images.Select(i => i.Path));

    /// <summary>Takes an open image over, behind those that are there.</summary>
    public void Add(OpenedImage image) => _images.Add(image);

    /// <summary>Decides what is read of the images.</summary>
    /// <param name="snapshot">A snapshot's identifier or name; null for the present state.</param>
    /// <param name="cancellationToken">Stops it.</param>
    /// <exception cref="DiskImageException">
    /// InvalidOption: a snapshot of several images. OutOfRange: together they are too large. What <see cref="DiskState.OpenAsync"/> says.
    /// </exception>
    public async Task SelectAsync(string? snapshot, CancellationToken cancellationToken)
    {
        if (_images.Count > 1)
        {
            _disk = snapshot is null
                ? new JoinedNode([.. _images.Select(i => i.Node)])
                : throw new DiskImageException(
                    DiskImageErrorKind.InvalidOption,
                    $"{First.Path}: several images are joined in their present state, so without {new Remedy(RemedyKind.Snapshot)}.",
                    First.Path);
            return;
        }
        _state = await DiskState.OpenAsync(First, snapshot, cancellationToken).ConfigureAwait(false);
        _disk = _state.Disk;
    }

    /// <summary>From now on what cannot be read is zeroes.</summary>
    /// <param name="lost">Told of each such run: offset, length, why. May be called by several threads, and again for the same run.</param>
    public void Salvage(Action<long, long, DiskImageException> lost) => _disk = new SalvageNode(Disk, lost);

    /// <summary>The image that is, or is partly made of, the same file; null if none is.</summary>
    /// <param name="file">The file.</param>
    public OpenedImage? FindSame(NodeIdentity? file) => _images.Find(i => i.Node.FindSame(file) is not null);

    /// <inheritdoc/>
    public async ValueTask DisposeAsync()
    {
        IEnumerable<Func<ValueTask>> images = _images.Select<OpenedImage, Func<ValueTask>>(i => i.DisposeAsync);
        await Closing.AllAsync(_state is null ? images : images.Prepend(_state.DisposeAsync)).ConfigureAwait(false);
    }
}
