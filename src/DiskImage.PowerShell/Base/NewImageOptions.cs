using System.Collections.ObjectModel;
using System.Management.Automation;
using System.Reflection;
using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Options;

namespace DiskImage.PowerShell;

/// <summary>
/// The create options of one image, gathered from everywhere a user can give them: the cmdlet's own parameters, <c>-Option</c>,
/// and the dynamic parameters made from the format's schema.
/// </summary>
internal sealed class NewImageOptions
{
    private readonly Dictionary<string, (object? Value, string GivenBy)> _values = new(StringComparer.OrdinalIgnoreCase);
    private readonly OptionSchema _schema;

    /// <summary>No options yet.</summary>
    /// <exception cref="DiskImageException">Unsupported: such images cannot be made.</exception>
    public NewImageOptions(FormatDriver format)
    {
        Format = format;
        _schema = (format as ICreatable)?.CreateOptions
            ?? throw new DiskImageException(DiskImageErrorKind.Unsupported, $"Images of format '{format.Name}' can be read but not made.");
    }

    public FormatDriver Format { get; }

    /// <summary>The dynamic parameters of a cmdlet that makes images of a format; null if there are none.</summary>
    public static RuntimeDefinedParameterDictionary? Parameters(FormatDriver? format, Type cmdlet)
    {
        if (format is not ICreatable creatable)
        {
            return null;
        }
        HashSet<string> taken = StaticNames(cmdlet);
        var parameters = new RuntimeDefinedParameterDictionary();
        foreach (OptionDescriptor option in creatable.CreateOptions.Options.Where(o => !taken.Contains(o.PropertyName)))
        {
            var attributes = new Collection<Attribute> { new ParameterAttribute { HelpMessage = option.Help } };
            if (!taken.Contains(option.Name) && !option.Name.Equals(option.PropertyName, StringComparison.OrdinalIgnoreCase))
            {
                attributes.Add(new AliasAttribute(option.Name));
            }
            if (option.IsSize)
            {
                attributes.Add(new ByteSizeAttribute());
            }
            if (option.AllowedValues.Count > 0)
            {
                attributes.Add(new ArgumentCompleterAttribute(typeof(CreateOptionValueCompleter)));
            }
            Type type = option.Type == typeof(bool) ? typeof(SwitchParameter) : option.AllowedValues.Count > 0 ? typeof(string) : option.Type;
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
            string? name = _schema.Options.FirstOrDefault(o => o.PropertyName.Equals(given.Name, StringComparison.Ordinal))?.Name;
            Take(name ?? given.Name, given.Value is SwitchParameter value ? value.ToBool() : given.Value, $"-{given.Name}");
        }
    }

    /// <summary>Takes a value of the cmdlet's own parameter for a member of <see cref="ICreateOptions"/>; null was not given.</summary>
    public void Add(string member, object? value, string parameter)
    {
        if (value is not null)
        {
            string name = NameOf(member)
                ?? throw new DiskImageException(DiskImageErrorKind.Unsupported, $"An image of format '{Format.Name}' takes no -{parameter}. Other formats may: see Get-DiskImageFormat.");
            Take(name, value, $"-{parameter}");
        }
    }

    /// <summary>The value of a member of <see cref="ICreateOptions"/> as it was given; null if it was not.</summary>
    public object? Given(string member) => NameOf(member) is { } name && _values.TryGetValue(name, out var given) ? given.Value : null;

    /// <summary>Sets a value that was found out, over whatever was given.</summary>
    public void Set(string name, object? value) => _values[name] = (value, "");

    /// <summary>Like <see cref="Set"/>, for a member of <see cref="ICreateOptions"/>, which every format has.</summary>
    public void SetMember(string member, object? value) => Set(NameOf(member)!, value);

    /// <summary>The format's record.</summary>
    /// <exception cref="DiskImageException">InvalidOption.</exception>
    public object Bind() => _schema.Bind(_values.Select(v => new KeyValuePair<string, object?>(v.Key, v.Value.Value)));

    private string? NameOf(string member) => _schema.Options.FirstOrDefault(o => o.PropertyName.Equals(member, StringComparison.Ordinal))?.Name;

    private void Take(string name, object? value, string givenBy)
    {
        if (_values.TryGetValue(name, out (object? Value, string GivenBy) other))
        {
            throw new DiskImageException(DiskImageErrorKind.InvalidOption, $"Option '{name}' is given twice: by {other.GivenBy} and by {givenBy}.");
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
