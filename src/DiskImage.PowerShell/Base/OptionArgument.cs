using System.Collections;
using System.Management.Automation;
using DiskImage.Options;

namespace DiskImage.PowerShell;

/// <summary>What users give for <c>-Option</c> and <c>-OpenOption</c>.</summary>
internal static class OptionArgument
{
    /// <summary>The argument with PowerShell's wrapping taken off it and its elements.</summary>
    public static object? Unwrap(object? argument)
        => argument switch
        {
            PSObject wrapped when !ReferenceEquals(wrapped.BaseObject, wrapped) => Unwrap(wrapped.BaseObject),
            string => argument,
            DictionaryEntry or IEnumerable when IsOfPairs(argument)
                => OptionSchema.Values(argument).Select(p => new KeyValuePair<string, object?>(p.Key, Unwrap(p.Value))).ToArray(),
            object?[] list => Array.ConvertAll(list, Unwrap),
            _ => argument,
        };

    private static bool IsOfPairs(object argument)
        => argument is IDictionary or DictionaryEntry or IEnumerable<KeyValuePair<string, object?>>
            or IEnumerable<KeyValuePair<string, string>>;
}
