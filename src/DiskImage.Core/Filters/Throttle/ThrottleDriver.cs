using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Options;

namespace DiskImage.Filters.Throttle;

/// <summary>Lets no more pass in a second than it is told to.</summary>
/// <param name="time">The clock; the machine's if absent.</param>
internal sealed class ThrottleDriver(TimeProvider? time = null) : FilterDriver
{
    public override string Name => "throttle";

    public override string Description => "Limits bytes and requests a second";

    public override OptionSchema OpenOptions { get; } = OptionSchema.Of<ThrottleOptions>();

    public override object Bind(IEnumerable<KeyValuePair<string, object?>> values) => ThrottleOptions.Read(OpenOptions, values);

    public override async ValueTask<BlockNode> OpenAsync(FilterOpenContext context, CancellationToken cancellationToken)
    {
        var options = (ThrottleOptions)context.Options;
        TimeProvider clock = time ?? TimeProvider.System;
        ThrottleGroup group = options.Group.Length == 0
            ? new ThrottleGroup(clock)
            : context.Shared.Of(options.Group, name => new ThrottleGroup(clock, name));
        group.Limit(options);
        return new ThrottleNode(await context.OpenChild(FileRole, cancellationToken).ConfigureAwait(false), group);
    }
}
