BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    $folder = Join-Path $TestDrive 'option'
    $null = New-Item $folder -ItemType Directory
    Push-Location $folder
}

AfterAll { Pop-Location }

Describe 'Set-DiskImageOption' {
    It 'says what else changes <Option>' -ForEach @(
        @{ Option = 'cluster_size=4k'; Way = 'Convert-DiskImage' }
        @{ Option = 'backing_file=other.qcow2'; Way = 'Set-DiskImageBacking' }
    ) {
        $null = New-DiskImage fixed.qcow2 1MB -Force
        { Set-DiskImageOption fixed.qcow2 -Option $Option -ErrorAction Stop } |
            Should -Throw -ErrorId 'DiskImageInvalidOption,*' -ExpectedMessage "*'$($Option -replace '=.*')' cannot be changed in place; $Way *Can be changed: compat,*"
    }

    BeforeEach {
        $null = New-TestDisk "$folder/disk.raw" -Size 1MB -Seed 151
        $null = Convert-DiskImage disk.raw disk.qcow2 -Force
    }

    It 'takes options as <Title>' -ForEach @(
        @{ Title = 'text'; Given = @{ Option = 'lazy_refcounts=on,refcount_bits=64' } }
        @{ Title = 'dictionary'; Given = @{ Option = @{ lazy_refcounts = $true; refcount_bits = 64 } } }
        @{ Title = 'parameters'; Given = @{ LazyRefcounts = $true; RefcountBits = 64 } }
    ) {
        Set-DiskImageOption disk.qcow2 @Given | Should -BeNullOrEmpty
        $info = Get-DiskImageInfo disk.qcow2
        $info.FormatSpecific.LazyRefcounts | Should -BeTrue
        $info.FormatSpecific.RefcountBits | Should -Be 64
        Invoke-Qemu qemu-img check -q disk.qcow2
        Invoke-Qemu qemu-img compare -q disk.raw disk.qcow2
    }

    It 'lowers the version and raises it again' {
        $info = Set-DiskImageOption disk.qcow2 compat=0.10 -PassThru
        $info | Should -BeOfType DiskImage.PowerShell.DiskImageInfo
        $info.FormatSpecific.Compat | Should -Be '0.10'
        (Invoke-Qemu qemu-img info --output=json disk.qcow2 | Out-String | ConvertFrom-Json).'format-specific'.data.compat | Should -Be '0.10'
        (Set-DiskImageOption disk.qcow2 -Compat 1.1 -PassThru).FormatSpecific.Compat | Should -Be '1.1'
    }

    It 'refuses <Title> and changes nothing' -ForEach @(
        @{ Title = 'no option'; Given = @{} }
        @{ Title = 'an unknown option'; Given = @{ Option = 'cluster_size=4k' } }
        @{ Title = 'a wrong value'; Given = @{ Option = 'refcount_bits=3' } }
        @{ Title = 'an option given twice'; Given = @{ Option = 'refcount_bits=8'; RefcountBits = 8 } }
    ) {
        $before = (Get-FileHash disk.qcow2).Hash
        { Set-DiskImageOption disk.qcow2 @Given -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageInvalidOption,*'
        (Get-FileHash disk.qcow2).Hash | Should -Be $before
    }

    It 'changes nothing with -WhatIf' {
        $before = (Get-FileHash disk.qcow2).Hash
        Set-DiskImageOption disk.qcow2 compat=0.10 -WhatIf
        (Get-FileHash disk.qcow2).Hash | Should -Be $before
    }

    It 'goes on after a bad item' {
        'disk.raw', 'disk.qcow2' | Set-DiskImageOption -Option lazy_refcounts=on -ErrorAction SilentlyContinue -ErrorVariable problems
        $problems.FullyQualifiedErrorId | Should -BeLike 'DiskImageUnsupported,*'
        $problems[0].ToString() | Should -Match "format 'raw'"
        (Get-DiskImageInfo disk.qcow2).FormatSpecific.LazyRefcounts | Should -BeTrue
    }

    It 'completes options and values' {
        $line = 'Set-DiskImageOption disk.qcow2 -Option refc'
        (TabExpansion2 $line $line.Length).CompletionMatches.CompletionText | Should -Be 'refcount_bits='
        $line = 'Set-DiskImageOption disk.qcow2 -Compat '
        (TabExpansion2 $line $line.Length).CompletionMatches.CompletionText | Should -Be '0.10', '1.1'
    }

    It 'gives a <Format> another identity and says what that means for its children' -ForEach @(
        @{ Format = 'vhd'; Parameter = 'UniqueId' }
        @{ Format = 'vhdx'; Parameter = 'VirtualDiskId' }
    ) {
        Remove-Item "*.$Format"
        $null = New-DiskImage "base.$Format" 4MB
        $null = New-DiskImage "child.$Format" -BackingPath "base.$Format"
        $id = [guid]::NewGuid()
        $given = @{ $Parameter = "$id" }
        $info = Set-DiskImageOption "base.$Format" @given -PassThru -WarningVariable warnings -WarningAction SilentlyContinue
        $info.FormatSpecific.$Parameter | Should -Be $id
        $warnings | Should -Match 'will refuse it'
        { Read-DiskImage "child.$Format" 0 512 -ErrorAction Stop } | Should -Throw '*pass -IgnoreIdMismatch*'
        (Read-DiskImage "child.$Format" 0 512 -IgnoreIdMismatch).Length | Should -Be 512
        (Get-DiskImageInfo "child.$Format" -BackingChain -IgnoreIdMismatch).Count | Should -Be 2
        (Compare-DiskImage "base.$Format" "child.$Format" -IgnoreIdMismatch).Identical | Should -BeTrue
        Set-DiskImageBacking "child.$Format" "base.$Format" -Unsafe
        (Read-DiskImage "child.$Format" 0 512).Length | Should -Be 512
    }

    It 'tells a <_> where its parent has gone' -ForEach 'vhd', 'vhdx' {
        Remove-Item "*.$_", sub -Recurse -ErrorAction Ignore
        $null = New-DiskImage "base.$_" 4MB
        Write-DiskImage "base.$_" 0 (, 7 * 512)
        $null = New-DiskImage "child.$_" -BackingPath "base.$_"
        $null = New-Item sub -ItemType Directory
        Move-Item "base.$_" "sub/root.$_"
        { Read-DiskImage "child.$_" 0 512 -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageNotFound,*'
        (Set-DiskImageOption "child.$_" -ParentPath "sub/root.$_" -PassThru).BackingFile | Should -Be (Join-Path sub "root.$_")
        [Linq.Enumerable]::Sum([int[]] (Read-DiskImage "child.$_" 0 512)) | Should -Be (7 * 512)
        { Set-DiskImageOption "sub/root.$_" -ParentPath "x.$_" -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageInvalidOption,*'
    }
}
