using System.Collections;
using System.Management.Automation;
using System.Management.Automation.Language;
using DiskImage.Drivers;
using DiskImage.Options;

namespace DiskImage.PowerShell;

/// <summary>
/// Completes option text: names up to the equals sign, then the values that are allowed. Text may hold several options
/// (<c>'compat=1.1,clus</c>); the last one is completed.
/// </summary>
public abstract class OptionCompleter : IArgumentCompleter
{
    /// <inheritdoc/>
    public IEnumerable<CompletionResult> CompleteArgument(
        string commandName, string parameterName, string wordToComplete, CommandAst commandAst, IDictionary fakeBoundParameters)
    {
        string quote = wordToComplete.Length > 0 && wordToComplete[0] is '\'' or '"' ? wordToComplete[..1] : "";
        string text = wordToComplete.Trim('\'', '"');
        string before = text[..(text.LastIndexOf(',') + 1)];
        string[] pair = text[before.Length..].Split('=', 2);
        IEnumerable<OptionDescriptor> options = Options(fakeBoundParameters).DistinctBy(o => o.Name, StringComparer.OrdinalIgnoreCase);
        return pair.Length == 1
            ? options.Where(o => o.Name.StartsWith(pair[0], StringComparison.OrdinalIgnoreCase))
                .Select(o => Result(quote, before + o.Name + "=", o.Name, $"{o.Help}. {o.AllowedText}"))
            : options.Where(o => o.Name.Equals(pair[0], StringComparison.OrdinalIgnoreCase))
                .SelectMany(o => Values(o).Where(v => v.StartsWith(pair[1], StringComparison.OrdinalIgnoreCase))
                    .Select(v => Result(quote, $"{before}{o.Name}={v}", v, o.Help)));
    }

    /// <summary>Values that are worth proposing: all of an enumeration, the powers of two of a range, else the default.</summary>
    internal static IEnumerable<string> Values(OptionDescriptor option)
        => option.AllowedValues.Count > 0 ? option.AllowedValues : option.DefaultText.Length > 0 ? [option.DefaultText] : [];

    private protected abstract IEnumerable<OptionDescriptor> Options(IDictionary bound);

    /// <summary>A text argument among those bound so far; the first one of a list.</summary>
    internal static string? Bound(IDictionary bound, params string[] names)
    {
        foreach (string name in names)
        {
            object? value = bound[name] is PSObject wrapped ? wrapped.BaseObject : bound[name];
            if (value is IEnumerable and not string)
            {
                value = ((IEnumerable)value).Cast<object?>().FirstOrDefault();
            }
            if (value?.ToString() is { Length: > 0 } text)
            {
                return text;
            }
        }
        return null;
    }

    /// <summary>The create options of the image that the bound parameters are about to make.</summary>
    internal static IEnumerable<OptionDescriptor> CreateOptions(IDictionary bound)
    {
        string? implied = ImageProfile.TryFind(Bound(bound, "Profile"))?.Format;
        bool converts = bound.Contains("Destination") || bound.Contains("DestinationFormat");
        FormatDriver? format = converts
            ? TargetFormat.TryOf(Bound(bound, "DestinationFormat") ?? implied, Bound(bound, "Destination"))
            : TargetFormat.TryOf(Bound(bound, "Format") ?? implied, Bound(bound, "Path", "ImagePath", "FullName", "PSPath"));
        IEnumerable<FormatDriver> formats = format is null ? DiskImageCmdlet.Registry.Formats : [format];
        return formats.OfType<ICreatable>().SelectMany(c => c.CreateOptions.Options)
            .Where(o => !converts || !o.PropertyName.Equals(nameof(ICreateOptions.Size), StringComparison.Ordinal)); // it is the source's
    }

    /// <summary>The options of the image that the bound parameters name that can be changed.</summary>
    internal static IEnumerable<OptionDescriptor> AmendOptions(IDictionary bound)
    {
        FormatDriver? format = TargetFormat.TryOf(
            Bound(bound, "Format"), Bound(bound, "Path", "LiteralPath", "ImagePath", "FullName", "PSPath"));
        IEnumerable<FormatDriver> formats = format is null ? DiskImageCmdlet.Registry.Formats : [format];
        return formats.OfType<IAmendable>().SelectMany(a => a.AmendOptions.Options);
    }

    private static CompletionResult Result(string quote, string text, string shown, string help)
    {
        // A comma outside quotes would end the argument.
        string mark = quote.Length == 0 && text.Contains(',', StringComparison.Ordinal) ? "'" : quote;
        return new CompletionResult(mark + text + mark, shown, CompletionResultType.ParameterValue, help);
    }
}

/// <summary>Completes the options of the format that is to be made.</summary>
public sealed class CreateOptionCompleter : OptionCompleter
{
    private protected override IEnumerable<OptionDescriptor> Options(IDictionary bound) => CreateOptions(bound);
}

/// <summary>Completes the options that can be changed.</summary>
public sealed class AmendOptionCompleter : OptionCompleter
{
    private protected override IEnumerable<OptionDescriptor> Options(IDictionary bound) => AmendOptions(bound);
}

/// <summary>Completes the options of the format that is to be opened.</summary>
public sealed class OpenOptionCompleter : OptionCompleter
{
    private protected override IEnumerable<OptionDescriptor> Options(IDictionary bound)
    {
        FormatDriver? format = TargetFormat.TryOf(
            Bound(bound, "Format"), Bound(bound, "Path", "LiteralPath", "ImagePath", "FullName", "PSPath"));
        IEnumerable<FormatDriver> formats = format is null ? DiskImageCmdlet.Registry.Formats : [format];
        return formats.SelectMany(f => f.OpenOptions.Options);
    }
}
