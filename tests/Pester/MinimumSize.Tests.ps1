BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    $folder = Join-Path $TestDrive 'minimum'
    $null = New-Item $folder -ItemType Directory
    Push-Location $folder

    function Set-Number([byte[]] $Bytes, [int] $At, [ulong] $Value, [int] $Width) {
        [BitConverter]::GetBytes($Value)[0..($Width - 1)].CopyTo($Bytes, $At)
    }

    # A raw disk of 16 MiB with an MBR partition from 1 MiB to 3 MiB, some data in it and some behind it.
    function New-MbrDisk([string] $Path) {
        $bytes = [byte[]]::new(16MB)
        $data = [byte[]]::new(2MB)
        [Random]::new(5).NextBytes($data)
        $data.CopyTo($bytes, 1MB)
        Set-Number $bytes 450 0x83 1
        Set-Number $bytes 454 2048 4
        Set-Number $bytes 458 4096 4
        $bytes[510], $bytes[511] = 0x55, 0xAA
        $bytes[10MB] = 1
        [IO.File]::WriteAllBytes("$folder/$Path", $bytes)
    }

    # CRC-32, by its definition.
    function Get-Crc([byte[]] $Bytes) {
        [uint] $crc = [uint]::MaxValue
        foreach ($byte in $Bytes) {
            $crc = $crc -bxor $byte
            for ($i = 0; $i -lt 8; $i++) {
                $crc = $crc -band 1 ? ($crc -shr 1) -bxor 0xEDB88320u : $crc -shr 1
            }
        }
        $crc -bxor [uint]::MaxValue
    }

    # The same with a GPT of four entries in sectors of 512 bytes; its one partition goes from 1 MiB to 3 MiB.
    function New-GptDisk([string] $Path) {
        if (Test-Path gpt.made) { Copy-Item gpt.made $Path; return }
        $bytes = [byte[]]::new(16MB)
        $data = [byte[]]::new(2MB)
        [Random]::new(6).NextBytes($data)
        $data.CopyTo($bytes, 1MB)
        Set-Number $bytes 450 0xEE 1
        Set-Number $bytes 454 1 4
        Set-Number $bytes 458 32767 4
        $bytes[510], $bytes[511] = 0x55, 0xAA
        $entries = [byte[]]::new(512)
        [guid]::new('0FC63DAF-8483-4772-8E79-3D69D8477DE4').ToByteArray().CopyTo($entries, 0)
        $entries[16] = 1
        Set-Number $entries 32 2048 8
        Set-Number $entries 40 6143 8
        foreach ($place in @{ Mine = 1; Other = 32767; Entries = 2 }, @{ Mine = 32767; Other = 1; Entries = 32766 }) {
            $header = [byte[]]::new(92)
            [Text.Encoding]::ASCII.GetBytes('EFI PART').CopyTo($header, 0)
            Set-Number $header 8 0x10000 4
            Set-Number $header 12 92 4
            Set-Number $header 24 $place.Mine 8
            Set-Number $header 32 $place.Other 8
            Set-Number $header 40 3 8
            Set-Number $header 48 32765 8
            Set-Number $header 72 $place.Entries 8
            Set-Number $header 80 4 4
            Set-Number $header 84 128 4
            Set-Number $header 88 (Get-Crc $entries) 4
            Set-Number $header 16 (Get-Crc $header) 4
            $header.CopyTo($bytes, 512 * $place.Mine)
            $entries.CopyTo($bytes, 512 * $place.Entries)
        }
        [IO.File]::WriteAllBytes("$folder/gpt.made", $bytes)
        [IO.File]::WriteAllBytes("$folder/$Path", $bytes)
    }
}

AfterAll { Pop-Location }

Describe 'Resize-DiskImage -ToMinimumSize' {
    It 'cuts behind the last partition of an MBR: <_>' -ForEach 'disk.raw', 'disk.qcow2', 'disk.vhd', 'disk.vhdx', 'disk.vdi' {
        New-MbrDisk source.raw
        $null = Convert-DiskImage source.raw $_ -Force
        (Get-DiskImageInfo $_).MinimumSize | Should -Be 3MB
        (Resize-DiskImage $_ -ToMinimumSize -Confirm:$false -PassThru).VirtualSize | Should -Be 3MB
        $copy = [byte[]]::new(3MB)
        [Array]::Copy([IO.File]::ReadAllBytes("$folder/source.raw"), $copy, 3MB)
        [IO.File]::WriteAllBytes("$folder/cut.raw", $copy)
        (Compare-DiskImage $_ cut.raw).Identical | Should -BeTrue
        Resize-DiskImage $_ -ToMinimumSize # is that small already: asks nothing
    }

    It 'moves the copy of a GPT: <_>' -ForEach 'disk.raw', 'disk.qcow2', 'disk.vhd', 'disk.vhdx' {
        New-GptDisk source.raw
        $null = Convert-DiskImage source.raw $_ -Force
        $info = Resize-DiskImage $_ -ToMinimumSize -Confirm:$false -PassThru -WarningVariable warnings
        $warnings | Should -BeNullOrEmpty
        $info.VirtualSize | Should -Be (3MB + 1024)
        $info.MinimumSize | Should -Be (3MB + 1024)
        [Text.Encoding]::ASCII.GetString((Read-DiskImage $_ (3MB + 512) 8)) | Should -Be 'EFI PART'
        [BitConverter]::ToUInt64((Read-DiskImage $_ 544 8)) | Should -Be 6145
        [Convert]::ToHexString((Read-DiskImage $_ 1MB 2MB)) | Should -Be ([Convert]::ToHexString((Read-DiskImage source.raw 1MB 2MB)))
    }

    It 'reads the table through a backing image' {
        New-MbrDisk source.raw
        $null = Convert-DiskImage source.raw base.vhdx -Force
        $null = New-DiskImage child.vhdx -BackingPath base.vhdx -Force
        (Get-DiskImageInfo child.vhdx).MinimumSize | Should -BeNullOrEmpty
        (Get-DiskImageInfo child.vhdx -BackingChain)[0].MinimumSize | Should -Be 3MB
        (Resize-DiskImage child.vhdx -ToMinimumSize -Confirm:$false -PassThru).VirtualSize | Should -Be 3MB
        (Get-DiskImageInfo base.vhdx).VirtualSize | Should -Be 16MB
    }

    It 'needs a partition table' {
        $null = New-DiskImage empty.vhdx 16MB -Force
        (Get-DiskImageInfo empty.vhdx).MinimumSize | Should -BeNullOrEmpty
        { Resize-DiskImage empty.vhdx -ToMinimumSize -Confirm:$false -ErrorAction Stop } | Should -Throw '*no partition table*' -ErrorId 'DiskImageUnsupported,*'
        (Get-DiskImageInfo empty.vhdx).VirtualSize | Should -Be 16MB
    }

    It 'is one size, and needs one' {
        New-MbrDisk source.raw
        { Resize-DiskImage source.raw 4MB -ToMinimumSize -ErrorAction Stop } | Should -Throw '*Give one of them*' -ErrorId 'DiskImageInvalidOption,*'
        { Resize-DiskImage source.raw -ErrorAction Stop } | Should -Throw '*Give -Size, or -ToMinimumSize*' -ErrorId 'DiskImageInvalidOption,*'
        (Get-Item source.raw).Length | Should -Be 16MB
    }

    It 'asks first' {
        New-MbrDisk source.raw
        $before = (Get-FileHash source.raw).Hash
        $fresh = Invoke-FreshPwsh "Import-Module '$ModuleManifest'; Resize-DiskImage '$folder/source.raw' -ToMinimumSize"
        $fresh.Output + $fresh.Error | Should -Match 'NonInteractive'
        Resize-DiskImage source.raw -ToMinimumSize -WhatIf
        (Get-FileHash source.raw).Hash | Should -Be $before
    }

    It 'is what -Shrink warns of where it cuts off the copy of a GPT' {
        New-GptDisk source.raw
        Resize-DiskImage source.raw 8MB -Shrink -Confirm:$false -WarningVariable warnings -WarningAction SilentlyContinue
        $warnings | Should -Match 'copy of its partition table \(GPT\)'
        New-MbrDisk source.raw
        Resize-DiskImage source.raw 8MB -Shrink -Confirm:$false -WarningVariable warnings
        $warnings | Should -BeNullOrEmpty
    }
}

Describe 'FragmentationPercentage' {
    It 'is the share of blocks that do not follow the one before: <_>' -ForEach 'frag.vhd', 'frag.vhdx' {
        $null = New-DiskImage $_ 8MB -BlockSize 1MB -Force
        $data = [byte[]]::new(1MB)
        [Array]::Fill($data, [byte] 1)
        (Get-DiskImageInfo $_).FragmentationPercentage | Should -Be 0
        foreach ($block in 0, 1, 2) { Write-DiskImage $_ ($block * 1MB) $data }
        (Get-DiskImageInfo $_).FragmentationPercentage | Should -Be 0
        foreach ($block in 7, 5) { Write-DiskImage $_ ($block * 1MB) $data }
        (Get-DiskImageInfo $_).FragmentationPercentage | Should -Be 40 # 5 lies behind 7, and 7 before 5
    }

    It 'is null where nothing tells' {
        $null = New-DiskImage none.qcow2 1MB
        (Get-DiskImageInfo none.qcow2).FragmentationPercentage | Should -BeNullOrEmpty
    }
}
