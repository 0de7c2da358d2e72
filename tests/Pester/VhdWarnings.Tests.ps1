BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    $folder = Join-Path $TestDrive 'vhdwarnings'
    $null = New-Item $folder -ItemType Directory
    Push-Location $folder
    $null = New-TestDisk "$folder/disk.raw" -Size 4MB -Seed 331

    # Changes a VHD's current size in every footer, checksum included, as a program that means the geometry leaves it.
    function Set-CurrentSize([string] $Path, [long] $Size) {
        $bytes = [IO.File]::ReadAllBytes("$folder/$Path")
        $cookie = [Text.Encoding]::ASCII.GetBytes('conectix')
        foreach ($at in 0, ($bytes.Length - 512)) {
            if (Compare-Object $bytes[$at..($at + 7)] $cookie -SyncWindow 0) { continue }
            $big = [BitConverter]::GetBytes($Size)
            [Array]::Reverse($big)
            $big.CopyTo($bytes, $at + 48)
            [byte[]]::new(4).CopyTo($bytes, $at + 64)
            $sum = 0L
            foreach ($byte in $bytes[$at..($at + 511)]) { $sum += $byte }
            $check = [BitConverter]::GetBytes([uint] (0xFFFFFFFFL - $sum))
            [Array]::Reverse($check)
            $check.CopyTo($bytes, $at + 64)
        }
        [IO.File]::WriteAllBytes("$folder/$Path", $bytes)
    }
}

AfterAll { Pop-Location }

Describe 'A VHD that tells two sizes: <_>' -ForEach 'dynamic', 'fixed' {
    BeforeEach {
        $size = (New-DiskImage two.vhd 4MB -Option "subformat=$_,force_size=off" -Force).VirtualSize
        Set-CurrentSize two.vhd ($size - 8704)
    }

    It 'warns when it is read' {
        foreach ($read in @('Get-DiskImageInfo', @{}), @('Read-DiskImage', @{ Offset = 0; Length = 512 }), @('Convert-DiskImage', @{ Destination = 'out.raw'; Force = $true })) {
            $command, $given = $read
            $null = & $command two.vhd -Format vpc @given -WarningVariable warnings -WarningAction SilentlyContinue
            @($warnings) | Should -HaveCount 1
            $warnings | Should -Match "tells two sizes, $($size.ToString('#,0', [cultureinfo]::InvariantCulture)) bytes by the geometry"
        }
        (Get-Item out.raw).Length | Should -Be $size
    }

    It 'does not where the user says which counts' {
        (Get-DiskImageInfo two.vhd -Format vpc -OpenOption force_size_calc=current_size -WarningVariable warnings).VirtualSize | Should -Be ($size - 8704)
        $warnings | Should -BeNullOrEmpty
    }

    It 'has a finding, not a warning, when it is tested' {
        (Test-DiskImage two.vhd -Format vpc -WarningVariable warnings).Findings.Kind | Should -Be 'SizesDiffer'
        $warnings | Should -BeNullOrEmpty
    }
}

Describe 'A VHD with a footer of 511 bytes' {
    It 'has a finding' {
        $null = Convert-DiskImage disk.raw short.vhd -Fixed -Force
        $bytes = [IO.File]::ReadAllBytes("$folder/short.vhd")
        [IO.File]::WriteAllBytes("$folder/short.vhd", $bytes[0..($bytes.Length - 2)])
        $finding = (Test-DiskImage short.vhd).Findings
        $finding.Kind | Should -Be 'FooterShort'
        $finding.Severity | Should -Be 'Warning'
    }
}

Describe 'A VHD on a raw disk, as XenServer makes them' {
    BeforeEach {
        $null = New-DiskImage base.vhd 4MB -Force
        $null = New-DiskImage child.vhd -BackingPath base.vhd -Force
    }

    It 'is put there with a warning, and warns whenever it is read' {
        Set-DiskImageBacking child.vhd disk.raw -BackingFormat raw -Unsafe -WarningVariable warnings -WarningAction SilentlyContinue
        $warnings | Should -Match 'raw disk disk.raw, which has no identity'
        (Compare-DiskImage child.vhd disk.raw -WarningVariable warnings -WarningAction SilentlyContinue).Identical | Should -BeTrue
        @($warnings) | Should -HaveCount 1
        $warnings | Should -Match "raw disk $([regex]::Escape("$folder$([IO.Path]::DirectorySeparatorChar)disk.raw")), which has no identity"
        (Get-DiskImageInfo child.vhd -WarningAction SilentlyContinue).BackingFormat | Should -Be 'raw'
        (Get-Item disk.raw).LastWriteTime = [DateTime]::new(2020, 1, 1)
        $null = Read-DiskImage child.vhd 0 9 -WarningVariable warnings -WarningAction SilentlyContinue
        $warnings | Should -Match 'was changed at 2[0-9-]+ [0-9:]+Z, and at 2'
        Test-DiskImage child.vhd -Quiet -WarningAction SilentlyContinue | Should -BeTrue
    }

    It 'can be put there with its contents kept, and back on a VHD' {
        Write-DiskImage base.vhd 1MB (1..99)
        Set-DiskImageBacking child.vhd disk.raw -BackingFormat raw -IgnoreIdMismatch -WarningAction SilentlyContinue
        (Compare-DiskImage child.vhd base.vhd -WarningAction SilentlyContinue).Identical | Should -BeTrue
        Set-DiskImageBacking child.vhd base.vhd -WarningAction SilentlyContinue
        (Compare-DiskImage child.vhd base.vhd -WarningVariable warnings).Identical | Should -BeTrue
        $warnings | Should -BeNullOrEmpty
    }

    It 'is not made anew' {
        { New-DiskImage new.vhd -BackingPath disk.raw -BackingFormat raw -ErrorAction Stop } | Should -Throw '*only a VHD can be the parent*'
        'new.vhd' | Should -Not -Exist
    }
}

Describe 'What a conversion cannot keep' {
    It 'sectors of 4096 bytes: <_>' -ForEach 'out.vhd', 'out.raw' {
        $null = New-DiskImage large.vhdx 4MB -LogicalSectorSize 4096 -Force
        $null = Convert-DiskImage large.vhdx $_ -Force -WarningVariable warnings -WarningAction SilentlyContinue
        $warnings | Should -Match 'its logical sectors had 4096 bytes and have 512 now'
        $null = Convert-DiskImage large.vhdx kept.vhdx -Force -WarningVariable warnings
        $warnings | Should -BeNullOrEmpty
    }

    It 'the exact size' {
        $info = Convert-DiskImage disk.raw round.vhd -Option force_size=off -Force -WarningVariable warnings -WarningAction SilentlyContinue
        $info.VirtualSize | Should -BeGreaterThan 4MB
        $warnings | Should -Match 'bytes now; the source had 4,194,304'
        $null = Convert-DiskImage disk.raw round.vhd -Force -WarningVariable warnings
        $warnings | Should -BeNullOrEmpty
    }

    It 'snapshots and bitmaps' {
        New-TestBitmapDisk $folder
        $null = New-DiskImageSnapshot disk.qcow2 one
        $null = Convert-DiskImage disk.qcow2 out.vhdx -Force -WarningVariable warnings -WarningAction SilentlyContinue
        @($warnings) | Should -HaveCount 2
        $warnings -join "`n" | Should -Match '(?s)1 snapshot inside the source is not copied.*2 dirty bitmaps of the source are not copied'
    }
}

Describe 'A new identity' {
    It 'is warned of, since children know the old one: <Name>' -ForEach @(
        @{ Name = 'id.vhd'; Option = 'unique_id=new' }
        @{ Name = 'id.vhdx'; Option = 'virtual_disk_id=new' }
        @{ Name = 'id.vhdx'; Option = 'physical_sector_size=4096' }
    ) {
        $null = New-DiskImage $Name 4MB -Force
        Set-DiskImageOption $Name -Option $Option -WarningVariable warnings -WarningAction SilentlyContinue
        $warnings | Should -Match 'record its present identity and will refuse it'
    }
}
