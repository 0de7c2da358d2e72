#requires -Version 7.6 -Modules DiskImage

<#
.SYNOPSIS
    Makes the images of a folder smaller in place and says what that gained.
.DESCRIPTION
    Only images that a check finds sound are touched, and none that another image in the folder stands on. Have the guests discard
    what they no longer use first (fstrim, Optimize-Volume -ReTrim), and shut them down.
.EXAMPLE
    ./Optimize-ImageFolder.ps1 D:\vms -WhatIf
#>
[CmdletBinding(SupportsShouldProcess)]
param(
    [Parameter(Mandatory, Position = 0)] [string] $Path,
    [string[]] $Include = @('*.vhd', '*.vhdx', '*.qcow2')
)

$images = Get-ChildItem "$Path/*" -File -Include $Include | Get-DiskImageInfo
$bases = $images.FullBackingFile
foreach ($image in $images | Where-Object Path -NotIn $bases) {
    if (-not (Test-DiskImage -Path $image.Path).IsConsistent) {
        Write-Warning "$($image.Path) is damaged and left alone; Test-DiskImage says more."
        continue
    }

    if ($PSCmdlet.ShouldProcess($image.Path, 'Optimize')) {
        $before = (Get-Item -LiteralPath $image.Path).Length
        $null = Optimize-DiskImage -Path $image.Path
        $after = (Get-Item -LiteralPath $image.Path).Length
        [pscustomobject]@{ Path = $image.Path; Before = $before; After = $after; Gained = $before - $after }
    }
}
