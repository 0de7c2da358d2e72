using System.Collections;
using System.Management.Automation;

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
            IDictionary dictionary => Unwrapped(dictionary),
            object?[] list => Array.ConvertAll(list, Unwrap),
            _ => argument,
        };

    private static Hashtable Unwrapped(IDictionary dictionary)
    {
        var copy = new Hashtable(StringComparer.OrdinalIgnoreCase);
        foreach (DictionaryEntry entry in dictionary)
        {
            copy[entry.Key.ToString() ?? ""] = Unwrap(entry.Value);
        }
        return copy;
    }
}
