#requires -Version 7.6 -Modules DiskImage

<#
.SYNOPSIS
    Numbered disks for a lab: each begins as the base image and keeps only what changes.
.DESCRIPTION
    The base image must not change while the disks stand on it, so it is made read-only. Disks that exist are left alone; with -Reset
    they are made anew and what they held is lost.
.EXAMPLE
    ./New-LabDisk.ps1 base.qcow2 -Count 20 -Name 'student{0:00}.qcow2'
#>
[CmdletBinding(SupportsShouldProcess, ConfirmImpact = 'Medium')]
param(
    [Parameter(Mandatory, Position = 0)] [string] $BasePath,
    [ValidateRange(1, 10000)] [int] $Count = 1,
    [string] $Name = 'disk{0:000}.qcow2',
    [switch] $Reset
)

$base = Get-Item -LiteralPath $BasePath
$format = (Get-DiskImageInfo -Path $base.FullName).Format
foreach ($number in 1..$Count) {
    $disk = Join-Path $base.DirectoryName ($Name -f $number)
    if ((Test-Path $disk) -and -not $Reset) {
        Write-Verbose "$disk is there already."
        continue
    }

    if ($PSCmdlet.ShouldProcess($disk, "New disk on $($base.Name)")) {
        New-DiskImage -Path $disk -BackingPath $base.Name -BackingFormat $format -Force:$Reset
    }
}

if ($PSCmdlet.ShouldProcess($base.FullName, 'Make read-only')) {
    $base.IsReadOnly = $true
}
