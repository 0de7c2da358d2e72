using System.Collections;
using System.Globalization;
using DiskImage.Block;

namespace DiskImage.Graph;

/// <summary>
/// What is to be opened, as data: a driver, its options, and further descriptions, one in another. Paths, URIs, <c>json:</c>, dotted
/// option text and tables all become this, and it prints back as <c>json:</c> in one canonical form (<see cref="ToString"/>).
/// </summary>
/// <remarks>
/// A description is a tree that knows no driver: which members are children and which are options with a dot in their names, the driver
/// declares. So a description of a driver that is not there can still be read, shown and refused. The names are QEMU's (blockdev-add).
/// </remarks>
public sealed class NodeSpec
{
    /// <summary>Descriptions inside each other at most. Ours.</summary>
    internal const int MaximumDepth = 32;

    /// <summary>Members in a whole description at most. Ours.</summary>
    internal const int MaximumMembers = 4096;

    internal const string DriverKey = "driver", NodeNameKey = "node-name", ReadOnlyKey = "read-only", FileNameKey = "filename";
    internal const string ForceShareKey = "force-share", SnapshotKey = "snapshot", CacheKey = "cache", DiscardKey = "discard";
    internal const string ShareWritesKey = "share-rw";
    internal const string DetectZeroesKey = "detect-zeroes", FileRole = "file", ImageRole = "image";

    private readonly SortedDictionary<string, object?> _members = new(StringComparer.Ordinal);

    private NodeSpec()
    {
    }

    /// <summary>The driver's name; null to find the format by probing, and the protocol by the file name.</summary>
    public string? Driver => Text(DriverKey);

    /// <summary>The name by which other parts of the description refer to this node; null if it has none.</summary>
    public string? NodeName => Text(NodeNameKey);

    /// <summary>The path or URI that a protocol is to open; null if the description names none here.</summary>
    public string? FileName => Text(FileNameKey);

    /// <summary>
    /// The members by name: text, <see cref="bool"/>, <see cref="long"/>, null, or a <see cref="NodeSpec"/>. A list
    /// has the members 0, 1, 2 …
    /// </summary>
    public IReadOnlyDictionary<string, object?> Members => _members;

    /// <summary>A description of one driver and some options.</summary>
    public static NodeSpec Of(string? driver, params ReadOnlySpan<(string Name, object? Value)> members)
    {
        var spec = new NodeSpec();
        if (driver is not null)
        {
            spec.Add(DriverKey, driver);
        }
        foreach ((string name, object? value) in members)
        {
            spec.Add(name, value);
        }
        return spec;
    }

    /// <summary>Reads named values: nested tables, lists and dotted names all say the same.</summary>
    /// <exception cref="DiskImageException">InvalidOption: a name that is empty, said twice, or both a value and a description.</exception>
    public static NodeSpec From(IEnumerable<KeyValuePair<string, object?>> values)
    {
        var spec = new NodeSpec();
        int count = 0;
        spec.AddAll(values, 0, ref count);
        return spec;
    }

    /// <summary>True if the description says anything under a name, be it that there is nothing (<c>"backing": null</c>).</summary>
    public bool Has(string name) => _members.ContainsKey(name);

    /// <summary>The member of a name, if it is a plain value: as text, as it would stand in option text.</summary>
    public string? Text(string name) => _members.TryGetValue(name, out object? value) && value is not NodeSpec ? TextOf(value) : null;

    /// <summary>
    /// What a child is to be: a <see cref="NodeSpec"/>, the name of a node, or null for none. Ask <see cref="Has"/> first.
    /// </summary>
    public object? Child(string role) => _members.GetValueOrDefault(role) switch
    {
        NodeSpec spec => spec,
        object value when TextOf(value) is { Length: > 0 } name => name,
        _ => null,
    };

    /// <summary>
    /// The options for the driver: every member but the general ones and the children. Of a member that is a description
    /// (<c>server</c>), each value under its dotted name (<c>server.host</c>).
    /// </summary>
    /// <param name="roles">Tells which members are children.</param>
    public IEnumerable<KeyValuePair<string, object?>> Options(Predicate<string> roles)
    {
        ArgumentNullException.ThrowIfNull(roles);
        return Flat(this, "").Where(
            p => Head(p.Key) is not (DriverKey or NodeNameKey or ReadOnlyKey or ForceShareKey or SnapshotKey or CacheKey or DiscardKey
                or DetectZeroesKey or ShareWritesKey) && !roles(Head(p.Key)));
    }

    /// <summary>What is at the bottom of the files: the description of a protocol, as a rule.</summary>
    internal NodeSpec Leaf
    {
        get
        {
            NodeSpec spec = this;
            while ((spec._members.GetValueOrDefault(FileRole) ?? spec._members.GetValueOrDefault(ImageRole)) is NodeSpec below)
            {
                spec = below;
            }
            return spec;
        }
    }

    /// <summary>A switch that descriptions of all drivers have; false if nothing is said.</summary>
    /// <exception cref="DiskImageException">InvalidOption: it is neither on nor off.</exception>
    internal bool Switch(string name) => _members.GetValueOrDefault(name) switch
    {
        null => false,
        bool on => on,
        "on" or "true" or "yes" => true,
        "off" or "false" or "no" => false,
        object other => throw Error($"'{name}' is '{TextOf(other)}'; allowed: on, off"),
    };

    /// <summary>
    /// How writes of this node and those below reach the medium: the name of a mode (<c>cache=none</c>), or the parts of one
    /// (<c>cache.direct=on</c>), and where it says nothing what holds above.
    /// </summary>
    /// <exception cref="DiskImageException">InvalidOption: neither a mode nor a switch.</exception>
    internal CachePolicy CacheUnder(CachePolicy above) => _members.GetValueOrDefault(CacheKey) switch
    {
        null => above,
        NodeSpec parts => parts._members.Keys.FirstOrDefault(k => k is not ("direct" or "no-flush" or "writeback")) is { } unknown
            ? throw Error($"'{CacheKey}.{unknown}' is unknown; allowed: cache.direct, cache.no-flush, cache.writeback")
            : new CachePolicy(
                parts.Has("direct") ? parts.Switch("direct") : above.Direct,
                parts.Has("no-flush") ? parts.Switch("no-flush") : above.NoFlush,
                parts.Has("writeback") ? !parts.Switch("writeback") : above.WriteThrough),
        _ => CachePolicy.Of(Choice(CacheKey, CacheMode.Writeback)),
    };

    /// <summary>A member that is one of several words; the default if nothing is said.</summary>
    /// <exception cref="DiskImageException">InvalidOption: it is none of them.</exception>
    internal T Choice<T>(string name, T otherwise)
        where T : struct, Enum
    {
        if (!Has(name))
        {
            return otherwise;
        }
        string? text = Text(name);
        return Enum.GetValues<T>().Cast<T?>().FirstOrDefault(v => v.ToString()!.Equals(text, StringComparison.OrdinalIgnoreCase))
            ?? throw Error($"'{name}' is '{text}'; allowed: {string.Join(", ", Enum.GetNames<T>().Select(n => n.ToLowerInvariant()))}");
    }

    /// <summary>This description and all in it.</summary>
    internal IEnumerable<NodeSpec> SelfAndWithin => _members.Values.OfType<NodeSpec>().SelectMany(s => s.SelfAndWithin).Prepend(this);

    /// <summary>This description with a member set, or set anew.</summary>
    public NodeSpec With(string name, object? value)
    {
        NodeSpec copy = Copy();
        _ = copy._members.Remove(name);
        copy.Add(name, value);
        return copy;
    }

    /// <summary>This description without a member.</summary>
    public NodeSpec Without(string name)
    {
        NodeSpec copy = Copy();
        _ = copy._members.Remove(name);
        return copy;
    }

    /// <summary>This description, and where it says nothing what another one says; descriptions in it alike.</summary>
    public NodeSpec Over(NodeSpec other)
    {
        ArgumentNullException.ThrowIfNull(other);
        NodeSpec joined = Copy();
        foreach ((string name, object? value) in other._members)
        {
            if (!joined._members.TryGetValue(name, out object? mine))
            {
                joined._members.Add(name, value);
            }
            else if (mine is NodeSpec inner && value is NodeSpec under)
            {
                joined._members[name] = inner.Over(under);
            }
        }
        return joined;
    }

    /// <summary>
    /// The canonical <c>json:</c> text: the driver first, then the other members by name. Reading it gives this description again.
    /// </summary>
    public override string ToString() => NodeSpecJson.Write(this);

    /// <summary>A value as it stands in option text: <c>on</c> and <c>off</c>, digits, or itself.</summary>
    internal static string? TextOf(object? value) => value switch
    {
        null => null,
        bool on => on ? "on" : "off",
        _ => Convert.ToString(value, CultureInfo.InvariantCulture),
    };

    /// <summary>True if the members are 0, 1, 2 … and so stand for a list.</summary>
    internal bool IsList => _members.Count > 0
        && Enumerable.Range(0, _members.Count).All(i => Has(i.ToString(CultureInfo.InvariantCulture)));

    private static string Head(string name) => name.Split('.', 2)[0];

    private static IEnumerable<KeyValuePair<string, object?>> Flat(NodeSpec spec, string prefix)
    {
        foreach ((string name, object? value) in spec._members)
        {
            if (value is NodeSpec inner)
            {
                foreach (KeyValuePair<string, object?> nested in Flat(inner, $"{prefix}{name}."))
                {
                    yield return nested;
                }
            }
            else
            {
                yield return new($"{prefix}{name}", value);
            }
        }
    }

    private NodeSpec Copy()
    {
        var copy = new NodeSpec();
        foreach ((string name, object? value) in _members)
        {
            copy._members.Add(name, value);
        }
        return copy;
    }

    private void AddAll(IEnumerable<KeyValuePair<string, object?>> values, int depth, ref int count)
    {
        foreach ((string name, object? value) in values)
        {
            if (++count > MaximumMembers)
            {
                throw Error($"it has more than {MaximumMembers} members");
            }
            NodeSpec into = this;
            string[] steps = name.Split('.');
            if (depth + steps.Length > MaximumDepth)
            {
                throw Error($"its parts are nested more than {MaximumDepth} deep");
            }
            foreach (string step in steps[..^1])
            {
                into = into.Inner(step, name);
            }
            if (Nested(value) is { } nested)
            {
                into.Inner(steps[^1], name).AddAll(nested, depth + steps.Length, ref count);
            }
            else
            {
                into.Add(steps[^1], value, name);
            }
        }
    }

    /// <summary>The members of a table or list; null for a plain value.</summary>
    private static IEnumerable<KeyValuePair<string, object?>>? Nested(object? value) => value switch
    {
        string => null,
        NodeSpec spec => spec._members,
        IEnumerable<KeyValuePair<string, object?>> pairs => pairs,
        IDictionary table => table.Keys.Cast<object>().Select(k => new KeyValuePair<string, object?>(k.ToString() ?? "", table[k])),
        IEnumerable list => list.Cast<object?>().Select(
            (v, i) => new KeyValuePair<string, object?>(i.ToString(CultureInfo.InvariantCulture), v)),
        _ => null,
    };

    private NodeSpec Inner(string name, string whole)
    {
        if (!_members.TryGetValue(name, out object? value))
        {
            var made = new NodeSpec();
            Add(name, made, whole);
            return made;
        }
        return value as NodeSpec ?? throw Error($"'{whole}' goes into '{name}', which is already the value '{TextOf(value)}'");
    }

    private void Add(string name, object? value, string? whole = null)
    {
        if (name.Length == 0)
        {
            throw Error($"'{whole ?? name}' has an empty name in it");
        }
        if (!_members.TryAdd(name, Plain(value)))
        {
            throw Error($"'{whole ?? name}' is said twice");
        }
    }

    /// <summary>Numbers are long, everything else that is neither text, switch nor description becomes text.</summary>
    private static object? Plain(object? value) => value switch
    {
        null or string or bool or long or NodeSpec => value,
        int or uint or short or ushort or byte or sbyte => Convert.ToInt64(value, CultureInfo.InvariantCulture),
        _ => TextOf(value),
    };

    private static DiskImageException Error(string what)
        => new(DiskImageErrorKind.InvalidOption, $"This description of an image cannot be used: {what}.");
}
