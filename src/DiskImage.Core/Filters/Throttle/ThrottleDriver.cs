using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Options;

namespace DiskImage.Filters.Throttle;

/// <summary>Options of the throttle: limits per second, 0 for none. Names as QEMU's throttle groups have them.</summary>
internal sealed record ThrottleOptions
{
    /// <summary>Bytes read and written.</summary>
    [DriverOption("bps-total", "Bytes a second, read and written together; 0 for no limit", IsSize = true, Minimum = 0)]
    public long BytesTotal { get; init; }

    /// <summary>Bytes read.</summary>
    [DriverOption("bps-read", "Bytes read a second; 0 for no limit", IsSize = true, Minimum = 0)]
    public long BytesRead { get; init; }

    /// <summary>Bytes written.</summary>
    [DriverOption("bps-write", "Bytes written a second; 0 for no limit", IsSize = true, Minimum = 0)]
    public long BytesWrite { get; init; }

    /// <summary>Requests.</summary>
    [DriverOption("iops-total", "Requests a second, reads and writes together; 0 for no limit", Minimum = 0)]
    public long RequestsTotal { get; init; }

    /// <summary>Requests that read.</summary>
    [DriverOption("iops-read", "Reads a second; 0 for no limit", Minimum = 0)]
    public long RequestsRead { get; init; }

    /// <summary>Requests that write.</summary>
    [DriverOption("iops-write", "Writes a second; 0 for no limit", Minimum = 0)]
    public long RequestsWrite { get; init; }
}

/// <summary>Lets no more pass in a second than it is told to.</summary>
internal sealed class ThrottleDriver : FilterDriver
{
    public override string Name => "throttle";

    public override string Description => "Limits bytes and requests a second";

    public override OptionSchema OpenOptions { get; } = OptionSchema.Of<ThrottleOptions>();

    public override async ValueTask<BlockNode> OpenAsync(FilterOpenContext context, CancellationToken cancellationToken)
        => new ThrottleNode(
            await context.OpenChild(FileRole, cancellationToken).ConfigureAwait(false),
            (ThrottleOptions)context.Options,
            TimeProvider.System);
}
