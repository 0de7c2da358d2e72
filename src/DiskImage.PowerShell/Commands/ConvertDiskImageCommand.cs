using System.Management.Automation;
using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Graph;
using DiskImage.Jobs;
using DiskImage.Operations;

namespace DiskImage.PowerShell;

/// <summary><c>Convert-DiskImage</c>: copies a disk into a new image, of the same or another format.</summary>
[Cmdlet(VerbsData.Convert, "DiskImage", DefaultParameterSetName = PathSet, SupportsShouldProcess = true)]
[OutputType(typeof(DiskImageInfo))]
public sealed class ConvertDiskImageCommand : TargetImageCmdlet
{
    private readonly HashSet<NodeIdentity> _made = [];

    /// <summary>A snapshot inside the source, by id or name: it is copied instead of the present state.</summary>
    [Parameter]
    [ArgumentCompleter(typeof(SnapshotNameCompleter))]
    [ValidateNotNullOrEmpty]
    public string? Snapshot { get; set; }

    /// <summary>Makes an image that a service or program takes: its format, options and size.</summary>
    [Parameter]
    [ArgumentCompleter(typeof(ProfileNameCompleter))]
    [ValidateNotNullOrEmpty]
    public string? Profile { get; set; }

    /// <summary>The image that the new one is to stand on: what the source has from its own backing image is left out.</summary>
    [Parameter]
    [Alias("ParentPath", "BackingFile")]
    [ValidateNotNullOrEmpty]
    public string? BackingPath { get; set; }

    /// <summary>The backing image's format; probed and recorded if absent.</summary>
    [Parameter]
    [ArgumentCompleter(typeof(FormatNameCompleter))]
    [ValidateNotNullOrEmpty]
    public string? BackingFormat { get; set; }

    /// <summary>A VHD or VHDX whose space is all there from the start.</summary>
    [Parameter]
    public SwitchParameter Fixed { get; set; }

    /// <summary>A VHD or VHDX that grows as it is written to.</summary>
    [Parameter]
    public SwitchParameter Dynamic { get; set; }

    /// <summary>A VHD or VHDX that stores what differs from its parent, the backing image.</summary>
    [Parameter]
    public SwitchParameter Differencing { get; set; }

    /// <summary>The same, as Convert-VHD has it.</summary>
    [Parameter]
    public VhdType? VHDType { get; set; }

    /// <summary>Runs of zeroes of at least this many bytes are not stored; 0 stores everything.</summary>
    [Parameter]
    [ByteSize]
    [ValidateRange(0, long.MaxValue)]
    public long SparseSize { get; set; } = 4096;

    /// <summary>Stores data compressed.</summary>
    [Parameter]
    public SwitchParameter Compress { get; set; }

    /// <summary>Copies the source's dirty bitmaps.</summary>
    [Parameter]
    public SwitchParameter Bitmaps { get; set; }

    /// <summary>With <see cref="Bitmaps"/>: leaves out those that were not saved properly, with a warning, instead of refusing.</summary>
    [Parameter]
    public SwitchParameter SkipBrokenBitmaps { get; set; }

    /// <summary>Compares the new image with the source before it gets its name.</summary>
    [Parameter]
    public SwitchParameter Verify { get; set; }

    /// <summary>Whether data are taken over by sharing their storage with the source (reflink), where the file system can.</summary>
    [Parameter]
    public ReflinkMode Reflink { get; set; }

    /// <summary>Returns only when the new image would survive a power cut.</summary>
    [Parameter]
    public SwitchParameter Durable { get; set; }

    /// <inheritdoc/>
    private protected override string? ImpliedFormat => ImageProfile.TryFind(Profile)?.Format;

    /// <inheritdoc/>
    protected override async Task ProcessImageAsync(string path, CancellationToken cancellationToken)
    {
        OpenedImage source = await OpenAsync(path, cancellationToken).ConfigureAwait(false);
        await using (source.ConfigureAwait(false))
        {
            DiskState state = await DiskState.OpenAsync(source, Snapshot, cancellationToken).ConfigureAwait(false);
            await using (state.ConfigureAwait(false))
            {
                await ConvertAsync(source, state.Disk, cancellationToken).ConfigureAwait(false);
            }
        }
    }

    /// <summary>Makes the new image of <paramref name="disk"/>, which is the source or a snapshot of it.</summary>
    private async Task ConvertAsync(OpenedImage source, BlockNode disk, CancellationToken cancellationToken)
    {
        ImageProfile? profile = ImageProfile.Find(Profile);
        (string given, FormatDriver format) = await TargetAsync().ConfigureAwait(false);
        string target = InFolder(given, source, format);
        if (Verify && await IsSentAsync(target, cancellationToken).ConfigureAwait(false))
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"{target}: -{nameof(Verify)} reads the new image, and what is sent cannot be read back. Compare it where it has arrived.",
                target);
        }
        profile?.Require(target, format, nameof(DestinationFormat));
        RequireOther(source, target);
        RequireNotMade(target);
        if (SkipBrokenBitmaps && !Bitmaps)
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"{source.Path}: -{nameof(SkipBrokenBitmaps)} says how bitmaps are copied, so it needs -{nameof(Bitmaps)}.",
                source.Path);
        }
        var operation = new ConvertOperation(this, source, disk, ConvertRequest);
        await operation.PrepareAsync(cancellationToken).ConfigureAwait(false);
        NewImageOptions options = Options(
            source.Node,
            disk,
            format,
            profile,
            await AskAsync(() => BackingPath is null ? null : SessionPath.Backing(SessionState, BackingPath)).ConfigureAwait(false));
        _ = await options.ResolveBackingAsync(Opener, target, Folder, cancellationToken).ConfigureAwait(false);
        await WarnOfSizeAsync(source, disk, target, profile).ConfigureAwait(false);
        string what = Snapshot is null ? source.Path : $"snapshot {Snapshot} of {source.Path}";
        await MakeAsync(
            target,
            options,
            $"Convert {what} ({source.Format.Name}) to {format.Name}",
            async image =>
            {
                ConvertResult result = await operation.RunAsync(image, cancellationToken).ConfigureAwait(false);
                if (Opener.IdentityOf(target) is { } made)
                {
                    _ = _made.Add(made);
                }
                return DiskImageCopyStatistics.Of(result);
            },
            cancellationToken).ConfigureAwait(false);
    }

    private ConvertRequest ConvertRequest => new()
    {
        IsSnapshot = Snapshot is not null,
        SparseSize = SparseSize,
        Compress = Compress,
        Bitmaps = !Bitmaps ? BitmapChoice.None : SkipBrokenBitmaps ? BitmapChoice.Sound : BitmapChoice.All,
        Verify = Verify,
        Shares = Reflink switch
        {
            ReflinkMode.Always => true,
            ReflinkMode.Never => false,
            _ => !MyInvocation.BoundParameters.ContainsKey(nameof(SparseSize)) || SparseSize == 0, // zeroes are wanted as holes
        },
        OnlyShares = Reflink == ReflinkMode.Always,
        Durable = Durable || IsDurableByCacheMode,
        Workers = Workers,
    };

    /// <inheritdoc/>
    private protected override bool IsFolder(string destination)
        => Directory.Exists(destination) || System.IO.Path.EndsInDirectorySeparator(destination);

    private string InFolder(string destination, OpenedImage source, FormatDriver format)
    {
        if (!IsFolder(destination))
        {
            return destination;
        }
        return System.IO.Path.Combine(destination, System.IO.Path.GetFileNameWithoutExtension(source.Path) + format.Extensions[0]);
    }

    /// <summary>The target must not be one that this command has just made: two sources of one name, converted into one folder.</summary>
    private void RequireNotMade(string target)
    {
        if (Opener.IdentityOf(target) is { } present && _made.Contains(present))
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"{target}: was just made from another source. Convert this one to another name.",
                target);
        }
    }

    private NewImageOptions Options(BlockNode source, BlockNode disk, FormatDriver format, ImageProfile? profile, string? backingPath)
    {
        NewImageOptions options = OptionsOf(path, format);
        options.AddBacking(backingPath, BackingFormat);
        options.Add(GivenVhdType.Of(Fixed, Dynamic, Differencing, VHDType));
        options.Add(profile);
        foreach ((string name, object? value) in BackingPath is null ? ConversionFacts.KeptOptions(source, options.Known) : [])
        {
            options.TakeUnlessGiven(name, value);
        }
        options.Add(nameof(ICreateOptions.Size), profile?.SizeOf(disk.Length) ?? disk.Length, nameof(Path));
        return options;
    }

    /// <summary>Says that there is nothing to convert, or that the profile takes no disk of this size.</summary>
    private async Task WarnOfSizeAsync(OpenedImage source, BlockNode disk, string target, ImageProfile? profile)
    {
        if (disk.Length == 0)
        {
            await WarnAsync($"{source.Path}: is empty: its disk has no bytes.").ConfigureAwait(false);
        }
        await WarnOfProfileAsync(target, profile, disk.Length).ConfigureAwait(false);
    }
}
