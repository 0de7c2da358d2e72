using System.Management.Automation;
using DiskImage.Drivers;
using DiskImage.Graph;

namespace DiskImage.PowerShell;

/// <summary>A cmdlet that makes a new image from each of the images it is given.</summary>
public abstract class TargetImageCmdlet : ReadImageCmdlet, IDynamicParameters
{
    private RuntimeDefinedParameterDictionary? _formatParameters;

    /// <summary>Where the new image is to be.</summary>
    [Parameter(Mandatory = true, Position = 1, ValueFromPipelineByPropertyName = true)]
    [ValidateNotNullOrEmpty]
    public string Destination { get; set; } = "";

    /// <summary>The new image's format; by the destination's ending if absent.</summary>
    [Parameter]
    [ArgumentCompleter(typeof(TargetFormatNameCompleter))]
    [ValidateNotNullOrEmpty]
    public string? DestinationFormat { get; set; }

    /// <summary>Options of the new image's format.</summary>
    [Parameter]
    [ArgumentCompleter(typeof(CreateOptionCompleter))]
    public object? Option { get; set; }

    /// <summary>Replaces an existing file.</summary>
    [Parameter]
    public SwitchParameter Force { get; set; }

    /// <summary>The name of the format that other parameters stand for, where the user names none.</summary>
    private protected virtual string? ImpliedFormat => null;

    /// <inheritdoc/>
    public object? GetDynamicParameters()
        => _formatParameters = NewImageOptions.Parameters(TargetFormat.TryOf(DestinationFormat ?? ImpliedFormat, Destination), GetType());

    /// <summary>The destination as a full path or URI, and the new image's format.</summary>
    private protected async Task<(string Path, FormatDriver Format)> TargetAsync()
    {
        string path = await AskAsync(() => SessionPath.Literal(SessionState.Path, Destination)).ConfigureAwait(false);
        return (path, TargetFormat.Of(DestinationFormat ?? ImpliedFormat, path, nameof(DestinationFormat)));
    }

    /// <summary>The options that <see cref="Option"/> and the dynamic parameters give; the size and what else the cmdlet knows is to be added.</summary>
    private protected NewImageOptions OptionsOf(FormatDriver format)
    {
        var options = new NewImageOptions(format);
        options.Add(Option);
        options.Add(_formatParameters);
        return options;
    }

    /// <inheritdoc cref="DiskImageCmdlet.MakeAsync"/>
    private protected Task MakeAsync(
        string path, NewImageOptions options, string action, Func<NewImage, Task<DiskImageCopyStatistics?>> fill, CancellationToken cancellationToken)
        => MakeAsync(path, options, Force, _ => action, fill, cancellationToken);
}
