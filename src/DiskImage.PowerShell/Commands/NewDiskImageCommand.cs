using System.Management.Automation;
using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Graph;

namespace DiskImage.PowerShell;

/// <summary><c>New-DiskImage</c>: makes an empty disk image.</summary>
[Cmdlet(VerbsCommon.New, "DiskImage", SupportsShouldProcess = true)]
[OutputType(typeof(DiskImageInfo))]
public sealed class NewDiskImageCommand : SecretCmdlet, IDynamicParameters
{
    private RuntimeDefinedParameterDictionary? _formatParameters;
    private IReadOnlyList<string> _parentFolders = [];

    /// <summary>Where the images are to be. Not a wildcard pattern.</summary>
    [Parameter(Mandatory = true, Position = 0, ValueFromPipeline = true, ValueFromPipelineByPropertyName = true)]
    [Alias("ImagePath", "FullName", "PSPath")]
    [ValidateNotNullOrEmpty]
    public string[] Path { get; set; } = [];

    /// <summary>The disk's size; the backing image's if absent.</summary>
    [Parameter(Position = 1, ValueFromPipelineByPropertyName = true)]
    [Alias("SizeBytes")]
    [ByteSize]
    [ValidateRange(0, long.MaxValue)]
    public long? Size { get; set; }

    /// <summary>The format; by the path's ending if absent.</summary>
    [Parameter]
    [ArgumentCompleter(typeof(TargetFormatNameCompleter))]
    [ValidateNotNullOrEmpty]
    public string? Format { get; set; }

    /// <summary>Makes an image that a service or program takes: its format, options and size.</summary>
    [Parameter]
    [ArgumentCompleter(typeof(ProfileNameCompleter))]
    [ValidateNotNullOrEmpty]
    public string? Profile { get; set; }

    /// <summary>Options of the format.</summary>
    [Parameter]
    [ArgumentCompleter(typeof(CreateOptionCompleter))]
    public object? Option { get; set; }

    /// <summary>The backing image, as it is to be named in the new one: relative to the new image's folder.</summary>
    [Parameter]
    [Alias("ParentPath", "BackingFile")]
    [ValidateNotNullOrEmpty]
    public string? BackingPath { get; set; }

    /// <summary>The backing image's format; probed and recorded if absent.</summary>
    [Parameter]
    [ArgumentCompleter(typeof(FormatNameCompleter))]
    [ValidateNotNullOrEmpty]
    public string? BackingFormat { get; set; }

    /// <summary>Does not look at the backing image: it need not be there yet. Its format and the size are then to be given.</summary>
    [Parameter]
    public SwitchParameter Unsafe { get; set; }

    /// <summary>A VHD or VHDX whose space is all there from the start.</summary>
    [Parameter]
    public SwitchParameter Fixed { get; set; }

    /// <summary>A VHD or VHDX that grows as it is written to.</summary>
    [Parameter]
    public SwitchParameter Dynamic { get; set; }

    /// <summary>A VHD or VHDX that stores what differs from its parent, the backing image.</summary>
    [Parameter]
    public SwitchParameter Differencing { get; set; }

    /// <summary>How far names that stand in the backing image are followed. The names given here are always followed.</summary>
    [Parameter]
    public ReferenceScope References { get; set; } = ReferenceScope.SameFolder;

    /// <summary>Images in one chain at most, the first included.</summary>
    [Parameter]
    [ValidateRange(1, OpenImageCmdlet.MostImages)]
    public int MaximumChainDepth { get; set; } = OpenPolicy.Default.MaximumDepth;

    /// <summary>Takes a parent below the backing image that is not the one it records, or was written to since.</summary>
    [Parameter]
    public SwitchParameter IgnoreIdMismatch { get; set; }

    /// <summary>
    /// Folders in which parents below the backing image are looked for that are recorded without a path (VDI), beside its own.
    /// </summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    public string[] ParentSearchPath { get; set; } = [];

    /// <summary>
    /// The secret of the new image, if it is to be encrypted: a SecureString or PSCredential, or a dictionary of these by name or path.
    /// </summary>
    [Parameter]
    [ValidateNotNull]
    public object? NewSecret { get; set; }

    /// <inheritdoc/>
    private protected override object? GivenNewSecret => NewSecret;

    /// <summary>
    /// Whether images are locked as QEMU locks them, and the locks of others heeded: where the file system can, always, or not at all.
    /// </summary>
    [Parameter]
    public ImageLocking Locking { get; set; }

    /// <summary>Allows the image to be made in a disk of this machine. All that the disk holds may be lost.</summary>
    [Parameter]
    public SwitchParameter AllowDeviceWrite { get; set; }

    /// <summary>The user and password for the SSH server that the new image's URL names.</summary>
    [Parameter]
    [ValidateNotNull]
    [Credential]
    public PSCredential? Credential { get; set; }

    /// <summary>Replaces an existing file.</summary>
    [Parameter]
    public SwitchParameter Force { get; set; }

    /// <summary>With <see cref="Force"/>: writes into the existing file instead of putting a new one in its place.</summary>
    [Parameter]
    public SwitchParameter InPlace { get; set; }

    /// <inheritdoc/>
    private protected override bool IsBackingUnseen => Unsafe;

    /// <inheritdoc/>
    private protected override OpenPolicy Policy => OpenPolicy.Default with
    {
        References = References,
        MaximumDepth = MaximumChainDepth,
        IgnoreIdMismatch = IgnoreIdMismatch,
        ParentFolders = _parentFolders,
        Locking = Locking,
        AllowDeviceWrite = AllowDeviceWrite,
    };

    /// <inheritdoc/>
    protected override void BeginProcessing()
    {
        base.BeginProcessing();
        _parentFolders = SessionPath.Folders(SessionState.Path, ParentSearchPath);
    }

    /// <inheritdoc/>
    public object? GetDynamicParameters()
        => _formatParameters = NewImageOptions.Parameters(
            TargetFormat.TryOf(Format ?? ImageProfile.TryFind(Profile)?.Format, Path.FirstOrDefault()), GetType());

    /// <inheritdoc/>
    protected override void ProcessRecord() => Run(cancellationToken => ForEachAsync(Path, async given =>
    {
        string? path = null;
        await RunItemAsync(
            given,
            async () => path = await AskAsync(
                () => SessionPath.Literal(SessionState.Path, given)).ConfigureAwait(false)).ConfigureAwait(false);
        if (path is not null)
        {
            Introduce(path, Credential);
            await RunItemAsync(path, () => CreateAsync(path, cancellationToken)).ConfigureAwait(false);
        }
    }));

    private async Task CreateAsync(string path, CancellationToken cancellationToken)
    {
        ImageProfile? profile = ImageProfile.Find(Profile);
        var options = new NewImageOptions(
            TargetFormat.Of(Format ?? profile?.Format, path, nameof(Format)), Opener.StorageOptionsOf(path));
        profile?.Require(path, options.Format, nameof(Format));
        options.Add(Option);
        options.Add(_formatParameters);
        options.Add(nameof(ICreateOptions.Size), Size, nameof(Size));
        string? backingPath = await AskAsync(() => BackingPath is null
            ? null
            : SessionPath.Backing(SessionState, BackingPath)).ConfigureAwait(false);
        options.AddBacking(backingPath, BackingFormat);
        options.Add(GivenVhdType.Of(Fixed, Dynamic, Differencing));
        options.Add(profile);
        BackingReference? backing = await options.ResolveBackingAsync(
            Opener, path, Folder, Unsafe, cancellationToken).ConfigureAwait(false);
        if (backing is not null && !Unsafe)
        {
            await TellBackingAsync(path, options, backing).ConfigureAwait(false);
        }
        if (options.Given(nameof(ICreateOptions.Size)) is null)
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"{path}: a new disk needs a size. Give -Size, or -BackingPath "
                    + "to take it from there (not with -Unsafe).",
                path);
        }
        if (profile is not null)
        {
            await FitAsync(path, options, profile).ConfigureAwait(false);
        }
        await MakeAsync(
            path,
            options,
            HowToMake(path, Force, InPlace),
            record => $"Create {options.Format.Name} image of {ReadableSize.Of((record as ICreateOptions)?.Size)}",
            async image =>
            {
                await image.CompleteAsync(durable: false, cancellationToken).ConfigureAwait(false);
                return null;
            },
            cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Rounds the size up to what the profile takes. A size that is none is left for the format to refuse.</summary>
    private async Task FitAsync(string path, NewImageOptions options, ImageProfile profile)
    {
        if (options.Bind() is ICreateOptions { Size: long size })
        {
            options.SetMember(nameof(ICreateOptions.Size), profile.SizeOf(size));
            await WarnOfProfileAsync(path, profile, size).ConfigureAwait(false);
        }
    }

    /// <summary>Says what the image stands on, and takes its size from there if none was given.</summary>
    private async Task TellBackingAsync(string path, NewImageOptions options, BackingReference backing)
    {
        await VerboseAsync($"{path}: stands on {backing.Name} ({backing.Format}{(backing.WasProbed ? ", recognised" : "")}), "
            + $"{ReadableSize.WithBytes(backing.Length)}").ConfigureAwait(false);
        if (options.Given(nameof(ICreateOptions.Size)) is null)
        {
            options.SetMember(nameof(ICreateOptions.Size), backing.Length);
            await VerboseAsync($"{path}: size taken from the backing image").ConfigureAwait(false);
        }
    }
}
