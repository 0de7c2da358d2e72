using System.Collections;
using System.Management.Automation;
using System.Management.Automation.Language;
using DiskImage.Options;

namespace DiskImage.PowerShell;

/// <summary>Completes the value of a dynamic parameter that stands for an option.</summary>
public abstract class OptionValueCompleter : IArgumentCompleter
{
    /// <inheritdoc/>
    public IEnumerable<CompletionResult> CompleteArgument(
        string commandName, string parameterName, string wordToComplete, CommandAst commandAst, IDictionary fakeBoundParameters)
    {
        string word = wordToComplete.Trim('\'', '"');
        return Options(fakeBoundParameters)
            .Where(o => o.PropertyName.Equals(parameterName, StringComparison.OrdinalIgnoreCase))
            .SelectMany(OptionCompleter.Values, (option, value) => (Option: option, Value: value))
            .DistinctBy(v => v.Value, StringComparer.Ordinal)
            .Where(v => v.Value.StartsWith(word, StringComparison.OrdinalIgnoreCase))
            .Select(v => new CompletionResult(v.Value, v.Value, CompletionResultType.ParameterValue, v.Option.Help));
    }

    private protected abstract IEnumerable<OptionDescriptor> Options(IDictionary bound);
}

/// <summary>Completes the value of a create option.</summary>
public sealed class CreateOptionValueCompleter : OptionValueCompleter
{
    private protected override IEnumerable<OptionDescriptor> Options(IDictionary bound) => OptionCompleter.CreateOptions(bound);
}

/// <summary>Completes the value of an option that can be changed.</summary>
public sealed class AmendOptionValueCompleter : OptionValueCompleter
{
    private protected override IEnumerable<OptionDescriptor> Options(IDictionary bound) => OptionCompleter.AmendOptions(bound);
}
