BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    . "$PSScriptRoot/Interrupt.ps1"
    $folder = Join-Path $TestDrive 'lock'
    $null = New-Item $folder -ItemType Directory
    Push-Location $folder
    $null = New-DiskImage disk.qcow2 1MB

    # A QEMU that has an image open, and has done one thing with it.
    function Start-Holder([string] $Name, [string] $Command, [string] $Format) {
        $start = [Diagnostics.ProcessStartInfo]::new('qemu-io', [string[]]('-f', $Format, $Name))
        $start.WorkingDirectory = $folder
        $start.RedirectStandardInput = $start.RedirectStandardOutput = $true
        $holder = [Diagnostics.Process]::Start($start)
        $holder.StandardInput.WriteLine($Command)
        $holder.StandardInput.Flush()
        $null = $holder.StandardOutput.ReadLine()
        $holder
    }
}

AfterAll { Pop-Location }

Describe 'Get-DiskImageLock' {
    It 'gives nothing for an image that nobody has open, and an error for one that is not there' {
        Get-DiskImageLock disk.qcow2 | Should -BeNullOrEmpty
        Get-DiskImageLock nowhere.qcow2 -ErrorAction SilentlyContinue -ErrorVariable problems
        Format-Error $problems | Should -Be 'DiskImageNotFound ObjectNotFound'
        Get-DiskImageLock null-co:// -ErrorAction SilentlyContinue -ErrorVariable problems
        "$problems" | Should -BeLike '*only files of this machine are locked*'
    }

    It 'names a QEMU that has it open, as the refusal does; -Locking Off passes by' {
        Skip-Without qemu-io
        $holder = Start-Holder disk.qcow2 'read 0 512' qcow2
        try {
            $lock = Get-Item disk.qcow2 | Get-DiskImageLock
            $lock | Should -BeOfType DiskImage.PowerShell.DiskImageLock
            $lock.ProcessId | Should -Be $holder.Id
            $lock.ProcessName | Should -Be 'qemu-io'
            $lock.Uses | Should -Contain 'Write'
            $lock.Refuses | Should -Contain 'Resize'
            $lock.Path | Should -Be (Join-Path $folder disk.qcow2)
            Get-DiskImageInfo disk.qcow2 -ErrorAction SilentlyContinue -ErrorVariable problems
            "$problems" | Should -BeLike "*qemu-io (process $($holder.Id)) has the image open*-ForceShare*"
            (Get-DiskImageInfo disk.qcow2 -Locking Off).VirtualSize | Should -Be 1MB
            (Get-DiskImageInfo disk.qcow2 -ForceShare).VirtualSize | Should -Be 1MB
        } finally {
            $holder.Kill()
            $holder.WaitForExit()
        }

        Get-DiskImageLock disk.qcow2 | Should -BeNullOrEmpty
    }

    It 'lets a backing image be read that is being written to if New-DiskImage is told not to ask' {
        Skip-Without qemu-io
        $holder = Start-Holder disk.qcow2 'write 0 512' qcow2
        try {
            { New-DiskImage over.qcow2 -BackingPath disk.qcow2 -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageLocked,*'
            'over.qcow2' | Should -Not -Exist
            (New-DiskImage over.qcow2 -BackingPath disk.qcow2 -Locking Off).BackingFile | Should -Be 'disk.qcow2'
        } finally {
            $holder.Kill()
            $holder.WaitForExit()
        }
    }

    It 'writes to a raw disk beside a QEMU that does' {
        Skip-Without qemu-io
        $null = New-DiskImage shared.raw 1MB -Format raw
        $holder = Start-Holder shared.raw 'write -P 5 0 512' raw
        try {
            { Write-DiskImage shared.raw 0 1 -Format raw -ErrorAction Stop } | Should -Throw -ErrorId 'DiskImageLocked,*'
            Write-DiskImage shared.raw 512 7 -Format raw -ImageOption 'share-rw=on'
            (Read-DiskImage shared.raw 511 2 -Format raw -ImageOption 'share-rw=on') -join ' ' | Should -Be '5 7'
        } finally {
            $holder.Kill()
            $holder.WaitForExit()
        }

        { Write-DiskImage disk.qcow2 0 1 -ImageOption 'share-rw=on' -ErrorAction Stop } | Should -Throw '*share-rw=on*is a qcow2 image*'
    }

    It 'completes -Locking' {
        Get-Completion 'Get-DiskImageInfo a -Locking O' | Should -Be 'Off', 'On'
    }
}
