# What an image may open, and what a user agrees to.
BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    $folder = Join-Path $TestDrive 'references'
    $null = New-Item "$folder/vm", "$folder/bases" -ItemType Directory
    Push-Location $folder
    $null = New-TestDisk "$folder/secret" -Size 1MB -Seed 3
    $null = New-DiskImage bases/base.qcow2 1MB
    $null = New-DiskImage vm/top.qcow2 -BackingPath ../bases/base.qcow2

    # What -WhatIf says, as text.
    function Get-WhatIf([scriptblock] $Script) {
        (Invoke-FreshPwsh "Import-Module '$ModuleManifest'; Set-Location '$folder'; & { $Script } 3>`$null").Output
    }
}

AfterAll { Pop-Location }

Describe 'What images name' {
    It 'is by default opened in the image''s own folder only: <_>' -ForEach @(
        'Get-DiskImageInfo vm/top.qcow2 -BackingChain', 'Get-DiskImageHash vm/top.qcow2', 'Convert-DiskImage vm/top.qcow2 out.raw'
        'Read-DiskImage vm/top.qcow2 0 512', 'Write-DiskImage vm/top.qcow2 0 (1, 2)', 'Merge-DiskImage vm/top.qcow2', 'Resize-DiskImage vm/top.qcow2 2MB'
        'Compare-DiskImage vm/top.qcow2 bases/base.qcow2', 'Get-DiskImageMap vm/top.qcow2'
    ) {
        $before = (Get-FileHash vm/top.qcow2, bases/base.qcow2).Hash
        $said = "*top.qcow2: names the backing file '../bases/base.qcow2', which leads out of the image's folder ($(Join-Path $folder bases/base.qcow2))*-References LocalFiles*"
        { Invoke-Expression "$_ -ErrorAction Stop" } | Should -Throw -ErrorId 'DiskImageRefused,*' -ExpectedMessage $said
        (Get-FileHash vm/top.qcow2, bases/base.qcow2).Hash | Should -Be $before
        Test-Path out.raw | Should -BeFalse
    }

    It 'is opened with -References LocalFiles' {
        (Get-DiskImageInfo vm/top.qcow2 -BackingChain -References LocalFiles).Count | Should -Be 2
    }

    It 'is opened where the user names the same file in the call' {
        $null = New-DiskImage vm/merged.qcow2 -BackingPath ../bases/base.qcow2
        (Merge-DiskImage vm/merged.qcow2 -BasePath bases/base.qcow2 -Confirm:$false).Path | Should -Be (Join-Path $folder bases base.qcow2)
        Convert-DiskImage bases/base.qcow2 vm/converted.qcow2 -BackingPath ../bases/base.qcow2 -Verify | ForEach-Object BackingFile | Should -Be '../bases/base.qcow2'
        Set-DiskImageBacking vm/converted.qcow2 ../secret -BackingFormat raw -Unsafe -PassThru | ForEach-Object BackingFile | Should -Be '../secret'
        { Get-DiskImageHash vm/converted.qcow2 -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageRefused,*'
    }

    It 'does not lead to a data file outside the folder without consent' {
        $null = New-DiskImage vm/data.qcow2 1MB -Option 'data_file=../secret,keep_data_file=on,data_file_raw=on'
        $before = (Get-FileHash secret).Hash
        foreach ($change in { Write-DiskImage vm/data.qcow2 0 (1, 2) -ErrorAction Stop }, { Resize-DiskImage vm/data.qcow2 2MB -ErrorAction Stop }) {
            $change | Should -Throw -ErrorId 'DiskImageRefused,*' -ExpectedMessage "*names the data file '../secret'*-References LocalFiles*"
        }
        (Get-FileHash secret).Hash | Should -Be $before
        Write-DiskImage vm/data.qcow2 0 (1, 2) -References LocalFiles
        [IO.File]::ReadAllBytes("$folder/secret")[0..1] | Should -Be 1, 2
    }

    It 'is named by Get-DiskImageInfo without being opened' {
        $null = New-DiskImage own.qcow2 1MB -Option 'data_file=own.data'
        $info = Get-DiskImageInfo own.qcow2 -References None -WarningVariable warned
        $info.FormatSpecific.DataFile | Should -Be 'own.data'
        $info.Children.Role | Should -Be 'file'
        $warned | Should -BeNullOrEmpty
        (Get-DiskImageInfo vm/top.qcow2 -References None).BackingFile | Should -Be '../bases/base.qcow2'
        Rename-Item own.data gone.data
        (Get-DiskImageInfo own.qcow2 -WarningVariable warned -WarningAction Ignore).FormatSpecific.DataFile | Should -Be 'own.data'
        "$warned" | Should -BeLike "*its data file 'own.data' cannot be opened*"
        { Read-DiskImage own.qcow2 0 1 -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageNotFound,*' -ExpectedMessage "*its data file 'own.data'*"
        $found = Test-DiskImage own.qcow2
        $found.IsConsistent | Should -BeFalse
        $found.Findings.Kind | Should -Be 'DataFile'
    }

    It 'is told where a raw disk''s name hides an image' {
        $null = New-DiskImage near.qcow2 1MB
        $null = New-DiskImage guest.img -Format qcow2 -BackingPath near.qcow2
        $null = Get-DiskImageHash guest.img -WarningVariable warned -WarningAction Ignore
        "$warned" | Should -BeLike "*guest.img: has the name of a raw disk*names the backing file 'near.qcow2'*-Format raw*"
        $null = Get-DiskImageHash guest.img -Format qcow2 -WarningVariable warned
        $warned | Should -BeNullOrEmpty
    }

    It 'is followed as deep as -MaximumChainDepth says' {
        $null = New-DiskImage c1.qcow2 1MB
        2..3 | ForEach-Object { $null = New-DiskImage "c$_.qcow2" -BackingPath "c$($_ - 1).qcow2" }
        (Get-DiskImageInfo c3.qcow2 -BackingChain -MaximumChainDepth 3).Count | Should -Be 3
        { Get-DiskImageInfo c3.qcow2 -BackingChain -MaximumChainDepth 2 -ErrorAction Stop } |
            Should -Throw -ErrorId 'DiskImageRefused,*' -ExpectedMessage '*longer than 2 images*-MaximumChainDepth*'
    }
}

Describe 'What a user agrees to' {
    It 'names the data file that is written' {
        $null = New-DiskImage two.qcow2 1MB -Option 'data_file=two.data'
        $both = "two.qcow2 and its data file *two.data*"
        Get-WhatIf { Write-DiskImage two.qcow2 0 (1, 2) -WhatIf } | Should -BeLike "*$both"
        Get-WhatIf { Resize-DiskImage two.qcow2 2MB -WhatIf } | Should -BeLike "*$both"
        Get-WhatIf { New-DiskImage three.qcow2 1MB -Option 'data_file=three.data' -WhatIf } | Should -BeLike '*three.qcow2 and its data file *three.data*'
        $null = New-DiskImage over.qcow2 -BackingPath two.qcow2
        Get-WhatIf { Merge-DiskImage over.qcow2 -WhatIf } | Should -BeLike "*Merge into *$both*"
    }

    It 'names the data file that goes with the image: <_>' -ForEach @(
        'Repair-DiskImage kept.qcow2 -Mode All -WhatIf', 'New-DiskImageSnapshot kept.qcow2 s -WhatIf', 'New-DiskImageBitmap kept.qcow2 c -WhatIf'
        'Remove-DiskImageBitmap kept.qcow2 a -WhatIf', 'Clear-DiskImageBitmap kept.qcow2 a -WhatIf', 'Disable-DiskImageBitmap kept.qcow2 a -WhatIf'
        'Enable-DiskImageBitmap kept.qcow2 b -WhatIf', 'Merge-DiskImageBitmap kept.qcow2 a b -WhatIf'
    ) {
        Remove-Item kept.qcow2, kept.data -ErrorAction Ignore
        $null = New-DiskImage kept.qcow2 1MB -Option 'data_file=kept.data'
        $null = New-DiskImageBitmap kept.qcow2 a
        $null = New-DiskImageBitmap kept.qcow2 b -Disabled
        if ($_ -like 'Repair*') {
            # A refcount more than there is.
            $bytes = [IO.File]::ReadAllBytes("$folder/kept.qcow2")
            $block = 0
            $bytes[65536..65543] | ForEach-Object { $block = $block * 256 + $_ }
            $bytes[$block + 1] = 2
            [IO.File]::WriteAllBytes("$folder/kept.qcow2", $bytes)
        }
        $before = (Get-FileHash kept.qcow2, kept.data).Hash
        Get-WhatIf ([scriptblock]::Create($_)) | Should -BeLike '*kept.qcow2 and its data file *kept.data*'
        (Get-FileHash kept.qcow2, kept.data).Hash | Should -Be $before
    }

    It 'names the raw base of a merge, and says who else stands on it' {
        $null = New-TestDisk "$folder/base.raw" -Size 1MB -Seed 4
        'a', 'b' | ForEach-Object { $null = New-DiskImage "$_.qcow2" -BackingPath base.raw }
        $said = Get-WhatIf { Merge-DiskImage a.qcow2 -WhatIf 3>&1 }
        $said | Should -BeLike '*Merge into *base.raw, then empty it*a.qcow2*'
        $null = Merge-DiskImage a.qcow2 -WhatIf -WarningVariable warned -WarningAction Ignore
        @($warned).Count | Should -Be 1
        "$warned" | Should -BeLike '*b.qcow2: stands on *base.raw, which the merge changes, so it will not read as before.'
    }

    It 'is bounded' {
        $null = New-DiskImage many.qcow2 4MB -ClusterSize 512
        # Every second cluster behind what the image uses has a refcount that nothing accounts for.
        $stream = [IO.File]::Open("$folder/many.qcow2", 'Open', 'ReadWrite')
        try {
            $number = { param($at) $bytes = [byte[]]::new(8); $stream.Position = $at; $null = $stream.Read($bytes); [Array]::Reverse($bytes); [BitConverter]::ToInt64($bytes) }
            $block = & $number (& $number 48)
            $used = $stream.Length / 512
            for ($i = $used; $i -lt 256; $i += 2) { $stream.Position = $block + 2 * $i; $stream.Write([byte[]](0, 1)) }
            $stream.SetLength(256 * 512)
        } finally { $stream.Dispose() }
        $found = Test-DiskImage many.qcow2
        $found.Findings.Count | Should -BeGreaterThan 30
        $lines = (Get-WhatIf { Repair-DiskImage many.qcow2 -WhatIf }) -split '\r?\n'
        $lines.Count | Should -Be 22
        $lines[-1] | Should -BeLike "*$($IsWine ? '?' : '…') and $($found.Findings.Count - 20) more*" # Wine's console has code page 437
        ($found | Format-List | Out-String) | Should -BeLike "*… and $($found.Findings.Count - 10) more*"
    }
}

Describe 'Test-DiskImage' {
    It 'finds that the backing image of a <_> is missing' -ForEach 'qcow2', 'vhd', 'vhdx' {
        $null = New-DiskImage "lost.$_" 4MB
        $null = New-DiskImage "child.$_" -BackingPath "lost.$_"
        Remove-Item "lost.$_"
        $found = Test-DiskImage "child.$_"
        $found.IsConsistent | Should -BeTrue
        $found.Findings.Severity | Should -Be 'Warning'
        $found.Findings.Message | Should -BeLike "*lost.$_*"
    }

    It 'finds that a backing image is outside the folder' {
        (Test-DiskImage vm/top.qcow2).Findings.Message | Should -BeLike '*-References LocalFiles*'
        (Test-DiskImage vm/top.qcow2 -References LocalFiles).Findings | Should -BeNullOrEmpty
    }

    It 'warns of a bitmap that is in use' {
        New-TestBitmapDisk $folder
        $bytes = [IO.File]::ReadAllBytes("$folder/disk.qcow2")
        # The directory entry of 'week' ends with its name; the last byte of its flags stands 9 bytes before that.
        $at = [Text.Encoding]::Latin1.GetString($bytes).LastIndexOf('week', [StringComparison]::Ordinal)
        $bytes[$at - 9] = $bytes[$at - 9] -bor 1
        [IO.File]::WriteAllBytes("$folder/disk.qcow2", $bytes)
        (Get-DiskImageBitmap disk.qcow2 week).Flags | Should -Contain 'in-use'
        $found = Test-DiskImage disk.qcow2
        $found.IsConsistent | Should -BeTrue
        $found.Findings.Kind | Should -Be 'BitmapInUse'
        $found.Findings.Message | Should -BeLike "*'week'*"
    }
}
