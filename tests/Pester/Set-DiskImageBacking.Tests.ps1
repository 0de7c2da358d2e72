BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    . "$PSScriptRoot/Interrupt.ps1"
    $folder = Join-Path $TestDrive 'backing'
    $null = New-Item $folder -ItemType Directory
    Push-Location $folder
}

AfterAll { Pop-Location }

Describe 'Set-DiskImageBacking' {
    BeforeEach {
        Remove-Item * -Recurse
        $null = New-TestDisk "$folder/base.raw" -Size 1MB -Seed 131
        $null = New-TestDisk "$folder/other.raw" -Size 2MB -Seed 132
        $null = Convert-DiskImage base.raw base.qcow2
        $null = New-DiskImage top.qcow2 -BackingPath base.qcow2 -Size 1500k
        Write-DiskImage top.qcow2 60000 (, 172 * 70000)
        $null = Convert-DiskImage top.qcow2 expected.raw
    }

    It 'changes the backing image and not what the disk reads as' {
        Set-DiskImageBacking top.qcow2 -BackingPath other.raw | Should -BeNullOrEmpty
        $info = Get-DiskImageInfo top.qcow2
        $info.BackingFile | Should -Be 'other.raw'
        $info.BackingFormat | Should -Be 'raw'
        Invoke-Qemu qemu-img check -q top.qcow2
        Invoke-Qemu qemu-img compare -q expected.raw top.qcow2
    }

    It 'does not put an image on itself by way of <Name>' -ForEach @(
        @{ Name = 'a linked folder'; Backing = 'linked/top.qcow2' }
        @{ Name = 'a hard link'; Backing = 'hard.qcow2' }
        @{ Name = 'what stands on it'; Backing = 'linked/upper.qcow2' }
    ) {
        Skip-OnWine 'symbolic links'
        $null = New-DiskImage upper.qcow2 -BackingPath top.qcow2
        $null = New-Item linked -ItemType SymbolicLink -Target $folder
        $null = New-Item hard.qcow2 -ItemType HardLink -Target "$folder/top.qcow2"
        foreach ($more in @{}, @{ Unsafe = $true }) {
            { Set-DiskImageBacking top.qcow2 $Backing @more -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageInvalidOption,*'
        }

        Remove-Item linked
        Invoke-Qemu qemu-img compare -q expected.raw top.qcow2
    }

    It 'takes a PSDrive, and says where a relative name was looked for' {
        $null = New-PSDrive -Name images -PSProvider FileSystem -Root $folder
        (Set-DiskImageBacking top.qcow2 images:/other.raw -PassThru).BackingFile | Should -Be (Join-Path $folder "other.raw")
        $null = New-Item sub -ItemType Directory
        Copy-Item other.raw sub/near.raw
        Push-Location sub
        try {
            { Set-DiskImageBacking ../top.qcow2 near.raw -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageNotFound,*' -ExpectedMessage "*current folder*'sub/near.raw'*"
        } finally {
            Pop-Location
        }
    }

    It 'makes the image stand alone with an empty path: <Title>' -ForEach @{ Title = 'plain'; More = @{} }, @{ Title = 'compressed'; More = @{ Compress = $true } } {
        $info = Set-DiskImageBacking top.qcow2 '' -PassThru @More
        $info | Should -BeOfType DiskImage.PowerShell.DiskImageInfo
        $info.BackingFile | Should -BeNullOrEmpty
        Remove-Item base.qcow2
        Invoke-Qemu qemu-img check -q top.qcow2
        Invoke-Qemu qemu-img compare -q expected.raw top.qcow2
        @(Get-DiskImageMap top.qcow2 | Where-Object Compressed).Count -gt 0 | Should -Be ($More.Count -gt 0)
    }

    It 'gives a backing image to one that had none' {
        $null = Convert-DiskImage expected.raw alone.qcow2
        Set-DiskImageBacking alone.qcow2 base.raw
        (Get-DiskImageInfo alone.qcow2).BackingFile | Should -Be 'base.raw'
        Invoke-Qemu qemu-img compare -q expected.raw alone.qcow2
    }

    It 'changes only the name with -Unsafe' {
        $null = New-Item moved -ItemType Directory
        Move-Item base.qcow2 moved/base.qcow2
        Set-DiskImageBacking top.qcow2 moved/base.qcow2 -Unsafe
        (Get-DiskImageInfo top.qcow2).BackingFile | Should -Be 'moved/base.qcow2'
        Invoke-Qemu qemu-img check -q top.qcow2
        Invoke-Qemu qemu-img compare -q expected.raw top.qcow2
    }

    It 'names what is not there only with -Unsafe and -BackingFormat' {
        $before = (Get-FileHash top.qcow2).Hash
        { Set-DiskImageBacking top.qcow2 gone.qcow2 -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageNotFound,*'
        { Set-DiskImageBacking top.qcow2 gone.qcow2 -BackingFormat qcow2 -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageNotFound,*'
        { Set-DiskImageBacking top.qcow2 gone.qcow2 -Unsafe -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageNotFound,*'
        (Get-FileHash top.qcow2).Hash | Should -Be $before
        $info = Set-DiskImageBacking top.qcow2 gone.qcow2 -Unsafe -BackingFormat qcow2 -PassThru
        $info.BackingFile, $info.BackingFormat | Should -Be 'gone.qcow2', 'qcow2'
    }

    It 'refuses a chain that leads back: <_>' -ForEach 'top.qcow2', 'over.qcow2', 'link.qcow2' {
        $null = New-DiskImage over.qcow2 -BackingPath top.qcow2
        if ($_ -eq 'link.qcow2') {
            $null = New-Item link.qcow2 -ItemType SymbolicLink -Value "$folder/top.qcow2" -ErrorAction SilentlyContinue
            if (-not (Test-Path link.qcow2)) {
                Skip-OnWine 'symbolic links'
                Set-ItResult -Skipped -Because 'links cannot be made here'
            }
        }

        $before = (Get-FileHash top.qcow2).Hash
        foreach ($unsafe in $false, $true) {
            { Set-DiskImageBacking top.qcow2 $_ -Unsafe:$unsafe -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageInvalidOption,*'
        }

        (Get-FileHash top.qcow2).Hash | Should -Be $before
    }

    It 'warns if snapshots stand on the backing image too' {
        $null = New-DiskImageSnapshot top.qcow2 kept
        Set-DiskImageBacking top.qcow2 other.raw -WarningVariable warnings -WarningAction SilentlyContinue
        $warnings | Should -Match 'snapshots'
        Invoke-Qemu qemu-img compare -q expected.raw top.qcow2
    }

    It 'changes nothing with -WhatIf' {
        $before = (Get-FileHash top.qcow2).Hash
        Set-DiskImageBacking top.qcow2 other.raw -WhatIf
        Set-DiskImageBacking top.qcow2 '' -Unsafe -WhatIf
        (Get-FileHash top.qcow2).Hash | Should -Be $before
    }

    It 'goes on after a bad item' {
        'nowhere.qcow2', 'base.raw', 'top.qcow2' | Set-DiskImageBacking -BackingPath other.raw -ErrorAction SilentlyContinue -ErrorVariable problems
        $problems.FullyQualifiedErrorId -replace ',.*' | Should -Be 'DiskImageNotFound', 'DiskImageUnsupported'
        (Get-DiskImageInfo top.qcow2).BackingFile | Should -Be 'other.raw'
    }
}

Describe 'Set-DiskImageBacking, interrupted' {
    It 'by Ctrl+C leaves the old backing image, and the disk reading the same' {
        Remove-Item * -Recurse
        New-NoiseFile "$folder/old.raw" 128 133
        New-NoiseFile "$folder/new.raw" 128 134
        $null = New-DiskImage top.qcow2 -BackingPath old.raw -ClusterSize 512
        $stopped = Invoke-Interrupted Set-DiskImageBacking @{ Path = "$folder/top.qcow2"; BackingPath = 'new.raw' } $UnderWay
        $stopped.State | Should -Be 'Stopped'
        $stopped.Errors | Should -BeNullOrEmpty
        Test-Released "$folder/top.qcow2" | Should -BeTrue
        (Get-DiskImageInfo top.qcow2).BackingFile | Should -Be 'old.raw'
        Invoke-Qemu qemu-img check -q top.qcow2
        Invoke-Qemu qemu-img compare -q old.raw top.qcow2
        Set-DiskImageBacking top.qcow2 -BackingPath new.raw
        (Get-DiskImageInfo top.qcow2).BackingFile | Should -Be 'new.raw'
        Invoke-Qemu qemu-img compare -q old.raw top.qcow2
        Remove-Item *
    }
}
