using System.Security;
using DiskImage.Block;
using DiskImage.Options;

namespace DiskImage.Drivers;

/// <summary>What every driver gets to open a node: nothing else reaches it from outside.</summary>
/// <param name="Options">The record of the driver's <see cref="NodeDriver.OpenOptions"/>.</param>
public abstract record NodeContext(object Options)
{
    /// <summary>What is to be done with the node, and what others may do meanwhile.</summary>
    public Access Access { get; init; } = Access.Reading;

    /// <summary>Secrets that the user gave, by the name or path they are for. A driver never shows one.</summary>
    public IReadOnlyDictionary<string, SecureString> Secrets { get; init; } = new Dictionary<string, SecureString>(StringComparer.Ordinal);
}

/// <summary>How secrets are called.</summary>
public static class SecretNames
{
    /// <summary>
    /// Beside a secret that is a password: the name under which the user's is found that it belongs to. No user can give that name.
    /// </summary>
    public static string UserOf(string secret) => $"{secret}\0user";
}

/// <summary>What formats, protocols and filters have in common. Stateless.</summary>
public abstract class NodeDriver
{
    /// <summary>The name in options and output, as QEMU spells it.</summary>
    public abstract string Name { get; }

    /// <summary>Other names that are understood.</summary>
    public virtual IReadOnlyList<string> Aliases => [];

    /// <summary>What it is, in one line.</summary>
    public abstract string Description { get; }

    /// <summary>Options when a node is opened.</summary>
    public virtual OptionSchema OpenOptions => OptionSchema.Empty;

    /// <summary>
    /// The nodes it may stand on, by role ("file", "backing"): what stands under these names in a description is another node. A role whose
    /// name is that of a list has its nodes as "children.0", "children.1" …
    /// </summary>
    public virtual IReadOnlyList<string> Roles => [];

    /// <summary>The record of options from named values.</summary>
    /// <exception cref="DiskImageException">InvalidOption.</exception>
    public virtual object Bind(IEnumerable<KeyValuePair<string, object?>> values) => OpenOptions.Bind(values);

    /// <summary>True for the driver's name and its other names, case ignored.</summary>
    public bool IsCalled(string name)
        => Name.Equals(name, StringComparison.OrdinalIgnoreCase) || Aliases.Contains(name, StringComparer.OrdinalIgnoreCase);
}

/// <summary>Opens the node that a filter stands on.</summary>
/// <param name="role">One of the names of <see cref="FilterOpenContext.Roles"/>.</param>
/// <param name="cancellationToken">Stops the opening.</param>
public delegate ValueTask<BlockNode> ChildOpener(string role, CancellationToken cancellationToken);

/// <summary>How many layers a node lies below the disk of a role: 0 for the disk itself, 1 for its backing image.</summary>
/// <param name="role">One of the names of <see cref="FilterOpenContext.Roles"/>.</param>
/// <param name="nodeName">What the description calls the node.</param>
/// <exception cref="DiskImageException">InvalidOption: none of its layers is called so, or a filter is.</exception>
public delegate int LayerFinder(string role, string nodeName);

/// <summary>What a filter gets to be opened.</summary>
/// <param name="Options">The record of the driver's options.</param>
/// <param name="Roles">The nodes that the description gives it: "file", "children.0" …</param>
/// <param name="OpenChild">Opens one of them, which is then the filter's to close; InvalidOption for one that is not given.</param>
public sealed record FilterOpenContext(object Options, IReadOnlyList<string> Roles, ChildOpener OpenChild) : NodeContext(Options)
{
    /// <summary>What it may share with other filters of the operation, by names in their descriptions.</summary>
    public SharedParts Shared { get; init; } = new();

    /// <summary>Finds a layer that the description names, once the child is open.</summary>
    public LayerFinder LayerOf { get; init; } = static (_, _) => 0;
}

/// <summary>A node that stands between others and changes what passes: slows it, records it, lets it fail.</summary>
public abstract class FilterDriver : NodeDriver
{
    /// <summary>What it stands on.</summary>
    protected const string FileRole = "file";

    /// <inheritdoc/>
    public override IReadOnlyList<string> Roles => [FileRole];

    /// <summary>
    /// True for a role that holds the disk: above a format it is a disk too, whose format is probed if none is
    /// named. False for plain bytes.
    /// </summary>
    public virtual bool HoldsDisk(string role) => true;

    /// <summary>
    /// Its options that name a node which it does not stand on: a layer further below. The node remains its owner's.
    /// </summary>
    public virtual IReadOnlyList<string> Mentions => [];

    /// <summary>
    /// Puts the filter over its children. If it fails, those that it opened are the caller's to close, and nothing is modified.
    /// </summary>
    public abstract ValueTask<BlockNode> OpenAsync(FilterOpenContext context, CancellationToken cancellationToken);
}
