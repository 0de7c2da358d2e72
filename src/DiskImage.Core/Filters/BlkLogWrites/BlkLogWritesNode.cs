using DiskImage.Binary;
using DiskImage.Block;

namespace DiskImage.Filters.BlkLogWrites;

/// <summary>Logs what changes the node below or makes changes durable, before it is done there; a flush when it is done.</summary>
/// <remarks>
/// <para>How the log is laid out says <see cref="WriteLog"/>, which reads it. The superblock is written with each flush, at the end and
/// after so many entries, after what it counts. Zeroes are logged as data, since the form has no word for them, and the log is told that
/// they are zeroes.</para>
/// <para>A change of length has no entry; the log speaks of sectors only.</para>
/// </remarks>
internal sealed class BlkLogWritesNode : FilterNode
{
    private const int ZeroPiece = 1 << 20;

    private readonly BlockNode _log;
    private readonly int _sector;
    private readonly SemaphoreSlim _gate = new(1, 1); // guards the log and its end: entries stand in the order of the requests
    private readonly long _interval;
    private long _at, _entries;

    /// <summary>Puts the filter over a node.</summary>
    /// <param name="file">The node.</param>
    /// <param name="log">The log.</param>
    /// <param name="sectorSize">Bytes of its sectors.</param>
    /// <param name="entries">Entries that are in it.</param>
    /// <param name="end">Where they end; 0 for a new log.</param>
    /// <param name="superblockInterval">Entries after which they are counted.</param>
    public BlkLogWritesNode(
        BlockNode file, BlockNode log, int sectorSize, long entries = 0, long end = 0, long superblockInterval = long.MaxValue)
        : base(file)
    {
        (_log, _sector, _entries, _interval) = (log, sectorSize, entries, superblockInterval);
        _at = Math.Max(end, sectorSize);
        Children = new Dictionary<string, BlockNode>(StringComparer.Ordinal) { ["file"] = file, ["log"] = log };
    }

    public override IReadOnlyDictionary<string, BlockNode> Children { get; }

    protected override BlockBinding Binding => new(_sector);

    protected override ValueTask ReadCoreAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
        => Below.ReadPaddedAsync(offset, buffer, cancellationToken);

    protected override async ValueTask WriteCoreAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
    {
        await LogAsync(offset, buffer.Length, WriteLogFlags.None, buffer).ConfigureAwait(false);
        await base.WriteCoreAsync(offset, GrowsOnWrite
            ? buffer
            : buffer[..(int)Math.Min(buffer.Length, Length - offset)], cancellationToken).ConfigureAwait(false);
    }

    protected override async ValueTask WriteZeroesCoreAsync(
        long offset, long length, ZeroWriteMode mode, CancellationToken cancellationToken)
    {
        for (long done = 0; done < length; done += ZeroPiece)
        {
            cancellationToken.ThrowIfCancellationRequested();
            long piece = Math.Min(ZeroPiece, length - done);
            await LogAsync(offset + done, piece, WriteLogFlags.None, default, zeroes: piece).ConfigureAwait(false);
        }
        await base.WriteZeroesCoreAsync(offset, GrowsOnWrite
            ? length
            : Math.Min(length, Length - offset), mode, cancellationToken).ConfigureAwait(false);
    }

    protected override async ValueTask DiscardCoreAsync(long offset, long length, CancellationToken cancellationToken)
    {
        await LogAsync(offset, length, WriteLogFlags.Discard, default).ConfigureAwait(false);
        await base.DiscardCoreAsync(offset, Math.Min(length, Length - offset), cancellationToken).ConfigureAwait(false);
    }

    protected override async ValueTask FlushCoreAsync(CancellationToken cancellationToken)
    {
        await base.FlushCoreAsync(cancellationToken).ConfigureAwait(false);
        await LogAsync(0, 0, WriteLogFlags.Flush, default).ConfigureAwait(false);
        await WriteSuperblockAsync().ConfigureAwait(false);
        await _log.FlushAsync(cancellationToken).ConfigureAwait(false);
    }

    protected override async ValueTask CloseCoreAsync()
    {
        if (!_log.IsReadOnly)
        {
            await WriteSuperblockAsync().ConfigureAwait(false);
        }
        _gate.Dispose();
    }

    /// <summary>What changes the format past the filter would not be logged: nothing does.</summary>
    protected override bool LetsThrough(Type ability) => false;

    private async ValueTask LogAsync(long offset, long length, WriteLogFlags flags, ReadOnlyMemory<byte> data, long zeroes = 0)
    {
        byte[] header = new byte[_sector];
        LittleEndian.U64(header, 0, (ulong)(offset / _sector));
        LittleEndian.U64(header, 8, (ulong)(length / _sector));
        LittleEndian.U64(header, 16, (ulong)flags);
        await _gate.WaitAsync(CancellationToken.None).ConfigureAwait(false);
        try
        {
            await _log.WriteAsync(_at, header, CancellationToken.None).ConfigureAwait(false);
            await _log.WriteAsync(_at + _sector, data, CancellationToken.None).ConfigureAwait(false);
            await _log.WriteZeroesAsync(_at + _sector, zeroes, cancellationToken: CancellationToken.None).ConfigureAwait(false);
            _at += _sector + data.Length + zeroes;
            if (++_entries % _interval == 0)
            {
                await CountAsync().ConfigureAwait(false);
            }
        }
        finally
        {
            _ = _gate.Release();
        }
    }

    private async ValueTask WriteSuperblockAsync()
    {
        await _gate.WaitAsync(CancellationToken.None).ConfigureAwait(false);
        try
        {
            await CountAsync().ConfigureAwait(false);
        }
        finally
        {
            _ = _gate.Release();
        }
    }

    /// <summary>Writes the superblock; within the gate.</summary>
    private ValueTask CountAsync()
    {
        byte[] block = new byte[_sector];
        LittleEndian.U64(block, 0, WriteLog.Magic);
        LittleEndian.U64(block, 8, WriteLog.Version);
        LittleEndian.U64(block, 16, (ulong)_entries);
        LittleEndian.U32(block, 24, (uint)_sector);
        return _log.WriteAsync(0, block, CancellationToken.None);
    }
}
