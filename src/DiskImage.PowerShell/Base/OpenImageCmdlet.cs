using System.Management.Automation;
using DiskImage.Graph;

namespace DiskImage.PowerShell;

/// <summary>A cmdlet that opens each of the images it is given.</summary>
public abstract class OpenImageCmdlet : ImagePathCmdlet
{
    /// <summary>The images' format; probed if absent.</summary>
    [Parameter]
    [ArgumentCompleter(typeof(FormatNameCompleter))]
    [ValidateNotNullOrEmpty]
    public string? Format { get; set; }

    /// <summary>Options of the format for opening: a dictionary, or text <c>name=value,name=value</c>.</summary>
    [Parameter]
    [ArgumentCompleter(typeof(OpenOptionCompleter))]
    public object? OpenOption { get; set; }

    /// <summary>How far names that stand inside an image (backing file, data file) are followed.</summary>
    [Parameter]
    public ReferenceScope References { get; set; } = ReferenceScope.LocalFiles;

    /// <inheritdoc/>
    private protected override OpenPolicy Policy => OpenPolicy.Default with { References = References };

    /// <summary>Opens an image as the parameters say.</summary>
    private protected Task<OpenedImage> OpenAsync(
        string path, CancellationToken cancellationToken, bool withBacking = true, bool writable = false)
        => OpenAsync(
            new OpenRequest(path) { Format = Format, Options = OptionArgument.Unwrap(OpenOption), WithBacking = withBacking, Writable = writable },
            cancellationToken);
}
