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

    /// <summary>Which bytes an address leads to, without opening them; null if nothing is there. The same as the open node's.</summary>
    /// <param name="locator">The address without its scheme.</param>
    public virtual NodeIdentity? IdentityOf(string locator) => new($"{Name}:{locator}");

    /// <summary>Opens what is there.</summary>
    public abstract ValueTask<BlockNode> OpenAsync(ProtocolOpenContext context, CancellationToken cancellationToken);
}
