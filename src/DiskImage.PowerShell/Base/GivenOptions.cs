using System.Collections.ObjectModel;
using System.Management.Automation;
using System.Reflection;
using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Options;

namespace DiskImage.PowerShell;

/// <summary>
/// Options of a format, gathered from everywhere a user can give them: <c>-Option</c> and the dynamic parameters made from the schema.
/// </summary>
/// <param name="schema">The options there are.</param>
internal class GivenOptions(OptionSchema schema)
{
    private readonly Dictionary<string, (object? Value, string GivenBy)> _values = new(StringComparer.OrdinalIgnoreCase);

    /// <summary>The names of what was given.</summary>
    public IReadOnlyCollection<string> Names => _values.Keys;

    private protected OptionSchema Schema { get; } = schema;

    /// <summary>The options there are.</summary>
    public OptionSchema Known => Schema;

    /// <summary>Parameters for a schema's options.</summary>
    /// <param name="schema">The options.</param>
    /// <param name="cmdlet">The cmdlet that is to have them; its own parameters come first.</param>
    /// <param name="completer">Completes the values of enumerations.</param>
    public static RuntimeDefinedParameterDictionary Parameters(OptionSchema schema, Type cmdlet, Type completer)
    {
        HashSet<string> taken = StaticNames(cmdlet);
        var parameters = new RuntimeDefinedParameterDictionary();
        foreach (OptionDescriptor option in schema.Options.Where(o => !taken.Contains(o.PropertyName)))
        {
            var attributes = new Collection<Attribute> { new ParameterAttribute { HelpMessage = option.Help } };
            if (!taken.Contains(option.Name) && !option.Name.Equals(option.PropertyName, StringComparison.OrdinalIgnoreCase))
            {
                attributes.Add(new AliasAttribute(option.Name));
            }
            if (option.IsSize)
            {
                attributes.Add(new ByteSizeAttribute());
                if (option.PropertyName.EndsWith("Size", StringComparison.Ordinal))
                {
                    attributes.Add(new AliasAttribute($"{option.PropertyName}Bytes")); // as Hyper-V's cmdlets end their names
                }
            }
            if (option.AllowedValues.Count > 0)
            {
                attributes.Add(new ArgumentCompleterAttribute(completer));
            }
            Type type = option.Type == typeof(bool) ? typeof(SwitchParameter) : option.AllowedValues.Count > 0 ? typeof(string)
                : option.Type;
            parameters.Add(option.PropertyName, new RuntimeDefinedParameter(option.PropertyName, type, attributes));
        }
        return parameters;
    }

    /// <summary>Takes what was given for <c>-Option</c>.</summary>
    public void Add(object? option)
    {
        foreach ((string name, object? value) in OptionSchema.Values(OptionArgument.Unwrap(option)))
        {
            Take(name, value, "-Option");
        }
    }

    /// <summary>Takes the dynamic parameters that were given.</summary>
    public void Add(RuntimeDefinedParameterDictionary? parameters)
    {
        foreach (RuntimeDefinedParameter given in (parameters?.Values ?? Enumerable.Empty<RuntimeDefinedParameter>()).Where(p => p.IsSet))
        {
            string? name = Schema.Options.FirstOrDefault(o => o.PropertyName.Equals(given.Name, StringComparison.Ordinal))?.Name;
            Take(name ?? given.Name, given.Value is SwitchParameter value ? value.ToBool() : given.Value, $"-{given.Name}");
        }
    }

    /// <summary>Takes a value that was found out, unless the user gave one.</summary>
    public void TakeUnlessGiven(string name, object? value) => _ = _values.TryAdd(name, (value, ""));

    /// <summary>Sets a value that was found out, over whatever was given.</summary>
    public void Set(string name, object? value) => _values[name] = (value, "");

    /// <summary>The format's record.</summary>
    /// <exception cref="DiskImageException">InvalidOption.</exception>
    public virtual object Bind() => Schema.Bind(Given());

    /// <summary>All that was given or found out, by name.</summary>
    private protected IEnumerable<KeyValuePair<string, object?>> Given()
        => _values.Select(v => new KeyValuePair<string, object?>(v.Key, v.Value.Value));

    /// <summary>The value of an option as it was given; null if it was not.</summary>
    private protected object? ValueOf(string name) => _values.TryGetValue(name, out var given) ? given.Value : null;

    /// <summary>Takes one value.</summary>
    /// <param name="name">The option.</param>
    /// <param name="value">Its value.</param>
    /// <param name="givenBy">What gives it, for messages.</param>
    /// <exception cref="DiskImageException">InvalidOption: it is given already.</exception>
    public void Take(string name, object? value, string givenBy)
    {
        if (_values.TryGetValue(name, out (object? Value, string GivenBy) other))
        {
            throw new DiskImageException(
                DiskImageErrorKind.InvalidOption, $"Option '{name}' is given twice: by {other.GivenBy} and by {givenBy}.");
        }
        _values.Add(name, (value, givenBy));
    }

    /// <summary>The names that a dynamic parameter may not have.</summary>
    private static HashSet<string> StaticNames(Type cmdlet)
    {
        var names = new HashSet<string>(Cmdlet.CommonParameters.Concat(Cmdlet.OptionalCommonParameters), StringComparer.OrdinalIgnoreCase)
        {
            nameof(ICreateOptions.Size), nameof(ICreateOptions.BackingFile), nameof(ICreateOptions.BackingFormat),
        };
        foreach (PropertyInfo property in cmdlet.GetProperties().Where(p => p.IsDefined(typeof(ParameterAttribute))))
        {
            _ = names.Add(property.Name);
            names.UnionWith(property.GetCustomAttribute<AliasAttribute>()?.AliasNames ?? []);
        }
        return names;
    }
}
