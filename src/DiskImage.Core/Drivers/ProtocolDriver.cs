using DiskImage.Block;
using DiskImage.Options;

namespace DiskImage.Drivers;

/// <summary>How a protocol node is opened.</summary>
/// <param name="Locator">The address without its scheme: a path, or the rest of a URI.</param>
/// <param name="Writable">Open for writing.</param>
/// <param name="Options">The record of the driver's options.</param>
/// <param name="ForceShare">Read also what others may be writing to.</param>
public sealed record ProtocolOpenContext(string Locator, bool Writable, object Options, bool ForceShare = false);

/// <summary>One way to reach bytes: a local file, a device, a server. Stateless.</summary>
public abstract class ProtocolDriver
{
    /// <summary>The name in options and output, as QEMU spells it.</summary>
    public abstract string Name { get; }

    /// <summary>What it is, in one line.</summary>
    public abstract string Description { get; }

    /// <summary>The URI schemes it answers to, without the colon.</summary>
    public virtual IReadOnlyList<string> Schemes => [Name];

    /// <summary>Options when a node is opened.</summary>
    public virtual OptionSchema Options => OptionSchema.Empty;

    /// <summary>Opens what is there.</summary>
    public abstract ValueTask<BlockNode> OpenAsync(ProtocolOpenContext context, CancellationToken cancellationToken);
}

/// <summary>What a host is told of a new file while it is empty; a host that has no such distinction takes no notice.</summary>
/// <param name="AllowsHoles">It may be marked sparse. If not, it is marked neither sparse nor compressed nor encrypted, also where its folder says so: Hyper-V refuses such files.</param>
/// <param name="NoCow">Its data are to be overwritten in place where the file system would copy on write (btrfs).</param>
public readonly record struct StorageTraits(bool AllowsHoles, bool NoCow);

/// <summary>A protocol that can make new, empty nodes, and name, replace and remove them.</summary>
public interface IStorage
{
    /// <summary>Makes a new node of length 0, open for writing. An existing one is refused (AlreadyExists).</summary>
    /// <param name="locator">Where it is to be.</param>
    /// <param name="traits">What the host is to know about it from the start.</param>
    /// <param name="cancellationToken">Stops it.</param>
    ValueTask<BlockNode> CreateAsync(string locator, StorageTraits traits, CancellationToken cancellationToken);

    /// <summary>True if something is there that can be replaced or removed as a whole (a file, not a device).</summary>
    /// <exception cref="DiskImageException">InvalidOption: nothing that could be made can bear the name.</exception>
    bool IsReplaceable(string locator);

    /// <summary>True if something is there.</summary>
    /// <exception cref="DiskImageException">InvalidOption: nothing that could be made can bear the name.</exception>
    bool Exists(string locator);

    /// <summary>Renames, replacing what bears the new name in one step.</summary>
    void Replace(string locator, string newLocator);

    /// <summary>Removes.</summary>
    void Remove(string locator);
}
