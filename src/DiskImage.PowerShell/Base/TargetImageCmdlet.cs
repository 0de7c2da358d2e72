using System.Management.Automation;
using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Graph;

namespace DiskImage.PowerShell;

/// <summary>A cmdlet that makes a new image from each of the images it is given.</summary>
public abstract class TargetImageCmdlet : ReadImageCmdlet, IDynamicParameters
{
    private const string StandardOutput = "-";

    private readonly List<(string Image, string Destination, string Path)> _waiting = []; // all with the same destination
    private RuntimeDefinedParameterDictionary? _formatParameters;

    /// <summary>Where the new image is to be.</summary>
    [Parameter(Mandatory = true, Position = 1, ValueFromPipelineByPropertyName = true)]
    [Alias("DestinationPath")]
    [ValidateNotNullOrEmpty]
    public string Destination { get; set; } = "";

    /// <summary>Takes the new image's bytes, in order; then the destination is only what it is called. It stays open.</summary>
    [Parameter]
    [ValidateNotNull]
    public Stream? DestinationStream { get; set; }

    /// <summary>The new image's format; by the destination's ending if absent.</summary>
    [Parameter]
    [ArgumentCompleter(typeof(TargetFormatNameCompleter))]
    [ValidateNotNullOrEmpty]
    public string? DestinationFormat { get; set; }

    /// <summary>Options of the new image's format.</summary>
    [Parameter]
    [ArgumentCompleter(typeof(CreateOptionCompleter))]
    public object? Option { get; set; }

    /// <summary>
    /// The secret of the new image, if it is to be encrypted: a SecureString or PSCredential, or a dictionary of these by name or path.
    /// </summary>
    [Parameter]
    [ValidateNotNull]
    public object? NewSecret { get; set; }

    /// <inheritdoc/>
    private protected sealed override object? GivenNewSecret => NewSecret;

    /// <summary>Replaces an existing file.</summary>
    [Parameter]
    public SwitchParameter Force { get; set; }

    /// <summary>With <see cref="Force"/>: writes into the existing file instead of putting a new one in its place.</summary>
    [Parameter]
    public SwitchParameter InPlace { get; set; }

    /// <summary>How the source is read, as <see cref="OpenImageCmdlet.CacheMode"/> says how the new image is written.</summary>
    [Parameter]
    public CacheMode SourceCacheMode { get; set; }

    /// <inheritdoc/>
    private protected sealed override CacheMode OpenedCacheMode => SourceCacheMode;

    /// <summary>True where the user has given a cache mode and it is not the one without flushes: then what is made is durable.</summary>
    private protected bool IsDurableByCacheMode
        => CacheMode != CacheMode.Unsafe && MyInvocation.BoundParameters.ContainsKey(nameof(CacheMode));

    /// <summary>Bytes of the source that are read a second at most; 0 for no limit.</summary>
    [Parameter]
    [ByteSize]
    [ValidateRange(0, long.MaxValue)]
    public long RateLimit { get; set; }

    /// <inheritdoc/>
    private protected sealed override OpenRequest Request(string path) => Limited(base.Request(path), RateLimit);

    /// <summary>False where the destination is there already, so that nothing is said of how a new image is made.</summary>
    private protected virtual bool MakesNew => true;

    /// <summary>True if all sources of one destination become it together.</summary>
    private protected virtual bool JoinsSources => false;

    /// <summary>The name of the format that other parameters stand for, where the user names none.</summary>
    private protected virtual string? ImpliedFormat => null;

    /// <inheritdoc/>
    public object? GetDynamicParameters()
        => _formatParameters = !MakesNew ? null
            : NewImageOptions.Parameters(TargetFormat.TryOf(DestinationFormat ?? ImpliedFormat, Destination), GetType());

    /// <summary>
    /// Where the destination is no folder, one source may have it: an image is worked on when the next one has come with another
    /// destination, or none comes any more. So several for one destination are refused before anything is written.
    /// </summary>
    private protected sealed override async Task ProcessImagesAsync(IReadOnlyList<string> images, CancellationToken cancellationToken)
    {
        string given = Destination;
        string? path = null;
        await RunItemAsync(given, async () => path = await LiteralAsync(given).ConfigureAwait(false)).ConfigureAwait(false);
        if (path is null)
        {
            return;
        }
        Introduce(path);
        if (_waiting.Count > 0 && (IsFolder(path) || !_waiting[0].Path.Equals(path, StringComparison.Ordinal)))
        {
            await ProcessWaitingAsync(cancellationToken).ConfigureAwait(false);
            Destination = given;
        }
        bool isFolder = IsFolder(path);
        ILookup<bool, string> waits = images.ToLookup(i => !isFolder && (JoinsSources || IsThere(i)));
        await base.ProcessImagesAsync([.. waits[false]], cancellationToken).ConfigureAwait(false);
        _waiting.AddRange(waits[true].Select(i => (i, given, path)));
    }

    /// <inheritdoc/>
    protected override void EndProcessing() => Run(ProcessWaitingAsync);

    /// <summary>True for a destination that the image is sent to: a pipe, standard output, a stream.</summary>
    private protected async Task<bool> IsSentAsync(string path, CancellationToken cancellationToken)
        => (await Creator(Opener, path).LookAsync(
            path, HowToMake(path, Force, InPlace), cancellationToken).ConfigureAwait(false)).Mode == TargetMode.Stream;

    /// <inheritdoc/>
    private protected sealed override ImageCreator Creator(ImageOpener opener, string path)
        => base.Creator(opener, path).Into(
            DestinationStream ?? (IsOutput(path) ? Console.OpenStandardOutput() : null), CachePolicy.Of(CacheMode));

    /// <summary>Standard output has the image and nothing else.</summary>
    private protected sealed override ValueTask OutputSentAsync(DiskImageInfo info)
        => DestinationStream is null && IsOutput(info.Path) ? default : base.OutputSentAsync(info);

    private static bool IsOutput(string path) => path.Equals(StandardOutput, StringComparison.Ordinal);

    private ValueTask<string> LiteralAsync(string destination)
        => IsOutput(destination) ? new(destination) : new(AskAsync(() => SessionPath.Literal(SessionState.Path, destination)));

    /// <summary>
    /// Workers of a copy; 0 for as many as suit the machine. Where the same work is to give the same bytes there is one: several take
    /// places in VHD, VHDX and VDI images in the order in which they come. Spec: SOURCE_DATE_EPOCH, reproducible-builds.org.
    /// </summary>
    private protected static int Workers => string.IsNullOrEmpty(Environment.GetEnvironmentVariable("SOURCE_DATE_EPOCH")) ? 0 : 1;

    /// <summary>Does the work for several images that become one.</summary>
    /// <param name="paths">Their full paths, URIs or json: descriptions, in order.</param>
    /// <param name="cancellationToken">Stops the work.</param>
    private protected virtual Task ProcessJoinedAsync(IReadOnlyList<string> paths, CancellationToken cancellationToken)
        => throw new NotSupportedException();

    /// <summary>True if images are made in the destination, not as the destination.</summary>
    private protected virtual bool IsFolder(string destination) => false;

    /// <summary>False for a source that is an error and nothing else, so it becomes no destination.</summary>
    private bool IsThere(string image)
    {
        try
        {
            return Opener.IdentityOf(image) is not null;
        }
        catch (DiskImageException)
        {
            return false;
        }
    }

    private async Task ProcessWaitingAsync(CancellationToken cancellationToken)
    {
        (string Image, string Destination, string Path)[] waiting = [.. _waiting];
        _waiting.Clear();
        if (JoinsSources && waiting.Length > 0)
        {
            (_, Destination, string joined) = waiting[0];
            await RunItemAsync(
                joined,
                () => !IsAnyMissing
                    ? ProcessJoinedAsync([.. waiting.Select(w => w.Image)], cancellationToken)
                    : throw new DiskImageException(
                        DiskImageErrorKind.NotFound,
                        $"{joined}: one of the sources is not there, so what they are together is not known. Nothing is written.",
                        joined)).ConfigureAwait(false);
            return;
        }
        foreach ((string image, string given, string path) in waiting)
        {
            Destination = given; // bound anew for each object of the pipeline
            await RunItemAsync(
                image,
                () => waiting.Length == 1
                    ? ProcessImageAsync(image, cancellationToken)
                    : throw new DiskImageException(
                        DiskImageErrorKind.InvalidOption,
                        $"{path}: is no folder, and {waiting.Length:#,0} sources are to become it. Nothing is written. "
                        + "Give a folder as -Destination, with -DestinationFormat, or a script block that makes a name of each.",
                        path)).ConfigureAwait(false);
        }
    }

    /// <summary>The destination as a full path or URI.</summary>
    private protected ValueTask<string> DestinationAsync() => LiteralAsync(Destination);

    /// <summary>The destination as a full path or URI, and the new image's format.</summary>
    private protected async Task<(string Path, FormatDriver Format)> TargetAsync()
    {
        string path = await DestinationAsync().ConfigureAwait(false);
        return (path, TargetFormat.Of(DestinationFormat ?? ImpliedFormat, path, nameof(DestinationFormat)));
    }

    /// <summary>
    /// The options that <see cref="Option"/> and the dynamic parameters give; the size and what else the cmdlet knows is to be added.
    /// </summary>
    private protected NewImageOptions OptionsOf(string path, FormatDriver format)
    {
        var options = new NewImageOptions(format, Opener.StorageOptionsOf(path));
        options.Add(Option);
        options.Add(_formatParameters);
        return options;
    }

    /// <inheritdoc cref="DiskImageCmdlet.MakeAsync"/>
    private protected Task MakeAsync(
        string path,
        NewImageOptions options,
        string action,
        Func<NewImage, Task<DiskImageCopyStatistics?>> fill,
        CancellationToken cancellationToken)
        => MakeAsync(path, options, HowToMake(path, Force, InPlace), _ => action, fill, cancellationToken);

    /// <summary>Throws if the target is a file that the source is made of, by whatever name: it would be lost.</summary>
    /// <exception cref="DiskImageException">InvalidOption.</exception>
    private protected void RequireOther(OpenedImage source, string target) => RequireOther(source, target, Opener.IdentityOf(target));

    /// <inheritdoc cref="RequireOther(OpenedImage, string)"/>
    private protected static void RequireOther(OpenedImage source, string target, NodeIdentity? identity)
    {
        if (source.Node.FindSame(identity) is { } same)
        {
            string what = same.Identity == source.Node.HolderIdentity() ? "the source itself" : $"part of the source {source.Path}";
            throw new DiskImageException(DiskImageErrorKind.InvalidOption, $"{target}: is {what}. Choose another destination.", target);
        }
    }
}
