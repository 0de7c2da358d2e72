#requires -Version 7.6 -Modules DiskImage

<#
.SYNOPSIS
    One row for each image of a folder: is it sound, what does it stand on, what does it take.
.DESCRIPTION
    Nothing is changed. Files that are no images of a format that can be checked have an empty Sound. The rows go well into
    Export-Csv or Where-Object.
.EXAMPLE
    ./Get-ImageHealth.ps1 /var/lib/libvirt/images | Where-Object Sound -EQ $false
#>
[CmdletBinding()]
param(
    [Parameter(Mandatory, Position = 0)] [string] $Path,
    [string[]] $Include = @('*.vhd', '*.vhdx', '*.qcow2')
)

foreach ($file in Get-ChildItem "$Path/*" -File -Include $Include) {
    $info = Get-DiskImageInfo -Path $file.FullName -ErrorAction SilentlyContinue -ErrorVariable problem
    $check = $info ? (Test-DiskImage -Path $file.FullName -ErrorAction SilentlyContinue -ErrorVariable +problem) : $null
    [pscustomobject]@{
        Name        = $file.Name
        Sound       = $check.IsConsistent
        Format      = $info.Format
        VirtualSize = $info.VirtualSize
        ActualSize  = $info.ActualSize
        Backing     = $info.BackingFile
        Snapshots   = @($info.Snapshots).Where{ $_ }.Count
        Problem     = ($problem | Select-Object -First 1)?.Exception.Message
    }
}
