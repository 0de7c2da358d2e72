using System.Management.Automation;
using DiskImage.Block;

namespace DiskImage.PowerShell;

/// <summary>A cmdlet that does the same to each of the images it is given.</summary>
public abstract class ImagePathCmdlet : DiskImageCmdlet
{
    /// <summary>The parameter set of paths with wildcards.</summary>
    protected const string PathSet = "Path";

    /// <summary>The parameter set of paths that are taken as they are.</summary>
    protected const string LiteralPathSet = "LiteralPath";

    /// <summary>Images; wildcards are expanded.</summary>
    [Parameter(Mandatory = true, Position = 0, ParameterSetName = PathSet, ValueFromPipeline = true, ValueFromPipelineByPropertyName = true)]
    [Alias("ImagePath", "FullName", "PSPath")]
    [ValidateNotNullOrEmpty]
    [SupportsWildcards]
    public string[] Path { get; set; } = [];

    /// <summary>Images; nothing in the name is a wildcard.</summary>
    [Parameter(Mandatory = true, ParameterSetName = LiteralPathSet)]
    [ValidateNotNullOrEmpty]
    public string[] LiteralPath { get; set; } = [];

    /// <summary>Does the work for one image.</summary>
    /// <param name="path">Its full path, URI or json: description.</param>
    /// <param name="cancellationToken">Stops the work.</param>
    protected abstract Task ProcessImageAsync(string path, CancellationToken cancellationToken);

    /// <summary>Does the work of a parameter set without images, where a cmdlet has one.</summary>
    protected virtual Task ProcessWithoutImageAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    /// <inheritdoc/>
    protected sealed override void ProcessRecord()
    {
        if (ParameterSetName is not (PathSet or LiteralPathSet))
        {
            Run(ProcessWithoutImageAsync);
            return;
        }
        var images = new List<string>();
        bool literal = ParameterSetName.Equals(LiteralPathSet, StringComparison.Ordinal);
        foreach (string path in literal ? LiteralPath : Path)
        {
            try
            {
                images.AddRange(literal ? [SessionPath.Literal(SessionState.Path, path)] : SessionPath.Expand(SessionState.Path, path));
            }
            catch (DiskImageException e)
            {
                WriteError(DiskImageError.Record(e, path));
            }
        }
        Run(cancellationToken => ProcessImagesAsync(images, cancellationToken));
    }

    /// <summary>Does the work for the images that came at once.</summary>
    private protected virtual Task ProcessImagesAsync(IReadOnlyList<string> images, CancellationToken cancellationToken)
        => ForEachAsync(images, image => RunItemAsync(image, () => ProcessImageAsync(image, cancellationToken)));
}
