BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    . "$PSScriptRoot/Interrupt.ps1"
    $folder = Join-Path $TestDrive 'merge'
    $null = New-Item $folder -ItemType Directory
    Push-Location $folder
}

AfterAll { Pop-Location }

Describe 'Merge-DiskImage' {
    BeforeEach {
        Remove-Item * -Recurse
        $null = New-TestDisk "$folder/base.raw" -Size 1MB -Seed 121
        $null = Convert-DiskImage base.raw base.qcow2
        $null = New-DiskImage mid.qcow2 -BackingPath base.qcow2
        $null = New-DiskImage top.qcow2 -BackingPath mid.qcow2 -Size 2MB
        Write-DiskImage mid.qcow2 10000 (, 171 * 70000)
        Write-DiskImage top.qcow2 60000 (, 172 * 70000)
        Write-DiskImage top.qcow2 1500k (, 173 * 1000)
        $null = Convert-DiskImage top.qcow2 expected.raw
    }

    It 'knows the base by way of <Name>' -ForEach @{ Name = 'a linked folder' }, @{ Name = 'a hard link' } {
        Skip-OnWine 'symbolic links'
        $null = New-Item linked -ItemType SymbolicLink -Target $folder
        $null = New-Item hard.qcow2 -ItemType HardLink -Target "$folder/base.qcow2"
        $base = $Name -eq 'a hard link' ? 'hard.qcow2' : 'linked/base.qcow2'
        (Merge-DiskImage top.qcow2 $base -KeepTop -Confirm:$false -WarningAction SilentlyContinue).Path | Should -Be (Join-Path $folder "base.qcow2")
        Invoke-Qemu qemu-img compare -q expected.raw base.qcow2
        Remove-Item linked
    }

    It 'merges into the backing image, which grows, and empties the image' {
        $info = Merge-DiskImage -Confirm:$false top.qcow2
        $info | Should -BeOfType DiskImage.PowerShell.DiskImageInfo
        $info.Path | Should -Be (Join-Path $folder "mid.qcow2")
        $info.VirtualSize | Should -Be 2MB
        foreach ($image in 'mid.qcow2', 'top.qcow2') {
            Invoke-Qemu qemu-img check -q $image
            Invoke-Qemu qemu-img compare -q expected.raw $image
        }

        Get-DiskImageMap top.qcow2 | Where-Object { $_.Depth -eq 0 -and $_.Present } | Should -BeNullOrEmpty
    }

    It 'leaves the image as it is with -KeepTop' {
        $before = (Get-FileHash top.qcow2).Hash
        $null = Merge-DiskImage -Confirm:$false top.qcow2 -KeepTop
        (Get-FileHash top.qcow2).Hash | Should -Be $before
        Invoke-Qemu qemu-img compare -q expected.raw mid.qcow2
    }

    It 'merges down to -BasePath as qemu-img commit -b does' {
        $null = New-Item theirs -ItemType Directory
        Copy-Item *.qcow2 theirs
        $null = Invoke-Qemu qemu-img commit -q -b base.qcow2 theirs/top.qcow2
        $top = (Get-FileHash top.qcow2).Hash
        $mid = (Get-FileHash mid.qcow2).Hash
        $info = Merge-DiskImage -Confirm:$false top.qcow2 -BasePath base.qcow2 -WarningVariable warnings -WarningAction SilentlyContinue
        $info.Path | Should -Be (Join-Path $folder "base.qcow2")
        $warnings | Should -Match 'mid\.qcow2'
        (Get-FileHash top.qcow2).Hash | Should -Be $top
        (Get-FileHash mid.qcow2).Hash | Should -Be $mid
        Invoke-Qemu qemu-img check -q base.qcow2
        Invoke-Qemu qemu-img compare -q expected.raw base.qcow2
        Invoke-Qemu qemu-img compare -q theirs/base.qcow2 base.qcow2
        Invoke-Qemu qemu-img compare -q expected.raw top.qcow2
    }

    It 'finds the base by its name beside the image too' {
        Push-Location $TestDrive
        try {
            (Merge-DiskImage -Confirm:$false merge/top.qcow2 -BasePath mid.qcow2).Path | Should -Be (Join-Path $folder "mid.qcow2")
        } finally {
            Pop-Location
        }
    }

    It 'keeps a chain of <_> disks whole, which record the state of what they stand on' -ForEach 'vhd', 'vhdx' {
        $null = Convert-DiskImage base.raw "base.$_"
        $null = New-DiskImage "mid.$_" -BackingPath "base.$_"
        Write-DiskImage "mid.$_" 10000 (, 171 * 70000)
        $null = New-DiskImage "top.$_" -BackingPath "mid.$_"
        Write-DiskImage "top.$_" 60000 (, 172 * 70000)
        $hash = (Get-DiskImageHash "top.$_").Hash
        (Merge-DiskImage -Confirm:$false "top.$_").Path | Should -Be (Join-Path $folder "mid.$_")
        (Get-DiskImageHash "mid.$_", "top.$_").Hash | Should -Be $hash, $hash
        Write-DiskImage "top.$_" 500000 (, 173 * 70000)
        $hash = (Get-DiskImageHash "top.$_").Hash
        $null = Merge-DiskImage -Confirm:$false "top.$_" -BasePath "base.$_" -WarningAction SilentlyContinue
        (Get-DiskImageHash "base.$_", "top.$_").Hash | Should -Be $hash, $hash
        Set-DiskImageBacking "top.$_" "base.$_"
        (Get-DiskImageHash "top.$_").Hash | Should -Be $hash
        Test-DiskImage "base.$_", "top.$_" -Quiet | Should -Be $true, $true
    }

    It 'leaves a <_> disk whole that stands on the one that is merged' -ForEach 'vhd', 'vhdx' {
        $null = Convert-DiskImage base.raw "base.$_"
        $null = New-DiskImage "mid.$_" -BackingPath "base.$_"
        Write-DiskImage "mid.$_" 10000 (, 171 * 70000)
        $null = New-DiskImage "top.$_" -BackingPath "mid.$_"
        Write-DiskImage "top.$_" 60000 (, 172 * 70000)
        $hash = (Get-DiskImageHash "top.$_").Hash
        $null = Merge-DiskImage -Confirm:$false "mid.$_"
        Test-DiskImage "top.$_", "mid.$_", "base.$_" -Quiet | Should -Be $true, $true, $true
        (Get-DiskImageHash "top.$_").Hash | Should -Be $hash
        Set-DiskImageBacking "top.$_" "base.$_"
        Remove-Item "mid.$_"
        (Get-DiskImageHash "top.$_").Hash | Should -Be $hash
    }

    It 'merges into a raw base' {
        $null = New-DiskImage over.qcow2 -BackingPath base.raw
        Write-DiskImage over.qcow2 100000 (, 174 * 1000)
        $hash = (Get-DiskImageHash over.qcow2).Hash
        (Merge-DiskImage -Confirm:$false over.qcow2).Format | Should -Be 'raw'
        (Get-FileHash base.raw).Hash | Should -Be $hash
        (Get-DiskImageHash over.qcow2).Hash | Should -Be $hash
    }

    It 'removes the merged images with -Delete' {
        $null = Merge-DiskImage top.qcow2 -BasePath base.qcow2 -Delete -Force
        Get-ChildItem *.qcow2 -Name | Should -Be 'base.qcow2'
        Invoke-Qemu qemu-img compare -q expected.raw base.qcow2
    }

    It 'asks before it changes anything: <_>' -ForEach '', '-Delete', '-Delete -Force -Confirm' {
        $before = (Get-FileHash *.qcow2).Hash
        $fresh = Invoke-FreshPwsh "Import-Module '$ModuleManifest'; Merge-DiskImage '$folder/top.qcow2' -BasePath '$folder/base.qcow2' $_"
        $fresh.Error | Should -Match 'NonInteractive'
        (Get-FileHash *.qcow2).Hash | Should -Be $before
    }

    It 'does not ask: <_>' -ForEach '-Confirm:$false', '-Force', '-Delete -Force', '-Delete -Confirm:$false' {
        $fresh = Invoke-FreshPwsh "Import-Module '$ModuleManifest'; Merge-DiskImage '$folder/top.qcow2' $_"
        $fresh.Error | Should -BeNullOrEmpty
        Invoke-Qemu qemu-img compare -q expected.raw mid.qcow2
        Test-Path top.qcow2 | Should -Be ($_ -notlike '-Delete*')
    }

    It 'takes the name that Merge-VHD has for the base' {
        (Merge-DiskImage top.qcow2 -DestinationPath base.qcow2 -Force -WarningAction SilentlyContinue).Path | Should -Be (Join-Path $folder "base.qcow2")
    }

    It 'changes nothing with -WhatIf' {
        $before = (Get-FileHash *.qcow2).Hash
        Merge-DiskImage top.qcow2 -WhatIf | Should -BeNullOrEmpty
        Merge-DiskImage top.qcow2 -BasePath base.qcow2 -Delete -Force -WhatIf
        (Get-FileHash *.qcow2).Hash | Should -Be $before
    }

    It 'refuses <Title>' -ForEach @(
        @{ Title = 'an image without backing image'; Arguments = @{ Path = 'base.qcow2' } }
        @{ Title = 'a base that is not in the chain'; Arguments = @{ Path = 'top.qcow2'; BasePath = 'base.raw' } }
        @{ Title = 'the image itself as base'; Arguments = @{ Path = 'top.qcow2'; BasePath = 'top.qcow2' } }
        @{ Title = 'contradictions'; Arguments = @{ Path = 'top.qcow2'; KeepTop = $true; Delete = $true } }
    ) {
        $before = (Get-FileHash *.qcow2).Hash
        { Merge-DiskImage -Confirm:$false @Arguments -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageInvalidOption,*'
        (Get-FileHash *.qcow2).Hash | Should -Be $before
    }

    It 'goes on after a bad item' {
        (Get-Item base.qcow2, top.qcow2 | Merge-DiskImage -Confirm:$false -ErrorAction SilentlyContinue -ErrorVariable problems).Path | Should -Be (Join-Path $folder "mid.qcow2")
        $problems.FullyQualifiedErrorId | Should -BeLike 'DiskImageInvalidOption,*'
    }
}

Describe 'Merge-DiskImage, interrupted' {
    It 'by Ctrl+C leaves the image reading the same, to be merged again' {
        Remove-Item * -Recurse
        New-NoiseFile "$folder/slow.raw" 128 122
        $null = New-DiskImage base.qcow2 128MB
        $null = New-DiskImage empty.qcow2 -BackingPath base.qcow2 -ClusterSize 512
        $null = Convert-DiskImage slow.raw top.qcow2 -ClusterSize 512
        Set-DiskImageBacking top.qcow2 -BackingPath empty.qcow2 -Unsafe
        $stopped = Invoke-Interrupted Merge-DiskImage @{ Path = "$folder/top.qcow2"; Confirm = $false } { Test-Grown "$folder/empty.qcow2" 2MB }
        $stopped.State | Should -Be 'Stopped'
        $stopped.Errors | Should -BeNullOrEmpty
        foreach ($image in 'top.qcow2', 'empty.qcow2') {
            Test-Released "$folder/$image" | Should -BeTrue
            Invoke-Qemu qemu-img check -q $image
        }

        Invoke-Qemu qemu-img compare -q slow.raw top.qcow2
        $null = Merge-DiskImage -Confirm:$false top.qcow2
        Invoke-Qemu qemu-img compare -q slow.raw empty.qcow2
        Remove-Item *
    }
}
