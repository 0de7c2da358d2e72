<#
.SYNOPSIS
    A sample disk goes raw to qcow2 to raw through the cmdlets of output/DiskImage; the end must equal the beginning.
#>
$ErrorActionPreference = 'Stop'
Import-Module "$PSScriptRoot/../output/DiskImage/DiskImage.psd1"

$folder = New-Item -ItemType Directory -Path ([IO.Path]::GetTempPath()) -Name "DiskImage-demo-$([guid]::NewGuid().ToString('n'))"
try {
    $raw, $qcow2, $back = 'disk.raw', 'disk.qcow2', 'back.raw' | ForEach-Object { Join-Path $folder $_ }

    '# A raw disk of 16 MiB: text at its start, random bytes in its middle, holes around them'
    New-DiskImage -Path $raw -Size 16MB -Format raw | Out-Null
    Write-DiskImage -Path $raw -Offset 0 -Bytes ([Text.Encoding]::ASCII.GetBytes('DiskImage ' * 6553))
    $random = [byte[]]::new(1MB)
    [Random]::new(42).NextBytes($random)
    Write-DiskImage -Path $raw -Offset 5MB -Bytes $random
    Write-DiskImage -Path $raw -Offset (9MB + 12345) -Bytes $random[0..99]
    Get-DiskImageInfo -Path $raw | Out-Default

    '# To qcow2'
    Convert-DiskImage -Path $raw -Destination $qcow2 -DestinationFormat qcow2 | Out-Default
    '# Where the qcow2 image keeps the bytes'
    Get-DiskImageMap -Path $qcow2 | Out-Default
    Test-DiskImage -Path $qcow2 | Out-Default

    '# And back to raw'
    Convert-DiskImage -Path $qcow2 -Destination $back -DestinationFormat raw | Out-Default

    '# Compared'
    $comparisons = @(
        Compare-DiskImage -Path $raw -DifferencePath $qcow2
        Compare-DiskImage -Path $raw -DifferencePath $back
    )
    $comparisons | Out-Default
    $hashes = (Get-FileHash $raw, $back).Hash
    if ($comparisons.Identical -contains $false -or $hashes[0] -ne $hashes[1]) {
        throw 'The disk that came back differs from the disk that went in.'
    }

    'raw -> qcow2 -> raw: identical'
} finally {
    Remove-Item $folder -Recurse -Force
}
