using System.Security;
using DiskImage.Block;
using DiskImage.Options;

namespace DiskImage.Drivers;

/// <summary>Opens a node that an image merely names. Refusing is how untrusted images are contained: see OpenPolicy.</summary>
/// <param name="reference">The name as it stands in the image.</param>
/// <param name="format">The format the image says it has; null to probe.</param>
/// <param name="cancellationToken">Stops the opening.</param>
public delegate ValueTask<BlockNode> ReferenceOpener(string reference, string? format, CancellationToken cancellationToken);

/// <summary>Opens or makes a file or other protocol node by its locator text, for formats that consist of several.</summary>
/// <param name="locator">Where it is: resolved against the folder of the image that is being made.</param>
/// <param name="create">True to make a new one (an existing one is refused), false to open an existing one for writing.</param>
/// <param name="cancellationToken">Stops the opening.</param>
public delegate ValueTask<BlockNode> CompanionOpener(string locator, bool create, CancellationToken cancellationToken);

/// <summary>What a format gets to open an image.</summary>
/// <param name="File">The node that holds the image. On success the format's node owns it.</param>
/// <param name="Options">The record of the driver's <see cref="NodeDriver.OpenOptions"/>.</param>
/// <param name="OpenBacking">Opens the backing node, as a formatted disk; null when the caller wants this layer alone.</param>
/// <param name="OpenData">Opens a further file that holds data of the image, as plain bytes.</param>
/// <param name="ForRepair">Open an image that needs repair for writing, unrepaired, so that it can be repaired.</param>
public sealed record FormatOpenContext(
    BlockNode File, object Options, ReferenceOpener? OpenBacking, ReferenceOpener OpenData, bool ForRepair = false)
    : NodeContext(Options)
{
    /// <summary>
    /// True if the user says what the disk stands on: <see cref="OpenBacking"/> opens that, whatever name it is given, also where
    /// the image names nothing.
    /// </summary>
    public bool GivesBacking { get; init; }

    /// <summary>Like <see cref="FormatOpenContext.OpenData"/>, for what is only read whatever the image is opened for.</summary>
    public ReferenceOpener? OpenDataToRead { get; init; }

    /// <summary>Full paths of the folders where the user has parents looked for, beside what is recorded.</summary>
    public IReadOnlyList<string> ParentFolders { get; init; } = [];

    /// <summary>The files near the image, for formats that record no path of a parent. Null where there is no folder.</summary>
    public INearbyFiles? Nearby { get; init; }

    /// <summary>Makes and removes further files of the image, for disks that get or lose some; null where that cannot be.</summary>
    public ISiblingFiles? Siblings { get; init; }

    /// <summary>
    /// Opens a further file of the image that the description gives, by its role, as plain bytes; null if it gives none.
    /// </summary>
    public Func<string, CancellationToken, ValueTask<BlockNode?>> OpenGivenAsync { get; init; } = static (_, _) => new((BlockNode?)null);

    /// <summary>
    /// Opens what the disk stands on, by the user's word or by the image's; null if neither says anything, or this layer alone is wanted.
    /// </summary>
    /// <param name="recorded">The name as it stands in the image; null for none.</param>
    /// <param name="format">The format the image says it has; null to probe.</param>
    /// <param name="cancellationToken">Stops the opening.</param>
    public async ValueTask<BlockNode?> OpenBackingAsync(string? recorded, string? format, CancellationToken cancellationToken)
        => OpenBacking is { } open && (recorded is not null || GivesBacking)
            ? await open(recorded ?? "", format, cancellationToken).ConfigureAwait(false)
            : null;
}

/// <summary>What a format gets to create an image.</summary>
/// <param name="File">An empty, writable node that the caller owns and closes.</param>
/// <param name="Options">The record of the driver's create options.</param>
/// <param name="Backing">The backing image that the options name, open for reading, for formats that record its identity; null
/// if there is none.</param>
/// <param name="OpenCompanion">Makes or opens further files of the image.</param>
/// <param name="Claimed">Told how many bytes of host space are claimed, for formats that claim it ahead.</param>
public sealed record FormatCreateContext(
    BlockNode File, object Options, BlockNode? Backing = null, CompanionOpener? OpenCompanion = null, IProgress<long>? Claimed = null)
{
    /// <summary>Secrets that the user gave for the new image, by name or path. A driver never shows one.</summary>
    public IReadOnlyDictionary<string, SecureString> Secrets { get; init; } = new Dictionary<string, SecureString>(StringComparer.Ordinal);
}

/// <summary>What a driver gets to see of a file to say whether it is of its format.</summary>
/// <param name="header">See <see cref="Header"/>.</param>
/// <param name="tail">See <see cref="Tail"/>.</param>
/// <param name="fileLength">See <see cref="FileLength"/>.</param>
/// <param name="fileName">See <see cref="FileName"/>.</param>
public readonly ref struct ProbeInput(ReadOnlySpan<byte> header, ReadOnlySpan<byte> tail, long fileLength, string fileName)
{
    /// <summary>The file's first bytes, at most <see cref="DriverRegistry.ProbeLength"/>.</summary>
    public ReadOnlySpan<byte> Header { get; } = header;

    /// <summary>The file's last bytes, at most <see cref="DriverRegistry.ProbeTailLength"/>.</summary>
    public ReadOnlySpan<byte> Tail { get; } = tail;

    /// <summary>The file's length in bytes.</summary>
    public long FileLength { get; } = fileLength;

    /// <summary>The file's name, which may support a weak signature but never decides alone.</summary>
    public string FileName { get; } = fileName;
}

/// <summary>One image format: what it is called, how to recognise it, which options it takes, how to open it. Stateless.</summary>
public abstract class FormatDriver : NodeDriver
{
    /// <inheritdoc/>
    public override IReadOnlyList<string> Roles => ["file", "backing", "data-file"];

    /// <summary>File name endings, with the dot, the usual one first.</summary>
    public abstract IReadOnlyList<string> Extensions { get; }

    /// <summary>The file that opens a folder of this format, where an image is a folder; null if it never is.</summary>
    public virtual string? FolderFile => null;

    /// <summary>
    /// The file that opens the folder that an image of these create options is; null for one that is no folder. It is the image's own file:
    /// the last that is there.
    /// </summary>
    /// <param name="createOptions">The record of <see cref="ICreatable.CreateOptions"/>.</param>
    public virtual string? FolderFileOf(object createOptions) => null;

    /// <summary>The types of the disks that it opens: their interfaces say what can be done with them.</summary>
    public virtual IReadOnlyList<Type> NodeTypes => [];

    /// <summary>
    /// How sure the driver is that a file is of its format: 0 not, 1 only if nobody else wants it, 100 the magic matches.
    /// </summary>
    public abstract int Probe(in ProbeInput input);

    /// <summary>
    /// True if an image of these create options is written from its first byte to its last, so that it can be sent to somebody who cannot
    /// go back. The last few MiB may still be changed, and bytes ahead of their turn be written.
    /// </summary>
    /// <param name="createOptions">The record of <see cref="ICreatable.CreateOptions"/>.</param>
    public virtual bool IsWrittenForward(object createOptions) => false;

    /// <summary>
    /// How an image is made that is <see cref="IsWrittenForward"/>, in the words of options: "vmdk with
    /// subformat=streamOptimized"; null if none is.
    /// </summary>
    public virtual string? ForwardForm => null;

    /// <summary>The format's own node, be it below filters that let it show through.</summary>
    /// <exception cref="DiskImageException">Unsupported: a filter does not.</exception>
    protected static T RequireOwn<T>(BlockNode node)
        where T : class
    {
        ArgumentNullException.ThrowIfNull(node);
        return node.As<T>() ?? throw new DiskImageException(
            DiskImageErrorKind.Unsupported,
            $"{node.Name}: a filter over the image does not let it be changed past itself. Open the image without the filter.",
            node.Name);
    }

    /// <summary>Opens an image. A failed open leaves <see cref="FormatOpenContext.File"/> to the caller and modifies nothing.</summary>
    public abstract ValueTask<BlockNode> OpenAsync(FormatOpenContext context, CancellationToken cancellationToken);
}

/// <summary>A format that can make new images.</summary>
public interface ICreatable
{
    /// <summary>Options when an image is made.</summary>
    OptionSchema CreateOptions { get; }

    /// <summary>True if a new image records its backing image's identity: then <see cref="FormatCreateContext.Backing"/> is open.</summary>
    bool RecordsBackingIdentity => false;

    /// <summary>False if programs that use the format refuse a host file that is marked sparse (NTFS has such a mark).</summary>
    bool AllowsSparseFile => true;

    /// <summary>Writes a new, empty image of the options' size into an empty file.</summary>
    ValueTask CreateAsync(FormatCreateContext context, CancellationToken cancellationToken);
}

/// <summary>Create options that every format has; the front ends set them from their own parameters.</summary>
public interface ICreateOptions
{
    /// <summary>Virtual size in bytes.</summary>
    long? Size { get; }

    /// <summary>The backing file's name as it is to stand in the image; null for none.</summary>
    string? BackingFile => null;

    /// <summary>The backing file's format; null if unknown.</summary>
    string? BackingFormat => null;

    /// <summary>The name of a further file that is to hold the image's data; null for none.</summary>
    string? DataFile => null;

    /// <summary>True for a new file whose data are overwritten in place, on file systems that otherwise copy on write.</summary>
    bool NoCow => false;
}

/// <summary>A format some of whose create options can be changed in an existing image.</summary>
public interface IAmendable
{
    /// <summary>The options that can be changed; one that is not given stays as it is.</summary>
    OptionSchema AmendOptions { get; }

    /// <summary>True if what is below the disk need not be there when options are changed: it may be what is to be named anew.</summary>
    bool AmendsWithoutBacking => false;

    /// <summary>What a user should know before the options of this record are changed; null for nothing.</summary>
    Wording? AmendWarning(object options) => null;

    /// <summary>Changes them. A crash at any point leaves the image with the old or the new ones, with leaked space at most.</summary>
    /// <param name="node">The disk, open for writing.</param>
    /// <param name="options">The record of <see cref="AmendOptions"/>.</param>
    /// <param name="bytes">Told how many bytes of the virtual disk are done.</param>
    /// <param name="cancellationToken">Stops at the next safe point.</param>
    ValueTask AmendAsync(BlockNode node, object options, IProgress<long>? bytes, CancellationToken cancellationToken);
}

/// <summary>How large an image would be.</summary>
/// <param name="Required">Bytes for the data there is.</param>
/// <param name="FullyAllocated">Bytes if all of the disk were written.</param>
/// <param name="Bitmaps">Bytes for the source's bitmaps; null if they cannot be kept.</param>
public sealed record ImageMeasurement(long Required, long FullyAllocated, long? Bitmaps = null);

/// <summary>A format that can tell how large an image would become.</summary>
public interface IMeasurable
{
    /// <summary>
    /// Measures an image of <paramref name="options"/> with the contents of <paramref name="source"/>, or empty without one.
    /// </summary>
    ValueTask<ImageMeasurement> MeasureAsync(object options, BlockNode? source, CancellationToken cancellationToken);
}
