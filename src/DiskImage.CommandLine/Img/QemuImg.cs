using System.Reflection;
using System.Text;
using DiskImage.Block;

namespace DiskImage.CommandLine;

/// <summary>qemu-img's arguments, output and exit statuses over this library's operations.</summary>
public static class QemuImg
{
    private const string Program = "qemu-img";

    private static readonly CommandOption[] s_options =
    [
        new('h', "help", null, "show this and exit"),
        new('V', "version", null, "show the version and exit"),
        new('T', "trace", "TRACE", "taken, and has no effect"),
    ];

    /// <summary>The subcommands.</summary>
    internal static IReadOnlyList<Func<ImgCommand>> Commands { get; } =
    [
        () => new AmendCommand(),
        () => new BenchCommand(),
        () => new BitmapCommand(),
        () => new CheckCommand(),
        () => new CommitCommand(),
        () => new CompareCommand(),
        () => new ConvertCommand(),
        () => new CreateCommand(),
        () => new DdCommand(),
        () => new InfoCommand(),
        () => new MapCommand(),
        () => new MeasureCommand(),
        () => new RebaseCommand(),
        () => new ResizeCommand(),
        () => new SnapshotCommand(),
    ];

    /// <summary>Runs one command line.</summary>
    /// <param name="arguments">The arguments behind the program's name.</param>
    /// <param name="io">Where words go.</param>
    /// <param name="cancellationToken">Stops it; what is being made is removed.</param>
    /// <returns>The exit status.</returns>
    public static async Task<int> RunAsync(IReadOnlyList<string> arguments, ProgramIO io, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(arguments);
        ArgumentNullException.ThrowIfNull(io);
        int status = CommandException.Failure;
        try
        {
            int at = 0;
            while (at < arguments.Count && arguments[at].StartsWith('-'))
            {
                string option = arguments[at];
                at += option is "-T" or "--trace" ? 2 : 1;
                if (new CommandArguments(s_options, [.. arguments.Take(at).TakeLast(option is "-T" or "--trace" ? 2 : 1)]) is var given
                    && (given.Has("help") || given.Has("version")))
                {
                    io.Output.WriteLine(given.Has("help") ? $"{Version}\n{Help()}" : Version);
                    return 0;
                }
            }
            if (at >= arguments.Count)
            {
                throw CommandException.Usage("Not enough arguments");
            }
            ImgCommand command = Commands.Select(make => make()).FirstOrDefault(c => c.Name.Equals(arguments[at], StringComparison.Ordinal))
                ?? throw CommandException.Usage($"Command not found: {arguments[at]}");
            status = command.FailureStatus;
            return await command.RunAsync(
                [.. arguments.Skip(at + 1)], new FrontEnd(io, Program), cancellationToken).ConfigureAwait(false);
        }
        catch (CommandException e)
        {
            io.Error.WriteLine($"{Program}: {e.Message}{(e.IsUsage ? $"\nTry '{Program} --help' for more information" : "")}");
            return e.Status;
        }
        catch (DiskImageException e)
        {
            io.Error.WriteLine($"{Program}: {RemedyOptions.Say(e)}");
            return status;
        }
    }

    /// <summary>Splits a command line: spaces part, quotes and a backslash keep them.</summary>
    public static IReadOnlyList<string> Words(string line)
    {
        var words = new List<string>();
        StringBuilder? word = null;
        char quote = '\0';
        foreach (char c in line)
        {
            if (quote != '\0' ? c == quote : c is '\'' or '"')
            {
                quote = quote == '\0' ? c : '\0';
                word ??= new StringBuilder();
            }
            else if (quote == '\0' && char.IsWhiteSpace(c))
            {
                words.AddRange(word is null ? [] : [word.ToString()]);
                word = null;
            }
            else
            {
                word = (word ?? new StringBuilder()).Append(c);
            }
        }
        words.AddRange(word is null ? [] : [word.ToString()]);
        return words;
    }

    /// <summary>The help of a subcommand.</summary>
    internal static string HelpOf(ImgCommand command)
    {
        var text = new StringBuilder();
        _ = text.Append($"{command.Summary}. Usage:\n  {Program} {command.Name} [options] {command.OperandText}\n\nOptions:");
        foreach (CommandOption option in command.Options)
        {
            string left = option.Value is null ? option.Spelling : $"{option.Spelling} {option.Value}";
            _ = text.Append($"\n  {left}\n     {option.Help}");
        }
        return text.ToString();
    }

    private static string Version { get; }
        = $"{Program} version 10.0 (DiskImage {typeof(QemuImg).Assembly.GetCustomAttribute<AssemblyFileVersionAttribute>()?.Version})";

    private static string Help()
    {
        var text = new StringBuilder();
        _ = text.Append($"usage: {Program} [standard options] command [command options]\nDisk image utility with qemu-img's arguments\n\n");
        foreach (CommandOption option in s_options)
        {
            _ = text.Append($"    {option.Spelling}  {option.Help}\n");
        }
        _ = text.Append("\nCommands:\n");
        foreach (ImgCommand command in Commands.Select(make => make()))
        {
            _ = text.Append($"  {command.Name,-9} {command.Summary}\n");
        }
        _ = text.Append($"\n{Program} COMMAND --help shows a command's options.\n\nSupported formats: ");
        string[] names = [.. FrontEnd.Registry.Formats.Select(f => f.Name).Concat(FrontEnd.Registry.Filters.Select(f => f.Name))
            .Concat(FrontEnd.Registry.Protocols.Select(p => p.Name)).Order(StringComparer.Ordinal)];
        return text.Append(string.Join(' ', names)).ToString();
    }
}
