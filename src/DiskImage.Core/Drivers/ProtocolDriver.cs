using DiskImage.Block;

namespace DiskImage.Drivers;

/// <summary>How a protocol node is opened.</summary>
/// <param name="Options">The record of the driver's options; where it is among them.</param>
public sealed record ProtocolOpenContext(object Options) : NodeContext(Options)
{
    /// <summary>Whether other programs are told of the use, where the options do not say.</summary>
    public ImageLocking Locking { get; init; }

    /// <summary>
    /// The host's cache is to be gone round. A protocol whose bytes come from elsewhere takes no notice.
    /// </summary>
    public bool Direct { get; init; }

    /// <summary>What is kept locked since an earlier opening, for a writer to take over.</summary>
    public IReadOnlyList<IKeptLock> Kept { get; init; } = [];

    /// <summary>Told what a user should know about what is opened.</summary>
    public Action<Wording> Warn { get; init; } = static _ => { };
}

/// <summary>A path of this machine as a full one, where it was relative.</summary>
/// <param name="path">The path as it was given.</param>
public delegate string PathFrom(string path);

/// <summary>One way to reach bytes: a local file, a device, a server. Stateless.</summary>
public abstract class ProtocolDriver : NodeDriver
{
    /// <summary>The option that says where, in text, for every protocol that can say it in one text.</summary>
    public const string FileNameOption = "filename";

    /// <summary>The URI schemes it answers to, without the colon.</summary>
    public virtual IReadOnlyList<string> Schemes => [Name];

    /// <summary>True if what it opens is named by paths of this machine: relative ones are taken from a folder.</summary>
    public virtual bool TakesPaths => false;

    /// <summary>True if what it opens is the bytes of a disk, whatever they look like: no format is looked for in them.</summary>
    public virtual bool IsDisk => false;

    /// <summary>True if the user must have allowed it before anything is written there: a disk of the machine.</summary>
    public virtual bool NeedsPermissionToWrite => false;

    /// <summary>
    /// The driver that has what the options lead to, where it is another one's: a path may lead to a device. Null if it is this one's. The
    /// other one understands the same options.
    /// </summary>
    public virtual string? OwnerOf(object options) => null;

    /// <summary>The options that a text stands for: a path, a URI of one of the schemes.</summary>
    /// <exception cref="DiskImageException">InvalidOption: it is none.</exception>
    public virtual IEnumerable<KeyValuePair<string, object?>> Parse(string locator) => [new(FileNameOption, locator)];

    /// <summary>
    /// The options with paths in them taken from the folder that relative ones are taken from. For a protocol whose text is no path, but
    /// has one in it. Default: as they are.
    /// </summary>
    /// <param name="options">The record of the driver's options.</param>
    /// <param name="pathFrom">Makes a path a full one.</param>
    public virtual object From(object options, PathFrom pathFrom) => options;

    /// <summary>
    /// What is called what the options lead to, for messages and for telling it from others: a path or a URI, never a secret.
    /// </summary>
    public abstract string NameOf(object options);

    /// <summary>Which bytes the options lead to, without opening them; null if nothing is there. The same as the open node's.</summary>
    /// <param name="options">The record of the driver's options.</param>
    public virtual NodeIdentity? IdentityOf(object options) => new($"{Name}:{NameOf(options)}");

    /// <summary>
    /// The full names of the files in a folder that have one of some endings, in the order of names; none where there is no such folder.
    /// </summary>
    /// <param name="folder">The folder.</param>
    /// <param name="endings">Ends of file names; case does not matter.</param>
    /// <param name="most">How many are looked at.</param>
    public virtual IReadOnlyList<string> FilesIn(string folder, IReadOnlyList<string> endings, int most) => [];

    /// <summary>Opens what is there.</summary>
    public abstract ValueTask<BlockNode> OpenAsync(ProtocolOpenContext context, CancellationToken cancellationToken);
}
