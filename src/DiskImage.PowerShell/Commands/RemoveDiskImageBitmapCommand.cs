using System.Management.Automation;
using DiskImage.Block;

namespace DiskImage.PowerShell;

/// <summary><c>Remove-DiskImageBitmap</c>: gives up dirty bitmaps, also those that were not saved properly.</summary>
[Cmdlet(VerbsCommon.Remove, "DiskImageBitmap", DefaultParameterSetName = PathSet, SupportsShouldProcess = true)]
[OutputType(typeof(void))]
public sealed class RemoveDiskImageBitmapCommand : ChangeBitmapCmdlet
{
    private protected override string Action => "Remove";

    private protected override ValueTask ChangeAsync(IBitmaps bitmaps, string name, CancellationToken cancellationToken)
        => bitmaps.RemoveBitmapAsync(name, cancellationToken);
}
