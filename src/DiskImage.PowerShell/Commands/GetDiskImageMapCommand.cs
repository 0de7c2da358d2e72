using System.Management.Automation;
using DiskImage.Graph;
using DiskImage.Jobs;

namespace DiskImage.PowerShell;

/// <summary><c>Get-DiskImageMap</c>: which runs of a disk are stored, where and how.</summary>
[Cmdlet(VerbsCommon.Get, "DiskImageMap", DefaultParameterSetName = PathSet)]
[OutputType(typeof(DiskImageExtent))]
public sealed class GetDiskImageMapCommand : ReadImageCmdlet
{
    /// <summary>The first byte of the range to map.</summary>
    [Parameter]
    [ByteSize]
    [ValidateRange(0, long.MaxValue)]
    public long Offset { get; set; }

    /// <summary>Bytes to map; to the end of the disk if absent.</summary>
    [Parameter]
    [ByteSize]
    [ValidateRange(0, long.MaxValue)]
    public long? Length { get; set; }

    /// <inheritdoc/>
    protected override async Task ProcessImageAsync(string path, CancellationToken cancellationToken)
    {
        OpenedImage image = await OpenAsync(path, cancellationToken).ConfigureAwait(false);
        await using (image.ConfigureAwait(false))
        {
            long room = Math.Max(0, image.Node.Length - Offset);
            await OutputAllAsync(
                MapJob.ExtentsAsync(image.Node, Offset, Math.Min(Length ?? room, room), cancellationToken),
                extent => DiskImageExtent.Of(extent),
                cancellationToken).ConfigureAwait(false);
        }
    }
}
