using System.Management.Automation;
using DiskImage.Block;
using DiskImage.Graph;
using DiskImage.Operations;

namespace DiskImage.PowerShell;

/// <summary>A cmdlet about the dirty bitmaps inside images.</summary>
public abstract class BitmapCmdlet : OpenImageCmdlet
{
    /// <summary>The ability to list them, or an error that names the format.</summary>
    private protected static IBitmapList Listed(OpenedImage image) => image.Require<IBitmapList>("keep no dirty bitmaps");

    /// <summary>The ability, or an error that names the format.</summary>
    private protected static IBitmaps Bitmaps(OpenedImage image) => image.Require<IBitmaps>("keep no dirty bitmaps that can be changed");

    /// <summary>
    /// The bitmaps of an image with the image's full path, and the files that a change of it writes to. The image is closed again.
    /// </summary>
    private protected Task<(string Path, string Files, IReadOnlyList<DiskBitmap> Bitmaps)> ListAsync(
        string path, CancellationToken cancellationToken)
        => LookAsync(
            path,
            async image => (
                image.Path, WrittenFiles.Of(image), await Listed(image).GetBitmapsAsync(cancellationToken).ConfigureAwait(false)),
            cancellationToken);

    /// <summary>The bitmaps that names or patterns stand for.</summary>
    /// <exception cref="DiskImageException">NotFound: one without wildcards stands for none.</exception>
    private protected static IReadOnlyList<DiskBitmap> Select(string path, IReadOnlyList<DiskBitmap> bitmaps, string[] names)
    {
        var chosen = new HashSet<string>(StringComparer.Ordinal);
        foreach (string name in names)
        {
            if (bitmaps.Any(b => b.Name.Equals(name, StringComparison.Ordinal)))
            {
                _ = chosen.Add(name);
            }
            else if (WildcardPattern.ContainsWildcardCharacters(name))
            {
                var pattern = WildcardPattern.Get(name, WildcardOptions.None);
                chosen.UnionWith(bitmaps.Select(b => b.Name).Where(pattern.IsMatch));
            }
            else
            {
                string known = bitmaps.Count == 0 ? "It has none." : $"It has: {string.Join(", ", bitmaps.Take(20).Select(b => b.Name))}.";
                throw new DiskImageException(DiskImageErrorKind.NotFound, $"{path}: has no bitmap '{name}'. {known}", path);
            }
        }
        return [.. bitmaps.Where(b => chosen.Contains(b.Name))];
    }
}

/// <summary>A cmdlet that does the same to each of the bitmaps it is given.</summary>
public abstract class ChangeBitmapCmdlet : BitmapCmdlet
{
    /// <summary>Names of bitmaps; wildcards are expanded.</summary>
    [Parameter(Mandatory = true, Position = 1, ValueFromPipelineByPropertyName = true)]
    [ArgumentCompleter(typeof(BitmapNameCompleter))]
    [SupportsWildcards]
    [ValidateNotNullOrEmpty]
    public string[] Name { get; set; } = [];

    /// <summary>What is done, before the bitmap's name.</summary>
    private protected abstract string Action { get; }

    /// <summary>True if it has been done to such a bitmap already.</summary>
    private protected virtual bool IsDone(DiskBitmap bitmap) => false;

    /// <summary>Does it.</summary>
    private protected abstract ValueTask ChangeAsync(IBitmaps bitmaps, string name, CancellationToken cancellationToken);

    /// <inheritdoc/>
    protected override async Task ProcessImageAsync(string path, CancellationToken cancellationToken)
    {
        string[] wanted = Name;
        (string name, string files, IReadOnlyList<DiskBitmap> present) = await ListAsync(path, cancellationToken).ConfigureAwait(false);
        IReadOnlyList<DiskBitmap> chosen = Select(name, present, wanted);
        var agreed = new List<DiskBitmap>();
        foreach (DiskBitmap bitmap in chosen)
        {
            if (IsDone(bitmap))
            {
                await VerboseAsync($"{name}: nothing to do for bitmap '{bitmap.Name}'").ConfigureAwait(false);
            }
            else if (await ConfirmAsync(files, $"{Action} bitmap '{bitmap.Name}'").ConfigureAwait(false))
            {
                agreed.Add(bitmap);
            }
        }
        if (agreed.Count > 0)
        {
            _ = await ChangeAsync(
                path,
                async image =>
                {
                    foreach (DiskBitmap bitmap in agreed)
                    {
                        await ChangeAsync(Bitmaps(image), bitmap.Name, cancellationToken).ConfigureAwait(false);
                    }
                    return agreed.Count;
                },
                cancellationToken).ConfigureAwait(false);
        }
    }
}
