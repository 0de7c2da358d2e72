using System.Management.Automation;
using DiskImage.Block;

namespace DiskImage.PowerShell;

/// <summary><c>Disable-DiskImageBitmap</c>: stops dirty bitmaps from recording writes.</summary>
[Cmdlet(VerbsLifecycle.Disable, "DiskImageBitmap", DefaultParameterSetName = PathSet, SupportsShouldProcess = true)]
[OutputType(typeof(void))]
public sealed class DisableDiskImageBitmapCommand : ChangeBitmapCmdlet
{
    private protected override string Action => "Disable";

    private protected override bool IsDone(DiskBitmap bitmap) => !bitmap.IsEnabled && !bitmap.IsInUse;

    private protected override ValueTask ChangeAsync(IBitmaps bitmaps, string name, CancellationToken cancellationToken)
        => bitmaps.EnableBitmapAsync(name, enabled: false, cancellationToken);
}
