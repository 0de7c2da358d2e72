using System.Text.RegularExpressions;

namespace DiskImage.HelpBuilder;

/// <summary>Markdown's inline marks and hard line ends taken away, as the help view shows plain text.</summary>
internal static partial class PlainText
{
    /// <summary>One string per paragraph or list item; fenced blocks keep their lines.</summary>
    public static List<string> Paragraphs(IEnumerable<MarkdownBlock> blocks)
    {
        var paragraphs = new List<string>();
        foreach (MarkdownBlock block in blocks)
        {
            if (block.Language is not null)
            {
                paragraphs.Add(block.Text);
                continue;
            }

            string? item = null;
            foreach (string line in block.Text.Split('\n'))
            {
                // A line that begins a list item begins a paragraph; any other continues the one before.
                if (item is not null && ListItem().IsMatch(line))
                {
                    paragraphs.Add(Inline(item));
                    item = null;
                }

                item = item is null ? line.Trim() : item + " " + line.Trim();
            }

            paragraphs.Add(Inline(item!));
        }

        return paragraphs;
    }

    /// <summary>The links of a text; the target is empty where it is another page of the same help.</summary>
    public static IEnumerable<HelpLink> Links(string text) =>
        Link().Matches(text).Select(m => new HelpLink(m.Groups["text"].Value, IsUri(m) ? m.Groups["target"].Value : ""));

    private static bool IsUri(Match link) => link.Groups["target"].Value.Contains("://", StringComparison.Ordinal);

    private static string Inline(string text)
    {
        // What is in code marks stays as it is; the odd pieces of a split at '`' are those.
        string[] pieces = text.Split('`');
        for (int i = 0; i < pieces.Length; i += 2)
        {
            pieces[i] = Link().Replace(pieces[i], m => IsUri(m) ? $"{m.Groups["text"]} ({m.Groups["target"]})" : m.Groups["text"].Value);
            pieces[i] = Emphasis().Replace(pieces[i], "${text}");
            pieces[i] = Escaped().Replace(pieces[i], "${character}");
        }

        return string.Concat(pieces);
    }

    [GeneratedRegex(@"^\s*(?:[-*]|\d+\.)\s", RegexOptions.ExplicitCapture, 1000)]
    private static partial Regex ListItem();

    [GeneratedRegex(@"\[(?<text>[^\]]+)\]\((?<target>[^)]*)\)", RegexOptions.ExplicitCapture, 1000)]
    private static partial Regex Link();

    [GeneratedRegex(@"(?<![\w\\])(?<mark>\*\*|\*|__|_)(?=\S)(?<text>.+?)(?<=[^\s\\])\k<mark>(?!\w)", RegexOptions.ExplicitCapture, 1000)]
    private static partial Regex Emphasis();

    [GeneratedRegex(@"\\(?<character>[\\`*_<>\[\]#-])", RegexOptions.ExplicitCapture, 1000)]
    private static partial Regex Escaped();
}
