BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    . "$PSScriptRoot/Interrupt.ps1"
    $folder = Join-Path $TestDrive 'qemu-img'
    $null = New-Item $folder -ItemType Directory
    Push-Location $folder
}

AfterAll { Pop-Location }

Describe 'Invoke-QemuImg' {
    It 'returns lines and sets the exit status' {
        $lines = @(Invoke-QemuImg create -f qcow2 a.qcow2 10M)
        $lines.Count | Should -Be 1
        $lines[0] | Should -BeOfType string
        $lines[0] | Should -BeLike "Formatting 'a.qcow2', fmt=qcow2 * size=10485760 *"
        $LASTEXITCODE | Should -Be 0
        (Get-DiskImageInfo a.qcow2).VirtualSize | Should -Be 10MB
        @(Invoke-QemuImg info a.qcow2)[0..2] | Should -Be 'image: a.qcow2', 'file format: qcow2', 'virtual size: 10 MiB (10485760 bytes)'
    }

    It 'takes a whole command line as one text, and options in any of their forms' {
        $null = New-TestDisk "$folder/disk.raw" -Size 1MB -Seed 5
        Invoke-QemuImg "convert -p -f raw -Oqcow2 -o 'cluster_size=4k' disk.raw b.qcow2" | Should -BeNullOrEmpty
        $LASTEXITCODE | Should -Be 0
        (Compare-DiskImage disk.raw b.qcow2).Identical | Should -BeTrue
        (Invoke-QemuImg info --output=json b.qcow2 | ConvertFrom-Json).'cluster-size' | Should -Be 4096
        Invoke-QemuImg compare '-F' qcow2 -f raw disk.raw b.qcow2 | Should -Be 'Images are identical.'
    }

    It 'tells errors as errors, with the exit status' {
        Invoke-QemuImg info nowhere.qcow2 -ErrorAction SilentlyContinue -ErrorVariable problems | Should -BeNullOrEmpty
        $LASTEXITCODE | Should -Be 1
        @($problems).Count | Should -Be 1
        $problems[0].FullyQualifiedErrorId | Should -Be 'QemuImg,DiskImage.PowerShell.InvokeQemuImgCommand'
        $problems[0].Exception.Message | Should -BeLike "qemu-img: Could not open 'nowhere.qcow2': *"
        { Invoke-QemuImg nothing -ErrorAction Stop } | Should -Throw 'qemu-img: Command not found: nothing'
        $null = Invoke-QemuImg compare a.qcow2 b.qcow2
        $LASTEXITCODE | Should -Be 1
        $null = New-DiskImage c.raw 1MB
        $null = Invoke-QemuImg check c.raw -ErrorAction SilentlyContinue
        $LASTEXITCODE | Should -Be 63
    }

    It 'takes relative paths from the current location' {
        $null = New-Item inner -ItemType Directory
        Push-Location inner
        try {
            $null = Invoke-QemuImg create -f raw here.raw 1M
        } finally {
            Pop-Location
        }

        Test-Path inner/here.raw | Should -BeTrue
    }

    It 'leaves nothing behind at Ctrl+C' {
        New-NoiseFile "$folder/noise.raw" 64 3
        $stopped = Invoke-Interrupted Invoke-QemuImg @{
            ArgumentList = 'convert', '-f', 'raw', '-O', 'qcow2', '-c', "$folder/noise.raw", "$folder/stopped.qcow2"
        } -When { Test-Begun $folder }
        $stopped.State | Should -BeIn 'Stopped', 'Completed'
        if ($stopped.State -eq 'Stopped') {
            Test-Path stopped.qcow2 | Should -BeFalse
        }

        Get-Unfinished $folder | Should -BeNullOrEmpty
    }
}
