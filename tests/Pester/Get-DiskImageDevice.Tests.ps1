BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    . "$PSScriptRoot/Interrupt.ps1"
    $folder = Join-Path $TestDrive 'device'
    $null = New-Item $folder -ItemType Directory
    Push-Location $folder
    $canLoop = $IsLinux -and (Get-Command losetup -CommandType Application -ErrorAction Ignore) -and (id -u) -eq 0 -and (Test-Path /dev/loop-control)
}

AfterAll { Pop-Location }

Describe 'Get-DiskImageDevice' {
    It 'names what is no disk' {
        Get-DiskImageDevice /dev/null -ErrorAction SilentlyContinue -ErrorVariable problems
        Format-Error $problems | Should -Be 'DiskImageNotFound ObjectNotFound'
    }

    It 'lists a disk, which is read, written to with permission, and converted to and from' {
        if (-not $canLoop) {
            Set-ItResult -Skipped -Because 'loop devices take root on Linux'
            return
        }

        $null = New-TestDisk "$folder/disk.raw" -Size 4MB -Seed 13
        $loop = losetup --find --show disk.raw
        try {
            $disk = Get-DiskImageDevice $loop
            $disk | Should -BeOfType DiskImage.PowerShell.DiskImageDevice
            $disk.Size | Should -Be 4MB
            $disk.Model | Should -BeLike '*disk.raw'
            $disk.Uses | Should -BeNullOrEmpty
            ($disk | Get-DiskImageHash -Format raw).Hash | Should -Be (Get-FileHash disk.raw).Hash
            Write-DiskImage $loop 0 1, 2, 3 -Format raw -ErrorAction SilentlyContinue -ErrorVariable problems
            "$problems" | Should -BeLike '*-AllowDeviceWrite*'
            Write-DiskImage $loop 0 1, 2, 3 -Format raw -AllowDeviceWrite -TemporaryOverlay
            (Get-DiskImageHash $loop -Format raw).Hash | Should -Be (Get-FileHash disk.raw).Hash
            $null = New-TestDisk "$folder/new.raw" -Size 2MB -Seed 14
            $null = Convert-DiskImage new.raw $loop -DestinationFormat raw -AllowDeviceWrite -Verify -WarningVariable warnings -WarningAction SilentlyContinue
            "$warnings" | Should -BeLike '*is longer than the image*2 MiB*'
            $null = Convert-DiskImage $loop back.raw -Format raw -RateLimit 1GB
            [Convert]::ToHexString([IO.File]::ReadAllBytes("$folder/back.raw")[0..1000]) | Should -Be ([Convert]::ToHexString([IO.File]::ReadAllBytes("$folder/new.raw")[0..1000]))
            $null = New-TestDisk "$folder/large.raw" -Size 5MB -Seed 15
            Convert-DiskImage large.raw $loop -DestinationFormat raw -AllowDeviceWrite -ErrorAction SilentlyContinue -ErrorVariable problems
            "$problems" | Should -BeLike '*cannot become longer*'
        } finally {
            losetup --detach $loop
        }
    }
}
