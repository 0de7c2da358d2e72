BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    . "$PSScriptRoot/Interrupt.ps1"
}

Describe 'New-DiskImage' {
    BeforeAll {
        $folder = Join-Path $TestDrive 'new'
        $null = New-Item $folder -ItemType Directory
        Push-Location $folder
    }

    AfterAll { Pop-Location }

    AfterEach { Get-ChildItem $folder | Remove-Item -Recurse -Force }

    It 'makes a qcow2 image that qemu-img finds good' {
        $info = New-DiskImage a.qcow2 10GB
        $info | Should -BeOfType DiskImage.PowerShell.DiskImageInfo
        $info.Path | Should -Be (Join-Path $folder 'a.qcow2')
        $info.Format | Should -Be 'qcow2'
        $info.VirtualSize | Should -Be 10GB
        Invoke-Qemu qemu-img check -q a.qcow2
        (Invoke-Qemu qemu-img info --output=json a.qcow2 | Out-String | ConvertFrom-Json).'virtual-size' | Should -Be 10GB
    }

    It 'makes no image in a disk of this machine unless that is allowed' {
        $free = if ($IsLinux) { Get-ChildItem /sys/block/loop* | Where-Object { (Get-Content "$_/size") -eq 0 -and (Test-Path "/dev/$($_.Name)") } }
        if (-not $free) {
            Set-ItResult -Skipped -Because 'there is no device to name'
            return
        }

        $device = "/dev/$($free[-1].Name)" # has no file, and so no bytes
        { New-DiskImage $device 1MB -Format raw -ErrorAction Stop } | Should -Throw '*-AllowDeviceWrite*' -ErrorId 'DiskImageReadOnly,*'
        { New-DiskImage $device 1MB -Format raw -AllowDeviceWrite -ErrorAction Stop } | Should -Throw '*cannot become longer*'
    }

    It 'makes a raw image' {
        (New-DiskImage a.raw 1000).VirtualSize | Should -Be 1000
        (Get-Item a.raw).Length | Should -Be 1000
    }

    It 'takes the size <Text>' -ForEach @(
        @{ Text = '10G'; Bytes = 10GB }
        @{ Text = '64k'; Bytes = 64KB }
        @{ Text = '1.5GiB'; Bytes = 1.5GB }
        @{ Text = '0x10000'; Bytes = 65536 }
    ) {
        (New-DiskImage a.qcow2 -Size $Text).VirtualSize | Should -Be $Bytes
    }

    It 'refuses the size <_>' -ForEach '10X', '-1', '1.3', '99999999T' {
        { New-DiskImage a.qcow2 -Size $_ } | Should -Throw -ErrorId 'Parameter*,DiskImage.PowerShell.NewDiskImageCommand'
    }

    It 'makes one image per name in the pipeline' {
        $made = 'a', 'b' | ForEach-Object { "$_.qcow2" } | New-DiskImage -Size 1MB
        $made.Path | Split-Path -Leaf | Should -Be 'a.qcow2', 'b.qcow2'
    }

    It 'takes path and size from properties' {
        [pscustomobject]@{ Path = 'a.raw'; Size = '2M' }, [pscustomobject]@{ Path = 'b.raw'; Size = 3MB } |
            New-DiskImage | ForEach-Object VirtualSize | Should -Be 2MB, 3MB
    }

    It 'goes on after a bad item' {
        $made = 'a.nothing', 'b.raw' | New-DiskImage -Size 1MB -ErrorAction SilentlyContinue -ErrorVariable problems
        $made.Path | Split-Path -Leaf | Should -Be 'b.raw'
        Format-Error $problems | Should -Be 'DiskImageInvalidOption InvalidArgument'
        $problems[0].TargetObject | Should -Be (Join-Path $folder 'a.nothing')
        $problems[0].Exception.Message | Should -BeLike '*-Format: raw, qcow2*'
    }

    It 'changes nothing with -WhatIf' {
        New-DiskImage a.qcow2 1MB -WhatIf | Should -BeNullOrEmpty
        Get-ChildItem | Should -BeNullOrEmpty
    }

    It 'refuses an existing file, also with -WhatIf, and leaves it as it is' {
        Set-Content a.qcow2 'something'
        { New-DiskImage a.qcow2 1MB -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageAlreadyExists,*'
        { New-DiskImage a.qcow2 1MB -WhatIf -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageAlreadyExists,*'
        Get-Content a.qcow2 | Should -Be 'something'
    }

    It 'replaces it with -Force' {
        Set-Content a.qcow2 'something'
        (New-DiskImage a.qcow2 1MB -Force).VirtualSize | Should -Be 1MB
    }

    It 'refuses a folder' {
        $null = New-Item a.qcow2 -ItemType Directory
        foreach ($more in @{}, @{ Force = $true }) {
            $problem = { New-DiskImage a.qcow2 1MB @more -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageInvalidOption,*' -PassThru
            $problem.CategoryInfo.Category | Should -Be 'InvalidArgument'
        }
    }

    It 'wants a size' {
        { New-DiskImage a.raw -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageInvalidOption,*'
    }

    It 'leaves nothing behind if the format refuses' {
        { New-DiskImage a.qcow2 9E -Option 'cluster_size=512' -ErrorAction Stop } | Should -Throw
        Get-ChildItem | Should -BeNullOrEmpty
    }

    It 'resolves paths from the current location and from drives' {
        $null = New-Item inner -ItemType Directory
        Push-Location inner
        try {
            (New-DiskImage ../up.raw 1MB).Path | Should -Be (Join-Path $folder 'up.raw')
        } finally {
            Pop-Location
        }

        $null = New-PSDrive Disks FileSystem $folder
        (New-DiskImage Disks:/drive.raw 1MB).Path | Should -Be (Join-Path $folder 'drive.raw')
        (New-DiskImage 'Microsoft.PowerShell.Core\FileSystem::drive2.raw' 1MB).Path | Should -Be (Join-Path $folder 'drive2.raw')
    }

    It 'says which drive is missing' {
        { New-DiskImage nodrive:/a.raw 1MB -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageNotFound,*'
    }

    It 'takes the names that New-VHD has for its parameters' {
        $info = New-DiskImage hyperv.vhdx -SizeBytes 8MB -BlockSizeBytes 2MB -LogicalSectorSizeBytes 4096 -PhysicalSectorSizeBytes 4096
        $info.VirtualSize | Should -Be 8MB
        $info.FormatSpecific.BlockSize | Should -Be 2MB
        $info.FormatSpecific.LogicalSectorSize | Should -Be 4096
        $info.FormatSpecific.PhysicalSectorSize | Should -Be 4096
        $child = New-DiskImage -ParentPath hyperv.vhdx -Path child.vhdx
        $child.BackingFile | Should -Match 'hyperv\.vhdx'
        (Convert-DiskImage child.vhdx -DestinationPath flat.vhd).Format | Should -Be 'vpc'
        Copy-Item hyperv.vhdx moved.vhdx
        Set-DiskImageBacking child.vhdx -ParentPath moved.vhdx
        (Get-DiskImageInfo child.vhdx).BackingFile | Should -Match 'moved\.vhdx'
    }
}

Describe 'Options of New-DiskImage' {
    BeforeAll { $path = Join-Path $TestDrive 'options.qcow2' }

    It 'are taken as <How>' -ForEach @(
        @{ How = 'text'; Given = @{ Option = 'cluster_size=1M,lazy_refcounts=on' } }
        @{ How = 'several texts'; Given = @{ Option = 'cluster_size=1M', 'lazy_refcounts' } }
        @{ How = 'a hashtable'; Given = @{ Option = @{ cluster_size = 1MB; lazy_refcounts = $true } } }
        @{ How = 'an ordered hashtable of text'; Given = @{ Option = [ordered]@{ cluster_size = '1M'; lazy_refcounts = 'on' } } }
        @{ How = 'parameters'; Given = @{ ClusterSize = '1M'; LazyRefcounts = $true } }
        @{ How = 'parameters in QEMU''s spelling'; Given = @{ cluster_size = 1MB; lazy_refcounts = $true } }
    ) {
        $info = New-DiskImage $path 1GB -Force @Given
        $info.ClusterSize | Should -Be 1MB
        $info.FormatSpecific.LazyRefcounts | Should -BeTrue
    }

    It 'are what qemu-img reports: <_>' -ForEach 'compat=0.10', 'compat=v3', 'cluster_size=512', 'cluster_size=2M', 'refcount_bits=1', 'refcount_bits=64',
        'preallocation=metadata', 'preallocation=falloc', 'preallocation=full' {
        $info = New-DiskImage $path 8MB -Force -Option $_
        Invoke-Qemu qemu-img check -q $path
        $qemu = Invoke-Qemu qemu-img info --output=json $path | Out-String | ConvertFrom-Json
        $qemu.'cluster-size' | Should -Be $info.ClusterSize
        $qemu.'format-specific'.data.compat | Should -Be $info.FormatSpecific.Compat
        $qemu.'format-specific'.data.'refcount-bits' | Should -Be $info.FormatSpecific.RefcountBits
        $qemu.'actual-size' | Should -Be $info.ActualSize
    }

    It 'name near misses' {
        { New-DiskImage $path 1MB -Force -Option 'clustersize=1M' -ErrorAction Stop } |
            Should -Throw -ErrorId 'DiskImageInvalidOption,*' -ExpectedMessage "*Did you mean 'cluster_size'?*"
    }

    It 'name what is allowed' {
        { New-DiskImage $path 1MB -Force -ClusterSize 3 -ErrorAction Stop } |
            Should -Throw -ErrorId 'DiskImageInvalidOption,*' -ExpectedMessage "*cluster_size*'3'*512 to 2M*"
    }

    It 'are refused if given twice' {
        { New-DiskImage $path 1MB -Force -ClusterSize 1MB -Option 'cluster_size=1M' -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageInvalidOption,*'
    }

    It 'of another format are no parameters' {
        { New-DiskImage (Join-Path $TestDrive 'x.raw') 1MB -ClusterSize 1MB } | Should -Throw -ErrorId 'NamedParameterNotFound,*'
    }

    It 'complete: <Line>' -ForEach @(
        @{ Line = 'New-DiskImage x.qcow2 1G -Cl'; Expected = '-ClusterSize' }
        @{ Line = 'New-DiskImage x -Format qcow2'; Expected = 'qcow2' }
        @{ Line = 'New-DiskImage x -Format qcow2 -Option clus'; Expected = 'cluster_size=' }
        @{ Line = 'New-DiskImage x.qcow2 -Option compat='; Expected = 'compat=0.10', 'compat=1.1' }
        @{ Line = "New-DiskImage x.qcow2 -Option 'compat=1.1,prea"; Expected = "'compat=1.1,preallocation='" }
        @{ Line = 'New-DiskImage x.raw -Preallocation '; Expected = 'off', 'falloc', 'full' }
        @{ Line = 'New-DiskImage x.qcow2 -Preallocation f'; Expected = 'falloc', 'full' }
        @{ Line = 'New-DiskImage x.qcow2 -References S'; Expected = 'SameFolder' }
    ) {
        Get-Completion $Line | Should -Be $Expected
    }
}

Describe 'New-DiskImage -BackingPath' {
    BeforeAll {
        $folder = Join-Path $TestDrive 'backing'
        $null = New-Item "$folder/tops" -ItemType Directory
        $null = New-DiskImage "$folder/base.qcow2" 3MB
        $null = New-TestDisk "$folder/base.raw" -Size 1MB
    }

    It 'is relative to the new image and recorded as given, with format and size' {
        $info = New-DiskImage "$folder/tops/a.qcow2" -BackingPath ../base.qcow2
        $info.BackingFile | Should -Be '../base.qcow2'
        $info.FullBackingFile | Should -Be (Join-Path $folder 'base.qcow2')
        $info.BackingFormat | Should -Be 'qcow2'
        $info.VirtualSize | Should -Be 3MB
        $qemu = Invoke-Qemu qemu-img info --output=json "$folder/tops/a.qcow2" | Out-String | ConvertFrom-Json
        $qemu.'backing-filename' | Should -Be '../base.qcow2'
        $qemu.'backing-filename-format' | Should -Be 'qcow2'
    }

    It 'shows through' {
        $null = New-DiskImage "$folder/b.qcow2" -BackingPath base.raw -BackingFormat raw
        (Get-DiskImageHash "$folder/b.qcow2").Hash | Should -Be (Get-FileHash "$folder/base.raw").Hash
        Invoke-Qemu qemu-img compare "$folder/b.qcow2" "$folder/base.raw"
    }

    It 'may be given as an option' {
        $info = New-DiskImage "$folder/c.qcow2" 5MB -Option @{ backing_file = 'base.qcow2'; backing_fmt = 'qcow2' }
        $info.BackingFile | Should -Be 'base.qcow2'
        $info.VirtualSize | Should -Be 5MB
    }

    It 'must exist' {
        { New-DiskImage "$folder/d.qcow2" -BackingPath nowhere.raw -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageNotFound,*'
        "$folder/d.qcow2*" | Should -Not -Exist
    }

    It 'cannot be the new image' {
        { New-DiskImage "$folder/base.qcow2" -BackingPath base.qcow2 -Force -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageInvalidOption,*'
    }

    It 'cannot be the new image by way of <Name>' -ForEach @{ Name = 'a linked folder' }, @{ Name = 'a hard link' } {
        Skip-OnWine 'symbolic links'
        $null = New-Item "$folder/linked" -ItemType SymbolicLink -Target $folder
        $null = New-Item "$folder/hard.qcow2" -ItemType HardLink -Target "$folder/base.qcow2"
        $hash = (Get-FileHash "$folder/base.qcow2").Hash
        $path = $Name -eq 'a hard link' ? "$folder/hard.qcow2" : "$folder/linked/base.qcow2"
        { New-DiskImage $path -BackingPath "$folder/base.qcow2" -Force -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageInvalidOption,*'
        (Get-FileHash "$folder/base.qcow2").Hash | Should -Be $hash
        Remove-Item "$folder/linked", "$folder/hard.qcow2"
    }

    It 'may be named with ~ and with a PSDrive, which are recorded as full paths' {
        $null = New-PSDrive -Name images -PSProvider FileSystem -Root $folder
        $info = New-DiskImage "$folder/tops/drive.qcow2" -BackingPath images:/base.qcow2
        $info.BackingFile | Should -Be (Join-Path $folder 'base.qcow2')
        $info.BackingFormat | Should -Be 'qcow2'
        { New-DiskImage "$folder/tops/home.qcow2" -BackingPath '~/no such image.qcow2' -ErrorAction Stop } |
            Should -Throw -ErrorId 'DiskImageNotFound,*' -ExpectedMessage "*$((Resolve-Path ~).ProviderPath)*"
        { New-DiskImage "$folder/tops/env.qcow2" -BackingPath env:PATH -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageUnsupported,*'
    }

    It 'is said to be in the current folder, if it is, and how to write it' {
        $null = New-Item "$folder/elsewhere" -ItemType Directory
        $null = New-DiskImage "$folder/elsewhere/near.qcow2" 1MB
        Push-Location "$folder/elsewhere"
        try {
            $problem = { New-DiskImage "$folder/tops/g.qcow2" -BackingPath near.qcow2 -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageNotFound,*' -PassThru
        } finally {
            Pop-Location
        }

        $problem.Exception.Message | Should -BeLike "*current folder*'$(Join-Path '..' 'elsewhere' 'near.qcow2')'*'$(Join-Path $folder 'elsewhere' 'near.qcow2')'*"
        $problem.TargetObject | Should -Be (Join-Path $folder 'tops/g.qcow2')
    }

    It 'is recorded so that QEMU takes no part of it for a protocol' {
        Skip-OnWindows 'file names with colons'
        [IO.File]::Copy("$folder/base.qcow2", "$folder/a:b.qcow2")
        (New-DiskImage "$folder/h.qcow2" -BackingPath a:b.qcow2).BackingFile | Should -BeExactly './a:b.qcow2'
        Invoke-Qemu qemu-img info --backing-chain "$folder/h.qcow2" | Should -Not -BeNullOrEmpty
    }

    It 'cannot be had with raw' {
        { New-DiskImage "$folder/e.raw" -BackingPath base.raw -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageUnsupported,*'
    }

    It 'is opened wherever it is, but what it names itself is subject to -References' {
        $null = New-DiskImage "$folder/tops/f.qcow2" -BackingPath ../base.qcow2 -References SameFolder
        { New-DiskImage "$folder/g.qcow2" -BackingPath tops/f.qcow2 -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageRefused,*' -ExpectedMessage '*f.qcow2: names the backing file*'
        New-DiskImage "$folder/g.qcow2" -BackingPath tops/f.qcow2 -References LocalFiles | ForEach-Object BackingFile | Should -Be 'tops/f.qcow2'
    }
}

Describe 'New-DiskImage where something is' {
    BeforeAll {
        $folder = Join-Path $TestDrive 'taken'
        $null = New-Item $folder -ItemType Directory
        Push-Location $folder
    }

    AfterAll { Pop-Location }

    AfterEach { Get-ChildItem $folder | Remove-Item -Recurse -Force }

    It 'writes into the file itself with -InPlace, which needs -Force' {
        Set-Content old.qcow2 'something'
        { New-DiskImage old.qcow2 1MB -InPlace -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageInvalidOption,*' -ExpectedMessage '*-Force*'
        Get-Content old.qcow2 | Should -Be 'something'
        (New-DiskImage old.qcow2 1MB -InPlace -Force).Format | Should -Be 'qcow2'
        (Get-ChildItem).Name | Should -Be 'old.qcow2'
    }

    It 'warns of hard links, which keep the old file, unless it is written in place' {
        Set-Content old.qcow2 'something'
        $null = New-Item second -ItemType HardLink -Target "$folder/old.qcow2"
        $null = New-DiskImage old.qcow2 1MB -Force -WarningVariable warnings -WarningAction SilentlyContinue
        "$warnings" | Should -BeLike '*1 other name*'
        Get-Content second | Should -Be 'something'
        Remove-Item second
        $null = New-Item second -ItemType HardLink -Target "$folder/old.qcow2"
        $null = New-DiskImage old.qcow2 2MB -Force -InPlace -WarningVariable warnings
        $warnings | Should -BeNullOrEmpty
        (Get-DiskImageInfo second).VirtualSize | Should -Be 2MB
    }

    It 'deletes no file that happens to have such a name' {
        Set-Content new.qcow2.incomplete 'something'
        $null = New-DiskImage new.qcow2 1MB
        Get-Content new.qcow2.incomplete | Should -Be 'something'
    }

    It 'makes a name of 255 bytes' {
        $name = 'x' * 249 + '.qcow2'
        (New-DiskImage $name 1MB).Path | Should -Be (Join-Path $folder $name)
        (New-DiskImage $name 2MB -Force).VirtualSize | Should -Be 2MB
        (Get-ChildItem).Name | Should -Be $name
    }

    It 'names the full path in its error' {
        Set-Content old.qcow2 'something'
        $problem = { New-DiskImage old.qcow2 1MB -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageAlreadyExists,*' -PassThru
        $problem.TargetObject | Should -Be (Join-Path $folder 'old.qcow2')
    }
}

Describe 'Ctrl+C in New-DiskImage' {
    It 'leaves nothing behind' {
        $path = Join-Path $TestDrive 'stopped.raw'
        $stopped = Invoke-Interrupted New-DiskImage @{ Path = $path; Size = 2GB; Option = 'preallocation=full' } { Test-Begun $TestDrive }
        Get-Unfinished $TestDrive | Should -BeNullOrEmpty
        if ($stopped.State -eq 'Stopped') {
            $path | Should -Not -Exist
        }

        $stopped.Errors | Should -BeNullOrEmpty
        Remove-Item $path -ErrorAction Ignore
    }
}
