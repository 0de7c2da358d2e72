using System.Management.Automation;
using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Graph;
using DiskImage.Jobs;

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
            DiskState state = await OpenStateAsync(source, Snapshot, cancellationToken).ConfigureAwait(false);
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
                DiskImageErrorKind.InvalidOption, $"{target}: -{nameof(Verify)} reads the new image, and what is sent cannot be read back. Compare it where it has arrived.", target);
        }
        profile?.Require(target, format, nameof(DestinationFormat));
        RequireOther(source, target);
        RequireNotMade(target);
        IReadOnlyList<DiskBitmap>? bitmaps = await SelectBitmapsAsync(source, cancellationToken).ConfigureAwait(false);
        NewImageOptions options = Options(source.Node, disk, format, profile, await AskAsync(() => BackingPath is null ? null : SessionPath.Backing(SessionState, BackingPath)).ConfigureAwait(false));
        _ = await options.ResolveBackingAsync(Opener, target, Folder, cancellationToken).ConfigureAwait(false);
        await WarnOfSizeAsync(source, disk, target, profile).ConfigureAwait(false);
        string what = Snapshot is null ? source.Path : $"snapshot {Snapshot} of {source.Path}";
        await MakeAsync(
            target,
            options,
            $"Convert {what} ({source.Format.Name}) to {format.Name}",
            async image =>
            {
                foreach (Wording loss in await ConversionFacts.LossesAsync(source.Node, disk, image.Node, bitmaps is not null, cancellationToken).ConfigureAwait(false))
                {
                    await WarnAsync($"{target}: {RemedyWords.Say(loss)}.").ConfigureAwait(false);
                }
                ConvertResult result = await FillAsync(source.Node, disk, bitmaps, image, cancellationToken).ConfigureAwait(false);
                await image.CompleteAsync(Durable, Verify ? made => VerifyAsync(disk, made, cancellationToken) : null, cancellationToken).ConfigureAwait(false);
                if (Opener.IdentityOf(target) is { } made)
                {
                    _ = _made.Add(made);
                }
                return DiskImageCopyStatistics.Of(result);
            },
            cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Copies the disk, and the source's bitmaps if any are wanted.</summary>
    private async Task<ConvertResult> FillAsync(
        BlockNode source, BlockNode disk, IReadOnlyList<DiskBitmap>? bitmaps, NewImage image, CancellationToken cancellationToken)
    {
        if (bitmaps is null)
        {
            return await CopyAsync(disk, image, cancellationToken).ConfigureAwait(false);
        }
        await BitmapCopy.RequireHoldsAsync(image.Node, bitmaps, cancellationToken).ConfigureAwait(false);
        ConvertResult result = await CopyAsync(disk, image, cancellationToken).ConfigureAwait(false);
        _ = await ShowAsync(
            $"Copying bitmaps of {Leaf(source.Name)}",
            progress => new BitmapCopy(source, image.Node, bitmaps).RunAsync(progress, cancellationToken)).ConfigureAwait(false);
        return result;
    }

    /// <summary>The bitmaps to copy; null if none are wanted. What cannot be done is refused here, before anything is written.</summary>
    private async Task<IReadOnlyList<DiskBitmap>?> SelectBitmapsAsync(OpenedImage source, CancellationToken cancellationToken)
    {
        if (!Bitmaps)
        {
            return SkipBrokenBitmaps ? throw Wrong($"-{nameof(SkipBrokenBitmaps)} says how bitmaps are copied, so it needs -{nameof(Bitmaps)}.") : null;
        }
        if (Snapshot is not null)
        {
            throw Wrong($"bitmaps record changes of the present state, so they are not copied with -{nameof(Snapshot)}.");
        }
        IBitmapList holder = source.Require<IBitmapList>("keep no dirty bitmaps");
        IReadOnlyList<DiskBitmap> chosen = await BitmapCopy.SelectAsync(source.Node, SkipBrokenBitmaps, cancellationToken).ConfigureAwait(false);
        foreach (DiskBitmap broken in (await holder.GetBitmapsAsync(cancellationToken).ConfigureAwait(false)).Where(b => b.IsInUse))
        {
            await WarnAsync($"{source.Path}: bitmap '{broken.Name}' was not saved properly and is left out.").ConfigureAwait(false);
        }
        return chosen;

        DiskImageException Wrong(string what) => new(DiskImageErrorKind.InvalidOption, $"{source.Path}: {what}", source.Path);
    }

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
                DiskImageErrorKind.InvalidOption, $"{target}: was just made from another source. Convert this one to another name.", target);
        }
    }

    private NewImageOptions Options(BlockNode source, BlockNode disk, FormatDriver format, ImageProfile? profile, string? backingPath)
    {
        NewImageOptions options = OptionsOf(format);
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

    private async Task<ConvertResult> CopyAsync(BlockNode disk, NewImage image, CancellationToken cancellationToken)
    {
        BlockNode? backing = image.Node.BackingNode();
        bool same = backing is not null && await HasSameBackingAsync(disk, backing, cancellationToken).ConfigureAwait(false);
        var how = new ConvertOptions { Workers = Workers, SparseSize = SparseSize, Compress = Compress, InOrder = image.IsSent,
            TargetReadsZero = backing is null, TargetHasBacking = same };
        ConvertResult result = await ShowAsync(
            $"Converting {Leaf(disk.Name)} to {Leaf(image.Path)}",
            progress => new ConvertJob(disk, image.Node, how).RunAsync(progress, cancellationToken)).ConfigureAwait(false);
        await VerboseAsync(
            $"{image.Path}: {ReadableSize.Of(result.BytesCopied)} copied, {ReadableSize.Of(result.BytesZero)} zeroes, "
            + $"{ReadableSize.Of(result.BytesSkipped)} left to the backing image, in {result.Elapsed.TotalSeconds:0.0} s").ConfigureAwait(false);
        return result;
    }

    /// <summary>True if the source may leave to the new backing image what it leaves to its own: they are the same file, or read the same.</summary>
    private async Task<bool> HasSameBackingAsync(BlockNode disk, BlockNode backing, CancellationToken cancellationToken)
    {
        if (disk.BackingNode() is not { } own)
        {
            await VerboseAsync($"{disk.Name}: has no backing image, so all of it is copied").ConfigureAwait(false);
            return false;
        }
        if (own.HolderIdentity() is { } file && file == backing.HolderIdentity() && FormatOf(own).Equals(FormatOf(backing), StringComparison.Ordinal))
        {
            return true;
        }
        CompareResult comparison = await ShowAsync(
            $"Comparing {Leaf(own.Name)} with {Leaf(backing.Name)}",
            progress => new CompareJob(own, backing, strict: false).RunAsync(progress, cancellationToken)).ConfigureAwait(false);
        await VerboseAsync(comparison.Identical
            ? $"{backing.Name}: reads the same as {own.Name}, so what the source has from there is left out"
            : $"{backing.Name}: differs from {own.Name}, so all of the source is copied").ConfigureAwait(false);
        return comparison.Identical;
    }

    private static string FormatOf(BlockNode disk) => disk.As<IDescribed>()?.Describe().Format ?? "";

    private async ValueTask VerifyAsync(BlockNode disk, BlockNode made, CancellationToken cancellationToken)
    {
        CompareResult comparison = await ShowAsync(
            $"Verifying {Leaf(made.Name)}",
            progress => new CompareJob(disk, made, strict: false).RunAsync(progress, cancellationToken)).ConfigureAwait(false);
        if (!comparison.Identical)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Corrupt,
                $"{made.Name}: differs from {disk.Name} at offset {comparison.FirstDifference:#,0}. It is removed; the source may be changing, or the storage may be faulty.",
                made.Name,
                comparison.FirstDifference);
        }
        await VerboseAsync($"{made.Name}: reads the same as {disk.Name}").ConfigureAwait(false);
    }
}
