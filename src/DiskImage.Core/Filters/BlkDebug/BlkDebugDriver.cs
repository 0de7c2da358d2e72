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

/// <summary>Passes everything through but the requests that are to fail.</summary>
internal sealed class BlkDebugNode(BlockNode child, BlkDebugOptions options) : FilterNode(child)
{
    private readonly int[] _made = new int[options.Errors.Count]; // how often each error was made

    protected override BlockBinding Binding { get; } = new(
        (int)options.Align, MaximumTransfer: (int)Math.Max(options.MaxTransfer, options.MaxTransfer == 0 ? 0 : options.Align));

    protected override ValueTask ReadCoreAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
    {
        Pass(BlkDebugRequests.Read, offset, buffer.Length);
        return Below.ReadPaddedAsync(offset, buffer, cancellationToken);
    }

    protected override ValueTask WriteCoreAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
    {
        Pass(BlkDebugRequests.Write, offset, buffer.Length);
        return base.WriteCoreAsync(offset, GrowsOnWrite
            ? buffer
            : buffer[..(int)Math.Min(buffer.Length, Length - offset)], cancellationToken);
    }

    protected override async ValueTask WriteZeroesCoreAsync(
        long offset, long length, ZeroWriteMode mode, CancellationToken cancellationToken)
    {
        foreach ((long at, long count) in Parts(offset, GrowsOnWrite ? length : Math.Min(length, Length - offset), options.MaxWriteZero))
        {
            Pass(BlkDebugRequests.WriteZeroes, at, count);
            await base.WriteZeroesCoreAsync(at, count, mode, cancellationToken).ConfigureAwait(false);
        }
    }

    protected override async ValueTask DiscardCoreAsync(long offset, long length, CancellationToken cancellationToken)
    {
        foreach ((long at, long count) in Parts(offset, Math.Min(length, Length - offset), options.MaxDiscard))
        {
            Pass(BlkDebugRequests.Discard, at, count);
            await base.DiscardCoreAsync(at, count, cancellationToken).ConfigureAwait(false);
        }
    }

    protected override ValueTask FlushCoreAsync(CancellationToken cancellationToken)
    {
        Pass(BlkDebugRequests.Flush, 0, 0);
        return base.FlushCoreAsync(cancellationToken);
    }

    protected override ValueTask<BlockExtent> GetExtentCoreAsync(long offset, long length, CancellationToken cancellationToken)
    {
        Pass(BlkDebugRequests.BlockStatus, offset, length);
        return base.GetExtentCoreAsync(offset, length, cancellationToken);
    }

    protected override ValueTask<int> GetExtentsCoreAsync(
        long offset, long length, Memory<BlockExtent> extents, CancellationToken cancellationToken)
    {
        Pass(BlkDebugRequests.BlockStatus, offset, length);
        return base.GetExtentsCoreAsync(offset, length, extents, cancellationToken);
    }

    /// <summary>What works on the format past the filter would not fail: nothing does.</summary>
    protected override bool LetsThrough(Type ability) => false;

    /// <summary>A request in parts of so many bytes at most, which are parts of the whole disk, as QEMU has it; 0 for one part.</summary>
    private static IEnumerable<(long Offset, long Length)> Parts(long offset, long length, long most)
    {
        for (long end = offset + length; offset < end;)
        {
            long count = most == 0 ? length : Math.Min(end - offset, most - offset % most);
            yield return (offset, count);
            offset += count;
        }
    }

    private void Pass(BlkDebugRequests kind, long offset, long length)
    {
        for (int i = 0; i < options.Errors.Count; i++)
        {
            InjectedError error = options.Errors[i];
            if (error.Matches(kind, offset, length) && (Interlocked.Increment(ref _made[i]) == 1 || !error.Once))
            {
                throw error.Make(Name, kind, offset);
            }
        }
    }
}
