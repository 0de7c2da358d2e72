namespace DiskImage.HelpBuilder;

/// <summary>
/// The module's about topics, <c>about_*.help.txt</c>, which <c>Get-Help</c> reads as they are. It finds a topic at once by its file's name
/// and otherwise only by a search through all help of the machine, so each word under a topic's KEYWORDS gets a file of its own with the
/// topic's text.
/// </summary>
internal static class AboutTopics
{
    private const string Pattern = "about_*.help.txt", Ending = ".help.txt";

    private static readonly string[] s_headings = ["TOPIC", "SHORT DESCRIPTION", "LONG DESCRIPTION"];

    /// <summary>Copies the topics of a folder; what is wrong with any is added to the problems.</summary>
    public static void Copy(string folder, string output, List<string> problems)
    {
        foreach (string file in Directory.GetFiles(folder, Pattern).Order(StringComparer.Ordinal))
        {
            string[] lines = File.ReadAllLines(file);
            string topic = Path.GetFileName(file)[..^Ending.Length];
            problems.AddRange(s_headings.Where(heading => !lines.Contains(heading, StringComparer.Ordinal)).Select(
                heading => $"{file}(1): error : the heading {heading} is missing"));
            if (lines.Length < 2 || lines[0] != s_headings[0] || lines[1].Trim() != topic)
            {
                problems.Add($"{file}(1): error : a topic begins with {s_headings[0]} and its file's name");
            }
            foreach (string name in Keywords(lines).Prepend(topic))
            {
                File.Copy(file, Path.Combine(output, name + Ending), overwrite: true);
            }
        }
    }

    /// <summary>The words between the heading KEYWORDS and the next one, separated by commas.</summary>
    private static IEnumerable<string> Keywords(string[] lines)
        => lines.SkipWhile(line => line != "KEYWORDS").Skip(1).TakeWhile(line => line.Length == 0 || line[0] == ' ')
            .SelectMany(line => line.Split(',', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries));
}
