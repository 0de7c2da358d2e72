#requires -Version 7.6
<#
.SYNOPSIS
    Times conversions and comparisons beside qemu-img, on the same files, in turns.
.DESCRIPTION
    The work is done by bench/DiskImage.Bench: a warm process for ours, a process each for qemu-img, since that is how each is used.
    Files go to a folder of their own in the temporary folder and are removed.
.PARAMETER Only
    Part of the names of what to run: raw-qcow2, qcow2-raw, raw-raw, packed-raw, compare.
#>
[CmdletBinding()]
param(
    [string] $Size = '2G',
    [int] $Runs = 5,
    [string] $Folder = [IO.Path]::GetTempPath(),
    [string] $Only = ''
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

dotnet run --configuration Release --project "$PSScriptRoot/DiskImage.Bench.csproj" -- compare @arguments
exit $LASTEXITCODE
