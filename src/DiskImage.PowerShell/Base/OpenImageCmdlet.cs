using System.Management.Automation;
using DiskImage.Block;
using DiskImage.Graph;
using DiskImage.Options;

namespace DiskImage.PowerShell;

/// <summary>A cmdlet that opens each of the images it is given.</summary>
public abstract class OpenImageCmdlet : ImagePathCmdlet
{
    private IReadOnlyList<string> _parentFolders = [];

    /// <summary>What a chain may have at most: opening and reading one takes stack for each of its images.</summary>
    internal const int MostImages = 1000;

    /// <summary>The images' format; probed if absent.</summary>
    [Parameter]
    [ArgumentCompleter(typeof(FormatNameCompleter))]
    [ValidateNotNullOrEmpty]
    public string? Format { get; set; }

    /// <summary>Options of the format for opening: a dictionary, or text <c>name=value,name=value</c>.</summary>
    [Parameter]
    [ArgumentCompleter(typeof(OpenOptionCompleter))]
    public object? OpenOption { get; set; }

    /// <summary>
    /// Options of any node that the image consists of, by dotted names (<c>driver=qcow2,file.filename=a.qcow2,file.locking=off</c>) or as a
    /// dictionary of dictionaries; with a path, beside it, else instead of it.
    /// </summary>
    [Parameter(ParameterSetName = ImageOptionSet, Mandatory = true)]
    [Alias("ImageOpts")]
    [ValidateNotNullOrEmpty]
    public object? ImageOption { get; set; }

    /// <summary>How far names that stand inside an image (backing file, data file) are followed, to read and to write.</summary>
    [Parameter]
    public ReferenceScope References { get; set; } = ReferenceScope.SameFolder;

    /// <summary>Images in one chain at most, the first included.</summary>
    [Parameter]
    [ValidateRange(1, MostImages)]
    public int MaximumChainDepth { get; set; } = OpenPolicy.Default.MaximumDepth;

    /// <summary>
    /// Takes a parent that is not the one a differencing disk records, or was written to since, in every image of a chain.
    /// </summary>
    [Parameter]
    public SwitchParameter IgnoreIdMismatch { get; set; }

    /// <summary>
    /// Folders in which parents are looked for that are not where a differencing disk says, or that it records without a path.
    /// </summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    public string[] ParentSearchPath { get; set; } = [];

    /// <summary>
    /// Whether images are locked as QEMU locks them, and the locks of others heeded: where the file system can, always, or not at all.
    /// </summary>
    [Parameter]
    public ImageLocking Locking { get; set; }

    /// <summary>
    /// The user and password for the web or SSH server that an image's URL names; what an image names is not told them.
    /// </summary>
    [Parameter]
    [ValidateNotNull]
    [Credential]
    public PSCredential? Credential { get; set; }

    /// <summary>How reads and writes go to the medium: through the host's cache or past it, flushed when, or never.</summary>
    [Parameter]
    public CacheMode CacheMode { get; set; }

    /// <summary>Allows disks of this machine to be written to. All that they hold may be lost.</summary>
    [Parameter]
    public SwitchParameter AllowDeviceWrite { get; set; }

    /// <inheritdoc/>
    private protected override OpenPolicy Policy => OpenPolicy.Default with
    {
        References = References,
        MaximumDepth = MaximumChainDepth,
        IgnoreIdMismatch = IgnoreIdMismatch,
        ForceShare = ReadsAlongWriters,
        Locking = Locking,
        AllowDeviceWrite = AllowDeviceWrite,
        Cache = CachePolicy.Of(OpenedCacheMode),
        ParentFolders = _parentFolders,
    };

    /// <inheritdoc/>
    protected override void BeginProcessing()
    {
        base.BeginProcessing();
        _parentFolders = SessionPath.Folders(SessionState.Path, ParentSearchPath);
    }

    /// <summary>The cache mode of images that are opened.</summary>
    private protected virtual CacheMode OpenedCacheMode => CacheMode;

    /// <summary>True if the user has images read though others may be writing to them.</summary>
    private protected virtual bool ReadsAlongWriters => false;

    /// <inheritdoc/>
    private protected sealed override string Described(string? path)
        => ImageOption is null ? base.Described(path) : Described(ImageOption, path);

    /// <summary>What a path is to be opened as, where more is said of it; without a path what is said is all.</summary>
    /// <exception cref="DiskImageException">InvalidOption.</exception>
    private protected string Described(object option, string? path)
    {
        NodeSpec said = NodeSpec.From(OptionSchema.Values(OptionArgument.Unwrap(option)));
        return (path is null ? said : Opener.Join(said, ImageLocator.Parse(path).Spec)).ToString();
    }

    /// <summary>The same with so many bytes read a second at most; 0 for no limit.</summary>
    private protected OpenRequest Limited(OpenRequest request, long rate) => rate == 0 ? request : request with
    {
        Locator = Opener.Join(NodeSpec.Of("throttle", ("bps-read", rate)), ImageLocator.Parse(request.Locator).Spec).ToString(),
    };

    /// <summary>A request to open an image as the parameters say, read-only and with what it stands on.</summary>
    private protected virtual OpenRequest Request(string path)
    {
        Introduce(path);
        return new(path) { Format = Format, Options = OptionArgument.Unwrap(OpenOption) };
    }

    /// <summary>Gives the credential for the server that an image's URL names, if it has one.</summary>
    private protected void Introduce(string path) => Introduce(path, Credential);

    /// <summary>Opens an image as the parameters say.</summary>
    private protected Task<OpenedImage> OpenAsync(
        string path, CancellationToken cancellationToken, bool withBacking = true, bool writable = false)
        => OpenAsync(Request(path) with { WithBacking = withBacking, Writable = writable }, cancellationToken);

    /// <summary>Opens this layer of an image read-only, looks at it and closes it again.</summary>
    /// <typeparam name="T">What is found.</typeparam>
    /// <param name="path">The image.</param>
    /// <param name="look">Looks.</param>
    /// <param name="cancellationToken">Stops it.</param>
    /// <param name="beforeWriting">The image is to be changed next: what speaks against that is said before the user is asked.</param>
    private protected async Task<T> LookAsync<T>(
        string path, Func<OpenedImage, ValueTask<T>> look, CancellationToken cancellationToken, bool beforeWriting = false)
    {
        OpenedImage image = await OpenAsync(
            Request(path) with { WithBacking = false, BeforeWriting = beforeWriting }, cancellationToken).ConfigureAwait(false);
        await using (image.ConfigureAwait(false))
        {
            return await look(image).ConfigureAwait(false);
        }
    }

    /// <summary>
    /// Opens an image for writing with what it stands on, or alone, changes it and closes it: then the change survives a power cut.
    /// </summary>
    private protected async Task<T> ChangeAsync<T>(
        string path, Func<OpenedImage, ValueTask<T>> change, CancellationToken cancellationToken, bool withBacking = true)
    {
        OpenedImage image = await OpenAsync(path, cancellationToken, withBacking, writable: true).ConfigureAwait(false);
        await using (image.ConfigureAwait(false))
        {
            T result = await change(image).ConfigureAwait(false);
            await image.Node.FlushAsync(cancellationToken).ConfigureAwait(false);
            return result;
        }
    }

    /// <summary>Describes an image as it is now: for <c>-PassThru</c>.</summary>
    private protected async Task DescribeAsync(string path, CancellationToken cancellationToken)
        => await OutputAsync(await LookAsync(
            path,
            async image => await DiskImageInfo.OfAsync(image.Node, cancellationToken).ConfigureAwait(false),
            cancellationToken).ConfigureAwait(false)).ConfigureAwait(false);
}
