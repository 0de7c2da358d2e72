BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    . "$PSScriptRoot/Interrupt.ps1"
    $folder = Join-Path $TestDrive 'optimize'
    $null = New-Item $folder -ItemType Directory
    Push-Location $folder
    $null = New-TestDisk "$folder/disk.raw" -Size 8MB -Seed 161
}

AfterAll { Pop-Location }

Describe 'Optimize-DiskImage' {
    It 'makes a <_> smaller that was filled with zeroes, and keeps what it reads as' -ForEach 'vhd', 'vhdx', 'qcow2' {
        $path = "disk.$_"
        $null = Convert-DiskImage disk.raw $path -Force
        $size = (Get-DiskImageInfo $path).VirtualSize
        $null = Resize-DiskImage $path 32M
        Write-DiskImage $path 8MB (, 171 * 8MB)
        Write-DiskImage $path 8MB ([byte[]]::new(8MB))
        $hash = (Get-DiskImageHash $path).Hash
        $before = (Get-Item $path).Length
        $info = Optimize-DiskImage $path -PassThru
        $info | Should -BeOfType DiskImage.PowerShell.DiskImageInfo
        (Get-Item $path).Length | Should -BeLessOrEqual ($before - 4MB)
        (Get-DiskImageHash $path).Hash | Should -Be $hash
        Test-DiskImage $path -Quiet | Should -BeTrue
        $size | Should -BeGreaterOrEqual 8MB
    }

    It 'keeps snapshots and bitmaps of a qcow2 image, and qemu-img agrees' {
        $null = Convert-DiskImage disk.raw kept.qcow2 -ClusterSize 4k -Force
        $null = New-DiskImageSnapshot kept.qcow2 before
        $null = New-DiskImageBitmap kept.qcow2 dirty
        Write-DiskImage kept.qcow2 1MB (, 172 * 2MB)
        Write-DiskImage kept.qcow2 1MB ([byte[]]::new(2MB))
        $null = Convert-DiskImage kept.qcow2 now.raw -Force
        $before = (Get-Item kept.qcow2).Length
        Optimize-DiskImage kept.qcow2 | Should -BeNullOrEmpty
        (Get-Item kept.qcow2).Length | Should -BeLessOrEqual ($before - 2MB)
        Invoke-Qemu qemu-img check -q kept.qcow2
        Invoke-Qemu qemu-img compare -q now.raw kept.qcow2
        (Get-DiskImageBitmap kept.qcow2 dirty).DirtyBytes | Should -Be 2MB
        $null = Convert-DiskImage kept.qcow2 before.raw -Snapshot before -Force
        Invoke-Qemu qemu-img compare -q disk.raw before.raw
    }

    It 'leaves a fixed <_> as it is' -ForEach 'vhd', 'vhdx' {
        $null = Convert-DiskImage disk.raw "fixed.$_" -Option subformat=fixed -Force
        $before = (Get-Item "fixed.$_").Length, (Get-DiskImageHash "fixed.$_").Hash
        Optimize-DiskImage "fixed.$_" -ErrorAction Stop
        (Get-Item "fixed.$_").Length, (Get-DiskImageHash "fixed.$_").Hash | Should -Be $before
    }

    It 'refuses a qcow2 image that is marked corrupt' {
        $null = Convert-DiskImage disk.raw corrupt.qcow2 -Force
        $file = [IO.File]::OpenWrite("$folder/corrupt.qcow2")
        $file.Position = 79
        $file.WriteByte(2)
        $file.Dispose()
        { Optimize-DiskImage corrupt.qcow2 -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageCorrupt,*'
    }

    It 'changes nothing with -WhatIf' {
        $null = Convert-DiskImage disk.raw same.vhdx -Force
        $before = (Get-FileHash same.vhdx).Hash
        Optimize-DiskImage same.vhdx -WhatIf -PassThru | Should -BeNullOrEmpty
        (Get-FileHash same.vhdx).Hash | Should -Be $before
    }

    It 'goes on after a bad item, and says which format lacks it' {
        $null = Convert-DiskImage disk.raw last.vhdx -Force
        'nowhere.vhdx', 'disk.raw', 'last.vhdx' | Optimize-DiskImage -ErrorAction SilentlyContinue -ErrorVariable problems
        $problems.FullyQualifiedErrorId -replace ',.*' | Should -Be 'DiskImageNotFound', 'DiskImageUnsupported'
        $problems[1].ToString() | Should -Match "format 'raw'"
    }
}

Describe 'Optimize-DiskImage, interrupted' {
    It 'by Ctrl+C leaves a sound image that reads the same' {
        New-NoiseFile "$folder/slow.raw" 128 162
        $null = Convert-DiskImage slow.raw slow.qcow2 -ClusterSize 512
        Write-DiskImage slow.qcow2 0 ([byte[]]::new(48MB))
        $hash = (Get-DiskImageHash slow.qcow2).Hash
        $before = (Get-Item slow.qcow2).Length
        [IO.File]::SetLastWriteTimeUtc("$folder/slow.qcow2", '2001-01-01')
        $stopped = Invoke-Interrupted Optimize-DiskImage @{ Path = "$folder/slow.qcow2" } { [IO.File]::GetLastWriteTimeUtc("$folder/slow.qcow2").Year -gt 2001 }
        $stopped.State | Should -Be 'Stopped'
        $stopped.Errors | Should -BeNullOrEmpty
        Test-Released "$folder/slow.qcow2" | Should -BeTrue
        Invoke-Qemu qemu-img check -q slow.qcow2
        (Get-DiskImageHash slow.qcow2).Hash | Should -Be $hash

        # And it can be finished.
        Optimize-DiskImage slow.qcow2
        (Get-Item slow.qcow2).Length | Should -BeLessOrEqual ($before - 48MB)
        (Get-DiskImageHash slow.qcow2).Hash | Should -Be $hash
        Remove-Item slow.*
    }
}
