namespace DiskImage.CommandLine;

/// <summary>Where a program's words go, and from where its relative paths are taken.</summary>
/// <param name="Output">What scripts read.</param>
/// <param name="Error">What people read when something is wrong.</param>
/// <param name="Folder">The folder of relative paths; null for the process's current one.</param>
public sealed record ProgramIO(TextWriter Output, TextWriter Error, string? Folder)
{
    /// <summary>Opens the bytes that go to standard output; null where there is no such place.</summary>
    public Func<Stream>? OpenOutput { get; init; }

    /// <summary>What is typed, for a program that reads commands; null where nothing is.</summary>
    public TextReader? Input { get; init; }

    /// <summary>Held while lines are said that belong together, where several requests may say theirs.</summary>
    internal Lock Saying { get; } = new();

    /// <summary>A path as seen from <see cref="Folder"/>.</summary>
    public string Full(string path) => Path.GetFullPath(path, Folder ?? Environment.CurrentDirectory);
}
