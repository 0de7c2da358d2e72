using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Options;

namespace DiskImage.PowerShell;

/// <summary>What a driver is for.</summary>
public enum DiskImageDriverKind
{
    /// <summary>A format of images.</summary>
    Format,

    /// <summary>A way to reach bytes.</summary>
    Protocol,

    /// <summary>What stands between nodes and changes what passes.</summary>
    Filter,

    /// <summary>All of them.</summary>
    Any,
}

/// <summary>An image format of this module, or another driver.</summary>
public sealed class DiskImageFormat
{
    /// <summary>The name, as QEMU spells it.</summary>
    public required string Name { get; init; }

    /// <summary>What it is for: Format, Protocol or Filter.</summary>
    public required string Kind { get; init; }

    /// <summary>Other names that are understood.</summary>
    public required ReadableList<string> Aliases { get; init; }

    /// <summary>What it is.</summary>
    public required string Description { get; init; }

    /// <summary>File name endings that stand for it, the usual one first.</summary>
    public required ReadableList<string> Extensions { get; init; }

    /// <summary>New images of it can be made.</summary>
    public required bool CanCreate { get; init; }

    /// <summary>An image of it can stand on a backing image.</summary>
    public required bool CanHaveBacking { get; init; }

    /// <summary>
    /// What the cmdlets can do with it: Create, Measure, Amend, Check, Repair, Rebase, Empty, Compact, Compress, Snapshot, Bitmap.
    /// </summary>
    public required ReadableList<string> Abilities { get; init; }

    /// <summary>Options for <c>-Option</c> when an image is made.</summary>
    public required ReadableList<DiskImageFormatOption> CreateOptions { get; init; }

    /// <summary>Options for <c>-OpenOption</c> when an image is opened; of protocols and filters for <c>-ImageOption</c>.</summary>
    public required ReadableList<DiskImageFormatOption> OpenOptions { get; init; }

    /// <inheritdoc/>
    public override string ToString() => Name;

    private static readonly (string Name, Type Type)[] s_abilities =
    [
        ("Create", typeof(ICreatable)), (
            "Measure", typeof(IMeasurable)), ("Amend", typeof(IAmendable)), ("Check", typeof(ICheckable)), ("Repair", typeof(IRepairable)),
        ("Rebase", typeof(IRebasable)),
        ("Empty", typeof(IEmptiable)),
        ("Compact", typeof(ICompactable)),
        ("Compress", typeof(ICompressedWritable)),
        ("Snapshot", typeof(ISnapshots)), ("Bitmap", typeof(IBitmaps)),
    ];

    internal static DiskImageFormat Of(NodeDriver driver)
    {
        OptionSchema create = (driver as ICreatable)?.CreateOptions ?? OptionSchema.Empty;
        return new DiskImageFormat
        {
            Name = driver.Name,
            Kind = KindOf(driver).ToString(),
            Aliases = new(driver.Aliases),
            Description = driver.Description,
            Extensions = new((driver as FormatDriver)?.Extensions ?? []),
            CanCreate = driver is ICreatable or IStorage,
            CanHaveBacking = create.Options.Any(o => o.PropertyName.Equals(nameof(ICreateOptions.BackingFile), StringComparison.Ordinal)),
            Abilities = new(s_abilities.Where(a => (
                (driver as FormatDriver)?.NodeTypes ?? []).Append(driver.GetType()).Any(a.Type.IsAssignableFrom)).Select(a => a.Name)),
            CreateOptions = new(create.Options.Select(o => DiskImageFormatOption.Of(driver, o))),
            OpenOptions = new(driver.OpenOptions.Options.Select(o => DiskImageFormatOption.Of(driver, o))),
        };
    }

    internal static DiskImageDriverKind KindOf(NodeDriver driver) => driver switch
    {
        FormatDriver => DiskImageDriverKind.Format,
        ProtocolDriver => DiskImageDriverKind.Protocol,
        _ => DiskImageDriverKind.Filter,
    };
}

/// <summary>An option of a format.</summary>
public sealed class DiskImageFormatOption(
    string format, string name, string parameter, string @default, string allowed, string description)
{
    /// <summary>The format's name.</summary>
    public string Format { get; } = format;

    /// <summary>The option's name in option text and dictionaries, as QEMU spells it.</summary>
    public string Name { get; } = name;

    /// <summary>Its name as a parameter of the cmdlets that make images.</summary>
    public string Parameter { get; } = parameter;

    /// <summary>The value if it is not given, as text; empty where the format decides.</summary>
    public string Default { get; } = @default;

    /// <summary>What may be given.</summary>
    public string Allowed { get; } = allowed;

    /// <summary>What it does.</summary>
    public string Description { get; } = description;

    /// <inheritdoc/>
    public override string ToString() => Name;

    internal static DiskImageFormatOption Of(NodeDriver driver, OptionDescriptor option)
        => new(driver.Name, option.Name, option.PropertyName, option.DefaultText, option.AllowedText, option.Help);
}
