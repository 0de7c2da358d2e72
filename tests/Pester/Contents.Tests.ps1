# What a name promises and what a file is.
BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    $folder = Join-Path $TestDrive 'contents'
    $null = New-Item $folder -ItemType Directory
    Push-Location $folder

    function New-TestContents([string] $Name, [byte[]] $Signature, [int] $Offset = 0, [int] $Size = 65536) {
        $bytes = [byte[]]::new($Size)
        $Signature.CopyTo($bytes, $Offset)
        [IO.File]::WriteAllBytes((Join-Path $folder $Name), $bytes)
    }
}

AfterAll { Pop-Location }

Describe 'Files that no driver opens' {
    It 'refuses <Name> by name unless -Format raw' -ForEach @(
        @{ Name = 'a.wim'; Signature = [byte[]][char[]]"MSWIM`0`0`0"; Offset = 0; What = '*Windows image*WIM*' }
        @{ Name = 'b.raw'; Signature = [byte[]][char[]]'sprs'; Offset = 0; What = '*Apple sparse image*' }
        @{ Name = 'e.vmdk'; Signature = [byte[]](1, 0x43, 0x44, 0x30, 0x30, 0x31); Offset = 32768; What = '*ISO 9660*promises vmdk*' }
    ) {
        New-TestContents $Name $Signature $Offset
        foreach ($use in { Convert-DiskImage $Name out.qcow2 -Verify -ErrorAction Stop }, { Get-DiskImageInfo $Name -ErrorAction Stop },
            { Write-DiskImage $Name 0 (1, 2) -ErrorAction Stop }, { New-DiskImage over.qcow2 -BackingPath $Name -ErrorAction Stop }) {
            $use | Should -Throw -ErrorId 'DiskImageUnsupported,*' -ExpectedMessage $What
        }
        Test-Path out.qcow2 | Should -BeFalse
        (Convert-DiskImage $Name out.qcow2 -Format raw -Verify).VirtualSize | Should -Be 65536
        Remove-Item out.qcow2
    }

    It 'knows what qemu-img makes as luks, and wants its secret' {
        $null = Invoke-Qemu qemu-img create -f luks --object 'secret,id=key,data=abc' -o 'key-secret=key,iter-time=10' made.luks.img 4M
        { Convert-DiskImage made.luks.img out.qcow2 -Verify -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageSecretRequired,*'
        Test-Path out.qcow2 | Should -BeFalse
    }

    It 'names an archive and a page for what they are: <Name>' -ForEach @(
        @{ Name = 'a.qcow2'; Signature = [byte[]](0x1F, 0x8B, 8); What = 'a gzip archive, though its name promises qcow2' }
        @{ Name = 'a.img'; Signature = [byte[]](0xFD, 0x37, 0x7A, 0x58, 0x5A, 0); What = 'an xz archive' }
        @{ Name = 'a.vhdx'; Signature = [byte[]][char[]]'<!DOCTYPE html>'; What = 'an HTML page, though its name promises vhdx' }
    ) {
        New-TestContents $Name $Signature
        $before = (Get-FileHash $Name).Hash
        (Get-DiskImageInfo $Name -WarningVariable warned -WarningAction Ignore).Format | Should -Be 'raw'
        "$warned" | Should -BeLike "*${Name}: is $What*-Format raw*"
        { Write-DiskImage $Name 0 (1, 2) -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageInvalidFormat,*' -ExpectedMessage "*is $What; it is not changed*"
        { Resize-DiskImage $Name 1MB -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageInvalidFormat,*'
        (Get-FileHash $Name).Hash | Should -Be $before
        Get-DiskImageInfo $Name -Format raw -WarningVariable warned
        $warned | Should -BeNullOrEmpty
        Write-DiskImage $Name 0 (1, 2) -Format raw
    }

    It 'does not change empty and text files with an image''s name' {
        $null = New-Item empty.qcow2
        Set-Content text.vhd hello
        { Resize-DiskImage empty.qcow2 1MB -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageInvalidFormat,*' -ExpectedMessage '*is an empty file, though its name promises qcow2*'
        { Resize-DiskImage text.vhd 1MB -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageInvalidFormat,*' -ExpectedMessage '*is text, though its name promises vpc*'
        (Get-Item empty.qcow2).Length | Should -Be 0
    }

    It 'does not make a disk of a text file' {
        Set-Content notes.txt hello
        $length = (Get-Item notes.txt).Length
        { Resize-DiskImage notes.txt 1GB -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageInvalidFormat,*' -ExpectedMessage '*notes.txt: is text and has neither a partition table*-Format raw*'
        { Resize-DiskImage notes.txt 1GB -WhatIf -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageInvalidFormat,*'
        (Get-Item notes.txt).Length | Should -Be $length
        Resize-DiskImage notes.txt 1MB -Format raw
        (Get-Item notes.txt).Length | Should -Be 1MB
    }

    It 'changes raw disks by their ending or partition table: <_>' -ForEach 'a.raw', 'a.img', 'a.bin', 'a.dd', 'a.iso', 'a.ima', 'a.flp', 'a.vfd', 'partitioned' {
        New-TestContents $_ ([byte[]](0x55, 0xAA)) -Offset $(if ($_ -eq 'partitioned') { 510 } else { 0 })
        Resize-DiskImage $_ 1MB -WarningVariable warned
        $warned | Should -BeNullOrEmpty
        (Get-Item $_).Length | Should -Be 1MB
    }

    It 'says what a file is that is not of the format that was named' {
        $null = New-DiskImage real.qcow2 1MB
        { Get-DiskImageInfo real.qcow2 -Format vhdx -ErrorAction Stop } |
            Should -Throw -ErrorId 'DiskImageInvalidFormat,*' -ExpectedMessage '*is not a vhdx image; it looks like a qcow2 image. Give -Format qcow2, or leave it out.*'
        { Compare-DiskImage real.qcow2 real.qcow2 -DifferenceFormat vpc -ErrorAction Stop } | Should -Throw -ExpectedMessage '*-DifferenceFormat qcow2*'
        Set-Content text.txt hello
        { Get-DiskImageInfo text.txt -Format qcow2 -ErrorAction Stop } | Should -Throw -ExpectedMessage '*is not a qcow2 image; it looks like text.*'
    }

    It 'says of a size that it is too large: <Line>' -ForEach @(
        @{ Line = 'New-DiskImage big.raw 8EB' }, @{ Line = 'New-DiskImage big.raw 8192PB' }, @{ Line = 'Resize-DiskImage real.qcow2 8EB' }, @{ Line = 'Resize-DiskImage real.qcow2 +16E' }
    ) {
        { Invoke-Expression "$Line -ErrorAction Stop" } | Should -Throw -ExpectedMessage '*is too large: a size is at most 9,223,372,036,854,775,807 bytes*'
        { New-DiskImage big.raw 10Q -ErrorAction Stop } | Should -Throw -ExpectedMessage '*not a size*k, M, G, T, P, E*'
    }

    It 'takes options in any dictionary' {
        $options = [Collections.Generic.Dictionary[string, object]]::new()
        $options['cluster_size'] = '4k'
        (New-DiskImage any.qcow2 1MB -Option $options).ClusterSize | Should -Be 4KB
        $expando = [Dynamic.ExpandoObject]::new()
        $expando.cluster_size = 8KB
        (New-DiskImage any.qcow2 1MB -Option $expando -Force).ClusterSize | Should -Be 8KB
        (New-DiskImage any.qcow2 1MB -Option ([ordered]@{ cluster_size = 16KB }) -Force).ClusterSize | Should -Be 16KB
    }
}
