using System.Globalization;
using System.Numerics;
using System.Reflection;
using DiskImage.Block;

namespace DiskImage.Options;

/// <summary>One option as every front end sees it: text, hashtable, dynamic parameter, completer, help table.</summary>
public sealed class OptionDescriptor
{
    private readonly DriverOptionAttribute _mark;
    private readonly PropertyInfo _property;
    private readonly PropertyInfo? _group;
    private readonly (string Spelling, object Value)[] _spellings;

    /// <summary>Describes a property of a record, or of a record within it.</summary>
    /// <param name="property">The property.</param>
    /// <param name="mark">What it says of itself.</param>
    /// <param name="defaultValue">Its value when nothing is given.</param>
    /// <param name="group">The outer record's property that holds the record with it; null if there is no outer one.</param>
    /// <param name="prefix">What the option's name begins with.</param>
    internal OptionDescriptor(
        PropertyInfo property, DriverOptionAttribute mark, object? defaultValue, PropertyInfo? group = null, string prefix = "")
    {
        (_property, _mark, _group, Default) = (property, mark, group, defaultValue);
        (Name, PropertyName) = (prefix + mark.Name, prefix.Length > 0 ? group!.Name + property.Name : property.Name);
        Type = Nullable.GetUnderlyingType(property.PropertyType) ?? property.PropertyType;
        _spellings = Type == typeof(bool) ? [("on", true), ("off", false)] : Type.IsEnum ? EnumSpellings(Type) : [];
        AllowedValues = [.. _spellings.Select(s => s.Spelling)];
    }

    /// <summary>The name in option text, in QEMU's spelling.</summary>
    public string Name { get; }

    /// <summary>The name as a cmdlet parameter.</summary>
    public string PropertyName { get; }

    /// <summary>The value's type, without its nullable wrapping.</summary>
    public Type Type { get; }

    /// <summary>The value when the option is not given; null where the driver decides.</summary>
    public object? Default { get; }

    /// <summary>What it does, in one line.</summary>
    public string Help => _mark.Help;

    /// <summary>The value is bytes and takes size suffixes.</summary>
    public bool IsSize => _mark.IsSize;

    /// <summary>The spellings of an enumeration or switch; empty for free values.</summary>
    public IReadOnlyList<string> AllowedValues { get; }

    /// <summary>What may be written, for error messages and help.</summary>
    public string AllowedText
    {
        get
        {
            if (AllowedValues.Count > 0)
            {
                return string.Join(", ", AllowedValues);
            }
            if (Type == typeof(string))
            {
                return "text";
            }
            string kind = _mark.PowerOfTwo ? "a power of two" : IsSize ? "a size" : "a number";
            return (_mark.Minimum, _mark.Maximum) switch
            {
                (long.MinValue, long.MaxValue) => kind,
                (long low, long.MaxValue) => $"{kind}, at least {Show(low)}",
                (long low, long high) => $"{kind} from {Show(low)} to {Show(high)}",
            };
        }
    }

    /// <summary>The default as option text; empty where there is none.</summary>
    public string DefaultText => Default switch
    {
        null => "",
        long number when IsSize => Show(number),
        object value => Array.Find(_spellings, s => s.Value.Equals(value)).Spelling
            ?? Convert.ToString(value, CultureInfo.InvariantCulture) ?? "",
    };

    /// <summary>Sets the option on its record from text or a typed value.</summary>
    /// <exception cref="DiskImageException">InvalidOption, naming the option, the value and what is allowed.</exception>
    internal void Set(object record, object? value)
    {
        object converted = Converted(value) ?? throw Wrong(value);
        if (converted is long or int && Convert.ToInt64(converted, CultureInfo.InvariantCulture) is long number
            && (number < _mark.Minimum || number > _mark.Maximum || (_mark.PowerOfTwo && !BitOperations.IsPow2(number))))
        {
            throw Wrong(value);
        }
        _property.SetValue(_group is null ? record : _group.GetValue(record), converted);
    }

    private object? Converted(object? value)
    {
        if (value is not null && Type.IsInstanceOfType(value))
        {
            return value;
        }
        string text = Convert.ToString(value, CultureInfo.InvariantCulture)?.Trim() ?? "";
        if (_spellings.Length > 0)
        {
            text = value is bool ? text.Equals("True", StringComparison.Ordinal) ? "on" : "off" : text;
            return Array.Find(_spellings, s => s.Spelling.Equals(text, StringComparison.OrdinalIgnoreCase)).Value ?? MoreSpellings(text);
        }
        if (Type == typeof(string))
        {
            return value is null ? null : text;
        }
        if (Type == typeof(long) && IsSize)
        {
            return SizeText.TryParse(text, out long size) ? size : null;
        }
        if (Type == typeof(long))
        {
            return long.TryParse(text, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out long number) ? number : null;
        }
        return int.TryParse(text, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out int small) ? small : null;
    }

    /// <summary>Further spellings that are understood but not shown.</summary>
    private object? MoreSpellings(string text)
    {
        if (Type == typeof(bool))
        {
            return text.ToUpperInvariant() switch { "TRUE" or "YES" or "1" => true, "FALSE" or "NO" or "0" => false, _ => null };
        }
        foreach (FieldInfo field in Type.GetFields(BindingFlags.Public | BindingFlags.Static))
        {
            if (field.Name.Equals(text, StringComparison.OrdinalIgnoreCase)
                || field.GetCustomAttribute<OptionTextAttribute>()?.Spellings.Contains(text, StringComparer.OrdinalIgnoreCase) == true)
            {
                return field.GetValue(null);
            }
        }
        return null;
    }

    private static (string Spelling, object Value)[] EnumSpellings(Type type)
        => [.. type.GetFields(BindingFlags.Public | BindingFlags.Static)
            .Select(f => (f.GetCustomAttribute<OptionTextAttribute>()?.Spellings[0] ?? f.Name.ToLowerInvariant(), f.GetValue(null)!))];

    private string Show(long number) => IsSize ? SizeText.Format(number) : number.ToString(CultureInfo.InvariantCulture);

    private DiskImageException Wrong(object? value)
    {
        string text = Convert.ToString(value, CultureInfo.InvariantCulture) ?? "";
        string why = IsSize && SizeText.IsTooLarge(text) ? $" {SizeText.WhyNot(text)}" : "";
        return new(DiskImageErrorKind.InvalidOption, $"Option '{Name}' cannot be '{text}'.{why} Allowed: {AllowedText}.");
    }
}
