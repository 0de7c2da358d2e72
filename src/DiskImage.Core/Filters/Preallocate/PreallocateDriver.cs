using DiskImage.Binary;
using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Options;

namespace DiskImage.Filters.Preallocate;

/// <summary>Options of the preallocation. Names and defaults as QEMU has them.</summary>
internal sealed record PreallocateOptions
{
    /// <summary>What the file's end is rounded up to.</summary>
    [DriverOption(
        "prealloc-align", "The end of the file is a multiple of it", IsSize = true, Minimum = 512, Maximum = 1 << 30, PowerOfTwo = true)]
    public long Align { get; init; } = 1 << 20;

    /// <summary>How much is claimed beyond what is written.</summary>
    [DriverOption("prealloc-size", "Bytes claimed ahead, each time the file grows", IsSize = true, Minimum = 0, Maximum = 1L << 40)]
    public long Size { get; init; } = 128 << 20;
}

/// <summary>Claims space ahead of a file's growth, so that it grows in few large steps.</summary>
internal sealed class PreallocateDriver : FilterDriver
{
    public override string Name => "preallocate";

    public override string Description => "Claims space ahead while a file grows";

    public override OptionSchema OpenOptions { get; } = OptionSchema.Of<PreallocateOptions>();

    public override bool HoldsDisk(string role) => false;

    public override async ValueTask<BlockNode> OpenAsync(FilterOpenContext context, CancellationToken cancellationToken)
        => new PreallocateNode(
            await context.OpenChild(FileRole, cancellationToken).ConfigureAwait(false), (PreallocateOptions)context.Options);
}

/// <summary>
/// Shows the file as long as it was written, and keeps it longer below. What is claimed reads as zeroes; what of it was not used is cut off
/// when the file is closed, and when its length is set.
/// </summary>
internal sealed class PreallocateNode : FilterNode
{
    private readonly PreallocateOptions _options;
    private readonly SemaphoreSlim _gate = new(1, 1); // held while the length below changes
    private long _length;

    public PreallocateNode(BlockNode file, PreallocateOptions options)
        : base(file) => (_options, _length) = (options, file.Length);

    public override long Length => Interlocked.Read(ref _length);

    protected override async ValueTask WriteCoreAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
    {
        await ClaimAsync(offset + buffer.Length, cancellationToken).ConfigureAwait(false);
        await base.WriteCoreAsync(offset, buffer, cancellationToken).ConfigureAwait(false);
        Grow(offset + buffer.Length);
    }

    protected override async ValueTask WriteZeroesCoreAsync(
        long offset, long length, ZeroWriteMode mode, CancellationToken cancellationToken)
    {
        await ClaimAsync(offset + length, cancellationToken).ConfigureAwait(false);
        await base.WriteZeroesCoreAsync(offset, length, mode, cancellationToken).ConfigureAwait(false);
        Grow(offset + length);
    }

    protected override async ValueTask ResizeCoreAsync(
        long length, PreallocationMode preallocation, IProgress<long>? claimed, CancellationToken cancellationToken)
    {
        await _gate.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            if (length > Length && Below.Length > Length)
            {
                await Below.ResizeAsync(Length, cancellationToken: cancellationToken).ConfigureAwait(false);
            }
            await Below.ResizeAsync(length, preallocation, claimed, cancellationToken).ConfigureAwait(false);
            _ = Interlocked.Exchange(ref _length, length);
        }
        finally
        {
            _ = _gate.Release();
        }
    }

    protected override async ValueTask CloseCoreAsync()
    {
        if (!IsReadOnly && Below.Length > Length)
        {
            await Below.ResizeAsync(Length).ConfigureAwait(false);
        }
        await base.CloseCoreAsync().ConfigureAwait(false);
        _gate.Dispose();
    }

    private async ValueTask ClaimAsync(long end, CancellationToken cancellationToken)
    {
        if (end <= Below.Length)
        {
            return;
        }
        await _gate.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            if (end > Below.Length && Below.GrowsOnWrite)
            {
                long target = Round.Up(end + _options.Size, _options.Align);
                await Below.ResizeAsync(target, PreallocationMode.Falloc, cancellationToken).ConfigureAwait(false);
            }
        }
        finally
        {
            _ = _gate.Release();
        }
    }

    private void Grow(long end)
    {
        long seen;
        while (end > (seen = Length) && Interlocked.CompareExchange(ref _length, end, seen) != seen)
        {
        }
    }
}
