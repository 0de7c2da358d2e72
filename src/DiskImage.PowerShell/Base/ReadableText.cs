using System.Text;

namespace DiskImage.PowerShell;

/// <summary>Texts in the columns of the default views.</summary>
public static class ReadableText
{
    /// <summary>Breaks a text between words into lines of at most <paramref name="width"/> characters; PowerShell's own wrapping breaks words.</summary>
    public static string Wrap(string? text, int width)
    {
        var lines = new StringBuilder();
        int used = 0;
        foreach (string word in (text ?? "").Split(' ', StringSplitOptions.RemoveEmptyEntries))
        {
            bool fits = used + 1 + word.Length <= width;
            _ = lines.Append(used == 0 ? "" : fits ? " " : "\n").Append(word);
            used = used > 0 && fits ? used + 1 + word.Length : word.Length;
        }
        return lines.ToString();
    }
}
