BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    $examples = Join-Path $RepositoryRoot 'examples'
    $folder = Join-Path $TestDrive 'examples'
    $null = New-Item $folder -ItemType Directory
}

Describe 'Every example' {
    It 'is tried here and listed in the README' {
        $tried = Get-Content $PSCommandPath -Raw
        $listed = Get-Content "$examples/README.md" -Raw
        $scripts = Get-ChildItem $examples -Filter *.ps1
        $scripts.Count | Should -BeGreaterThan 0
        foreach ($script in $scripts) {
            $tried | Should -Match ([regex]::Escape("`$examples/$($script.Name)"))
            $listed | Should -Match ([regex]::Escape($script.Name))
            (Get-Help $script.FullName).Synopsis | Should -Not -Match ([regex]::Escape($script.Name)) -Because 'it has help'
        }
    }
}

Describe 'Convert-ImageFolder.ps1' {
    It 'converts what is not converted yet, and reports what cannot be' {
        $from = (New-Item "$folder/from" -ItemType Directory).FullName
        $null = New-TestDisk "$from/a.raw" -Size 1MB -Seed 301
        $null = Convert-DiskImage "$from/a.raw" "$from/b.vhdx"
        Set-Content "$from/c.vhdx" ('vhdxfile' + 'x' * 5000)
        $made = & "$examples/Convert-ImageFolder.ps1" $from "$folder/to" -Compress -ErrorAction SilentlyContinue -ErrorVariable problems
        $made.Path | Sort-Object | Should -Be (Join-Path $folder 'to' 'a.qcow2'), (Join-Path $folder 'to' 'b.qcow2')
        ($problems | Where-Object { "$_" -match 'c\.vhdx' }) | Should -Not -BeNullOrEmpty
        (Compare-DiskImage "$from/a.raw" "$folder/to/b.qcow2").Identical | Should -BeTrue
        Remove-Item "$from/c.vhdx"
        & "$examples/Convert-ImageFolder.ps1" $from "$folder/to" | Should -BeNullOrEmpty
    }
}

Describe 'Get-ImageHealth.ps1' {
    It 'has a row for each image, sound or not' {
        $health = (New-Item "$folder/health" -ItemType Directory).FullName
        $null = New-DiskImage "$health/good.qcow2" -Size 1MB
        $null = New-DiskImage "$health/leaf.qcow2" -BackingPath good.qcow2 -BackingFormat qcow2
        Set-Content "$health/bad.vhdx" ('vhdxfile' + 'x' * 5000)
        $rows = & "$examples/Get-ImageHealth.ps1" $health | Sort-Object Name
        $rows.Name | Should -Be 'bad.vhdx', 'good.qcow2', 'leaf.qcow2'
        $rows[0].Sound | Should -BeNullOrEmpty
        $rows[0].Problem | Should -Match 'bad\.vhdx'
        $rows[1, 2].Sound | Should -Be $true, $true
        $rows[2].Backing | Should -Be 'good.qcow2'
    }
}

Describe 'New-LabDisk.ps1' {
    It 'makes disks that read as the base, and leaves those that are there' {
        $lab = (New-Item "$folder/lab" -ItemType Directory).FullName
        $null = New-TestDisk "$lab/base.raw" -Size 1MB -Seed 302
        $null = Convert-DiskImage "$lab/base.raw" "$lab/base.qcow2"
        $made = & "$examples/New-LabDisk.ps1" "$lab/base.qcow2" -Count 2 -Name 'pc{0:00}.qcow2'
        $made.Path | Should -Be (Join-Path $lab 'pc01.qcow2'), (Join-Path $lab 'pc02.qcow2')
        (Compare-DiskImage "$lab/base.raw" "$lab/pc02.qcow2").Identical | Should -BeTrue
        (Get-Item "$lab/base.qcow2").IsReadOnly | Should -BeTrue
        Write-DiskImage "$lab/pc01.qcow2" 0 (1, 2, 3)
        (& "$examples/New-LabDisk.ps1" "$lab/base.qcow2" -Count 3 -Name 'pc{0:00}.qcow2').Path | Should -Be (Join-Path $lab 'pc03.qcow2')
        (Read-DiskImage "$lab/pc01.qcow2" 0 3) | Should -Be 1, 2, 3
        (& "$examples/New-LabDisk.ps1" "$lab/base.qcow2" -Count 1 -Name 'pc{0:00}.qcow2' -Reset).Path | Should -Be (Join-Path $lab 'pc01.qcow2')
        (Compare-DiskImage "$lab/base.raw" "$lab/pc01.qcow2").Identical | Should -BeTrue
        (Get-Item "$lab/base.qcow2").IsReadOnly = $false
    }
}

Describe 'Optimize-ImageFolder.ps1' {
    It 'makes images smaller, but none that another stands on' {
        $vms = (New-Item "$folder/vms" -ItemType Directory).FullName
        foreach ($name in 'base', 'leaf') {
            $null = $name -eq 'base' ? (New-DiskImage "$vms/base.qcow2" -Size 2MB) : (New-DiskImage "$vms/leaf.qcow2" -BackingPath "$vms/base.qcow2" -BackingFormat qcow2)
            Write-DiskImage "$vms/$name.qcow2" 0 ([byte[]]::new(1MB) + (, 7 * 65536))
        }

        $rows = & "$examples/Optimize-ImageFolder.ps1" $vms -WhatIf
        $rows | Should -BeNullOrEmpty
        $rows = & "$examples/Optimize-ImageFolder.ps1" $vms
        @($rows).Path | Should -Be (Join-Path $vms 'leaf.qcow2')
        $rows.Gained | Should -BeGreaterThan 0
        $rows.After | Should -Be (Get-Item "$vms/leaf.qcow2").Length
    }
}

Describe 'Convert-ImageParallel.ps1' {
    It 'converts in jobs, tells what cannot be, and leaves no job' {
        $from = (New-Item "$folder/parallel" -ItemType Directory).FullName
        foreach ($i in 1..3) {
            $null = New-TestDisk "$from/$i.raw" -Size 1MB -Seed (310 + $i)
        }

        Set-Content "$from/bad.vhdx" ('vhdxfile' + 'x' * 5000)
        $made = Get-ChildItem $from -File | & "$examples/Convert-ImageParallel.ps1" -Destination "$from/out" -ThrottleLimit 2 -ErrorAction SilentlyContinue -ErrorVariable problems
        $made.Path | Sort-Object | Should -Be (1..3 | ForEach-Object { Join-Path $from "out/$_.qcow2" })
        "$problems" | Should -Match 'bad\.vhdx'
        foreach ($i in 1..3) {
            (Compare-DiskImage "$from/$i.raw" "$from/out/$i.qcow2").Identical | Should -BeTrue
        }

        Get-Job | Should -BeNullOrEmpty
    }
}

Describe 'Test-BackupSet.ps1' {
    It 'knows new, good, changed, damaged and missing images' {
        $set = (New-Item "$folder/backup" -ItemType Directory).FullName
        foreach ($name in 'same', 'changed', 'damaged', 'gone') {
            $null = New-TestDisk "$set/$name.raw" -Size 1MB -Seed 321
            $null = Convert-DiskImage "$set/$name.raw" "$set/$name.qcow2" -Format raw
            Remove-Item "$set/$name.raw"
        }

        (& "$examples/Test-BackupSet.ps1" $set).State | Sort-Object -Unique | Should -Be 'New'
        $global:LASTEXITCODE | Should -Be 0
        (& "$examples/Test-BackupSet.ps1" $set).State | Sort-Object -Unique | Should -Be 'Good'
        $null = Convert-DiskImage "$set/same.qcow2" "$set/same.qcow2.new" -DestinationFormat qcow2 -Compress
        Move-Item "$set/same.qcow2.new" "$set/same.qcow2" -Force # the same disk in another file
        Write-DiskImage "$set/changed.qcow2" 0 1, 2, 3
        [IO.File]::WriteAllBytes("$set/damaged.qcow2", [IO.File]::ReadAllBytes("$set/damaged.qcow2")[0..99])
        Remove-Item "$set/gone.qcow2"
        $rows = & "$examples/Test-BackupSet.ps1" $set | Sort-Object Name
        $rows.Name | Should -Be 'changed.qcow2', 'damaged.qcow2', 'gone.qcow2', 'same.qcow2'
        $rows.State | Should -Be 'Changed', 'Damaged', 'Missing', 'Good'
        $rows[1].Problem | Should -Match 'damaged\.qcow2'
        $global:LASTEXITCODE | Should -Be 3
    }
}

Describe 'ConvertTo-CloudDisk.ps1' {
    It 'makes what <Profile> takes' -ForEach @{ Profile = 'Azure'; Format = 'vpc' }, @{ Profile = 'HyperV'; Format = 'vhdx' } {
        $from = (New-Item "$folder/$Profile" -ItemType Directory).FullName
        $null = New-TestDisk "$from/server.raw" -Size (20MB + 512) -Seed 331
        $row = Get-Item "$from/server.raw" | & "$examples/ConvertTo-CloudDisk.ps1" -Destination "$from/upload" -Profile $Profile -WarningAction SilentlyContinue
        $row.Ready | Should -BeTrue
        $row.Refusals | Should -BeNullOrEmpty
        (Get-DiskImageInfo $row.Path).Format | Should -Be $Format
        (Compare-DiskImage "$from/server.raw" $row.Path).Identical | Should -BeTrue
    }
}

Describe 'Merge-ImageChain.ps1' {
    It 'makes an image stand alone and leaves what it stood on as it was' {
        $vms = (New-Item "$folder/chain" -ItemType Directory).FullName
        $null = New-TestDisk "$vms/disk.raw" -Size 1MB -Seed 341
        $null = Convert-DiskImage "$vms/disk.raw" "$vms/base.qcow2" -Format raw
        $null = New-DiskImage "$vms/middle.qcow2" -BackingPath base.qcow2 -BackingFormat qcow2
        $null = New-DiskImage "$vms/top.qcow2" -BackingPath middle.qcow2 -BackingFormat qcow2
        Write-DiskImage "$vms/top.qcow2" 4096 ([byte[]](1..100))
        $before = (Get-DiskImageHash "$vms/top.qcow2").Hash
        $below = (Get-FileHash "$vms/middle.qcow2").Hash
        if (-not $IsWindows) {
            [IO.File]::SetUnixFileMode("$vms/top.qcow2", 'UserRead, UserWrite')
        }

        Get-ChildItem "$vms/*.qcow2" | & "$examples/Merge-ImageChain.ps1" -MinimumDepth 3 -WhatIf | Should -BeNullOrEmpty
        $made = Get-ChildItem "$vms/*.qcow2" | & "$examples/Merge-ImageChain.ps1" -MinimumDepth 3
        @($made).Path | Should -Be (Join-Path $vms 'top.qcow2')
        $made.BackingFile | Should -BeNullOrEmpty
        (Get-DiskImageHash "$vms/top.qcow2").Hash | Should -Be $before
        (Get-FileHash "$vms/middle.qcow2").Hash | Should -Be $below
        @(Get-ChildItem $vms -Filter *.flat).Count | Should -Be 0
        $IsWindows -or [IO.File]::GetUnixFileMode("$vms/top.qcow2") -eq 'UserRead, UserWrite' | Should -BeTrue
    }
}

Describe 'docs/fleet.md' {
    It 'has a recipe that runs: <_>' -ForEach '-Parallel', '-Profile Azure -Verify', '-BasePath base.qcow2' {
        $word = $_
        $text = [IO.File]::ReadAllText("$RepositoryRoot/docs/fleet.md").ReplaceLineEndings("`n")
        $code = @([regex]::Matches($text, '(?s)```powershell\n(.*?)```').ForEach{ $_.Groups[1].Value } | Where-Object { $_.Contains($word) })
        $code.Count | Should -Be 1
        $fleet = (New-Item "$folder/fleet$($word.Length)" -ItemType Directory).FullName
        Push-Location $fleet
        try {
            $null = New-Item out -ItemType Directory
            $null = New-TestDisk "$fleet/disk.raw" -Size 1MB -Seed 351
            $null = Convert-DiskImage disk.raw server.qcow2 -Format raw
            $null = Convert-DiskImage disk.raw base.qcow2 -Format raw
            $null = New-DiskImage top.qcow2 -BackingPath base.qcow2 -BackingFormat qcow2
            Write-DiskImage top.qcow2 0 1, 2, 3
            $expected = (Get-DiskImageHash top.qcow2).Hash
            $output = @(& ([scriptblock]::Create($code[0].Replace('Import-Module DiskImage', "Import-Module '$ModuleManifest'").Replace('Destination out', "Destination '$fleet/out'"))) 2>&1)
            $output | Where-Object { $_ -is [System.Management.Automation.ErrorRecord] } | Should -BeNullOrEmpty
            $output.Count | Should -BeGreaterThan 0
            if ($word -like '*base*') {
                (Get-DiskImageHash base.qcow2).Hash | Should -Be $expected
                Test-Path top.qcow2 | Should -BeFalse
            }
        } finally {
            Pop-Location
        }
    }
}
