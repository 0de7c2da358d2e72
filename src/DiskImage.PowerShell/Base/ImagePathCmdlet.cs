using System.Management.Automation;
using DiskImage.Block;

namespace DiskImage.PowerShell;

/// <summary>A cmdlet that does the same to each of the images it is given.</summary>
public abstract class ImagePathCmdlet : SecretCmdlet
{
    /// <summary>The parameter set of paths with wildcards.</summary>
    protected const string PathSet = "Path";

    /// <summary>The parameter set of paths that are taken as they are.</summary>
    protected const string LiteralPathSet = "LiteralPath";

    /// <summary>The parameter set of images that are described, with a path or without.</summary>
    protected const string ImageOptionSet = "ImageOption";

    /// <summary>Images; wildcards are expanded.</summary>
    [Parameter(
        Mandatory = true, Position = 0, ParameterSetName = PathSet, ValueFromPipeline = true, ValueFromPipelineByPropertyName = true)]
    [Parameter(Position = 0, ParameterSetName = ImageOptionSet, ValueFromPipeline = true, ValueFromPipelineByPropertyName = true)]
    [Alias("ImagePath", "FullName", "PSPath")]
    [ValidateNotNullOrEmpty]
    [SupportsWildcards]
    public string[] Path { get; set; } = [];

    /// <summary>Images; nothing in the name is a wildcard.</summary>
    [Parameter(Mandatory = true, ParameterSetName = LiteralPathSet)]
    [Parameter(ParameterSetName = ImageOptionSet)]
    [ValidateNotNullOrEmpty]
    public string[] LiteralPath { get; set; } = [];

    /// <summary>What a path is to be opened as, where the user says more of it than its name.</summary>
    /// <param name="path">Its full path, URI or json: description; null if the user only describes the image.</param>
    /// <exception cref="DiskImageException">InvalidOption.</exception>
    private protected virtual string Described(string? path) => path!;

    /// <summary>Does the work for one image.</summary>
    /// <param name="path">Its full path, URI or json: description.</param>
    /// <param name="cancellationToken">Stops the work.</param>
    protected abstract Task ProcessImageAsync(string path, CancellationToken cancellationToken);

    /// <summary>A name that was given leads to nothing: its error is written, and the others go on without it.</summary>
    private protected bool IsAnyMissing { get; private set; }

    /// <summary>Does the work of a parameter set without images, where a cmdlet has one.</summary>
    protected virtual Task ProcessWithoutImageAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    /// <inheritdoc/>
    protected sealed override void ProcessRecord()
    {
        bool isDescribed = ParameterSetName.Equals(ImageOptionSet, StringComparison.Ordinal);
        if (!isDescribed && ParameterSetName is not (PathSet or LiteralPathSet))
        {
            Run(ProcessWithoutImageAsync);
            return;
        }
        var images = new List<string>();
        void Add(string? path, Func<IEnumerable<string>> find)
        {
            try
            {
                images.AddRange(find());
            }
            catch (DiskImageException e)
            {
                IsAnyMissing = true;
                WriteError(DiskImageError.Record(e, path));
            }
        }
        foreach (string path in Path)
        {
            Add(path, () => SessionPath.Expand(SessionState.Path, path).Select(Described));
        }
        foreach (string path in LiteralPath)
        {
            Add(path, () => [Described(SessionPath.Literal(SessionState.Path, path))]);
        }
        if (isDescribed && Path.Length == 0 && LiteralPath.Length == 0)
        {
            Add(null, () => [Described(null)]);
        }
        Run(cancellationToken => ProcessImagesAsync(images, cancellationToken));
    }

    /// <summary>Does the work for the images that came at once.</summary>
    private protected virtual Task ProcessImagesAsync(IReadOnlyList<string> images, CancellationToken cancellationToken)
        => ForEachAsync(images, image => RunItemAsync(image, () => ProcessImageAsync(image, cancellationToken)));
}
