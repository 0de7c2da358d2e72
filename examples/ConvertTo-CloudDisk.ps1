#requires -Version 7.6 -Modules DiskImage

<#
.SYNOPSIS
    Prepares disks for Azure or Hyper-V: converted, compared, and asked whether they would be taken.
.DESCRIPTION
    A profile stands for the format, the options and the size that a service takes. Returns a row for each disk with what the service would
    still object to. What is inside the disk (drivers, boot loader, agents) is not looked at: see the service's own lists.
.EXAMPLE
    Get-ChildItem *.qcow2 | ./ConvertTo-CloudDisk.ps1 -Destination upload -Profile Azure
#>
[CmdletBinding()]
param(
    [Parameter(Mandatory, ValueFromPipelineByPropertyName)] [Alias('FullName')] [string[]] $Path,
    [Parameter(Mandatory)] [string] $Destination,
    [ValidateSet('Azure', 'HyperV')] [string] $Profile = 'Azure',
    # Replaces disks of an earlier run.
    [switch] $Force
)

begin {
    $folder = (New-Item $Destination -ItemType Directory -Force).FullName
    $ending = @{ Azure = 'vhd'; HyperV = 'vhdx' }[$Profile]
}

process {
    foreach ($image in $Path) {
        $target = Join-Path $folder "$([IO.Path]::GetFileNameWithoutExtension($image)).$ending"
        $made = Convert-DiskImage -LiteralPath $image -Destination $target -Profile $Profile -Verify -Force:$Force
        if ($made) {
            $check = Test-DiskImage -LiteralPath $target -Profile $Profile
            [pscustomobject]@{
                Path        = $target
                VirtualSize = $made.VirtualSize
                ActualSize  = $made.ActualSize
                Ready       = $check.IsConsistent -and $check.ProfileRefusals.Count -eq 0
                Refusals    = $check.ProfileRefusals -join '; '
            }
        }
    }
}
