namespace DiskImage.HelpBuilder;

/// <summary>One help page: what docs/en-US/&lt;Cmdlet&gt;.md says, as plain text.</summary>
internal sealed record HelpPage
{
    public required string File { get; init; }

    public required string Name { get; init; }

    public required string Synopsis { get; init; }

    public required IReadOnlyList<string> Description { get; init; }

    public required IReadOnlyList<SyntaxLine> Syntax { get; init; }

    public required IReadOnlyList<HelpExample> Examples { get; init; }

    public required IReadOnlyList<HelpParameter> Parameters { get; init; }

    public IReadOnlyList<HelpType> Inputs { get; init; } = [];

    public IReadOnlyList<HelpType> Outputs { get; init; } = [];

    public IReadOnlyList<string> Notes { get; init; } = [];

    public IReadOnlyList<HelpLink> Links { get; init; } = [];
}

/// <summary>One parameter set, as <c>Get-Command -Syntax</c> prints it.</summary>
internal sealed record SyntaxLine(int LineNumber, IReadOnlyList<SyntaxParameter> Parameters);

/// <summary>
/// A parameter in one parameter set. <paramref name="Type"/> is null for a switch; <paramref name="Position"/> is
/// null for a named parameter.
/// </summary>
internal sealed record SyntaxParameter(string Name, string? Type, bool Required, int? Position);

/// <summary>An example: the first code block is the code, everything else on the way to the next heading is the remarks.</summary>
internal sealed record HelpExample(string Title, string Code, IReadOnlyList<string> Remarks);

/// <summary>A parameter's section. <see cref="Position"/>, <see cref="Pipeline"/> and <see cref="Default"/> are shown as written.</summary>
internal sealed record HelpParameter
{
    public required string Name { get; init; }

    public required int LineNumber { get; init; }

    public required IReadOnlyList<string> Description { get; init; }

    public required string Type { get; init; }

    public string Aliases { get; init; } = "";

    public bool Required { get; init; }

    public string Position { get; init; } = "Named";

    public string Default { get; init; } = "None";

    public string Pipeline { get; init; } = "False";

    public bool Wildcard { get; init; }

    /// <summary>Whether the parameter appears only for some argument of another one, and so in no syntax line.</summary>
    public bool Dynamic { get; init; }
}

internal sealed record HelpType(string Name, IReadOnlyList<string> Description);

/// <summary>A related link; <paramref name="Uri"/> is empty for a link to another page of this module.</summary>
internal sealed record HelpLink(string Text, string Uri);

/// <summary>A page breaks the schema. The message begins with <c>file(line): error</c>, which build tools recognise.</summary>
internal sealed class HelpPageException : Exception
{
    public HelpPageException(string file, int line, string problem)
        : base($"{file}({line}): error : {problem}")
    {
    }
}
