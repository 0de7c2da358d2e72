BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    . "$PSScriptRoot/Interrupt.ps1"
    $folder = Join-Path $TestDrive 'read'
    $null = New-Item $folder -ItemType Directory
    Push-Location $folder
    $null = New-TestDisk "$folder/disk.raw" -Size 2MB -Seed 41
    $null = Convert-DiskImage disk.raw disk.qcow2 -Compress
    $expected = [IO.File]::ReadAllBytes("$folder/disk.raw")
}

AfterAll { Pop-Location }

Describe 'Read-DiskImage' {
    It 'returns <Length> bytes at <Offset> of raw and qcow2 as one array' -ForEach @(
        @{ Offset = 0; Length = 512 }
        @{ Offset = 65535; Length = 2 }
        @{ Offset = '1M'; Length = '64k' }
        @{ Offset = 2MB - 1; Length = 1 }
        @{ Offset = 2MB; Length = 0 }
        @{ Offset = 0; Length = 2MB }
    ) {
        foreach ($name in 'disk.raw', 'disk.qcow2') {
            $bytes = Read-DiskImage $name $Offset $Length
            $bytes -is [byte[]] | Should -BeTrue
            $from = [int]($Offset -eq '1M' ? 1MB : $Offset)
            $count = [int]($Length -eq '64k' ? 64KB : $Length)
            [Linq.Enumerable]::SequenceEqual([byte[]]$bytes, [byte[]][ArraySegment[byte]]::new($expected, $from, $count).ToArray()) | Should -BeTrue
        }
    }

    It 'refuses what lies outside the disk: <Offset>, <Length>' -ForEach @(
        @{ Offset = 2MB; Length = 1 }
        @{ Offset = 2MB - 1; Length = 2 }
        @{ Offset = [long]::MaxValue; Length = 512 }
        @{ Offset = 0; Length = [long]::MaxValue }
        @{ Offset = 0; Length = 2GB }
    ) {
        { Read-DiskImage disk.qcow2 $Offset $Length -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageOutOfRange,*'
    }

    It 'refuses negative numbers' {
        { Read-DiskImage disk.raw -1 1 } | Should -Throw -ErrorId 'Parameter*,DiskImage.PowerShell.ReadDiskImageCommand'
        { Read-DiskImage disk.raw 0 -1 } | Should -Throw -ErrorId 'Parameter*,DiskImage.PowerShell.ReadDiskImageCommand'
    }

    It 'returns one array per item of a pipeline and goes on after a bad one' {
        $arrays = @('disk.raw', 'nowhere.raw', 'disk.qcow2' | Read-DiskImage -Offset 0 -Length 16 -ErrorAction SilentlyContinue -ErrorVariable problems)
        $arrays.Count | Should -Be 2
        $arrays[0] | Should -Be $arrays[1]
        Format-Error $problems | Should -Be 'DiskImageNotFound ObjectNotFound'
        @(Read-DiskImage disk* 0 1).Count | Should -Be 2
    }

    It 'goes into Format-Hex' {
        (Read-DiskImage disk.raw 0 32 | Format-Hex).Count | Should -Be 2
    }

    It 'lets go of the image at Ctrl+C' {
        $stopped = Invoke-Interrupted Read-DiskImage @{ Path = "$folder/disk.qcow2"; Offset = 0; Length = 2MB }
        $stopped.Errors | Should -BeNullOrEmpty
        Test-Released "$folder/disk.qcow2" | Should -BeTrue
    }
}
