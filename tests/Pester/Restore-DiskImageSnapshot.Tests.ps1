BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    $folder = Join-Path $TestDrive 'restore snapshot'
    $null = New-Item $folder -ItemType Directory
    Push-Location $folder
}

AfterAll { Pop-Location }

Describe 'Restore-DiskImageSnapshot' {
    BeforeEach {
        $null = New-TestDisk "$folder/disk.raw" -Size 1MB -Seed 101
        $null = Convert-DiskImage disk.raw disk.qcow2 -Force
        $null = New-DiskImageSnapshot disk.qcow2 first
        Write-DiskImage disk.qcow2 0 (, 171 * 100000)
    }

    It 'goes back, and the snapshot stays' {
        Restore-DiskImageSnapshot -Confirm:$false disk.qcow2 -Name first | Should -BeNullOrEmpty
        (Compare-DiskImage disk.raw disk.qcow2).Identical | Should -BeTrue
        (Get-DiskImageSnapshot disk.qcow2).Name | Should -Be 'first'
        Invoke-Qemu qemu-img check -q disk.qcow2
        Invoke-Qemu qemu-img compare -q disk.raw disk.qcow2
    }

    It 'goes back in size too' {
        Resize-DiskImage disk.qcow2 3M
        (Restore-DiskImageSnapshot -Confirm:$false disk.qcow2 first -PassThru).VirtualSize | Should -Be 1MB
    }

    It 'tells snapshots of one name apart when they are piped in' {
        $null = New-DiskImageSnapshot disk.qcow2 first
        Write-DiskImage disk.qcow2 0 (, 7 * 100)
        Get-DiskImageSnapshot disk.qcow2 | Select-Object -Last 1 | Restore-DiskImageSnapshot -Confirm:$false
        (Read-DiskImage disk.qcow2 0 1)[0] | Should -Be 171
        Restore-DiskImageSnapshot -Confirm:$false disk.qcow2 1
        (Compare-DiskImage disk.raw disk.qcow2).Identical | Should -BeTrue
    }

    It 'changes nothing with -WhatIf, nor without such a snapshot' {
        $before = (Get-FileHash disk.qcow2).Hash
        Restore-DiskImageSnapshot disk.qcow2 first -WhatIf
        { Restore-DiskImageSnapshot -Confirm:$false disk.qcow2 nope -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageNotFound,*'
        { Restore-DiskImageSnapshot -Confirm:$false disk.qcow2 'fir*' -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageNotFound,*'
        (Get-FileHash disk.qcow2).Hash | Should -Be $before
    }

    It 'goes on after a bad item' {
        'disk.raw', 'disk.qcow2' | Restore-DiskImageSnapshot -Confirm:$false -Name first -ErrorAction SilentlyContinue -ErrorVariable problems
        $problems.FullyQualifiedErrorId | Should -BeLike 'DiskImageUnsupported,*'
        (Compare-DiskImage disk.raw disk.qcow2).Identical | Should -BeTrue
    }

    It 'asks unless it is told not to' {
        $before = (Get-FileHash disk.qcow2).Hash
        $fresh = Invoke-FreshPwsh "Import-Module '$ModuleManifest'; Restore-DiskImageSnapshot '$folder/disk.qcow2' first"
        $fresh.Error | Should -Match 'NonInteractive'
        (Get-FileHash disk.qcow2).Hash | Should -Be $before
        $fresh = Invoke-FreshPwsh "Import-Module '$ModuleManifest'; `$ConfirmPreference = 'None'; Restore-DiskImageSnapshot '$folder/disk.qcow2' first"
        $fresh.Error | Should -BeNullOrEmpty
        (Get-FileHash disk.qcow2).Hash | Should -Not -Be $before
    }
}
