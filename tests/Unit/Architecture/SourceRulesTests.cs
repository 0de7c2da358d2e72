using System.Text.RegularExpressions;

namespace DiskImage.Tests.Architecture;

/// <summary>
/// The rules of the house that can be read off the source: who may use whom, how long a file may be, which words are left out.
/// </summary>
public sealed partial class SourceRulesTests
{
    private const int LongestFile = 500;
    private const int LongestLine = 140; // test data may be wider

    private static readonly string s_root = FindRoot();

    /// <summary>
    /// Folder of Core → the folders it may use besides itself. A folder that is missing here is a question to be answered first.
    /// </summary>
    private static readonly Dictionary<string, string[]> s_mayUse = new(StringComparer.Ordinal)
    {
        ["Block"] = [],
        ["Binary"] = [],
        ["Platform"] = ["Block"],
        ["Locking"] = ["Block", "Platform"],
        ["Options"] = ["Block"],
        ["Metadata"] = ["Block", "Binary"],
        ["Partitions"] = ["Block", "Binary"],
        ["Crypto"] = ["Block", "Binary", "Options"],
        ["Compression"] = ["Block", "Binary"],
        ["Drivers"] = ["Block", "Options"],
        ["Formats"] = ["Block", "Binary", "Options", "Drivers", "Metadata", "Compression", "Crypto"],
        ["Filters"] = ["Block", "Binary", "Options", "Drivers"],
        ["Protocols"] = ["Block", "Binary", "Options", "Drivers", "Platform", "Locking", "Crypto"],
        ["Jobs"] = ["Block", "Binary"],
        ["Graph"] = ["Block", "Options", "Drivers", "Locking"],
        ["Exports"] = ["Block", "Binary", "Drivers", "Jobs", "Options", "Protocols"],
        ["Operations"] = ["Block", "Drivers", "Graph", "Jobs", "Partitions"],
    };

    /// <summary>Folders of which each subfolder stands alone: no format knows another.</summary>
    private static readonly string[] s_separate = ["Formats", "Filters", "Protocols"];

    /// <summary>The one visible list of drivers names them all.</summary>
    private const string TheList = "Drivers/BuiltInDrivers.cs";

    [Fact]
    public void Core_uses_only_what_lies_below()
    {
        var wrong = new List<string>();
        int seen = 0;
        foreach ((string path, string text) in Sources("src/DiskImage.Core"))
        {
            string[] parts = path["src/DiskImage.Core/".Length..].Split('/');
            Assert.True(s_mayUse.ContainsKey(parts[0]), $"{path}: the folder {parts[0]} has no rule");
            foreach (Match match in Namespace().Matches(Code(text)))
            {
                string used = match.Groups["folder"].Value, part = match.Groups["part"].Value;
                bool own = used.Equals(parts[0], StringComparison.Ordinal)
                    && (!s_separate.Contains(used, StringComparer.Ordinal) || part.Equals(parts[1], StringComparison.Ordinal));
                seen++;
                if (!own && !s_mayUse[parts[0]].Contains(used, StringComparer.Ordinal) && !path.EndsWith(TheList, StringComparison.Ordinal))
                {
                    wrong.Add($"{path} uses {match.Value}");
                }
            }
        }
        Assert.True(seen > 100, $"only {seen} uses found: the pattern is wrong");
        Assert.Empty(wrong);
    }

    [Fact]
    public void Core_knows_no_PowerShell()
        => Assert.DoesNotContain(
            Sources("src/DiskImage.Core"), s => Code(s.Text).Contains("System.Management.Automation", StringComparison.Ordinal));

    /// <summary>What can be done is a value in Core (<c>Remedy</c>), and each front end has its own words for it.</summary>
    [Fact]
    public void Core_names_no_cmdlet_and_no_parameter()
    {
        string[] wrong =
        [
            .. Sources("src/DiskImage.Core")
                .SelectMany(s => Literal().Matches(
                    LineComment().Replace(s.Text, "")).Where(l => FrontEndWord().IsMatch(l.Value)).Select(l => $"{s.Path}: {l.Value}")),
        ];
        Assert.True(wrong.Length == 0, string.Join('\n', wrong));
    }

    [Theory]
    [InlineData("$\"{Name}: it is damaged. Repair it with Repair-DiskImage -Mode All.\"", true)]
    [InlineData("\"allow it with -Force\"", true)]
    [InlineData("\"-InPlace\"", true)]
    [InlineData("\"look at it with Test-DiskImage\"", true)]
    [InlineData("\"the size -1 is not possible; allowed: 0-9, A-F\"", false)]
    [InlineData("\"lazy-refcounts=on needs compat=1.1\"", false)]
    [InlineData("\"the Mode-A parent\"", false)]
    public void The_pattern_finds_the_words_of_a_front_end(string code, bool isFound)
        => Assert.Equal(isFound, Literal().Matches(LineComment().Replace(code, "")).Any(l => FrontEndWord().IsMatch(l.Value)));

    [Fact]
    public void Only_Platform_and_the_protocols_call_the_system()
    {
        // Codecs call libraries, not the system.
        string[] allowed = ["src/DiskImage.Core/Platform/", "src/DiskImage.Core/Protocols/", "src/DiskImage.Core/Compression/"];
        List<string> calling = [.. Sources("src").Where(s => NativeCall().IsMatch(Code(s.Text))).Select(s => s.Path)];
        Assert.Contains(calling, path => path.StartsWith(allowed[0], StringComparison.Ordinal));
        Assert.DoesNotContain(calling, path => !allowed.Any(a => path.StartsWith(a, StringComparison.Ordinal)));
    }

    [Fact]
    public void Files_are_short()
    {
        (string Path, int Lines)[] files = [.. Sources(
            "src", "tests", "bench", "tools").Select(s => (s.Path, s.Text.Count(c => c == '\n')))];
        string[] tooLong = [.. files.Where(f => f.Lines > LongestFile).Select(f => $"{f.Path}: {f.Lines} lines")];
        Assert.True(tooLong.Length == 0, string.Join('\n', tooLong));
    }

    [Fact]
    public void Lines_are_within_their_width()
    {
        string[] tooLong =
        [
            .. Sources("src").SelectMany(s => s.Text.Split('\n')
                .Index().Where(l => l.Item.Length > LongestLine).Select(l => $"{s.Path}:{l.Index + 1}: {l.Item.Length} columns")),
        ];
        Assert.True(tooLong.Length == 0, string.Join('\n', tooLong));
    }

    [Fact]
    public void Nothing_is_left_to_do()
    {
        string self = $"{nameof(SourceRulesTests)}.cs"; // names the words
        string[] left = [.. Sources("src", "tests", "bench", "tools").Where(s => LeftOver().IsMatch(s.Text)).Select(s => s.Path)];
        Assert.EndsWith(self, Assert.Single(left), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("using DiskImage.Jobs;", "Jobs", "")]
    [InlineData("using static DiskImage.Formats.Qcow2.L2Entry;", "Formats", "Qcow2")]
    [InlineData("    var node = new DiskImage.Protocols.File.FileNode();", "Protocols", "File")]
    [InlineData("    global::DiskImage.Graph.ImageOpener opener;", "Graph", "")]
    public void The_pattern_finds_uses(string line, string folder, string part)
    {
        Match match = Namespace().Match(Code(line));
        Assert.Equal(folder, match.Groups["folder"].Value);
        Assert.True(part.Length == 0 || match.Groups["part"].Value.Equals(part, StringComparison.Ordinal));
    }

    /// <summary>The text without comments and without the namespace that the file itself declares.</summary>
    private static string Code(string text) => Comment().Replace(text, "");

    private static IEnumerable<(string Path, string Text)> Sources(params string[] folders)
        => folders.Select(folder => Path.Combine(s_root, folder)).Where(Directory.Exists)
            .SelectMany(folder => Directory.EnumerateFiles(folder, "*.cs", SearchOption.AllDirectories))
            .Select(path => (Path.GetRelativePath(s_root, path).Replace('\\', '/'), path))
            .Where(file => !file.Item1.Split('/').Any(part => part is "bin" or "obj"))
            .Select(file => (file.Item1, File.ReadAllText(file.path)));

    private static string FindRoot()
    {
        for (DirectoryInfo? folder = new(AppContext.BaseDirectory); folder is not null; folder = folder.Parent)
        {
            if (File.Exists(Path.Combine(folder.FullName, "DiskImage.sln")))
            {
                return folder.FullName;
            }
        }
        throw new InvalidOperationException("The tests do not run from inside the repository.");
    }

    [GeneratedRegex(
        @"\bDiskImage\.(?<folder>[A-Z][A-Za-z]+)(\.(?<part>[A-Z][A-Za-z0-9]+))?",
        RegexOptions.ExplicitCapture,
        matchTimeoutMilliseconds: 5000)]
    private static partial Regex Namespace();

    [GeneratedRegex(@"//[^\n]*|^namespace [^\n]*|""[^""\n]*""", RegexOptions.Multiline, matchTimeoutMilliseconds: 5000)]
    private static partial Regex Comment();

    [GeneratedRegex(@"^\s*//[^\n]*|(?<=[;{},)\]]\s*)//[^\n]*", RegexOptions.Multiline, matchTimeoutMilliseconds: 5000)]
    private static partial Regex LineComment();

    [GeneratedRegex(@"""(\\.|[^""\\\n])*""", RegexOptions.ExplicitCapture, matchTimeoutMilliseconds: 5000)]
    private static partial Regex Literal();

    /// <summary>A verb and our noun, or a parameter: a hyphen at the start of a word, and a capital and small letters behind it.</summary>
    [GeneratedRegex(
        @"\b[A-Z][a-z]+-DiskImage|(?<![\w\p{L}\)\]}-])-[A-Z][a-z]+[A-Za-z]*\b",
        RegexOptions.ExplicitCapture,
        matchTimeoutMilliseconds: 5000)]
    private static partial Regex FrontEndWord();

    [GeneratedRegex(@"\b(DllImport|LibraryImport)\b", RegexOptions.ExplicitCapture, matchTimeoutMilliseconds: 5000)]
    private static partial Regex NativeCall();

    [GeneratedRegex(@"\b(TODO|FIXME|HACK|XXX)\b|NotImplementedException", RegexOptions.ExplicitCapture, matchTimeoutMilliseconds: 5000)]
    private static partial Regex LeftOver();
}
