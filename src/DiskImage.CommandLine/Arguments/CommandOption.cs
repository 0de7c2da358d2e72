namespace DiskImage.CommandLine;

/// <summary>An option that a command takes.</summary>
/// <param name="Short">Its letter; <c>'\0'</c> if it has none.</param>
/// <param name="Long">Its name; null if it has only a letter.</param>
/// <param name="Value">What its value is called in help; null if it takes none.</param>
/// <param name="Help">What it does, in one line.</param>
internal sealed record CommandOption(char Short, string? Long, string? Value, string Help)
{
    /// <summary>By what commands ask for it: the name, else the letter.</summary>
    public string Key => Long ?? Short.ToString();

    /// <summary>As it is written in help and in the table of docs/qemu-img.md.</summary>
    public string Spelling => (Short, Long) switch
    {
        ('\0', _) => $"--{Long}",
        (_, null) => $"-{Short}",
        _ => $"-{Short}, --{Long}",
    };
}
