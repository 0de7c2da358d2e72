using DiskImage.Block;

namespace DiskImage.CommandLine;

/// <summary>
/// Requests that were given and are under way: <c>aio_read</c> and <c>aio_write</c> that a breakpoint, or another request, holds up.
/// </summary>
/// <param name="io">Where it is said how they end.</param>
internal sealed class IoPending(ProgramIO io)
{
    private readonly List<Task<bool>> _tasks = [];

    /// <summary>True if any has not ended.</summary>
    public bool IsAny => _tasks.Exists(t => !t.IsCompleted);

    /// <summary>
    /// Begins a request. It runs until it is done or held up; one that is done by then is waited for, so that what it says comes first.
    /// </summary>
    /// <param name="name">What it is called when it fails.</param>
    /// <param name="work">The request. It says itself how it went, if well.</param>
    public async Task<bool> BeginAsync(string name, Func<Task<bool>> work)
    {
        Task<bool> task = RunAsync(name, work);
        if (task.IsCompleted)
        {
            _ = await task.ConfigureAwait(false);
        }
        else
        {
            _tasks.Add(task);
        }
        return true; // a request that was given is a command that went well, as in QEMU
    }

    /// <summary>Waits until all have ended.</summary>
    public async Task DrainAsync()
    {
        _ = await Task.WhenAll(_tasks).ConfigureAwait(false);
        _tasks.Clear();
    }

    private async Task<bool> RunAsync(string name, Func<Task<bool>> work)
    {
        try
        {
            return await work().ConfigureAwait(false);
        }
        catch (DiskImageException e)
        {
            lock (io.Saying)
            {
                io.Output.WriteLine($"{name} failed: {ErrorText.Of(e)}");
            }
            return false;
        }
    }
}
