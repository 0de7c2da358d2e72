#requires -Version 7.6 -Modules DiskImage

<#
.SYNOPSIS
    Converts all images of a folder, each compared with its source before it gets its name.
.DESCRIPTION
    Images whose target exists are left alone, so the script can be run again after it was interrupted. An image that cannot be
    converted is reported and the others go on.
.EXAMPLE
    ./Convert-ImageFolder.ps1 D:\vms E:\kvm -DestinationFormat qcow2 -Compress
#>
[CmdletBinding(SupportsShouldProcess)]
param(
    [Parameter(Mandatory, Position = 0)] [string] $Path,
    [Parameter(Mandatory, Position = 1)] [string] $Destination,
    [string] $DestinationFormat = 'qcow2',
    [string[]] $Include = @('*.vhd', '*.vhdx', '*.qcow2', '*.raw', '*.img'),
    [switch] $Compress
)

$null = New-Item $Destination -ItemType Directory -Force
$ending = @{ vpc = 'vhd' }[$DestinationFormat] ?? $DestinationFormat
foreach ($file in Get-ChildItem "$Path/*" -File -Include $Include) {
    $target = Join-Path $Destination "$($file.BaseName).$ending"
    if (Test-Path $target) {
        Write-Verbose "$target is there already."
        continue
    }

    $more = $Compress ? @{ Compress = $true } : @{}
    if ($file.Extension -in '.raw', '.img') {
        $more.Format = 'raw' # never by the guest's first bytes
    }

    if ($PSCmdlet.ShouldProcess($target, "Convert $($file.Name)")) {
        Convert-DiskImage -Path $file.FullName -Destination $target -DestinationFormat $DestinationFormat -Verify @more
    }
}
