BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    . "$PSScriptRoot/Interrupt.ps1"
    $folder = Join-Path $TestDrive 'info'
    $null = New-Item $folder -ItemType Directory
    Push-Location $folder
    $null = New-TestDisk "$folder/base.raw" -Size 2MB
    $null = Convert-DiskImage base.raw base.qcow2 -ClusterSize 4k
    $null = New-DiskImage middle.qcow2 3MB -BackingPath base.qcow2
    $null = New-DiskImage top.qcow2 -BackingPath middle.qcow2 -Compat 0.10
    Copy-Item base.raw 'odd[1].raw'
}

AfterAll { Pop-Location }

Describe 'Get-DiskImageInfo' {
    It 'names what is missing in the middle of a <_> chain, and the way out' -ForEach 'vhd', 'vhdx' {
        $null = New-DiskImage "gone.$_" 4MB
        $null = New-DiskImage "middle.$_" -BackingPath "gone.$_"
        $null = New-DiskImage "top.$_" -BackingPath "middle.$_"
        Rename-Item "gone.$_" "moved.$_"
        { Get-DiskImageInfo "top.$_" -BackingChain -ErrorAction Stop } |
            Should -Throw -ErrorId 'DiskImageNotFound,*' -ExpectedMessage "*middle.${_}: its parent cannot be found; tried 'gone.$_'*. Put it there, *parent_path=PATH.*gone.${_}: no such file*"
        Set-DiskImageOption "middle.$_" -Option "parent_path=moved.$_" -WarningAction Ignore
        (Get-DiskImageInfo "middle.$_" -BackingChain).Path | Split-Path -Leaf | Should -Be "middle.$_", "moved.$_"
    }

    It 'says of <_> what qemu-img says' -ForEach 'base.raw', 'base.qcow2', 'middle.qcow2', 'top.qcow2' {
        $info = Get-DiskImageInfo $_
        $qemu = Invoke-Qemu qemu-img info --output=json $_ | Out-String | ConvertFrom-Json
        $info | Should -BeOfType DiskImage.PowerShell.DiskImageInfo
        $info.Path | Should -Be (Join-Path $folder $_)
        $info.Format | Should -Be $qemu.format
        $info.VirtualSize | Should -Be $qemu.'virtual-size'
        $info.ActualSize | Should -Be $qemu.'actual-size'
        $info.ClusterSize | Should -Be $qemu.'cluster-size'
        $info.BackingFile | Should -Be $qemu.'backing-filename'
        $info.BackingFormat | Should -Be $qemu.'backing-filename-format'
        $info.DirtyFlag | Should -Be $qemu.'dirty-flag'
        $info.FormatSpecific.Compat | Should -Be $qemu.'format-specific'.data.compat
        $info.FormatSpecific.RefcountBits | Should -Be $qemu.'format-specific'.data.'refcount-bits'
    }

    It 'does not open backing images unless asked' {
        $null = New-DiskImage lost.raw 1MB
        $null = New-DiskImage orphan.qcow2 -BackingPath lost.raw
        Remove-Item lost.raw
        (Get-DiskImageInfo orphan.qcow2).BackingFile | Should -Be 'lost.raw'
        { Get-DiskImageInfo orphan.qcow2 -BackingChain -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageNotFound,*'
        Remove-Item orphan.qcow2
    }

    It 'describes the chain from the top down' {
        $chain = Get-DiskImageInfo top.qcow2 -BackingChain
        $chain.Path | Split-Path -Leaf | Should -Be 'top.qcow2', 'middle.qcow2', 'base.qcow2'
        $chain[0].FullBackingFile | Should -Be $chain[1].Path
        $chain[0].Children.Role | Should -Be 'file', 'backing'
    }

    It 'lists the snapshots' {
        Skip-Without qemu-img
        $null = New-DiskImage kept.qcow2 1MB
        Invoke-Qemu qemu-img snapshot -c first kept.qcow2
        Invoke-Qemu qemu-img snapshot -c second kept.qcow2
        $snapshots = (Get-DiskImageInfo kept.qcow2).Snapshots
        $snapshots[1] | Should -BeOfType DiskImage.PowerShell.DiskImageSnapshot
        $snapshots.Name | Should -Be 'first', 'second'
        $snapshots.Id | Should -Be '1', '2'
        $snapshots.VirtualSize | Should -Be 1MB, 1MB
        $snapshots | Out-String -Width 80 | Should -Match 'second'
        Remove-Item kept.qcow2
    }

    It 'takes files, paths and its own results from the pipeline' {
        Get-ChildItem *.qcow2 | Get-DiskImageInfo | ForEach-Object Format | Should -Be 'qcow2', 'qcow2', 'qcow2'
        'base.raw', 'base.qcow2' | Get-DiskImageInfo | ForEach-Object Format | Should -Be 'raw', 'qcow2'
        (Get-DiskImageInfo base.raw | Get-DiskImageInfo).Path | Should -Be (Join-Path $folder 'base.raw')
        ([pscustomobject]@{ ImagePath = 'base.raw' } | Get-DiskImageInfo).Format | Should -Be 'raw'
    }

    It 'has ImagePath for the cmdlets of the Storage module' {
        (Get-DiskImageInfo base.raw).ImagePath | Should -Be (Join-Path $folder 'base.raw')
    }

    It 'expands wildcards and leaves folders out' {
        $null = New-Item base.folder -ItemType Directory -Force
        (Get-DiskImageInfo base*).Path | Split-Path -Leaf | Should -Be 'base.qcow2', 'base.raw'
        (Get-DiskImageInfo '[bt]*.qcow2').Count | Should -Be 2
    }

    It 'finds a file whose name looks like a pattern' {
        (Get-DiskImageInfo -LiteralPath 'odd[1].raw').Format | Should -Be 'raw'
        (Get-DiskImageInfo 'odd[1].raw').Format | Should -Be 'raw'
        (Get-DiskImageInfo 'odd`[1`].raw').Format | Should -Be 'raw'
        (Get-Item -LiteralPath 'odd[1].raw' | Get-DiskImageInfo).Format | Should -Be 'raw'
    }

    It 'understands <_>' -ForEach './base.raw', '../info/base.raw', 'TestDrive:/info/base.raw', 'file:base.raw' {
        (Get-DiskImageInfo $_).Path | Should -Be (Join-Path $folder 'base.raw')
    }

    It 'understands provider paths and file URIs' {
        (Get-DiskImageInfo "Microsoft.PowerShell.Core\FileSystem::$folder/base.raw").Format | Should -Be 'raw'
        (Get-DiskImageInfo ([uri]"file://$folder/base.raw").AbsoluteUri).Format | Should -Be 'raw'
    }

    It 'understands json: with a path relative to the current location' {
        (Get-DiskImageInfo 'json:{"driver":"raw","offset":"1M","file":{"driver":"file","filename":"base.raw"}}').VirtualSize | Should -Be 1MB
    }

    It 'takes open options' {
        (Get-DiskImageInfo base.raw -OpenOption @{ offset = 4096; size = '64k' }).VirtualSize | Should -Be 64KB
        (Get-DiskImageInfo base.raw -OpenOption 'offset=1M').VirtualSize | Should -Be 1MB
    }

    It 'takes the format from -Format' {
        (Get-DiskImageInfo base.qcow2 -Format raw).Format | Should -Be 'raw'
        { Get-DiskImageInfo base.raw -Format qcow2 -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageInvalidFormat,*'
        { Get-DiskImageInfo base.raw -Format qcow9 -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageInvalidOption,*' -ExpectedMessage '*raw*'
    }

    It 'goes on after a bad item' {
        $found = 'nowhere.raw', 'base.raw', 'none*', 'env:PATH' | Get-DiskImageInfo -ErrorAction SilentlyContinue -ErrorVariable problems
        $found.Format | Should -Be 'raw'
        Format-Error $problems | Should -Be 'DiskImageNotFound ObjectNotFound', 'DiskImageNotFound ObjectNotFound', 'DiskImageUnsupported NotImplemented'
        $problems[0].TargetObject | Should -Be (Join-Path $folder 'nowhere.raw')
        $problems[1].TargetObject | Should -Be 'none*'
    }

    It 'stops at the first error with -ErrorAction Stop' {
        $found = [Collections.ArrayList]::new()
        { 'nowhere.raw', 'base.raw' | Get-DiskImageInfo -ErrorAction Stop -OutVariable +found } | Should -Throw
        $found.Count | Should -Be 0
    }

    It 'says of a folder and of a used file what is wrong' {
        $null = Get-DiskImageInfo . -ErrorAction SilentlyContinue -ErrorVariable problems
        Format-Error $problems | Should -Be 'DiskImageInvalidOption InvalidArgument'
        $used = [IO.File]::Open((Join-Path $folder 'base.raw'), 'Open', 'ReadWrite', 'None')
        try {
            { Get-DiskImageInfo base.raw -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageLocked,*'
        } finally {
            $used.Dispose()
        }
    }

    It 'says that a path is too long, not that the file is missing' {
        Skip-OnWine 'an error of its own for long paths'
        $null = Get-DiskImageInfo -LiteralPath ('x' * 300) -ErrorAction SilentlyContinue -ErrorVariable problems
        Format-Error $problems | Should -Be 'DiskImageInvalidOption InvalidArgument'
        $null = Get-DiskImageInfo ('x' * 300) -ErrorAction SilentlyContinue -ErrorVariable problems
        Format-Error $problems | Should -Be 'DiskImageInvalidOption InvalidArgument'
    }

    It 'follows no reference with -References None' {
        { Get-DiskImageInfo top.qcow2 -BackingChain -References None -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageRefused,*'
        { Get-DiskImageInfo top.qcow2 -BackingChain -References SameFolder -ErrorAction Stop } | Should -Not -Throw
    }

    It 'says with -Verbose how the format was found' {
        $said = Get-DiskImageInfo base.raw -Verbose 4>&1 | Where-Object { $_ -is [System.Management.Automation.VerboseRecord] }
        "$said" | Should -BeLike '*recognised as raw*'
    }

    It 'shows sizes in words within 80 columns' {
        $text = Get-DiskImageInfo base.qcow2 | Out-String -Width 80
        $text | Should -Match 'VirtualSize\s+: 2 MiB \(2,097,152 bytes\)'
        $text -split '\r?\n' | ForEach-Object { $_.Length | Should -BeLessOrEqual 80 }
        Get-DiskImageInfo base.qcow2 | Format-Table | Out-String -Width 80 | Should -Match 'qcow2\s+2 MiB'
    }

    It 'completes <Line>' -ForEach @(
        @{ Line = 'Get-DiskImageInfo x -Format r'; Expected = 'raw' }
        @{ Line = 'Get-DiskImageInfo x.raw -OpenOption '; Expected = 'offset=', 'size=' }
        @{ Line = 'Get-DiskImageInfo x -Format qcow2 -OpenOption disc'; Expected = 'discard=' }
        @{ Line = 'Get-DiskImageInfo x -Format qcow2 -OpenOption discard='; Expected = 'discard=ignore', 'discard=unmap' }
    ) {
        Get-Completion $Line | Should -Be $Expected
    }

    It 'lets go of its images' {
        $null = Get-DiskImageInfo top.qcow2 -BackingChain
        'top.qcow2', 'middle.qcow2', 'base.qcow2' | ForEach-Object { Test-Released (Join-Path $folder $_) | Should -BeTrue }
    }
}
