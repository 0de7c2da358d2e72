using System.Text;
using DiskImage.Block;

namespace DiskImage.Formats.Vhdx;

/// <summary>What an image's structures say, read and checked, before a disk is made of it.</summary>
/// <param name="Headers">Both headers.</param>
/// <param name="Log">What the log wants to be replayed; null if it is empty or to be ignored.</param>
/// <param name="LostLog">Why the log cannot be replayed, if it is ignored for that; else null.</param>
/// <param name="View">The file as it is once the log is replayed.</param>
/// <param name="Regions">The region table.</param>
/// <param name="Metadata">The metadata items.</param>
/// <param name="Creator">The program that made the file, as it says.</param>
internal sealed record VhdxImage(
    VhdxHeaderPair Headers,
    VhdxLogSequence? Log,
    string? LostLog,
    BlockNode View,
    VhdxRegionTable Regions,
    VhdxMetadata Metadata,
    string Creator)
{
    private const int CreatorAt = 8, CreatorBytes = 512;

    /// <summary>Reads an image. Changes nothing.</summary>
    /// <param name="file">The file.</param>
    /// <param name="discardLog">True to read it as if its log were empty, if it cannot be replayed.</param>
    /// <param name="forRepair">True to believe headers and region tables of which only the checksums are wrong.</param>
    /// <param name="cancellationToken">Stops it.</param>
    public static async ValueTask<VhdxImage> ReadAsync(BlockNode file, bool discardLog, bool forRepair, CancellationToken cancellationToken)
    {
        VhdxHeaderPair headers = await VhdxHeaderPair.ReadAsync(file, cancellationToken, forRepair).ConfigureAwait(false);
        VhdxLogSequence? log = null;
        string? lost = null;
        if (headers.Current.HasLog)
        {
            try
            {
                log = await VhdxLogReader.FindAsync(file, headers.Current, cancellationToken).ConfigureAwait(false);
            }
            catch (DiskImageException e) when (discardLog && headers.IsSealed && e.Kind == DiskImageErrorKind.Corrupt)
            {
                lost = e.Message;
            }
        }
        BlockNode view = log is null ? file : new VhdxReplayedNode(file, log);
        VhdxRegionTable regions = await VhdxRegionTable.ReadAsync(
            view, headers.Current, forRepair, cancellationToken).ConfigureAwait(false);
        VhdxMetadata metadata = await VhdxMetadata.ReadAsync(view, regions.Metadata, cancellationToken).ConfigureAwait(false);
        var geometry = new VhdxGeometry(metadata.BlockSize, metadata.LogicalSectorSize, metadata.VirtualSize);
        long entries = geometry.EntriesWithoutBitmaps, bytes = entries * VhdxGeometry.EntryBytes;
        if (bytes > regions.Bat.Length || regions.Bat.Offset > view.Length - bytes)
        {
            throw VhdxLayout.Corrupt(
                file.Name,
                $"the BAT needs {entries:#,0} entries of 8 bytes; its region has {regions.Bat.Length:#,0} bytes at offset "
                    + $"{regions.Bat.Offset:#,0} of the file's {view.Length:#,0}",
                regions.Bat.Offset);
        }
        byte[] creator = new byte[CreatorBytes];
        await file.ReadPaddedAsync(CreatorAt, creator, cancellationToken).ConfigureAwait(false);
        string text = Encoding.Unicode.GetString(creator);
        int end = text.IndexOf('\0', StringComparison.Ordinal);
        return new(headers, log, lost, view, regions, metadata, end < 0 ? text : text[..end]);
    }
}
