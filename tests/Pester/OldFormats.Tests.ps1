BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    Push-Location (Join-Path ([IO.Path]::GetTempPath()) (New-Item -ItemType Directory (Join-Path ([IO.Path]::GetTempPath()) "diskimage-old-$([guid]::NewGuid())")).Name)
    $folder = $PWD.Path
    $null = New-TestDisk (Join-Path $folder disk.raw) 4MB 7
    $hash = (Get-DiskImageHash disk.raw -Format raw).Hash

    # A cloop image by the published layout: blocks of 64 KiB.
    function New-TestCloop ($Source, $Path) {
        $bytes = [IO.File]::ReadAllBytes((Join-Path $folder $Source))
        $blocks = $bytes.Length / 65536
        $stream = [IO.MemoryStream]::new()
        $text = [Text.Encoding]::ASCII.GetBytes("#!/bin/sh`n#V2.0 Format`nmodprobe cloop file=`$0 && mount -r -t iso9660 /dev/cloop `$1`n")
        $head = [byte[]]::new(136 + 8 * ($blocks + 1))
        $text.CopyTo($head, 0)
        $number = { param ($value, $size) $b = [BitConverter]::GetBytes([long] $value); [array]::Reverse($b); , $b[(8 - $size)..7] }
        (& $number 65536 4).CopyTo($head, 128)
        (& $number $blocks 4).CopyTo($head, 132)
        $stream.Write($head)
        for ($i = 0; $i -le $blocks; $i++) {
            (& $number $stream.Length 8).CopyTo($head, 136 + 8 * $i)
            if ($i -lt $blocks) {
                $zlib = [IO.Compression.ZLibStream]::new($stream, [IO.Compression.CompressionLevel]::Fastest, $true)
                $zlib.Write($bytes, $i * 65536, 65536)
                $zlib.Dispose()
            }
        }
        $stream.Position = 0
        $stream.Write($head)
        [IO.File]::WriteAllBytes((Join-Path $folder $Path), $stream.ToArray())
    }

    # A DMG of one zlib chunk a mebibyte.
    function New-TestDmg ($Source, $Path) {
        $bytes = [IO.File]::ReadAllBytes((Join-Path $folder $Source))
        $count = $bytes.Length / 1MB
        $put = { param ($target, $at, $value, $size) $b = [BitConverter]::GetBytes([long] $value); [array]::Reverse($b); $b[(8 - $size)..7].CopyTo($target, $at) }
        $table = [byte[]]::new(204 + 40 * ($count + 1))
        [Text.Encoding]::ASCII.GetBytes('mish').CopyTo($table, 0)
        & $put $table 16 ($bytes.Length / 512) 8
        & $put $table 200 ($count + 1) 4
        $data = [IO.MemoryStream]::new()
        for ($i = 0; $i -lt $count; $i++) {
            $start = $data.Length
            $zlib = [IO.Compression.ZLibStream]::new($data, [IO.Compression.CompressionLevel]::Fastest, $true)
            $zlib.Write($bytes, $i * 1MB, 1MB)
            $zlib.Dispose()
            & $put $table (204 + 40 * $i) 0x80000005L 4
            & $put $table (204 + 40 * $i + 8) ($i * 2048) 8
            & $put $table (204 + 40 * $i + 16) 2048 8
            & $put $table (204 + 40 * $i + 24) $start 8
            & $put $table (204 + 40 * $i + 32) ($data.Length - $start) 8
        }
        & $put $table (204 + 40 * $count) 0xFFFFFFFFL 4
        $list = [Text.Encoding]::UTF8.GetBytes('<?xml version="1.0"?><!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd"><plist><dict><key>resource-fork</key><dict><key>blkx</key><array><dict><key>Name</key><string>whole disk</string><key>Data</key><data>' +
            [Convert]::ToBase64String($table) + '</data></dict></array></dict></dict></plist>')
        $trailer = [byte[]]::new(512)
        [Text.Encoding]::ASCII.GetBytes('koly').CopyTo($trailer, 0)
        & $put $trailer 4 4 4
        & $put $trailer 8 512 4
        & $put $trailer 32 $data.Length 8
        & $put $trailer 216 $data.Length 8
        & $put $trailer 224 $list.Length 8
        & $put $trailer 492 ($bytes.Length / 512) 8
        [IO.File]::WriteAllBytes((Join-Path $folder $Path), $data.ToArray() + $list + $trailer)
    }

    New-TestCloop disk.raw a.cloop
    New-TestDmg disk.raw a.dmg
    foreach ($format in 'qed', 'qcow', 'bochs') {
        $null = Convert-DiskImage disk.raw "a.$format" -Format raw
    }
}

AfterAll {
    Pop-Location
    Remove-Item $folder -Recurse -Force
}

Describe 'Formats of old disks' {
    It 'knows <_> by its contents, converts it and shows what it is' -ForEach 'qed', 'qcow', 'bochs', 'cloop', 'dmg' {
        Copy-Item "a.$_" "$_.any"
        $info = Get-DiskImageInfo "$_.any"
        $info.Format | Should -Be $_
        $info.VirtualSize | Should -Be 4MB
        $info.FormatSpecific.GetType().Namespace | Should -BeLike 'DiskImage.Formats.*'
        $info.FormatSpecific | Format-List | Out-String | Should -Match ':'
        ($info | ConvertTo-Json -Depth 5 | ConvertFrom-Json).FormatSpecific | Should -Not -BeNullOrEmpty
        (Get-DiskImageHash "$_.any").Hash | Should -Be $hash
        (Test-DiskImage "$_.any").IsConsistent | Should -BeTrue
        $null = Convert-DiskImage "$_.any" "$_.qcow2" -Verify
        (Get-DiskImageHash "$_.qcow2").Hash | Should -Be $hash
        (Compare-DiskImage "$_.any" disk.raw -DifferenceFormat raw).Identical | Should -BeTrue
        (Get-DiskImageMap "$_.any" | Measure-Object Length -Sum).Sum | Should -Be 4MB
    }

    It 'says that <_> is read-only, and what can be done instead' -ForEach 'cloop', 'dmg' {
        { Write-DiskImage "a.$_" 0 (1, 2) -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageReadOnly,*' -ExpectedMessage '*Convert-DiskImage*'
        { Repair-DiskImage "a.$_" -Mode All -Confirm:$false -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageUnsupported,*'
        { New-DiskImage "new.$_" 1MB -Format $_ -ErrorAction Stop } | Should -Throw
        Test-Path "new.$_" | Should -BeFalse
    }

    It 'puts an overlay on a read-only image' {
        $null = New-DiskImage over.qcow2 -BackingPath a.dmg -BackingFormat dmg
        $null = Write-DiskImage over.qcow2 512 (1, 2, 3)
        @(Read-DiskImage over.qcow2 512 3).ForEach{ $_ } | Should -Be 1, 2, 3
        (Get-DiskImageInfo over.qcow2 -BackingChain).Count | Should -Be 2
    }

    It 'makes, writes, grows and merges <_>' -ForEach 'qed', 'qcow' {
        $null = New-DiskImage "base.$_" 2MB -Format $_
        $null = New-DiskImage "top.$_" -Format $_ -BackingPath "base.$_" -BackingFormat $_
        $null = Write-DiskImage "top.$_" 70000 (1..200)
        Resize-DiskImage "base.$_" 3MB
        $null = Merge-DiskImage "top.$_" -Confirm:$false
        @(Read-DiskImage "base.$_" 70000 200).ForEach{ $_ } | Should -Be (1..200)
        (Measure-DiskImage "base.$_" -DestinationFormat $_).Required | Should -BeGreaterThan 0
    }

    It 'compresses qcow to the same bytes' {
        $null = Convert-DiskImage disk.raw one.qcow -Format raw -Compress
        $null = Convert-DiskImage disk.raw two.qcow -Format raw -Compress
        (Get-FileHash one.qcow).Hash | Should -Be (Get-FileHash two.qcow).Hash
        (Get-Item one.qcow).Length | Should -BeLessThan (Get-Item a.qcow).Length
        (Get-DiskImageHash one.qcow).Hash | Should -Be $hash
    }

    It 'opens an undoable redolog over the image that is named' {
        $bytes = [IO.File]::ReadAllBytes((Join-Path $folder a.bochs))[0..(511 + 4 * [BitConverter]::ToInt32([IO.File]::ReadAllBytes((Join-Path $folder a.bochs)), 72))]
        [Text.Encoding]::ASCII.GetBytes("Undoable`0").CopyTo($bytes, 48)
        for ($i = 512; $i -lt $bytes.Length; $i++) { $bytes[$i] = 0xFF }
        [IO.File]::WriteAllBytes((Join-Path $folder disk.raw.redolog), [byte[]] $bytes)
        { Get-DiskImageHash disk.raw.redolog -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageInvalidOption,*' -ExpectedMessage '*base=disk.raw*'
        (Get-DiskImageHash 'json:{"driver":"bochs","base":"disk.raw","base-fmt":"raw","file.filename":"disk.raw.redolog"}').Hash | Should -Be $hash
        (Get-DiskImageHash disk.raw.redolog -ImageOption @{ backing = @{ driver = 'raw'; file = @{ filename = 'disk.raw' } } }).Hash | Should -Be $hash
    }
}
