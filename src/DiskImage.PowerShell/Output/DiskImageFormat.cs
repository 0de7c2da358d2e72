using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Options;

namespace DiskImage.PowerShell;

/// <summary>An image format of this module.</summary>
public sealed record DiskImageFormat
{
    /// <summary>The name, as QEMU spells it.</summary>
    public required string Name { get; init; }

    /// <summary>Other names that are understood.</summary>
    public required IReadOnlyList<string> Aliases { get; init; }

    /// <summary>What it is.</summary>
    public required string Description { get; init; }

    /// <summary>File name endings that stand for it, the usual one first.</summary>
    public required IReadOnlyList<string> Extensions { get; init; }

    /// <summary>New images of it can be made.</summary>
    public required bool CanCreate { get; init; }

    /// <summary>An image of it can stand on a backing image.</summary>
    public required bool CanHaveBacking { get; init; }

    /// <summary>What the cmdlets can do with it: Create, Measure, Amend, Check, Repair, Rebase, Empty, Compact, Compress, Snapshot, Bitmap.</summary>
    public required IReadOnlyList<string> Abilities { get; init; }

    /// <summary>Options for <c>-Option</c> when an image is made.</summary>
    public required IReadOnlyList<DiskImageFormatOption> CreateOptions { get; init; }

    /// <summary>Options for <c>-OpenOption</c> when an image is opened.</summary>
    public required IReadOnlyList<DiskImageFormatOption> OpenOptions { get; init; }

    private static readonly (string Name, Type Type)[] s_abilities =
    [
        ("Create", typeof(ICreatable)), ("Measure", typeof(IMeasurable)), ("Amend", typeof(IAmendable)), ("Check", typeof(ICheckable)), ("Repair", typeof(IRepairable)),
        ("Rebase", typeof(IRebasable)), ("Empty", typeof(IEmptiable)), ("Compact", typeof(ICompactable)), ("Compress", typeof(ICompressedWritable)),
        ("Snapshot", typeof(ISnapshots)), ("Bitmap", typeof(IBitmaps)),
    ];

    internal static DiskImageFormat Of(FormatDriver driver)
    {
        // Arrays: PowerShell cannot index the lists that the compiler makes of collection expressions.
        OptionSchema create = (driver as ICreatable)?.CreateOptions ?? OptionSchema.Empty;
        return new DiskImageFormat
        {
            Name = driver.Name,
            Aliases = driver.Aliases.ToArray(),
            Description = driver.Description,
            Extensions = driver.Extensions.ToArray(),
            CanCreate = driver is ICreatable,
            CanHaveBacking = create.Options.Any(o => o.PropertyName.Equals(nameof(ICreateOptions.BackingFile), StringComparison.Ordinal)),
            Abilities = s_abilities.Where(a => driver.NodeTypes.Append(driver.GetType()).Any(a.Type.IsAssignableFrom)).Select(a => a.Name).ToArray(),
            CreateOptions = create.Options.Select(o => DiskImageFormatOption.Of(driver, o)).ToArray(),
            OpenOptions = driver.OpenOptions.Options.Select(o => DiskImageFormatOption.Of(driver, o)).ToArray(),
        };
    }
}

/// <summary>An option of a format.</summary>
/// <param name="Format">The format's name.</param>
/// <param name="Name">The option's name in option text and dictionaries, as QEMU spells it.</param>
/// <param name="Parameter">Its name as a parameter of the cmdlets that make images.</param>
/// <param name="Default">The value if it is not given, as text; empty where the format decides.</param>
/// <param name="Allowed">What may be given.</param>
/// <param name="Description">What it does.</param>
public sealed record DiskImageFormatOption(string Format, string Name, string Parameter, string Default, string Allowed, string Description)
{
    internal static DiskImageFormatOption Of(FormatDriver driver, OptionDescriptor option)
        => new(driver.Name, option.Name, option.PropertyName, option.DefaultText, option.AllowedText, option.Help);
}
