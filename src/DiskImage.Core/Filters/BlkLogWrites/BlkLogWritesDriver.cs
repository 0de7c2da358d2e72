using DiskImage.Block;
using DiskImage.Drivers;
using DiskImage.Options;

namespace DiskImage.Filters.BlkLogWrites;

/// <summary>Options of the write log.</summary>
internal sealed record BlkLogWritesOptions
{
    /// <summary>The unit of the log.</summary>
    [DriverOption(
        "log-sector-size",
        "Sectors of the log, in bytes; requests are multiples of it",
        IsSize = true,
        Minimum = 512,
        Maximum = 1 << 20,
        PowerOfTwo = true)]
    public long LogSectorSize { get; init; } = 512;

    /// <summary>Whether entries go behind those that are there.</summary>
    [DriverOption("log-append", "Goes on with the log that is there, in its sectors")]
    public bool LogAppend { get; init; }

    /// <summary>How often the superblock is written.</summary>
    [DriverOption("log-super-update-interval", "Entries after which the log counts them, beside each flush and the end", Minimum = 1)]
    public long SuperblockInterval { get; init; } = 4096;
}

/// <summary>
/// Passes everything through and writes every change into a log, in the form that Linux's dm-log-writes and its replay program have.
/// </summary>
internal sealed class BlkLogWritesDriver : FilterDriver
{
    private const string LogRole = "log";

    public override string Name => "blklogwrites";

    public override string Description => "Writes every change into a log (dm-log-writes), to be replayed";

    public override IReadOnlyList<string> Roles => [FileRole, LogRole];

    public override OptionSchema OpenOptions { get; } = OptionSchema.Of<BlkLogWritesOptions>();

    public override bool HoldsDisk(string role) => !role.Equals(LogRole, StringComparison.Ordinal);

    public override async ValueTask<BlockNode> OpenAsync(FilterOpenContext context, CancellationToken cancellationToken)
    {
        BlockNode file = await context.OpenChild(FileRole, cancellationToken).ConfigureAwait(false);
        BlockNode log = await context.OpenChild(LogRole, cancellationToken).ConfigureAwait(false);
        var options = (BlkLogWritesOptions)context.Options;
        if (!options.LogAppend)
        {
            return new BlkLogWritesNode(file, log, (int)options.LogSectorSize, superblockInterval: options.SuperblockInterval);
        }
        WriteLog there = await WriteLog.OpenAsync(log, cancellationToken).ConfigureAwait(false);
        long end = there.SectorSize;
        await foreach (WriteLogEntry entry in there.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            end = entry.End;
        }
        return new BlkLogWritesNode(file, log, there.SectorSize, there.Entries, end, options.SuperblockInterval);
    }
}
