using System.Globalization;
using System.Text;
using System.Text.RegularExpressions;

namespace DiskImage.Block;

/// <summary>
/// Text as it may be shown. Names that stand in images and file systems can hold anything; what a terminal would obey or what would
/// turn the line around is shown as an escape, and the password of a user in a URL is not shown. Properties keep the text itself.
/// </summary>
public static partial class Printable
{
    /// <summary>
    /// The text with control characters (C0, DEL, C1), separators of lines and paragraphs, bidirectional controls and halves of surrogate
    /// pairs as <c>\u001b</c>, and without the password in <c>scheme://user:password@host</c> or, as iSCSI has it,
    /// <c>user%password@</c>. Unchanged, and the same object, if it has none of these.
    /// </summary>
    public static string Of(string? text)
    {
        text ??= "";
        text = text.Contains("://", StringComparison.Ordinal) ? PasswordPattern().Replace(text, "${user}@") : text;
        int at = 0;
        while (at < text.Length && LengthAt(text, at) is > 0 and int length)
        {
            at += length;
        }
        if (at == text.Length)
        {
            return text;
        }
        var shown = new StringBuilder(text, 0, at, text.Length + 32);
        while (at < text.Length)
        {
            int length = LengthAt(text, at);
            _ = length > 0
                ? shown.Append(text, at, length)
                : shown.Append(CultureInfo.InvariantCulture, $"\\u{(int)text[at]:x4}");
            at += Math.Max(length, 1);
        }
        return shown.ToString();
    }

    /// <summary>How many units the character has that begins there; 0 if it is to be escaped.</summary>
    private static int LengthAt(string text, int at)
    {
        char c = text[at];
        if (c is >= ' ' and < '\u007F')
        {
            return 1;
        }
        if (char.IsSurrogate(c))
        {
            return char.IsHighSurrogate(c) && at + 1 < text.Length && char.IsLowSurrogate(text[at + 1]) ? 2 : 0;
        }
        bool isBidirectional = c is '\u061C' or '\u200E' or '\u200F' or (>= '\u202A' and <= '\u202E') or (>= '\u2066' and <= '\u2069');
        return isBidirectional
            || char.GetUnicodeCategory(c) is UnicodeCategory.Control or UnicodeCategory.LineSeparator
                or UnicodeCategory.ParagraphSeparator ? 0 : 1;
    }

    /// <summary>What looks like a URL with user and password; what follows the password's last at sign is the host.</summary>
    [GeneratedRegex(@"(?<user>://[^/@:%\s]*)[:%][^/\n]*@", RegexOptions.ExplicitCapture, matchTimeoutMilliseconds: 1000)]
    private static partial Regex PasswordPattern();
}
