BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    . "$PSScriptRoot/Interrupt.ps1"
}

Describe 'Get-DiskImageFormat' {
    It 'lists the formats by name' {
        $formats = Get-DiskImageFormat
        $formats | Should -BeOfType DiskImage.PowerShell.DiskImageFormat
        $formats.Name | Should -Contain 'raw'
        $formats.Name | Should -Contain 'qcow2'
        $formats.Name | Sort-Object | Should -Be $formats.Name
    }

    It 'takes names, wildcards and the pipeline' {
        (Get-DiskImageFormat qcow2).Name | Should -Be 'qcow2'
        (Get-DiskImageFormat QCOW*).Name | Should -Contain 'qcow2'
        ('raw', 'qcow2' | Get-DiskImageFormat).Name | Should -Be 'raw', 'qcow2'
        ([pscustomobject]@{ Format = 'raw' } | Get-DiskImageFormat).Name | Should -Be 'raw'
        Get-DiskImageFormat nothing* | Should -BeNullOrEmpty
    }

    It 'goes on after a bad name' {
        (Get-DiskImageFormat nothing, raw -ErrorAction SilentlyContinue -ErrorVariable problems).Name | Should -Be 'raw'
        Format-Error $problems | Should -Be 'DiskImageNotFound ObjectNotFound'
        $problems[0].TargetObject | Should -Be 'nothing'
    }

    It 'tells what a format can do' {
        $format = Get-DiskImageFormat qcow2
        $format.CanCreate | Should -BeTrue
        $format.CanHaveBacking | Should -BeTrue
        $format.Extensions[0] | Should -Be '.qcow2'
        (Get-DiskImageFormat raw).CanHaveBacking | Should -BeFalse
        $format.Abilities | Should -Be Create, Measure, Amend, Check, Repair, Rebase, Empty, Compact, Compress, Snapshot, Bitmap
        (Get-DiskImageFormat raw).Abilities | Should -Be Create, Measure
        (Get-DiskImageFormat vpc).Abilities | Should -Be Create, Measure, Amend, Check, Repair, Rebase, Empty, Compact
    }

    It 'lists options with the defaults and parameters that the cmdlets have' {
        $path = Join-Path $TestDrive 'a.qcow2'
        $parameters = (Get-Command New-DiskImage -ArgumentList $path).Parameters
        foreach ($option in (Get-DiskImageFormat qcow2).CreateOptions | Where-Object Name -NotIn 'size', 'backing_file', 'backing_fmt') {
            $option.Format | Should -Be 'qcow2'
            $option.Description | Should -Not -BeNullOrEmpty
            $option.Allowed | Should -Not -BeNullOrEmpty
            $parameters.Keys | Should -Contain $option.Parameter
            if ($option.Default) {
                $null = New-DiskImage $path 1MB -Force -Option "$($option.Name)=$($option.Default)"
            }
        }

        (Get-DiskImageFormat qcow2).CreateOptions.Where{ $_.Name -eq 'cluster_size' }.Default | Should -Be '64k'
    }

    It 'fits in 80 columns' {
        foreach ($text in (Get-DiskImageFormat | Out-String -Width 80), ((Get-DiskImageFormat qcow2).CreateOptions | Out-String -Width 80)) {
            $text | Should -Match 'Description'
            $text | Should -Not -Match '…'
            $text -split '\r?\n' | ForEach-Object { $_.Length | Should -BeLessOrEqual 80 }
        }
    }

    It 'completes names' {
        Get-Completion 'Get-DiskImageFormat q' | Should -Contain 'qcow2'
    }

    It 'knows VHD by the name that people call it' {
        (Get-DiskImageFormat vhd).Name | Should -Be 'vpc'
        (Get-DiskImageFormat vhd*).Name | Should -Be 'vhdx', 'vpc'
        Get-Completion 'Get-DiskImageFormat vhd' | Should -Be 'vhd', 'vhdx'
        Get-Completion 'Convert-DiskImage a b -DestinationFormat vhd' | Should -Be 'vhd', 'vhdx'
        Get-Completion 'Get-DiskImageFormat ' | Should -Not -Contain 'vhd'
        $path = Join-Path $TestDrive 'called.img'
        (New-DiskImage $path 1MB -Format vhd).Format | Should -Be 'vpc'
        (Get-DiskImageInfo $path -Format vhd).Format | Should -Be 'vpc'
        (Measure-DiskImage -SizeBytes 1MB -DestinationFormat vhd).Format | Should -Be 'vpc'
    }
}
