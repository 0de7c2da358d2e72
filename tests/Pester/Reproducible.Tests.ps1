BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    $folder = Join-Path $TestDrive 'reproducible'
    $null = New-Item $folder -ItemType Directory
    Push-Location $folder
    $null = New-TestDisk "$folder/disk.raw" -Size 40MB -Seed 321
    $given = $env:SOURCE_DATE_EPOCH
}

AfterAll {
    $env:SOURCE_DATE_EPOCH = $given
    Pop-Location
}

Describe 'SOURCE_DATE_EPOCH' {
    BeforeEach { $env:SOURCE_DATE_EPOCH = '1700000000' }

    It 'makes the same bytes of the same work: <Name> <Option>' -ForEach @(
        @{ Name = 'disk.vhd'; Option = @{} }
        @{ Name = 'disk.vhd'; Option = @{ subformat = 'fixed' } }
        @{ Name = 'disk.vhdx'; Option = @{} }
        @{ Name = 'disk.vhdx'; Option = @{ subformat = 'fixed' } }
        @{ Name = 'disk.vhdx'; Option = @{ block_size = '1M'; log_size = '2M' } }
        @{ Name = 'disk.vdi'; Option = @{} }
    ) {
        $hashes = foreach ($i in 1..3) {
            $null = Convert-DiskImage disk.raw $Name -Option $Option -Force
            (Get-FileHash $Name).Hash
            $null = New-DiskImage "new-$Name" 10MB -Option $Option -Force
            Write-DiskImage "new-$Name" 1MB (1..200)
            Write-DiskImage "new-$Name" 3MB (1..200)
            (Get-FileHash "new-$Name").Hash
        }
        $hashes | Select-Object -Unique | Should -HaveCount 2
    }

    It 'makes the same bytes of the same chain: <_>' -ForEach 'vhd', 'vhdx' {
        $hashes = foreach ($i in 1..2) {
            $null = Convert-DiskImage disk.raw "base.$_" -Force
            $null = New-DiskImage "child.$_" -BackingPath "base.$_" -Force
            Write-DiskImage "child.$_" 5MB (1..200)
            (Get-FileHash "child.$_").Hash
            $null = Merge-DiskImage "child.$_" -Force
            (Get-FileHash "base.$_").Hash
        }
        $hashes | Select-Object -Unique | Should -HaveCount 2
    }

    It 'is the time that a VHD records' {
        $info = New-DiskImage time.vhd 10MB
        $info.FormatSpecific.Created.ToUniversalTime() | Should -Be ([DateTime] '2023-11-14 22:13:20')
        $info.FormatSpecific.UniqueId.Version | Should -Be 8
    }

    It 'gives another time and another size other identities' {
        $ids = @((New-DiskImage a.vhd 10MB).FormatSpecific.UniqueId; (New-DiskImage b.vhd 11MB).FormatSpecific.UniqueId)
        $env:SOURCE_DATE_EPOCH = '1700000001'
        $ids += (New-DiskImage c.vhd 10MB).FormatSpecific.UniqueId
        $ids | Select-Object -Unique | Should -HaveCount 3
    }

    It 'changes what a child knows its parent by, as ever' {
        $before = (New-DiskImage base2.vhdx 10MB).FormatSpecific.DataWriteGuid
        $null = New-DiskImage child2.vhdx -BackingPath base2.vhdx
        Write-DiskImage base2.vhdx 0 (1..9)
        (Get-DiskImageInfo base2.vhdx).FormatSpecific.DataWriteGuid | Should -Not -Be $before
        { Read-DiskImage child2.vhdx 0 9 -ErrorAction Stop } | Should -Throw '*DataWriteGuid*'
    }

    It 'must be a number: <_>' -ForEach 'vhd', 'vhdx' {
        $env:SOURCE_DATE_EPOCH = 'yesterday'
        { New-DiskImage "bad.$_" 10MB -ErrorAction Stop } | Should -Throw "*SOURCE_DATE_EPOCH is 'yesterday'*" -ErrorId 'DiskImageInvalidOption,*'
        "bad.$_" | Should -Not -Exist
    }
}

Describe 'Without SOURCE_DATE_EPOCH' {
    BeforeEach { $env:SOURCE_DATE_EPOCH = $null }

    It 'identities are random' {
        $ids = foreach ($name in 'r1.vhd', 'r2.vhd') { (New-DiskImage $name 10MB).FormatSpecific.UniqueId }
        $facts = foreach ($name in 'r1.vhdx', 'r2.vhdx') { (New-DiskImage $name 10MB).FormatSpecific }
        @($ids; $facts.VirtualDiskId; $facts.DataWriteGuid) | Select-Object -Unique | Should -HaveCount 6
    }

    It 'or as they are given' {
        $id = [guid] 'a1b2c3d4-0001-4002-8003-000000000004'
        (New-DiskImage given.vhd 10MB -Option @{ unique_id = "$id" }).FormatSpecific.UniqueId | Should -Be $id
        (New-DiskImage given.vhdx 10MB -VirtualDiskId "$id").FormatSpecific.VirtualDiskId | Should -Be $id
        { New-DiskImage no.vhd 10MB -UniqueId nonsense -ErrorAction Stop } | Should -Throw '*unique_id=nonsense*' -ErrorId 'DiskImageInvalidOption,*'
        { New-DiskImage no.vhdx -BackingPath given.vhdx -VirtualDiskId "$id" -ErrorAction Stop } | Should -Throw '*has the identity of its parent*' -ErrorId 'DiskImageInvalidOption,*'
        Get-ChildItem no.* | Should -BeNullOrEmpty
    }
}
