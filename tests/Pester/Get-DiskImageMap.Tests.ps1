BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    . "$PSScriptRoot/Interrupt.ps1"
    $folder = Join-Path $TestDrive 'map'
    $null = New-Item $folder -ItemType Directory
    Push-Location $folder
    $null = New-TestDisk "$folder/disk.raw" -Size 3MB -Seed 3
    $null = Convert-DiskImage disk.raw plain.qcow2
    $null = Convert-DiskImage disk.raw packed.qcow2 -Compress
    $null = Convert-DiskImage disk.raw v2.qcow2 -Compat 0.10 -ClusterSize 4k
    $null = New-DiskImage top.qcow2 4MB -BackingPath packed.qcow2
    Write-DiskImage top.qcow2 1MB ([byte[]](1..255) * 1024)
}

AfterAll { Pop-Location }

Describe 'Get-DiskImageMap' {
    It 'says of <_> what qemu-img says' -ForEach 'disk.raw', 'plain.qcow2', 'packed.qcow2', 'v2.qcow2', 'top.qcow2' {
        $map = Get-DiskImageMap $_
        $qemu = Invoke-Qemu qemu-img map --output=json $_ | Out-String | ConvertFrom-Json
        $ours = $map | ForEach-Object { "$($_.Start)+$($_.Length) depth $($_.Depth) present $($_.Present) zero $($_.Zero) data $($_.Data) at $($_.Offset)" }
        $theirs = $qemu | ForEach-Object { "$($_.start)+$($_.length) depth $($_.depth) present $($_.present) zero $($_.zero) data $($_.data) at $($_.offset)" }
        $ours | Should -Be $theirs
    }

    It 'covers the disk without gaps' {
        $end = 0
        foreach ($extent in Get-DiskImageMap top.qcow2) {
            $extent | Should -BeOfType DiskImage.PowerShell.DiskImageExtent
            $extent.Start | Should -Be $end
            $end += $extent.Length
        }

        $end | Should -Be 4MB
    }

    It 'gives what it has found when it comes to damage' {
        $null = New-DiskImage torn.qcow2 8MB -ClusterSize 4k # a table for each 2 MiB
        foreach ($at in 0, 16KB, 32KB, 48KB, 64KB, 3MB) {
            Write-DiskImage torn.qcow2 $at ([byte[]](@(1) * 4096))
        }
        $file = [IO.File]::Open("$folder/torn.qcow2", 'Open')
        try {
            $header = [byte[]]::new(48)
            $file.ReadExactly($header, 0, 48)
            [array]::Reverse($header, 40, 8)
            $file.Position = [BitConverter]::ToInt64($header, 40) + 8 + 6
            $file.WriteByte(2) # the second table is no longer at a cluster
        }
        finally {
            $file.Dispose()
        }

        $map = @(Get-DiskImageMap torn.qcow2 -ErrorVariable failed -ErrorAction SilentlyContinue)
        $failed | Should -HaveCount 1
        $failed[0].FullyQualifiedErrorId | Should -BeLike 'DiskImageCorrupt*'
        $map.Count | Should -BeGreaterThan 5
        $map[0].Start | Should -Be 0
    }

    It 'tells which file holds what' {
        $map = Get-DiskImageMap top.qcow2
        ($map | Where-Object { $_.Depth -eq 0 -and $_.Data })[0].File | Should -Be (Join-Path $folder 'top.qcow2')
        $map | Where-Object Compressed | ForEach-Object { $_.Offset | Should -BeNullOrEmpty }
    }

    It 'lists a range' {
        $map = Get-DiskImageMap disk.raw -Offset 1M -Length 64k
        $map[0].Start | Should -Be 1MB
        ($map | Measure-Object Length -Sum).Sum | Should -Be 64KB
        Get-DiskImageMap disk.raw -Offset 3MB | Should -BeNullOrEmpty
        Get-DiskImageMap disk.raw -Offset 30MB | Should -BeNullOrEmpty
        (Get-DiskImageMap disk.raw -Offset (3MB - 1) -Length 1TB).Length | Should -Be 1
    }

    It 'takes several images, and goes on after a bad one' {
        $map = 'plain.qcow2', 'nowhere.raw', 'disk.raw' | Get-DiskImageMap -ErrorAction SilentlyContinue -ErrorVariable problems
        @($map | Where-Object Start -EQ 0).Count | Should -Be 2
        Format-Error $problems | Should -Be 'DiskImageNotFound ObjectNotFound'
        @(Get-DiskImageMap p*.qcow2 | Where-Object Start -EQ 0).Count | Should -Be 2
    }

    It 'describes an empty disk of 16 TiB' {
        $null = New-DiskImage huge.qcow2 16TB
        (Get-DiskImageMap huge.qcow2).Length | Should -Be 16TB
    }

    It 'stops when the pipeline wants no more, and lets go of the image' {
        @(Get-DiskImageMap v2.qcow2 | Select-Object -First 2).Count | Should -Be 2
        Test-Released (Join-Path $folder 'v2.qcow2') | Should -BeTrue
    }

    It 'lets go of the image at Ctrl+C' {
        $stopped = Invoke-Interrupted Get-DiskImageMap @{ Path = (Join-Path $folder 'v2.qcow2') }
        $stopped.Errors | Should -BeNullOrEmpty
        Test-Released (Join-Path $folder 'v2.qcow2') | Should -BeTrue
    }

    It 'fits in 80 columns' {
        $text = Get-DiskImageMap top.qcow2 | Out-String -Width 80
        $text | Should -Match 'Start\s+Length\s+Depth\s+Status\s+Offset\s+File'
        $text | Should -Match 'compressed'
        $text -split '\r?\n' | ForEach-Object { $_.Length | Should -BeLessOrEqual 80 }
    }
}
