using DiskImage.Block;

namespace DiskImage.Formats.Qcow2;

/// <summary>Changing an image as a whole: its backing file, emptying it. Each switch is one write of the header.</summary>
internal sealed partial class Qcow2Node : IRebasable, IEmptiable
{
    public ValueTask MakeEmptyAsync(CancellationToken cancellationToken) => AloneAsync(async () =>
    {
        await UnderGateAsync(async () =>
        {
            await FlushLockedAsync(cancellationToken).ConfigureAwait(false);
            List<(long Offset, long Length)> unused = await CollectAsync(CopyOfL1(), cancellationToken).ConfigureAwait(false);
            for (int i = _l1.NextUsed(0); i < _l1.Count; i = _l1.NextUsed(i + 1))
            {
                _l1[i] = 0;
            }
            FreeAfterFlush(unused);
            await FlushLockedAsync(CancellationToken.None).ConfigureAwait(false);
            await TrimAsync(cancellationToken).ConfigureAwait(false);
        }).ConfigureAwait(false);
    });

    public ValueTask SetBackingAsync(string? backingFile, string? backingFormat, BlockNode? backing, CancellationToken cancellationToken) => UnderGateAsync(async () =>
    {
        if ((_header.AutoClear & Qcow2AutoClear.RawExternalData) != Qcow2AutoClear.None && backingFile is not null)
        {
            throw new DiskImageException(DiskImageErrorKind.Unsupported, $"{Name}: an image whose external data file is a raw image cannot have a backing file", Name);
        }
        Qcow2Extension[] others = [.. _header.Extensions.Where(e => e.Type != Qcow2Extension.BackingFormat)];
        Qcow2Header header = _header with
        {
            BackingFile = backingFile,
            Extensions = backingFile is null || backingFormat is null ? others : [Qcow2Extension.Text(Qcow2Extension.BackingFormat, backingFormat), .. others],
        };
        if (!header.Fits)
        {
            header = header with { Extensions = [.. header.Extensions.Where(e => e.Type != Qcow2Extension.FeatureNames)] }; // the one part that nobody needs
        }
        _ = header.ToCluster(Name); // refuses a name that does not fit before anything is written
        await FlushLockedAsync(cancellationToken).ConfigureAwait(false);
        await SwitchHeaderAsync(header).ConfigureAwait(false);
    });

    /// <summary>Cuts the file behind the last cluster in use. Everything must be flushed.</summary>
    private async ValueTask TrimAsync(CancellationToken cancellationToken)
    {
        await _order.WriteBackAsync().ConfigureAwait(false);
        long end = await _refcounts.UsedEndAsync().ConfigureAwait(false);
        if (end < File.Length)
        {
            await File.ResizeAsync(end, PreallocationMode.Off, cancellationToken).ConfigureAwait(false);
        }
    }
}
