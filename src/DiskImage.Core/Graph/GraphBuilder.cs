using DiskImage.Block;
using DiskImage.Drivers;

namespace DiskImage.Graph;

/// <summary>
/// From a description to open nodes. A description is read from the top: a format opens its file below, a filter its children, a protocol
/// what the host has. What the description says of a child comes before what the image says; names that only the image gives pass the gate.
/// </summary>
/// <remarks>
/// <para>One question decides what a description without a driver is: is a disk wanted, or bytes? A disk's file is opened and its format
/// probed; bytes are what its file name leads to. A protocol where a disk is wanted is a raw disk, unprobed: whoever names the protocol and
/// no format means its bytes.</para>
/// <para>What another description refers to by name is opened once, by whoever needs it first, and belongs to the
/// <see cref="ImageGraph"/>.</para>
/// </remarks>
internal sealed class GraphBuilder
{
    private readonly ImageOpener _opener;
    private readonly OpenRequest _request;
    private readonly ImageGraph _graph;
    private readonly Dictionary<string, NodeSpec> _named = new(StringComparer.Ordinal); // what descriptions refer to
    // those of them that are open; the graph owns them
    private readonly Dictionary<string, (OpenedDisk Disk, bool IsDisk)> _shared = new(StringComparer.Ordinal);
    private readonly HashSet<string> _opening = new(StringComparer.Ordinal);

    /// <summary>Makes a builder for one image.</summary>
    /// <param name="opener">Drivers and gate.</param>
    /// <param name="request">How the image is asked for.</param>
    /// <param name="root">Its description.</param>
    /// <param name="graph">Gets the named nodes.</param>
    public GraphBuilder(ImageOpener opener, OpenRequest request, NodeSpec root, ImageGraph graph)
    {
        (_opener, _request, _graph) = (opener, request, graph);
        NodeSpec[] all = [.. root.SelfAndWithin];
        foreach (NodeSpec spec in all.Where(s => s.NodeName is not null))
        {
            if (!_named.TryAdd(spec.NodeName!, spec))
            {
                throw Invalid($"two nodes of its description have the name '{spec.NodeName}'");
            }
        }
        string[] mentions = [NodeSpec.NodeNameKey, .. opener.Registry.Filters.SelectMany(f => f.Mentions)];
        var referred = all.SelectMany(s => s.Members).Where(
            m => !mentions.Contains(m.Key, StringComparer.Ordinal)).Select(m => m.Value).OfType<string>().ToHashSet(StringComparer.Ordinal);
        foreach (string name in _named.Keys.Where(n => !referred.Contains(n)).ToList())
        {
            _ = _named.Remove(name); // a name that nobody uses: the node belongs to who stands on it
        }
    }

    private DriverRegistry Registry => _opener.Registry;

    /// <summary>Opens a disk.</summary>
    /// <param name="spec">Its description; its driver may be a format, a filter over a disk, a protocol (then it is raw), or nobody
    /// (then it is probed).</param>
    /// <param name="site">Where in the graph it is to be.</param>
    /// <param name="cancellationToken">Stops the opening.</param>
    public async ValueTask<OpenedDisk> OpenDiskAsync(NodeSpec spec, GraphSite site, CancellationToken cancellationToken)
    {
        site = site.For(spec);
        NodeDriver? driver = spec.Driver is { } name ? Registry.Driver(name) : null;
        if (driver is FilterDriver filter)
        {
            return await OpenFilterAsync(filter, spec, site, cancellationToken).ConfigureAwait(false);
        }
        object? file = driver is ProtocolDriver ? spec : FileOf(spec, driver);
        string? format = site.Format ?? (driver as FormatDriver)?.Name
            ?? (driver is ProtocolDriver || IsDisk(file) ? Registry.Formats[0].Name : null);
        ChainLink link = LinkOf(file, site);
        // before it is opened: a file that is open for writing further up would seem to be somebody else's
        _opener.CheckChain(link, site.Chain);
        BlockNode bytes = await OpenBytesAsync(file, site, cancellationToken).ConfigureAwait(false);
        try
        {
            link = link with { Path = bytes.Name };
            NodeSpec own = driver is ProtocolDriver ? NodeSpec.Of(null) : spec;
            OpenedDisk disk = await new FormatOpening(this, _opener, _request, own, site with { Chain = [.. site.Chain, link] })
                .OpenAsync(bytes, format, cancellationToken).ConfigureAwait(false);
            return disk with { Node = UnderRules(own, disk.Node) };
        }
        catch
        {
            await Closing.FailedAsync(bytes).ConfigureAwait(false);
            throw;
        }
    }

    /// <summary>Opens what a description or a name leads to, as a disk.</summary>
    public ValueTask<OpenedDisk> OpenDiskAsync(object? child, GraphSite site, CancellationToken cancellationToken) => child switch
    {
        NodeSpec { NodeName: { } own } when _named.ContainsKey(own) => ShareAsync(own, isDisk: true, site, cancellationToken),
        NodeSpec spec => OpenDiskAsync(spec, site, cancellationToken),
        string name => ShareAsync(name, isDisk: true, site, cancellationToken),
        _ => throw Invalid("a node that it needs is said to be none"),
    };

    /// <summary>Opens what a description or a name leads to, as plain bytes.</summary>
    public async ValueTask<BlockNode> OpenBytesAsync(object? child, GraphSite site, CancellationToken cancellationToken)
    {
        if (child is string name || (child is NodeSpec { NodeName: { } own } && _named.ContainsKey(name = own)))
        {
            return (await ShareAsync(name, isDisk: false, site, cancellationToken).ConfigureAwait(false)).Node;
        }
        NodeSpec spec = child as NodeSpec ?? throw Invalid("a node that it needs is said to be none");
        site = site.For(spec) with { IsBytes = true };
        NodeDriver driver = DriverOf(spec);
        if (driver is not ProtocolDriver protocol)
        {
            return (driver is FilterDriver filter
                ? await OpenFilterAsync(filter, spec, site, cancellationToken).ConfigureAwait(false)
                : await OpenDiskAsync(spec, site with { Format = null, Options = null }, cancellationToken).ConfigureAwait(false)).Node;
        }
        object options = Bind(protocol, spec, site.Folder);
        if (Registry.Owner(protocol, options) is var owner && owner != protocol)
        {
            (protocol, options) = (owner, Bind(owner, spec, site.Folder));
            if (site.NamedBy is { } image)
            {
                _opener.Policy.RequireDeviceNamed(protocol.NameOf(options), image);
            }
        }
        if (site.Writable && protocol.NeedsPermissionToWrite)
        {
            _opener.Policy.RequireDeviceWrite(protocol.NameOf(options));
        }
        BlockNode node = await protocol.OpenAsync(
            new ProtocolOpenContext(options)
            {
                Access = site.AccessUnder(_opener.Policy),
                Secrets = _request.Secrets,
                Locking = _opener.Policy.Locking,
                Direct = site.Cache.Direct,
                Warn = _opener.Warn,
                Kept = _request.Kept,
            },
            cancellationToken).ConfigureAwait(false);
        return UnderRules(spec, site is { Writable: true, Cache.NoFlush: true } ? new DeferredFlushNode(node) : node);
    }

    /// <summary>
    /// A builder for what an image describes: names in it are its own, and what the user's description calls so is out of its reach.
    /// </summary>
    public GraphBuilder For(NodeSpec recorded) => new(_opener, _request, recorded, _graph);

    /// <summary>What of a description plain bytes are: of one that names no format, or says raw and no more, its file.</summary>
    public object BytesOf(NodeSpec spec)
        => spec.Child(NodeSpec.FileRole) is { } file && !spec.Options(m => m is NodeSpec.FileRole).Any()
            && (spec.Driver is not { } name || Registry.Driver(name) == Registry.Formats[0])
            ? file
            : spec;

    /// <summary>
    /// What a description is called that only names a file, and which bytes that are; for others its own text and no identity.
    /// </summary>
    public ChainLink LinkOf(object? child, GraphSite site)
    {
        NodeSpec? leaf = (child is string name ? _named.GetValueOrDefault(name) : child as NodeSpec)?.Leaf;
        if (leaf is null || DriverOf(leaf) is not ProtocolDriver protocol)
        {
            return new ChainLink(child?.ToString() ?? "", null);
        }
        object options = Bind(protocol, leaf, site.Folder);
        return new ChainLink(protocol.NameOf(options), protocol.IdentityOf(options));
    }

    /// <summary>
    /// True if a description says where its bytes are, and not only how something is to be opened that is named elsewhere.
    /// </summary>
    public bool IsComplete(object? child) => child switch
    {
        string => true,
        NodeSpec spec => spec.FileName is not null
            || IsComplete(spec.Child(
                spec.Driver is { } filter && Registry.Driver(filter) is FilterDriver { Roles: var roles } ? roles[0] : NodeSpec.FileRole))
            || (spec.Driver is { } name && Registry.Driver(name) is ProtocolDriver { TakesPaths: false }),
        _ => false,
    };

    /// <summary>True for a description of a protocol whose bytes are a disk's.</summary>
    private bool IsDisk(object? file)
        => file is NodeSpec spec && (spec.Driver ?? spec.FileName) is not null && DriverOf(spec) is ProtocolDriver { IsDisk: true };

    /// <summary>A node under what a description says of writes to it.</summary>
    private static BlockNode UnderRules(NodeSpec spec, BlockNode node)
    {
        ZeroWriteDetection zeroes = spec.Choice(NodeSpec.DetectZeroesKey, ZeroWriteDetection.Off);
        DiscardRule discards = spec.Choice(NodeSpec.DiscardKey, DiscardRule.Unmap);
        bool ignores = discards is DiscardRule.Ignore or DiscardRule.Off;
        return zeroes == ZeroWriteDetection.Off && !ignores ? node : new WriteRulesNode(node, zeroes, ignores);
    }

    private async ValueTask<OpenedDisk> OpenFilterAsync(
        FilterDriver filter, NodeSpec spec, GraphSite site, CancellationToken cancellationToken)
    {
        bool IsRole(string member) => filter.Roles.Contains(member, StringComparer.Ordinal);
        var roles = new List<string>();
        foreach (string role in filter.Roles.Where(spec.Has))
        {
            roles.AddRange(spec.Child(role) is NodeSpec { IsList: true } list ? list.Members.Keys.Select(k => $"{role}.{k}") : [role]);
        }
        if (roles.Count == 0)
        {
            throw Invalid($"the filter '{filter.Name}' needs '{filter.Roles[0]}', the node it stands on");
        }
        OpenedDisk? disk = null;
        var children = new List<BlockNode>();
        object? Child(string role)
            => role.Split('.', 2) is [var list, var item] ? ((NodeSpec)spec.Child(list)!).Child(item) : spec.Child(role);
        async ValueTask<BlockNode> OpenChildAsync(string role, CancellationToken token)
        {
            if (!roles.Contains(role, StringComparer.Ordinal))
            {
                throw Invalid($"the filter '{filter.Name}' needs '{role}'; given: {string.Join(", ", roles)}");
            }
            object? child = Child(role);
            bool isDisk = !site.IsBytes && filter.HoldsDisk(role);
            OpenedDisk opened = isDisk
                ? await OpenDiskAsync(child, site, token).ConfigureAwait(false)
                : new OpenedDisk(await OpenBytesAsync(child, site, token).ConfigureAwait(false), Registry.Formats[0], WasProbed: false);
            children.Add(opened.Node);
            disk ??= isDisk ? opened : null;
            return opened.Node;
        }
        var context = new FilterOpenContext(filter.Bind(spec.Options(IsRole)), roles, OpenChildAsync)
        {
            Access = site.AccessUnder(_opener.Policy), Secrets = _request.Secrets, Shared = _opener.Shared,
            LayerOf = (role, name) => LayerOf(Child(role), name),
        };
        try
        {
            BlockNode node = await filter.OpenAsync(context, cancellationToken).ConfigureAwait(false);
            return new OpenedDisk(UnderRules(spec, node), disk?.Format ?? Registry.Formats[0], disk?.WasProbed ?? false);
        }
        catch
        {
            await Closing.FailedAsync(children).ConfigureAwait(false);
            throw;
        }
    }

    /// <summary>
    /// How many layers below a disk the node of a name is. The disk is followed through filters, and no further than it is described.
    /// </summary>
    private int LayerOf(object? child, string name)
    {
        var names = new List<string>();
        for (int layer = 0; ;)
        {
            if ((child is string other ? _named.GetValueOrDefault(other) : child as NodeSpec) is not { } spec)
            {
                string known = names.Count == 0
                    ? "Its layers have no names: give one its own with backing.node-name" : $"Its layers: {string.Join(", ", names)}";
                throw Invalid($"there is no node '{name}' among the layers of its disk. {known}");
            }
            var filter = spec.Driver is { } driver ? Registry.Driver(driver) as FilterDriver : null;
            if (spec.NodeName is { } own && own.Equals(name, StringComparison.Ordinal))
            {
                return filter is null ? layer
                    : throw Invalid($"the node '{name}' is the filter '{filter.Name}' and no layer. Name the image that it stands on");
            }
            names.AddRange(filter is null && spec.NodeName is { } called ? [called] : []);
            child = spec.Child(filter?.Roles[0] ?? FormatOpening.BackingChild);
            layer += filter is null ? 1 : 0;
        }
    }

    /// <summary>A node that several may stand on: the first opens it, all borrow it.</summary>
    private async ValueTask<OpenedDisk> ShareAsync(string name, bool isDisk, GraphSite site, CancellationToken cancellationToken)
    {
        if (!_shared.TryGetValue(name, out (OpenedDisk Disk, bool IsDisk) shared))
        {
            if (!_named.TryGetValue(name, out NodeSpec? spec))
            {
                string known = _named.Count == 0
                    ? "Its description names no nodes; a file is named by file.filename"
                    : $"Nodes: {string.Join(", ", _named.Keys)}";
                throw Invalid($"there is no node '{name}'. {known}");
            }
            if (!_opening.Add(name))
            {
                throw Invalid($"the node '{name}' would stand on itself");
            }
            NodeSpec anonymous = spec.Without(NodeSpec.NodeNameKey); // or it would be asked for by its name again
            OpenedDisk opened;
            try
            {
                opened = isDisk
                    ? await OpenDiskAsync(anonymous, site, cancellationToken).ConfigureAwait(false)
                    : new OpenedDisk(
                        await OpenBytesAsync(anonymous, site, cancellationToken).ConfigureAwait(false),
                        Registry.Formats[0],
                        WasProbed: false);
            }
            finally
            {
                _ = _opening.Remove(name);
            }
            _graph.Add(name, opened.Node);
            shared = (opened, isDisk);
            _shared.Add(name, shared);
        }
        return shared.IsDisk != isDisk
            ? throw Invalid($"the node '{name}' is used as a disk and as the bytes of a file; describe the two as nodes of their own")
            : site.Writable && shared.Disk.Node.IsReadOnly
            ? throw Invalid($"the node '{name}' is read-only where it is used first, and to be written to here")
            : shared.Disk with { Node = new BorrowedNode(shared.Disk.Node, isReadOnly: !site.Writable) };
    }

    private object? FileOf(NodeSpec spec, NodeDriver? driver)
        => spec.Has(NodeSpec.FileRole) && spec.FileName is { } second
            ? throw Invalid($"it says both file and filename ('{second}'); the file's name is file.filename")
            : spec.Has(NodeSpec.FileRole) ? spec.Child(NodeSpec.FileRole)
            : spec.FileName is { } name ? NodeSpec.Of(null, (NodeSpec.FileNameKey, name))
            : throw Invalid($"{(driver is null ? "its description" : $"the format '{driver.Name}'")} says neither file "
                + $"nor file.filename, where the image is");

    private NodeDriver DriverOf(NodeSpec spec)
    {
        if (spec.Driver is { } name)
        {
            return Registry.Driver(name);
        }
        string text = spec.FileName ?? throw Invalid("a part of its description has neither driver nor filename");
        return Registry.Protocol(ImageLocator.Parse(text).Scheme);
    }

    /// <summary>
    /// The options of a protocol: those that are said, and those that a file name stands for. A relative path is taken from a folder; one
    /// of a folder that is an image leads to the file in it that opens it.
    /// </summary>
    private object Bind(ProtocolDriver protocol, NodeSpec spec, string? folder)
    {
        var options = new Dictionary<string, object?>(StringComparer.OrdinalIgnoreCase);
        if (spec.FileName is { } name)
        {
            string address = protocol.TakesPaths && spec.Driver is null ? ImageLocator.Parse(name).Address : name;
            address = protocol.TakesPaths && folder is not null
                ? ImageLocator.PathFrom(folder, address, OperatingSystem.IsWindows())
                : address;
            foreach ((string option, object? value) in protocol.Parse(protocol.TakesPaths ? Inside(protocol, address) : address))
            {
                options[option] = value;
            }
        }
        foreach ((string option, object? value) in spec.Options(_ => false))
        {
            if (!option.Equals(NodeSpec.FileNameKey, StringComparison.Ordinal))
            {
                options[option] = value;
            }
        }
        object bound = protocol.Bind(options);
        return folder is null ? bound : protocol.From(bound, path => ImageLocator.PathFrom(folder, path, OperatingSystem.IsWindows()));
    }

    private string Inside(ProtocolDriver protocol, string path)
    {
        foreach (string name in path.Length == 0 ? [] : Registry.Formats.Select(f => f.FolderFile).OfType<string>())
        {
            string inside = Path.Combine(path, name);
            if (protocol.IdentityOf(protocol.Bind(protocol.Parse(inside))) is not null)
            {
                return inside;
            }
        }
        return path;
    }

    private DiskImageException Invalid(string what)
        => new(DiskImageErrorKind.InvalidOption, $"{_request.Locator}: {what}.", _request.Locator);
}
