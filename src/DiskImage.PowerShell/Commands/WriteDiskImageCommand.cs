using System.Management.Automation;
using DiskImage.Graph;
using DiskImage.Operations;

namespace DiskImage.PowerShell;

/// <summary><c>Write-DiskImage</c>: changes bytes of the virtual disk.</summary>
[Cmdlet(VerbsCommunications.Write, "DiskImage", DefaultParameterSetName = PathSet, SupportsShouldProcess = true)]
[OutputType(typeof(void))]
public sealed class WriteDiskImageCommand : OpenImageCmdlet
{
    /// <summary>The first byte of the virtual disk to change.</summary>
    [Parameter(Mandatory = true, Position = 1)]
    [ByteSize]
    [ValidateRange(0, long.MaxValue)]
    public long Offset { get; set; }

    /// <summary>The new bytes.</summary>
    [Parameter(Mandatory = true, Position = 2)]
    [ValidateNotNull]
    public byte[] Bytes { get; set; } = [];

    /// <summary>
    /// Writes to a temporary overlay, which is gone afterwards: the image stays as it is, and it is known whether it could be done.
    /// </summary>
    [Parameter]
    public SwitchParameter TemporaryOverlay { get; set; }

    /// <inheritdoc/>
    private protected override OpenRequest Request(string path) => base.Request(path) with { TemporaryOverlay = TemporaryOverlay };

    /// <inheritdoc/>
    protected override async Task ProcessImageAsync(string path, CancellationToken cancellationToken)
    {
        string files = await LookAsync(
            path, image => new ValueTask<string>(WrittenFiles.Of(image)), cancellationToken, beforeWriting: true).ConfigureAwait(false);
        if (!await ConfirmAsync(
            files, $"Write {Bytes.Length:#,0} {(Bytes.Length == 1 ? "byte" : "bytes")} at offset {Offset:#,0}").ConfigureAwait(false))
        {
            return;
        }
        OpenedImage image = await OpenAsync(path, cancellationToken, writable: true).ConfigureAwait(false);
        await using (image.ConfigureAwait(false))
        {
            await image.Node.WriteAsync(Offset, Bytes, cancellationToken).ConfigureAwait(false);
            await image.Node.FlushAsync(cancellationToken).ConfigureAwait(false);
        }
    }
}
