#requires -Version 7.6 -Modules DiskImage

<#
.SYNOPSIS
    Verifies a folder of backups: is each image sound, and does its disk still have the contents that it had when it was first seen?
.DESCRIPTION
    The hashes of the disks, not of the files, stand in hashes.csv in the folder; so an image that was converted or compacted still fits.
    An image that is not in it yet is added. Returns a row for each image, and one for each that is missing. The
    exit status ($LASTEXITCODE) is the number of rows that are neither good nor new, so a scheduler notices:

        cron:            0 3 * * 0  pwsh -NoProfile -Command "Import-Module DiskImage; /opt/Test-BackupSet.ps1 /backup"
        Windows:         Register-ScheduledTask with New-ScheduledTaskAction -Execute pwsh -Argument '-NoProfile -Command "…"'
.EXAMPLE
    ./Test-BackupSet.ps1 /backup | Where-Object State -NE Good
#>
[CmdletBinding()]
param(
    [Parameter(Mandatory, Position = 0)] [string] $Path,
    [string[]] $Include = @('*.vhd', '*.vhdx', '*.qcow2', '*.vmdk', '*.vdi', '*.raw')
)

$list = Join-Path $Path hashes.csv
$known = @{}
foreach ($row in (Test-Path $list) ? (Import-Csv $list) : @()) {
    $known[$row.Name] = $row.Hash
}

$rows = @(
    foreach ($file in Get-ChildItem "$Path/*" -File -Include $Include) {
        $how = $file.Extension -eq '.raw' ? @{ Format = 'raw' } : @{}
        $hash = Get-DiskImageHash -LiteralPath $file.FullName @how -ErrorAction SilentlyContinue -ErrorVariable problem
        $check = $file.Extension -eq '.raw' ? $null : (Test-DiskImage -LiteralPath $file.FullName -ErrorAction SilentlyContinue -ErrorVariable +problem)
        [pscustomobject]@{
            Name    = $file.Name
            State   = -not $hash -or ($check -and -not $check.IsConsistent) ? 'Damaged'
                : -not $known.ContainsKey($file.Name) ? 'New' : $known[$file.Name] -eq $hash.Hash ? 'Good' : 'Changed'
            Hash    = $hash.Hash
            Problem = ($problem | Select-Object -First 1)?.Exception.Message ?? ($check.Findings | Select-Object -First 1)?.Message
        }
    }
)
$rows += foreach ($name in $known.Keys | Where-Object { $_ -notin $rows.Name } | Sort-Object) {
    [pscustomobject]@{ Name = $name; State = 'Missing'; Hash = $known[$name]; Problem = 'There is no such image any more.' }
}

foreach ($row in $rows | Where-Object State -EQ New) {
    $known[$row.Name] = $row.Hash
}

$known.GetEnumerator() | Sort-Object Key | ForEach-Object { [pscustomobject]@{ Name = $_.Key; Hash = $_.Value } } | Export-Csv $list
$rows
$global:LASTEXITCODE = @($rows | Where-Object State -NotIn Good, New).Count
