using DiskImage.Block;
using DiskImage.Platform;

namespace DiskImage.CommandLine;

/// <summary>The commands of qemu-io for those who debug formats: holding requests up where a format does something, and dying.</summary>
/// <param name="session">What is open.</param>
internal sealed class IoBreakpoints(IoSession session)
{
    private const string NoSuch = "No such file or directory", NotThere = "Operation not supported"; // ENOENT, ENOTSUP
    private static readonly TimeSpan s_glance = TimeSpan.FromMilliseconds(2);

    /// <summary>They.</summary>
    public IReadOnlyList<IoCommand> Commands =>
    [
        new(["break"], [], "EVENT TAG", 2, 2, "stop the next request that comes to an event", BreakAsync),
        new(["remove_break"], [], "TAG", 1, 1, "take that back", RemoveAsync),
        new(["resume"], [], "TAG", 1, 1, "let a request go on that was stopped", ResumeAsync),
        new(["wait_break"], [], "TAG", 1, 1, "wait until a request is stopped", WaitAsync),
        new(["sigraise"], [], "SIGNAL", 1, 1, "send this program a signal, by its number", RaiseAsync),
    ];

    /// <summary>The filter that can hold requests up, wherever it is below a disk; null if there is none.</summary>
    public static IBreakpoints? Of(BlockNode disk)
    {
        for (BlockNode? node = disk; node is not null; node = node.Child("file") ?? node.Children.Values.FirstOrDefault())
        {
            if (node is IBreakpoints breakpoints)
            {
                return breakpoints;
            }
        }
        return null;
    }

    private Task<bool> BreakAsync(CommandArguments arguments, CancellationToken cancellationToken)
    {
        if (Of(session.Disk()) is not { } breakpoints)
        {
            throw new CommandException($"Could not set breakpoint: {NotThere}");
        }
        breakpoints.Told = Tell;
        return breakpoints.Break(arguments.Operands[0], arguments.Operands[1])
            ? Task.FromResult(true)
            : throw new CommandException($"Could not set breakpoint: {NoSuch}");
    }

    private Task<bool> RemoveAsync(CommandArguments arguments, CancellationToken cancellationToken)
        => Of(session.Disk()) is not { } breakpoints
                ? throw new CommandException($"Could not remove breakpoint {arguments.Operands[0]}: {NotThere}")
            : breakpoints.Remove(arguments.Operands[0]) ? Task.FromResult(true)
            : throw new CommandException($"Could not remove breakpoint {arguments.Operands[0]}: {NoSuch}");

    private Task<bool> ResumeAsync(CommandArguments arguments, CancellationToken cancellationToken)
        => Of(session.Disk()) is not { } breakpoints ? throw new CommandException($"Could not resume request: {NotThere}")
            : breakpoints.GoOn(arguments.Operands[0]) ? Task.FromResult(true)
            : throw new CommandException($"Could not resume request: {NoSuch}");

    /// <summary>Waits while anything is under way that may still come to the event; QEMU's would wait for ever.</summary>
    private async Task<bool> WaitAsync(CommandArguments arguments, CancellationToken cancellationToken)
    {
        IBreakpoints? breakpoints = Of(session.Disk());
        string tag = arguments.Operands[0];
        while (breakpoints?.IsSuspended(tag) != true)
        {
            if (breakpoints is null || !session.Pending.IsAny)
            {
                throw new CommandException($"no request is under way that could stop at '{Printable.Of(tag)}'");
            }
            await Task.Delay(s_glance, cancellationToken).ConfigureAwait(false);
        }
        return true;
    }

    private async Task<bool> RaiseAsync(CommandArguments arguments, CancellationToken cancellationToken)
    {
        int signal = QemuSize.TryParse(arguments.Operands[0], out long number) && number is > 0 and < 128 ? (int)number
            : throw new CommandException($"{arguments.Operands[0]} is no number of a signal");
        await session.Io.Output.FlushAsync(cancellationToken).ConfigureAwait(false);
        OwnProcess.Raise(signal);
        return true;
    }

    private void Tell(string tag, bool isSuspended)
    {
        lock (session.Io.Saying)
        {
            session.Io.Output.WriteLine($"blkdebug: {(isSuspended ? "Suspended" : "Resuming")} request '{tag}'");
        }
    }
}
