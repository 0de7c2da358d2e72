using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Options;

namespace DiskImage.Filters.BlkDebug;

/// <summary>Lets requests fail, and asks for requests of a certain shape, to see what becomes of it.</summary>
internal sealed class BlkDebugDriver : FilterDriver
{
    public override string Name => "blkdebug";

    public override string Description => "Lets requests fail as it is told to";

    public override IReadOnlyList<string> Roles => ["image"];

    public override OptionSchema OpenOptions { get; } = OptionSchema.Of<BlkDebugOptions>();

    public override object Bind(IEnumerable<KeyValuePair<string, object?>> values) => BlkDebugOptions.Read(OpenOptions, values);

    public override async ValueTask<BlockNode> OpenAsync(FilterOpenContext context, CancellationToken cancellationToken)
        => new BlkDebugNode(await context.OpenChild("image", cancellationToken).ConfigureAwait(false), (BlkDebugOptions)context.Options);
}
