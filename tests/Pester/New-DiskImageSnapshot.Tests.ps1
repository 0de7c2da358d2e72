BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    $folder = Join-Path $TestDrive 'new snapshot'
    $null = New-Item $folder -ItemType Directory
    Push-Location $folder
}

AfterAll { Pop-Location }

Describe 'New-DiskImageSnapshot' {
    BeforeEach {
        $null = New-TestDisk "$folder/disk.raw" -Size 1MB -Seed 91
        $null = Convert-DiskImage disk.raw disk.qcow2 -Force
    }

    It 'keeps the present state, and qemu-img and Convert-DiskImage read it' {
        $before = Get-Date
        $taken = New-DiskImageSnapshot disk.qcow2 -Name 'before update'
        $taken | Should -BeOfType DiskImage.PowerShell.DiskImageSnapshot
        $taken.Name | Should -Be 'before update'
        $taken.Date | Should -BeGreaterOrEqual $before.AddSeconds(-1)
        Write-DiskImage disk.qcow2 0 (, 171 * 100000)
        Invoke-Qemu qemu-img check -q disk.qcow2
        $null = Invoke-Qemu qemu-img convert -l 'snapshot.name=before update' -O raw disk.qcow2 theirs.raw
        (Compare-DiskImage disk.raw theirs.raw).Identical | Should -BeTrue
        $null = Convert-DiskImage disk.qcow2 ours.raw -Snapshot 'before update' -Verify -Force
        (Get-FileHash ours.raw).Hash | Should -Be (Get-FileHash disk.raw).Hash
        (Compare-DiskImage disk.raw disk.qcow2).Identical | Should -BeFalse
    }

    It 'takes a name more than once' {
        (1..2 | ForEach-Object { New-DiskImageSnapshot disk.qcow2 same }).Id | Should -Be '1', '2'
    }

    It 'changes nothing with -WhatIf' {
        $before = (Get-FileHash disk.qcow2).Hash
        New-DiskImageSnapshot disk.qcow2 x -WhatIf | Should -BeNullOrEmpty
        (Get-FileHash disk.qcow2).Hash | Should -Be $before
    }

    It 'takes one of each item of a pipeline and goes on after a bad one' {
        $null = New-DiskImage other.qcow2 1MB -Force
        $taken = 'disk.raw', 'other.qcow2', 'nowhere.qcow2', 'disk.qcow2' | New-DiskImageSnapshot -Name x -ErrorAction SilentlyContinue -ErrorVariable problems
        $taken.Path | Split-Path -Leaf | Should -Be 'other.qcow2', 'disk.qcow2'
        $problems.FullyQualifiedErrorId -replace ',.*' | Should -Be 'DiskImageUnsupported', 'DiskImageNotFound'
    }

    It 'leaves an image that is refused a snapshot as it was' {
        $null = Convert-DiskImage disk.raw narrow.qcow2 -RefcountBits 1 -Force
        { New-DiskImageSnapshot narrow.qcow2 x -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageOutOfRange,*'
        Invoke-Qemu qemu-img check -q narrow.qcow2
        (Compare-DiskImage disk.raw narrow.qcow2).Identical | Should -BeTrue
    }
}
