namespace DiskImage.HelpBuilder;

/// <summary>
/// Reads a help page. The schema is PlatyPS's, checked strictly: every section in its place, every parameter of the syntax
/// described, every described parameter in the syntax (or marked <c>Dynamic: True</c>). docs/en-US/README.md describes it.
/// </summary>
internal static class HelpPageReader
{
    private static readonly string[] RequiredSections = ["SYNOPSIS", "SYNTAX", "DESCRIPTION", "EXAMPLES", "PARAMETERS"];
    private static readonly string[] OptionalSections = ["INPUTS", "OUTPUTS", "NOTES", "RELATED LINKS"];

    public static HelpPage Read(string file) => Read(file, File.ReadAllLines(file));

    public static HelpPage Read(string file, IReadOnlyList<string> lines)
    {
        int start = FrontMatterLength(file, lines);
        List<MarkdownSection> titles = MarkdownSection.Split(file, [.. lines.Skip(start)], start + 1, 1, out _);
        if (titles.Count != 1)
        {
            throw new HelpPageException(file, titles.Count == 0
                ? start + 1
                : titles[1].LineNumber, "A page has exactly one '# Cmdlet-Name' heading");
        }

        MarkdownSection title = titles[0];
        if (!title.Heading.Equals(Path.GetFileNameWithoutExtension(file), StringComparison.Ordinal))
        {
            throw title.Error($"The heading '{title.Heading}' differs from the file's name");
        }

        Dictionary<string, MarkdownSection> sections = Sections(title);
        IReadOnlyList<SyntaxLine> syntax = Syntax(sections["SYNTAX"], title.Heading);
        IReadOnlyList<HelpParameter> parameters = ParameterReader.Read(sections["PARAMETERS"], syntax);
        List<string> synopsis = Text(sections["SYNOPSIS"]);
        return new HelpPage
        {
            File = file,
            Name = title.Heading,
            Synopsis = synopsis.Count == 1 ? synopsis[0] : throw sections["SYNOPSIS"].Error("SYNOPSIS is one paragraph"),
            Description = Text(sections["DESCRIPTION"]),
            Syntax = syntax,
            Examples = Examples(sections["EXAMPLES"]),
            Parameters = parameters,
            Inputs = Types(sections.GetValueOrDefault("INPUTS")),
            Outputs = Types(sections.GetValueOrDefault("OUTPUTS")),
            Notes = sections.TryGetValue("NOTES", out MarkdownSection? notes) ? PlainText.Paragraphs(notes.Blocks()) : [],
            Links = Links(sections.GetValueOrDefault("RELATED LINKS")),
        };
    }

    private static int FrontMatterLength(string file, IReadOnlyList<string> lines)
    {
        if (lines.Count == 0 || lines[0].TrimEnd() != "---")
        {
            return 0;
        }

        for (int i = 1; i < lines.Count; i++)
        {
            if (lines[i].TrimEnd() == "---")
            {
                return i + 1;
            }
        }

        throw new HelpPageException(file, 1, "The front matter is not closed with '---'");
    }

    private static Dictionary<string, MarkdownSection> Sections(MarkdownSection title)
    {
        var sections = new Dictionary<string, MarkdownSection>(StringComparer.Ordinal);
        foreach (MarkdownSection section in title.Split(out _))
        {
            if (!RequiredSections.Contains(section.Heading) && !OptionalSections.Contains(section.Heading))
            {
                throw section.Error(
                    $"Unknown section '{section.Heading}'; known are {string.Join(", ", RequiredSections.Concat(OptionalSections))}");
            }

            if (!sections.TryAdd(section.Heading, section))
            {
                throw section.Error($"Section '{section.Heading}' appears twice");
            }
        }

        string? missing = RequiredSections.FirstOrDefault(name => !sections.ContainsKey(name));
        return missing is null ? sections : throw title.Error($"Section '{missing}' is missing");
    }

    private static List<string> Text(MarkdownSection section)
    {
        List<string> paragraphs = PlainText.Paragraphs(section.Blocks());
        return paragraphs.Count > 0 ? paragraphs : throw section.Error($"Section '{section.Heading}' is empty");
    }

    private static List<SyntaxLine> Syntax(MarkdownSection section, string cmdlet)
    {
        // One fenced block per parameter set; paragraphs and '### SetName' headings between them are for readers.
        var lines = section.Blocks().Where(b => b.Language is not null)
            .Select(b => SyntaxReader.Read(b.Text.ReplaceLineEndings(" "), cmdlet, section.File, b.LineNumber)).ToList();
        return lines.Count > 0 ? lines : throw section.Error("SYNTAX has no fenced block");
    }

    private static List<HelpExample> Examples(MarkdownSection section)
    {
        var examples = new List<HelpExample>();
        foreach (MarkdownSection example in section.Split(out _))
        {
            string number = $"Example {examples.Count + 1}: ";
            if (!example.Heading.StartsWith(number, StringComparison.Ordinal) || example.Heading.Length == number.Length)
            {
                throw example.Error($"The heading of this example is '### {number}<what it does>'");
            }

            List<MarkdownBlock> blocks = example.Blocks();
            MarkdownBlock code = blocks.Find(b => b.Language is not null)
                ?? throw example.Error("An example has a fenced block with its code");
            List<string> remarks = PlainText.Paragraphs(blocks.Where(b => b != code));
            if (remarks.Count == 0)
            {
                throw example.Error("An example says in words what it does");
            }

            examples.Add(new(example.Heading, code.Text, remarks));
        }

        return examples.Count > 0 ? examples : throw section.Error("EXAMPLES has no '### Example 1: …'");
    }

    private static List<HelpType> Types(MarkdownSection? section)
    {
        var types = new List<HelpType>();
        if (section is null)
        {
            return types;
        }

        List<MarkdownSection> sections = section.Split(out List<string> preamble);
        types.AddRange(sections.Select(type => new HelpType(type.Heading, PlainText.Paragraphs(type.Blocks()))));

        return preamble.TrueForAll(string.IsNullOrWhiteSpace)
            ? types
            : throw section.Error($"Text in {section.Heading} stands under a '### TypeName' heading");
    }

    private static List<HelpLink> Links(MarkdownSection? section) =>
        section is null ? [] : [.. section.Blocks().SelectMany(block => PlainText.Links(block.Text))];
}
