using System.Collections;
using System.Globalization;
using System.Reflection;
using DiskImage.Block;

namespace DiskImage.Options;

/// <summary>The options of one driver, read once from its options record. Every front end takes them from here.</summary>
public sealed class OptionSchema
{
    private readonly Type _record;
    private readonly Lazy<Dictionary<string, OptionDescriptor>> _named; // most drivers of a program are never asked for theirs
    private readonly Lazy<IReadOnlyList<OptionDescriptor>> _options;

    private OptionSchema(Type record)
    {
        _record = record;
        _named = new(Read);
        _options = new(() => [.. ByName.Values]);
    }

    /// <summary>A driver without options.</summary>
    public static OptionSchema Empty { get; } = Of<NoOptions>();

    /// <summary>The options, in the order of the record's properties.</summary>
    public IReadOnlyList<OptionDescriptor> Options => _options.Value;

    private Dictionary<string, OptionDescriptor> ByName => _named.Value;

    /// <summary>The schema of an options record.</summary>
    public static OptionSchema Of<T>()
        where T : class, new()
        => new(typeof(T));

    /// <summary>The option of this name, or null.</summary>
    public OptionDescriptor? Find(string name) => ByName.GetValueOrDefault(name);

    /// <summary>A record with every option at its default.</summary>
    public object Defaults() => Activator.CreateInstance(_record)!;

    /// <summary>Builds the record from named values; a value may be text or already of the right type.</summary>
    /// <exception cref="DiskImageException">InvalidOption: unknown name (with near misses) or a value that is not allowed.</exception>
    public object Bind(IEnumerable<KeyValuePair<string, object?>> values)
    {
        object record = Defaults();
        foreach ((string name, object? value) in values)
        {
            (Find(name) ?? throw Unknown(name)).Set(record, value);
        }
        return record;
    }

    /// <summary>
    /// Splits option text, <c>cluster_size=64k,lazy_refcounts</c>. Two commas stand for one in a value; a bare name means on.
    /// </summary>
    public static IEnumerable<KeyValuePair<string, object?>> Split(string text)
    {
        const char Comma = '\u0001';
        string marked = text.Replace(",,", Comma.ToString(), StringComparison.Ordinal);
        foreach (string part in marked.Split(',', StringSplitOptions.RemoveEmptyEntries))
        {
            string[] pair = part.Replace(Comma, ',').Split('=', 2);
            yield return new(pair[0].Trim(), pair.Length == 2 ? pair[1] : "on");
        }
    }

    /// <summary>Named values from what a user can give: null, option text, a list of these, or any dictionary or list of pairs.</summary>
    /// <exception cref="DiskImageException">InvalidOption: it is something else.</exception>
    public static IEnumerable<KeyValuePair<string, object?>> Values(object? given) => given switch
    {
        null => [],
        string text => Split(text),
        DictionaryEntry pair => [new(TextOf(pair.Key), pair.Value)],
        IEnumerable list => list.Cast<object?>().SelectMany(Values),
        _ when given.GetType() is { IsGenericType: true } type && type.GetGenericTypeDefinition() == typeof(KeyValuePair<,>)
            => [new(TextOf(type.GetProperty("Key")!.GetValue(given)), type.GetProperty("Value")!.GetValue(given))],
        _ => throw new DiskImageException(
            DiskImageErrorKind.InvalidOption,
            $"Options are given as text (name=value,name=value) or as a dictionary, not as {given.GetType().Name}."),
    };

    private Dictionary<string, OptionDescriptor> Read()
    {
        var byName = new Dictionary<string, OptionDescriptor>(StringComparer.OrdinalIgnoreCase);
        Add(byName, Activator.CreateInstance(_record)!, group: null, prefix: "");
        return byName;
    }

    private static void Add(Dictionary<string, OptionDescriptor> byName, object defaults, PropertyInfo? group, string prefix)
    {
        foreach (PropertyInfo property in defaults.GetType().GetProperties())
        {
            if (property.GetCustomAttribute<DriverOptionAttribute>() is { } mark)
            {
                var option = new OptionDescriptor(property, mark, property.GetValue(defaults), group, prefix);
                byName.Add(option.Name, option);
            }
            else if (group is null && property.GetCustomAttribute<DriverOptionGroupAttribute>() is { } inner)
            {
                Add(byName, property.GetValue(defaults)!, property, inner.Prefix);
            }
        }
    }

    private static string TextOf(object? key) => Convert.ToString(key, CultureInfo.InvariantCulture) ?? "";

    private DiskImageException Unknown(string name)
    {
        string hint = ByName.Count == 0 ? "It has no options." : KnownNames.Hint(name, ByName.Keys);
        return new DiskImageException(DiskImageErrorKind.InvalidOption, $"Unknown option '{name}'. {hint}");
    }

    private sealed record NoOptions;
}
