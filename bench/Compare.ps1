#requires -Version 7.6
<#
.SYNOPSIS
    Times conversions and comparisons beside qemu-img, on the same files, in turns.
.DESCRIPTION
    The work is done by bench/DiskImage.Bench: a warm process for ours, a process each for qemu-img, since that is how each is used.
    Files go to a folder of their own in the temporary folder and are removed.
.PARAMETER Only
    Part of the names of what to run: raw-qcow2, qcow2-raw, raw-raw, packed-raw, compare; 'shared' on a file system that shares storage.
.PARAMETER Output
    A folder for comparison.json, comparison.md, growth.md and growth.svg.
.PARAMETER Growth
    Shows how time grows with data and with extents as well.
#>
[CmdletBinding()]
param(
    [string] $Size = '2G',
    [int] $Runs = 5,
    [string] $Folder = [IO.Path]::GetTempPath(),
    [string] $Only = '',
    [string] $Output = '',
    [switch] $Growth
)

$ErrorActionPreference = 'Stop'
if (-not (Get-Command qemu-img -CommandType Application -ErrorAction Ignore)) {
    Write-Host 'NOT RUN: the comparison, because qemu-img is not installed.'
    exit 0
}

[string[]] $arguments = '--size', $Size, '--runs', $Runs, '--folder', $Folder
if ($Only) {
    $arguments += '--only', $Only
}

if ($Output) {
    $arguments += '--output', $Output
}

dotnet run --configuration Release --project "$PSScriptRoot/DiskImage.Bench.csproj" -- compare @arguments
if ($LASTEXITCODE -ne 0 -or -not $Growth) {
    exit $LASTEXITCODE
}

[string] $drawn = if ($Output) { $Output } else { $Folder }
dotnet run --configuration Release --no-build --project "$PSScriptRoot/DiskImage.Bench.csproj" -- growth $Folder $drawn '1,4,16' '10000,100000,1000000,10000000'
exit $LASTEXITCODE
