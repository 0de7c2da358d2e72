using DiskImage.Block;
using DiskImage.Protocols.Nbd;

namespace DiskImage.Exports;

/// <summary>Does what a client asks of a disk. Knows no connection.</summary>
internal sealed class ExportRequests(ExportDisk disk)
{
    private const int MostExtents = 1 << 14; // in one answer. Ours
    private const int PrefetchPiece = 1 << 20;
    private const uint LongestCompact = uint.MaxValue - 65535; // of an extent without 64-bit lengths, a multiple of any block

    private readonly BlockNode _node = disk.Node;

    /// <summary>Why a request is not done at all; None if it may be tried.</summary>
    public NbdError Check(in NbdAsked asked)
    {
        bool changes = asked.Command is NbdCommand.Write or NbdCommand.WriteZeroes or NbdCommand.Trim;
        bool hasRange = changes || asked.Command is NbdCommand.Read or NbdCommand.BlockStatus or NbdCommand.Cache;
        ulong length = (ulong)_node.Length;
        NbdCommandFlags allowed = asked.Command switch
        {
            NbdCommand.Write => NbdCommandFlags.Fua | NbdCommandFlags.PayloadLength,
            NbdCommand.Trim => NbdCommandFlags.Fua,
            NbdCommand.WriteZeroes => NbdCommandFlags.Fua | NbdCommandFlags.NoHole | NbdCommandFlags.FastZero,
            NbdCommand.BlockStatus => NbdCommandFlags.OneExtent,
            NbdCommand.Read => NbdCommandFlags.DontFragment | NbdCommandFlags.Fua,
            _ => NbdCommandFlags.Fua,
        };
        bool isOutside = asked.Offset > length || asked.Length > length - asked.Offset;
        return (asked.Flags & ~allowed) != 0 || (asked.Command == NbdCommand.Write && !asked.HasPayload)
            || (asked.Command != NbdCommand.Write && asked.HasPayload) ? NbdError.Invalid
            : changes && disk.Offer.Flags.HasFlag(NbdExportFlags.ReadOnly) ? NbdError.NotPermitted
            : hasRange && isOutside ? changes ? NbdError.NoSpace : NbdError.Invalid
            : asked.Command == NbdCommand.Read && asked.Length > NbdWire.MaximumPayload ? NbdError.Overflow
            : asked.Command == NbdCommand.BlockStatus && asked.Length == 0 ? NbdError.Invalid
            : !hasRange && asked.Command != NbdCommand.Flush ? NbdError.Invalid
            : NbdError.None;
    }

    /// <summary>Does a request that may be tried and has nothing but success to tell.</summary>
    /// <param name="asked">The request.</param>
    /// <param name="data">What is written.</param>
    /// <param name="cancellationToken">Stops it.</param>
    /// <exception cref="DiskImageException">The disk says no; <see cref="ErrorOf"/> says it to the client.</exception>
    public async ValueTask RunAsync(NbdAsked asked, Memory<byte> data, CancellationToken cancellationToken)
    {
        long offset = (long)asked.Offset, length = (long)asked.Length;
        switch (asked.Command)
        {
            case NbdCommand.Write:
                await _node.WriteAsync(offset, data, cancellationToken).ConfigureAwait(false);
                break;
            case NbdCommand.WriteZeroes when asked.Flags.HasFlag(NbdCommandFlags.FastZero):
                if (asked.Flags.HasFlag(NbdCommandFlags.NoHole) || _node.As<IFastZero>() is not { } fast
                    || !await fast.TryZeroFastAsync(offset, length, cancellationToken).ConfigureAwait(false))
                {
                    throw new DiskImageException(DiskImageErrorKind.Unsupported, $"{_node.Name}: is not zeroed faster than written");
                }
                break;
            case NbdCommand.WriteZeroes:
                await _node.WriteZeroesAsync(
                    offset,
                    length,
                    asked.Flags.HasFlag(NbdCommandFlags.NoHole) ? ZeroWriteMode.KeepAllocated : ZeroWriteMode.MayUnmap,
                    cancellationToken).ConfigureAwait(false);
                break;
            case NbdCommand.Trim:
                await _node.DiscardAsync(offset, length, cancellationToken).ConfigureAwait(false);
                break;
            case NbdCommand.Cache:
                await PrefetchAsync(offset, length, cancellationToken).ConfigureAwait(false);
                return;
            default:
                await _node.FlushAsync(cancellationToken).ConfigureAwait(false);
                return;
        }
        if (asked.Flags.HasFlag(NbdCommandFlags.Fua))
        {
            await _node.FlushAsync(cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>What a context tells of a range: at least one extent, as many as are known and fit.</summary>
    /// <param name="context">Its number.</param>
    /// <param name="asked">The question.</param>
    /// <param name="isExtended">Lengths have 64 bits.</param>
    /// <param name="cancellationToken">Stops it.</param>
    public async ValueTask<List<NbdExtent>> StatusAsync(
        int context, NbdAsked asked, bool isExtended, CancellationToken cancellationToken)
    {
        long offset = (long)asked.Offset, end = offset + (long)asked.Length;
        string name = disk.Offer.Contexts[context];
        var told = new List<NbdExtent>();
        if (name.StartsWith(NbdWire.BitmapContext, StringComparison.Ordinal))
        {
            TellDirty(disk.Dirty[name[NbdWire.BitmapContext.Length..]], offset, end, told, isExtended);
        }
        else
        {
            bool isDepth = name.Equals(NbdWire.DepthContext, StringComparison.Ordinal);
            BlockExtent[] extents = new BlockExtent[asked.Flags.HasFlag(NbdCommandFlags.OneExtent) ? 1 : MostExtents];
            int count = await _node.GetExtentsAsync(offset, end - offset, extents, cancellationToken).ConfigureAwait(false);
            for (int i = 0; i < count; i++)
            {
                BlockExtent extent = extents[i];
                ulong flags = isDepth
                    ? extent.IsAllocated ? (ulong)extent.Depth + 1 : 0
                    : (ulong)((extent.IsData ? NbdAllocation.Data : NbdAllocation.Hole)
                        | (extent.IsZero ? NbdAllocation.Zero : NbdAllocation.Data));
                Tell(told, extent.Length, flags, isExtended);
            }
        }
        if (asked.Flags.HasFlag(NbdCommandFlags.OneExtent) && told.Count > 1)
        {
            told.RemoveRange(1, told.Count - 1);
        }
        return told;
    }

    /// <summary>What a client is told of a failure.</summary>
    public static NbdError ErrorOf(DiskImageException failure) => failure.Kind switch
    {
        DiskImageErrorKind.NoSpace => NbdError.NoSpace,
        DiskImageErrorKind.AccessDenied or DiskImageErrorKind.ReadOnly or DiskImageErrorKind.Refused or DiskImageErrorKind.Locked
            => NbdError.NotPermitted,
        DiskImageErrorKind.OutOfRange => NbdError.Invalid,
        DiskImageErrorKind.Unsupported => NbdError.NotSupported,
        _ => NbdError.Io,
    };

    private async ValueTask PrefetchAsync(long offset, long length, CancellationToken cancellationToken)
    {
        if (await _node.PrefetchAsync(offset, length, cancellationToken).ConfigureAwait(false))
        {
            return;
        }
        byte[] piece = new byte[(int)Math.Min(length, PrefetchPiece)];
        for (long end = offset + Math.Min(length, NbdWire.MaximumPayload); offset < end; offset += piece.Length)
        {
            await _node.ReadAsync(
                offset, piece.AsMemory(0, (int)Math.Min(piece.Length, end - offset)), cancellationToken).ConfigureAwait(false);
        }
    }

    private static void TellDirty(
        IReadOnlyList<(long Offset, long Length)> dirty, long offset, long end, List<NbdExtent> told, bool isExtended)
    {
        int low = 0, high = dirty.Count;
        while (low < high)
        {
            int middle = (low + high) / 2;
            (low, high) = dirty[middle].Offset + dirty[middle].Length <= offset ? (middle + 1, high) : (low, middle);
        }
        for (; offset < end && told.Count < MostExtents - 1; low++)
        {
            long start = low < dirty.Count ? Math.Min(dirty[low].Offset, end) : end;
            if (start > offset)
            {
                Tell(told, start - offset, 0, isExtended);
                offset = start;
            }
            if (offset < end)
            {
                long stop = Math.Min(dirty[low].Offset + dirty[low].Length, end);
                Tell(told, stop - offset, 1, isExtended);
                offset = stop;
            }
        }
    }

    private static void Tell(List<NbdExtent> told, long length, ulong flags, bool isExtended)
    {
        if (told.Count > 0 && told[^1].Flags == flags && (isExtended || told[^1].Length + length <= LongestCompact))
        {
            told[^1] = told[^1] with { Length = told[^1].Length + length };
        }
        else
        {
            told.Add(new NbdExtent(isExtended ? length : Math.Min(length, LongestCompact), flags));
        }
    }
}
