namespace DiskImage.HelpBuilder;

/// <summary>Reads the sections under PARAMETERS and checks them against the syntax.</summary>
internal static class ParameterReader
{
    // PowerShell adds these two to a cmdlet that supports -WhatIf; they mean the same everywhere.
    private static readonly Dictionary<string, (string Alias, string Description)> Standard = new(StringComparer.Ordinal)
    {
        ["WhatIf"] = ("wi", "Shows what would happen, and changes nothing."),
        ["Confirm"] = ("cf", "Asks for confirmation before anything is changed."),
    };

    public static IReadOnlyList<HelpParameter> Read(MarkdownSection section, IReadOnlyList<SyntaxLine> syntax)
    {
        var parameters = new List<HelpParameter>();
        foreach (MarkdownSection parameter in section.Split(out _))
        {
            if (parameter.Heading == "CommonParameters")
            {
                continue;
            }

            HelpParameter read = ReadOne(parameter);
            parameters.Add(parameters.Exists(p => p.Name == read.Name) ? throw parameter.Error($"-{read.Name} is described twice") : read);
        }

        foreach (SyntaxLine line in syntax)
        {
            foreach (SyntaxParameter used in line.Parameters.Where(u => !parameters.Exists(p => p.Name == u.Name)))
            {
                parameters.Add(Standard.TryGetValue(used.Name, out (string Alias, string Description) standard)
                    ? new()
                    {
                        Name = used.Name,
                        LineNumber = line.LineNumber,
                        Description = [standard.Description],
                        Type = "SwitchParameter",
                        Aliases = standard.Alias,
                        Default = "False",
                    }
                    : throw new HelpPageException(
                        section.File, line.LineNumber, $"-{used.Name} is in the syntax but not described under PARAMETERS"));
            }
        }

        foreach (HelpParameter parameter in parameters)
        {
            if (parameter.Dynamic == syntax.Any(l => l.Parameters.Any(p => p.Name == parameter.Name)))
            {
                throw new HelpPageException(section.File, parameter.LineNumber, parameter.Dynamic
                    ? $"-{parameter.Name} is in the syntax and so is not dynamic"
                    : $"-{parameter.Name} is described but not in the syntax");
            }
        }

        return parameters;
    }

    private static HelpParameter ReadOne(MarkdownSection section)
    {
        if (section.Heading.Length < 2 || section.Heading[0] != '-' || section.Heading.Contains(' ', StringComparison.Ordinal))
        {
            throw section.Error("The heading of a parameter is '### -Name'");
        }

        List<MarkdownBlock> blocks = section.Blocks();
        MarkdownBlock yaml = blocks.Find(b => b.Language == "yaml") ?? throw section.Error($"{section.Heading} has no yaml block");
        Dictionary<string, string> values = ReadYaml(section.File, yaml);
        List<string> description = PlainText.Paragraphs(blocks.Where(b => b != yaml));
        if (description.Count == 0)
        {
            throw section.Error($"{section.Heading} has no description");
        }

        bool Flag(string key) => values.GetValueOrDefault(key, "False") switch
        {
            "True" => true,
            "False" => false,
            string other => throw new HelpPageException(
                section.File, yaml.LineNumber, $"'{key}' of {section.Heading} is True or False, not '{other}'"),
        };
        string Value(string key, string missing) => values.TryGetValue(key, out string? value) && value.Length > 0 ? value : missing;

        if (values.TryGetValue("Accepted values", out string? accepted))
        {
            description.Add("Accepted values: " + accepted);
        }

        return new HelpParameter
        {
            Name = section.Heading[1..],
            LineNumber = section.LineNumber,
            Description = description,
            Type = Value("Type", ""),
            Aliases = Value("Aliases", ""),
            Required = Flag("Required"),
            Position = Value("Position", "Named"),
            Default = Value("Default value", "None"),
            Pipeline = Value("Accept pipeline input", "False"),
            Wildcard = Flag("Accept wildcard characters"),
            Dynamic = Flag("Dynamic"),
        };
    }

    private static Dictionary<string, string> ReadYaml(string file, MarkdownBlock yaml)
    {
        string[] required = ["Type", "Required", "Position", "Default value", "Accept pipeline input", "Accept wildcard characters"];
        string[] optional = ["Aliases", "Parameter Sets", "Accepted values", "Dynamic"];
        var values = new Dictionary<string, string>(StringComparer.Ordinal);
        string[] lines = yaml.Text.Split('\n');
        for (int i = 0; i < lines.Length; i++)
        {
            if (lines[i].Trim().Length == 0)
            {
                continue;
            }

            string[] pair = lines[i].Split(':', 2, StringSplitOptions.TrimEntries);
            if (pair.Length < 2 || (!required.Contains(pair[0]) && !optional.Contains(pair[0])))
            {
                throw new HelpPageException(
                    file, yaml.LineNumber + i, $"Unknown key '{pair[0]}'; known are {string.Join(", ", required.Concat(optional))}");
            }

            if (!values.TryAdd(pair[0], pair[1]))
            {
                throw new HelpPageException(file, yaml.LineNumber + i, $"'{pair[0]}' appears twice");
            }
        }

        string? missing = required.FirstOrDefault(key => !values.ContainsKey(key));
        return missing is null ? values : throw new HelpPageException(file, yaml.LineNumber, $"'{missing}' is missing");
    }
}
