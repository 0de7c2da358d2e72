using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Options;

namespace DiskImage.Filters.Error;

/// <summary>Lets some requests fail, by chance that can be had again.</summary>
internal sealed class ErrorDriver : FilterDriver
{
    public override string Name => "error";

    public override string Description => "Lets a part of the requests fail, at random";

    public override OptionSchema OpenOptions { get; } = OptionSchema.Of<ErrorOptions>();

    public override async ValueTask<BlockNode> OpenAsync(FilterOpenContext context, CancellationToken cancellationToken)
    {
        var options = (ErrorOptions)context.Options;
        IReadOnlyDictionary<RequestKind, (double Rate, ErrorCode Code)> kinds = options.Kinds();
        return new ErrorNode(await context.OpenChild(FileRole, cancellationToken).ConfigureAwait(false), kinds, options.Seed);
    }
}

/// <summary>
/// Passes everything through but the requests that are to fail, which fail before anything is done. Whether the n-th request fails follows
/// from n and the seed alone; requests that come at the same time may change places.
/// </summary>
internal sealed class ErrorNode(
    BlockNode child, IReadOnlyDictionary<RequestKind, (double Rate, ErrorCode Code)> kinds, long seed) : GateNode(child)
{
    private long _requests;

    /// <summary>What works on the format past the filter would not fail: nothing does.</summary>
    protected override bool LetsThrough(Type ability) => false;

    protected override ValueTask LetInAsync(RequestKind kind, long offset, long length, CancellationToken cancellationToken)
    {
        (double rate, ErrorCode code) = kinds[kind];
        long number = Interlocked.Increment(ref _requests);
        if (Chance((ulong)number) < rate)
        {
            throw new DiskImageException(
                code switch
                {
                    ErrorCode.NoSpace => DiskImageErrorKind.NoSpace,
                    ErrorCode.AccessDenied => DiskImageErrorKind.AccessDenied,
                    _ => DiskImageErrorKind.Io,
                },
                $"{Name}: {kind} at offset {offset:#,0} fails, request {number:#,0} of this disk, as the filter 'error' was told (rate "
                    + $"{rate}, seed {seed})",
                Name,
                offset);
        }
        return default;
    }

    /// <summary>A number from 0 to less than 1 for each request: the mixing function of SplitMix64 (Steele, Lea, Flood 2014).</summary>
    private double Chance(ulong number)
    {
        ulong z = unchecked((ulong)seed + (number * 0x9E37_79B9_7F4A_7C15));
        z = unchecked((z ^ (z >> 30)) * 0xBF58_476D_1CE4_E5B9);
        z = unchecked((z ^ (z >> 27)) * 0x94D0_49BB_1331_11EB);
        return ((z ^ (z >> 31)) >> 11) * (1.0 / (1UL << 53));
    }
}
