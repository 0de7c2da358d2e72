BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    . "$PSScriptRoot/Interrupt.ps1"
    $folder = Join-Path $TestDrive 'write'
    $null = New-Item $folder -ItemType Directory
    Push-Location $folder
}

AfterAll { Pop-Location }

Describe 'Write-DiskImage' {
    BeforeEach {
        $null = New-TestDisk "$folder/disk.raw" -Size 1MB -Seed 51
        $null = Convert-DiskImage disk.raw disk.qcow2 -Compress -Force
    }

    It 'changes the bytes it is given and no others' {
        $bytes = [byte[]](1..200)
        Write-DiskImage disk.qcow2 65500 $bytes | Should -BeNullOrEmpty
        Write-DiskImage disk.raw 65500 $bytes
        (Read-DiskImage disk.qcow2 65500 200) | Should -Be $bytes
        (Compare-DiskImage disk.raw disk.qcow2).Identical | Should -BeTrue
        Invoke-Qemu qemu-img check -q disk.qcow2
        Invoke-Qemu qemu-img compare -q disk.raw disk.qcow2
    }

    It 'writes what qemu-io reads' {
        Write-DiskImage disk.qcow2 -Offset 512k -Bytes (, 171 * 4096)
        Invoke-Qemu qemu-io -c 'read -P 171 512k 4k' disk.qcow2 | Should -Contain 'read 4096/4096 bytes at offset 524288'
    }

    It 'does not touch the backing image' {
        $before = (Get-FileHash disk.raw).Hash
        $null = New-DiskImage top.qcow2 -BackingPath disk.raw -Force
        Write-DiskImage top.qcow2 0 1, 2, 3
        (Get-FileHash disk.raw).Hash | Should -Be $before
        (Read-DiskImage top.qcow2 0 3) | Should -Be 1, 2, 3
    }

    It 'writes nothing past the end: offset <_>' -ForEach 1MB, (1MB - 1), ([long]::MaxValue) {
        $before = (Get-FileHash disk.raw).Hash
        { Write-DiskImage disk.raw $_ 1, 2 -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageOutOfRange,*'
        (Get-FileHash disk.raw).Hash | Should -Be $before
    }

    It 'changes nothing with -WhatIf' {
        $before = (Get-FileHash disk.qcow2).Hash
        Write-DiskImage disk.qcow2 0 1, 2, 3 -WhatIf
        (Get-FileHash disk.qcow2).Hash | Should -Be $before
    }

    It 'writes to each item of a pipeline and goes on after a bad one' {
        'disk.raw', 'nowhere.raw', 'disk.qcow2' | Write-DiskImage -Offset 10 -Bytes 7 -ErrorAction SilentlyContinue -ErrorVariable problems
        Format-Error $problems | Should -Be 'DiskImageNotFound ObjectNotFound'
        (Read-DiskImage disk.raw 10 1)[0] | Should -Be 7
        (Read-DiskImage disk.qcow2 10 1)[0] | Should -Be 7
        Write-DiskImage disk* 11 8
        (Read-DiskImage disk.qcow2 11 1)[0] | Should -Be 8
    }

    It 'refuses a file that somebody else uses' {
        $used = [IO.File]::Open("$folder/disk.raw", 'Open', 'Read', 'Read')
        try {
            { Write-DiskImage disk.raw 0 1 -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageLocked,*'
        } finally {
            $used.Dispose()
        }
    }

    It 'refuses a file without permission to write' {
        Skip-OnWindows 'file modes'
        if ([Environment]::UserName -eq 'root') {
            Set-ItResult -Skipped -Because 'root may write to every file'
        }

        & chmod 444 disk.raw
        try {
            { Write-DiskImage disk.raw 0 1 -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageAccessDenied,*'
        } finally {
            & chmod 644 disk.raw
        }
    }

    It 'leaves a good image at Ctrl+C' {
        $null = Invoke-Interrupted Write-DiskImage @{ Path = "$folder/disk.qcow2"; Offset = 0; Bytes = [byte[]]::new(1MB) }
        Test-DiskImage disk.qcow2 -Quiet | Should -BeTrue
        Test-Released "$folder/disk.qcow2" | Should -BeTrue
    }
}
