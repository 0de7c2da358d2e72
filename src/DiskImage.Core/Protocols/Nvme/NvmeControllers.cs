using System.Collections.Concurrent;
using DiskImage.Platform;

namespace DiskImage.Protocols.Nvme;

/// <summary>
/// The controllers that this process drives. A controller has one driver, so whatever namespaces of it are open share one.
/// </summary>
/// <param name="host">Where they come from.</param>
/// <param name="timing">How long things may take.</param>
internal sealed class NvmeControllers(IPciHost host, NvmeTiming timing)
{
    private const string Kind = "0x010802"; // mass storage, non-volatile memory, NVM Express. Spec: PCI Code and ID Assignment 1.11

    private readonly ConcurrentDictionary<string, Place> _places = new(StringComparer.Ordinal);

    /// <summary>Those of this machine.</summary>
    public static NvmeControllers Current { get; } = new(IPciHost.Current, NvmeTiming.Usual);

    /// <summary>A controller that is ready, and stays so until the lease ends.</summary>
    public async ValueTask<NvmeLease> TakeAsync(string name, string address, CancellationToken cancellationToken)
    {
        Place place = _places.GetOrAdd(address, static _ => new Place());
        await place.Gate.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            if (place.Controller is null)
            {
                IPciFunction function = host.Open(name, address, Kind, "NVMe controller");
                place.Controller = await NvmeController.OpenAsync($"nvme://{address}", function, timing, cancellationToken)
                    .ConfigureAwait(false);
            }
            try
            {
                place.Controller.CheckWhole();
            }
            catch when (place.Leases == 0) // it was given up as soon as it was ready: the next one that asks starts it anew
            {
                await LeaveAsync(place).ConfigureAwait(false);
                throw;
            }
            place.Leases++;
            return new NvmeLease(place.Controller, () => ReturnAsync(place));
        }
        finally
        {
            _ = place.Gate.Release();
        }
    }

    private static async ValueTask ReturnAsync(Place place)
    {
        await place.Gate.WaitAsync().ConfigureAwait(false);
        try
        {
            if (--place.Leases == 0)
            {
                await LeaveAsync(place).ConfigureAwait(false);
            }
        }
        finally
        {
            _ = place.Gate.Release();
        }
    }

    private static async ValueTask LeaveAsync(Place place)
    {
        NvmeController controller = place.Controller!;
        place.Controller = null;
        await controller.DisposeAsync().ConfigureAwait(false);
    }

    private sealed class Place
    {
        /// <summary>Held while the controller is taken or given back.</summary>
        public SemaphoreSlim Gate { get; } = new(1, 1);

        public NvmeController? Controller { get; set; }

        public int Leases { get; set; }
    }
}

/// <summary>The use of a controller.</summary>
/// <param name="controller">It.</param>
/// <param name="end">Ends the use.</param>
internal sealed class NvmeLease(NvmeController controller, Func<ValueTask> end) : IAsyncDisposable
{
    private int _isEnded;

    /// <summary>The controller.</summary>
    public NvmeController Controller => controller;

    public ValueTask DisposeAsync() => Interlocked.Exchange(ref _isEnded, 1) == 0 ? end() : default;
}

/// <summary>How long things may take.</summary>
/// <param name="Command">Until a command is answered.</param>
/// <param name="Tick">Between two looks at a controller that says nothing.</param>
/// <param name="ReadyUnit">The unit of the time that a controller asks for to become ready.</param>
/// <param name="Shutdown">Until a controller that is to be left has put in order what it holds.</param>
internal sealed record NvmeTiming(TimeSpan Command, TimeSpan Tick, TimeSpan ReadyUnit, TimeSpan Shutdown)
{
    /// <summary>What Linux's own driver gives a command, and the unit of CAP.TO; the others are ours.</summary>
    public static NvmeTiming Usual { get; } = new(
        TimeSpan.FromSeconds(30), TimeSpan.FromMilliseconds(100), TimeSpan.FromMilliseconds(500), TimeSpan.FromSeconds(30));
}
