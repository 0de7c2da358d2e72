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
