using System.Collections.Concurrent;
using System.Management.Automation;
using System.Management.Automation.Runspaces;
using System.Net;
using DiskImage.Block;
using DiskImage.Exports;
using DiskImage.Graph;

namespace DiskImage.PowerShell;

/// <summary>A server of this session, with the images that it serves.</summary>
/// <param name="id">Its number.</param>
/// <param name="server">It.</param>
/// <param name="images">What its disks were opened from, in their order.</param>
/// <param name="states">States of images that were opened besides, which are closed before them.</param>
internal sealed class RunningExport(
    int id, ExportServer server, IReadOnlyList<OpenedImage> images, IReadOnlyList<IAsyncDisposable> states) : IAsyncDisposable
{
    /// <summary>Its number.</summary>
    public int Id { get; } = id;

    /// <summary>What it serves, as it is now.</summary>
    public IEnumerable<DiskImageExport> Exports() => server.Disks.Zip(images, (disk, image) => new DiskImageExport
    {
        Id = Id,
        Name = disk.Name,
        Description = disk.Description,
        Uri = UriOf(disk.Name),
        Path = image.Path,
        Format = image.Format.Name,
        VirtualSize = disk.Node.Length,
        IsReadOnly = disk.Node.IsReadOnly || disk.IsReadOnly,
        MultiConnection = disk.Share != 1,
        Contexts = new(disk.Contexts),
        Clients = disk.Clients,
        BytesRead = disk.BytesRead,
        BytesWritten = disk.BytesWritten,
        Requests = disk.Requests,
        Errors = disk.Errors,
    });

    /// <summary>Ends the server, then closes the images, all of it.</summary>
    public ValueTask DisposeAsync()
        => Closing.AllAsync(
            states.Concat(images).Select(i => (Func<ValueTask>)i.DisposeAsync).Prepend(server.DisposeAsync));

    private string UriOf(string name)
    {
        string export = Uri.EscapeDataString(name), scheme = server.IsSecure ? "nbds" : "nbd";
        return server.Address is IPEndPoint address
            ? $"{scheme}://{address}/{export}"
            : $"{scheme}+unix:///{export}?socket={server.Address}";
    }
}

/// <summary>The servers of this process. They end with the runspace that began them, with the module, or with the process.</summary>
internal static class RunningExports
{
    private static readonly ConcurrentDictionary<int, RunningExport> s_running = new();
    private static int s_last;

    static RunningExports() => AppDomain.CurrentDomain.ProcessExit += (_, _) => StopAll();

    /// <summary>Those that run, in the order in which they began.</summary>
    public static IEnumerable<RunningExport> All => s_running.Values.OrderBy(r => r.Id);

    /// <summary>Keeps a server that has begun.</summary>
    /// <param name="server">The server.</param>
    /// <param name="images">Its images, which are closed with it.</param>
    /// <param name="states">States of them that were opened besides.</param>
    /// <param name="runspace">With which it ends; null for none.</param>
    public static RunningExport Add(
        ExportServer server, IReadOnlyList<OpenedImage> images, IReadOnlyList<IAsyncDisposable> states, Runspace? runspace)
    {
        int id = Interlocked.Increment(ref s_last);
        var running = new RunningExport(id, server, images, states);
        s_running[id] = running;
        if (runspace is not null)
        {
            runspace.StateChanged += (_, change) =>
            {
                if (change.RunspaceStateInfo.State is RunspaceState.Closing or RunspaceState.Closed or RunspaceState.Broken)
                {
                    Stop(id);
                }
            };
        }
        return running;
    }

    /// <summary>Ends one; does nothing if it has ended.</summary>
    public static async ValueTask StopAsync(int id)
    {
        if (s_running.TryRemove(id, out RunningExport? running))
        {
            await running.DisposeAsync().ConfigureAwait(false);
        }
    }

    /// <summary>Ends all.</summary>
    public static void StopAll()
    {
        foreach (int id in s_running.Keys)
        {
            Stop(id);
        }
    }

    private static void Stop(int id)
    {
        try
        {
            Task.Run(() => StopAsync(id).AsTask()).GetAwaiter().GetResult();
        }
        catch (DiskImageException)
        {
            // nobody is left to be told
        }
    }
}

/// <summary>Ends what runs when the module is removed. PowerShell makes one and calls it.</summary>
public sealed class ModuleEnd : IModuleAssemblyCleanup
{
    /// <inheritdoc/>
    public void OnRemove(PSModuleInfo psModuleInfo) => RunningExports.StopAll();
}
