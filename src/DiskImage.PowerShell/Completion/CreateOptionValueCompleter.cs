using System.Collections;
using System.Management.Automation;
using System.Management.Automation.Language;

namespace DiskImage.PowerShell;

/// <summary>Completes the value of a dynamic parameter that stands for a create option.</summary>
public sealed class CreateOptionValueCompleter : IArgumentCompleter
{
    /// <inheritdoc/>
    public IEnumerable<CompletionResult> CompleteArgument(
        string commandName, string parameterName, string wordToComplete, CommandAst commandAst, IDictionary fakeBoundParameters)
    {
        string word = wordToComplete.Trim('\'', '"');
        return OptionCompleter.CreateOptions(fakeBoundParameters)
            .Where(o => o.PropertyName.Equals(parameterName, StringComparison.OrdinalIgnoreCase))
            .SelectMany(OptionCompleter.Values, (option, value) => (Option: option, Value: value))
            .DistinctBy(v => v.Value, StringComparer.Ordinal)
            .Where(v => v.Value.StartsWith(word, StringComparison.OrdinalIgnoreCase))
            .Select(v => new CompletionResult(v.Value, v.Value, CompletionResultType.ParameterValue, v.Option.Help));
    }
}
