BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    $folder = Join-Path $TestDrive 'vdi'
    $null = New-Item $folder -ItemType Directory
    Push-Location $folder
}

AfterAll { Pop-Location }

Describe 'Differencing VDI' {
    BeforeEach {
        Remove-Item * -Recurse
        $null = New-TestDisk "$folder/disk.raw" 6MB 23
        $null = Convert-DiskImage disk.raw base.vdi
        $null = New-DiskImage mid.vdi -BackingPath base.vdi
        Write-DiskImage mid.vdi 2MB (, 171 * 700)
        $null = New-DiskImage top.vdi -BackingPath mid.vdi -Comment 'the third'
        Write-DiskImage top.vdi 4MB (, 172 * 700)
        $null = Convert-DiskImage top.vdi expected.raw
        $hash = (Get-DiskImageHash expected.raw -Format raw).Hash
    }

    It 'says what it stands on, and is checked' {
        $info = Get-DiskImageInfo top.vdi
        $info.BackingFile | Should -Be 'mid.vdi'
        $info.FormatSpecific.ImageType | Should -Be 'Differencing'
        $info.FormatSpecific.ParentId | Should -Be (Get-DiskImageInfo mid.vdi).FormatSpecific.ImageId
        $info.FormatSpecific.Comment | Should -Be 'the third'
        @(Get-DiskImageInfo top.vdi -BackingChain).Path | Should -Be (Join-Path $folder top.vdi), (Join-Path $folder mid.vdi), (Join-Path $folder base.vdi)
        Test-DiskImage top.vdi -Quiet | Should -BeTrue
    }

    It 'is merged, and the chain goes on to open' {
        $null = Merge-DiskImage top.vdi -Confirm:$false
        (Get-DiskImageHash top.vdi).Hash | Should -Be $hash
        (Get-DiskImageHash mid.vdi).Hash | Should -Be $hash
        $null = Merge-DiskImage mid.vdi -Confirm:$false
        (Get-DiskImageHash base.vdi).Hash | Should -Be $hash
        Invoke-Qemu qemu-img compare -q -f raw -F vdi expected.raw base.vdi
        (Get-DiskImageHash top.vdi).Hash | Should -Be $hash
    }

    It 'is put on another parent, or on none' {
        $null = Set-DiskImageBacking top.vdi base.vdi
        (Get-DiskImageInfo top.vdi).BackingFile | Should -Be 'base.vdi'
        (Get-DiskImageHash top.vdi).Hash | Should -Be $hash
        $null = Set-DiskImageBacking top.vdi ''
        (Get-DiskImageHash top.vdi).Hash | Should -Be $hash
        Invoke-Qemu qemu-img compare -q -f raw -F vdi expected.raw top.vdi
    }

    It 'is put on another parent whose UUID it then has, and on a strange one only with -Unsafe' {
        $null = New-Item old -ItemType Directory
        Move-Item mid.vdi old/renamed.vdi
        { Set-DiskImageBacking top.vdi base.vdi -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageNotFound,*'
        $null = Set-DiskImageBacking top.vdi base.vdi -ParentSearchPath old, .
        $info = Get-DiskImageInfo top.vdi
        $info.FormatSpecific.ParentId | Should -Be (Get-DiskImageInfo base.vdi).FormatSpecific.ImageId
        (Get-DiskImageHash top.vdi).Hash | Should -Be $hash
        $null = New-DiskImage strange.vdi 6MB
        $null = Set-DiskImageBacking top.vdi strange.vdi -Unsafe
        $info = Get-DiskImageInfo top.vdi
        $info.FormatSpecific.ParentId | Should -Be (Get-DiskImageInfo strange.vdi).FormatSpecific.ImageId
        $info.BackingFile | Should -Be 'strange.vdi'
    }

    It 'names an undo image and refuses it' {
        $bytes = [IO.File]::ReadAllBytes("$folder/base.vdi")
        $bytes[0x4C] = 3
        [IO.File]::WriteAllBytes("$folder/undo.vdi", $bytes)
        { Get-DiskImageHash undo.vdi -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageUnsupported,*' -ExpectedMessage '*undo (3)*'
    }

    It 'finds a parent that was moved and renamed with -ParentSearchPath' {
        $null = New-Item old -ItemType Directory
        Move-Item mid.vdi old/renamed.vdi
        { Get-DiskImageHash top.vdi -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageNotFound,*' -ExpectedMessage '*-ParentSearchPath*'
        (Get-DiskImageHash top.vdi -ParentSearchPath old, .).Hash | Should -Be $hash
        (Get-DiskImageInfo top.vdi).BackingFile | Should -BeLike '{*}'
        $check = Test-DiskImage top.vdi
        $check.IsConsistent | Should -BeTrue
        $check.Findings.Kind | Should -Be 'Parent'
    }

    It 'is told of where its parent is changed' {
        $null = New-DiskImage other.vdi -BackingPath mid.vdi
        $null = Merge-DiskImage top.vdi -Confirm:$false -WarningVariable warnings -WarningAction SilentlyContinue
        "$warnings" | Should -BeLike '*other.vdi*'
    }

    It 'refuses a parent that was written to, and takes it with -IgnoreIdMismatch' {
        Write-DiskImage mid.vdi 0 (1, 2, 3)
        { Get-DiskImageHash top.vdi -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageCorrupt,*' -ExpectedMessage '*written to after*'
        Get-DiskImageHash top.vdi -IgnoreIdMismatch | Should -Not -BeNullOrEmpty
        $null = Set-DiskImageBacking top.vdi mid.vdi -Unsafe
        Get-DiskImageHash top.vdi | Should -Not -BeNullOrEmpty
    }

    It 'has its identities and its remark changed' {
        $id = New-Guid
        $null = Set-DiskImageOption mid.vdi -Option @{ uuid = $id; comment = 'anew' } -WarningAction SilentlyContinue
        $null = Set-DiskImageOption top.vdi -Option @{ parent_uuid = $id }
        (Get-DiskImageHash top.vdi).Hash | Should -Be $hash
        (Get-DiskImageInfo mid.vdi).FormatSpecific.Comment | Should -Be 'anew'
    }

    It 'VirtualBox is a profile' {
        (Convert-DiskImage disk.raw box.vdi -Profile VirtualBox).Format | Should -Be 'vdi'
        Test-DiskImage box.vdi -Profile VirtualBox -Quiet | Should -BeTrue
        $null = Set-DiskImageOption box.vdi -Option "uuid=$([guid]::Empty)" -WarningAction SilentlyContinue
        (Test-DiskImage box.vdi -Profile VirtualBox).ProfileRefusals | Should -BeLike '*UUID*'
        (Convert-DiskImage disk.raw a.qcow2 | Test-DiskImage -Profile VirtualBox).ProfileRefusals | Should -BeLike '*qcow2*'
    }
}
