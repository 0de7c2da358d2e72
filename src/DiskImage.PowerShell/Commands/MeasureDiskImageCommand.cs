using System.Management.Automation;
using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Graph;
using DiskImage.Operations;

namespace DiskImage.PowerShell;

/// <summary><c>Measure-DiskImage</c>: how large an image would become, before it is made.</summary>
[Cmdlet(VerbsDiagnostic.Measure, "DiskImage", DefaultParameterSetName = PathSet)]
[OutputType(typeof(DiskImageMeasurement))]
public sealed class MeasureDiskImageCommand : ReadImageCmdlet, IDynamicParameters
{
    private const string SizeSet = "Size";
    private const string DefaultFormat = "qcow2";

    private RuntimeDefinedParameterDictionary? _formatParameters;

    /// <summary>The size of an empty disk to measure for.</summary>
    [Parameter(Mandatory = true, ParameterSetName = SizeSet)]
    [Alias("SizeBytes")]
    [ByteSize]
    [ValidateRange(0, long.MaxValue)]
    public long Size { get; set; }

    /// <summary>The format to measure for; qcow2 if absent.</summary>
    [Parameter]
    [ArgumentCompleter(typeof(TargetFormatNameCompleter))]
    [ValidateNotNullOrEmpty]
    public string? DestinationFormat { get; set; }

    /// <summary>Options of that format.</summary>
    [Parameter]
    [ArgumentCompleter(typeof(CreateOptionCompleter))]
    public object? Option { get; set; }

    /// <summary>Measures the state that a snapshot inside the image keeps, by its identifier or name, instead of the present one.</summary>
    [Parameter(ParameterSetName = PathSet)]
    [Parameter(ParameterSetName = LiteralPathSet)]
    [Parameter(ParameterSetName = ImageOptionSet)]
    [ArgumentCompleter(typeof(SnapshotNameCompleter))]
    [ValidateNotNullOrEmpty]
    public string? Snapshot { get; set; }

    /// <inheritdoc/>
    public object? GetDynamicParameters()
    {
        // Nothing is given where the cmdlet is only described: then no format's options belong to it.
        bool isCalled = DestinationFormat is not null || Path.Length > 0 || LiteralPath.Length > 0 || ImageOption is not null || Size > 0
            || MyInvocation.ExpectingInput;
        return _formatParameters = isCalled
            ? NewImageOptions.Parameters(TargetFormat.TryOf(DestinationFormat ?? DefaultFormat, null), GetType()) : null;
    }

    /// <inheritdoc/>
    protected override Task ProcessWithoutImageAsync(CancellationToken cancellationToken)
        => RunItemAsync(Size, () => MeasureAsync(null, null, Size, cancellationToken));

    /// <inheritdoc/>
    protected override async Task ProcessImageAsync(string path, CancellationToken cancellationToken)
    {
        OpenedImage image = await OpenAsync(path, cancellationToken).ConfigureAwait(false);
        await using (image.ConfigureAwait(false))
        {
            DiskState state = await DiskState.OpenAsync(image, Snapshot, cancellationToken).ConfigureAwait(false);
            await using (state.ConfigureAwait(false))
            {
                await MeasureAsync(image.Path, state.Disk, state.Disk.Length, cancellationToken).ConfigureAwait(false);
            }
        }
    }

    private async Task MeasureAsync(string? path, BlockNode? source, long size, CancellationToken cancellationToken)
    {
        FormatDriver format = DiskImageCmdlet.Registry.Format(DestinationFormat ?? DefaultFormat);
        IMeasurable measurable = format as IMeasurable
            ?? throw new DiskImageException(
                DiskImageErrorKind.Unsupported, $"How large an image of format '{format.Name}' would become is not known ahead.", path);
        var options = new NewImageOptions(format);
        options.Add(Option);
        options.Add(_formatParameters);
        options.Add(nameof(ICreateOptions.Size), size, source is null ? nameof(Size) : nameof(Path));
        ImageMeasurement measured = await measurable.MeasureAsync(options.Bind(), source, cancellationToken).ConfigureAwait(false);
        await OutputAsync(new DiskImageMeasurement(
            path, format.Name, size, measured.Required, measured.FullyAllocated, measured.Bitmaps)).ConfigureAwait(false);
    }
}
