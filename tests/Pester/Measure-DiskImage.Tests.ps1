BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    $folder = Join-Path $TestDrive 'measure'
    $null = New-Item $folder -ItemType Directory
    Push-Location $folder
    $null = New-TestDisk "$folder/disk.raw" -Size 4MB -Seed 141
    $null = Convert-DiskImage disk.raw disk.qcow2

    # What qemu-img measure says.
    function Get-Expected {
        Invoke-Qemu qemu-img measure --output=json @args | Out-String | ConvertFrom-Json
    }
}

AfterAll { Pop-Location }

Describe 'Measure-DiskImage' {
    It 'gives the figures of qemu-img: <Path>, <Option>' -ForEach @(
        foreach ($path in 'disk.raw', 'disk.qcow2') {
            foreach ($option in '', 'cluster_size=4k', 'preallocation=full') {
                @{ Path = $path; Option = $option }
            }
        }
    ) {
        [string[]] $more = $Option ? @('-o', $Option) : @()
        $expected = Get-Expected -O qcow2 @more $Path
        $measured = Measure-DiskImage $Path -DestinationFormat qcow2 -Option $Option
        $measured | Should -BeOfType DiskImage.PowerShell.DiskImageMeasurement
        $measured.Required | Should -Be $expected.required
        $measured.FullyAllocated | Should -Be $expected.'fully-allocated'
        $measured.Path | Should -Be (Join-Path $folder $Path)
    }

    It 'measures an empty disk' {
        $expected = Get-Expected -O qcow2 --size 37G
        $measured = Measure-DiskImage -Size 37GB
        $measured.Format | Should -Be 'qcow2'
        $measured.VirtualSize | Should -Be 37GB
        $measured.Required | Should -Be $expected.required
        $measured.FullyAllocated | Should -Be $expected.'fully-allocated'
        (Measure-DiskImage -Size '1G' -DestinationFormat raw).Required | Should -Be 1GB
    }

    It 'measures no image that cannot be made' {
        { Measure-DiskImage -Size 1TB -Option cluster_size=512 -ErrorAction Stop } |
            Should -Throw -ErrorId 'DiskImageInvalidOption,*' -ExpectedMessage '*1,099,511,627,776*512*137,438,953,472*'
        (Measure-DiskImage -Size 128GB -Option cluster_size=512).Required | Should -Be (Get-Expected -O qcow2 --size 128G -o cluster_size=512).required
    }

    It 'measures a <Format> to the byte: <Option>' -ForEach @(
        foreach ($option in '', 'subformat=fixed', 'block_size=1M') {
            foreach ($format in 'vpc', 'vhdx') {
                @{ Format = $format; Option = $option }
            }
        }
    ) {
        $expected = (Convert-DiskImage disk.qcow2 "made.$Format" -DestinationFormat $Format -Option $Option -Force).Path
        (Measure-DiskImage disk.qcow2 -DestinationFormat $Format -Option $Option).Required | Should -Be (Get-Item $expected).Length
        $expected = (New-DiskImage "empty.$Format" 20MB -Format $Format -Option $Option -Force).Path
        (Measure-DiskImage -Size 20MB -DestinationFormat $Format -Option $Option).Required | Should -Be (Get-Item $expected).Length
    }

    It 'takes options as parameters too' {
        (Get-Item disk.raw | Measure-DiskImage -ClusterSize 4k).Required | Should -Be (Measure-DiskImage disk.raw -ClusterSize 4k).Required
        (Measure-DiskImage disk.raw -ClusterSize 4k).Required | Should -Be (Measure-DiskImage disk.raw -Option @{ cluster_size = 4096 }).Required
        { Measure-DiskImage disk.raw -ClusterSize 4k -Option cluster_size=4k -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageInvalidOption,*'
        { Measure-DiskImage disk.raw -Option clustersize=4k -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageInvalidOption,*'
        { Measure-DiskImage disk.raw -DestinationFormat nope -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImage*'
    }

    It 'measures a snapshot' {
        $null = New-DiskImage small.qcow2 1MB
        $null = New-DiskImageSnapshot small.qcow2 empty
        $empty = (Measure-DiskImage small.qcow2).Required
        Write-DiskImage small.qcow2 0 (, 1 * 200000)
        (Measure-DiskImage small.qcow2).Required | Should -BeGreaterThan $empty
        (Measure-DiskImage small.qcow2 -Snapshot empty).Required | Should -Be $empty
    }

    It 'goes on after a bad item' {
        $found = 'nowhere.raw', (Get-Item disk.raw) | Measure-DiskImage -ErrorAction SilentlyContinue -ErrorVariable problems
        @($found).Count | Should -Be 1
        $problems.FullyQualifiedErrorId | Should -BeLike 'DiskImageNotFound,*'
    }

    It 'shows readable sizes' {
        Measure-DiskImage disk.raw | Out-String -Width 80 | Should -Match 'Required\s+: [\d.]+ MiB \('
    }
}
