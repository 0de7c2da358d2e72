using System.Security;
using DiskImage.Block;
using DiskImage.Options;

namespace DiskImage.Drivers;

/// <summary>How a new node takes a place.</summary>
public enum TargetMode
{
    /// <summary>Under a temporary name, renamed when it is complete. Whatever is there already is refused.</summary>
    New,

    /// <summary>
    /// Under a temporary name, renamed when it is complete. A file that is there keeps its contents until then; its successor
    /// takes over its owner, access rights, extended attributes, and the symbolic links that lead to it.
    /// </summary>
    Replace,

    /// <summary>
    /// Written into the file that is there, whose contents are gone with the first write. Where nothing is there, as <see cref="New"/>.
    /// </summary>
    InPlace,

    /// <summary>
    /// Sent, from the first byte to the last, to whoever takes it: a pipe, a stream. Nobody asks for it of a place: what is found there is
    /// of that kind. It cannot be read back, and what is sent of an image that is not completed stays sent.
    /// </summary>
    Stream,
}

/// <summary>What a host is told of a new file while it is empty; a host that has no such distinction takes no notice.</summary>
/// <param name="AllowsHoles">It may be marked sparse. If not, it is marked neither sparse nor compressed nor encrypted, also where its
/// folder says so: Hyper-V refuses such files.</param>
/// <param name="NoCow">Its data are to be overwritten in place where the file system would copy on write (btrfs).</param>
/// <param name="Direct">The host's cache is to be gone round.</param>
/// <param name="Like">What is there already whose owner and access rights it gets, unless it replaces something; null for nothing.</param>
/// <param name="InNewFolder">Its folder is made with it where it is missing, and is gone with it unless it is published.</param>
/// <param name="Options">The record of <see cref="IStorage.CreateOptions"/>; null for their defaults.</param>
public readonly record struct StorageTraits(
    bool AllowsHoles, bool NoCow, bool Direct = false, string? Like = null, bool InNewFolder = false,
    object? Options = null);

/// <summary>Where a new node is to be, as it was found before anything was made there.</summary>
/// <param name="Locator">What the node is called: canonical, but as it was given where symbolic links lead elsewhere.</param>
/// <param name="Address">
/// Where that leads, symbolic links resolved: the file that is made or replaced. It may have a password in it, so it is not shown.
/// </param>
/// <param name="Mode">How it is to be taken.</param>
/// <param name="Present">What is there and is to be replaced or written; null for nothing.</param>
/// <param name="OtherNames">How many further names (hard links) the present file has. They keep the old file if it is replaced.</param>
public sealed record StoragePlace(string Locator, string Address, TargetMode Mode, NodeIdentity? Present, int OtherNames)
{
    /// <inheritdoc/>
    public override string ToString() => Locator;
}

/// <summary>A protocol that can make new nodes.</summary>
public interface IStorage
{
    /// <summary>
    /// What can be said of a new node beside the options of its format. A record that is <see cref="ICreateOptions"/> may name what a node
    /// stands on whose format knows of no such thing. Default: nothing.
    /// </summary>
    OptionSchema CreateOptions => OptionSchema.Empty;

    /// <summary>The same storage for a user: one that asks who it is gets to know that. Default: it asks nobody.</summary>
    /// <param name="secrets">What the user gave, by the name or path it is for.</param>
    /// <param name="warn">Told what the user should know.</param>
    IStorage ForUser(IReadOnlyDictionary<string, SecureString> secrets, Action<Wording> warn) => this;

    /// <summary>Looks whether a new node can be made somewhere, as far as that shows without changing anything.</summary>
    /// <param name="locator">Where it is to be.</param>
    /// <param name="mode">How the place is to be taken.</param>
    /// <param name="cancellationToken">Stops it.</param>
    /// <exception cref="DiskImageException">
    /// AlreadyExists; InvalidOption for what is no regular file; AccessDenied or Locked for a file that cannot be replaced or written.
    /// </exception>
    ValueTask<StoragePlace> LookAsync(string locator, TargetMode mode, CancellationToken cancellationToken);

    /// <summary>Makes a new, empty node for a place, open for writing. Nobody sees it under its name before it is published.</summary>
    /// <param name="place">Where it is to be.</param>
    /// <param name="traits">What the host is to know about it from the start.</param>
    /// <param name="cancellationToken">Stops it.</param>
    ValueTask<PendingNode> BeginAsync(StoragePlace place, StorageTraits traits, CancellationToken cancellationToken);

    /// <summary>Removes a node that is closed. Nothing happens if another one is there by now, or none.</summary>
    /// <param name="locator">Where it is.</param>
    /// <param name="identity">Which one it was.</param>
    /// <exception cref="DiskImageException">What the host says; Unsupported where nothing can be removed.</exception>
    ValueTask RemoveAsync(string locator, NodeIdentity identity)
        => throw new DiskImageException(DiskImageErrorKind.Unsupported, $"{locator}: cannot be removed", locator);
}

/// <summary>A protocol that can hold what is needed for a while.</summary>
public interface ITemporaryStorage
{
    /// <summary>
    /// Makes a new, empty node, open for writing, that nobody else sees and that is gone when it is closed; where the host can do that
    /// (not on Windows for a process that is killed with its machine) also when the process dies.
    /// </summary>
    /// <param name="name">What it is called in messages.</param>
    /// <exception cref="DiskImageException">AccessDenied, NoSpace and the like: what the host says.</exception>
    BlockNode OpenTemporary(string name);
}

/// <summary>A new node that has not taken its place. Disposed before it is published it is gone without a trace.</summary>
public abstract class PendingNode(StoragePlace place) : IAsyncDisposable
{
    /// <summary>The place it is to take.</summary>
    public StoragePlace Place { get; } = place;

    /// <summary>
    /// The node, empty and open for writing. Its messages speak of <see cref="StoragePlace.Locator"/>. To be closed
    /// before anything else is asked.
    /// </summary>
    public abstract BlockNode Node { get; }

    /// <summary>Bytes of the place behind what the node takes of it, which stay as they were; 0 for a file.</summary>
    public virtual long Behind => 0;

    /// <summary>Opens what was written so far, after <see cref="Node"/> was closed.</summary>
    public abstract ValueTask<BlockNode> OpenAsync(bool writable, CancellationToken cancellationToken);

    /// <summary>
    /// Takes what it is to replace away from its name, until it has that itself or is taken back: whoever looks between finds nothing. For
    /// the node that names others, before these replace theirs: what is old must not lead to what is new. Default: nothing happens.
    /// </summary>
    /// <exception cref="DiskImageException">What the host says.</exception>
    public virtual void SetAside()
    {
    }

    /// <summary>Gives it its name, after <see cref="Node"/> was closed. What appeared there meanwhile is not overwritten.</summary>
    /// <param name="durable">True to return only when its name would survive a power cut. Its bytes are flushed by way of the node.</param>
    /// <param name="revocable">
    /// True to keep what it replaces until it is disposed, so that <see cref="Withdraw"/> can put that back.
    /// </param>
    /// <param name="cancellationToken">Stops what takes long; where a single step is all there is, it is not asked.</param>
    /// <exception cref="DiskImageException">AlreadyExists; what the host says.</exception>
    public abstract ValueTask PublishAsync(bool durable, bool revocable, CancellationToken cancellationToken);

    /// <summary>
    /// Takes a published node back, because what belongs to it could not be published, and puts back what it replaced, if it was published
    /// so as to. Does nothing where it took the place of another otherwise.
    /// </summary>
    public abstract void Withdraw();

    /// <summary>Closes the node, and removes it unless it is published. Never throws: what led here is on its way already.</summary>
    public abstract ValueTask DisposeAsync();
}
