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
            .Where(f => Accepts(f) && f.Name.StartsWith(word, StringComparison.OrdinalIgnoreCase))
            .OrderBy(f => f.Name, StringComparer.Ordinal)
            .Select(f => new CompletionResult(f.Name, f.Name, CompletionResultType.ParameterValue, f.Description));
    }

    private protected virtual bool Accepts(FormatDriver format) => true;
}

/// <summary>Completes the names of formats that can be made.</summary>
public sealed class TargetFormatNameCompleter : FormatNameCompleter
{
    private protected override bool Accepts(FormatDriver format) => format is ICreatable;
}
