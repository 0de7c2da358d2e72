BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    $folder = Join-Path $TestDrive 'get snapshot'
    $null = New-Item $folder -ItemType Directory
    Push-Location $folder
    $null = New-TestDisk "$folder/disk.raw" -Size 1MB -Seed 81
    $null = Convert-DiskImage disk.raw disk.qcow2
    foreach ($name in 'installed', 'trial 1', 'trial 2') {
        $null = New-DiskImageSnapshot disk.qcow2 $name
    }
}

AfterAll { Pop-Location }

Describe 'Get-DiskImageSnapshot' {
    It 'lists what is there, as qemu-img does' {
        $snapshots = Get-DiskImageSnapshot disk.qcow2
        $snapshots | Should -BeOfType DiskImage.PowerShell.DiskImageSnapshot
        $snapshots.Name | Should -Be 'installed', 'trial 1', 'trial 2'
        $snapshots.Id | Should -Be '1', '2', '3'
        $snapshots.VirtualSize | Should -Be 1MB, 1MB, 1MB
        $snapshots[0].Path | Should -Be (Join-Path $folder "disk.qcow2")
        $snapshots[0].ImagePath | Should -Be (Join-Path $folder "disk.qcow2")
        $info = Invoke-Qemu qemu-img info --output=json disk.qcow2 | Out-String | ConvertFrom-Json
        ([DateTimeOffset]$snapshots[0].Date).ToUnixTimeSeconds() | Should -Be $info.snapshots[0].'date-sec'
    }

    It 'finds by name, pattern and identifier' {
        (Get-DiskImageSnapshot disk.qcow2 installed).Id | Should -Be '1'
        (Get-DiskImageSnapshot disk.qcow2 -Name 'trial *').Id | Should -Be '2', '3'
        (Get-DiskImageSnapshot disk.qcow2 -Name 2).Name | Should -Be 'trial 1'
        (Get-DiskImageSnapshot disk.qcow2 -Name 'trial 2', installed).Id | Should -Be '1', '3'
        Get-DiskImageSnapshot disk.qcow2 -Name 'no*' | Should -BeNullOrEmpty
        { Get-DiskImageSnapshot disk.qcow2 -Name no -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageNotFound,*'
    }

    It 'completes names' {
        $line = 'Get-DiskImageSnapshot disk.qcow2 -Name '
        (TabExpansion2 $line $line.Length).CompletionMatches.CompletionText | Should -Be 'installed', "'trial 1'", "'trial 2'"
        $line = 'Convert-DiskImage disk.qcow2 x.raw -Snapshot tr'
        (TabExpansion2 $line $line.Length).CompletionMatches.CompletionText | Should -Be "'trial 1'", "'trial 2'"
    }

    It 'goes on after a bad item, and says that raw images keep none' {
        $found = 'disk.raw', 'nowhere.qcow2', (Get-Item disk.qcow2) | Get-DiskImageSnapshot -ErrorAction SilentlyContinue -ErrorVariable problems
        $found.Count | Should -Be 3
        $problems.FullyQualifiedErrorId -replace ',.*' | Should -Be 'DiskImageUnsupported', 'DiskImageNotFound'
    }

    It 'shows a table within 80 columns' {
        $text = Get-DiskImageSnapshot disk.qcow2 | Out-String -Width 80
        $text | Should -Match 'Id\s+Name\s+Date\s+VmState\s+VirtualSize\s+Image'
        $text | Should -Match 'trial 2 .*disk\.qcow2'
    }
}
