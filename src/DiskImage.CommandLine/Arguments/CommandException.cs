namespace DiskImage.CommandLine;

/// <summary>Ends a command with a message and a status.</summary>
/// <param name="message">What is said after the program's name; several lines are allowed.</param>
/// <param name="status">The exit status.</param>
internal sealed class CommandException(string message, int status = CommandException.Failure) : Exception(message)
{
    /// <summary>The status of whatever has no status of its own.</summary>
    public const int Failure = 1;

    /// <summary>The exit status.</summary>
    public int Status { get; } = status;

    /// <summary>It is the arguments that are wrong, so it is said where to read of them.</summary>
    public bool IsUsage { get; init; }

    /// <summary>Wrong arguments.</summary>
    public static CommandException Usage(string message, int status = Failure) => new(message, status) { IsUsage = true };
}
