namespace DiskImage.CommandLine;

/// <summary>A command of qemu-io.</summary>
/// <param name="Names">Its names, the long one first.</param>
/// <param name="Options">Its options.</param>
/// <param name="OperandText">What stands behind them, in help.</param>
/// <param name="Least">Operands at least.</param>
/// <param name="Most">Operands at most.</param>
/// <param name="Summary">What it does, in one line.</param>
/// <param name="Run">Does it; false if it failed and has said so.</param>
internal sealed record IoCommand(
    IReadOnlyList<string> Names,
    IReadOnlyList<CommandOption> Options,
    string OperandText,
    int Least,
    int Most,
    string Summary,
    Func<CommandArguments, CancellationToken, Task<bool>> Run);
