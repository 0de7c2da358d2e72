BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    $folder = Join-Path $TestDrive 'repair'
    $null = New-Item $folder -ItemType Directory
    Push-Location $folder
    $null = New-TestDisk "$folder/disk.raw" -Size 2MB -Seed 61
    $null = Convert-DiskImage disk.raw good.qcow2
    $bytes = [IO.File]::ReadAllBytes("$folder/good.qcow2")

    # A big-endian number of the good image.
    function Get-Offset([long] $At) {
        $number = [byte[]]$bytes[$At..($At + 7)]
        [Array]::Reverse($number)
        [BitConverter]::ToInt64($number, 0)
    }

    # Changes bytes of a copy of the good image.
    function New-Damaged([string] $Name, [long] $Offset, [byte[]] $Changed) {
        Copy-Item good.qcow2 $Name
        $file = [IO.File]::OpenWrite("$folder/$Name")
        $null = $file.Seek($Offset, 'Begin')
        $file.Write($Changed)
        $file.Dispose()
    }

    # A cluster counted twice; the L1 table's cluster not counted; not closed.
    $block = Get-Offset (Get-Offset 48)
    function Reset-Damage {
        New-Damaged leak.qcow2 ($block + 2 * 5) 0, 2
        New-Damaged corrupt.qcow2 ($block + 2 * (Get-Offset 40) / 64KB) 0, 0
        New-Damaged dirty.qcow2 79 1
    }
}

AfterAll { Pop-Location }

Describe 'Repair-DiskImage' {
    BeforeEach { Reset-Damage }

    It 'gives back lost space' {
        $result = Repair-DiskImage leak.qcow2
        $result | Should -BeOfType DiskImage.PowerShell.DiskImageCheckResult
        $result.LeaksFixed | Should -Be 1
        $result.Leaks | Should -Be 0
        $result.IsConsistent | Should -BeTrue
        Invoke-Qemu qemu-img check -q leak.qcow2
        (Compare-DiskImage disk.raw leak.qcow2).Identical | Should -BeTrue
    }

    It 'repairs corruption only with -Mode All' {
        $before = (Get-FileHash corrupt.qcow2).Hash
        $result = Repair-DiskImage corrupt.qcow2
        $result.Corruptions | Should -BeGreaterThan 0
        (Get-FileHash corrupt.qcow2).Hash | Should -Be $before
        $result = Repair-DiskImage corrupt.qcow2 -Mode All
        $result.CorruptionsFixed | Should -BeGreaterThan 0
        $result.IsConsistent | Should -BeTrue
        Invoke-Qemu qemu-img check -q corrupt.qcow2
        Invoke-Qemu qemu-img compare -q disk.raw corrupt.qcow2
    }

    It 'closes an image that was left open' {
        (Repair-DiskImage dirty.qcow2 All).IsConsistent | Should -BeTrue
        Test-DiskImage dirty.qcow2 -Quiet | Should -BeTrue
    }

    It 'prints the plan with -WhatIf, a line for each finding, and changes nothing' {
        $before = (Get-FileHash corrupt.qcow2).Hash
        Repair-DiskImage corrupt.qcow2 All -WhatIf | Should -BeNullOrEmpty
        (Get-FileHash corrupt.qcow2).Hash | Should -Be $before
        $fresh = Invoke-FreshPwsh "Import-Module '$ModuleManifest'; Repair-DiskImage '$folder/corrupt.qcow2' All -WhatIf"
        $fresh.Output | Should -Match '(?m)^What if: Corruption: .+ Would set the refcount to 1\.$'
        $fresh.Output | Should -Not -Match '[^.] Would '
        $fresh = Invoke-FreshPwsh "Import-Module '$ModuleManifest'; Repair-DiskImage '$folder/leak.qcow2' -WhatIf"
        $fresh.Output | Should -Match '(?m)^What if: Leak: .+ Would give the space back\.$'
    }

    It 'says with -WhatIf what it cannot repair' {
        $null = New-DiskImage parent.vhdx -Size 10MB
        $null = New-DiskImage child.vhdx -BackingPath parent.vhdx
        $latin1 = [Text.Encoding]::Latin1
        $image = $latin1.GetString([IO.File]::ReadAllBytes("$folder/child.vhdx"))
        $key = { $latin1.GetString([Text.Encoding]::Unicode.GetBytes($args[0])) }
        $damaged = $latin1.GetBytes($image.Replace((& $key 'parent_linkage'), (& $key 'parent_nothing')))
        $damaged[64KB] = 0 # the first header
        [IO.File]::WriteAllBytes("$folder/child.vhdx", $damaged)
        $fresh = Invoke-FreshPwsh "Import-Module '$ModuleManifest'; Repair-DiskImage '$folder/child.vhdx' All -WhatIf"
        $fresh.Output | Should -Match '(?m)^What if: Repair 1 of 2 findings in '
        $fresh.Output | Should -Match '(?m)^What if: Corruption: .+\. Cannot be repaired\.$'
    }

    It 'finds a parent that does not fit, as Test-DiskImage does' {
        $null = New-DiskImage parent.vhd 4MB -Force
        $null = New-DiskImage child.vhd -BackingPath parent.vhd
        Set-DiskImageOption parent.vhd -Option unique_id=new -WarningAction Ignore
        $found = Test-DiskImage child.vhd
        $found.IsConsistent | Should -BeFalse
        $result = Repair-DiskImage child.vhd All
        $result.IsConsistent | Should -BeFalse
        $result.Findings.Message | Should -Be $found.Findings.Message
        $file = [IO.File]::OpenWrite("$folder/child.vhd")
        $file.Position = 30
        $file.WriteByte(77) # in the copy of the footer
        $file.Dispose()
        $result = Repair-DiskImage child.vhd All
        $result.CorruptionsFixed | Should -Be 1
        $result.Findings.Kind | Should -Be 'Parent'
    }

    It 'says with -WhatIf that broken bitmaps are dropped' {
        Copy-Item good.qcow2 bitmap.qcow2
        New-DiskImageBitmap bitmap.qcow2 b | Out-Null
        $file = [IO.File]::Open("$folder/bitmap.qcow2", 'Open', 'ReadWrite')
        $image = [byte[]]::new($file.Length)
        $file.ReadExactly($image, 0, $image.Length)
        $extension = $image[103] # the header's length
        while ([Convert]::ToHexString($image, $extension, 4) -ne '23852875') {
            $extension += 8 + [Math]::Ceiling(($image[$extension + 6] * 256 + $image[$extension + 7]) / 8) * 8
        }
        $directory = [byte[]]$image[($extension + 24)..($extension + 31)]
        [Array]::Reverse($directory)
        $file.Position = [BitConverter]::ToInt64($directory, 0) + 16 # the type
        $file.WriteByte(77)
        $file.Dispose()
        $fresh = Invoke-FreshPwsh "Import-Module '$ModuleManifest'; Repair-DiskImage '$folder/bitmap.qcow2' All -WhatIf"
        $fresh.Output | Should -Match '(?m)^What if: Corruption: .+ type 77 .+ Would drop this bitmap\.$'
        (Repair-DiskImage bitmap.qcow2 All).IsConsistent | Should -BeTrue
        (Get-DiskImageInfo bitmap.qcow2).Bitmaps | Should -BeNullOrEmpty
    }

    It 'does not touch an image in which there is nothing to repair' {
        $before = (Get-FileHash good.qcow2).Hash
        (Repair-DiskImage good.qcow2 All).IsConsistent | Should -BeTrue
        (Get-FileHash good.qcow2).Hash | Should -Be $before
    }

    It 'goes on after a bad item, and cannot repair raw images' {
        $results = 'nowhere.qcow2', 'disk.raw', 'leak.qcow2' | Repair-DiskImage -ErrorAction SilentlyContinue -ErrorVariable problems
        $results.LeaksFixed | Should -Be 1
        $problems.FullyQualifiedErrorId -replace ',.*' | Should -Be 'DiskImageNotFound', 'DiskImageUnsupported'
        $problems[1].ToString() | Should -Match "format 'raw'"
    }
}
