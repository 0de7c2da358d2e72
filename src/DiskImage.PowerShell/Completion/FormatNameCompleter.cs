using System.Collections;
using System.Management.Automation;
using System.Management.Automation.Language;
using DiskImage.Drivers;

namespace DiskImage.PowerShell;

/// <summary>Completes the names of formats that can be opened.</summary>
public class FormatNameCompleter : IArgumentCompleter
{
    /// <inheritdoc/>
    public IEnumerable<CompletionResult> CompleteArgument(
        string commandName, string parameterName, string wordToComplete, CommandAst commandAst, IDictionary fakeBoundParameters)
    {
        string word = wordToComplete.Trim('\'', '"');
        return DiskImageCmdlet.Registry.Formats
            .Where(Accepts)
            .SelectMany(f => Names(f, word).Select(name => (Name: name, f.Description)))
            .OrderBy(f => f.Name, StringComparer.Ordinal)
            .Select(f => new CompletionResult(f.Name, f.Name, CompletionResultType.ParameterValue, f.Description));
    }

    /// <summary>
    /// The names of a format that begin so. Other names than its own once something of them is there, and its own is not it.
    /// </summary>
    private static IEnumerable<string> Names(FormatDriver format, string word)
        => format.Name.StartsWith(word, StringComparison.OrdinalIgnoreCase)
            ? [format.Name]
            : format.Aliases.Where(a => a.StartsWith(word, StringComparison.OrdinalIgnoreCase));

    private protected virtual bool Accepts(FormatDriver format) => true;
}

/// <summary>Completes the names of formats that can be made.</summary>
public sealed class TargetFormatNameCompleter : FormatNameCompleter
{
    private protected override bool Accepts(FormatDriver format) => format is ICreatable;
}
