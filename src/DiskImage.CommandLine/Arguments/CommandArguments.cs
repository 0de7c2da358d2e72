namespace DiskImage.CommandLine;

/// <summary>Arguments as getopt_long reads them: options anywhere, in any order, and what is left in its order.</summary>
/// <remarks>
/// Letters may stand together (<c>-pq</c>), their value right behind (<c>-ofoo</c>) or next; names may be cut short where that is
/// unambiguous (<c>--out json</c>), their value behind <c>=</c> or next. All behind <c>--</c> are operands, and so is a lone <c>-</c>.
/// </remarks>
internal sealed class CommandArguments
{
    private readonly List<(string Key, string? Value)> _given = [];
    private readonly List<string> _operands = [];
    private readonly IReadOnlyList<CommandOption> _options;

    /// <summary>Reads arguments.</summary>
    /// <param name="options">The options there are.</param>
    /// <param name="arguments">What was given.</param>
    /// <exception cref="CommandException">An option that is not known, or whose value is missing.</exception>
    public CommandArguments(IReadOnlyList<CommandOption> options, IReadOnlyList<string> arguments)
    {
        _options = options;
        for (int at = 0; at < arguments.Count; at++)
        {
            string argument = arguments[at];
            if (argument is "--")
            {
                _operands.AddRange(arguments.Skip(at + 1));
                break;
            }
            if (argument.StartsWith("--", StringComparison.Ordinal))
            {
                ReadLong(argument, arguments, ref at);
            }
            else if (argument.Length > 1 && argument[0] == '-')
            {
                ReadShort(argument, arguments, ref at);
            }
            else
            {
                _operands.Add(argument);
            }
        }
    }

    /// <summary>The options in the order in which they were given, by <see cref="CommandOption.Key"/>.</summary>
    public IReadOnlyList<(string Key, string? Value)> Given => _given;

    /// <summary>What is no option.</summary>
    public IReadOnlyList<string> Operands => _operands;

    /// <summary>True if an option was given.</summary>
    public bool Has(string key) => _given.Exists(g => g.Key.Equals(key, StringComparison.Ordinal));

    /// <summary>The value of an option as it was given last; null if it was not.</summary>
    public string? Last(string key) => _given.FindLast(g => g.Key.Equals(key, StringComparison.Ordinal)).Value;

    /// <summary>All values of an option.</summary>
    public IEnumerable<string> All(string key) => _given.Where(g => g.Key.Equals(key, StringComparison.Ordinal)).Select(g => g.Value!);

    private void ReadLong(string argument, IReadOnlyList<string> arguments, ref int at)
    {
        string[] parts = argument[2..].Split('=', 2);
        CommandOption[] found = [.. _options.Where(o => o.Long?.StartsWith(parts[0], StringComparison.Ordinal) == true)];
        CommandOption option = Array.Find(found, o => o.Long!.Equals(parts[0], StringComparison.Ordinal))
            ?? (found.Length == 1 ? found[0] : throw CommandException.Usage($"unrecognized option '{argument}'"));
        if (option.Value is null)
        {
            _given.Add(parts.Length == 1 ? (option.Key, null) : throw CommandException.Usage($"unrecognized option '{argument}'"));
            return;
        }
        _given.Add((option.Key, parts.Length == 2 ? parts[1] : Next(argument, arguments, ref at)));
    }

    private void ReadShort(string argument, IReadOnlyList<string> arguments, ref int at)
    {
        for (int letter = 1; letter < argument.Length; letter++)
        {
            CommandOption option = _options.FirstOrDefault(o => o.Short == argument[letter] && o.Short != '\0')
                ?? throw CommandException.Usage($"unrecognized option '{argument}'");
            if (option.Value is null)
            {
                _given.Add((option.Key, null));
                continue;
            }
            _given.Add((option.Key, letter + 1 < argument.Length ? argument[(letter + 1)..] : Next(argument, arguments, ref at)));
            return;
        }
    }

    private static string Next(string argument, IReadOnlyList<string> arguments, ref int at)
        => ++at < arguments.Count ? arguments[at] : throw CommandException.Usage($"missing argument for option '{argument}'");
}
