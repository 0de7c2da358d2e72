BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    $folder = Join-Path $TestDrive 'image option'
    $null = New-Item $folder -ItemType Directory
    Push-Location $folder
    $null = New-DiskImage base.qcow2 4MB
    Write-DiskImage base.qcow2 -Offset 0 -Bytes ([byte[]](1, 2, 3))
    $null = New-DiskImage top.qcow2 -BackingPath base.qcow2
    Write-DiskImage top.qcow2 -Offset 1MB -Bytes ([byte[]](7))
}

AfterAll { Pop-Location }

Describe '-ImageOption' {
    It 'is taken instead of a path: <Case>' -ForEach @(
        @{ Case = 'dotted text'; Option = 'driver=qcow2,file.driver=file,file.filename=top.qcow2' }
        @{ Case = 'a table'; Option = @{ driver = 'qcow2'; file = @{ driver = 'file'; filename = 'top.qcow2' } } }
        @{ Case = 'a list of texts'; Option = 'driver=qcow2', 'file.filename=top.qcow2' }
        @{ Case = 'no driver: it is probed'; Option = @{ 'file.filename' = 'top.qcow2' } }
    ) {
        $info = Get-DiskImageInfo -ImageOption $Option
        $info.Format | Should -Be 'qcow2'
        $info.Path | Should -Be (Join-Path $folder 'top.qcow2')
        (Read-DiskImage -ImageOption $Option -Offset 0 -Length 3) -join ' ' | Should -Be '1 2 3'
    }

    It 'goes with a path, also through the pipeline and with wildcards' {
        @(Get-Item base.qcow2, top.qcow2 | Get-DiskImageInfo -ImageOption 'file.locking=off').Count | Should -Be 2
        @(Get-DiskImageInfo *.qcow2 -ImageOption @{ 'read-only' = $true }).Count | Should -Be 2
    }

    It 'says what the disk stands on' {
        (Read-DiskImage top.qcow2 -ImageOption '{"none":1}' -Offset 0 -Length 1 -ErrorAction SilentlyContinue -ErrorVariable problem) | Should -BeNullOrEmpty
        $problem[0].FullyQualifiedErrorId | Should -BeLike 'DiskImageInvalidOption*'
        (Read-DiskImage top.qcow2 -ImageOption @{ backing = $null } -Offset 0 -Length 3) -join ' ' | Should -Be '0 0 0'
        $null = New-DiskImage other.raw 4MB -Format raw
        Write-DiskImage other.raw -Format raw -Offset 0 -Bytes ([byte[]](9, 9))
        (Read-DiskImage top.qcow2 -ImageOption @{ backing = @{ driver = 'raw'; file = @{ filename = 'other.raw' } } } -Offset 0 -Length 3) -join ' ' |
            Should -Be '9 9 0'
    }

    It 'puts filters over the image, which keeps what it can do' {
        $option = 'driver=throttle,iops-total=100000'
        (Get-DiskImageInfo top.qcow2 -ImageOption $option).BackingFile | Should -Be 'base.qcow2'
        $null = New-DiskImageSnapshot top.qcow2 first -ImageOption $option
        (Get-DiskImageSnapshot top.qcow2 -ImageOption $option).Name | Should -Be 'first'
        (Test-DiskImage top.qcow2 -ImageOption $option).IsConsistent | Should -BeTrue
        Get-DiskImageInfo top.qcow2 -BackingChain -ImageOption $option | Should -HaveCount 2
        Set-DiskImageOption top.qcow2 -ImageOption $option -Option @{ lazy_refcounts = 'on' }
        Convert-DiskImage top.qcow2 copy.raw -ImageOption $option | Out-Null
        (Compare-DiskImage copy.raw top.qcow2).Identical | Should -BeTrue
    }

    It 'lets requests fail where it is told to, and nothing is left' {
        { Convert-DiskImage top.qcow2 broken.raw -ImageOption 'driver=blkdebug,inject-error.0.iotype=read,inject-error.0.sector=0' -ErrorAction Stop } |
            Should -Throw '*as blkdebug was told*' -ErrorId 'DiskImageIo,*'
        'broken.raw' | Should -Not -Exist
    }

    It 'measures without storage' {
        (Get-DiskImageInfo -ImageOption 'driver=null-co,size=5G').VirtualSize | Should -Be 5GB
        (Get-DiskImageHash -ImageOption 'driver=null-co,size=1M,read-zeroes=on').Hash | Should -Be (Get-DiskImageHash -ImageOption 'driver=null-co,size=1M').Hash
    }

    It 'logs writes' {
        $null = New-Item log.bin -Value 'x'
        Write-DiskImage top.qcow2 -ImageOption 'driver=blklogwrites,log.filename=log.bin' -Offset 200 -Bytes ([byte[]](1))
        [System.BitConverter]::ToUInt64([IO.File]::ReadAllBytes("$folder/log.bin"), 0) | Should -Be 0x6A736677736872
        Read-DiskImage top.qcow2 -Offset 200 -Length 1 | Should -Be 1
    }

    It 'names near misses' {
        { Get-DiskImageInfo top.qcow2 -ImageOption 'driver=trottle' -ErrorAction Stop } | Should -Throw "*Did you mean 'throttle'*"
        { Get-DiskImageInfo top.qcow2 -ImageOption 'file.loking=off' -ErrorAction Stop } | Should -Throw "*Did you mean 'locking'*"
    }

    It 'lets a part of the requests fail, the same ones for the same seed' {
        { Convert-DiskImage top.qcow2 broken.raw -ImageOption 'driver=error,error-pread-rate=100%,seed=3' -ErrorAction Stop } |
            Should -Throw "*as the filter 'error' was told (rate 1, seed 3)*" -ErrorId 'DiskImageIo,*'
        'broken.raw' | Should -Not -Exist
        Convert-DiskImage top.qcow2 whole.raw -ImageOption 'driver=error,error-pwrite-rate=1' | Out-Null # nothing is written to it
        (Compare-DiskImage whole.raw top.qcow2).Identical | Should -BeTrue
    }

    It 'limits bursts, in groups too' {
        $limits = 'iops-total=100000,iops-total-max=200000,iops-total-max-length=60,iops-size=1M,throttle-group=g'
        Convert-DiskImage top.qcow2 slow.raw -ImageOption "driver=throttle,$limits" | Out-Null
        (Compare-DiskImage slow.raw top.qcow2).Identical | Should -BeTrue
        { Get-DiskImageInfo top.qcow2 -ImageOption 'driver=throttle,throttling.group=g,limits.iops-total=5,limits.iops-read=5' -ErrorAction Stop } |
            Should -Throw "*'iops-total' and 'iops-read' cannot be used together*" -ErrorId 'DiskImageInvalidOption,*'
    }

    It 'copies what is read down to a layer that it names' {
        $option = 'driver=copy-on-read,bottom=mid,file.backing.node-name=mid'
        (Get-DiskImageInfo top.qcow2 -ImageOption $option).BackingFile | Should -Be 'base.qcow2'
        { Get-DiskImageInfo top.qcow2 -ImageOption 'driver=copy-on-read,bottom=low,file.backing.node-name=mid' -ErrorAction Stop } |
            Should -Throw "*no node 'low' among the layers of its disk. Its layers: mid*"
    }

    It 'has a device without bytes, which answers late' {
        (Get-DiskImageInfo null-aio://).VirtualSize | Should -Be 1GB
        (Get-DiskImageHash -ImageOption 'driver=null-aio,size=1M').Hash | Should -Be (Get-DiskImageHash -ImageOption 'driver=null-co,size=1M').Hash
    }

    It 'logs what is written' {
        $null = New-DiskImage logged.raw 1MB -Format raw
        $null = New-Item log -ItemType File
        Write-DiskImage -ImageOption 'driver=blklogwrites,file.driver=raw,file.file.filename=logged.raw,log.filename=log' -Offset 0 -Bytes ([byte[]](5))
        $log = [IO.File]::ReadAllBytes((Join-Path $folder 'log'))
        [BitConverter]::ToUInt64($log, 0) | Should -Be 0x6A736677736872
        [BitConverter]::ToUInt64($log, 16) | Should -BeGreaterThan 0
        $log[1024] | Should -Be 5
    }

    It 'has drivers that are listed with their options' {
        (Get-DiskImageFormat).Kind | Sort-Object -Unique | Should -Be 'Format'
        (Get-DiskImageFormat -Kind Filter).Name | Should -Be 'blkdebug', 'blklogwrites', 'blkverify', 'compress', 'copy-on-read', 'error', 'preallocate', 'quorum', 'throttle'
        (Get-DiskImageFormat -Kind Protocol).Name | Should -Be 'file', 'gluster', 'host_cdrom', 'host_device', 'http', 'https', 'iscsi', 'nbd', 'null-aio', 'null-co', 'nvme', 'sheepdog', 'ssh', 'vvfat'
        (Get-DiskImageFormat throttle -Kind Filter).OpenOptions.Name | Should -Contain 'iops-write'
        { Get-DiskImageFormat throttle -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageNotFound,*'
        @(Get-DiskImageFormat -Kind Any).Count | Should -BeGreaterThan 12
    }
}
