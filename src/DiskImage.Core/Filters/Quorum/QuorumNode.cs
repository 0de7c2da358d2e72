using System.Globalization;
using DiskImage.Block;

namespace DiskImage.Filters.Quorum;

/// <summary>
/// Reads by vote: what so many disks as the threshold says read alike is right, and the others are told so if that is asked for. A write
/// goes to all, and succeeds if that many take it; a disk that did not loses the next votes.
/// </summary>
internal sealed class QuorumNode(IReadOnlyList<BlockNode> disks, QuorumOptions options) : BlockNode
{
    private readonly RangeLock _ranges = new(); // alone for a vote that may rewrite; shared for writes

    public override string Name => disks[0].Name;

    public override long Length => disks[0].Length;

    public override bool IsReadOnly => disks.Any(d => d.IsReadOnly);

    public override IReadOnlyDictionary<string, BlockNode> Children { get; } = disks.Index().ToDictionary(
        d => string.Create(CultureInfo.InvariantCulture, $"children.{d.Index}"), d => d.Item, StringComparer.Ordinal);

    protected override ValueTask ReadCoreAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
        => options.ReadPattern == QuorumReadPattern.Fifo ? ReadFirstAsync(offset, buffer, cancellationToken)
            : options.RewriteCorrupted && !IsReadOnly
                ? _ranges.WithinAsync(
                    offset,
                    offset + buffer.Length,
                    exclusive: true,
                    () => VoteAsync(offset, buffer, mayRewrite: true, cancellationToken),
                    cancellationToken)
                : VoteAsync(offset, buffer, mayRewrite: false, cancellationToken);

    protected override ValueTask WriteCoreAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
        => ChangeAsync(offset, buffer.Length, disk => disk.WriteAsync(offset, buffer, cancellationToken), cancellationToken);

    protected override ValueTask WriteZeroesCoreAsync(long offset, long length, ZeroWriteMode mode, CancellationToken cancellationToken)
        => ChangeAsync(offset, length, disk => disk.WriteZeroesAsync(offset, length, mode, cancellationToken), cancellationToken);

    protected override ValueTask FlushCoreAsync(CancellationToken cancellationToken)
        => AllAsync(disk => disk.FlushAsync(cancellationToken));

    // Discarded bytes need not read alike, and would be voted on: the hint is not passed on.
    protected override ValueTask<BlockExtent> GetExtentCoreAsync(long offset, long length, CancellationToken cancellationToken)
        => new(new BlockExtent(offset, length, BlockStatus.Allocated | BlockStatus.Data, this, offset));

    private async ValueTask ReadFirstAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
    {
        for (int i = 0; ; i++)
        {
            try
            {
                await disks[i].ReadAsync(offset, buffer, cancellationToken).ConfigureAwait(false);
                return;
            }
            catch (DiskImageException) when (i + 1 < disks.Count)
            {
                // The next one.
            }
        }
    }

    private async ValueTask VoteAsync(long offset, Memory<byte> buffer, bool mayRewrite, CancellationToken cancellationToken)
    {
        var read = new List<(BlockNode Disk, byte[] Bytes)>();
        DiskImageException? failure = null;
        foreach (BlockNode disk in disks)
        {
            byte[] bytes = new byte[buffer.Length];
            try
            {
                await disk.ReadAsync(offset, bytes, cancellationToken).ConfigureAwait(false);
                read.Add((disk, bytes));
            }
            catch (DiskImageException e)
            {
                failure ??= e;
            }
        }
        byte[]? winner = read.Select(r => (r.Bytes, Votes: read.Count(o => o.Bytes.AsSpan().SequenceEqual(r.Bytes))))
            .Where(v => v.Votes >= options.VoteThreshold).OrderByDescending(v => v.Votes).FirstOrDefault().Bytes;
        if (winner is null)
        {
            throw NoMajority(offset, read, failure);
        }
        winner.CopyTo(buffer);
        foreach ((BlockNode disk, byte[] bytes) in mayRewrite ? read : [])
        {
            if (!bytes.AsSpan().SequenceEqual(winner))
            {
                await disk.WriteAsync(offset, winner, cancellationToken).ConfigureAwait(false);
            }
        }
    }

    private DiskImageException NoMajority(long offset, List<(BlockNode Disk, byte[] Bytes)> read, DiskImageException? failure)
    {
        if (read.Count < options.VoteThreshold && failure is not null)
        {
            return new DiskImageException(failure.Kind, failure.Wording, failure.Path, failure.Offset, failure);
        }
        int same = read.Skip(1).Min(r => r.Bytes.AsSpan().CommonPrefixLength(read[0].Bytes));
        return new DiskImageException(
            DiskImageErrorKind.Corrupt,
            $"{Name}: of the {read.Count} disks of its quorum no {options.VoteThreshold} read alike from offset {offset + same:#,0} on",
            Name,
            offset + same);
    }

    private ValueTask ChangeAsync(long offset, long length, Func<BlockNode, ValueTask> change, CancellationToken cancellationToken)
        => _ranges.WithinAsync(offset, offset + length, exclusive: false, () => AllAsync(change), cancellationToken);

    /// <summary>Does something to all, whichever fail; fails if fewer than the threshold did it.</summary>
    private async ValueTask AllAsync(Func<BlockNode, ValueTask> change)
    {
        int done = 0;
        DiskImageException? failure = null;
        foreach (BlockNode disk in disks)
        {
            try
            {
                await change(disk).ConfigureAwait(false);
                done++;
            }
            catch (DiskImageException e)
            {
                failure ??= e;
            }
        }
        if (failure is not null && done < options.VoteThreshold)
        {
            throw new DiskImageException(failure.Kind, failure.Wording, failure.Path, failure.Offset, failure);
        }
    }
}
