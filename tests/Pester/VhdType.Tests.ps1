BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    $folder = Join-Path $TestDrive 'vhdtype'
    $null = New-Item $folder -ItemType Directory
    Push-Location $folder
    $null = New-TestDisk "$folder/disk.raw" -Size 4MB -Seed 311

    function Get-Kind([object] $Info) {
        $Info.FormatSpecific.DiskType ?? $Info.FormatSpecific.Subformat
    }
}

AfterAll { Pop-Location }

Describe 'The kinds of VHD and VHDX: <_>' -ForEach 'vhd', 'vhdx' {
    BeforeAll { $ending = $_ }

    It 'New-DiskImage has them as New-VHD' {
        Get-Kind (New-DiskImage "fixed.$ending" 4MB -Fixed -Force) | Should -Be 'Fixed'
        Get-Kind (New-DiskImage "dynamic.$ending" 4MB -Dynamic -Force) | Should -Be 'Dynamic'
        Get-Kind (New-DiskImage "child.$ending" -ParentPath "dynamic.$ending" -Differencing -Force) | Should -Be 'Differencing'
    }

    It 'Convert-DiskImage has them, as switches and as Convert-VHD does' {
        $null = Convert-DiskImage disk.raw "base.$ending" -Dynamic -Force
        foreach ($how in @{ Fixed = $true }, @{ VHDType = 'Fixed' }) {
            Get-Kind (Convert-DiskImage "base.$ending" "out.$ending" @how -Verify -Force) | Should -Be 'Fixed'
            (Get-Item "out.$ending").Length | Should -BeGreaterThan 4MB
        }
        Get-Kind (Convert-DiskImage "base.$ending" "out.$ending" -VHDType Dynamic -Force) | Should -Be 'Dynamic'
        Get-Kind (Convert-DiskImage "base.$ending" "out.$ending" -VHDType Differencing -ParentPath "base.$ending" -Force) | Should -Be 'Differencing'
        (Compare-DiskImage disk.raw "out.$ending").Identical | Should -BeTrue
    }

    It 'refuses <Case>' -ForEach @(
        @{ Case = 'two of them'; Given = @{ Fixed = $true; Dynamic = $true }; Says = '*-Fixed and -Dynamic exclude each other*' }
        @{ Case = 'an option that says otherwise'; Given = @{ Fixed = $true; Option = 'subformat=dynamic' }; Says = '*-Fixed contradicts subformat=dynamic*' }
        @{ Case = 'a parent of a fixed disk'; Given = @{ Fixed = $true; BackingPath = "base.$ending" }; Says = '*-Fixed contradicts a backing image*' }
        @{ Case = 'a parent of a dynamic disk'; Given = @{ Dynamic = $true; BackingPath = "base.$ending" }; Says = '*-Dynamic contradicts a backing image*' }
        @{ Case = 'differencing without a parent'; Given = @{ Differencing = $true }; Says = '*-Differencing needs the parent*' }
    ) {
        $null = New-DiskImage "base.$ending" 4MB -Force
        { New-DiskImage "new.$ending" 4MB @Given -ErrorAction Stop } | Should -Throw $Says -ErrorId 'DiskImageInvalidOption,*'
        { Convert-DiskImage disk.raw "new.$ending" @Given -ErrorAction Stop } | Should -Throw $Says -ErrorId 'DiskImageInvalidOption,*'
        "new.$ending" | Should -Not -Exist
    }

    It 'takes an option that says the same' {
        Get-Kind (New-DiskImage "fixed.$ending" 4MB -Fixed -Option subformat=fixed -Force) | Should -Be 'Fixed'
    }
}

Describe 'Elsewhere' {
    It 'the kinds are refused for <_>' -ForEach 'new.qcow2', 'new.raw', 'new.vdi' {
        { New-DiskImage $_ 4MB -Fixed -ErrorAction Stop } | Should -Throw '*-Fixed is for VHD and VHDX*' -ErrorId 'DiskImageInvalidOption,*'
        { Convert-DiskImage disk.raw $_ -VHDType Dynamic -ErrorAction Stop } | Should -Throw '*-VHDType Dynamic is for VHD and VHDX*' -ErrorId 'DiskImageInvalidOption,*'
        $_ | Should -Not -Exist
    }

    It 'a profile agrees with one kind and contradicts the others' {
        Get-Kind (New-DiskImage azure.vhd 20MB -Profile Azure -Fixed) | Should -Be 'Fixed'
        { New-DiskImage new.vhd 20MB -Profile Azure -Dynamic -ErrorAction Stop } | Should -Throw '*by -Dynamic and by -Profile*' -ErrorId 'DiskImageInvalidOption,*'
    }

    It 'VHDType completes' {
        [Management.Automation.CommandCompletion]::CompleteInput('Convert-DiskImage a b.vhdx -VHDType D', 37, $null).CompletionMatches.CompletionText |
            Should -Be 'Differencing', 'Dynamic'
    }
}
