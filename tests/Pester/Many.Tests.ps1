# A thousand images in one pipeline: no handle is kept, and memory does not follow their number.
BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    $folder = Join-Path $TestDrive 'many'
    $null = New-Item $folder -ItemType Directory
    $null = New-TestDisk "$folder/one.raw" -Size 1MB -Seed 431
    $null = Convert-DiskImage "$folder/one.raw" "$folder/image0000.qcow2" -Compress -Option 'cluster_size=4k'
    foreach ($i in 1..999) {
        [IO.File]::Copy("$folder/image0000.qcow2", "$folder/image$($i.ToString('0000')).qcow2")
    }

    # Open files of this process; on Windows handles of any kind.
    function Get-OpenCount {
        $IsWindows ? (Get-Process -Id $PID).HandleCount : @(Get-ChildItem ($IsLinux ? '/proc/self/fd' : '/dev/fd')).Count
    }

    function Get-LiveMemory {
        foreach ($i in 1..3) {
            [GC]::Collect()
            [GC]::WaitForPendingFinalizers()
        }

        [GC]::GetTotalMemory($true)
    }
}

Describe 'A thousand images in one pipeline, <Name>' -ForEach @(
    @{ Name = 'described'; Work = { Get-DiskImageInfo } }
    @{ Name = 'mapped'; Work = { Get-DiskImageMap -Length 64KB } }
    @{ Name = 'read'; Work = { Read-DiskImage -Offset 0 -Length 4096 } }
) {
    It 'leave no handle open and no memory taken' {
        $cmdlet = $Work.Ast.EndBlock.Statements[0].Extent.Text
        $once = [scriptblock]::Create("param(`$files) `$files | $cmdlet | ForEach-Object { `$global:seen++ }")
        $files = @(Get-ChildItem $folder -Filter *.qcow2)
        $files.Count | Should -Be 1000
        & $once $files[0..99] # what is loaded once
        $handles = Get-OpenCount
        $memory = Get-LiveMemory
        $global:seen = 0
        & $once $files
        $global:seen | Should -BeGreaterOrEqual 1000
        (Get-LiveMemory) - $memory | Should -BeLessThan 4MB # an image that stayed open would keep its caches: 1,000 of them tens of MB
        if ($IsWindows) {
            (Get-OpenCount) - $handles | Should -BeLessThan 100 # threads and events come and go
        } else {
            (Get-OpenCount) - $handles | Should -BeLessOrEqual 5
        }
    }
}
