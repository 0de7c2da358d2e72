BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    $folder = Join-Path $TestDrive 'copy'
    $null = New-Item $folder -ItemType Directory
    Push-Location $folder
    $null = New-TestDisk "$folder/disk.raw" -Size 1MB -Seed 171
    $null = Convert-DiskImage disk.raw disk.qcow2
    $bytes = [IO.File]::ReadAllBytes("$folder/disk.raw")
}

AfterAll { Pop-Location }

Describe 'Copy-DiskImage' {
    It 'refuses a file that the source is made of, by way of a linked folder' {
        Skip-OnWine 'symbolic links'
        $null = New-DiskImage top.qcow2 -BackingPath disk.qcow2
        $null = New-Item linked -ItemType SymbolicLink -Target $folder
        foreach ($target in 'linked/top.qcow2', 'linked/disk.qcow2') {
            { Copy-DiskImage top.qcow2 $target -Force -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageInvalidOption,*'
        }

        Invoke-Qemu qemu-img compare -q disk.raw top.qcow2
        Remove-Item linked, top.qcow2
    }

    It 'copies what qemu-img dd copies: <Theirs>' -ForEach @(
        @{ Theirs = , 'bs=512'; Ours = @{} }
        @{ Theirs = 'bs=64k', 'skip=3'; Ours = @{ BlockSize = '64k'; Skip = 3 } }
        @{ Theirs = 'bs=1536', 'count=77'; Ours = @{ BlockSize = 1536; Count = 77 } }
        @{ Theirs = 'bs=512', 'count=99999'; Ours = @{ Count = 99999 } }
    ) {
        $null = Invoke-Qemu qemu-img dd -f qcow2 -O raw @Theirs if=disk.qcow2 of=theirs.raw
        $info = Copy-DiskImage disk.qcow2 ours.raw @Ours -Force
        $info | Should -BeOfType DiskImage.PowerShell.DiskImageInfo
        (Get-FileHash ours.raw).Hash | Should -Be (Get-FileHash theirs.raw).Hash
        Remove-Item theirs.raw
    }

    It 'counts from where it skipped to' {
        $null = Copy-DiskImage disk.qcow2 part.raw -BlockSize 1000 -Skip 5 -Count 7 -Force
        [Convert]::ToHexString([IO.File]::ReadAllBytes("$folder/part.raw")) | Should -Be ([Convert]::ToHexString($bytes[5000..11999]))
    }

    It 'makes an image of another format with its options' {
        $info = Copy-DiskImage disk.raw part.qcow2 -BlockSize 64k -Skip 1 -Count 4 -ClusterSize 4k -Force
        $info.VirtualSize | Should -Be 256KB
        $info.ClusterSize | Should -Be 4096
        $info.Statistics | Should -Not -BeNullOrEmpty
        Invoke-Qemu qemu-img check -q part.qcow2
    }

    It 'copies nothing from the very end, and refuses to go past it' {
        (Copy-DiskImage disk.raw end.raw -BlockSize 1MB -Skip 1 -Force).VirtualSize | Should -Be 0
        { Copy-DiskImage disk.raw past.raw -BlockSize 1MB -Skip 2 -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageOutOfRange,*'
        Get-ChildItem past* | Should -BeNullOrEmpty
    }

    It 'refuses an existing file and the source itself' {
        Set-Content taken.raw x
        { Copy-DiskImage disk.raw taken.raw -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageAlreadyExists,*'
        { Copy-DiskImage disk.raw disk.raw -Force -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageInvalidOption,*'
        (Get-Item disk.raw).Length | Should -Be 1MB
    }

    It 'makes nothing with -WhatIf' {
        Copy-DiskImage disk.raw new.raw -WhatIf | Should -BeNullOrEmpty
        Get-ChildItem new* | Should -BeNullOrEmpty
    }

    It 'goes on after a bad item' {
        $made = 'nowhere.raw', 'disk.raw' | Copy-DiskImage -Destination piped.raw -Force -ErrorAction SilentlyContinue -ErrorVariable problems
        @($made).Count | Should -Be 1
        $problems.FullyQualifiedErrorId | Should -BeLike 'DiskImageNotFound,*'
    }
}
