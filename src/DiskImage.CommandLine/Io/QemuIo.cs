using System.Globalization;
using System.Text;
using DiskImage.Block;

namespace DiskImage.CommandLine;

/// <summary>qemu-io's arguments, commands and output over this library's disks.</summary>
public static class QemuIo
{
    private const string Program = "qemu-io";

    private static readonly CommandOption[] s_options =
    [
        new('\0', "object", "OBJECT", "define a secret: secret,id=ID,file=FILE"),
        new('\0', "image-opts", null, "treat the file name as an option string"),
        new('c', "cmd", "COMMAND", "do this; may be given more than once"),
        new('f', "format", "FMT", "format of the image"),
        new('r', null, null, "open it to be read only"),
        new('s', null, null, "what is written goes to a temporary overlay"),
        new('n', null, null, "past the host's cache"),
        new('C', null, null, "keep what is read from the backing image"),
        new('m', "misalign", null, "taken, and has no effect"),
        new('k', "native-aio", null, "taken, and has no effect"),
        new('i', "aio", "AIO", "taken, and has no effect"),
        new('t', null, "CACHE", "cache mode"),
        new('d', null, "off|unmap", "what a discard does"),
        new('T', "trace", "TRACE", "taken, and has no effect"),
        new('U', null, null, "open the image although others write to it"),
        new('h', "help", null, "show this and exit"),
        new('V', "version", null, "show the version and exit"),
        new('\0', "read-only", null, "the same as -r"),
        new('\0', "snapshot", null, "the same as -s"),
        new('\0', "nocache", null, "the same as -n"),
        new('\0', "copy-on-read", null, "the same as -C"),
        new('\0', "force-share", null, "the same as -U"),
        new('\0', "cache", "CACHE", "the same as -t"),
        new('\0', "discard", "off|unmap", "the same as -d"),
    ];

    /// <summary>Runs one command line; without commands in it, the commands in the input.</summary>
    /// <param name="arguments">The arguments behind the program's name.</param>
    /// <param name="io">Where words go.</param>
    /// <param name="cancellationToken">Stops it.</param>
    /// <returns>The exit status: 1 if anything failed.</returns>
    public static async Task<int> RunAsync(IReadOnlyList<string> arguments, ProgramIO io, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(arguments);
        ArgumentNullException.ThrowIfNull(io);
        io = io with { Output = TextWriter.Synchronized(io.Output) }; // requests that are under way say how they ended
        try
        {
            var given = new CommandArguments(s_options, Shortened(arguments));
            if (given.Has("help") || given.Has("version"))
            {
                io.Output.WriteLine(given.Has("help") ? Help() : $"{Program} version 10.0 (DiskImage)");
                return 0;
            }
            var front = new FrontEnd(io, Program) { Secrets = SecretObjects.Of(given.All("object"), io) };
            if (given.Last("format") is { } format && !FrontEnd.Registry.Formats.Any(f => f.IsCalled(format)))
            {
                throw new CommandException($"Unknown driver '{format}'");
            }
            var session = new IoSession(front) { Format = given.Last("format"), IsDescribed = given.Has("image-opts") };
            await using (session.ConfigureAwait(false))
            {
                return await RunAsync(given, session, cancellationToken).ConfigureAwait(false) ? 0 : CommandException.Failure;
            }
        }
        catch (CommandException e)
        {
            io.Error.WriteLine($"{Program}: {e.Message}");
            return CommandException.Failure;
        }
        catch (DiskImageException e)
        {
            io.Error.WriteLine($"{Program}: {RemedyOptions.Say(e)}");
            return CommandException.Failure;
        }
    }

    private static async Task<bool> RunAsync(CommandArguments given, IoSession session, CancellationToken cancellationToken)
    {
        if (given.Operands.Count > 1)
        {
            throw new CommandException("Expecting one image file name");
        }
        if (given.Operands.Count == 1 && !await session.OpenAsync(given.Operands[0], given, cancellationToken).ConfigureAwait(false))
        {
            return false;
        }
        bool isFine = true;
        string[] lines = [.. given.All("cmd")];
        if (lines.Length > 0)
        {
            foreach (string line in lines)
            {
                isFine &= await RunAsync(line, session, cancellationToken).ConfigureAwait(false) != false;
            }
            return isFine;
        }
        while (session.Io.Input is { } input)
        {
            await session.Io.Output.WriteAsync("qemu-io> ").ConfigureAwait(false);
            await session.Io.Output.FlushAsync(cancellationToken).ConfigureAwait(false);
            if (await input.ReadLineAsync(cancellationToken).ConfigureAwait(false) is not { } line || line.Trim() is "quit" or "q")
            {
                break;
            }
            _ = await RunAsync(line, session, cancellationToken).ConfigureAwait(false);
        }
        return isFine;
    }

    private static async Task<bool> RunAsync(string line, IoSession session, CancellationToken cancellationToken)
    {
        string[] words = line.Split(' ', StringSplitOptions.RemoveEmptyEntries); // quotes are as any character, as in QEMU
        ProgramIO io = session.Io;
        if (words.Length == 0 || words[0] is "quit" or "q")
        {
            return true;
        }
        IReadOnlyList<IoCommand> commands = [
            .. new IoRequests(session).Commands, .. session.Commands, .. new IoBreakpoints(session).Commands, .. Others(io)];
        if (commands.FirstOrDefault(c => c.Names.Contains(words[0], StringComparer.Ordinal)) is not { } command)
        {
            await io.Error.WriteLineAsync($"command \"{Printable.Of(words[0])}\" not found").ConfigureAwait(false);
            return false;
        }
        string name = command.Names[0];
        try
        {
            var arguments = new CommandArguments(command.Options, [.. words.Skip(1)]);
            int count = arguments.Operands.Count;
            if (count < command.Least || count > command.Most)
            {
                string wanted = command.Least == command.Most
                    ? $"expected {Number(command.Least)} arguments"
                    : $"expected between {Number(command.Least)} and {Number(command.Most)} arguments";
                throw CommandException.Usage($"bad argument count {Number(count)} to {words[0]}, {wanted}");
            }
            return await command.Run(arguments, cancellationToken).ConfigureAwait(false);
        }
        catch (CommandException e)
        {
            await (e.IsUsage ? io.Error : io.Output).WriteLineAsync(e.Message).ConfigureAwait(false);
            return false;
        }
        catch (DiskImageException e)
        {
            if (e.Kind == DiskImageErrorKind.ReadOnly)
            {
                await io.Error.WriteLineAsync($"{Program}: Block node is read-only").ConfigureAwait(false);
                return false;
            }
            string verb = name.Replace("aio_", "", StringComparison.Ordinal);
            await io.Output.WriteLineAsync($"{verb} failed: {ErrorText.Of(e)}").ConfigureAwait(false);
            return false;
        }
    }

    private static IoCommand[] Others(ProgramIO io) =>
    [
        new(["help", "?"], [], "", 0, 1, "list the commands", (_, _) =>
        {
            io.Output.WriteLine(Help());
            return Task.FromResult(true);
        }),
        new(["sleep"], [], "MILLISECONDS", 1, 1, "wait", async (arguments, token) =>
        {
            await Task.Delay(TimeSpan.FromMilliseconds(
                QemuSize.TryParse(arguments.Operands[0], out long wait) ? Math.Min(wait, 3_600_000) : 0), token).ConfigureAwait(false);
            return true;
        }),
    ];

    /// <summary>Options whose letter is what they are asked for by.</summary>
    private static string[] Shortened(IReadOnlyList<string> arguments) => [.. arguments.Select(a => a switch
    {
        "--read-only" => "-r",
        "--snapshot" => "-s",
        "--nocache" => "-n",
        "--force-share" => "-U",
        "--copy-on-read" => "-C",
        "--cache" => "-t",
        "--discard" => "-d",
        _ when a.StartsWith("--cache=", StringComparison.Ordinal) => $"-t{a["--cache=".Length..]}",
        _ when a.StartsWith("--discard=", StringComparison.Ordinal) => $"-d{a["--discard=".Length..]}",
        _ => a,
    })];

    private static string Help()
    {
        var text = new StringBuilder($"usage: {Program} [options] [-c COMMAND]… [FILE]\n");
        foreach (CommandOption option in s_options)
        {
            _ = text.Append($"\n  {(option.Value is null ? option.Spelling : $"{option.Spelling} {option.Value}")}\n     {option.Help}");
        }
        var nothing = new ProgramIO(TextWriter.Null, TextWriter.Null, null);
        var session = new IoSession(new FrontEnd(nothing, Program));
        _ = text.Append("\n\nCommands:");
        foreach (IoCommand command in new IoRequests(session).Commands.Concat(session.Commands)
            .Concat(new IoBreakpoints(session).Commands).Concat(Others(nothing)))
        {
            string letters = string.Concat(command.Options.Select(o => o.Short));
            _ = text.Append($"\n  {string.Join(", ", command.Names)} {(letters.Length > 0 ? $"[-{letters}] " : "")}{command.OperandText}\n"
                + $"     {command.Summary}");
        }
        return text.ToString();
    }

    private static string Number(int value) => value.ToString(CultureInfo.InvariantCulture);
}
