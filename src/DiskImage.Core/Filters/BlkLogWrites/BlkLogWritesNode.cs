using DiskImage.Binary;
using DiskImage.Block;

namespace DiskImage.Filters.BlkLogWrites;

/// <summary>Logs what changes the node below or makes changes durable, before it is done there; a flush when it is done.</summary>
/// <remarks>
/// <para>The log: a sector with the superblock (magic, version 1, number of entries, sector size), then for each entry a sector with its
/// header (first sector, number of sectors, flags, bytes of a mark) and its data. The superblock is written with each flush and at the end,
/// after what it counts. Zeroes are logged as data, since the form has no word for them, and the log is told that they are zeroes. Source:
/// Linux, Documentation/admin-guide/device-mapper/log-writes.rst, and the structures of dm-log-writes that its replay program reads.</para>
/// <para>A change of length has no entry; the log speaks of sectors only.</para>
/// </remarks>
internal sealed class BlkLogWritesNode : FilterNode
{
    private const ulong Magic = 0x6A736677736872;
    private const ulong Version = 1;
    private const ulong FlushFlag = 1, DiscardFlag = 4; // LOG_FLUSH_FLAG, LOG_DISCARD_FLAG
    private const int ZeroPiece = 1 << 20;

    private readonly BlockNode _log;
    private readonly int _sector;
    private readonly SemaphoreSlim _gate = new(1, 1); // guards the log and its end: entries stand in the order of the requests
    private long _at;
    private ulong _entries;

    public BlkLogWritesNode(BlockNode file, BlockNode log, int sectorSize)
        : base(file)
    {
        (_log, _sector, _at) = (log, sectorSize, sectorSize);
        Children = new Dictionary<string, BlockNode>(StringComparer.Ordinal) { ["file"] = file, ["log"] = log };
    }

    public override IReadOnlyDictionary<string, BlockNode> Children { get; }

    protected override BlockBinding Binding => new(_sector);

    protected override ValueTask ReadCoreAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
        => Below.ReadPaddedAsync(offset, buffer, cancellationToken);

    protected override async ValueTask WriteCoreAsync(long offset, ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
    {
        await LogAsync(offset, buffer.Length, 0, buffer).ConfigureAwait(false);
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
            await LogAsync(offset + done, piece, 0, default, zeroes: piece).ConfigureAwait(false);
        }
        await base.WriteZeroesCoreAsync(offset, GrowsOnWrite
            ? length
            : Math.Min(length, Length - offset), mode, cancellationToken).ConfigureAwait(false);
    }

    protected override async ValueTask DiscardCoreAsync(long offset, long length, CancellationToken cancellationToken)
    {
        await LogAsync(offset, length, DiscardFlag, default).ConfigureAwait(false);
        await base.DiscardCoreAsync(offset, Math.Min(length, Length - offset), cancellationToken).ConfigureAwait(false);
    }

    protected override async ValueTask FlushCoreAsync(CancellationToken cancellationToken)
    {
        await base.FlushCoreAsync(cancellationToken).ConfigureAwait(false);
        await LogAsync(0, 0, FlushFlag, default).ConfigureAwait(false);
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

    private async ValueTask LogAsync(long offset, long length, ulong flags, ReadOnlyMemory<byte> data, long zeroes = 0)
    {
        byte[] header = new byte[_sector];
        LittleEndian.U64(header, 0, (ulong)(offset / _sector));
        LittleEndian.U64(header, 8, (ulong)(length / _sector));
        LittleEndian.U64(header, 16, flags);
        await _gate.WaitAsync(CancellationToken.None).ConfigureAwait(false);
        try
        {
            await _log.WriteAsync(_at, header, CancellationToken.None).ConfigureAwait(false);
            await _log.WriteAsync(_at + _sector, data, CancellationToken.None).ConfigureAwait(false);
            await _log.WriteZeroesAsync(_at + _sector, zeroes, cancellationToken: CancellationToken.None).ConfigureAwait(false);
            _at += _sector + data.Length + zeroes;
            _entries++;
        }
        finally
        {
            _ = _gate.Release();
        }
    }

    private async ValueTask WriteSuperblockAsync()
    {
        byte[] block = new byte[_sector];
        await _gate.WaitAsync(CancellationToken.None).ConfigureAwait(false);
        try
        {
            LittleEndian.U64(block, 0, Magic);
            LittleEndian.U64(block, 8, Version);
            LittleEndian.U64(block, 16, _entries);
            LittleEndian.U32(block, 24, (uint)_sector);
            await _log.WriteAsync(0, block, CancellationToken.None).ConfigureAwait(false);
        }
        finally
        {
            _ = _gate.Release();
        }
    }
}
