using System.Text.RegularExpressions;

namespace DiskImage.HelpBuilder;

/// <summary>
/// Makes the module's MAML help from its pages: <c>HelpBuilder manifest.psd1 pages-folder help.xml</c>, and copies the about topics beside
/// it. Every exported cmdlet
/// has a page named after it and every page an exported cmdlet; a README.md in the folder is no page. Each malformed page is
/// reported with file and line; any of them fails the run.
/// </summary>
internal static partial class Program
{
    private static int Main(string[] args)
    {
        if (args.Length != 3)
        {
            Console.Error.WriteLine("usage: HelpBuilder <manifest.psd1> <pages folder> <help.xml>");
            return 2;
        }

        List<string> problems = Build(args[0], args[1], args[2]);
        problems.ForEach(Console.Error.WriteLine);
        return problems.Count == 0 ? 0 : 1;
    }

    /// <summary>Writes the help file if all pages are good; otherwise writes nothing and returns what is wrong.</summary>
    internal static List<string> Build(string manifest, string folder, string output)
    {
        var problems = new List<string>();
        var pages = new List<HelpPage>();
        SortedSet<string> cmdlets = ExportedCmdlets(manifest, problems);
        foreach (string cmdlet in cmdlets)
        {
            string file = Path.Combine(folder, cmdlet + ".md");
            if (!File.Exists(file))
            {
                problems.Add($"{file}(1): error : {cmdlet} is exported but has no help page");
                continue;
            }

            try
            {
                pages.Add(HelpPageReader.Read(file));
            }
            catch (HelpPageException e)
            {
                problems.Add(e.Message);
            }
        }

        string[] files = Directory.Exists(folder) ? Directory.GetFiles(folder, "*.md") : [];
        foreach (string file in files.Order(StringComparer.Ordinal))
        {
            string name = Path.GetFileNameWithoutExtension(file);
            if (name != "README" && !cmdlets.Contains(name))
            {
                problems.Add($"{file}(1): error : {name} is not exported by {Path.GetFileName(manifest)}");
            }
        }

        string outputFolder = Path.GetDirectoryName(Path.GetFullPath(output))!;
        Directory.CreateDirectory(outputFolder);
        AboutTopics.Copy(folder, outputFolder, problems);
        if (problems.Count == 0)
        {
            MamlWriter.Write(pages).Save(output);
        }

        return problems;
    }

    private static SortedSet<string> ExportedCmdlets(string manifest, List<string> problems)
    {
        Match list = CmdletList().Match(File.ReadAllText(manifest));
        var cmdlets = new SortedSet<string>(
            QuotedName().Matches(list.Groups["names"].Value).Select(m => m.Groups["name"].Value), StringComparer.Ordinal);
        if (cmdlets.Count == 0)
        {
            problems.Add($"{manifest}(1): error : CmdletsToExport = @(…) names no cmdlet");
        }

        return cmdlets;
    }

    [GeneratedRegex(@"^\s*CmdletsToExport\s*=\s*@\((?<names>[^)]*)\)", RegexOptions.Multiline | RegexOptions.ExplicitCapture, 1000)]
    private static partial Regex CmdletList();

    [GeneratedRegex("['\"](?<name>[A-Za-z]+-[A-Za-z]+)['\"]", RegexOptions.ExplicitCapture, 1000)]
    private static partial Regex QuotedName();
}
