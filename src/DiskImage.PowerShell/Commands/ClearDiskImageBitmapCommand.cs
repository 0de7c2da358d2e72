using System.Management.Automation;
using DiskImage.Block;

namespace DiskImage.PowerShell;

/// <summary><c>Clear-DiskImageBitmap</c>: forgets the writes that dirty bitmaps have recorded.</summary>
[Cmdlet(VerbsCommon.Clear, "DiskImageBitmap", DefaultParameterSetName = PathSet, SupportsShouldProcess = true)]
[OutputType(typeof(void))]
public sealed class ClearDiskImageBitmapCommand : ChangeBitmapCmdlet
{
    private protected override string Action => "Clear";

    private protected override ValueTask ChangeAsync(IBitmaps bitmaps, string name, CancellationToken cancellationToken)
        => bitmaps.ClearBitmapAsync(name, cancellationToken);
}
