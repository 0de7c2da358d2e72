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
    private const int MostWorkers = 16; // qemu-img's limit

    /// <summary>Parameters that say how a new image is made, which an existing one cannot be told.</summary>
    private static readonly string[] s_ofNewImages =
    [
        nameof(Option), nameof(BackingPath), nameof(BackingFormat), nameof(Profile), nameof(Fixed), nameof(Dynamic), nameof(Differencing),
        nameof(VHDType), nameof(NewSecret), nameof(InPlace), nameof(DestinationStream),
    ];

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

    /// <summary>Stores compressed data as soon as it is ready, not in its order: the image is not the same bytes each time.</summary>
    [Parameter]
    public SwitchParameter OutOfOrder { get; set; }

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

    /// <summary>All sources of a destination become one disk, each behind the one before it.</summary>
    [Parameter]
    public SwitchParameter Concatenate { get; set; }

    /// <summary>Writes into an image that is there already.</summary>
    [Parameter]
    public SwitchParameter SkipCreate { get; set; }

    /// <summary>With <see cref="SkipCreate"/>: more of the existing image than its path, as <see cref="OpenImageCmdlet.ImageOption"/> says
    /// more of a source.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    public object? DestinationImageOption { get; set; }

    /// <summary>With <see cref="SkipCreate"/>: the existing image reads as zeroes, so none are written.</summary>
    [Parameter]
    public SwitchParameter TargetIsZero { get; set; }

    /// <summary>Goes on after errors of reading: what cannot be read is zeroes, and is listed in the result.</summary>
    [Parameter]
    public SwitchParameter Salvage { get; set; }

    /// <summary>Requests at once; as many as suit the machine if absent.</summary>
    [Parameter]
    [ValidateRange(1, MostWorkers)]
    public int? ThrottleLimit { get; set; }

    /// <inheritdoc/>
    private protected override bool MakesNew => !SkipCreate;

    /// <inheritdoc/>
    private protected override bool JoinsSources => Concatenate;

    /// <inheritdoc/>
    private protected override string? ImpliedFormat => ImageProfile.TryFind(Profile)?.Format;

    /// <inheritdoc/>
    protected override Task ProcessImageAsync(string path, CancellationToken cancellationToken)
        => ProcessJoinedAsync([path], cancellationToken);

    /// <inheritdoc/>
    private protected override async Task ProcessJoinedAsync(IReadOnlyList<string> paths, CancellationToken cancellationToken)
    {
        if (WrongTogether() is { } wrong)
        {
            throw new DiskImageException(DiskImageErrorKind.InvalidOption, $"{paths[0]}: {wrong}", paths[0]);
        }
        var source = new ConvertSource();
        await using (source.ConfigureAwait(false))
        {
            foreach (string path in paths)
            {
                source.Add(await OpenAsync(path, cancellationToken).ConfigureAwait(false));
            }
            await source.SelectAsync(Snapshot, cancellationToken).ConfigureAwait(false);
            var lost = new LostRanges();
            if (Salvage)
            {
                source.Salvage(lost.Add);
            }
            var operation = new ConvertOperation(this, source, ConvertRequest);
            await operation.PrepareAsync(cancellationToken).ConfigureAwait(false);
            await (SkipCreate
                ? OverwriteAsync(source, operation, lost, cancellationToken)
                : ConvertAsync(source, operation, lost, cancellationToken)).ConfigureAwait(false);
        }
    }

    /// <summary>What parameters say that cannot be meant; null for nothing.</summary>
    private string? WrongTogether()
    {
        bool shares = Reflink == ReflinkMode.Always;
        return SkipBrokenBitmaps && !Bitmaps
                ? $"-{nameof(SkipBrokenBitmaps)} says how bitmaps are copied, so it needs -{nameof(Bitmaps)}."
            : TargetIsZero && !SkipCreate
                ? $"-{nameof(TargetIsZero)} is about an image that is there already, so it needs -{nameof(SkipCreate)}."
            : DestinationImageOption is not null && !SkipCreate
                ? $"-{nameof(DestinationImageOption)} describes an image that is there already, so it needs -{nameof(SkipCreate)}."
            : Salvage && shares ? $"-{nameof(Salvage)} reads all data, so none is shared: leave out -{nameof(Reflink)} {Reflink}."
            : SkipCreate && s_ofNewImages.FirstOrDefault(MyInvocation.BoundParameters.ContainsKey) is { } made
                ? $"-{made} is about a new image, and with -{nameof(SkipCreate)} none is made. Leave out one of the two."
            : null;
    }

    /// <summary>Makes the new image of what is read.</summary>
    private async Task ConvertAsync(
        ConvertSource source, ConvertOperation operation, LostRanges lost, CancellationToken cancellationToken)
    {
        ImageProfile? profile = ImageProfile.Find(Profile);
        (string given, FormatDriver format) = await TargetAsync().ConfigureAwait(false);
        string target = InFolder(given, source.First, format);
        if (Verify && await IsSentAsync(target, cancellationToken).ConfigureAwait(false))
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"{target}: -{nameof(Verify)} reads the new image, and what is sent cannot be read back. Compare it where it has arrived.",
                target);
        }
        profile?.Require(target, format, nameof(DestinationFormat));
        RequireOther(source, target, Opener.IdentityOf(target));
        RequireNotMade(target);
        NewImageOptions options = Options(
            source,
            target,
            format,
            profile,
            await AskAsync(() => BackingPath is null ? null : SessionPath.Backing(SessionState, BackingPath)).ConfigureAwait(false));
        _ = await options.ResolveBackingAsync(Opener, target, Folder, isUnseen: false, cancellationToken).ConfigureAwait(false);
        await WarnOfSizeAsync(source, target, profile).ConfigureAwait(false);
        await MakeAsync(
            target,
            options,
            $"Convert {What(source)} to {format.Name}",
            async image =>
            {
                ConvertResult result = await operation.RunAsync(image, cancellationToken).ConfigureAwait(false);
                if (Opener.IdentityOf(target) is { } made)
                {
                    _ = _made.Add(made);
                }
                await WarnOfLossAsync(source, lost).ConfigureAwait(false);
                return DiskImageCopyStatistics.Of(result, lost);
            },
            cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Writes what is read over an image that is there.</summary>
    private async Task OverwriteAsync(
        ConvertSource source, ConvertOperation operation, LostRanges lost, CancellationToken cancellationToken)
    {
        string target = await DestinationAsync().ConfigureAwait(false);
        if (DestinationImageOption is not null)
        {
            target = Described(DestinationImageOption, target);
        }
        RequireOther(source, target, Opener.IdentityOf(target));
        var request = new OpenRequest(target)
        {
            Format = DestinationFormat, Role = ImageRole.Target, Cache = CachePolicy.Of(CacheMode),
        };
        OpenedImage present = await OpenAsync(
            request with { WithBacking = false, BeforeWriting = true }, cancellationToken).ConfigureAwait(false);
        string files;
        bool holdsData;
        await using (present.ConfigureAwait(false))
        {
            RequireOther(source, present.Path, present.Node.HolderIdentity());
            RequireRoom(source, present);
            files = WrittenFiles.Of(present);
            holdsData = !Force && await ConversionFacts.HoldsDataAsync(present.Node, cancellationToken).ConfigureAwait(false);
        }
        string action = $"Write over its contents with {What(source)}";
        if (!await (holdsData ? ConfirmLossAsync(files, action) : ConfirmAsync(files, action)).ConfigureAwait(false))
        {
            return;
        }
        OpenedImage image = await OpenAsync(request with { Writable = true }, cancellationToken).ConfigureAwait(false);
        await using (image.ConfigureAwait(false))
        {
            ConvertResult result = await operation.OverwriteAsync(image.Node, TargetIsZero, cancellationToken).ConfigureAwait(false);
            await WarnOfLossAsync(source, lost).ConfigureAwait(false);
            await OutputAsync(await DiskImageInfo.OfAsync(
                image.Node, cancellationToken, DiskImageCopyStatistics.Of(result, lost)).ConfigureAwait(false)).ConfigureAwait(false);
        }
    }

    private string What(ConvertSource source)
        => $"{(Snapshot is null ? source.Name : $"snapshot {Snapshot} of {source.Name}")} ({source.First.Format.Name})";

    private static void RequireRoom(ConvertSource source, OpenedImage target)
    {
        if (target.Node.Length < source.Disk.Length)
        {
            throw new DiskImageException(
                DiskImageErrorKind.OutOfRange,
                $"{target.Path}: has {ReadableSize.WithBytes(target.Node.Length)}, and {source.Name} "
                + $"{ReadableSize.WithBytes(source.Disk.Length)}. Make it larger with Resize-DiskImage first.",
                target.Path);
        }
    }

    /// <summary>Throws if the target is a file that a source is made of.</summary>
    private static void RequireOther(ConvertSource source, string target, NodeIdentity? identity)
    {
        if (source.FindSame(identity) is { } same)
        {
            RequireOther(same, target, identity);
        }
    }

    private async Task WarnOfLossAsync(ConvertSource source, LostRanges lost)
    {
        if (lost.Ranges is { Count: > 0 } ranges)
        {
            await WarnAsync($"{source.Name}: {ReadableSize.WithBytes(ranges.Sum(r => r.Length))} in {ranges.Count:#,0} ranges could not be "
                + "read and are zeroes now. Statistics.BadRanges lists them.").ConfigureAwait(false);
        }
    }

    private ConvertRequest ConvertRequest => new()
    {
        IsSnapshot = Snapshot is not null,
        SparseSize = SparseSize,
        Compress = Compress,
        AnyOrder = OutOfOrder,
        Bitmaps = !Bitmaps ? BitmapChoice.None : SkipBrokenBitmaps ? BitmapChoice.Sound : BitmapChoice.All,
        Verify = Verify,
        Shares = Reflink switch
        {
            ReflinkMode.Always => true,
            ReflinkMode.Never => false,
            _ => !MyInvocation.BoundParameters.ContainsKey(nameof(SparseSize)) || SparseSize == 0, // zeroes are wanted as holes
        },
        OnlyShares = Reflink == ReflinkMode.Always,
        Durable = Durable || IsDurableByCacheMode || (SkipCreate && CacheMode != CacheMode.Unsafe),
        Workers = ThrottleLimit ?? Workers,
    };

    /// <inheritdoc/>
    private protected override bool IsFolder(string destination)
        => MakesNew && !JoinsSources && (Directory.Exists(destination) || System.IO.Path.EndsInDirectorySeparator(destination));

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

    private NewImageOptions Options(
        ConvertSource from, string target, FormatDriver format, ImageProfile? profile, string? backingPath)
    {
        (BlockNode source, BlockNode disk) = (from.First.Node, from.Disk);
        NewImageOptions options = OptionsOf(target, format);
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
    private async Task WarnOfSizeAsync(ConvertSource source, string target, ImageProfile? profile)
    {
        if (source.Disk.Length == 0)
        {
            await WarnAsync($"{source.Name}: is empty: its disk has no bytes.").ConfigureAwait(false);
        }
        await WarnOfProfileAsync(target, profile, source.Disk.Length).ConfigureAwait(false);
    }
}
