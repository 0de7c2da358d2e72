# What a new image is told of the chain that it is to stand on.
BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    $folder = Join-Path $TestDrive 'chains'
    $null = New-Item "$folder/other" -ItemType Directory
    Push-Location $folder
    $null = New-DiskImage base.vhd 1MB
    $null = New-DiskImage base.vhdx 4MB
    $null = New-DiskImage child.vhdx -BackingPath base.vhdx
    $null = New-DiskImage child.vhd -BackingPath base.vhd
    $null = New-DiskImage parent.vdi 1MB
    $null = New-DiskImage child.vdi -BackingPath parent.vdi
}

AfterAll { Pop-Location }

Describe 'New-DiskImage over a chain' {
    It 'takes no more images than -MaximumChainDepth' {
        { New-DiskImage deep.vhd -BackingPath child.vhd -MaximumChainDepth 1 -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageRefused,*'
        (New-DiskImage deep.vhd -BackingPath child.vhd -MaximumChainDepth 3).BackingFile | Should -Match 'child\.vhd'
    }

    It 'takes a parent that was written to since only with -IgnoreIdMismatch' {
        Write-DiskImage base.vhdx 0 1, 2, 3
        { New-DiskImage late.vhdx -BackingPath child.vhdx -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImage*'
        Test-Path late.vhdx | Should -BeFalse
        (New-DiskImage late.vhdx -BackingPath child.vhdx -IgnoreIdMismatch).Format | Should -Be 'vhdx'
    }

    It 'finds a parent that was moved in a folder of -ParentSearchPath' {
        Move-Item parent.vdi other
        { New-DiskImage top.vdi -BackingPath child.vdi -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImage*'
        (New-DiskImage top.vdi -BackingPath child.vdi -ParentSearchPath other).Format | Should -Be 'vdi'
    }

    It 'needs no backing image with -Unsafe, but its format and a size' {
        $made = New-DiskImage early.qcow2 2MB -BackingPath later.qcow2 -BackingFormat qcow2 -Unsafe
        $made.BackingFile, $made.BackingFormat, $made.VirtualSize | Should -Be 'later.qcow2', 'qcow2', 2MB
        $null = New-DiskImage later.qcow2 2MB
        Write-DiskImage later.qcow2 0 7, 8, 9
        (Read-DiskImage early.qcow2 0 3) | Should -Be 7, 8, 9
        Invoke-Qemu qemu-img check -q early.qcow2
        { New-DiskImage no.qcow2 2MB -BackingPath no-such.qcow2 -Unsafe -ErrorAction Stop } | Should -Throw '*-BackingFormat*'
        { New-DiskImage no.qcow2 -BackingPath no-such.qcow2 -BackingFormat qcow2 -Unsafe -ErrorAction Stop } | Should -Throw '*-Size*'
        { New-DiskImage no.qcow2 2MB -Unsafe -ErrorAction Stop } | Should -Throw '*-BackingPath*'
        Test-Path no.qcow2 | Should -BeFalse
    }
}

Describe 'Merge-DiskImage -RateLimit' {
    It 'merges as without it' {
        $null = New-TestDisk "$folder/disk.raw" -Size 1MB -Seed 441
        $null = Convert-DiskImage disk.raw below.qcow2 -Format raw
        $null = New-DiskImage above.qcow2 -BackingPath below.qcow2 -BackingFormat qcow2
        Write-DiskImage above.qcow2 4096 ([byte[]](1..100))
        $expected = (Get-DiskImageHash above.qcow2).Hash
        $null = Merge-DiskImage above.qcow2 -RateLimit 100MB -Confirm:$false
        (Get-DiskImageHash below.qcow2).Hash | Should -Be $expected
        (Get-DiskImageMap above.qcow2 | Where-Object Depth -EQ 0) | Should -BeNullOrEmpty
    }
}

Describe 'Images that another writes to' {
    It 'are looked at with -ForceShare, and refused without' {
        $null = New-DiskImage busy.qcow2 1MB
        $null = New-DiskImageSnapshot busy.qcow2 first
        $null = New-DiskImageBitmap busy.qcow2 day
        $secret = ConvertTo-SecureString 'open' -AsPlainText -Force
        $null = New-DiskImage busy.luks 1MB -NewSecret $secret -Option 'iter-time=1'
        $exports = Start-DiskImageExport busy.qcow2 -Port 0
        $exports, (Start-DiskImageExport busy.luks -Port 0 -Secret $secret) | Out-Null
        try {
            { Get-DiskImageBitmap busy.qcow2 -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageLocked,*'
            (Get-DiskImageBitmap busy.qcow2 -ForceShare).Name | Should -Be 'day'
            { Get-DiskImageSnapshot busy.qcow2 -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageLocked,*'
            (Get-DiskImageSnapshot busy.qcow2 -ForceShare).Name | Should -Be 'first'
            { Test-DiskImage busy.qcow2 -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageLocked,*'
            (Test-DiskImage busy.qcow2 -ForceShare).Format | Should -Be 'qcow2'
            { Get-DiskImageKeySlot busy.luks -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageLocked,*'
            @(Get-DiskImageKeySlot busy.luks -ForceShare).Count | Should -Be 1
            { Test-DiskImageSecret busy.luks -Secret $secret -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageLocked,*'
            Test-DiskImageSecret busy.luks -Secret $secret -ForceShare | Should -BeTrue
        } finally {
            Get-DiskImageExport | Stop-DiskImageExport
        }
    }
}

Describe 'Parameters that tell one of several' {
    It '-Id is which of two snapshots of one name is gone back to' {
        $null = New-DiskImage twice.qcow2 1MB
        foreach ($i in 1, 2) {
            Write-DiskImage twice.qcow2 0 $i
            Invoke-Qemu qemu-img snapshot -c same twice.qcow2
        }

        Write-DiskImage twice.qcow2 0 9
        Restore-DiskImageSnapshot twice.qcow2 same -Id 1 -Confirm:$false
        Read-DiskImage twice.qcow2 0 1 | Should -Be 1
        Restore-DiskImageSnapshot twice.qcow2 same -Id 2 -Confirm:$false
        Read-DiskImage twice.qcow2 0 1 | Should -Be 2
    }

    It '-SourceFormat is the format of the image that bitmaps come from' {
        $null = New-DiskImage from.qcow2 1MB
        $null = New-DiskImageBitmap from.qcow2 day
        Write-DiskImage from.qcow2 0 1
        $null = New-DiskImage into.qcow2 1MB
        $null = New-DiskImageBitmap into.qcow2 all
        Merge-DiskImageBitmap into.qcow2 all day -SourcePath from.qcow2 -SourceFormat qcow2
        (Get-DiskImageBitmap into.qcow2 all -Extents).Length | Should -Be 65536
        { Merge-DiskImageBitmap into.qcow2 all day -SourcePath from.qcow2 -SourceFormat raw -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImage*'
    }

    It '-LiteralPath names an image with wildcards in its name, for Get-DiskImageLock too' {
        $null = New-DiskImage 'a[1].raw' 1MB
        $null = Start-DiskImageExport -LiteralPath 'a[1].raw' -Port 0
        try {
            (Get-DiskImageLock -LiteralPath 'a[1].raw').ProcessId | Should -Contain $PID
        } finally {
            Get-DiskImageExport | Stop-DiskImageExport
        }
    }
}
