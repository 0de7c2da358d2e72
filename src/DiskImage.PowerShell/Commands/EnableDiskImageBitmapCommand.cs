using System.Management.Automation;
using DiskImage.Block;

namespace DiskImage.PowerShell;

/// <summary><c>Enable-DiskImageBitmap</c>: lets dirty bitmaps record writes.</summary>
[Cmdlet(VerbsLifecycle.Enable, "DiskImageBitmap", DefaultParameterSetName = PathSet, SupportsShouldProcess = true)]
[OutputType(typeof(void))]
public sealed class EnableDiskImageBitmapCommand : ChangeBitmapCmdlet
{
    private protected override string Action => "Enable";

    private protected override bool IsDone(DiskBitmap bitmap) => bitmap.IsEnabled && !bitmap.IsInUse;

    private protected override ValueTask ChangeAsync(IBitmaps bitmaps, string name, CancellationToken cancellationToken)
        => bitmaps.EnableBitmapAsync(name, enabled: true, cancellationToken);
}
