using System.Management.Automation;
using DiskImage.Block;

namespace DiskImage.PowerShell;

/// <summary><c>New-DiskImageBitmap</c>: adds an empty dirty bitmap to images.</summary>
[Cmdlet(VerbsCommon.New, "DiskImageBitmap", DefaultParameterSetName = PathSet, SupportsShouldProcess = true)]
[OutputType(typeof(DiskImageBitmap))]
public sealed class NewDiskImageBitmapCommand : BitmapCmdlet
{
    /// <summary>The bitmap's name, unique in the image.</summary>
    [Parameter(Mandatory = true, Position = 1)]
    [ValidateNotNullOrEmpty]
    public string Name { get; set; } = "";

    /// <summary>Bytes that one bit stands for; the format decides if absent.</summary>
    [Parameter]
    [ByteSize]
    [ValidateRange(1, long.MaxValue)]
    public long? Granularity { get; set; }

    /// <summary>It does not record writes yet.</summary>
    [Parameter]
    public SwitchParameter Disabled { get; set; }

    /// <inheritdoc/>
    protected override async Task ProcessImageAsync(string path, CancellationToken cancellationToken)
    {
        (string name, string files, IReadOnlyList<DiskBitmap> present) = await ListAsync(path, cancellationToken).ConfigureAwait(false);
        if (present.Any(b => b.Name.Equals(Name, StringComparison.Ordinal)))
        {
            throw new DiskImageException(DiskImageErrorKind.AlreadyExists, $"{name}: has a bitmap '{Name}' already", name);
        }
        if (!await ConfirmAsync(files, $"Add bitmap '{Name}'").ConfigureAwait(false))
        {
            return;
        }
        DiskBitmap made = await ChangeAsync(
            path,
            image => Bitmaps(image).AddBitmapAsync(Name, Granularity, !Disabled, cancellationToken),
            cancellationToken).ConfigureAwait(false);
        await OutputAsync(DiskImageBitmap.Of(name, made)).ConfigureAwait(false);
    }
}
