namespace DiskImage.Options;

/// <summary>
/// Marks a record property as a driver option. The property's initial value is the default; its type decides what is allowed.
/// </summary>
/// <param name="name">The option's name in text, in QEMU's spelling.</param>
/// <param name="help">One line for tab completion and help, without a full stop.</param>
[AttributeUsage(AttributeTargets.Property)]
internal sealed class DriverOptionAttribute(string name, string help) : Attribute
{
    /// <summary>The option's name in text.</summary>
    public string Name { get; } = name;

    /// <summary>What it does, in one line.</summary>
    public string Help { get; } = help;

    /// <summary>The value is bytes; text may use the suffixes k, M, G, T, P, E (powers of 1024).</summary>
    public bool IsSize { get; init; }

    /// <summary>The smallest allowed number.</summary>
    public long Minimum { get; init; } = long.MinValue;

    /// <summary>The largest allowed number.</summary>
    public long Maximum { get; init; } = long.MaxValue;

    /// <summary>The number must be a power of two.</summary>
    public bool PowerOfTwo { get; init; }
}

/// <summary>
/// Marks a record property whose value is a record of options itself, which are then options of the outer record, too: several formats
/// share it. With a prefix, options are called prefix and name, and parameters by the two properties' names, one behind the other.
/// </summary>
/// <param name="prefix">What their names begin with, <c>encrypt.</c>; empty for nothing.</param>
[AttributeUsage(AttributeTargets.Property)]
internal sealed class DriverOptionGroupAttribute(string prefix = "") : Attribute
{
    /// <summary>What the options' names begin with.</summary>
    public string Prefix { get; } = prefix;
}

/// <summary>Gives an enumeration member its spellings in option text; the first is the one that is shown.</summary>
[AttributeUsage(AttributeTargets.Field)]
internal sealed class OptionTextAttribute(params string[] spellings) : Attribute
{
    /// <summary>The spellings, the preferred one first.</summary>
    public IReadOnlyList<string> Spellings { get; } = spellings;
}
