namespace DiskImage.HelpBuilder;

/// <summary>A heading with the lines up to the next heading of the same or a higher level. Line numbers count from one.</summary>
internal sealed record MarkdownSection(string File, int Level, string Heading, int LineNumber, IReadOnlyList<string> Lines)
{
    /// <summary>
    /// Cuts a section at the headings of <paramref name="level"/>; what stands before the first of them is <paramref name="preamble"/>.
    /// </summary>
    /// <remarks>A '#' inside a fenced block is code, not a heading.</remarks>
    public static List<MarkdownSection> Split(string file, IReadOnlyList<string> lines, int firstLine, int level, out List<string> preamble)
    {
        var sections = new List<MarkdownSection>();
        preamble = [];
        List<string> current = preamble;
        string mark = new string('#', level) + " ";
        int? fence = null;
        for (int i = 0; i < lines.Count; i++)
        {
            if (IsFence(lines[i]))
            {
                // Only the opening fence names a language, so this one opens a block inside a block.
                if (fence is not null && lines[i].Trim().Trim('`').Length > 0)
                {
                    break;
                }

                fence = fence is null ? i : null;
            }
            else if (fence is null && lines[i].StartsWith(mark, StringComparison.Ordinal))
            {
                current = [];
                sections.Add(new(file, level, lines[i][mark.Length..].Trim(), firstLine + i, current));
                continue;
            }

            current.Add(lines[i]);
        }

        return fence is null ? sections : throw new HelpPageException(file, firstLine + fence.Value, "A fenced block is not closed");
    }

    public List<MarkdownSection> Split(out List<string> preamble) => Split(File, Lines, LineNumber + 1, Level + 1, out preamble);

    /// <summary>The fenced blocks and the paragraphs between them, in order.</summary>
    public List<MarkdownBlock> Blocks() => Blocks(Lines, LineNumber + 1);

    public static List<MarkdownBlock> Blocks(IReadOnlyList<string> lines, int firstLine)
    {
        var blocks = new List<MarkdownBlock>();
        for (int i = 0; i < lines.Count; i++)
        {
            int start = i;
            if (IsFence(lines[i]))
            {
                string language = lines[i].Trim().TrimStart('`').Trim();
                while (!IsFence(lines[++i]))
                {
                }

                blocks.Add(new(language, string.Join('\n', lines.Skip(start + 1).Take(i - start - 1)), firstLine + start + 1));
            }
            else if (lines[i].Trim().Length > 0)
            {
                while (i + 1 < lines.Count && lines[i + 1].Trim().Length > 0 && !IsFence(lines[i + 1]))
                {
                    i++;
                }

                blocks.Add(new(null, string.Join('\n', lines.Skip(start).Take(i - start + 1)), firstLine + start));
            }
        }

        return blocks;
    }

    public HelpPageException Error(string problem) => new(File, LineNumber, problem);

    private static bool IsFence(string line) => line.TrimStart().StartsWith("```", StringComparison.Ordinal);
}

/// <summary>A paragraph (<paramref name="Language"/> is null) or a fenced block's content.</summary>
internal sealed record MarkdownBlock(string? Language, string Text, int LineNumber);
