BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    $folder = Join-Path $TestDrive 'parallels'
    $null = New-Item $folder -ItemType Directory
    Push-Location $folder
    $null = New-TestDisk "$folder/disk.raw" 6MB 17
    $hash = (Get-DiskImageHash disk.raw -Format raw).Hash
    $null = New-Item vm.hdd -ItemType Directory
    $null = Convert-DiskImage disk.raw vm.hdd/root.hds -DestinationFormat parallels
    $null = New-DiskImage vm.hdd/top.hds 6MB -Format parallels
    $root = '{11111111-1111-1111-1111-111111111111}'
    $top = '{5fbaabe3-6958-40ff-92a7-860e329aab41}'
    $none = '{00000000-0000-0000-0000-000000000000}'
    Set-Content vm.hdd/DiskDescriptor.xml @"
<?xml version='1.0' encoding='UTF-8'?>
<Parallels_disk_image Version="1.0">
  <Disk_Parameters><Disk_size>12288</Disk_size><Cylinders>24</Cylinders><Heads>16</Heads><Sectors>32</Sectors><Padding>0</Padding></Disk_Parameters>
  <StorageData><Storage><Start>0</Start><End>12288</End><Blocksize>2048</Blocksize>
    <Image><GUID>$root</GUID><Type>Compressed</Type><File>root.hds</File></Image>
    <Image><GUID>$top</GUID><Type>Compressed</Type><File>top.hds</File></Image>
  </Storage></StorageData>
  <Snapshots>
    <Shot><GUID>$top</GUID><ParentGUID>$root</ParentGUID></Shot>
    <Shot><GUID>$root</GUID><ParentGUID>$none</ParentGUID></Shot>
  </Snapshots>
</Parallels_disk_image>
"@
}

AfterAll { Pop-Location }

Describe 'Parallels' {
    It 'is made, described, converted both ways, checked and resized' {
        $info = Convert-DiskImage disk.raw a.hdd -Verify
        $info.Format | Should -Be 'parallels'
        $info.ClusterSize | Should -Be 1MB
        $info.FormatSpecific.Variant | Should -Be 'Extended'
        Invoke-Qemu qemu-img compare -q -f raw -F parallels disk.raw a.hdd
        (Get-DiskImageHash a.hdd).Hash | Should -Be $hash
        (Test-DiskImage a.hdd).IsConsistent | Should -BeTrue
        (Resize-DiskImage a.hdd 40MB -PassThru).VirtualSize | Should -Be 40MB
        $null = Resize-DiskImage a.hdd 6MB -Shrink -Confirm:$false
        (Get-DiskImageHash a.hdd).Hash | Should -Be $hash
        $null = Optimize-DiskImage a.hdd
        $null = Invoke-Qemu qemu-img check -q a.hdd
        (New-DiskImage b.hdd 1GB -ClusterSize 64k).ClusterSize | Should -Be 64KB
        (Measure-DiskImage disk.raw -DestinationFormat parallels).FullyAllocated | Should -Be 7MB
    }

    It 'that was not closed is found and repaired' {
        $null = New-DiskImage open.hdd 4MB
        $bytes = [IO.File]::ReadAllBytes("$folder/open.hdd")
        [BitConverter]::GetBytes(0x746F6E59).CopyTo($bytes, 44)
        [IO.File]::WriteAllBytes("$folder/open.hdd", $bytes)
        (Get-DiskImageInfo open.hdd).DirtyFlag | Should -BeTrue
        (Test-DiskImage open.hdd).Findings.Kind | Should -Be 'Dirty'
        (Repair-DiskImage open.hdd -Mode All -Confirm:$false).CorruptionsFixed | Should -Be 1
        Test-DiskImage open.hdd -Quiet | Should -BeTrue
    }

    It 'bundles open by <_>' -ForEach 'vm.hdd', 'vm.hdd/DiskDescriptor.xml' {
        $info = Get-DiskImageInfo $_
        $info.Format | Should -Be 'parallels'
        $info.BackingFile | Should -Be 'root.hds'
        $info.Path | Should -Be (Join-Path $folder 'vm.hdd' 'DiskDescriptor.xml')
        (Get-DiskImageHash $_).Hash | Should -Be $hash
        ($info | Get-DiskImageHash).Hash | Should -Be $hash
        Test-DiskImage $_ -Quiet | Should -BeTrue
    }

    It 'bundles are written to at the top, and a snapshot is read' {
        Write-DiskImage vm.hdd 0 (, 9 * 512)
        (Read-DiskImage vm.hdd -Offset 0 -Length 2) | Should -Be 9, 9
        (Get-DiskImageHash vm.hdd -OpenOption "snapshot=$root").Hash | Should -Be $hash
        { Write-DiskImage vm.hdd 0 (1, 2) -OpenOption "snapshot=$root" -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageReadOnly,*'
        $null = Convert-DiskImage vm.hdd flat.qcow2 -Verify
        { Get-DiskImageInfo vm.hdd -OpenOption snapshot=x -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageInvalidOption,*'
    }
}

Describe 'Bundles of Parallels' {
    It 'are made, have snapshots taken, read, removed, and are resized' {
        (New-DiskImage new.hdd 6MB -Bundle).Path | Should -Be (Join-Path $folder 'new.hdd' 'DiskDescriptor.xml')
        $info = Convert-DiskImage disk.raw made.hdd -Option bundle=on -Verify
        $info.FormatSpecific.Variant | Should -Be 'Extended'
        (Get-ChildItem made.hdd).Count | Should -Be 2
        $taken = New-DiskImageSnapshot made.hdd '{aaaaaaaa-0000-0000-0000-000000000001}'
        Write-DiskImage made.hdd 0 (, 9 * 512)
        (Get-DiskImageHash made.hdd).Hash | Should -Not -Be $hash
        (Convert-DiskImage made.hdd kept.raw -Snapshot $taken.Id | Get-DiskImageHash -Format raw).Hash | Should -Be $hash
        (Get-DiskImageSnapshot made.hdd).Id | Should -Be $taken.Id
        { Merge-DiskImage made.hdd -Delete -Confirm:$false -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageInvalidOption,*'
        { Resize-DiskImage made.hdd 2MB -Shrink -Confirm:$false -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageUnsupported,*'
        (Resize-DiskImage made.hdd 8MB -PassThru).VirtualSize | Should -Be 8MB
        $taken | Remove-DiskImageSnapshot -Confirm:$false
        (Get-ChildItem made.hdd).Count | Should -Be 2
        (Read-DiskImage made.hdd -Offset 0 -Length 2) | Should -Be 9, 9
        Test-DiskImage made.hdd -Quiet | Should -BeTrue
    }

    It 'go back to a snapshot' {
        $null = Convert-DiskImage disk.raw back.hdd -Option bundle=on
        $null = New-DiskImageSnapshot back.hdd '{aaaaaaaa-0000-0000-0000-000000000002}'
        Write-DiskImage back.hdd 0 (, 9 * 512)
        $null = Restore-DiskImageSnapshot back.hdd '{aaaaaaaa-0000-0000-0000-000000000002}' -Confirm:$false
        (Get-DiskImageHash back.hdd).Hash | Should -Be $hash
    }

    It 'that are there are not replaced, nor merely tried' {
        $null = New-DiskImage once.hdd 1MB -Bundle
        { New-DiskImage once.hdd 1MB -Bundle -Force -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageInvalidOption,*'
        $null = New-DiskImage never.hdd 1MB -Bundle -WhatIf
        'never.hdd' | Should -Not -Exist
    }
}
