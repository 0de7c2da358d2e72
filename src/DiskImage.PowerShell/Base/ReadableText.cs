using System.Collections;
using System.Globalization;
using System.Management.Automation;
using System.Text;
using DiskImage.Block;

namespace DiskImage.PowerShell;

/// <summary>Texts in the default views. What may come from an image or a file system is shown as <see cref="Printable"/> has it.</summary>
public static class ReadableText
{
    private const int MostListed = 10; // findings in a view

    /// <summary>A text that nothing obeys; empty for none.</summary>
    public static string Shown(object? text) => Printable.Of(Convert.ToString(text, CultureInfo.InvariantCulture));

    /// <summary>The last part of a path.</summary>
    public static string Leaf(string? path) => Printable.Of(Path.GetFileName(path));

    /// <summary>The texts of a list in a line.</summary>
    public static string Joined(IEnumerable? list) => string.Join(", ", (list ?? Array.Empty<object>()).Cast<object?>().Select(Shown));

    /// <summary>The first lines of a list, and how many more there are.</summary>
    public static string Lines(IEnumerable? list)
        => string.Join('\n', First([.. (list ?? Array.Empty<object>()).Cast<object?>().Select(Shown)], MostListed));

    /// <summary>The properties of an object, or of what came of it in a job, a line each.</summary>
    public static string Properties(object? item)
        => item is null ? ""
            : string.Join(
                '\n', PSObject.AsPSObject(item).Properties.Where(p => p.Value is not null).Select(p => $"{p.Name}: {Value(p.Value)}"));

    private static string Value(object value)
        => value is PSObject { BaseObject: var inner } ? Value(inner) : value is IEnumerable list and not string ? Joined(list)
            : Shown(value);

    /// <summary>The first of some texts; what follows is counted.</summary>
    internal static IEnumerable<string> First(IReadOnlyCollection<string> texts, int most)
        => texts.Count <= most ? texts : texts.Take(most).Append($"… and {texts.Count - most:#,0} more");

    /// <summary>
    /// Breaks a text between words into lines of at most <paramref name="width"/> characters; PowerShell's own wrapping breaks words.
    /// </summary>
    public static string Wrap(string? text, int width)
    {
        var lines = new StringBuilder();
        int used = 0;
        foreach (string word in Printable.Of(text).Split(' ', StringSplitOptions.RemoveEmptyEntries))
        {
            bool fits = used + 1 + word.Length <= width;
            _ = lines.Append(used == 0 ? "" : fits ? " " : "\n").Append(word);
            used = used > 0 && fits ? used + 1 + word.Length : word.Length;
        }
        return lines.ToString();
    }
}
