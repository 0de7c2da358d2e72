using DiskImage.Graph;

namespace DiskImage.CommandLine;

/// <summary>
/// The names by which QEMU's programs put a filter over a file: <c>blkdebug:CONFIG:FILE</c>, CONFIG being a file of rules or nothing. They
/// are descriptions of nodes in another spelling; only these programs know it. Spec: docs/devel/testing/blkdebug.rst of QEMU.
/// </summary>
internal static class DebugName
{
    private const string Filter = "blkdebug", Prefix = $"{Filter}:", ConfigKey = "config", ImageRole = "image";
    private const int MostRules = 256; // in one file; ours

    /// <summary>What a name or description says, with rules in place of the files that hold them.</summary>
    /// <param name="locator">A path, a URI, <c>json:</c> or a name of this kind.</param>
    /// <param name="io">From where relative paths are taken.</param>
    /// <exception cref="CommandException">A file of rules that cannot be read or understood.</exception>
    public static string Expand(string locator, ProgramIO io)
    {
        if (locator.StartsWith(Prefix, StringComparison.Ordinal))
        {
            return NodeSpec.Of(null, (NodeSpecRoles.File, Over(locator, io))).ToString();
        }
        return locator.StartsWith(NodeSpecRoles.Json, StringComparison.Ordinal)
            && locator.Contains(Filter, StringComparison.Ordinal) && locator.Contains(ConfigKey, StringComparison.Ordinal)
            ? Expand(ImageLocator.Parse(locator).Spec, io).ToString()
            : locator;
    }

    /// <summary>A description with rules in place of the files that hold them, in it and in all that it stands on.</summary>
    public static NodeSpec Expand(NodeSpec spec, ProgramIO io)
    {
        foreach ((string name, object? value) in spec.Members)
        {
            if (value is NodeSpec inner)
            {
                spec = spec.With(name, Expand(inner, io));
            }
        }
        return spec.Driver is Filter && spec.Text(ConfigKey) is { Length: > 0 } file
            ? spec.Without(ConfigKey).Over(NodeSpec.From(Rules(file, io)))
            : spec;
    }

    /// <summary>
    /// The file that a name says, or the filter over it: under a description that is itself of the filter, or of what stands on it.
    /// </summary>
    public static NodeSpec Named(NodeSpec said, string file, ProgramIO io)
        => !file.StartsWith(Prefix, StringComparison.Ordinal) ? ImageLocator.Parse(file).Spec
            : said.Driver is Filter ? Over(file, io)
            : NodeSpec.Of(null, (NodeSpecRoles.File, Over(file, io)));

    private static NodeSpec Over(string text, ProgramIO io)
    {
        string[] parts = text.Split(':', 3);
        if (parts.Length < 3 || parts[2].Length == 0)
        {
            throw new CommandException($"'{text}' is no name of the form {Prefix}CONFIG:FILE");
        }
        NodeSpec below = ImageLocator.Parse(Expand(parts[2], io)).Spec;
        var filter = NodeSpec.Of(Filter, (ImageRole, below.Child(NodeSpecRoles.File) ?? below));
        return parts[1].Length == 0 ? filter : Expand(filter.With(ConfigKey, parts[1]), io);
    }

    /// <summary>Sections <c>[inject-error]</c> and <c>[set-state]</c> with <c>name = "value"</c> in them, as numbered members.</summary>
    private static IEnumerable<KeyValuePair<string, object?>> Rules(string file, ProgramIO io)
    {
        string[] lines;
        try
        {
            lines = File.ReadAllLines(io.Full(file));
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new CommandException($"Could not read blkdebug config file: {e.Message}");
        }
        string? section = null;
        int count = 0;
        foreach (string line in lines.Select(l => l.Trim()).Where(l => l.Length > 0 && l[0] != '#'))
        {
            if (line is ['[', .., ']'])
            {
                section = line[1..^1];
                count++;
                continue;
            }
            string[] pair = line.Split('=', 2, StringSplitOptions.TrimEntries);
            if (section is null || count > MostRules || pair.Length < 2)
            {
                throw new CommandException($"Could not parse blkdebug config file '{file}': {line}");
            }
            yield return new($"{section}.{count - 1}.{pair[0]}", pair[1].Trim('"'));
        }
    }

    private static class NodeSpecRoles
    {
        public const string File = "file", Json = "json:";
    }
}
