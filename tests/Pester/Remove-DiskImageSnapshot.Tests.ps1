BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    $folder = Join-Path $TestDrive 'remove snapshot'
    $null = New-Item $folder -ItemType Directory
    Push-Location $folder
}

AfterAll { Pop-Location }

Describe 'Remove-DiskImageSnapshot' {
    BeforeEach {
        $null = New-TestDisk "$folder/disk.raw" -Size 1MB -Seed 111
        $null = Convert-DiskImage disk.raw disk.qcow2 -Force
        foreach ($taken in 'installed', 'trial 1', 'trial 2', '2') {
            $null = New-DiskImageSnapshot disk.qcow2 $taken
        }
    }

    It 'removes by <Title>' -ForEach @(
        @{ Title = 'name'; Name = 'installed'; Left = 'trial 1', 'trial 2', '2' }
        @{ Title = 'pattern'; Name = 'trial*'; Left = 'installed', '2' }
        @{ Title = 'identifier'; Name = '3'; Left = 'installed', 'trial 1', '2' }
        @{ Title = 'name before identifier'; Name = '2'; Left = 'installed', 'trial 1', 'trial 2' }
        @{ Title = 'list'; Name = 'installed', 'trial*'; Left = , '2' }
    ) {
        Remove-DiskImageSnapshot -Confirm:$false disk.qcow2 -Name $Name | Should -BeNullOrEmpty
        @((Get-DiskImageSnapshot disk.qcow2).Name) | Should -Be $Left
        Invoke-Qemu qemu-img check -q disk.qcow2
        (Compare-DiskImage disk.raw disk.qcow2).Identical | Should -BeTrue
    }

    It 'removes what is piped in, snapshots of one name told apart' {
        $null = New-DiskImageSnapshot disk.qcow2 installed
        Get-DiskImageSnapshot disk.qcow2 | Where-Object Id -In 2, 5 | Remove-DiskImageSnapshot -Confirm:$false
        (Get-DiskImageSnapshot disk.qcow2).Id | Should -Be '1', '3', '4'
        Get-DiskImageSnapshot disk.qcow2 | Remove-DiskImageSnapshot -Confirm:$false
        Get-DiskImageSnapshot disk.qcow2 | Should -BeNullOrEmpty
        Invoke-Qemu qemu-img check -q disk.qcow2
    }

    It 'removes the first of several with one name, as QEMU does' {
        foreach ($name in 'installed', '3') { $null = New-DiskImageSnapshot disk.qcow2 $name }
        Copy-Item disk.qcow2 judge.qcow2
        foreach ($name in 'installed', 'installed', '3') {
            Remove-DiskImageSnapshot -Confirm:$false disk.qcow2 $name
            Invoke-Qemu qemu-img snapshot -d $name judge.qcow2
            (Get-DiskImageSnapshot disk.qcow2).Id | Should -Be (Get-DiskImageSnapshot judge.qcow2).Id
        }
    }

    It 'removes the one that -Id names, though another is called by that number' {
        $null = New-DiskImageSnapshot disk.qcow2 installed # 5
        $null = New-DiskImageSnapshot disk.qcow2 5 # 6
        Remove-DiskImageSnapshot -Confirm:$false disk.qcow2 installed -Id 5
        (Get-DiskImageSnapshot disk.qcow2).Id | Should -Be '1', '2', '3', '4', '6'
        Invoke-Qemu qemu-img check -q disk.qcow2
    }

    It 'changes nothing with -WhatIf, nor if one of the names is not there' {
        $before = (Get-FileHash disk.qcow2).Hash
        Remove-DiskImageSnapshot disk.qcow2 * -WhatIf
        { Remove-DiskImageSnapshot -Confirm:$false disk.qcow2 installed, nope -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageNotFound,*'
        Remove-DiskImageSnapshot -Confirm:$false disk.qcow2 'no*'
        (Get-FileHash disk.qcow2).Hash | Should -Be $before
    }

    It 'goes on after a bad item' {
        'disk.raw', 'disk.qcow2' | Remove-DiskImageSnapshot -Confirm:$false -Name * -ErrorAction SilentlyContinue -ErrorVariable problems
        $problems.FullyQualifiedErrorId | Should -BeLike 'DiskImageUnsupported,*'
        Get-DiskImageSnapshot disk.qcow2 | Should -BeNullOrEmpty
    }

    It 'asks unless it is told not to' {
        $before = (Get-FileHash disk.qcow2).Hash
        $fresh = Invoke-FreshPwsh "Import-Module '$ModuleManifest'; Remove-DiskImageSnapshot '$folder/disk.qcow2' installed"
        $fresh.Error | Should -Match 'NonInteractive'
        (Get-FileHash disk.qcow2).Hash | Should -Be $before
        $fresh = Invoke-FreshPwsh "Import-Module '$ModuleManifest'; `$ConfirmPreference = 'None'; Remove-DiskImageSnapshot '$folder/disk.qcow2' installed"
        $fresh.Error | Should -BeNullOrEmpty
        (Get-FileHash disk.qcow2).Hash | Should -Not -Be $before
    }
}
