using System.Management.Automation;
using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Graph;
using DiskImage.Options;

namespace DiskImage.PowerShell;

/// <summary>The create options of one image: with those of <see cref="GivenOptions"/>, the cmdlet's own parameters.</summary>
/// <param name="format">The new image's format.</param>
/// <param name="storage">The options of the place where it is to be; null for none.</param>
/// <exception cref="DiskImageException">Unsupported: such images cannot be made.</exception>
internal sealed class NewImageOptions(FormatDriver format, OptionSchema? storage = null) : GivenOptions(
    (format as ICreatable)?.CreateOptions
        ?? throw new DiskImageException(DiskImageErrorKind.Unsupported, $"Images of format '{format.Name}' can be read but not made."))
{
    private const string Subformat = "subformat"; // in every format that Hyper-V has

    public FormatDriver Format { get; } = format;

    /// <summary>The dynamic parameters of a cmdlet that makes images of a format; null if there are none.</summary>
    public static RuntimeDefinedParameterDictionary? Parameters(FormatDriver? format, Type cmdlet)
        => format is ICreatable creatable ? Parameters(creatable.CreateOptions, cmdlet, typeof(CreateOptionValueCompleter)) : null;

    /// <summary>The record of the place's options; null where none is given.</summary>
    /// <exception cref="DiskImageException">InvalidOption.</exception>
    public object? BindStorage()
    {
        KeyValuePair<string, object?>[] given = [.. Given().Where(v => IsOfStorage(v.Key))];
        return given.Length == 0 ? null : storage!.Bind(given);
    }

    /// <inheritdoc/>
    public override object Bind() => Schema.Bind(Given().Where(v => !IsOfStorage(v.Key)));

    /// <summary>Takes a value of the cmdlet's own parameter for a member of <see cref="ICreateOptions"/>; null was not given.</summary>
    public void Add(string member, object? value, string parameter)
    {
        if (value is not null)
        {
            string name = NameOf(member)
                ?? throw new DiskImageException(
                    DiskImageErrorKind.Unsupported,
                    $"An image of format '{Format.Name}' takes no -{parameter}. Other formats may: see Get-DiskImageFormat.");
            Take(name, value, $"-{parameter}");
        }
    }

    /// <summary>The value of a member of <see cref="ICreateOptions"/> as it was given; null if it was not.</summary>
    public object? Given(string member) => NameOf(member) is { } name ? ValueOf(name) : null;

    /// <summary>Takes what a profile stands for; null was not given. The size is not among it.</summary>
    public void Add(ImageProfile? profile)
    {
        foreach ((string name, object? value) in profile?.Options ?? new Dictionary<string, object?>(StringComparer.Ordinal))
        {
            if (!Equals(value?.ToString(), ValueOf(name)?.ToString())) // to say the same twice is no contradiction
            {
                Take(name, value, "-Profile");
            }
        }
    }

    /// <summary>Takes the parameters that name a backing image; null was not given.</summary>
    public void AddBacking(string? path, string? format)
    {
        Add(nameof(ICreateOptions.BackingFile), path, "BackingPath");
        Add(nameof(ICreateOptions.BackingFormat), format, "BackingFormat");
    }

    /// <summary>
    /// Takes the kind of a VHD or VHDX; null was not given. To be called when the options and the backing image are known.
    /// </summary>
    /// <exception cref="DiskImageException">InvalidOption: the format has no such kinds, or other options contradict it.</exception>
    public void Add(GivenVhdType? type)
    {
        if (type is null)
        {
            return;
        }
        string text = type.Type.ToString().ToLowerInvariant();
        IReadOnlyList<string> known = Schema.Find(Subformat)?.AllowedValues ?? [];
        bool hasBacking = Given(nameof(ICreateOptions.BackingFile))?.ToString() is { Length: > 0 };
        bool hasKinds = known.Contains(nameof(VhdType.Fixed), StringComparer.OrdinalIgnoreCase)
            && known.Contains(nameof(VhdType.Dynamic), StringComparer.OrdinalIgnoreCase);
        string? wrong = !hasKinds
            ? $"is for VHD and VHDX, and the new image's format is {Format.Name}. Leave it out, or choose another format"
            : type.Type == VhdType.Differencing && !hasBacking ? "needs the parent of the new disk. Give -BackingPath (-ParentPath)"
            : type.Type != VhdType.Differencing && hasBacking
                ? "contradicts a backing image: a disk that has one is differencing. Leave out one of the two"
            : ValueOf(Subformat) is { } given && !text.Equals(given.ToString(), StringComparison.OrdinalIgnoreCase)
                ? $"contradicts {Subformat}={given}, which is given too. Leave out one of the two"
            : null;
        if (wrong is not null)
        {
            throw new DiskImageException(DiskImageErrorKind.InvalidOption, $"{type.GivenBy} {wrong}.");
        }
        if (ValueOf(Subformat) is null && known.Contains(text, StringComparer.OrdinalIgnoreCase)) // else it follows from the backing image
        {
            Take(Subformat, text, type.GivenBy);
        }
    }

    /// <summary>
    /// Looks at the backing image that was named, and has the new image at a path record its name and format; null if none was. A relative
    /// name that may have been meant from the current folder of the session is said to be so.
    /// </summary>
    /// <param name="opener">Opens within the user's bounds.</param>
    /// <param name="path">The new image.</param>
    /// <param name="currentFolder">The session's current folder.</param>
    /// <param name="isUnseen">The backing image is not looked at: it need not be there.</param>
    /// <param name="cancellationToken">Stops it.</param>
    /// <exception cref="DiskImageException">What opening it says; InvalidOption if the new image would be its own, or if an unseen one's
    /// format is not told.</exception>
    public async Task<BackingReference?> ResolveBackingAsync(
        ImageOpener opener, string path, string? currentFolder, bool isUnseen, CancellationToken cancellationToken)
    {
        string? said = Given(nameof(ICreateOptions.BackingFormat))?.ToString();
        if (Given(nameof(ICreateOptions.BackingFile))?.ToString() is not { Length: > 0 } name)
        {
            return !isUnseen ? null : throw new DiskImageException(
                DiskImageErrorKind.InvalidOption, $"{path}: -Unsafe is about a backing image, so it needs -BackingPath.", path);
        }
        BackingReference backing = !isUnseen
            ? await BackingReference.ResolveAsync(
                opener.NamingBacking(name, path), path, name, said, currentFolder, cancellationToken).ConfigureAwait(false)
            : said is not null ? BackingReference.Unseen(name, DiskImageCmdlet.Registry.Format(said).Name)
            : throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"{path}: a backing image that is not looked at has the format that you say. Give -BackingFormat.",
                path);
        if (!IsOfStorage(NameOf(nameof(ICreateOptions.BackingFile))!))
        {
            foreach ((string option, object? value) in backing.OptionsFor(Format))
            {
                Set(option, value);
            }
        }
        return backing;
    }

    /// <summary>Like <see cref="GivenOptions.Set"/>, for a member of <see cref="ICreateOptions"/>, which every format has.</summary>
    public void SetMember(string member, object? value) => Set(NameOf(member)!, value);

    private string? NameOf(string member)
        => Schema.Options.Concat(storage?.Options ?? []).FirstOrDefault(
            o => o.PropertyName.Equals(member, StringComparison.Ordinal))?.Name;

    /// <summary>True for an option that the format does not have and the place does.</summary>
    private bool IsOfStorage(string name) => Schema.Find(name) is null && storage?.Find(name) is not null;
}
