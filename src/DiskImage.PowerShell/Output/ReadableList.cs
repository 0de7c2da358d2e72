using System.Collections.ObjectModel;
using DiskImage.Block;

namespace DiskImage.PowerShell;

/// <summary>A list in an object that cmdlets return. As text, in Export-Csv for example, it is what is in it.</summary>
/// <typeparam name="T">What is in it.</typeparam>
/// <param name="items">What is in it, in order.</param>
public sealed class ReadableList<T>(IEnumerable<T> items) : ReadOnlyCollection<T>([.. items])
{
    private const int MostInText = 10;

    /// <summary>The first of what is in it, and how many more there are.</summary>
    public override string ToString()
        => string.Join(", ", Items.Take(MostInText).Select(i => Printable.Of(i?.ToString()))) + (Count > MostInText
            ? $", … and {Count - MostInText:0} more" : "");
}
