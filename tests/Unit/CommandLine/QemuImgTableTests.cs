using System.Text.RegularExpressions;
using DiskImage.CommandLine;

namespace DiskImage.Tests.CommandLine;

/// <summary>
/// docs/qemu-img.md has every option of every subcommand, and every parameter of the cmdlets that do the same: as the program has the
/// options, and as the help pages, which the build holds to the cmdlets, have the parameters.
/// </summary>
public sealed partial class QemuImgTableTests
{
    private static readonly string s_root = FindRoot();
    private static readonly string s_page = File.ReadAllText(Path.Combine(s_root, "docs", "qemu-img.md"));

    public static TheoryData<string> Names => [.. QemuImg.Commands.Select(make => make().Name)];

    [Theory]
    [MemberData(nameof(Names))]
    public void Table_has_every_option(string name)
    {
        ImgCommand command = QemuImg.Commands.Select(make => make()).Single(c => c.Name.Equals(name, StringComparison.Ordinal));
        string[] told = [.. Row().Matches(Section(name)).Select(m => m.Groups["option"].Value)];
        Assert.Equal(command.Options.Select(o => o.Spelling), told, StringComparer.Ordinal);
    }

    [Theory]
    [MemberData(nameof(Names))]
    public void Table_has_every_parameter_of_the_cmdlets_and_no_other(string name)
    {
        string section = Section(name);
        string[] cmdlets = [.. Cmdlet().Matches(section.Split('\n').First(l => l.StartsWith("| qemu-img ", StringComparison.Ordinal)))
            .Select(m => m.Groups["name"].Value)];
        if (cmdlets.Length == 0)
        {
            Assert.Contains("No cmdlet", section, StringComparison.Ordinal);
            return;
        }
        var there = cmdlets.SelectMany(c => Parameter().Matches(File.ReadAllText(Path.Combine(s_root, "docs", "en-US", $"{c}.md"))))
            .Select(m => m.Groups["name"].Value).ToHashSet(StringComparer.Ordinal);
        var inGeneral = Named().Matches(s_page[..s_page.IndexOf("\n## ", StringComparison.Ordinal)])
            .Select(m => m.Groups["name"].Value).ToHashSet(StringComparer.Ordinal);
        // what is said of a row without a parameter may be about other cmdlets
        string said = string.Join('\n', section.Split('\n').Where(l => !l.Contains("| none", StringComparison.Ordinal)));
        var here = Named().Matches(said).Select(m => m.Groups["name"].Value).ToHashSet(StringComparer.Ordinal);
        Assert.Empty(here.Except(there, StringComparer.Ordinal));
        Assert.Empty(there.Except(here, StringComparer.Ordinal).Except(inGeneral, StringComparer.Ordinal));
    }

    private static string Section(string name)
    {
        int start = s_page.IndexOf($"\n## {name}\n", StringComparison.Ordinal);
        Assert.True(start >= 0, $"docs/qemu-img.md has no section {name}");
        int end = s_page.IndexOf("\n## ", start + 1, StringComparison.Ordinal);
        return s_page[start..(end < 0 ? s_page.Length : end)];
    }

    private static string FindRoot()
    {
        string? folder = AppContext.BaseDirectory;
        while (folder is not null && !File.Exists(Path.Combine(folder, "DiskImage.sln")))
        {
            folder = Path.GetDirectoryName(folder);
        }
        return folder ?? throw new InvalidOperationException("the repository's root is not above the tests");
    }

    [GeneratedRegex(@"^\| `(?<option>-[^`]*)` \|", RegexOptions.Multiline | RegexOptions.ExplicitCapture, 1000)]
    private static partial Regex Row();

    [GeneratedRegex(@"`(?<name>[A-Z]\w+-\w+)`", RegexOptions.ExplicitCapture, 1000)]
    private static partial Regex Cmdlet();

    [GeneratedRegex(@"^### -(?<name>\w+)", RegexOptions.Multiline | RegexOptions.ExplicitCapture, 1000)]
    private static partial Regex Parameter();

    [GeneratedRegex(@"(?<=`| )-(?<name>[A-Z]\w+)`", RegexOptions.ExplicitCapture, 1000)]
    private static partial Regex Named();
}
