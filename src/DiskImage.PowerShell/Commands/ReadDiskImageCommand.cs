using System.Management.Automation;
using DiskImage.Block;
using DiskImage.Graph;

namespace DiskImage.PowerShell;

/// <summary><c>Read-DiskImage</c>: bytes of the virtual disk.</summary>
[Cmdlet(VerbsCommunications.Read, "DiskImage", DefaultParameterSetName = PathSet)]
[OutputType(typeof(byte[]))]
public sealed class ReadDiskImageCommand : ReadImageCmdlet
{
    private const long LengthLimit = 1 << 30; // of one array. Ours

    /// <summary>The first byte of the virtual disk to read.</summary>
    [Parameter(Mandatory = true, Position = 1)]
    [ByteSize]
    [ValidateRange(0, long.MaxValue)]
    public long Offset { get; set; }

    /// <summary>How many bytes.</summary>
    [Parameter(Mandatory = true, Position = 2)]
    [ByteSize]
    [ValidateRange(0, long.MaxValue)]
    public long Length { get; set; }

    /// <inheritdoc/>
    protected override async Task ProcessImageAsync(string path, CancellationToken cancellationToken)
    {
        if (Length > LengthLimit)
        {
            throw new DiskImageException(
                DiskImageErrorKind.OutOfRange,
                $"{Length:#,0} bytes are more than the {LengthLimit:#,0} that fit in one result. Read "
                    + $"in pieces, or convert the image to raw.",
                path,
                Offset);
        }
        OpenedImage image = await OpenAsync(path, cancellationToken).ConfigureAwait(false);
        await using (image.ConfigureAwait(false))
        {
            if (Offset > image.Node.Length || Length > image.Node.Length - Offset) // before the memory is claimed
            {
                throw new DiskImageException(
                    DiskImageErrorKind.OutOfRange,
                    $"{image.Path}: {Length:#,0} bytes at offset {Offset:#,0} reach past the end of the disk at {image.Node.Length:#,0}",
                    image.Path,
                    Offset);
            }
            byte[] bytes = new byte[Length];
            await image.Node.ReadAsync(Offset, bytes, cancellationToken).ConfigureAwait(false);
            await OutputAsync(bytes).ConfigureAwait(false);
        }
    }
}
