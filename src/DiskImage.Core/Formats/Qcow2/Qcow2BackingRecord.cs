using DiskImage.Block;
using DiskImage.Metadata;

namespace DiskImage.Formats.Qcow2;

/// <summary>
/// What an image says of its backing image, and emptying it so that nothing but that shows. Spec: qcow2, "Header", "Header extensions".
/// </summary>
internal sealed class Qcow2BackingRecord(Qcow2Disk disk)
{
    /// <summary>Names another backing image, or none, in one write of the header.</summary>
    public async ValueTask SetAsync(
        MetadataSession.Held held, string? backingFile, string? backingFormat, CancellationToken cancellationToken)
    {
        Qcow2Header old = disk.Header;
        if ((old.AutoClear & Qcow2AutoClear.RawExternalData) != Qcow2AutoClear.None && backingFile is not null)
        {
            throw new DiskImageException(
                DiskImageErrorKind.Unsupported,
                $"{disk.Name}: an image whose external data file is a raw image cannot have a backing file",
                disk.Name);
        }
        Qcow2Extension[] others = [.. old.Extensions.Where(e => e.Type != Qcow2Extension.BackingFormat)];
        bool namesFormat = backingFile is not null && backingFormat is not null;
        Qcow2Header header = old with
        {
            BackingFile = backingFile,
            Extensions = namesFormat ? [Qcow2Extension.Text(Qcow2Extension.BackingFormat, backingFormat!), .. others] : others,
        };
        if (!header.Fits)
        {
            // the one part that nobody needs
            header = header with { Extensions = [.. header.Extensions.Where(e => e.Type != Qcow2Extension.FeatureNames)] };
        }
        _ = header.ToCluster(disk.Name); // refuses a name that does not fit before anything is written
        await disk.FlushAsync(held, cancellationToken).ConfigureAwait(false);
        await disk.SwitchHeaderAsync(held, header).ConfigureAwait(false);
    }

    /// <summary>Makes all of the disk unallocated, and the file as short as that lets it be.</summary>
    public async ValueTask EmptyAsync(MetadataSession.Held held, CancellationToken cancellationToken)
    {
        await disk.FlushAsync(held, cancellationToken).ConfigureAwait(false);
        var l1Tables = new Qcow2L1Tables(disk);
        Qcow2Ranges unused = await l1Tables.CollectAsync(l1Tables.CopyOfActive(), cancellationToken).ConfigureAwait(false);
        PointerTable active = disk.Tables.L1;
        await disk.TellAsync(DebugEvent.L1Update).ConfigureAwait(false);
        await disk.TellAsync(DebugEvent.EmptyImagePrepare).ConfigureAwait(false);
        for (int i = active.NextUsed(0); i < active.Count; i = active.NextUsed(i + 1))
        {
            active[i] = 0;
        }
        disk.Refcounts.FreeAfterFlush(held, unused);
        await disk.TellAsync(DebugEvent.ReftableUpdate).ConfigureAwait(false);
        await disk.FlushAsync(held, CancellationToken.None).ConfigureAwait(false);
        await disk.TrimAsync(held, cancellationToken).ConfigureAwait(false);
    }
}
