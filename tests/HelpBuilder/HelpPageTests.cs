using System.Xml.Linq;

namespace DiskImage.HelpBuilder.Tests;

public class HelpPageTests
{
    private const string Page = """
        ---
        schema: 2.0.0
        ---
        # Read-Thing

        ## SYNOPSIS

        Reads a **thing** with `*`.

        ## SYNTAX

        ```text
        Read-Thing [-Path] <string[]> [[-Offset] <long>] [-Mode <Mode>]
         [-Force] [-WhatIf] [<CommonParameters>]
        ```

        ```text
        Read-Thing -All [<CommonParameters>]
        ```

        ## DESCRIPTION

        First line
        goes on. See [Write-Thing](Write-Thing.md) and [a site](https://example.org/).

        - one
          goes on
        - two

        ## EXAMPLES

        ### Example 1: One

        ```powershell
        # a comment, not a heading
        Read-Thing a
        ```

        Reads.

        ```text
        output
        ```

        ## PARAMETERS

        ### -Path

        The path.

        ```yaml
        Type: String[]
        Aliases: FullName
        Required: True
        Position: 0
        Default value: None
        Accept pipeline input: True (ByValue)
        Accept wildcard characters: True
        ```

        ### -Offset

        The offset.

        ```yaml
        Type: Int64
        Required: False
        Position: 1
        Default value: 0
        Accept pipeline input: False
        Accept wildcard characters: False
        ```

        ### -Mode

        The mode.

        ```yaml
        Type: Mode
        Accepted values: Fast, Slow
        Required: False
        Position: Named
        Default value: Fast
        Accept pipeline input: False
        Accept wildcard characters: False
        ```

        ### -Force

        Does it.

        ```yaml
        Type: SwitchParameter
        Required: False
        Position: Named
        Default value: False
        Accept pipeline input: False
        Accept wildcard characters: False
        ```

        ### -All

        Everything.

        ```yaml
        Type: SwitchParameter
        Required: True
        Position: Named
        Default value: False
        Accept pipeline input: False
        Accept wildcard characters: False
        ```

        ## OUTPUTS

        ### System.Byte

        A byte.

        ## RELATED LINKS

        - [Write-Thing](Write-Thing.md)
        - [a site](https://example.org/)
        """;

    private static HelpPage Read(string text) => HelpPageReader.Read("Read-Thing.md", text.ReplaceLineEndings("\n").Split('\n'));

    [Fact]
    public void Text_loses_its_marks_and_joins_its_lines()
    {
        HelpPage page = Read(Page);
        Assert.Equal("Reads a thing with *.", page.Synopsis);
        Assert.Equal(
            ["First line goes on. See Write-Thing and a site (https://example.org/).", "- one goes on", "- two"], page.Description);
        Assert.Equal([new HelpLink("Write-Thing", ""), new HelpLink("a site", "https://example.org/")], page.Links);
    }

    [Fact]
    public void Syntax_gives_each_set_its_parameters()
    {
        HelpPage page = Read(Page);
        Assert.Equal(2, page.Syntax.Count);
        Assert.Equal(
            [
                new SyntaxParameter("Path", "string[]", Required: true, 0),
                new SyntaxParameter("Offset", "long", Required: false, 1),
                new SyntaxParameter("Mode", "Mode", Required: false, null),
                new SyntaxParameter("Force", null, Required: false, null),
                new SyntaxParameter("WhatIf", null, Required: false, null),
            ],
            page.Syntax[0].Parameters);
        Assert.Equal([new SyntaxParameter("All", null, Required: true, null)], page.Syntax[1].Parameters);
    }

    [Fact]
    public void An_example_is_its_first_block_and_the_rest_its_remarks()
    {
        HelpExample example = Assert.Single(Read(Page).Examples);
        Assert.Equal("# a comment, not a heading\nRead-Thing a", example.Code);
        Assert.Equal(["Reads.", "output"], example.Remarks);
    }

    [Fact]
    public void WhatIf_needs_no_section_of_its_own()
    {
        Assert.Equal("wi", Assert.Single(Read(Page).Parameters, p => p.Name == "WhatIf").Aliases);
    }

    [Fact]
    public void Maml_says_what_the_page_says()
    {
        XDocument maml = MamlWriter.Write([Read(Page)]);
        XElement path = Assert.Single(
            maml.Descendants(), e => e.Name.LocalName == "parameters").Elements().Single(p => p.Elements().First().Value == "Path");
        Assert.Equal("true", path.Attribute("required")?.Value);
        Assert.Equal("0", path.Attribute("position")?.Value);
        Assert.Equal("FullName", path.Attribute("aliases")?.Value);
        Assert.Equal("True (ByValue)", path.Attribute("pipelineInput")?.Value);
        Assert.Equal(2, maml.Descendants().Count(e => e.Name.LocalName == "syntaxItem"));
    }

    [Theory]
    [InlineData("## SYNOPSIS", "## SYNOPSYS", 6, "Unknown section 'SYNOPSYS'")]
    [InlineData("## DESCRIPTION", "## NOTES", 4, "'DESCRIPTION' is missing")]
    [InlineData("# Read-Thing\n", "# Read-Think\n", 4, "differs from the file's name")]
    [InlineData("Read-Thing -All [", "Read-Thing -Any [", 18, "-Any is in the syntax but not described")]
    [InlineData(
        "Read-Thing -All [<CommonParameters>]",
        "Read-Thing [-Path] <string[]> [<CommonParameters>]",
        101,
        "-All is described but not in the syntax")]
    [InlineData("Read-Thing -All [<CommonParameters>]", "Read-Thing -All", 18, "ends with [<CommonParameters>]")]
    [InlineData("[-Mode <Mode>]", "[-Mode <Mode>", 13, "']' is expected")]
    [InlineData("### Example 1: One", "### Example 2: One", 32, "### Example 1: ")]
    [InlineData("Aliases: FullName", "Alias: FullName", 53, "Unknown key 'Alias'")]
    [InlineData("Position: 0\n", "", 52, "'Position' is missing")]
    [InlineData("Required: True\nPosition: 0", "Required: Yes\nPosition: 0", 52, "True or False, not 'Yes'")]
    [InlineData("The offset.\n", "", 61, "-Offset has no description")]
    [InlineData("```text\noutput\n```", "```text\noutput", 41, "not closed")]
    public void A_malformed_page_is_refused_with_its_line(string good, string bad, int line, string problem)
    {
        string text = Page.ReplaceLineEndings("\n");
        Assert.Contains(good, text, StringComparison.Ordinal);
        HelpPageException e = Assert.Throws<HelpPageException>(() => Read(text.Replace(good, bad, StringComparison.Ordinal)));
        Assert.Contains(problem, e.Message, StringComparison.Ordinal);
        Assert.StartsWith($"Read-Thing.md({line}): error : ", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Every_exported_cmdlet_has_a_page_and_every_page_a_cmdlet()
    {
        DirectoryInfo folder = Directory.CreateTempSubdirectory("help");
        try
        {
            string manifest = Path.Combine(folder.FullName, "M.psd1");
            string pages = folder.CreateSubdirectory("pages").FullName;
            string output = Path.Combine(folder.FullName, "en-US", "M.xml");
            File.WriteAllText(manifest, "@{\n    CmdletsToExport = @(\n 'Read-Thing'\n 'Write-Thing')\n}");
            File.WriteAllText(Path.Combine(pages, "Read-Thing.md"), Page);
            File.WriteAllText(Path.Combine(pages, "README.md"), "no page");
            File.WriteAllText(Path.Combine(pages, "Remove-Thing.md"), Page);

            List<string> problems = Program.Build(manifest, pages, output);
            Assert.Equal(2, problems.Count);
            Assert.Contains("Write-Thing is exported but has no help page", problems[0], StringComparison.Ordinal);
            Assert.Contains("Remove-Thing is not exported by M.psd1", problems[1], StringComparison.Ordinal);
            Assert.False(File.Exists(output));

            File.Delete(Path.Combine(pages, "Remove-Thing.md"));
            File.WriteAllText(manifest, "@{ CmdletsToExport = @('Read-Thing') }".Replace("@{ ", "@{\n", StringComparison.Ordinal));
            Assert.Empty(Program.Build(manifest, pages, output));
            Assert.True(File.Exists(output));
        }
        finally
        {
            folder.Delete(recursive: true);
        }
    }
}
