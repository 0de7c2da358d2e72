using System.Text.Json.Nodes;
using System.Text.RegularExpressions;
using DiskImage.CommandLine;
using DiskImage.Tests.Support;

namespace DiskImage.Tests.CommandLine;

/// <summary>
/// Lines that are run twice, each time in a folder of its own: by QEMU's programs, and by ours in process. Both must say the same, with the
/// same status.
/// </summary>
/// <remarks>
/// <c>! qemu-img …</c> is run by QEMU in both folders; <c>$ qemu-img …</c> by each its own; <c>= file format</c> has QEMU compare the two
/// files as disks and check ours; <c>~ word</c> leaves out of every output what that word stands for (see <see cref="s_rules"/>).
/// What people are told on standard error is not compared: only that there is something or nothing.
/// </remarks>
internal sealed partial class QemuScript(string script)
{
    /// <summary>What may differ in a row, by the word that says so there.</summary>
    private static readonly Dictionary<string, Func<string, string>> s_rules = new(StringComparer.Ordinal)
    {
        ["dates"] = text => Date().Replace(text, "DATE"), // of snapshots: now
        ["disk-size"] = text => DiskSize().Replace(text, "disk size"), // where our file has another layout
        ["end"] = text => EndOffset().Replace(text, "end"), // likewise
        ["progress"] = text => text.Length > 0 ? "progress" : "", // how often it is shown
        ["rates"] = text => Rate().Replace(text, "$1 RATE"), // how quick it was
        ["identifiers"] = text => Identifier().Replace(text, "$1 ID"), // random
        ["encryption"] = text => Encryption().Replace(text, ""), // we tell the cipher as Linux calls it
        ["text"] = text => text.Length > 0 ? "text" : "", // only that something is said
        ["offsets"] = text => Offset().Replace(text, ""), // where in the file data lies
    };

    public async Task RunAsync()
    {
        using var theirs = new TestFolder();
        using var ours = new TestFolder();
        var rules = new List<Func<string, string>> { Always };
        foreach (string line in script.Split('\n', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries))
        {
            string[] words = [.. QemuImg.Words(line[1..])];
            switch (line[0])
            {
                case '~':
                    rules.AddRange(words.Select(w => s_rules[w]));
                    break;
                case '!':
                    foreach (TestFolder folder in new[] { theirs, ours })
                    {
                        (int code, _, string errors) = await TheirsAsync(folder, words);
                        Assert.True(code == 0, $"{line}: {errors}");
                    }
                    break;
                case '=':
                    await CompareAsync(theirs, ours, words[0], words[1]);
                    break;
                case '$':
                    await CompareAsync(theirs, ours, line, words, rules);
                    break;
                default:
                    throw new InvalidOperationException(line);
            }
        }
    }

    private static async Task CompareAsync(
        TestFolder theirs, TestFolder ours, string line, string[] words, List<Func<string, string>> rules)
    {
        (int theirCode, string theirText, string theirErrors) = await TheirsAsync(theirs, words);
        (int code, string text, string errors) = await OursAsync(ours, words);
        string both = $"{line}\nQEMU {theirCode}:\n{theirText}{theirErrors}\nours {code}:\n{text}{errors}";
        Assert.True(theirCode == code, both);
        (theirText, text) = (Canonical(theirText), Canonical(text));
        foreach (Func<string, string> rule in rules)
        {
            (theirText, text) = (rule(theirText), rule(text));
        }
        Assert.True(theirText.Equals(text, StringComparison.Ordinal), $"{both}\n--- as compared, QEMU:\n{theirText}\n--- ours:\n{text}");
        Assert.True(code == 0 || errors.Length > 0 || text.Length > 0 || theirErrors.Length == 0, both);
    }

    private static async Task CompareAsync(TestFolder theirs, TestFolder ours, string file, string format)
    {
        (int code, string text, string errors) = await Programs.TryAsync(
            "qemu-img", "compare", "-f", format, "-F", format, theirs[file], ours[file]);
        Assert.True(code == 0 && !text.Contains("mismatch", StringComparison.Ordinal), $"{file}: {text}{errors}");
        (code, text, errors) = await Programs.TryAsync("qemu-img", "check", "-f", format, ours[file]);
        Assert.True(code is 0 or 63, $"{file}: {text}{errors}");
    }

    private static Task<(int Code, string Text, string Errors)> TheirsAsync(TestFolder folder, string[] words)
        => Programs.TryInAsync(folder.Root, words[0], words[1..]);

    private static async Task<(int Code, string Text, string Errors)> OursAsync(TestFolder folder, string[] words)
    {
        var text = new StringWriter { NewLine = "\n" };
        var errors = new StringWriter { NewLine = "\n" };
        var io = new ProgramIO(text, errors, folder.Root);
        int code = words[0] switch
        {
            "qemu-img" => await QemuImg.RunAsync(words[1..], io, CancellationToken.None),
            "qemu-io" => await QemuIo.RunAsync(words[1..], io, CancellationToken.None),
            _ => throw new InvalidOperationException(words[0]),
        };
        return (code, text.ToString(), errors.ToString());
    }

    /// <summary>JSON with its members in order, and without those that QEMU 7.2 does not have yet.</summary>
    private static string Canonical(string text)
    {
        if (text is not ['{' or '[', ..])
        {
            return text;
        }
        return Sorted(JsonNode.Parse(text))?.ToJsonString() ?? "null";

        static JsonNode? Sorted(JsonNode? node) => node switch
        {
            JsonObject value => new JsonObject(value.Where(m => m.Key is not ("children" or "compressed"))
                .OrderBy(m => m.Key, StringComparer.Ordinal).Select(m => KeyValuePair.Create(m.Key, Sorted(m.Value)))),
            JsonArray list => new JsonArray([.. list.Select(Sorted)]),
            _ => node?.DeepClone(),
        };
    }

    /// <summary>QEMU 7.2 does not tell of child nodes yet.</summary>
    private static string Always(string text) => ChildNode().Replace(text, "");

    [GeneratedRegex(@"Child node '[^\n]*\n(    [^\n]*\n)*", RegexOptions.ExplicitCapture, 1000)]
    private static partial Regex ChildNode();

    [GeneratedRegex(@"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d|""date-n?sec"":\d+", RegexOptions.ExplicitCapture, 1000)]
    private static partial Regex Date();

    [GeneratedRegex(@"disk size: [^\n]*|""actual-size"":\d+", RegexOptions.ExplicitCapture, 1000)]
    private static partial Regex DiskSize();

    [GeneratedRegex(@"Image end offset: \d+|""image-end-offset"":\d+", RegexOptions.ExplicitCapture, 1000)]
    private static partial Regex EndOffset();

    [GeneratedRegex(@"(ops;|completed in) [^\n]*", RegexOptions.ExplicitCapture, 1000)]
    private static partial Regex Rate();

    [GeneratedRegex(@"(cid"":|cid:|uuid"":|uuid:) ?[^\n,]*", RegexOptions.ExplicitCapture, 1000)]
    private static partial Regex Identifier();

    [GeneratedRegex(@"    encrypt:\n(        [^\n]*\n)*|""encrypt"":\{[^\]]*\][^}]*\},|Format specific information:\n[^\0]*", RegexOptions.ExplicitCapture, 1000)]
    private static partial Regex Encryption();

    [GeneratedRegex(@",""offset"":\d+|0x[0-9a-f]+ +(?=\S+$)", RegexOptions.Multiline, 1000)]
    private static partial Regex Offset();
}
