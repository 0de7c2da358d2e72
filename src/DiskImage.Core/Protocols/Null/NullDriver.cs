using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Options;

namespace DiskImage.Protocols.Null;

/// <summary>Options when a null node is opened.</summary>
internal sealed record NullOpenOptions
{
    private const long LongestNode = long.MaxValue & -(1L << 30); // QEMU's limit: offsets can be rounded up
    private const long LongestLatency = 3_600_000_000_000; // an hour. Ours: timers do not take just any number

    /// <summary>Its length.</summary>
    [DriverOption("size", "Length in bytes", IsSize = true, Minimum = 0, Maximum = LongestNode)]
    public long Size { get; init; } = 1L << 30;

    /// <summary>What a request takes.</summary>
    [DriverOption("latency-ns", "Nanoseconds that each request takes", Minimum = 0, Maximum = LongestLatency)]
    public long LatencyNs { get; init; }

    /// <summary>Whether it says that it reads as zeroes.</summary>
    [DriverOption("read-zeroes", "Says that it is all zeroes; off: its zeroes pass for stored data")]
    public bool ReadZeroes { get; init; }
}

/// <summary>No bytes at all, of any length: what is written is gone. To measure everything but storage.</summary>
/// <param name="isLate">
/// Requests are done after the call returned, as a device does them (null-aio), and not before it (null-co).
/// </param>
internal sealed class NullDriver(bool isLate) : ProtocolDriver
{
    private string Text => $"{Name}://";

    public override string Name => isLate ? "null-aio" : "null-co";

    public override string Description
        => $"Nothing: reads as zeroes and forgets what is written{(isLate ? ", and answers later, as a device does" : "")}";

    public override IReadOnlyList<string> Schemes => [Name];

    public override OptionSchema OpenOptions { get; } = OptionSchema.Of<NullOpenOptions>();

    public override IEnumerable<KeyValuePair<string, object?>> Parse(string locator)
        => locator.EndsWith("://", StringComparison.Ordinal)
            ? []
            : throw new DiskImageException(
                DiskImageErrorKind.InvalidOption,
                $"'{locator}' is no null node: nothing comes after '{Text}'. Its length is its option 'size'.");

    public override string NameOf(object options) => Text;

    public override NodeIdentity? IdentityOf(object options) => null; // any two are as good as each other

    public override ValueTask<BlockNode> OpenAsync(ProtocolOpenContext context, CancellationToken cancellationToken)
        => new(new NullNode(Text, (NullOpenOptions)context.Options, context.Access.Writes, isLate));
}

/// <summary>A node without bytes.</summary>
internal sealed class NullNode(string name, NullOpenOptions options, bool writable, bool isLate) : BlockNode
{
    private readonly TimeSpan _latency = TimeSpan.FromTicks(options.LatencyNs / 100);
    private long _length = options.Size;

    public override string Name => name;

    public override long Length => _length;

    public override bool IsReadOnly => !writable;

    public override long? AllocatedLength => 0;

    protected override ValueTask ReadCoreAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
    {
        buffer.Span.Clear();
        return PassAsync(cancellationToken);
    }

    protected override ValueTask WriteCoreAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
        => PassAsync(cancellationToken);

    protected override ValueTask WriteZeroesCoreAsync(long offset, long length, ZeroWriteMode mode, CancellationToken cancellationToken)
        => PassAsync(cancellationToken);

    protected override ValueTask DiscardCoreAsync(long offset, long length, CancellationToken cancellationToken)
        => PassAsync(cancellationToken);

    protected override ValueTask FlushCoreAsync(CancellationToken cancellationToken) => PassAsync(cancellationToken);

    protected override ValueTask<BlockExtent> GetExtentCoreAsync(long offset, long length, CancellationToken cancellationToken)
        => options.ReadZeroes
            ? new(new BlockExtent(offset, length, BlockStatus.Zero, this, null))
            : base.GetExtentCoreAsync(offset, length, cancellationToken);

    protected override ValueTask ResizeCoreAsync(
        long length, PreallocationMode preallocation, IProgress<long>? claimed, CancellationToken cancellationToken)
    {
        _length = length;
        return default;
    }

    private ValueTask PassAsync(CancellationToken cancellationToken)
        => _latency > TimeSpan.Zero ? new(Task.Delay(_latency, cancellationToken)) : isLate ? AnswerLaterAsync() : default;

    private static async ValueTask AnswerLaterAsync()
        => await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
}
